"""Is a phase diagram of the catapult phase a matter of a minute, and does a step of a quadratic model cost one of its network?

`diagram`: 64 runs (16 rates × 4 seeds) of a two-layer ReLU network and of its quadratic model, width 1024, 64 inputs, 128 examples, 200
steps, loss and kernel norm at every step: `jd.sweep` from nothing, compilation included, then `phases.classify`. The aim is a minute on two
cores for each. Correctness first: the quadratic model is lazy below 1.9, and catapults in most runs from 2.2 to 3.

`step`: 200 steps of 16 runs, quadratic models of one network against the network, compiled, alternating. `frozen gates` (the gates of the
data found once) aims at 1.2, `jd.quadratic` at 3.6 × the network; the flop count with everything hoisted is 3. Correctness first: both give
the same losses.
"""

import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks import harness

AIM = 60.0
RATES = np.array([0.5, 1.0, 1.5, 1.8, 1.95, 2.1, 2.3, 2.6, 2.9, 3.2, 3.5, 3.8, 3.95, 4.1, 4.4, 5.0])


def main(quick: bool = False, path: Path | None = None) -> None:
    """Run, print, write."""
    width, n, steps, rounds = (128, 16, 60, 2) if quick else (1024, 128, 200, 7)
    task = jd.tasks.digits(classes=(3, 8), n=n, n_test=0)
    rows = [diagram(function, task, width, steps) for function in ("quadratic", "network")]
    rows += _step(task, width, steps, rounds)
    harness.show(
        f"64 runs, width {width}, {n} examples, {steps} steps",
        ["what", "function", "seconds", "compiling", "aim"],
        [
            [row["what"], row["function"], f"{row['seconds']:.2f}", f"{row.get('compiling', 0):.1f}", row["aim"]]
            for row in rows
        ],
    )
    print(harness.write("catapult", rows, path, load_average=os.getloadavg()))


def _training(function: str, task: Any, width: int, steps: int, rate: Any, seed: Any, record: Any) -> jd.Training:
    key = jax.random.key(seed)
    model = jd.models.two_layer_relu(64, width)
    params0 = model.init(key)
    critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
    expand = {
        "network": jd.exact,
        "quadratic": jd.models.frozen_gates_on(task.x),
        "jd.quadratic": jd.quadratic,
    }[function]
    return jd.Training(
        model, task, optax.sgd(rate / 2 * critical), steps=steps, key=key, params0=params0, expand=expand, record=record
    )


def diagram(function: str, task: Any, width: int, steps: int, seeds: int = 4) -> dict[str, Any]:
    """The phase diagram of a function, from nothing."""

    def run(rate: Any, seed: Any) -> jd.Training:
        record = jd.record(jd.every(1), loss=jd.probes.Loss(), ntk=jd.probes.NTKNorm(task.x))
        return _training(function, task, width, steps, rate, seed, record)

    began = time.perf_counter()
    found = jd.sweep(run, vmap={"rate": RATES, "seed": np.arange(seeds)}).load()
    phase = jd.analysis.phases.classify(found.loss, curvature=found.ntk, diverged_at=found.diverged_at)
    taken = time.perf_counter() - began
    if function == "quadratic":  # above, no theorem speaks of many examples in many dimensions: some converge even at 5
        assert (phase.sel(rate=slice(0, 1.9)) == "lazy").all(), phase
        assert (phase.sel(rate=slice(2.2, 3.0)) == "catapult").mean() > 0.8, phase
    names, counts = np.unique(phase.values, return_counts=True)
    return {
        "what": "diagram",
        "function": function,
        "seconds": taken,
        "compiling": float(found.attrs["seconds_compiling"]),
        "running": float(found.attrs["seconds_running"]),
        "aim": f"{AIM:g} s",
        "phases": dict(zip(names.tolist(), counts.tolist(), strict=True)),
    }


def _step(task: Any, width: int, steps: int, rounds: int) -> list[dict[str, Any]]:
    functions = ("network", "quadratic", "jd.quadratic")

    def compiled(function: str) -> Any:
        @jax.jit
        def run(task: Any, rates: Any) -> Any:
            def one(rate: Any) -> Any:
                record = jd.record(jd.at([0, steps]), loss=jd.probes.Loss())
                return jd.train(_training(function, task, width, steps, rate, 0, record)).values["loss"]

            return jax.lax.map(one, rates)

        return lambda: run(task, jnp.linspace(0.5, 1.8, 16))

    rivals = {function: compiled(function) for function in functions}
    losses = {function: np.asarray(rival()) for function, rival in rivals.items()}
    np.testing.assert_allclose(losses["quadratic"], losses["jd.quadratic"], rtol=1e-2, atol=1e-5)
    times = harness.interleave(rivals, rounds)
    aims = {"network": "", "quadratic": "1.2", "jd.quadratic": "3.6"}
    return [
        {
            "what": "step",
            "function": function,
            "seconds": times[function]["median"],
            "over_network": harness.ratio(times, function, "network"),
            "aim": f"{harness.ratio(times, function, 'network'):.2f} × network, aim {aims[function] or 1}",
            "times": times[function],
        }
        for function in functions
    ]
