"""Bytes: what a device may hold, what a member needs, and blocks of members small enough."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxdyn.ensemble.deciding.cost import Step

SHARE = 0.7
"""The share of a device's memory that a sweep may take when nobody says."""


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


def shrink(lengths: Sequence[int], largest: int, *, last: Collection[int] = ()) -> tuple[int, ...]:
    """Block lengths along the axes whose product is at most `largest`, the first axes cut first.

    Args:
        lengths: of the axes.
        largest: members of a block, at most.
        last: positions of axes that are cut only when all others are down to one: those of widths, whose padding a cut wastes.

    Example:
        >>> shrink([5, 8], 40), shrink([5, 8], 10), shrink([5, 8], 10, last=[0]), shrink([10000], 300)
        ((5, 8), (2, 4), (5, 2), (295,))
    """
    found = list(lengths)
    for position in sorted(range(len(found)), key=lambda one: (one in last, one)):
        beyond = math.prod(found) / max(largest, 1)
        if beyond <= 1:
            break
        found[position] = -(-found[position] // min(found[position], math.ceil(beyond)))
    return tuple(found)
