"""How we time: rivals in turn, medians of several rounds, compilation apart, JSON with the environment.

Machines are shared and drift, so a single time means little. Rivals run A B A B … in one process, each round gives one
ratio, and the median of the ratios is what we quote.
"""

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np

RESULTS = Path(__file__).parent / "results"


def seconds(action: Callable[[], Any]) -> float:
    """Wall seconds of one call, its results awaited."""
    began = time.perf_counter()
    jax.block_until_ready(action())
    return time.perf_counter() - began


def interleave(rivals: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, Any]]:
    """Time rivals in turn.

    Args:
        rivals: `{name: action}`; the first call of each, not counted in the medians, is reported as `first`.
        rounds: counted calls of each.

    Returns:
        `{name: {"first", "median", "min", "max", "all"}}` in seconds.
    """
    first = {name: seconds(action) for name, action in rivals.items()}
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, action in rivals.items():
            taken[name].append(seconds(action))
    return {
        name: {
            "first": first[name],
            "median": statistics.median(times),
            "min": min(times),
            "max": max(times),
            "all": times,
        }
        for name, times in taken.items()
    }


def ratio(times: Mapping[str, Mapping[str, Any]], over: str, under: str) -> float:
    """Median over rounds of time(over) / time(under)."""
    return statistics.median(a / b for a, b in zip(times[over]["all"], times[under]["all"], strict=True))


def matmul_rate(size: int = 2048, rounds: int = 20, *, precision: Any = None, dtype: Any = "float32") -> float:
    """Flops a second of products size³, float32 unless told otherwise, compiled as sweeps are: what this machine can do."""
    a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    options: Any = {"xla_gpu_enable_triton_gemm": False}
    product = jax.jit(lambda x: jax.numpy.matmul(x, x, precision=precision), compiler_options=options)
    seconds(lambda: product(a))
    return 2 * size**3 / statistics.median(seconds(lambda: product(a)) for _ in range(rounds))


def environment() -> dict[str, Any]:
    """Date, machine, device and versions."""
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "device": device.device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
    }


def write(name: str, table: list[dict[str, Any]], path: Path | None = None, **more: Any) -> Path:
    """Write the JSON of a benchmark."""
    target = path or RESULTS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        json.dumps({"benchmark": name, "environment": environment(), **more, "table": table}, indent=2) + "\n"
    )
    return target


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
