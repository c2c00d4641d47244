"""How fast a device is, as the planner needs to know it: assumed at first, measured once by `calibrate`, and kept.

A batched step of c members takes about overhead + c · flops / rate. On a CPU, members beyond those that hide the overhead gain
nothing and lose the cache, so what is wanted is the number of flops of a batched step from which more members at once no longer pay.
`calibrate` runs sweeps of two small networks at several chunk sizes and reads all three off. What it found lies in one file a
user, by device, number of devices and version of JAX; without it, figures of a 2-core machine are assumed.
"""

import contextlib
import datetime
import json
import math
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn._cache import cache_folder


@dataclass(frozen=True)
class Speed:
    """What the planner knows of a device.

    Attributes:
        rate: flops a second that training reaches.
        overhead: seconds of a batched step, however small.
        together: flops of a batched step from which more members at once gain nothing; infinite where all that fit run together.
        measured: the day of the measurement; "" where the figures are assumed.
    """

    rate: float
    overhead: float
    together: float
    measured: str = ""

    def __str__(self) -> str:
        together = "all members that fit" if math.isinf(self.together) else f"members up to {self.together:.1g} flops"
        how = f"measured {self.measured}" if self.measured else "assumed; `jaxdyn doctor` measures"
        return f"{self.rate / 1e9:.3g} GFLOP/s, {1e6 * self.overhead:.2g} µs a step, {together} together ({how})"


_ASSUMED = {"cpu": Speed(1e11, 5e-6, 2e6)}  # 2 cores, measured 2026-11-24
_ASSUMED_ELSEWHERE = Speed(1e13, 5e-5, math.inf)
_WIDTHS, _CHUNKS = (8, 48), (1, 4, 16)
_MEMBERS, _STEPS, _ROUNDS = 32, 64, 5
_SLACK = 1.05  # a chunk is good enough within this factor of the best
_BOUNDS = (2e5, 2e7)  # a noisy machine cannot push the choice beyond


@cache
def speed() -> Speed:
    """What is known of the devices of this process. Read once."""
    assumed = _ASSUMED.get(jax.default_backend(), _ASSUMED_ELSEWHERE)
    try:
        found = json.loads(_file().read_text())[_device()]
        return Speed(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return assumed


def calibrate(*, again: bool = False) -> Speed:
    """Measure the devices of this process, unless that was done before; some ten seconds. The result is kept for later processes.

    Args:
        again: measure although it was done.

    Returns:
        What was found. On accelerators all members that fit run together, whatever is measured.
    """
    known = speed()
    if known.measured and not again:
        return known
    found = _measure()
    held: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        held = json.loads(_file().read_text())
    with contextlib.suppress(OSError):  # a measurement that cannot be kept is still one
        _file().parent.mkdir(parents=True, exist_ok=True)
        beside = _file().with_name(f".speed.{os.getpid()}")
        beside.write_text(json.dumps({**held, _device(): asdict(found)}, indent=2) + "\n")
        beside.replace(_file())
    speed.cache_clear()
    return found


def _file() -> Path:
    return cache_folder() / "speed.json"


def _device() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    where = f" on {cores} cores" if jax.default_backend() == "cpu" else ""
    return f"{jax.local_device_count()} × {jax.local_devices()[0].device_kind}{where}, JAX {jax.__version__}"


def _measure() -> Speed:
    """Time steps of two networks at several chunk sizes, in turn."""
    from jaxdyn.ensemble.plan import Layout, plan  # which goes by what is measured here

    run = _work()
    cases: dict[tuple[int, int], Any] = {}
    flops: dict[int, float] = {}
    with ThreadPoolExecutor(4) as pool:
        for width in _WIDTHS:
            for chunk in _CHUNKS:
                layout = Layout((_MEMBERS,), {"0": [None]}, {"cell-0": chunk})
                chosen = plan(run, loop={"width": [width]}, vmap={"seed": np.arange(_MEMBERS)}, layout=layout)
                flops[width] = chosen.cells[0].step.flops
                programme = chosen.programme(chosen.cells[0])
                programme.compile_in(pool)
                cases[width, chunk] = (programme, chosen.cells[0])
    taken: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    for _ in range(1 + _ROUNDS):
        for case, (programme, cell) in cases.items():
            state, carried = programme.start(cell.arguments)
            jax.block_until_ready(state)
            began = time.perf_counter()
            jax.block_until_ready(programme.go_on(carried, state, programme.pieces[0]))
            taken[case].append((time.perf_counter() - began) / (_STEPS * _MEMBERS))
    seconds = {case: statistics.median(times[1:]) for case, times in taken.items()}
    return _read_off(seconds, flops, jax.default_backend() != "cpu")


def _read_off(seconds: dict[tuple[int, int], float], flops: dict[int, float], is_accelerator: bool) -> Speed:
    """Rate, overhead and best size of a batched step from seconds a member step at `(width, chunk)`."""
    small, large = min(flops), max(flops)
    rate = flops[large] / min(value for (width, _), value in seconds.items() if width == large)
    overhead = max(seconds[small, 1] - flops[small] / rate, 1e-7)
    wanted = [math.log(flops[width] * _enough(width, seconds)) for width in flops]
    together = math.inf if is_accelerator else float(np.clip(math.exp(statistics.mean(wanted)), *_BOUNDS))
    return Speed(rate, overhead, together, datetime.datetime.now(datetime.UTC).date().isoformat())


def _enough(width: int, seconds: dict[tuple[int, int], float]) -> int:
    """The smallest chunk that is as good as the best."""
    own = {chunk: value for (one, chunk), value in seconds.items() if one == width}
    return min(chunk for chunk, value in own.items() if value <= _SLACK * min(own.values()))


def _work() -> Any:
    """A sweep's function of width and seed, cheap and typical."""
    import optax

    from jaxdyn.dynamics import Training
    from jaxdyn.models import mlp
    from jaxdyn.tasks import from_arrays

    x = jax.random.normal(jax.random.key(0), (64, 32))
    task = from_arrays(x, x[:, :1])

    def run(width: int, seed: Any) -> Training:
        model = mlp((32, width, width, 1), activation=jnp.tanh)
        return Training(model, task, optax.sgd(0.1), steps=_STEPS, key=jax.random.key(seed))

    return run
