r"""PL*: why gradient descent on an over-parameterised network finds a zero of its loss.

With F(w) ∈ R^N all outputs at all examples (N = n k), r = F(w) − y, J = ∂F/∂w, K = J Jᵀ and the loss L = (c/2) ‖r‖² (`losses`: c = 1 for
`half_sum`, which the papers use),

    ‖∇L‖² = c² rᵀ K r ≥ 2 c λ_min(K) L,          μ-PL* on a set:  ½ ‖∇L(w)‖² ≥ μ L(w),          so μ = c inf λ_min(K).

There is no term L*: the condition makes every stationary point a zero of the loss. If L is β-smooth and μ-PL* on B(w0, R),
R = 2 √(2 β L_0)/μ, then gradient descent with η ≤ 1/β stays in the ball, its path is no longer than R, and

    L(w_t) ≤ (1 − η μ)^t L(w0).

Where F is L_F-Lipschitz and β_F-smooth, η ≤ 1/(c (L_F² + β_F ‖r_0‖)) and R = 2 c L_F ‖r_0‖/μ do. The condition survives in a ball when the
Hessians of the outputs are small and the kernel is well conditioned at the start:

    λ_min(K(w)) ≥ λ_min(K(w0)) − 2 N R sup‖∇f‖ sup‖H_f‖.

The factor 2 is that of ½‖∇L‖² ≥ μL throughout; a reader of ‖∇L‖² ≥ μL has μ twice as large. These are statements about the constants of a
set, which nobody can measure; what is measured along a path is a bound from one side only.

References:
    Liu, Zhu, Belkin, "Loss landscapes and optimization in over-parameterized non-linear systems and neural networks", arXiv 2003.00307.
    Zhu, Liu, Belkin, arXiv 2205.11786, section 4.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn import _tree, geometry
from jaxdyn._typing import Apply, Loss, Params, Scalar
from jaxdyn.losses import Quadratic

Number = Any
"""A number, or an array of them (numpy, JAX, xarray): the closed forms are plain arithmetic."""


class Conditioning(NamedTuple):
    """The ends of the spectrum of the whole tangent kernel K = J Jᵀ, N × N.

    Attributes:
        smallest: λ_min(K); below about N ε λ_max it is rounding.
        largest: λ_max(K).
    """

    smallest: Scalar
    largest: Scalar


class Gradient(NamedTuple):
    """Both sides of the identity ‖∇L‖² = c² rᵀ K r.

    Attributes:
        squared: ‖∇L‖², by automatic differentiation.
        form: c² rᵀ K r, from the kernel.
    """

    squared: Scalar
    form: Scalar


def conditioning(apply: Apply, params: Params, x: Float[Array, "n ..."]) -> Conditioning:
    """λ_min and λ_max of the whole tangent kernel (nk × nk), from the dense kernel: O((nk)³).

    Args:
        apply: the function, `(params, x: [n, *d]) -> [n, k]`.
        params: where.
        x: inputs [n, *d].

    Returns:
        A `Conditioning`. With more rows nk than parameters λ_min is 0, to rounding.

    Example:
        >>> found = conditioning(lambda w, x: x @ w, jnp.ones((3, 1)), jnp.diag(jnp.array([1.0, 2.0, 3.0])))
        >>> [round(float(value), 4) for value in found]
        [1.0, 9.0]
    """
    with jax.default_matmul_precision("highest"):
        values = jnp.linalg.eigvalsh(geometry.as_matrix(geometry.ntk_blocks(apply, params, x)))
    return Conditioning(values[0], values[-1])


def constant(apply: Apply, params: Params, x: Float[Array, "n ..."], *, loss: Loss) -> Scalar:
    """The PL* constant at a point, μ = c λ_min(K(w)): ½‖∇L‖² ≥ μ L there, whatever the targets.

    Args:
        apply: the function.
        params: where.
        x: inputs [n, *d].
        loss: a quadratic loss, which states its c.

    Raises:
        ValueError: for a loss that is not quadratic.

    Example:
        >>> from jaxdyn import losses
        >>> round(float(constant(lambda w, x: x @ w, jnp.ones((2, 1)), 3.0 * jnp.eye(2), loss=losses.half_sum)), 4)
        9.0
    """
    n, k = jax.eval_shape(apply, params, x).shape
    return _quadratic(loss).c(n, k) * conditioning(apply, params, x).smallest


def ratio(apply: Apply, params: Params, x: Float[Array, "n ..."], y: Float[Array, "n k"], *, loss: Loss) -> Scalar:
    """‖∇L‖²/(2L), the largest μ for which the PL* inequality holds at this point; at least c λ_min(K) for a quadratic loss.

    Args:
        apply: the function.
        params: where.
        x: inputs [n, *d].
        y: targets [n, k].
        loss: any loss that is never negative; NaN where it is 0.

    Example:
        >>> from jaxdyn import losses
        >>> x = jnp.diag(jnp.array([1.0, 2.0]))
        >>> float(ratio(lambda w, x: x @ w, jnp.ones((2, 1)), x, jnp.array([[1.0], [0.0]]), loss=losses.half_sum))
        4.0
    """
    with jax.default_matmul_precision("highest"):
        value, slope = jax.value_and_grad(lambda w: loss(apply(w, x), y))(params)
    return _tree.dot(slope, slope) / (2 * value)


def gradient(apply: Apply, params: Params, x: Float[Array, "n ..."], y: Float[Array, "n k"], *, loss: Loss) -> Gradient:
    """Both sides of ‖∇L‖² = c² rᵀ K r, computed independently; they agree to rounding.

    Args:
        apply: the function.
        params: where.
        x: inputs [n, *d].
        y: targets [n, k].
        loss: a quadratic loss.

    Raises:
        ValueError: for a loss that is not quadratic.
    """
    with jax.default_matmul_precision("highest"):
        slope = jax.grad(lambda w: loss(apply(w, x), y))(params)
        residual = apply(params, x) - y
        kernel = geometry.as_matrix(geometry.ntk_blocks(apply, params, x))
        flat = residual.reshape(-1)
        return Gradient(_tree.dot(slope, slope), _quadratic(loss).c(*residual.shape) ** 2 * (flat @ (kernel @ flat)))


def radius(loss0: Number, *, constant: Number, smoothness: Number) -> Any:
    """R = 2 √(2 β L_0)/μ, the ball that holds the whole path of gradient descent and a solution.

    Args:
        loss0: L_0, the loss at the start.
        constant: μ, on the ball.
        smoothness: β, the largest curvature |λ| of the loss Hessian on the ball.

    Example:
        >>> radius(2.0, constant=1.0, smoothness=4.0)
        8.0
    """
    return 2 * (2 * smoothness * loss0) ** 0.5 / constant


def lipschitz_radius(residual0: Number, *, constant: Number, lipschitz: Number, c: Number = 1.0) -> Any:
    """R = 2 c L_F ‖r_0‖/μ, never larger than `radius` with β = c (L_F² + β_F ‖r_0‖).

    Args:
        residual0: ‖F(w0) − y‖.
        constant: μ = c inf λ_min(K), on the ball.
        lipschitz: L_F, the largest ‖J‖ on the ball.
        c: the constant of the loss.

    Example:
        >>> lipschitz_radius(0.5, constant=2.0, lipschitz=3.0)
        1.5
    """
    return 2 * c * lipschitz * residual0 / constant


def lipschitz_rate(residual0: Number, *, lipschitz: Number, smoothness: Number, c: Number = 1.0) -> Any:
    """The largest learning rate of the Lipschitz variant, η = 1/(c (L_F² + β_F ‖r_0‖)).

    Args:
        residual0: ‖F(w0) − y‖.
        lipschitz: L_F, on the ball.
        smoothness: β_F, the Lipschitz constant of J on the ball (operator norm).
        c: the constant of the loss.

    Example:
        >>> lipschitz_rate(0.5, lipschitz=1.0, smoothness=2.0)
        0.5
    """
    return 1 / (c * (lipschitz**2 + smoothness * residual0))


def descent(steps: Number, *, learning_rate: Number, constant: Number) -> Any:
    """(1 − η μ)^t, the factor that the loss has fallen by after t steps, at least; for η ≤ 1/β.

    Args:
        steps: t, one or many.
        learning_rate: η.
        constant: μ.

    Example:
        >>> descent(jnp.arange(3), learning_rate=0.5, constant=1.0).tolist()
        [1.0, 0.5, 0.25]
    """
    return (1 - learning_rate * constant) ** steps


def kernel_drift(*, radius: Number, gradient: Number, hessian: Number) -> Any:
    """2 R sup‖∇f‖ sup‖H_f‖, a bound on |K_ij(w) − K_ij(w0)| for ‖w − w0‖ ≤ R.

    Args:
        radius: R.
        gradient: the largest ‖∇f‖ of an output at an example, on the ball.
        hessian: the largest ‖H_f‖, on the ball.

    Example:
        >>> kernel_drift(radius=1.0, gradient=2.0, hessian=0.25)
        1.0
    """
    return 2 * radius * gradient * hessian


def stable_conditioning(smallest: Number, *, num_rows: int, radius: Number, gradient: Number, hessian: Number) -> Any:
    """λ_min(K(w0)) − 2 N R sup‖∇f‖ sup‖H_f‖, below which λ_min(K) does not fall on the ball; nothing is said where it is negative.

    Args:
        smallest: λ_min(K(w0)).
        num_rows: N = n k.
        radius: R.
        gradient: as in `kernel_drift`.
        hessian: as there.

    Example:
        >>> stable_conditioning(10.0, num_rows=4, radius=1.0, gradient=2.0, hessian=0.25)
        6.0
    """
    return smallest - num_rows * kernel_drift(radius=radius, gradient=gradient, hessian=hessian)


def gaussian_condition_bound(n: int, m: int) -> float:
    """2 log(m/(m − n + 1)) + 5, above E log κ(K) for K = J Jᵀ with J [n, m] of independent N(0, 1) entries, κ = λ_max/λ_min.

    Args:
        n: rows (equations).
        m: columns (parameters), at least n.

    Raises:
        ValueError: for fewer parameters than equations.

    Example:
        >>> round(gaussian_condition_bound(10, 1000), 3)
        5.018
    """
    _check_sizes(n, m)
    return 2 * math.log(m / (m - n + 1)) + 5


def singular_codimension(n: int, m: int) -> int:
    """Codimension of the singular n × m matrices, m − n + 1: the more parameters, the rarer a singular kernel.

    Args:
        n: equations.
        m: parameters, at least n.

    Raises:
        ValueError: for fewer parameters than equations.

    Example:
        >>> singular_codimension(10, 1000)
        991
    """
    _check_sizes(n, m)
    return m - n + 1


def _check_sizes(n: int, m: int) -> None:
    if not 1 <= n <= m:
        raise ValueError(
            f"There are n = {n} equations and m = {m} parameters, but 1 ≤ n ≤ m is needed: K is singular else."
        )


def _quadratic(loss: Loss) -> Quadratic:
    if not isinstance(loss, Quadratic):
        raise ValueError(
            f"The constant c of a quadratic loss is needed, and {loss!r} has none; use one of `jd.losses.half_sum`, `half_mean`, "
            "`mse`, `torch_mse`. `theory.pl.ratio` takes any loss."
        )
    return loss
