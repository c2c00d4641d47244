r"""Radial kernels under a Mahalanobis metric M: k_M(x, z) = exp(−exponent(‖x − z‖_M, L)), formed in blocks of rows.

The literature differs in what it calls the bandwidth and the M-norm. Here both are functions that one passes, `exponent` and `norm`:

| kernel | says who | made by |
|---|---|---|
| exp(−‖Δ‖_M / L), ‖Δ‖_M = √(ΔᵀMΔ) | the authors' code, L = 10 | `laplace(L)` |
| exp(−‖Δ‖_M² / (2L²)) | the authors' code | `gaussian(L)` |
| exp(−ΔᵀMΔ / L) | Mallinar et al., L = 2.5, read with the root as the norm | `gaussian(L, exponent=square_over_bandwidth)` |
| exp(−(ΔᵀMΔ)² / L) | the same, to the letter: they call ΔᵀMΔ the M-norm | `gaussian(L, exponent=square_over_bandwidth, norm=form)` |

The last is no positive definite function, so that K + ridge · I may have no Cholesky factor (the results are NaN then).

A kernel is a function of q = (x − z)ᵀ M (x − z) alone, and knows its slope dk/dq: gradients of predictors are sums of 2 k'(q) M (x − z).

References:
    The code of A. Radhakrishnan et al., arXiv 2212.13881 (`recursive_feature_machines`). N. Mallinar et al., ICML 2025.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxdyn import geometry

MEMORY = 2**28
"""Bytes that a block of rows may take, unless told otherwise."""

FEW = 32
"""Coordinates up to which distances are sums of squared differences."""

Exponent = Callable[[Any, Any], Any]
"""A function `(norm, bandwidth) -> number`: how the norm of a difference enters the exponential."""

Norm = Callable[[Any], Any]
"""A function of q = ΔᵀMΔ: what is called the M-norm of Δ."""


def root(q: Any) -> Any:
    """The M-norm as a norm, √(ΔᵀMΔ)."""
    return jnp.sqrt(q)


def form(q: Any) -> Any:
    """The quadratic form ΔᵀMΔ itself, called M-norm by some."""
    return q


def over_bandwidth(norm: Any, bandwidth: Any) -> Any:
    """‖Δ‖ / L."""
    return norm / bandwidth


def square_over_two_squares(norm: Any, bandwidth: Any) -> Any:
    """‖Δ‖² / (2L²)."""
    return norm**2 / (2 * bandwidth**2)


def square_over_bandwidth(norm: Any, bandwidth: Any) -> Any:
    """‖Δ‖² / L."""
    return norm**2 / bandwidth


@dataclass(frozen=True)
class Kernel:
    """k = exp(−exponent(norm(q), bandwidth)), a function of q = (x − z)ᵀ M (x − z). Make it with `laplace` or `gaussian`.

    Attributes:
        bandwidth: L, in the units that `exponent` gives it.
        exponent: how the norm enters.
        norm: what is called the M-norm, as a function of q.
    """

    bandwidth: float
    exponent: Exponent
    norm: Norm

    def __call__(self, q: Float[Array, "..."]) -> Float[Array, "..."]:
        """The kernel at given q."""
        return jnp.exp(-self.exponent(self.norm(q), self.bandwidth))

    def slope(self, q: Float[Array, "..."]) -> Float[Array, "..."]:
        """Its derivative dk/dq, and zero at q = 0."""
        is_apart = q > 0
        apart = jnp.where(is_apart, q, 1.0)
        _, slope = jax.jvp(self, (apart,), (jnp.ones_like(apart),))
        return jnp.where(is_apart, slope, 0.0)


def laplace(bandwidth: float, *, norm: Norm = root) -> Kernel:
    """The Laplace kernel exp(−‖x − z‖_M / L).

    Args:
        bandwidth: L > 0.
        norm: `root` or `form`.

    Raises:
        ValueError: for a bandwidth that is not positive.

    Example:
        >>> round(float(laplace(10.0)(jnp.array(4.0))), 4)  # q = 4, so ‖Δ‖_M = 2
        0.8187
    """
    return Kernel(_positive(bandwidth), over_bandwidth, norm)


def gaussian(bandwidth: float, *, exponent: Exponent = square_over_two_squares, norm: Norm = root) -> Kernel:
    """The Gaussian kernel exp(−‖x − z‖_M² / (2L²)), or in another convention.

    Args:
        bandwidth: L > 0.
        exponent: `square_over_two_squares` or `square_over_bandwidth`.
        norm: `root` or `form`.

    Raises:
        ValueError: for a bandwidth that is not positive.

    Example:
        >>> q = jnp.array(4.0)
        >>> round(float(gaussian(2.0)(q)), 4), round(float(gaussian(2.0, exponent=square_over_bandwidth)(q)), 4)
        (0.6065, 0.1353)
    """
    return Kernel(_positive(bandwidth), exponent, norm)


def gram(
    kernel: Kernel,
    metric: Float[Array, "d d"],
    x1: Float[Array, "n1 d"],
    x2: Float[Array, "n2 d"],
    *,
    ridge: Num[Array, ""] | float | int = 0.0,
    memory: int = MEMORY,
) -> Float[Array, "n1 n2"]:
    """The kernel k_M(x1, x2) between two sets of inputs.

    Points that differ by rounding alone coincide: their distance is zero. Other distances err by less than one in a hundred in the
    worst case (`squares`), whatever the origin and the scale of the inputs.

    Args:
        kernel: k.
        metric: M, [d, d].
        x1: inputs [n1, d].
        x2: inputs [n2, d].
        ridge: added to the diagonal block by block, so that no second matrix of that size is made.
        memory: bytes for a block of rows.

    Example:
        >>> x = jnp.array([[0.0, 0.0], [3.0, 9.0]])
        >>> gram(laplace(3.0), jnp.diag(jnp.array([1.0, 0.0])), x, x)[0].round(2).tolist()  # blind to the second coordinate
        [1.0, 0.3700000047683716]
    """
    with jax.default_matmul_precision("highest"):
        far, near, _ = projected(metric, x1, x2)
        columns = jnp.arange(len(near))[None, :]

        def rows(block: Any, index: Any) -> Any:
            return kernel(squares(block, near)) + jnp.where(index[:, None] == columns, ridge, 0.0).astype(block.dtype)

        return by_rows(rows, far, len(near), block_size(near, memory))


def projected(metric: Any, x1: Any, x2: Any) -> tuple[Any, Any, Any]:
    """M^½ (x − centre) of two sets of inputs, in which the distance is Euclidean, and M^½; the centre keeps numbers small."""
    half = geometry.matrix_power(metric, 0.5)
    centre = jnp.mean(x2, axis=0, keepdims=True)
    return (x1 - centre) @ half, (x2 - centre) @ half, half


def squares(a: Any, b: Any) -> Any:
    """‖a_i − b_j‖², [n1, n2]; zero where a_i and b_j differ by rounding alone.

    In more than `FEW` dimensions by ‖a‖² + ‖b‖² − 2 a·b, one product of matrices, whose error is about 4 √d ε (‖a‖² + ‖b‖²). Where that is
    more than a hundredth of the distance, differences are taken coordinate by coordinate: always for the nearest b of each a, which may be
    a itself, and for all where another is as near.
    """
    sizes = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None, :]
    if 0 in sizes.shape:
        return sizes
    eps = float(jnp.finfo(a.dtype).eps)

    def differences() -> Any:
        total = jnp.zeros_like(sizes)
        for start in range(0, a.shape[1], FEW):  # unrolled by `FEW`: each pass over [n1, n2] adds so many coordinates
            pairs = zip(a.T[start : start + FEW], b.T[start : start + FEW], strict=True)
            total = total + sum((one[:, None] - other[None, :]) ** 2 for one, other in pairs)
        return total

    if a.shape[1] <= FEW:
        found = differences()
    else:
        expanded = sizes - 2 * (a @ b.T)
        nearest = jnp.argmin(expanded / jnp.where(sizes > 0, sizes, 1.0), axis=1)
        is_nearest = jnp.arange(len(b))[None, :] == nearest[:, None]
        is_lost = expanded <= 400 * math.sqrt(a.shape[1]) * eps * sizes
        exact = jnp.where(is_nearest, jnp.sum((a - b[nearest]) ** 2, axis=1)[:, None], expanded)
        found = jax.lax.cond(jnp.any(is_lost & ~is_nearest), differences, lambda: exact)
    return jnp.where(found <= (8 * eps) ** 2 * sizes, 0.0, found)


def cancels(q: Any, sizes: Any) -> Any:
    """Whether q is so small beside ‖a‖² + ‖b‖² that a difference of sums loses two digits or more."""
    return q < 0.01 * sizes


def by_rows(rows: Callable[[Any, Any], Any], x: Any, width: int, size: int) -> Any:
    """`rows(x[block], indices)` written block by block into one array [n, width]; the last block reaches back over the one before."""
    if not len(x):
        return jnp.zeros((0, width), x.dtype)
    size = min(size, len(x))

    def write(i: Any, out: Any) -> Any:
        start = jnp.minimum(i * size, len(x) - size)
        block = rows(jax.lax.dynamic_slice_in_dim(x, start, size), start + jnp.arange(size))
        return jax.lax.dynamic_update_slice_in_dim(out, block, start, 0)

    return jax.lax.fori_loop(0, -(-len(x) // size), write, jnp.zeros((len(x), width), x.dtype))


def block_size(near: Any, memory: int) -> int:
    """How many rows of n numbers may be worked on at once: a few copies of them are alive."""
    return max(1, memory // max(1, 4 * len(near) * near.dtype.itemsize))


def _positive(bandwidth: float) -> float:
    if not bandwidth > 0:
        raise ValueError(f"`bandwidth` is a length, above 0, but is {bandwidth}.")
    return float(bandwidth)
