"""Does a sweep take the memory that the planner says?"""

import os
from collections.abc import Iterator
from functools import partial

from benchmarks.accelerator.section import Row, Setting, attempts
from benchmarks.ensemble.child import ask

CASES = ((1024, 64, 1e10), (2048, 64, None), (4096, 16, None))
"""Width, members, budget in bytes (None: the planner's own)."""


def estimates(setting: Setting) -> Iterator[Row]:
    """Most bytes that a device held during a sweep (a process of its own each), against the planner's figure."""
    cases = ((64, 4, None),) if setting.tiny else CASES
    yield from attempts(
        {
            f"width {width}, {members} members": partial(_case, width, members, budget)
            for width, members, budget in cases
        }
    )


def _case(width: int, members: int, budget: float | None) -> Row:
    platforms = {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "")}
    found = ask("memory", environment=platforms, width=width, members=members, steps=64, budget=budget)
    return {
        "plan, MB": found["estimate"] / 1e6,
        "peak, MB": found["growth"] / 1e6,
        "peak / plan": found["growth"] / found["estimate"],
        "goal": "1 / 1.3 to 1.3",
        "counted by": found["counted_by"],
        "cells": found["cells"],
        "states, MB": found["states"] / 1e6,
    }
