"""Infinite-width kernels of dense networks whose activation has no closed form, by Hermite series.

For jointly Gaussian u, v with variances p, q and correlation ρ (Mehler's formula)

    E[σ(u) σ(v)] = Σ_k a_k(p) a_k(q) ρ^k,   a_k(q) = E[σ(√q z) h_k(z)],   h_k the normalised Hermite polynomials,

and the same with σ' for the tangent kernel. The coefficients come from one Gauss–Hermite rule of `degree` nodes an input, the
kernel from `degree` fused passes over the n1 × n2 correlations. A tensor rule costs degree² evaluations of σ a pair instead, 49 s
where this takes a fraction of one (128 digits, tanh, two hidden layers, 2-core CPU).

The degree doubles until the kernel of the most demanding inputs, diagonal included, changes by less than `tolerance`. Functions
with kinks do not get there and are refused. Computed in float64 whatever the inputs.

References:
    Daniely, Frostig, Singer, arXiv 1602.05897 (dual activations). Jacot et al., arXiv 1806.07572 (the recursion).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn.models.base import Kernels

_DEGREES = (25, 50, 100, 200, 400, 800)
_CHECKED = 16  # inputs on which the degree is chosen
_ROWS = 64  # rows of the kernel that are summed at a time, so that they stay in cache


def dense_kernel(
    *, activation: Callable[[Any], Any], num_hidden: int, bias: float, gain: Any
) -> Callable[..., Kernels]:
    """The kernels that `_neural_tangents.dense_kernel` describes, for a smooth activation.

    Returns:
        `(x1: [n1, d], x2: [n2, d], tolerance=1e-8) -> Kernels(nngp, ntk)`, [n1, n2] each, in the default float type. Not traceable: the
        degree follows from the inputs.

    Raises:
        ValueError: (from the kernel) where the series does not settle; the input variance and the change reached are named.
    """

    def kernel(x1: Any, x2: Any, tolerance: float = 1e-8) -> Kernels:
        a, b = concrete(activation, x1), concrete(activation, x2)
        inputs = np.concatenate([a, b])

        def at(one: Any, other: Any, degree: int) -> tuple[Any, Any]:
            return _recursion(activation, num_hidden, bias, gain, jnp.asarray(one), jnp.asarray(other), degree)

        with jax.enable_x64(True):
            sample = inputs[demanding(inputs)]
            degree = settled_degree(lambda degree: at(sample, sample, degree), [activation], inputs, tolerance)
            found = jax.device_get(at(a, b, degree))
        return Kernels(*(jnp.asarray(part, float) for part in found))

    return kernel


def _recursion(
    activation: Any, num_hidden: int, bias: float, gain: Any, x1: Any, x2: Any, degree: int
) -> tuple[Any, Any]:
    with jax.default_matmul_precision("highest"):
        d = x1.shape[1]
        nngp = x1 @ x2.T / d + bias**2
        q1, q2 = (jnp.sum(x**2, axis=1) / d + bias**2 for x in (x1, x2))
        ntk = nngp
        for _ in range(num_hidden):
            moment, slope, q1, q2 = (gain**2 * part for part in moments(activation, nngp, q1, q2, degree))
            nngp, q1, q2 = moment + bias**2, q1 + bias**2, q2 + bias**2
            ntk = nngp + ntk * slope
        return nngp, ntk


def moments(activation: Any, nngp: Any, q1: Any, q2: Any, degree: int) -> tuple[Any, Any, Any, Any]:
    """Gaussian expectations of σ and σ', by a series.

    Args:
        activation: elementwise σ, smooth.
        nngp: covariances E[u v], [n1, n2].
        q1: variances E[u²], [n1].
        q2: variances E[v²], [n2].
        degree: of the series.

    Returns:
        E[σ(u) σ(v)] and E[σ'(u) σ'(v)], [n1, n2]; E[σ(u)²], [n1]; E[σ(v)²], [n2].
    """
    (value1, slope1), (value2, slope2) = (_coefficients(activation, q, degree) for q in (q1, q2))
    scale = jnp.sqrt(q1)[:, None] * jnp.sqrt(q2)[None, :]
    correlation = jnp.clip(jnp.where(scale > 0, nngp / jnp.where(scale > 0, scale, 1.0), 0.0), -1.0, 1.0)
    own1, own2 = (jnp.sum(value**2, axis=1) for value in (value1, value2))
    return _series(value1, value2, correlation), _series(slope1, slope2, correlation), own1, own2


def _coefficients(activation: Any, variances: Any, degree: int) -> tuple[Any, Any]:
    """Hermite coefficients of σ(√q z) and σ'(√q z), [n, degree] each."""
    nodes, basis = _rule(degree)
    points = jnp.sqrt(variances)[:, None] * jnp.asarray(nodes)[None, :]
    slope = jax.vmap(jax.vmap(jax.grad(lambda z: activation(z))))
    with jax.numpy_rank_promotion("allow"):
        return activation(points) @ jnp.asarray(basis), slope(points) @ jnp.asarray(basis)


def _rule(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the Gauss–Hermite rule for N(0, 1), and w_i h_k(z_i) as [degree, degree]."""
    from scipy.special import roots_hermitenorm

    nodes, weights = roots_hermitenorm(degree)
    root = np.sqrt(weights / weights.sum())
    columns = [root, root * nodes]
    for k in range(1, degree - 1):
        columns.append((nodes * columns[k] - np.sqrt(k) * columns[k - 1]) / np.sqrt(k + 1))
    return nodes, np.stack(columns, axis=1) * root[:, None]


@jax.jit
def _series(a: Any, b: Any, correlation: Any) -> Any:
    """Σ_k a_ik b_jk ρ_ij^k by Horner's rule, a block of rows at a time."""

    def block(rows: Any) -> Any:
        own, rho = rows  # [q], [n2]

        def term(k: Any, total: Any) -> Any:
            last = a.shape[1] - 1 - k
            return total * rho + own[last] * jax.lax.dynamic_index_in_dim(b, last, 1, keepdims=False)

        return jax.lax.fori_loop(0, a.shape[1], term, jnp.zeros_like(rho))

    return jax.lax.map(block, (a, correlation), batch_size=_ROWS)


def demanding(inputs: np.ndarray) -> np.ndarray:
    """The rows of largest and smallest variance, on which a degree is chosen."""
    order = np.argsort((inputs**2).mean(axis=1))
    return np.unique(np.concatenate([order[-(_CHECKED // 2) :], order[: _CHECKED // 2]]))


def settled_degree(
    kernels: Callable[[int], Sequence[Any]], activations: Sequence[Any], inputs: np.ndarray, tolerance: float
) -> int:
    """The lowest degree at which kernels have settled.

    Args:
        kernels: `degree -> (nngp, ntk)` of some inputs.
        activations: named where it does not settle.
        inputs: whose largest variance is named.
        tolerance: of the largest change from one degree to the next, relative to the largest entry.

    Raises:
        ValueError: where it does not settle.
    """
    before, change = kernels(_DEGREES[0]), np.inf
    for lower, degree in itertools.pairwise(_DEGREES):
        now = kernels(degree)
        change = max(_change(a, b) for a, b in zip(before, now, strict=True))
        if change < tolerance:
            return lower
        before = now
    name = ", ".join(sorted({getattr(function, "__name__", str(function)) for function in activations}))
    raise ValueError(
        f"The infinite-width kernel of {name} does not settle: at quadrature degree {_DEGREES[-1]} and a largest input variance "
        f"of {(inputs**2).mean(axis=1).max():.3g} it still changes by {change:.1e}, more than the tolerance "
        f"{tolerance:.1e}. Either {name} has a kink (jax.nn.relu, "
        "jax.nn.leaky_relu and jnp.abs themselves have closed forms: pass one of them), or the inputs are too large: scale them to "
        f"variance 1, or accept this accuracy by `kernel(…, tolerance={1.1 * change:.1e})`."
    )


def _change(before: Any, now: Any) -> float:
    """The largest difference relative to the largest entry; 0 between kernels that are zero."""
    largest = jnp.max(jnp.abs(now))
    return float(jnp.max(jnp.abs(before - now)) / jnp.where(largest == 0, 1.0, largest))


def concrete(activation: Any, x: Any) -> np.ndarray:
    """A float64 array; an error where it is traced."""
    try:
        return np.asarray(x, np.float64)
    except jax.errors.TracerArrayConversionError as error:
        name = getattr(activation, "__name__", str(activation))
        raise ValueError(
            f"The kernel of {name} goes by a series whose length follows from the inputs, so it cannot be traced: compute it "
            "outside jit and vmap, or use an activation with a closed form (relu, erf, exact gelu, sin, cos)."
        ) from error
