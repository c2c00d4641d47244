"""Is one vmapped sweep faster than a Python loop over jitted members?

Full-batch gradient descent of two-hidden-layer tanh networks (d = 64, n = 128), loss recorded every ten steps. Rivals, each
at its best: `sweep` (ours: everything included but compilation, which is reported apart), `loop` (one jitted `lax.scan` over all
steps, compiled once, called member by member), `naive` (the same loop with a fresh `jax.jit` a member, as plain scripts
have it; its compilations are part of what it costs, so it is timed once).
"""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks import harness

SIZES = [(16, 64), (64, 64), (256, 16), (512, 8)]
STEPS, ROUNDS, EXAMPLES, DIM, RATE = 200, 5, 128, 64, 0.1


def main(*, quick: bool = False, path: Path | None = None) -> None:
    """Run the benchmark."""
    sizes, rounds, steps = ([(8, 4)], 1, 20) if quick else (SIZES, ROUNDS, STEPS)
    table = [row(width, members, steps, rounds) for width, members in sizes]
    target = harness.write("ensemble", table, path, question=__doc__.splitlines()[0], steps=steps)
    harness.show(
        f"vmapped ensemble against a loop of jitted members, {steps} steps",
        ["width", "members", "sweep s", "loop s", "loop / sweep", "naive / sweep cold", "compile s"],
        [
            [
                str(one["width"]),
                str(one["members"]),
                f"{one['sweep_seconds']:.2f}",
                f"{one['loop_seconds']:.2f}",
                f"{one['loop_over_sweep']:.2f}",
                f"{one['naive_over_sweep_cold']:.1f}",
                f"{one['sweep_compile_seconds']:.1f}",
            ]
            for one in table
        ],
    )
    print(target)


def row(width: int, members: int, steps: int, rounds: int) -> dict[str, Any]:
    """Time one size."""
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=DIM, n=EXAMPLES)
    model = jd.models.mlp((DIM, width, width, 1), activation=jnp.tanh)

    def run(seed: Any) -> jd.Training:
        record = jd.record(jd.every(10), loss=jd.probes.Loss())
        return jd.Training(model, task, optax.sgd(RATE), steps=steps, key=jax.random.key(seed), record=record)

    plan = jd.ensemble.plan(run, vmap={"seed": np.arange(members)})
    began = time.perf_counter()
    programme = plan.programme(plan.cells[0])
    _ = programme.compiled
    compile_seconds = time.perf_counter() - began

    def sweep() -> np.ndarray:
        state, carried = programme.start(plan.cells[0].arguments)
        taken = []
        for times in programme.pieces:
            state, values = programme.go_on(carried, state, times)
            taken.append(np.asarray(values["loss"])[:members, times.rows(0)])
        return np.concatenate(taken, axis=1)

    def member(seed: Any, x: Any, y: Any) -> Any:
        params = model.init(jax.random.key(seed))

        def loss(p: Any) -> Any:
            return jnp.mean(jnp.sum((model.apply(p, x) - y) ** 2, axis=1))

        def step(p: Any, _: Any) -> Any:
            return jax.tree.map(lambda w, g: w - RATE * g, p, jax.grad(loss)(p)), None

        def block(p: Any, _: Any) -> Any:
            return jax.lax.scan(step, p, None, length=10)[0], loss(p)

        params, losses = jax.lax.scan(block, params, None, length=steps // 10)
        return jnp.append(losses, loss(params))

    compiled = jax.jit(member)

    def loop() -> np.ndarray:
        return np.stack([np.asarray(compiled(seed, task.x, task.y)) for seed in range(members)])

    def naive() -> np.ndarray:
        fresh = [jax.jit(lambda s, x, y: member(s, x, y)) for _ in range(members)]
        return np.stack([np.asarray(one(seed, task.x, task.y)) for seed, one in enumerate(fresh)])

    np.testing.assert_allclose(sweep(), loop(), rtol=2e-3)
    times = harness.interleave({"sweep": sweep, "loop": loop}, rounds)
    naive_seconds = harness.seconds(naive)
    return {
        "width": width,
        "members": members,
        "sweep_seconds": times["sweep"]["median"],
        "loop_seconds": times["loop"]["median"],
        "loop_over_sweep": harness.ratio(times, "loop", "sweep"),
        "naive_seconds": naive_seconds,
        "naive_over_sweep_cold": naive_seconds / (times["sweep"]["median"] + compile_seconds),
        "sweep_compile_seconds": compile_seconds,
        "times": times,
    }
