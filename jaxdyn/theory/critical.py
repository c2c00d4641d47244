"""Critical learning rates: where gradient descent of the linearised model stops converging.

With L = (c/2) Σ (f - y)², the linear model's outputs obey f' - y = (I - η c K)(f - y), so gradient descent converges
for η < 2 / (c λ_max(K)). K is the whole nk × nk kernel. For other losses the Gauss-Newton matrix Jᵀ H J takes the
place of c JᵀJ, H the Hessian of the loss in the outputs. The rate without units, η_rel = η c λ_max(K_0), is lazy below
2; quadratic models catapult between 2 and 4 and diverge above.

This is not the inverse curvature of the loss: the Hessian of a network's loss also has the term Σ r_i H_{f_i}, which is
O(1/√m) at initialisation.

References:
    Lewkowycz et al., arXiv 2003.02218, section 2. Zhu et al., arXiv 2205.11787, section 3.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn import geometry
from jaxdyn._typing import Apply, Loss, Params
from jaxdyn.losses import Quadratic


def critical_learning_rate(apply: Apply, params: Params, task: Any, *, loss: Loss) -> Float[Array, ""]:
    """The learning rate 2 / λ_max above which the linearised model diverges under full-batch gradient descent.

    Costs one tangent kernel of the training inputs and the eigenvalues of an nk × nk matrix. May be traced and
    vmapped, so a run can ask for its own critical rate.

    Args:
        apply: the function, `(params, x: [n, *d]) -> [n, k]`.
        params: where it is linearised.
        task: its training inputs `x` (and `y`, for losses that are not quadratic).
        loss: a loss; a quadratic one states its c, any other is taken through its Gauss-Newton matrix.

    Returns:
        2 / (c λ_max(K)) for a quadratic loss, else 2 / λ_max(Jᵀ H J), a scalar.

    Example:
        >>> from jaxdyn import losses, tasks
        >>> task = tasks.from_arrays(jnp.asarray([[1.0], [2.0]]), jnp.zeros((2, 1)))
        >>> apply = lambda w, x: x * w
        >>> float(critical_learning_rate(apply, jnp.asarray(1.0), task, loss=losses.half_sum))  # K = x xᵀ, λ = 5
        0.4000000059604645
    """
    return 2.0 / curvature(apply, params, task, loss=loss)


def relative_rate(learning_rate: Any, apply: Apply, params: Params, task: Any, *, loss: Loss) -> Float[Array, ""]:
    """The learning rate without units, η_rel = η c λ_max(K): 2 is critical.

    Args:
        learning_rate: η.
        apply: the function.
        params: where it is linearised.
        task: the task.
        loss: the loss.
    """
    return learning_rate * curvature(apply, params, task, loss=loss)


def curvature(apply: Apply, params: Params, task: Any, *, loss: Loss) -> Float[Array, ""]:
    """Largest eigenvalue of the Gauss-Newton matrix of the loss, c λ_max(K) for a quadratic loss.

    Args:
        apply: the function.
        params: where it is linearised.
        task: the task.
        loss: the loss.
    """
    with jax.default_matmul_precision("highest"):
        blocks = geometry.ntk_blocks(apply, params, task.x)
        n, k = blocks.shape[1:3]
        values, vectors = jnp.linalg.eigh(geometry.as_matrix(blocks))
        if isinstance(loss, Quadratic):
            return loss.c(n, k) * values[-1]
        outputs = apply(params, task.x)
        bend = jax.hessian(lambda f: loss(f.reshape(n, k), task.y))(outputs.reshape(-1))  # [nk, nk]
        root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]  # K = root rootᵀ
        return jnp.linalg.eigvalsh(root.T @ bend @ root)[-1]
