"""Rows (d), (f), (g): what records, checkpoints and memory cost."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks import harness
from benchmarks.ensemble.child import ask
from benchmarks.ensemble.programmes import Sweep, in_turn, ratio

CADENCE = 60.0  # seconds between checkpoints, `sweep`'s default


def recording(*, quick: bool, rounds: int) -> dict[str, Any]:
    """Full batch, n = 256, two hidden tanh layers of 256: loss every step and norm of the tangent kernel every ten, against neither."""
    n, width, members, steps = (16, 8, 2, 20) if quick else (256, 256, 8, 200)
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=64, n=n)
    model = jd.models.mlp((64, width, width, 1), activation=jnp.tanh)
    records = (
        jd.record(jd.every(1), loss=jd.probes.Loss()),
        jd.record(jd.every(10), dim="seldom", ntk=jd.probes.NTKNorm(task.x)),
    )

    def training(seed: Any, record: Any) -> jd.Training:
        return jd.Training(model, task, optax.sgd(0.1), steps=steps, key=jax.random.key(seed), record=record)

    axis = {"seed": np.arange(members)}
    rivals = {
        "with": Sweep(lambda seed: training(seed, records), axis),
        "without": Sweep(lambda seed: training(seed, jd.record(jd.at([steps]), loss=jd.probes.Loss())), axis),
        "loss only": Sweep(lambda seed: training(seed, records[0]), axis),
    }
    first = {name: sweep() for name, sweep in rivals.items()}
    np.testing.assert_allclose(first["with"]["loss"][:, -1], first["without"]["loss"][:, -1], rtol=1e-3)
    times = in_turn(rivals, {}, rounds)
    return {
        "row": f"recording n={n} m={width} E={members}",
        "with_over_without": ratio(times, "with", "without"),
        "loss_over_without": ratio(times, "loss only", "without"),
        "times": times,
    }


def checkpoints(*, rounds: int) -> dict[str, Any]:
    """A sweep that saves after every piece against one that never does: the cost of one checkpoint, as a share of the default cadence."""
    width, members, steps = 1024, 8, 64
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=64, n=128)
    model = jd.models.mlp((64, width, width, 1), activation=jnp.tanh)

    def run(seed: Any) -> jd.Training:
        record = jd.record(jd.every(4), loss=jd.probes.Loss())
        return jd.Training(model, task, optax.sgd(0.1), steps=steps, key=jax.random.key(seed), record=record)

    plan = jd.ensemble.plan(run, vmap={"seed": np.arange(members)})
    saved = len(plan.programme(plan.cells[0]).pieces) - 1
    costs = []
    for _ in range(rounds):
        taken = {}
        for every in (0.0, 1e9):
            with tempfile.TemporaryDirectory() as folder:
                store = Path(folder) / "store.zarr"
                found = jd.sweep(run, vmap={"seed": np.arange(members)}, store=store, checkpoint_every=every)
                taken[every] = float(found.attrs["seconds_running"])
        costs.append((taken[0.0] - taken[1e9]) / saved)
    one = statistics.median(costs)
    return {
        "row": f"checkpoint m={width} E={members}",
        "state_bytes": plan.cells[0].step.state * members,
        "checkpoints": saved,
        "seconds_each": one,
        "share_at_default_cadence": one / CADENCE,
        "times": costs,
    }


def memory() -> dict[str, Any]:
    """Growth of a process against the plan's estimate, and a sweep whose states are ten times its budget.

    glibc keeps freed blocks of up to 32 MB for itself unless MALLOC_MMAP_THRESHOLD_ tells it a smaller size; the growth is given both ways.
    """
    width, members = 1024, 48
    whole = ask("memory", width=width, members=members, steps=10, budget=None)
    budget = whole["states"] / whole["devices"]  # bytes a device
    options = {"width": width, "members": 10 * members, "steps": 10, "budget": budget}
    blocks = ask("memory", **options)
    returned = ask("memory", environment={"MALLOC_MMAP_THRESHOLD_": "1000000"}, **options)
    return {
        "row": f"memory m={width} E={members}",
        "growth_over_estimate": whole["growth"] / whole["estimate"],
        "states_over_budget": blocks["states"] / blocks["budget"],
        "growth_over_budget": blocks["growth"] / blocks["budget"],
        "growth_over_budget_when_malloc_returns_it": returned["growth"] / returned["budget"],
        "blocks": blocks["cells"],
        "whole": whole,
        "in_blocks": blocks,
        "in_blocks_returned": returned,
    }


def timed(action: Any, *arguments: Any, **options: Any) -> Any:
    """A row, with the seconds it took."""
    began = time.perf_counter()
    found = action(*arguments, **options)
    return {**found, "benchmark_seconds": time.perf_counter() - began}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows, one figure a line."""
    lines = []
    for one in rows:
        for key, value in one.items():
            if isinstance(value, (int, float)) and key != "benchmark_seconds":
                lines.append([one["row"], key.replace("_", " "), f"{value:.4g}"])
    harness.show("what else it costs", ["row", "figure", "value"], lines)
