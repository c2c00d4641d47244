"""How fast a device is, measured by sweeps of two small networks at several chunk sizes."""

import datetime
import math
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn.dynamics import Training
from jaxdyn.ensemble.deciding.axes import parse
from jaxdyn.ensemble.deciding.plan import decide
from jaxdyn.ensemble.deciding.speed import Speed, keep, speed
from jaxdyn.models import mlp
from jaxdyn.tasks import from_arrays

_WIDTHS, _CHUNKS = (8, 48), (1, 4, 16)
_MEMBERS, _STEPS, _ROUNDS = 32, 64, 5
_SLACK = 1.05  # a chunk is good enough within this factor of the best
_BOUNDS = (2e5, 2e7)  # a noisy machine cannot push the choice beyond


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
    keep(found)
    return found


def _measure() -> Speed:
    """Time steps of two networks at several chunk sizes, in turn."""
    run = _work()
    cases: dict[tuple[int, int], Any] = {}
    flops: dict[int, float] = {}
    with ThreadPoolExecutor(4) as pool:
        for width in _WIDTHS:
            for chunk in _CHUNKS:
                axes = parse(run, {"width": [width]}, {"seed": np.arange(_MEMBERS)})
                chosen = decide(run, axes, None, chunk=chunk)
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

    x = jax.random.normal(jax.random.key(0), (64, 32))
    task = from_arrays(x, x[:, :1])

    def run(width: int, seed: Any) -> Training:
        model = mlp((32, width, width, 1), activation=jnp.tanh)
        return Training(model, task, optax.sgd(0.1), steps=_STEPS, key=jax.random.key(seed))

    return run
