"""Do two runs give the same bits, and does one that was cut off and resumed?"""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks.accelerator.section import Row, Setting, attempts


def checks(setting: Setting) -> Iterator[Row]:
    """Two runs, and a resumed one; whether operations were forced to be deterministic stands beside them."""
    width, members, steps = (8, 4, 40) if setting.tiny else (256, 16, 400)
    seldom = jd.probes.Displacement() if setting.tiny else jd.probes.Sharpness()
    runs = Runs(width, members, steps, seldom, setting.folder / f"bits-{os.getpid()}.zarr")
    yield {"what": "deterministic operations", "value": "deterministic_ops=true" in os.environ.get("XLA_FLAGS", "")}
    yield from attempts(
        {"two runs": partial(same, runs, runs.again), "a resumed run": partial(same, runs, runs.resumed)}
    )


class Runs:
    """A sweep of Adam with noise on minibatches, with losses and, four times, another probe; what it keeps in a store lies at `path`."""

    def __init__(self, width: int, members: int, steps: int, seldom: Any, path: Path) -> None:
        self.width, self.steps, self.seldom, self.path = width, steps, seldom, path
        self.axes = {"seed": np.arange(members)}
        self.task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=8, n=32)

    def training(self, seed: Any) -> jd.Training:
        """One member."""
        model = jd.models.mlp((8, self.width, self.width, 1), activation=jnp.tanh)
        optimizer = optax.chain(optax.add_noise(0.01, 0.5, key=jax.random.key(7)), optax.adam(0.01))
        records = (
            jd.record(jd.every(1), loss=jd.probes.Loss()),
            jd.record(jd.every(self.steps // 4), dim="seldom", probe=self.seldom),
        )
        return jd.Training(
            model, self.task, optimizer, steps=self.steps, key=jax.random.key(seed), sampler=jd.minibatch(8), record=records
        )  # fmt: skip

    @cached_property
    def whole(self) -> Any:
        """In one go."""
        return jd.sweep(self.training, vmap=self.axes)

    def again(self) -> Any:
        """In one go, anew."""
        return jd.sweep(self.training, vmap=self.axes)

    def resumed(self) -> Any:
        """Cut off after five pieces, and resumed from the checkpoint."""
        kept: dict[str, Any] = {"store": self.path, "checkpoint_every": 0.0}
        with suppress(KeyboardInterrupt):
            jd.sweep(self.training, vmap=self.axes, progress=CutOff(5), **kept)
        assert not jd.results.open(self.path).done.any(), "the sweep was not cut off"
        return jd.sweep(self.training, vmap=self.axes, **kept).load()


class CutOff(jd.ensemble.Silent):
    """Interrupts after so many pieces."""

    def __init__(self, pieces: int) -> None:
        self.left = pieces

    def advance(self, amount: float, glance: Any) -> None:
        """A piece is done."""
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def same(runs: Runs, other: Any) -> Row:
    """Whether all that was recorded is equal, bit for bit; the largest difference of a loss."""
    first, second = runs.whole, other()
    differ = [name for name in first.data_vars if not np.array_equal(first[name], second[name], equal_nan=True)]
    gap = float(np.max(np.abs(first.loss.values - second.loss.values)))
    return {"ok": not differ, "variables": len(first.data_vars), "differ": ", ".join(differ), "largest difference": gap}
