"""Critical learning rates: where gradient descent of the linearised model stops converging.

With L = (c/2) Σ (f − y)², the linear model's outputs obey f' − y = (I − η c K)(f − y), so gradient descent converges
for η < 2 / (c λ_max(K)), K the whole nk × nk kernel. For other losses the Gauss-Newton matrix Jᵀ H J takes the place of
c JᵀJ, H the Hessian of the loss in the outputs. The rate without units, η_rel = η c λ_max(K_0), is lazy below 2;
quadratic models catapult between 2 and 4 and diverge above.

This is not 2 over the sharpness: the Hessian of a network's loss also has the term c Σ r_i H_{f_i}, which is O(1/√m) at
initialisation; `hessian_critical_learning_rate` has it. Nor is it the largest rate at which a network trains
(`ensemble.maximal_learning_rate` searches for that one). A minibatch has its own (`batch_critical_learning_rate`).

References:
    Lewkowycz et al., arXiv 2003.02218, section 2. Zhu et al., arXiv 2205.11787, section 3.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer, Num

from jaxdyn import geometry
from jaxdyn._typing import Apply, Key, Loss, Params, Sampler
from jaxdyn.geometry import operators, spectrum
from jaxdyn.losses import Quadratic

DENSE_ROWS = 1024
"""Up to so many rows nk the eigenvalue comes from the whole kernel; above, from products with a vector."""

TOLERANCE = 1e-4
"""Relative residual that products with a vector must reach; the error of the eigenvalue is usually its square."""


def critical_learning_rate(apply: Apply, params: Params, task: Any, *, loss: Loss) -> Float[Array, ""]:
    """The learning rate 2 / λ_max above which the linearised model diverges under full-batch gradient descent.

    May be traced and vmapped, so a run can ask for its own critical rate.

    Args:
        apply: the function, `(params, x: [n, *d]) -> [n, k]`.
        params: where it is linearised.
        task: its training inputs `x`, and `y` for losses that are not quadratic.
        loss: a quadratic loss, which states its c; any other is taken through its Gauss-Newton matrix at `params`.

    Returns:
        2 / (c λ_max(K)) for a quadratic loss, else 2 / λ_max(Jᵀ H J), a scalar.

    Example:
        >>> from jaxdyn import losses, tasks
        >>> task = tasks.from_arrays(jnp.array([[1.0], [2.0]]), jnp.zeros((2, 1)))
        >>> rate = critical_learning_rate(lambda w, x: x * w, jnp.array(1.0), task, loss=losses.half_sum)
        >>> round(float(rate), 6)  # K = x xᵀ, λ = 5
        0.4
    """
    return 2.0 / curvature(apply, params, task, loss=loss)


def hessian_critical_learning_rate(apply: Apply, params: Params, task: Any, *, loss: Loss) -> Float[Array, ""]:
    """The learning rate 2 / λ_max(H_L), H_L the Hessian of the loss in the parameters: the definition of paper 2205.11787.

    Equal to `critical_learning_rate` for a linear model. The Hessian of a network has a further term, O(1/√m) in norm at
    initialisation; its effect on the largest eigenvalue was measured to fall like 1/m for two layers.
    By Lanczos on products with H_L, two to three gradients each, to a relative residual of `TOLERANCE`.

    Args:
        apply: the function, `(params, x: [n, *d]) -> [n, k]`.
        params: where.
        task: its training inputs `x` and targets `y`.
        loss: any `(prediction, y) -> scalar`.

    Returns:
        2 / λ_max, a scalar; negative where the Hessian has no positive eigenvalue, NaN where Lanczos did not converge.

    Example:
        >>> from jaxdyn import losses, tasks
        >>> task = tasks.from_arrays(jnp.array([[1.0], [2.0]]), jnp.zeros((2, 1)))
        >>> rate = hessian_critical_learning_rate(lambda w, x: x * w, jnp.array(1.0), task, loss=losses.half_sum)
        >>> round(float(rate), 6)
        0.4
    """
    with jax.default_matmul_precision("highest"):
        key = jax.random.key(0)
        found = geometry.sharpness(apply, params, task.x, task.y, loss=loss, key=key, tolerance=TOLERANCE)
        return jnp.where(found.converged[0], 2.0 / found.values[0], jnp.nan)


def batch_critical_learning_rate(
    apply: Apply, params: Params, task: Any, *, loss: Loss, sampler: Sampler, key: Key, step: Integer[ArrayLike, ""]
) -> Float[Array, ""]:
    """The critical rate η_crit(X_b) = 2 / (c_b λ_max(K(X_b, X_b))) of the batch that a sampler draws at a step.

    The constant is that of the batch, such as 2/b for `losses.mse`. May be vmapped over steps.

    Args:
        apply: the function, `(params, x: [n, *d]) -> [n, k]`.
        params: where it is linearised.
        task: all training examples.
        loss: as for `critical_learning_rate`.
        sampler: `full_batch` or `minibatch(b)`.
        key: the key the sampler is called with; that of a run is `dynamics.batch_key(training.key)`.
        step: completed steps before the batch.

    Returns:
        The rate, a scalar.

    Example:
        >>> from jaxdyn import losses, tasks
        >>> task = tasks.from_arrays(jnp.array([[1.0], [2.0]]), jnp.zeros((2, 1)))
        >>> rates = [batch_critical_learning_rate(lambda w, x: x * w, jnp.array(1.0), task, loss=losses.half_sum,
        ...          sampler=tasks.minibatch(1), key=jax.random.key(0), step=step) for step in range(2)]
        >>> sorted(round(float(rate), 4) for rate in rates)  # 2/1 and 2/4
        [0.5, 2.0]
    """
    x, y = sampler(task, key, step)
    return critical_learning_rate(apply, params, replace(task, x=x, y=y), loss=loss)


def relative_rate(
    learning_rate: Num[Array, ""] | float | int, apply: Apply, params: Params, task: Any, *, loss: Loss
) -> Float[Array, ""]:
    """The learning rate without units, η_rel = η c λ_max(K): 2 is critical.

    Args:
        learning_rate: η.
        apply: the function, `(params, x: [n, *d]) -> [n, k]`.
        params: where it is linearised.
        task: its training inputs `x`, and `y` for losses that are not quadratic.
        loss: as for `critical_learning_rate`.

    Returns:
        η times the curvature, a scalar.
    """
    return learning_rate * curvature(apply, params, task, loss=loss)


def curvature(apply: Apply, params: Params, task: Any, *, loss: Loss) -> Float[Array, ""]:
    """Largest eigenvalue of the Gauss-Newton matrix of the loss: c λ_max(K) for a quadratic loss, else λ_max(Jᵀ H J).

    Up to `DENSE_ROWS` rows nk from the whole kernel, O((nk)³); above, by Lanczos on products with a vector (about a
    gradient each), to a relative residual of `TOLERANCE`.

    Args:
        apply: the function, `(params, x: [n, *d]) -> [n, k]`.
        params: where it is linearised.
        task: its training inputs `x`, and `y` for losses that are not quadratic.
        loss: as for `critical_learning_rate`.

    Returns:
        The eigenvalue, a scalar. NaN where the parameters are, or where Lanczos did not converge.
    """
    with jax.default_matmul_precision("highest"):
        n, k = jax.eval_shape(apply, params, task.x).shape
        largest = _dense if n * k <= DENSE_ROWS else _matrix_free
        return largest(apply, params, task, loss, n, k)


def _dense(apply: Apply, params: Params, task: Any, loss: Any, n: int, k: int) -> Any:
    kernel = geometry.as_matrix(geometry.ntk_blocks(apply, params, task.x))  # [nk, nk]
    if isinstance(loss, Quadratic):
        return loss.c(n, k) * jnp.linalg.eigvalsh(kernel)[-1]
    outputs = apply(params, task.x)
    bend = jax.hessian(lambda flat: loss(flat.reshape(n, k), task.y))(outputs.reshape(-1))  # [nk, nk]
    values, vectors = jnp.linalg.eigh(kernel)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]  # K = root rootᵀ
    return jnp.linalg.eigvalsh(root.T @ bend @ root)[-1]  # the spectrum of Jᵀ H J, zeros apart


def _matrix_free(apply: Apply, params: Params, task: Any, loss: Any, n: int, k: int) -> Any:
    if isinstance(loss, Quadratic):
        matrix, c = operators.tangent_kernel(apply, params, task.x), loss.c(n, k)
    else:
        matrix, c = operators.gauss_newton(apply, params, task.x, task.y, loss=loss), 1.0
    found = spectrum.top(matrix, dim=matrix.dim, num=1, key=jax.random.key(0), tolerance=TOLERANCE)
    return jnp.where(found.converged[0], c * found.values[0], jnp.nan)
