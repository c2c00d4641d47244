"""What a sweep will run, cell by cell, before anything is computed.

A sweep is cut into *cells*: one value of every loop axis, one bucket of every axis of widths that run padded together, and one block of
the other members. Blocks are there so that what runs at once fits into memory; the blocks of a bucket share one programme. What a
store holds already stays cut as it was; what it lacks is cut into new cells.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import numpy as np

from jaxdyn import dynamics
from jaxdyn.dynamics import Training
from jaxdyn.ensemble.compiling.blame import blaming
from jaxdyn.ensemble.compiling.placement import place, sound_partitioner
from jaxdyn.ensemble.compiling.programme import call_run
from jaxdyn.ensemble.deciding import cost
from jaxdyn.ensemble.deciding.axes import Axes, blocks, boxes, buckets, loop_indices, parse
from jaxdyn.ensemble.deciding.cells import Cell, Cut, Held, Layout, Plan, first_member
from jaxdyn.ensemble.deciding.fitting import Sizes, fit
from jaxdyn.ensemble.deciding.memory import available, of_member, shrink


@sound_partitioner()  # cells that may not fit are compiled
def plan(
    run: Callable[..., Training],
    *,
    loop: Mapping[str, Any] | None = None,
    vmap: Mapping[str, Any] | None = None,
    memory: float | int | None = None,
) -> Plan:
    """Cut a sweep into cells.

    Args:
        run: the user's function of the axes, returning a `Training`.
        loop: `{name: values}`, axes that compile anew.
        vmap: `{name: values}`, axes that are traced and batched.
        memory: bytes that a device may hold; 70 % of what it has, or of what this machine has free, when None.

    Returns:
        The plan; `print` shows its cells.

    Raises:
        TypeError: where the axes do not fit the arguments of `run`.
        ValueError: for an empty, ragged or repeated axis, and where not even one member fits into memory.
    """
    return decide(run, parse(run, loop, vmap), memory)


def decide(
    run: Callable[..., Training],
    axes: Axes,
    memory: float | int | None,
    *,
    held: Held | None = None,
    chunk: int | None = None,
) -> Plan:
    """Cut a sweep into cells, beside those that a store holds.

    Args:
        run: function of the axes.
        axes: the axes.
        memory: as for `plan`.
        held: what the store holds; None where there is none. A cell that is not finished and holds members that are not asked for is
            given up, and what was asked of it is cut anew.
        chunk: how many members are vmapped at a time; chosen by cost when None.

    Raises:
        ValueError: where not even one member fits into memory.
    """
    budget = _budget(memory)
    if held is None:
        held = Held(Layout((), ()), tuple(np.arange(n) for n in axes.shape), axes.shape)
    looks = {index: _look(run, axes, index) for index in loop_indices(axes)}
    asked, cuts = [], []
    for cut in held.layout.cuts:
        found = _asked(cut, held, axes)
        is_whole = found is not None and math.prod(map(len, found[1])) == cut.num_members
        if found is None or is_whole or cut.key in held.finished:
            cuts.append(cut)
            if found is not None:
                asked.append((cut, *found))
    most: dict[str, int] = {}
    for cut in cuts:
        most[cut.group] = max(most.get(cut.group, 1), cut.num_members)
    old = [_cell(axes, looks, most, cut, index, picks) for cut, index, picks in asked]
    groups = []
    prefix = f"growth{_growth(held.layout)}-cell" if held.layout.cuts else "cell"
    for index in looks:
        mask = np.ones([len(axis) for axis in axes.vmap], bool)
        for _, other, picks in asked:
            if other == index:
                mask[np.ix_(*picks)] = False
        lacking = [group for box in boxes(mask) for group in _groups(axes, looks[index], index, box)]
        name = "-".join([prefix, *map(str, index)])
        is_plain = not axes.widths and len(lacking) == 1
        groups += [replace(group, key=name if is_plain else f"{name}-{number}") for number, group in enumerate(lacking)]

    def cut_in(sizes: Sizes) -> Plan:
        new = [cell for group in groups for cell in _cells(axes, looks, held, group, sizes)]
        layout = Layout((*cuts, *(cell.cut for cell in new)), held.layout.block if held.layout.cuts else sizes.block)
        return Plan(axes, run, (*old, *new), replace(held, layout=layout), budget)

    block = _block(axes, groups, looks, budget)
    chunks = {group.key: chunk or cost.members_together(group.step, _here(group, block)) for group in groups}
    return fit(cut_in, Sizes(block, chunks), budget)


def _budget(given: float | int | None) -> int:
    if given is None:
        return available()
    if not given > 0:
        raise ValueError(f"`memory` is a positive number of bytes, but is {given}.")
    return int(given)


@dataclass(frozen=True, eq=False)
class _Group:
    """One value of every loop axis and one bucket of every axis of widths: what shares a programme."""

    key: str
    index: tuple[int, ...]
    picks: tuple[np.ndarray, ...]
    maxima: tuple[int, ...]
    step: cost.Step


@dataclass(frozen=True, eq=False)
class _Look:
    """What the trainings of one value of every loop axis have in common."""

    fixed: Mapping[str, Any]
    common: Mapping[str, Any]
    step: Callable[[tuple[int, ...]], cost.Step]


def _asked(cut: Cut, held: Held, axes: Axes) -> tuple[tuple[int, ...], tuple[np.ndarray, ...]] | None:
    """What is asked of a cell of the store: its loop index and its picks along the asked axes, in the cell's order; None for nothing."""
    inverse = []
    for places, length in zip(held.places, held.shape, strict=True):
        inverse.append(np.full(length, -1))
        inverse[-1][places] = np.arange(len(places))
    num_loop = len(axes.loop)
    index = tuple(int(own[i]) for own, i in zip(inverse, cut.loop, strict=False))
    found = [own[pick] for own, pick in zip(inverse[num_loop:], cut.picks, strict=True)]
    picks = tuple(pick[pick >= 0] for pick in found)
    return None if min(index, default=0) < 0 or not all(map(len, picks)) else (index, picks)


def _growth(layout: Layout) -> int:
    """How many times a store has grown, this time included."""
    found = [cut.key.partition("-")[0].removeprefix("growth") for cut in layout.cuts]
    return 1 + max((int(number) for number in found if number.isdigit()), default=0)


def _groups(axes: Axes, look: _Look, index: tuple[int, ...], box: tuple[np.ndarray, ...]) -> list[_Group]:
    """A box of members by buckets of widths."""
    values = [np.asarray(axes.vmap[i].values.active)[box[i]] for i in axes.widths]
    others = math.prod(len(pick) for i, pick in enumerate(box) if i not in axes.widths)
    cuts = buckets(values, lambda m: look.step(m).seconds * look.common["steps"] * others, cost.COMPILATION)
    found = []
    for product in itertools.product(*cuts):
        picks = list(box)
        for i, bucket in zip(axes.widths, product, strict=True):
            picks[i] = box[i][bucket]
        maxima = tuple(int(own[bucket].max()) for own, bucket in zip(values, product, strict=True))
        found.append(_Group("", index, tuple(picks), maxima, look.step(maxima)))
    return found


def _block(
    axes: Axes, groups: Sequence[_Group], looks: Mapping[tuple[int, ...], _Look], budget: int
) -> tuple[int, ...]:
    """The largest blocks whose states fit, and that are at least as many as the processes of this job."""
    lengths = [max((len(group.picks[i]) for group in groups), default=1) for i in range(len(axes.vmap))]
    devices = jax.local_device_count()
    largest = -(-math.prod(lengths) // jax.process_count())
    for group in groups:
        member = of_member(group.step, looks[group.index].common["records"])
        largest = min(largest, devices * max(1, int(budget / 2 / max(member, 1))))
    return shrink(lengths, largest, last=axes.widths)


def _here(group: _Group, block: Sequence[int]) -> int:
    """Members of a block that lie on one device."""
    members = math.prod(min(len(pick), most) for pick, most in zip(group.picks, block, strict=True))
    return -(-members // jax.local_device_count())


def _cells(axes: Axes, looks: Mapping[tuple[int, ...], _Look], held: Held, group: _Group, sizes: Sizes) -> list[Cell]:
    """The blocks of a group."""
    found = blocks(group.picks, sizes.block)
    most = {group.key: max(math.prod(map(len, picks)) for picks in found)}
    num_loop, cells = len(axes.loop), []
    for number, picks in enumerate(found):
        key = group.key if len(found) == 1 else f"{group.key}.{number}"
        loop = tuple(int(places[i]) for places, i in zip(held.places, group.index, strict=False))
        where = tuple(places[pick] for places, pick in zip(held.places[num_loop:], picks, strict=True))
        cut = Cut(key, group.key, loop, where, group.maxima, sizes.chunks[group.key])
        block = f"block {number + 1} of {len(found)}" if len(found) > 1 else ""
        cells.append(_cell(axes, looks, most, cut, group.index, picks, block))
    return cells


def _cell(
    axes: Axes,
    looks: Mapping[tuple[int, ...], _Look],
    most: Mapping[str, int],
    cut: Cut,
    index: tuple[int, ...],
    picks: tuple[np.ndarray, ...],
    block: str = "",
) -> Cell:
    """A cell; `most` says of how many members the largest of its group is."""
    look = looks[index]
    arguments, shape = axes.members(picks, cut.maxima)
    labels = [f"{axis.name}={axis.labels[i]}" for axis, i in zip(axes.loop, index, strict=True)]
    for position in axes.widths:
        axis = axes.vmap[position]
        labels.append(f"{axis.name}={'/'.join(str(axis.labels[i]) for i in picks[position])}")
    name = ", ".join(filter(None, [*labels, block]))
    common = (picks, look.fixed, arguments, shape, place(most[cut.group], cut.chunk))
    return Cell(cut, name, *common, step=look.step(cut.maxima), **look.common)


def _look(run: Callable[..., Training], axes: Axes, index: tuple[int, ...]) -> _Look:
    """Trace the training of the first member of a loop index: its length, records, loss and precision."""
    fixed, found = axes.loop_values(index), dict[str, Any]()

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

    @cache
    def step(maxima: tuple[int, ...]) -> cost.Step:
        return cost.step(lambda values: call_run(run, fixed, values), first_member(axes, maxima))

    return _Look(fixed, found, step)
