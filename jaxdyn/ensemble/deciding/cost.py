"""What a sweep costs: flops and bytes of a step, and how many members are best run together.

A step of one member is lowered (not compiled) and XLA counts its flops and the bytes it touches. On a CPU a step below some
million flops is mostly overhead, so that members are vmapped until their batched step has as many as `ensemble.speed` tells; above
it, members in sequence win, because their values stay in the cache and their products are as large as they need be. On an
accelerator all members that fit run together.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jaxdyn import dynamics
from jaxdyn.dynamics import Training
from jaxdyn.ensemble.compiling import hoist
from jaxdyn.ensemble.compiling.blame import blaming
from jaxdyn.ensemble.deciding.speed import speed

COMPILATION = 3.0
"""Seconds to compile one cell, as the planner assumes."""

_PASSES = 3  # a training step against its forward pass: backward costs two


@dataclass(frozen=True)
class Step:
    """What one step of one member costs.

    Attributes:
        flops: floating-point operations, as XLA counts them in the forward pass, times three.
        touched: bytes read and written if no operation were fused with another, times three: an upper bound.
        state: bytes of the parameters and of the optimizer's state.
        examples: examples in the step.
    """

    flops: float
    touched: float
    state: int
    examples: int

    @property
    def seconds(self) -> float:
        """A rough guess for the device at hand."""
        known = speed()
        return known.overhead + self.flops / known.rate


def step(run: Callable[[Any], Training], values: Any) -> Step:
    """Count one step of the training that `run` returns for the vmapped arguments of one member. Nothing is computed."""
    found: dict[str, Any] = {}

    def look(values: Any) -> None:
        training = dynamics.anchored(run(values))
        x, y = training.sampler(training.task, training.key, 0)
        apply = training.expand(training.model.apply, training.params0)

        def forward(params: Any, x: Any, y: Any) -> Any:
            return training.loss(apply(params, x), y)

        found["forward"] = hoist.hoist(jax.make_jaxpr(forward)(training.params0, x, y))
        found["state"] = jax.eval_shape(lambda: dynamics.init(training))
        found["examples"] = int(x.shape[0])

    with blaming(look, values):
        jax.eval_shape(look, values)
    counted = hoist.lower(found["forward"]).cost_analysis() or {}
    state = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(found["state"]))
    flops, touched = counted.get("flops", 0.0), counted.get("bytes accessed", 0.0)
    return Step(_PASSES * flops, _PASSES * touched, state, found["examples"])


def observation(run: Callable[[Any], Training], values: Any) -> list[tuple[float, float]]:
    """Count what each record of the training that `run` returns costs one member once: `(flops, bytes)`. Nothing is computed."""
    found: list[Any] = []

    def look(values: Any) -> None:
        training = dynamics.anchored(run(values))
        state = dynamics.init(training)
        for record in training.records:
            found.append(hoist.hoist(jax.make_jaxpr(lambda s, r=record: dynamics.observe(training, s, r))(state)))

    jax.eval_shape(look, values)
    counted = [hoist.lower(one).cost_analysis() or {} for one in found]
    return [(one.get("flops", 0.0), one.get("bytes accessed", 0.0)) for one in counted]


def members_together(one: Step, num_members: int) -> int:
    """How many members are vmapped at a time on a device, by what a step of one costs: 1, a power of two, or all."""
    together = speed().together
    if math.isinf(together):
        return num_members
    wanted = together / max(one.flops, 1.0)
    return 1 if wanted < 2 else min(num_members, 2 ** round(math.log2(wanted)))
