"""The arms of the experiment: what each makes its optimizer from, and how it limits or raises the rate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxdyn as jd

SHARE = 0.9
"""A capped step stays below this part of its batch's critical rate."""

FORCED_RATIO, FORCED_LEVEL = 1.4, 0.2
"""The rate after a raise, in units of the critical one, and the loss that calls for it."""


class Setting(NamedTuple):
    """What an arm makes its optimizer from."""

    rate: Any  # η
    model: jd.Model  # the network
    params0: Any  # its anchor
    task: Any  # what it learns
    sampler: Any  # its batches
    key: Any  # the key that the sampler is called with


class CappedState(NamedTuple):
    """Steps taken, and the sum of their rates."""

    count: Any
    total: Any


def plain(setting: Setting) -> optax.GradientTransformation:
    """SGD at the rate itself."""
    return optax.sgd(setting.rate)


def capped(setting: Setting) -> optax.GradientTransformationExtraArgs:
    """SGD whose rate never exceeds `SHARE` of the critical rate of the batch that it is about to use, at the current parameters."""

    def init(_: Any) -> CappedState:
        return CappedState(jnp.zeros((), jnp.int32), jnp.zeros_like(setting.rate))

    def update(grads: Any, state: CappedState, params: Any = None, **_: Any) -> tuple[Any, CappedState]:
        rate = jnp.minimum(setting.rate, SHARE * _critical(setting, params, state.count))
        return jax.tree.map(lambda g: -rate * g, grads), CappedState(state.count + 1, state.total + rate)

    return optax.GradientTransformationExtraArgs(init, update)


def slow(setting: Setting) -> optax.GradientTransformation:
    """SGD at a constant rate: the mean that `capped` would have over 64 batches at the anchor."""
    rates = jax.lax.map(lambda step: _critical(setting, setting.params0, step), jnp.arange(64))
    return optax.inject_hyperparams(optax.sgd)(learning_rate=jnp.mean(jnp.minimum(setting.rate, SHARE * rates)))


def forced(num: int) -> Callable[[Setting], optax.GradientTransformation]:
    """Gradient descent whose rate is raised above the critical one `num` times."""

    def make(setting: Setting) -> optax.GradientTransformation:
        return jd.dynamics.catapults(
            setting.rate, apply=setting.model.apply, x=setting.task.x, loss=jd.losses.mse, ratio=FORCED_RATIO, level=FORCED_LEVEL,
            num=num,
        )  # fmt: skip

    return make


def _critical(setting: Setting, params: Any, step: Any) -> Any:
    return jd.theory.batch_critical_learning_rate(
        setting.model.apply, params, setting.task, loss=jd.losses.mse, sampler=setting.sampler, key=setting.key, step=step
    )  # fmt: skip
