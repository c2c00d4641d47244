r"""Multiple catapults in gradient descent: a learning rate that is raised above the critical one each time the loss has come down.

    when L_t < level and armed:    η ← max(η, ratio · 2 / (c λ_max(K_t))),    disarmed until L has exceeded the level again,

K_t the tangent kernel at the current parameters. Every catapult lowers λ_max, so that the rate which was super-critical no longer is;
the next raise makes it so again. The rule adds to `optax.sgd` nothing but this: updates are −η times the gradient.

The guard: a loss that exceeds `ceiling` times the first one (or is not finite) lowers the rate to `retreat` times the critical rate of that
moment, at every step until it is back under the ceiling. The rate stays there until the next raise.

A raised rate may keep the loss above the level for ever, or never carry it there, and then no other raise comes. With `patience` P, a raise
that no other has followed ends P steps after it: the rate falls to at most `retreat` times the critical rate of that moment, and the
schedule is armed, whether a catapult came or not. What follows the last raise is then descent below the critical rate.

Meant for full batches, where the loss that the step computes is the training loss. The kernel is touched only on the steps that raise or
retreat, by Lanczos on products with a vector, started from the vector of the time before; the other steps cost what `optax.sgd` costs.
This holds under `vmap` too, as long as no member is due: what one member needs, all compute.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815 (multiple catapults in GD). The rule, the arming and the guard are ours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdyn._typing import Apply, Loss
from jaxdyn.geometry import operators, spectrum
from jaxdyn.losses import Quadratic

_START = 0x63617461  # the stream of the first vector


class CatapultState(NamedTuple):
    """What the schedule knows; a probe sees it as `snapshot.optimizer_state`.

    Attributes:
        rate: η of the last step (of the first, before it).
        count: steps taken.
        num_raised: how often the rate was raised.
        raised_at: the steps before which it was, [num], −1 where not yet.
        curvatures: λ_max(K) measured there, [num], NaN where not yet.
        is_armed: whether the loss has exceeded the level since the last raise, or the raise has ended.
        is_raised: whether a raise goes on: there was one, and it has not ended.
        ceiling: the loss above which the rate retreats.
        num_retreats: steps on which it did.
        vectors: where the next search for λ_max starts, [nk, 2].
    """

    rate: Any
    count: Any
    num_raised: Any
    raised_at: Any
    curvatures: Any
    is_armed: Any
    is_raised: Any
    ceiling: Any
    num_retreats: Any
    vectors: Any


def catapults(
    learning_rate: Any,
    *,
    apply: Apply,
    x: Any,
    loss: Loss,
    ratio: Any,
    level: Any,
    num: int,
    ceiling: Any = 1e3,
    retreat: float | int = 0.5,
    patience: int | None = None,
    tolerance: float = 1e-3,
    max_matvecs: int = 200,
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent with raises of the rate, as an optax transformation for a `Training` with full batches.

    Rates, ratios, levels and ceilings may be traced, so a sweep may have them as axes.

    Args:
        learning_rate: η before the first raise.
        apply: the function that is trained, `(params, x) -> [n, k]`: `model.apply`, or its expansion.
        x: the training inputs [n, *d].
        loss: the quadratic loss that is trained, for its c.
        ratio: the rate after a raise in units of the critical one: above 1; quadratic models diverge from 2 on, networks may later.
        level: a loss below is "come down"; the first raise needs no loss above it before.
        num: at most so many raises.
        ceiling: the loss at which the rate retreats, in units of the loss of the first step.
        retreat: the rate then, in units of the critical one, in (0, 1].
        patience: steps after which a raise ends, at least 1; None for never. Where λ_max is not found, the next step tries again.
        tolerance: relative, on the residual of λ_max. Where it is not met within `max_matvecs`, nothing is raised at that step.
        max_matvecs: products with the kernel that one search may spend, at least 5.

    Returns:
        A transformation with a `CatapultState`. Chain a momentum before it with `optax.chain`.

    Raises:
        ValueError: for a loss that is not quadratic, a ratio of at most 1, a negative level or number, a retreat outside (0, 1], a patience
            below 1 (numbers only, tracers pass); or, when it runs, without the `value` that trainings pass.

    Example:
        >>> import jaxdyn as jd
        >>> task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=4, n=32)
        >>> model = jd.models.mlp((4, 64, 1), activation=jax.nn.relu)
        >>> descent = catapults(0.05, apply=model.apply, x=task.x, loss=jd.losses.mse, ratio=1.4, level=0.2, num=2)
        >>> run = jd.Training(model, task, descent, steps=5, key=jax.random.key(1), record=jd.record(
        ...     jd.every(1), loss=jd.probes.Loss(), rate=lambda snapshot: snapshot.optimizer_state.rate))
        >>> jd.train(run).values["rate"].shape
        (6,)
    """
    normalisation = _checked(loss, ratio, level, num, ceiling, retreat, patience)

    def init(params: Any) -> CatapultState:
        outputs = jax.eval_shape(apply, params, x)
        scalar = jnp.asarray(learning_rate, outputs.dtype)
        return CatapultState(
            rate=scalar,
            count=jnp.zeros((), jnp.int32),
            num_raised=jnp.zeros((), jnp.int32),
            raised_at=jnp.full(num, -1, jnp.int32),
            curvatures=jnp.full(num, jnp.nan, outputs.dtype),
            is_armed=jnp.ones((), bool),
            is_raised=jnp.zeros((), bool),
            ceiling=jnp.full((), jnp.inf, outputs.dtype),
            num_retreats=jnp.zeros((), jnp.int32),
            vectors=jnp.zeros((outputs.size, min(2, outputs.size)), outputs.dtype),
        )

    def top(params: Any, vectors: Any, is_due: Any) -> tuple[Any, Any]:
        """λ_max and its vectors where due, NaN and the old ones where not; a loop of at most one pass is not paid for under vmap."""

        def search(carry: Any) -> Any:
            kernel = operators.tangent_kernel(apply, params, x)
            found = spectrum.top(
                kernel,
                dim=kernel.dim,
                num=1,
                key=jax.random.key(_START),
                guess=vectors,
                tolerance=tolerance,
                max_matvecs=max_matvecs,
            )
            value = jnp.where(found.converged[0], found.values[0], jnp.nan)
            return jnp.zeros((), bool), value, jnp.concatenate([found.vectors, found.guards], axis=1)

        nothing = jnp.full((), jnp.nan, vectors.dtype)
        _, value, vectors = jax.lax.while_loop(lambda carry: carry[0], search, (is_due, nothing, vectors))
        return value, vectors

    def update(updates: Any, state: CatapultState, params: Any = None, **extra: Any) -> tuple[Any, CatapultState]:
        value = extra.get("value")
        if value is None or params is None:
            raise ValueError(
                "`catapults` watches the loss: call `update(grads, state, params, value=loss)`, as a `Training` does, or wrap your "
                "optimizer in `optax.with_extra_args_support`."
            )
        outputs = jax.eval_shape(apply, params, x)
        c = normalisation(*outputs.shape)
        highest = jnp.where(state.count == 0, jnp.asarray(ceiling, state.rate.dtype) * value, state.ceiling)
        is_armed = state.is_armed | (value > level)
        is_down = is_armed & (value < level) & (state.num_raised < num)
        is_away = ~(value <= highest)  # above, or not a number
        is_late = state.is_raised & _has_passed(patience, state) & ~is_down
        curvature, vectors = top(params, state.vectors, is_down | is_away | is_late)
        critical = 2.0 / (c * curvature)
        is_raised = is_down & (curvature > 0)
        is_ended = is_late & (curvature > 0)
        is_back = is_away & (curvature > 0)
        rate = jnp.where(is_raised, jnp.maximum(state.rate, ratio * critical), state.rate)
        rate = jnp.where(is_back | is_ended, jnp.minimum(state.rate, retreat * critical), rate).astype(state.rate.dtype)
        is_its_slot = is_raised & (jnp.arange(num) == state.num_raised)
        new = CatapultState(
            rate=rate,
            count=state.count + 1,
            num_raised=state.num_raised + is_raised,
            raised_at=jnp.where(is_its_slot, state.count, state.raised_at),
            curvatures=jnp.where(is_its_slot, curvature, state.curvatures),
            is_armed=(is_armed & ~is_raised) | is_ended,
            is_raised=(state.is_raised & ~is_ended) | is_raised,
            ceiling=highest.astype(state.ceiling.dtype),
            num_retreats=state.num_retreats + is_back,
            vectors=vectors,
        )
        return jax.tree.map(lambda g: -rate.astype(g.dtype) * g, updates), new

    return optax.GradientTransformationExtraArgs(init, update)


def _has_passed(patience: int | None, state: CatapultState) -> Any:
    """Whether the last raise lies so many steps back."""
    if patience is None:
        return False
    return state.count - jnp.max(state.raised_at, initial=-1) >= patience


def _checked(
    loss: Any, ratio: Any, level: Any, num: int, ceiling: Any, retreat: float | int, patience: int | None
) -> Callable[[int, int], float]:
    """The loss's c, as a function of n and k."""
    if not isinstance(loss, Quadratic):
        raise ValueError(
            f"The critical rate 2 / (c λ_max) needs a quadratic loss such as `jd.losses.mse`, which states its c, but got {loss!r}."
        )
    if num < 0:
        raise ValueError(f"`num` counts raises and is at least 0, but is {num}.")
    if not 0 < retreat <= 1:
        raise ValueError(f"`retreat` lies in (0, 1], below the critical rate, but is {retreat}.")
    if patience is not None and patience < 1:
        raise ValueError(f"`patience` counts steps, at least 1, or is None for no end, but is {patience}.")
    for name, number, least in (("ratio", ratio, 1.0), ("level", level, 0.0), ("ceiling", ceiling, 1.0)):
        if isinstance(number, float | int | np.ndarray) and not (np.asarray(number) > least).all():
            raise ValueError(f"`{name}` must exceed {least:g}, but is {number}.")
    return loss.c
