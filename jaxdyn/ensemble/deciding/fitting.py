"""Plans cut small enough to stay within the memory of a device.

What a cell holds at most is known exactly only after it was compiled (XLA's `memory_analysis`). Cells whose states and
unfused steps are far below the budget are taken as fitting; the others are compiled, and cut smaller until they do: first
fewer members at a time, then smaller blocks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from jaxdyn.ensemble.deciding.cells import Cell, Plan
from jaxdyn.ensemble.deciding.memory import of_member, shrink, text

_FAR_BELOW = 8  # a cell whose rough bound is this many times smaller than the budget is not compiled to be sure


@dataclass(frozen=True)
class Sizes:
    """How large what runs together may be.

    Attributes:
        block: greatest length of a block along each vmap axis.
        chunks: for each group of cells, how many members are vmapped at a time.
    """

    block: tuple[int, ...]
    chunks: Mapping[str, int]


def fit(cut: Callable[[Sizes], Plan], sizes: Sizes, budget: int) -> Plan:
    """The plan that `cut` makes of some sizes, or of smaller ones where a cell would need more than `budget` bytes of a device.

    Raises:
        ValueError: where a single member does not fit.
    """
    while True:
        plan = cut(sizes)
        doubtful = [cell for cell in _doubtful(plan) if cell.group in sizes.chunks]
        found = next(((cell, plan.memory(cell)) for cell in doubtful if plan.memory(cell) > budget), None)
        if found is None:
            return plan
        sizes = _smaller(plan, sizes, *found)


def _doubtful(plan: Plan) -> list[Cell]:
    """One cell of each group that may not fit."""
    groups = {cell.group: cell for cell in reversed(plan.cells)}

    def bound(cell: Cell) -> float:
        placement = cell.placement
        held = placement.padded / len(placement.devices) * of_member(cell.step, cell.records)
        return held + placement.chunk * cell.step.touched

    return [cell for cell in groups.values() if bound(cell) * _FAR_BELOW > plan.budget]


def _smaller(plan: Plan, sizes: Sizes, cell: Cell, needed: int) -> Sizes:
    chunk, budget = cell.placement.chunk, plan.budget
    if chunk > 1:
        return replace(sizes, chunks={**sizes.chunks, cell.group: chunk // 2})
    members = len(cell.placement.devices)
    if cell.num_members > members:
        fitting = max(members, min(cell.num_members // 2, cell.num_members * budget // needed))
        return replace(sizes, block=shrink(sizes.block, fitting, last=plan.axes.widths))
    raise ValueError(
        f"The cell {cell.name or cell.key!r} needs {text(needed)} on each device even one member at a time, and the budget is "
        f"{text(budget)}. Raise `memory=`, narrow the network, use a smaller batch, or give the probes a `batch_size`."
    )
