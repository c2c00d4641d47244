"""Gradient descent of a linear model in closed form, for all learning rates and steps from one eigendecomposition.

With L = (c/2) Σ (f − y)² and a fixed kernel K = U diag(λ) Uᵀ,

    discrete steps:   f_t − y = U diag((1 − η c λ)^t) Uᵀ (f_0 − y)
    gradient flow:    f_s − y = U diag(exp(−c λ s)) Uᵀ (f_0 − y)
    test outputs:     f_t(x') = f_0(x') + K(x', x) U diag((1 − decay(λ)) / λ) Uᵀ (y − f_0)

K may be the empirical kernel of a network at its anchor, and the outputs are then those of its linear model, or the
infinite-width kernel. A kernel [n, n] stands for K ⊗ I_k, the same for every output; blocks [n, n, k, k] for the whole.

No simulation is run. After one O(n³) decomposition the loss costs O(n) a point of a grid of rates and steps, and
outputs O(n²). Small c λ go through `log1p` and `expm1`, so that a million small steps lose no digits. Modes whose
eigenvalue is rounding are null (see `decompose`): they keep their residual for ever and move no test output, since
K(x', x) u = 0 wherever K(x, x) u = 0 and K is positive semidefinite on all inputs. What is kept carries an error of about
the rounding of K(x', x) u over λ, which does not grow with time. A rate above the critical one overflows to infinity in the loss, to
infinity or NaN in the outputs, and raises nothing.

References:
    Jacot et al., arXiv 1806.07572; Lee et al., arXiv 1902.06720, eq. 10-11 (flow). The discrete form is the geometric
    sum.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from jaxdyn import geometry
from jaxdyn._typing import Loss
from jaxdyn.losses import Quadratic


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class System:
    """The eigendecomposition of a kernel; a pytree, q = n modes, or nk from blocks.

    Attributes:
        values: eigenvalues λ, ascending, [q]; exactly zero for null modes.
        vectors: eigenvectors U as columns, [q, q].
    """

    values: Any
    vectors: Any


@dataclass(frozen=True, eq=False)
class Evolution:
    """How the modes evolve over a grid: two functions of the curvatures c λ, [q] -> [*grid, q].

    Made by `descent` or `flow`.

    Attributes:
        decay: what is left of the residual of a mode.
        response: (1 − decay) / (c λ), with its limit at λ = 0.
    """

    decay: Callable[[Any], Any]
    response: Callable[[Any], Any]


def decompose(kernel: Num[ArrayLike, "..."]) -> System:
    """Decompose a kernel once, for all rates, steps and targets. May be traced and vmapped.

    A mode is null where |λ| is at most twice the most negative eigenvalue, which in a kernel is rounding; that level is
    taken to be at least √q ε λ_max, and at most q ε λ_max, for q modes.

    Args:
        kernel: [n, n], the same for every output; or blocks [n, n, k, k] as of `geometry.ntk_blocks`.

    Raises:
        ValueError: for an array of another shape or without entries, or one that is not symmetric, such as a kernel
            between two sets of inputs.

    Example:
        >>> system = decompose(jnp.array([[2.0, 0.0], [0.0, 1.0]]))
        >>> f0, y = jnp.zeros((2, 1)), jnp.ones((2, 1))
        >>> from jaxdyn import losses
        >>> rates, steps = jnp.array([0.5, 2.0])[:, None], jnp.array([0, 1, 2])[None, :]
        >>> grid = train_loss(system, f0, y, descent(rates, steps), loss=losses.half_sum)  # λ = 2: η = 1 is critical
        >>> [[round(float(point), 3) for point in row] for row in grid]
        [[1.0, 0.125, 0.031], [1.0, 5.0, 41.0]]
    """
    matrix = jnp.asarray(kernel)
    if matrix.ndim == 4 and matrix.shape[0] == matrix.shape[1] and matrix.shape[2] == matrix.shape[3]:
        matrix = geometry.as_matrix(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(
            f"A kernel has shape [n, n], or [n, n, k, k] for blocks, with n ≥ 1, but this one has {matrix.shape}."
        )
    _check_symmetric(matrix)
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    unit = jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    rounding = jnp.clip(-2 * values[0], len(values) ** 0.5 * unit, len(values) * unit)
    return System(jnp.where(jnp.abs(values) <= rounding, 0.0, values), vectors)


def descent(learning_rate: Num[ArrayLike, "..."], steps: Num[ArrayLike, "..."]) -> Evolution:
    """Gradient descent in discrete steps.

    Args:
        learning_rate: η; broadcast with `steps` to the grid, so `rates[:, None], steps[None, :]` gives all pairs.
        steps: completed steps, whole numbers ≥ 0.

    Raises:
        ValueError: for negative or broken steps (unchecked where they are traced), or shapes that do not broadcast.
    """
    _check_steps(steps)
    rate, count = _grid(learning_rate, steps)

    def log_decay(shrink: Any) -> Any:
        """Log |1 − ηcλ| without cancellation for small ηcλ; over the rates alone, so that steps cost one `exp`."""
        return jnp.where(shrink < 0.5, jnp.log1p(-jnp.minimum(shrink, 0.5)), jnp.log(jnp.abs(1.0 - shrink)))

    def decay(curvature: Any) -> Any:
        shrink = rate * _last(curvature, rate)
        sign = jnp.where((shrink > 1.0) & (count % 2 == 1), -1.0, 1.0)
        return jnp.where(count == 0, 1.0, sign * jnp.exp(count * log_decay(shrink)))

    def response(curvature: Any) -> Any:
        spread = _last(curvature, rate)
        shrink = rate * spread
        gone = jnp.where(shrink < 0.5, -jnp.expm1(count * log_decay(shrink)), 1.0 - decay(curvature))
        return jnp.where(spread == 0, rate * count, gone / jnp.where(spread == 0, 1.0, spread))

    return Evolution(decay, response)


def flow(time: Num[ArrayLike, "..."]) -> Evolution:
    """Gradient flow, the limit of small steps.

    Args:
        time: learning rate times steps, ≥ 0, infinite for the limit (kernel regression); its shape is the grid.
    """
    (when,) = _grid(time)

    def decay(curvature: Any) -> Any:
        spread = _last(curvature, when)
        return jnp.where(spread == 0, 1.0, jnp.exp(-when * spread))

    def response(curvature: Any) -> Any:
        spread = _last(curvature, when)
        return jnp.where(spread == 0, when, -jnp.expm1(-when * spread) / jnp.where(spread == 0, 1.0, spread))

    return Evolution(decay, response)


def train_outputs(
    system: System, f0: Num[ArrayLike, "..."], y: Num[ArrayLike, "..."], evolution: Evolution, *, loss: Loss
) -> Float[Array, "*grid n k"]:
    """Outputs on the training inputs.

    Args:
        system: the decomposed kernel of the training inputs.
        f0: outputs at the start, [n, k].
        y: targets, [n, k].
        evolution: `descent(learning_rate, steps)` or `flow(time)`.
        loss: a quadratic loss, which states c.

    Returns:
        Outputs, [*grid, n, k].

    Raises:
        ValueError: for a loss that is not quadratic, or shapes that do not belong together.
    """
    c, residual, target = _residual(system, f0, y, loss)
    decay = evolution.decay(c * system.values)  # [*grid, q]
    with jax.default_matmul_precision("highest"):
        left = jnp.einsum("ap,...p,pb->...ab", system.vectors, decay, system.vectors.T @ residual)
    return _behind(target, decay) + left.reshape(*decay.shape[:-1], *target.shape)


def test_outputs(
    system: System,
    f0: Num[ArrayLike, "..."],
    y: Num[ArrayLike, "..."],
    evolution: Evolution,
    *,
    loss: Loss,
    cross: Num[ArrayLike, "..."],
    f0_test: Num[ArrayLike, "j k"],
) -> Float[Array, "*grid j k"]:
    """Outputs on other inputs. Null modes of the training kernel move none of them.

    Args:
        system: the decomposed kernel of the training inputs.
        f0: outputs at the start on the training inputs, [n, k].
        y: targets, [n, k].
        evolution: `descent(learning_rate, steps)` or `flow(time)`.
        loss: a quadratic loss.
        cross: kernel K(x', x) between the other inputs and the training inputs, [j, n], or blocks [j, n, k, k].
        f0_test: outputs at the start on the other inputs, [j, k]; zero for the mean over wide networks.

    Returns:
        Outputs, [*grid, j, k].

    Raises:
        ValueError: for a loss that is not quadratic, or shapes that do not belong together.
    """
    c, residual, _ = _residual(system, f0, y, loss)
    matrix, start = jnp.asarray(cross), jnp.asarray(f0_test)
    matrix = geometry.as_matrix(matrix) if matrix.ndim == 4 else matrix
    rows = start.shape[0] * (start.shape[1] if residual.shape[1] == 1 else 1)
    if matrix.shape != (rows, len(system.values)):
        raise ValueError(
            f"`cross` has shape {jnp.shape(cross)}, which does not belong to a kernel with {len(system.values)} modes and "
            f"`f0_test` of shape {start.shape}; it is K(x_test, x) of the same kernel, [j, n] or [j, n, k, k]."
        )
    response = evolution.response(c * system.values)  # [*grid, q]
    response = jnp.where(_behind(system.values, response) == 0, 0.0, response)
    with jax.default_matmul_precision("highest"):
        modes = system.vectors.T @ -residual
        pulled = jnp.einsum("jp,...p,pb->...jb", matrix @ system.vectors, c * response, modes)
    return _behind(start, response) + pulled.reshape(*response.shape[:-1], *start.shape)


test_outputs.__test__ = False  # type: ignore[attr-defined]  # pytest: this is no test


def train_loss(
    system: System, f0: Num[ArrayLike, "..."], y: Num[ArrayLike, "..."], evolution: Evolution, *, loss: Loss
) -> Float[Array, "*grid"]:
    """Training loss on the grid, O(n) a point.

    Args:
        system: the decomposed kernel of the training inputs.
        f0: outputs at the start, [n, k].
        y: targets, [n, k].
        evolution: `descent(learning_rate, steps)` or `flow(time)`.
        loss: a quadratic loss.

    Returns:
        (c/2) Σ_q decay(λ_q)² ‖u_qᵀ (f_0 − y)‖², [*grid].

    Raises:
        ValueError: for a loss that is not quadratic, or shapes that do not belong together.
    """
    c, residual, _ = _residual(system, f0, y, loss)
    with jax.default_matmul_precision("highest"):
        weights = (c / 2) * jnp.sum((system.vectors.T @ residual) ** 2, axis=1)  # [q]
    decay = evolution.decay(c * system.values)  # [*grid, q]
    return jnp.sum(jnp.where(_behind(weights, decay) == 0, 0.0, decay**2 * _behind(weights, decay)), axis=-1)


def _residual(system: System, f0: Any, y: Any, loss: Any) -> tuple[float, Any, Any]:
    """The constant c, f0 − y with one row a mode, and y as an array."""
    if not isinstance(loss, Quadratic):
        raise ValueError(
            f"The closed form needs a quadratic loss such as losses.mse, but got {loss!r}; simulate it instead."
        )
    f0, y = jnp.asarray(f0), jnp.asarray(y)
    if f0.ndim != 2 or f0.shape != y.shape or y.size == 0:
        raise ValueError(f"f0 and y are both [n, k] with n, k ≥ 1, but have the shapes {f0.shape} and {y.shape}.")
    n, k = y.shape
    modes = len(system.values)
    if modes not in (n, n * k):
        raise ValueError(f"A kernel with {modes} modes does not belong to outputs of shape {(n, k)}.")
    residual = f0 - y
    return loss.c(n, k), residual if modes == n else residual.reshape(-1, 1), y


def _grid(*arrays: Any) -> tuple[Any, ...]:
    """Floating arrays of one rank with a last axis of length 1 for the modes; not yet broadcast."""
    floats = [jnp.asarray(array, float) for array in arrays]
    rank = len(jnp.broadcast_shapes(*(array.shape for array in floats)))
    return tuple(array.reshape((1,) * (rank - array.ndim) + array.shape + (1,)) for array in floats)


def _last(curvature: Any, grid: Any) -> Any:
    """The modes as the last axis behind a grid that ends in 1."""
    return curvature.reshape((1,) * (grid.ndim - 1) + (-1,)).astype(grid.dtype)


def _behind(array: Any, modes: Any) -> Any:
    """An array with as many leading axes of length 1 as the grid of `modes`, [*grid, q], has."""
    return array.reshape((1,) * (modes.ndim - 1) + array.shape)


def _check_steps(steps: Any) -> None:
    try:
        counts = np.asarray(steps, dtype=float)
    except jax.errors.TracerArrayConversionError:
        return
    bad = counts[~((counts >= 0) & (counts == np.floor(counts)))]
    if bad.size:
        raise ValueError(f"`steps` counts completed steps, 0, 1, 2, …, but contains {bad.flat[0]:g}.")


def _check_symmetric(matrix: Any) -> None:
    try:
        concrete = np.asarray(matrix)
    except jax.errors.TracerArrayConversionError:
        return
    skew, size = np.abs(concrete - concrete.T).max(initial=0.0), np.abs(concrete).max(initial=0.0)
    if skew > 1e-3 * size:
        raise ValueError(
            f"A kernel is symmetric, but entries of this one differ from their mirror by up to {skew:.3g} where the "
            f"largest is {size:.3g}. The kernel between two sets of inputs goes into `test_outputs(cross=…)`."
        )
