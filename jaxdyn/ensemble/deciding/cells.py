"""The cells of a sweep: what runs together, how a sweep was cut into them, and their programmes.

How a sweep was cut is kept in its store, because members that run together share their rounding: whoever resumes it, on
other devices, cuts it the same way.
"""

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
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

_NUM_PIECES = 16


@dataclass(frozen=True, eq=False)
class Cut:
    """The members that run together, as a store keeps them: by positions along the store's axes.

    Attributes:
        key: name of the cell in the store.
        group: cells of one group share their programme.
        loop: position along each loop axis.
        picks: positions along each vmap axis.
        maxima: to how many units each axis of widths is padded.
        chunk: how many members are vmapped at a time.
    """

    key: str
    group: str
    loop: tuple[int, ...]
    picks: tuple[np.ndarray, ...]
    maxima: tuple[int, ...]
    chunk: int

    @property
    def index(self) -> tuple[Any, ...]:
        """The region in the dataset: one integer or index array an axis."""
        return (*self.loop, *self.picks)

    @property
    def num_members(self) -> int:
        """How many members it has."""
        return math.prod(len(pick) for pick in self.picks)

    def to_json(self) -> dict[str, Any]:
        """As plain data; positions as runs `[first, last]`."""
        own = {"key": self.key, "group": self.group, "loop": list(self.loop), "picks": list(map(_runs, self.picks))}
        return own | {"maxima": list(self.maxima), "chunk": self.chunk}

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> "Cut":
        """From plain data."""
        picks = [np.concatenate([np.arange(first, last + 1) for first, last in runs]) for runs in found["picks"]]
        where = (tuple(found["loop"]), tuple(picks))
        return Cut(found["key"], found["group"], *where, tuple(found["maxima"]), found["chunk"])


@dataclass(frozen=True, eq=False)
class Layout:
    """How a sweep is cut: what a store keeps of a plan.

    Attributes:
        cuts: the cells, in the order they run.
        block: greatest length of a block along each vmap axis when the store was made.
    """

    cuts: tuple[Cut, ...]
    block: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"block": list(self.block), "cells": [cut.to_json() for cut in self.cuts]}

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> "Layout":
        """From plain data."""
        return Layout(tuple(Cut.from_json(one) for one in found["cells"]), tuple(found["block"]))


@dataclass(frozen=True, eq=False)
class Held:
    """What a store holds of a sweep.

    Attributes:
        layout: how what it holds was cut.
        places: for each axis the position of every asked value along the store's axis; new values come behind the store's own.
        shape: lengths of the store's axes with the new values.
        finished: keys of the cells that are computed.
    """

    layout: Layout
    places: tuple[np.ndarray, ...]
    shape: tuple[int, ...]
    finished: Container[str] = ()


@dataclass(frozen=True, eq=False)
class Cell:
    """One value of every loop axis, one bucket of every axis of widths, one block of the other members: what runs together.

    Attributes:
        cut: the cell as the store keeps it.
        name: name of the cell for people.
        picks: indices along each vmap axis of the plan.
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

    cut: Cut
    name: str
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
    def key(self) -> str:
        """Name of the cell in the store."""
        return self.cut.key

    @property
    def group(self) -> str:
        """Cells of one group share their programme."""
        return self.cut.group

    @property
    def num_members(self) -> int:
        """How many members it has; of a finished cell those that were asked for."""
        return math.prod(self.shape)

    @property
    def flops(self) -> float:
        """Floating-point operations of all its training steps, probes apart."""
        return self.step.flops * self.steps * self.num_members


@dataclass(frozen=True, eq=False)
class Plan:
    """The cells of a sweep.

    Attributes:
        axes: the axes.
        cells: the cells, in the order they run.
        held: how the whole store is cut, these cells included, and where along its axes the values of these axes lie.
        budget: bytes a device may hold.
    """

    axes: Axes
    run: Callable[..., Training]
    cells: tuple[Cell, ...]
    held: Held
    budget: int
    _programmes: dict[str, Programme] = field(default_factory=dict, repr=False)
    _observations: dict[str, list[tuple[float, float]]] = field(default_factory=dict, repr=False)

    @property
    def layout(self) -> Layout:
        """How the store of the sweep is cut."""
        return self.held.layout

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
            first = first_member(self.axes, cell.cut.maxima)
            self._observations[cell.group] = cost.observation(
                lambda values: call_run(self.run, cell.fixed, values), first
            )
        return self._observations[cell.group]

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


def first_member(axes: Axes, maxima: Sequence[int] | None) -> dict[str, Any]:
    """The vmapped arguments of the first member, its widths padded to `maxima`; to themselves when None."""
    arguments, _ = axes.members([np.asarray([0])] * len(axes.vmap), maxima)
    return {name: jax.tree.map(lambda leaf: jax.numpy.asarray(leaf[0]), value) for name, value in arguments.items()}


def _runs(positions: np.ndarray) -> list[list[int]]:
    """Positions as runs of consecutive ones, `[first, last]`."""
    parts = np.split(positions, 1 + np.flatnonzero(np.diff(positions) != 1))
    return [[int(part[0]), int(part[-1])] for part in parts]
