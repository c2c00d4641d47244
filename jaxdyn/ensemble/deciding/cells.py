"""The cells of a sweep: what runs together, how a sweep was cut into them, and their programmes.

How a sweep was cut is kept in its store, because members that run together share their rounding: whoever resumes it, on
other devices, cuts it the same way.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from jaxdyn.dynamics import Training, Variable
from jaxdyn.ensemble.compiling.placement import Placement
from jaxdyn.ensemble.compiling.programme import Programme, call_run, programme
from jaxdyn.ensemble.deciding import cost
from jaxdyn.ensemble.deciding.axes import Axes
from jaxdyn.ensemble.deciding.memory import text
from jaxdyn.ensemble.deciding.speed import speed
from jaxdyn.models.width import Width

_NUM_PIECES = 16


@dataclass(frozen=True, eq=False)
class Cell:
    """One value of every loop axis, one bucket of widths, one block of the other members: what runs together.

    Attributes:
        key: name of the cell in the store.
        name: name of the cell for people.
        group: cells of one group share their programme.
        loop: index along each loop axis.
        picks: indices along each vmap axis.
        fixed: what `run` receives for the loop axes.
        arguments: what it receives for the vmap axes, each with one leading member axis.
        shape: what the members unflatten to.
        placement: where they run, and how many together.
        steps: length of the runs.
        records: for each record its time dimension, its times and what it yields.
        loss: name of the loss, which carries its normalisation.
        precision: matmul precision.
        step: what one step of one member costs.
    """

    key: str
    name: str
    group: str
    loop: tuple[int, ...]
    picks: tuple[np.ndarray, ...]
    fixed: Mapping[str, Any]
    arguments: Mapping[str, Any]
    shape: tuple[int, ...]
    placement: Placement
    steps: int
    records: tuple[tuple[str, np.ndarray, dict[str, Variable]], ...]
    loss: str
    precision: str
    step: cost.Step

    @property
    def num_members(self) -> int:
        """How many members it has."""
        return math.prod(self.shape)

    @property
    def flops(self) -> float:
        """Floating-point operations of all its training steps, probes apart."""
        return self.step.flops * self.steps * self.num_members


@dataclass(frozen=True, eq=False)
class Layout:
    """How a sweep is cut: what a store keeps of a plan.

    Attributes:
        block: greatest length of a block along each vmap axis.
        buckets: for each loop index (as text), the buckets of widths as index lists; None where no width is an axis.
        chunks: for each group, how many members are vmapped at a time.
    """

    block: tuple[int, ...]
    buckets: Mapping[str, Any]
    chunks: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"block": list(self.block), "buckets": dict(self.buckets), "chunks": dict(self.chunks)}

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> "Layout":
        """From plain data."""
        return Layout(tuple(found["block"]), found["buckets"], found["chunks"])


@dataclass(frozen=True, eq=False)
class Plan:
    """The cells of a sweep.

    Attributes:
        axes: the axes.
        cells: the cells, in the order they run.
        layout: how the sweep is cut.
        budget: bytes a device may hold.
    """

    axes: Axes
    run: Callable[..., Training]
    cells: tuple[Cell, ...]
    layout: Layout
    budget: int
    _programmes: dict[str, Programme] = field(default_factory=dict, repr=False)
    _observations: dict[str, list[tuple[float, float]]] = field(default_factory=dict, repr=False)

    def programme(self, cell: Cell) -> Programme:
        """The programme of a cell, traced when it is first asked for. Nothing is compiled yet."""
        if cell.group not in self._programmes:
            self._programmes[cell.group] = programme(
                self.run, cell.fixed, cell.arguments, num_pieces=_NUM_PIECES, placement=cell.placement
            )
        return self._programmes[cell.group]

    def release(self, cell: Cell) -> None:
        """Forget the programme of a cell."""
        self._programmes.pop(cell.group, None)

    def memory(self, cell: Cell) -> int:
        """Bytes a device holds at most while a cell runs, as XLA plans it; the cell is compiled for it, not run."""
        return self.programme(cell).memory()

    def observation(self, cell: Cell) -> list[tuple[float, float]]:
        """Flops and bytes of one member's probes, for each record once; counted when first asked for."""
        if cell.group not in self._observations:
            first = first_member(self.axes, _maximum(cell.arguments))
            self._observations[cell.group] = cost.observation(
                lambda values: call_run(self.run, cell.fixed, values), first
            )
        return self._observations[cell.group]

    def index(self, cell: Cell) -> tuple[Any, ...]:
        """The region of a cell in the dataset: one integer or index array an axis."""
        return (*cell.loop, *cell.picks)

    def __str__(self) -> str:
        members = sum(cell.num_members for cell in self.cells)
        flops = sum(cell.flops for cell in self.cells)
        groups: dict[str, list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault(cell.group, []).append(cell)
        lines = [
            f"{len(self.cells)} cells, {members} members, {len(groups)} compilations, {flops:.2g} flops of training",
            f"this device: {speed()}",
        ]
        for cells in groups.values():
            one = cells[0]
            blocks = (
                f"{len(cells)} blocks of {one.num_members} members" if len(cells) > 1 else f"{one.num_members} members"
            )
            lines.append(
                f"  {one.name or 'all'}: {blocks}, {one.placement.chunk} at a time on {len(one.placement.devices)} device(s), "
                f"{one.steps} steps, {one.step.flops:.2g} flops a member step, state {text(one.step.state)} a member"
            )
        return "\n".join(lines)


def first_member(axes: Axes, maximum: int | None) -> dict[str, Any]:
    """The vmapped arguments of the first member, its width padded to `maximum`."""
    arguments, _ = axes.members([np.asarray([0])] * len(axes.vmap))
    one = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf[0]), arguments)
    return {
        name: replace(value, maximum=maximum) if isinstance(value, Width) and maximum is not None else value
        for name, value in one.items()
    }


def _maximum(arguments: Mapping[str, Any]) -> int | None:
    """To how many units the widths of a cell are padded; None where it has no width axis."""
    found = [value.maximum for value in arguments.values() if isinstance(value, Width)]
    return found[0] if found else None
