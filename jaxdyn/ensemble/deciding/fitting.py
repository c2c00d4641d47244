"""Plans cut small enough to stay within the memory of a device.

What a cell holds at most is known exactly only after it was compiled (XLA's `memory_analysis`). Cells whose states and
unfused steps are far below the budget are taken as fitting; the others are compiled, and cut smaller until they do: first
fewer members at a time, then smaller blocks.
"""

from collections.abc import Callable
from dataclasses import replace

from jaxdyn.ensemble.deciding.cells import Cell, Layout, Plan
from jaxdyn.ensemble.deciding.memory import of_member, shrink, text

_FAR_BELOW = 8  # a cell whose rough bound is this many times smaller than the budget is not compiled to be sure


def fit(cut: Callable[[Layout], Plan], layout: Layout, budget: int) -> Plan:
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
        layout = _finer(plan, layout, *found, budget)


def _doubtful(plan: Plan) -> list[Cell]:
    """One cell of each group that may not fit."""
    groups = {cell.group: cell for cell in reversed(plan.cells)}

    def bound(cell: Cell) -> float:
        placement = cell.placement
        held = placement.padded / len(placement.devices) * of_member(cell.step, cell.records)
        return held + placement.chunk * cell.step.touched

    return [cell for cell in groups.values() if bound(cell) * _FAR_BELOW > plan.budget]


def _finer(plan: Plan, layout: Layout, cell: Cell, needed: int, budget: int) -> Layout:
    chunk = cell.placement.chunk
    if chunk > 1:
        return replace(layout, chunks={**layout.chunks, cell.group: chunk // 2})
    members = len(cell.placement.devices)
    if cell.num_members > members:
        fitting = max(members, min(cell.num_members // 2, cell.num_members * budget // needed))
        smaller = shrink(layout.block, fitting, last=plan.axes.width)
        return replace(layout, block=smaller)
    raise ValueError(
        f"The cell {cell.name or cell.key!r} needs {text(needed)} on each device even one member at a time, and the budget is "
        f"{text(budget)}. Raise `memory=`, narrow the network, use a smaller batch, or give the probes a `batch_size`."
    )
