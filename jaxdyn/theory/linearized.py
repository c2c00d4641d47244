"""Gradient descent of a linear model in closed form, for all learning rates and steps from one eigendecomposition.

With L = (c/2) Σ (f - y)² and a fixed kernel K = U diag(λ) Uᵀ,

    discrete steps:   f_t - y = U diag((1 - η c λ)^t) Uᵀ (f_0 - y)
    gradient flow:    f_s - y = U diag(exp(-c λ s)) Uᵀ (f_0 - y)
    test outputs:     f_t(x') = f_0(x') + K(x', x) U diag((1 - decay(λ)) / λ) Uᵀ (y - f_0)

K may be the empirical kernel of a network at its anchor, and the outputs are then those of its linear model, or the
infinite-width kernel. A kernel [n, n] stands for K ⊗ I_k, the same for every output; blocks [n, n, k, k] for the whole.

No simulation is run: a grid of rates and steps costs O(n) a point for the loss.

References:
    Jacot et al., arXiv 1806.07572; Lee et al., arXiv 1902.06720, eq. 10-11 (flow). The discrete form is the same sum, geometric.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn import geometry
from jaxdyn._typing import Loss
from jaxdyn.losses import Quadratic


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class System:
    """The eigendecomposition of a kernel.

    Attributes:
        values: eigenvalues, ascending, [n] or [nk].
        vectors: eigenvectors as columns, [n, n] or [nk, nk].
    """

    values: Float[Array, " q"]
    vectors: Float[Array, "q q"]


@dataclass(frozen=True, eq=False)
class Evolution:
    """How a mode evolves: functions of `curvature = c λ`, broadcast over a grid.

    Attributes:
        decay: what is left of the residual, [*grid, q].
        response: (1 - decay) / (c λ), with its limit at λ = 0, [*grid, q].
    """

    decay: Callable[[Any], Any]
    response: Callable[[Any], Any]


def decompose(kernel: Float[Array, "..."]) -> System:
    """Decompose a kernel, [n, n] or blocks [n, n, k, k], once for all rates, steps and targets.

    Raises:
        ValueError: for an array of another shape.
    """
    if kernel.ndim == 4 and kernel.shape[0] == kernel.shape[1] and kernel.shape[2] == kernel.shape[3]:
        kernel = geometry.as_matrix(kernel)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
        raise ValueError(
            f"A kernel has shape [n, n], or [n, n, k, k] for blocks, but this one has {tuple(kernel.shape)}."
        )
    values, vectors = jnp.linalg.eigh((kernel + kernel.T) / 2)
    return System(values, vectors)


def descent(learning_rate: Any, steps: Any) -> Evolution:
    """Discrete gradient descent; `learning_rate` and `steps` (completed steps) broadcast to the grid."""
    rate, count = jnp.broadcast_arrays(jnp.asarray(learning_rate, float), jnp.asarray(steps, float))
    rate, count = rate[..., None], count[..., None]

    def loss_of_residual(curvature: Any) -> Any:
        """1 - (1 - ηcλ)^t without cancellation for small ηcλ."""
        shrink = rate * _over(curvature, rate)
        small = -jnp.expm1(count * jnp.log1p(-jnp.minimum(shrink, 0.5)))
        return jnp.where(shrink < 0.5, small, 1.0 - (1.0 - shrink) ** count)

    def response(curvature: Any) -> Any:
        spread = _over(curvature, rate)
        return jnp.where(spread == 0, rate * count, loss_of_residual(curvature) / jnp.where(spread == 0, 1.0, spread))

    return Evolution(lambda curvature: (1.0 - rate * _over(curvature, rate)) ** count, response)


def flow(time: Any) -> Evolution:
    """Gradient flow; `time` (learning rate × steps) is the grid."""
    when = jnp.asarray(time, float)[..., None]

    def response(curvature: Any) -> Any:
        spread = _over(curvature, when)
        gone = -jnp.expm1(-when * spread)
        return jnp.where(spread == 0, when, gone / jnp.where(spread == 0, 1.0, spread))

    return Evolution(lambda curvature: jnp.exp(-when * _over(curvature, when)), response)


def train_outputs(
    system: System, f0: Float[Array, "..."], y: Float[Array, "..."], evolution: Evolution, *, loss: Loss
) -> Float[Array, "*grid n k"]:
    """Outputs on the training inputs.

    Args:
        system: the decomposed kernel of the training inputs.
        f0: outputs at the start, [n, k].
        y: targets, [n, k].
        evolution: `descent(learning_rate, steps)` or `flow(time)`.
        loss: a quadratic loss, which states c.

    Raises:
        ValueError: for a loss that is not quadratic, or shapes that do not belong together.
    """
    c, residual = _residual(system, f0, y, loss)
    decay = evolution.decay(c * system.values)
    with jax.default_matmul_precision("highest"):
        left = jnp.einsum("ap,...p,pk->...ak", system.vectors, decay, system.vectors.T @ residual)
    return jnp.asarray(y)[(None,) * (decay.ndim - 1)] + left.reshape(*decay.shape[:-1], *y.shape)


def test_outputs(
    system: System,
    f0: Float[Array, "..."],
    y: Float[Array, "..."],
    evolution: Evolution,
    *,
    loss: Loss,
    cross: Float[Array, "..."],
    f0_test: Float[Array, "j k"],
) -> Float[Array, "*grid j k"]:
    """Outputs on other inputs.

    Args:
        system: the decomposed kernel of the training inputs.
        f0: outputs at the start on the training inputs.
        y: targets, [n, k].
        evolution: `descent(learning_rate, steps)` or `flow(time)`.
        loss: a quadratic loss.
        cross: kernel between the other inputs and the training inputs, [j, n], or blocks [j, n, k, k].
        f0_test: outputs at the start on the other inputs.

    Raises:
        ValueError: for a loss that is not quadratic, or shapes that do not belong together.
    """
    c, residual = _residual(system, f0, y, loss)
    matrix = geometry.as_matrix(cross) if cross.ndim == 4 else cross
    if matrix.shape[1] != system.values.shape[0]:
        raise ValueError(
            f"`cross` has shape {tuple(cross.shape)}, which does not belong to a kernel with {system.values.shape[0]} modes; it is "
            "K(x_test, x) of the same kernel, [j, n] or [j, n, k, k]."
        )
    response = evolution.response(c * system.values)
    with jax.default_matmul_precision("highest"):
        pulled = jnp.einsum("jp,...p,pk->...jk", matrix @ system.vectors, c * response, system.vectors.T @ -residual)
    return jnp.asarray(f0_test)[(None,) * (response.ndim - 1)] + pulled.reshape(*response.shape[:-1], *f0_test.shape)


test_outputs.__test__ = False  # type: ignore[attr-defined]  # pytest: this is no test


def train_loss(
    system: System, f0: Float[Array, "..."], y: Float[Array, "..."], evolution: Evolution, *, loss: Loss
) -> Float[Array, "*grid"]:
    """Training loss on the grid, O(n) a point.

    Args:
        system: the decomposed kernel of the training inputs.
        f0: outputs at the start, [n, k].
        y: targets, [n, k].
        evolution: `descent(learning_rate, steps)` or `flow(time)`.
        loss: a quadratic loss.
    """
    c, residual = _residual(system, f0, y, loss)
    with jax.default_matmul_precision("highest"):
        modes = jnp.sum((system.vectors.T @ residual) ** 2, axis=1)  # [q]
    decay = evolution.decay(c * system.values)
    return (c / 2) * jnp.einsum("...q,q->...", decay**2, modes)


def _residual(system: System, f0: Any, y: Any, loss: Any) -> tuple[float, Any]:
    """The constant c, and f0 - y with one row a mode."""
    if not isinstance(loss, Quadratic):
        raise ValueError(
            f"The closed form needs a quadratic loss such as losses.mse, but got {loss!r}; simulate it instead."
        )
    if f0.ndim != 2 or f0.shape != y.shape:
        raise ValueError(f"f0 and y are both [n, k], but have the shapes {tuple(f0.shape)} and {tuple(y.shape)}.")
    n, k = y.shape
    modes = system.values.shape[0]
    if modes not in (n, n * k):
        raise ValueError(f"A kernel with {modes} modes does not belong to outputs of shape {(n, k)}.")
    residual = f0 - y
    return loss.c(n, k), residual if modes == n else residual.reshape(-1, 1)


def _over(curvature: Any, grid: Any) -> Any:
    """The modes as the last axis behind a grid that ends in 1."""
    return curvature.reshape((1,) * (grid.ndim - 1) + (-1,)).astype(grid.dtype)
