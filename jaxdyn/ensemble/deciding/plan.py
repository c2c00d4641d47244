"""What a sweep will run, cell by cell, before anything is computed.

A sweep is cut into *cells*: one value of every loop axis, one bucket of widths that run padded together, and one block of
the other members. Blocks are there so that what runs at once fits into memory; the blocks of a bucket share one programme.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxdyn import dynamics
from jaxdyn.dynamics import Training
from jaxdyn.ensemble.compiling.blame import blaming
from jaxdyn.ensemble.compiling.placement import place
from jaxdyn.ensemble.compiling.programme import call_run
from jaxdyn.ensemble.deciding import cost
from jaxdyn.ensemble.deciding.axes import Axes, buckets, loop_indices, parse
from jaxdyn.ensemble.deciding.cells import Cell, Layout, Plan, first_member
from jaxdyn.ensemble.deciding.fitting import fit
from jaxdyn.ensemble.deciding.memory import available, of_member, shrink
from jaxdyn.models.width import Width


def plan(
    run: Callable[..., Training],
    *,
    loop: Mapping[str, Any] | None = None,
    vmap: Mapping[str, Any] | None = None,
    memory: float | int | None = None,
    layout: Layout | None = None,
) -> Plan:
    """Cut a sweep into cells.

    Args:
        run: the user's function of the axes, returning a `Training`.
        loop: `{name: values}`, axes that compile anew.
        vmap: `{name: values}`, axes that are traced and batched.
        memory: bytes that a device may hold; 70 % of what it has, or of what this machine has free, when None.
        layout: how to cut; chosen by cost when None.

    Returns:
        The plan; `print` shows its cells.

    Raises:
        TypeError: where the axes do not fit the arguments of `run`.
        ValueError: for an empty, ragged or repeated axis, and where not even one member fits into memory.
    """
    return _Planner(run, parse(run, loop, vmap), _budget(memory), layout).plan()


def _budget(given: float | int | None) -> int:
    if given is None:
        return available()
    if not given > 0:
        raise ValueError(f"`memory` is a positive number of bytes, but is {given}.")
    return int(given)


@dataclass(frozen=True, eq=False)
class _Group:
    """One value of every loop axis and one bucket of widths."""

    key: str
    index: tuple[int, ...]
    bucket: np.ndarray | None
    fixed: Mapping[str, Any]
    look: Mapping[str, Any]
    step: cost.Step
    shape: tuple[int, ...]


class _Planner:
    """Makes one plan."""

    def __init__(
        self,
        run: Callable[..., Training],
        axes: Axes,
        budget: int,
        layout: Layout | None,
    ) -> None:
        self.run = run
        self.axes = axes
        self.budget = budget
        self.layout = layout

    def plan(self) -> Plan:
        groups = [group for index in loop_indices(self.axes) for group in self.groups(index)]
        if self.layout is not None:
            return self.cut(groups, self.layout)
        keys: dict[str, list[Any]] = {_text(group.index): [] for group in groups}
        for group in groups:
            keys[_text(group.index)].append(None if group.bucket is None else [int(i) for i in group.bucket])
        layout = Layout(self.block(groups), keys, {})
        chunks = {group.key: cost.members_together(group.step, self.here(group, layout.block)) for group in groups}
        return fit(lambda layout: self.cut(groups, layout), replace(layout, chunks=chunks), self.budget)

    def groups(self, index: tuple[int, ...]) -> list[_Group]:
        """The buckets of one value of every loop axis."""
        axes = self.axes
        fixed = axes.loop_values(index)
        look = _look(self.run, axes, fixed)
        known: dict[int | None, cost.Step] = {}

        def step(maximum: int | None) -> cost.Step:
            if maximum not in known:
                known[maximum] = cost.step(
                    lambda values: call_run(self.run, fixed, values), first_member(axes, maximum)
                )
            return known[maximum]

        others = math.prod(len(axis) for i, axis in enumerate(axes.vmap) if i != axes.width)
        if self.layout is not None:
            cut = [None if bucket is None else np.asarray(bucket) for bucket in self.layout.buckets[_text(index)]]
        else:
            cut = buckets(axes, lambda m: step(m).seconds * look["steps"] * others, cost.COMPILATION)
        found = []
        for number, bucket in enumerate(cut):
            maximum = None if bucket is None else max(int(width) for width in axes.widths[bucket])
            shape = tuple(
                len(bucket) if bucket is not None and i == axes.width else len(axis) for i, axis in enumerate(axes.vmap)
            )
            key = "-".join(["cell", *map(str, index), *([str(number)] if bucket is not None else [])])
            found.append(_Group(key, index, bucket, fixed, look, step(maximum), shape))
        return found

    def block(self, groups: Sequence[_Group]) -> tuple[int, ...]:
        """The largest blocks whose states fit, and that are at least as many as the processes of this job."""
        lengths = [len(axis) for axis in self.axes.vmap]
        devices = jax.local_device_count()
        largest = -(-math.prod(lengths) // jax.process_count())
        for group in groups:
            largest = min(
                largest, devices * max(1, int(self.budget / 2 / max(of_member(group.step, group.look["records"]), 1)))
            )
        return shrink(lengths, largest, last=self.axes.width)

    def here(self, group: _Group, block: Sequence[int]) -> int:
        """Members of a block that lie on one device."""
        members = math.prod(min(length, most) for length, most in zip(group.shape, block, strict=True))
        return -(-members // jax.local_device_count())

    def cut(self, groups: Sequence[_Group], layout: Layout) -> Plan:
        """The cells of a layout."""
        cells = []
        for group in groups:
            blocks = list(self.axes.blocks(group.bucket, layout.block))
            most = max(math.prod(len(pick) for pick in picks) for picks in blocks)
            placement = place(most, layout.chunks[group.key])
            for number, picks in enumerate(blocks):
                arguments, shape = self.axes.members(picks)
                arguments = {name: _widened(value, self.axes, group.bucket) for name, value in arguments.items()}
                key = group.key if len(blocks) == 1 else f"{group.key}.{number}"
                name = self.name(group, number, len(blocks))
                common = (group.fixed, arguments, shape, placement)
                cells.append(Cell(key, name, group.key, group.index, picks, *common, step=group.step, **group.look))
        return Plan(self.axes, self.run, tuple(cells), layout, self.budget)

    def name(self, group: _Group, number: int, num_blocks: int) -> str:
        axes = self.axes
        labels = [f"{axis.name}={axis.labels[i]}" for axis, i in zip(axes.loop, group.index, strict=True)]
        if group.bucket is not None and axes.width is not None:
            width = axes.vmap[axes.width]
            labels.append(f"{width.name}={'/'.join(str(width.labels[i]) for i in group.bucket)}")
        if num_blocks > 1:
            labels.append(f"block {number + 1} of {num_blocks}")
        return ", ".join(labels)


def _text(index: Sequence[int]) -> str:
    return "-".join(map(str, index))


def _widened(value: Any, axes: Axes, bucket: np.ndarray | None) -> Any:
    """A width padded to the largest of its bucket, whatever the block holds."""
    if not isinstance(value, Width) or bucket is None:
        return value
    return replace(value, maximum=int(np.max(axes.widths[bucket])))


def _look(run: Callable[..., Training], axes: Axes, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """What the trainings of a loop index have in common: their length, records, loss and precision."""
    found: dict[str, Any] = {}

    def look(values: Any) -> None:
        training = dynamics.anchored(call_run(run, fixed, values))
        yields = dynamics.variables(training, dynamics.init(training))
        found["steps"] = int(training.steps)
        found["loss"], found["precision"] = str(training.loss), training.precision
        found["records"] = tuple(
            (record.dim, np.asarray(record.at.times(training.steps)), one)
            for record, one in zip(training.records, yields, strict=True)
        )

    first = first_member(axes, None)
    with blaming(look, first):
        jax.eval_shape(look, first)
    return found
