r"""Recursive feature machines: kernel machines that learn their metric from the gradients of their own predictor.

    M_0 = I;    α = (K_M + ridge · I)⁻¹ y,    f(x) = k_M(x, X) α,    M ← normalise(G(f)^s),    repeated T times,

with k_M(x, z) = exp(−exponent(‖x − z‖_M, L)) and G(f) = 1/n Σ_j Σ_a ∇f_a(x_j) ∇f_a(x_j)ᵀ the average gradient outer product of the
predictor, in closed form: with q = (x − z)ᵀ M (x − z) and κ = dk/dq,

    ∇f_a(x) = 2 M Σ_i κ(q_i) α_ia (x − x_i).

The Laplace kernel has no gradient at coincident points; it counts as zero there. No network is trained.

The kernels, and the conventions in which the literature differs, are in `theory.radial`. M is left as it is (`unnormalised`, the authors'
notebooks) or divided by its largest entry (`by_max`, their package).

Cost of an iteration: n³/3 for the Cholesky factor and n² d (k + 1) for kernel and gradients. Memory: about three n × n arrays, the kernel,
its factor and one in between (5.2 GB in single precision for n = 20 000); everything else goes in blocks of rows.

References:
    A. Radhakrishnan, D. Beaglehole, P. Pandit, M. Belkin, arXiv 2212.13881, and the code of `recursive_feature_machines`.
    N. Mallinar et al., ICML 2025, Def. 2.1 and the kernels of its experiments.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxdyn import geometry, losses
from jaxdyn.theory.radial import MEMORY, Kernel, block_size, by_rows, cancels, gram, projected, squares

Normalise = Callable[[Any], Any]
"""A function `[d, d] -> [d, d]` that every new metric goes through."""


def unnormalised(metric: Any) -> Any:
    """The metric as it is."""
    return metric


def by_max(metric: Any) -> Any:
    """The metric divided by its largest entry."""
    return metric / jnp.max(metric)


class Machine(NamedTuple):
    """A recursive feature machine after T iterations, and how it came there.

    Attributes:
        metrics: M_0, …, M_T, [T + 1, d, d].
        test_mse: test error of the predictor with each of them, [T + 1]: mean over examples, sum over outputs. NaN where K + ridge is
            not positive definite in the arithmetic used.
        alpha: coefficients of the last predictor, [n, k].
    """

    metrics: Float[Array, "t d d"]
    test_mse: Float[Array, " t"]
    alpha: Float[Array, "n k"]


def fit(
    x: Float[Array, "..."],
    y: Float[Array, "..."],
    *,
    x_test: Float[Array, "..."],
    y_test: Float[Array, "..."],
    kernel: Kernel,
    ridge: Num[Array, ""] | float | int,
    iterations: int,
    exponent: float = 1.0,
    normalise: Normalise = unnormalised,
    metric: Float[Array, "d d"] | None = None,
    memory: int = MEMORY,
) -> Machine:
    """Learn the metric.

    Args:
        x: training inputs [n, d].
        y: targets [n, k].
        x_test: test inputs [j, d].
        y_test: their targets [j, k].
        kernel: `laplace(L)`, `gaussian(L)` or any `Kernel`.
        ridge: added to the diagonal of the kernel, ≥ 0; may be traced; 1e-3 in the authors' code.
        iterations: T, how often the metric is replaced; T + 1 predictors are fitted.
        exponent: s in M ← G^s, in (0, 1] as a rule.
        normalise: `unnormalised`, `by_max`, or a function of your own.
        metric: M_0, symmetric and positive semidefinite; the identity when None.
        memory: bytes for a block of rows.

    Returns:
        A `Machine`. In float64 when the inputs are (enable x64); a single-precision kernel needs a ridge above its rounding.

    Raises:
        ValueError: for shapes that do not belong together, an empty set, a negative ridge or number of iterations.

    Example:
        >>> x = jax.random.normal(jax.random.key(0), (80, 4))
        >>> from jaxdyn.theory.radial import laplace
        >>> y = x[:, :1] * x[:, 1:2]  # two of four coordinates matter
        >>> machine = fit(x[:60], y[:60], x_test=x[60:], y_test=y[60:], kernel=laplace(10.0), ridge=1e-3, iterations=3)
        >>> bool(machine.test_mse[-1] < machine.test_mse[0]), jnp.argsort(jnp.diag(machine.metrics[-1]))[2:].sort().tolist()
        (True, [0, 1])
    """
    _check(x, y, x_test, y_test, ridge, iterations)
    start = jnp.eye(x.shape[1], dtype=x.dtype) if metric is None else jnp.asarray(metric, x.dtype)

    def fitted(metric: Any) -> tuple[Any, Any]:
        alpha = solve(kernel, metric, x, y, ridge=ridge, memory=memory)
        outputs = predict(kernel, metric, x, alpha, x_test, memory=memory)
        return alpha, losses.mse(outputs, y_test)

    def iterate(metric: Any, _: Any) -> tuple[Any, Any]:
        alpha, error = fitted(metric)
        gradients = agop(kernel, metric, x, alpha, x, memory=memory)
        return normalise(geometry.matrix_power(gradients, exponent)), (metric, error)

    last, (metrics, errors) = jax.lax.scan(iterate, start, None, length=iterations)
    alpha, error = fitted(last)
    return Machine(jnp.concatenate([metrics, last[None]]), jnp.append(errors, error), alpha)


def solve(
    kernel: Kernel,
    metric: Float[Array, "d d"],
    x: Float[Array, "n d"],
    y: Float[Array, "n k"],
    *,
    ridge: Num[Array, ""] | float | int,
    memory: int = MEMORY,
) -> Float[Array, "n k"]:
    """The coefficients (K + ridge · I)⁻¹ y of kernel ridge regression, by Cholesky's factor.

    Args:
        kernel: k.
        metric: M, [d, d], symmetric and positive semidefinite.
        x: training inputs [n, d].
        y: targets [n, k].
        ridge: ≥ 0, absolute: not multiplied by n.
        memory: bytes for a block of rows.

    Returns:
        α, [n, k]; NaN where the matrix is not positive definite in the arithmetic used.
    """
    matrix = gram(kernel, metric, x, x, ridge=ridge, memory=memory)
    with jax.default_matmul_precision("highest"):
        factor = jax.lax.linalg.cholesky(matrix, symmetrize_input=False)
        half = jax.scipy.linalg.solve_triangular(factor, y, lower=True)
        return jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans=1)


def predict(
    kernel: Kernel,
    metric: Float[Array, "d d"],
    x: Float[Array, "n d"],
    alpha: Float[Array, "n k"],
    points: Float[Array, "j d"],
    *,
    memory: int = MEMORY,
) -> Float[Array, "j k"]:
    """The predictor f(x') = k_M(x', X) α.

    Args:
        kernel: k.
        metric: M, [d, d].
        x: training inputs [n, d].
        alpha: coefficients [n, k].
        points: where, [j, d].
        memory: bytes for a block of rows.
    """
    with jax.default_matmul_precision("highest"):
        far, near, _ = projected(metric, points, x)

        def rows(block: Any, _: Any) -> Any:
            return kernel(squares(block, near)) @ alpha

        return by_rows(rows, far, alpha.shape[1], block_size(near, memory))


def agop(
    kernel: Kernel,
    metric: Float[Array, "d d"],
    x: Float[Array, "n d"],
    alpha: Float[Array, "n k"],
    points: Float[Array, "j d"],
    *,
    memory: int = MEMORY,
) -> Float[Array, "d d"]:
    """The average gradient outer product of the predictor in closed form: mean over points, sum over outputs.

    What `geometry.agop` computes by differentiation, except that coincident points have gradient zero.

    Args:
        kernel: k.
        metric: M, [d, d].
        x: training inputs [n, d].
        alpha: coefficients [n, k].
        points: where the gradients are taken, [j, d]; the training inputs in a recursive feature machine.
        memory: bytes for a block of rows.

    Returns:
        G, [d, d], symmetric.

    Raises:
        ValueError: for no points.
    """
    if not len(points):
        raise ValueError("A mean over `points` needs at least one of them, but there are none.")
    with jax.default_matmul_precision("highest"):
        far, near, half = projected(metric, points, x)
        size = min(block_size(near, memory), len(points))

        def add(i: Any, total: Any) -> Any:
            start = jnp.minimum(i * size, len(points) - size)
            here = jax.lax.dynamic_slice_in_dim(far, start, size)
            q = squares(here, near)
            slope = kernel.slope(q)  # [size, n]
            sizes = jnp.sum(here * here, axis=1)[:, None] + jnp.sum(near * near, axis=1)[None, :]
            is_close = jnp.any((q > 0) & cancels(q, sizes))
            is_new = (start + jnp.arange(size) >= i * size)[:, None]

            def one(total: Any, a: Any) -> tuple[Any, None]:
                """Adds the outer products of Σ_i κ α_i M^½ (x − x_i), [size, d]."""
                weights = slope * a[None, :]
                pull = jax.lax.cond(
                    is_close,
                    lambda: jax.lax.map(lambda row: row[0] @ (row[1] - near), (weights, here[:, None, :])),
                    lambda: jnp.sum(weights, axis=1, keepdims=True) * here - weights @ near,
                )
                pull = jnp.where(is_new, pull, 0.0)
                return total + pull.T @ pull, None

            return jax.lax.scan(one, total, alpha.T)[0]

        total = jax.lax.fori_loop(0, -(-len(points) // size), add, jnp.zeros_like(metric))
        gradients = half @ total @ half * (4.0 / len(points))
        return (gradients + gradients.T) / 2


def _check(x: Any, y: Any, x_test: Any, y_test: Any, ridge: Any, iterations: int) -> None:
    if x.ndim != 2 or x_test.ndim != 2 or x.shape[1] != x_test.shape[1]:
        raise ValueError(
            f"`x` and `x_test` are [n, d] and [j, d], but have the shapes {x.shape} and {x_test.shape}; flatten images with "
            "`x.reshape(len(x), -1)`."
        )
    if y.ndim != 2 or y.shape[0] != x.shape[0] or y_test.shape != (x_test.shape[0], y.shape[1]):
        raise ValueError(
            f"`y` and `y_test` are [n, k] and [j, k] with n = {x.shape[0]} and j = {x_test.shape[0]}, but have the shapes "
            f"{y.shape} and {y_test.shape}."
        )
    if not (x.size and y.size and len(x_test)):
        raise ValueError(
            f"Training and test set need at least one example each, but `x`, `y` and `x_test` have the shapes {x.shape}, {y.shape} and "
            f"{x_test.shape}; a stand-in for a missing test set is the training set."
        )
    if isinstance(ridge, float | int) and not ridge >= 0:
        raise ValueError(f"`ridge` must be at least 0, but is {ridge}.")
    if iterations < 0:
        raise ValueError(f"`iterations` must be at least 0, but is {iterations}.")
