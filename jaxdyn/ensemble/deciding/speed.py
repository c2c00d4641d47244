"""How fast a device is, as the planner needs to know it: assumed at first, measured once, and kept.

A batched step of c members takes about overhead + c · flops / rate. On a CPU, members beyond those that hide the overhead gain
nothing and lose the cache, so what is wanted is the number of flops of a batched step from which more members at once no longer pay.
`calibration.calibrate` runs sweeps of two small networks at several chunk sizes and reads all three off. What it found lies in one file a
user, by device, number of devices and version of JAX; without it, figures of a 2-core machine are assumed.
"""

import contextlib
import json
import math
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax

from jaxdyn._cache import cache_folder
from jaxdyn.ensemble.compiling.placement import num_cores


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


@cache
def speed() -> Speed:
    """What is known of the devices of this process. Read once."""
    assumed = _ASSUMED.get(jax.default_backend(), _ASSUMED_ELSEWHERE)
    try:
        found = json.loads(_file().read_text())[_device()]
        return Speed(**found)
    except (OSError, ValueError, KeyError, TypeError):
        return assumed


def keep(found: Speed) -> None:
    """Keep what was measured on the devices of this process, for later processes too; where the disk refuses, nothing is kept."""
    held: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        held = json.loads(_file().read_text())
    with contextlib.suppress(OSError):  # a measurement that cannot be kept is still one
        _file().parent.mkdir(parents=True, exist_ok=True)
        beside = _file().with_name(f".speed.{os.getpid()}")
        beside.write_text(json.dumps({**held, _device(): asdict(found)}, indent=2) + "\n")
        beside.replace(_file())
    speed.cache_clear()


def _file() -> Path:
    return cache_folder() / "speed.json"


def _device() -> str:
    where = f" on {num_cores()} cores" if jax.default_backend() == "cpu" else ""
    return f"{jax.local_device_count()} × {jax.local_devices()[0].device_kind}{where}, JAX {jax.__version__}"
