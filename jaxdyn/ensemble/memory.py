"""What fits: the bytes a device may hold, and plans cut small enough to stay within them.

What a cell holds at most is known exactly only after it was compiled (XLA's `memory_analysis`). Cells whose states and
unfused steps are far below the budget are taken as fitting; the others are compiled, and cut smaller until they do: first
fewer members at a time, then smaller blocks.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from jaxdyn.ensemble.cost import Step

if TYPE_CHECKING:
    from jaxdyn.ensemble.plan import Cell, Layout, Plan

SHARE = 0.7
"""The share of a device's memory that a sweep may take when nobody says."""

_FAR_BELOW = 8  # a cell whose rough bound is this many times smaller than the budget is not compiled to be sure


def available() -> int:
    """Bytes that one device may hold: a share of its memory, or of what this machine has free."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(SHARE * stats["bytes_limit"])
    return int(SHARE * _free() / jax.local_device_count())


def _free() -> int:
    """Bytes this process may still take of the machine's memory."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 4 * 2**30
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return min(free, int(limit) - used) if limit.isdigit() else free
    except (OSError, KeyError, ValueError):
        return free


def text(size: float | int) -> str:
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def of_member(step: Step, records: Sequence[tuple[str, Any, Mapping[str, Any]]]) -> int:
    """Bytes a member holds between two pieces, roughly: states before and after, anchor, gradient, and what it recorded."""
    recorded = sum(
        len(times) * math.prod(variable.shape) * variable.dtype.itemsize
        for _, times, yields in records
        for variable in yields.values()
    )
    return 4 * step.state + recorded


def shrink(lengths: Sequence[int], largest: int) -> tuple[int, ...]:
    """Block lengths along the axes whose product is at most `largest`, the first axes cut first.

    Example:
        >>> shrink([5, 8], 40), shrink([5, 8], 10), shrink([10000], 300)
        ((5, 8), (2, 4), (295,))
    """
    found = list(lengths)
    for position, length in enumerate(found):
        beyond = math.prod(found) / max(largest, 1)
        if beyond <= 1:
            break
        found[position] = -(-length // min(length, math.ceil(beyond)))
    return tuple(found)


def fit(cut: Callable[["Layout"], "Plan"], layout: "Layout", budget: int) -> "Plan":
    """The plan of a layout, or of a finer one where a cell would not fit.

    Args:
        cut: makes the plan of a layout.
        layout: how to cut at first.
        budget: bytes a device may hold.

    Raises:
        ValueError: where a single member does not fit.
    """
    while True:
        plan = cut(layout)
        found = next(((cell, plan.memory(cell)) for cell in _doubtful(plan) if plan.memory(cell) > budget), None)
        if found is None:
            return plan
        layout = _finer(layout, *found, budget)


def _doubtful(plan: "Plan") -> list["Cell"]:
    """One cell of each group that may not fit."""
    groups = {cell.group: cell for cell in reversed(plan.cells)}

    def bound(cell: "Cell") -> float:
        placement = cell.placement
        held = placement.padded / len(placement.devices) * of_member(cell.step, cell.records)
        return held + placement.chunk * cell.step.touched

    return [cell for cell in groups.values() if bound(cell) * _FAR_BELOW > plan.budget]


def _finer(layout: "Layout", cell: "Cell", needed: int, budget: int) -> "Layout":
    chunk = cell.placement.chunk
    if chunk > 1:
        return replace(layout, chunks={**layout.chunks, cell.group: chunk // 2})
    members = len(cell.placement.devices)
    if cell.num_members > members:
        smaller = shrink(layout.block, max(members, min(cell.num_members // 2, cell.num_members * budget // needed)))
        return replace(layout, block=smaller)
    raise ValueError(
        f"The cell {cell.name or cell.key!r} needs {text(needed)} on each device even one member at a time, and the budget is "
        f"{text(budget)}. Raise `memory=`, narrow the network, use a smaller batch, or give the probes a `batch_size`."
    )
