"""What needs a process of its own: `python -m benchmarks.ensemble.child JOB OPTIONS` prints one line of JSON.

Jobs are the functions of this module that are named in `JOBS`. Their clock starts after the imports.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any

DIM, EXAMPLES, EVERY = 64, 128, 10


def ask(
    job: str, *, devices: int | None = None, environment: dict[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """Run a job in a fresh process.

    Args:
        job: its name.
        devices: virtual CPU devices; a device a core, as `jaxdyn run` has it, when None.
        environment: variables to add.
        **options: for the job.
    """
    clean = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    clean |= {"JAX_PLATFORMS": "cpu", **(environment or {})}
    request = json.dumps({"devices": devices, **options})
    command = [sys.executable, "-m", "benchmarks.ensemble.child", job, request]
    began = time.perf_counter()
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{job} failed: {done.stderr[-800:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "process_seconds": time.perf_counter() - began}


def _task() -> Any:
    import jax

    import jaxdyn as jd

    return jd.tasks.polynomial(jax.random.key(0), degree=2, dim=DIM, n=EXAMPLES)


def cold_sweep(widths: list[int], seeds: int, rates: list[float], steps: int) -> dict[str, Any]:
    """The sweep, as one writes it with jaxdyn."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import jaxdyn as jd

    task = _task()
    spent = {"compiling": 0.0}

    def compiled(event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":  # XLA, or the cache
            spent["compiling"] += seconds

    jax.monitoring.register_event_duration_secs_listener(compiled)
    began = time.perf_counter()

    def run(width: Any, seed: Any, lr: Any) -> Any:
        model = jd.models.mlp((DIM, width, width, 1), activation=jnp.tanh)
        record = jd.record(jd.every(EVERY), loss=jd.probes.Loss())
        return jd.Training(model, task, optax.sgd(lr), steps=steps, key=jax.random.key(seed), record=record)

    axes = {"width": jd.widths(widths), "seed": np.arange(seeds), "lr": np.asarray(rates)}
    found = jd.sweep(run, vmap=axes)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        **spent,
        "waiting": float(found.attrs["seconds_compiling"]),
        "tracing": float(found.attrs["seconds_tracing"]),
        "losses": np.asarray(found.loss.isel(step=-1)).ravel().tolist(),
    }


def cold_script(widths: list[int], seeds: int, rates: list[float], steps: int, style: str) -> dict[str, Any]:
    """A plain script: one `jax.jit` a width (`members`: called for each rate and seed; `vmap`: once), or one a configuration (`naive`)."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxdyn as jd

    task = _task()
    began = time.perf_counter()
    x, y = task.x, task.y
    losses = []
    for width in widths:
        model = jd.models.mlp((DIM, width, width, 1), activation=jnp.tanh)

        def member(seed: Any, rate: Any, x: Any, y: Any, apply: Any = model.apply, init: Any = model.init) -> Any:
            def loss(params: Any) -> Any:
                return jnp.mean(jnp.sum((apply(params, x) - y) ** 2, axis=1))

            def step(params: Any, _: Any) -> Any:
                value, grads = jax.value_and_grad(loss)(params)
                return jax.tree.map(lambda p, g: p - rate * g, params, grads), value

            params, values = jax.lax.scan(step, init(jax.random.key(seed)), None, length=steps)
            return jnp.append(values[::EVERY], loss(params))

        grid = [(seed, rate) for seed in range(seeds) for rate in rates]
        if style == "vmap":
            ensemble = jax.jit(jax.vmap(member, in_axes=(0, 0, None, None)))
            rows = np.asarray(ensemble(jnp.asarray([s for s, _ in grid]), jnp.asarray([r for _, r in grid]), x, y))
        else:
            one = jax.jit(member)
            rows = [
                np.asarray((one if style == "members" else jax.jit(lambda *a, f=member: f(*a)))(s, r, x, y))
                for s, r in grid
            ]
        losses += [float(row[-1]) for row in rows]
    return {"seconds": time.perf_counter() - began, "losses": losses}


def _wide(width: int, steps: int) -> Any:
    import jax
    import jax.numpy as jnp
    import optax

    import jaxdyn as jd

    task = _task()
    model = jd.models.mlp((DIM, width, width, 1), activation=jnp.tanh)

    def run(seed: Any) -> Any:
        record = jd.record(jd.every(EVERY), loss=jd.probes.Loss())
        return jd.Training(model, task, optax.sgd(0.1), steps=steps, key=jax.random.key(seed), record=record)

    return run


def memory(width: int, members: int, steps: int, budget: float | None) -> dict[str, Any]:
    """Growth of a device's memory while a sweep runs, else of this process; a small sweep first warms what all need."""
    import jax
    import numpy as np

    import jaxdyn as jd

    jd.sweep(_wide(8, steps), vmap={"seed": np.arange(4)})
    run, axes = _wide(width, steps), {"seed": np.arange(members)}
    plan = jd.ensemble.plan(run, vmap=axes, memory=budget)
    devices = len(plan.cells[0].placement.devices)
    estimate = plan.memory(plan.cells[0]) * devices
    is_counted = bool(jax.local_devices()[0].memory_stats())
    before = _in_use("bytes_in_use") if is_counted else _resident()
    found = jd.sweep(run, vmap=axes, memory=budget)
    assert bool(found.done.all())
    return {
        "growth": (_in_use("peak_bytes_in_use") if is_counted else _largest()) - before,
        "counted_by": "device" if is_counted else "process",
        "estimate": estimate,
        "budget": None if budget is None else budget * devices,
        "states": plan.cells[0].step.state * members,
        "cells": len(plan.cells),
        "devices": jax.local_device_count(),
    }


def _in_use(kind: str) -> int:
    """Bytes of all devices, as JAX counts them."""
    import jax

    return sum((device.memory_stats() or {})[kind] for device in jax.local_devices())


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _largest() -> int:
    """The most this process ever held; `ru_maxrss` would count what its parent held when it was forked."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024


def scaling(sizes: list[tuple[int, int, int]], rounds: int) -> dict[str, Any]:
    """Seconds of sweeps of `(width, members, steps)`, compilation apart: the least of some rounds."""
    import numpy as np

    from benchmarks import harness
    from benchmarks.ensemble.programmes import Sweep

    found = []
    for width, members, steps in sizes:
        sweep = Sweep(_wide(width, steps), {"seed": np.arange(members)})
        sweep()
        found.append(min(harness.seconds(sweep) for _ in range(rounds)))
    return {"seconds": found}


JOBS = {job.__name__: job for job in (cold_sweep, cold_script, memory, scaling)}


if __name__ == "__main__":
    import jax

    import jaxdyn

    chosen = json.loads(sys.argv[2])
    number = chosen.pop("devices")
    if sys.argv[1] != "cold_script":  # a plain script has JAX's default: one device
        jaxdyn.ensemble.use_cores(number)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # as `jaxdyn run` has it
    print(json.dumps(JOBS[sys.argv[1]](**chosen)))
