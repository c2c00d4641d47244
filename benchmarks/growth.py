"""What does it cost to grow a store from 8 to 16 seeds, over computing 16 seeds afresh?

Networks of two hidden layers in a sweep over widths and seeds, with a store. A run computes all of its seeds; a growth begins with a
store of the first half, made before its clock starts, and adds the other half. Both trace, compile (nothing is kept from run to run),
compute, check what the store holds and write. Half of the members are half of the computing, so that 0.5 is the least that can be, and
what lies above is compilation, reading and hashing. The aim is 0.55 where computing dominates. Runs and growths in turn, medians of
their ratios.

Before anything is timed, the grown store is compared: the first half bit for bit with the store it began as, all of it with the fresh
run, to rounding, since the chunks of members are others.
"""

import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks import harness

SIZES = {"small": ((64, 128), 200), "large": ((128, 256, 512), 600)}


def main(quick: bool = False, path: Path | None = None) -> None:
    """Run, print, write."""
    sizes, seeds, rounds = ({"toy": ((4, 8), 4)}, 4, 1) if quick else (SIZES, 16, 3)
    rows = [{"size": name, **_one(widths, steps, seeds, rounds)} for name, (widths, steps) in sizes.items()]
    table = [
        [row["size"], *(f"{row[name]:.1f}" for name in ("fresh_seconds", "grown_seconds")), f"{row['ratio']:.2f}"]
        for row in rows
    ]
    harness.show("Growing a store by as many seeds", ["sweep", "fresh, s", "growth, s", "growth / fresh"], table)
    print(harness.write("growth", rows, path, devices=jax.local_device_count()))


def _one(widths: tuple[int, ...], steps: int, seeds: int, rounds: int) -> dict[str, Any]:
    task = jd.tasks.digits(classes=(3, 8), n=128)

    def run(width: Any, seed: Any) -> jd.Training:
        model = jd.models.mlp((64, width, width, 1), activation=jnp.tanh)
        record = jd.record(jd.log_spaced(8), loss=jd.probes.Loss(), change=jd.probes.KernelChange(task.x))
        return jd.Training(model, task, optax.sgd(0.1), steps=steps, key=jax.random.key(seed), record=record)

    def sweep(num: int, store: Path) -> Any:
        return jd.sweep(run, vmap={"width": jd.widths(widths), "seed": np.arange(num)}, store=store)

    with tempfile.TemporaryDirectory() as folder:
        begun, fresh, grown = (Path(folder) / name for name in ("begun", "fresh", "grown"))
        first = sweep(seeds // 2, begun).load()
        shutil.copytree(begun, grown)
        _agree(first, sweep(seeds, grown).load(), sweep(seeds, fresh).load())
        taken: dict[str, list[float]] = {"fresh": [], "grown": []}
        for _ in range(rounds):
            for place in (fresh, grown):
                shutil.rmtree(place)
            shutil.copytree(begun, grown)
            for name, place in (("fresh", fresh), ("grown", grown)):
                taken[name].append(harness.seconds(lambda place=place: sweep(seeds, place).load()))
    return {
        "widths": widths,
        "steps": steps,
        "seeds": [seeds // 2, seeds],
        "fresh_seconds": statistics.median(taken["fresh"]),
        "grown_seconds": statistics.median(taken["grown"]),
        "ratio": statistics.median(a / b for a, b in zip(taken["grown"], taken["fresh"], strict=True)),
        "times": taken,
    }


def _agree(first: Any, grown: Any, fresh: Any) -> None:
    """The first half is what it was, to the bit, and the whole is a fresh run, to rounding."""
    for name in ("loss", "change"):
        np.testing.assert_array_equal(grown[name].sel(seed=first["seed"]), first[name])
        np.testing.assert_allclose(grown[name], fresh[name], rtol=1e-3, atol=1e-6)
