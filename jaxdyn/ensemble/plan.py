"""What a sweep will run, cell by cell, before anything is compiled.

A plan traces nothing but shapes: it counts parameters to choose which widths run padded together, and lists the cells.
The times it weighs with are rough constants of a kind of device, not measurements, so that the same sweep is cut the
same way everywhere of that kind.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jaxdyn import dynamics
from jaxdyn.dynamics import Training, Variable
from jaxdyn.ensemble.axes import Axes, buckets, loop_indices, parse
from jaxdyn.ensemble.programme import Programme, call_run, programme
from jaxdyn.models.width import Width

_RATE = {"cpu": 4e10}  # floating-point operations a second that training reaches
_RATE_ELSEWHERE = 1e13
_COMPILATION = 3.0  # seconds of one cell
_PASSES = 3.0  # a training step against a forward pass
_NUM_PIECES = 16
_SEQUENTIAL_ABOVE = 20_000  # parameters from which vmap loses on a CPU: a quadratic model of width 512 takes 19 ms vmapped, 7 in sequence


@dataclass(frozen=True, eq=False)
class Cell:
    """One value of every loop axis and one bucket of widths: members that run together.

    Attributes:
        key: name of the cell in the store.
        name: name of the cell for people.
        loop: index along each loop axis.
        bucket: indices along the width axis, None where there is none.
        fixed: what `run` receives for the loop axes.
        arguments: what it receives for the vmap axes, each with one leading member axis.
        shape: what the members unflatten to.
        chunk: how many members are vmapped at a time; the others follow in sequence.
        steps: length of the runs.
        records: for each record its time dimension, its times and what it yields.
        loss: name of the loss, which carries its normalisation.
        precision: matmul precision.
    """

    key: str
    name: str
    loop: tuple[int, ...]
    bucket: np.ndarray | None
    fixed: Mapping[str, Any]
    arguments: Mapping[str, Any]
    shape: tuple[int, ...]
    chunk: int
    steps: int
    records: tuple[tuple[str, np.ndarray, dict[str, Variable]], ...]
    loss: str
    precision: str

    @property
    def num_members(self) -> int:
        """How many members run together."""
        return int(np.prod(self.shape, dtype=int))


@dataclass(frozen=True, eq=False)
class Plan:
    """The cells of a sweep.

    Attributes:
        axes: the axes.
        cells: the cells, in the order they run.
    """

    axes: Axes
    run: Callable[..., Training]
    cells: tuple[Cell, ...]

    def programme(self, cell: Cell) -> Programme:
        """Trace the programmes of a cell. Nothing is compiled yet."""
        return programme(self.run, cell.fixed, cell.arguments, num_pieces=_NUM_PIECES, chunk=cell.chunk)

    def index(self, cell: Cell) -> tuple[Any, ...]:
        """The region of a cell in the dataset: one integer, slice or index array an axis."""
        picks: list[Any] = [slice(None)] * len(self.axes.vmap)
        if cell.bucket is not None and self.axes.width is not None:
            picks[self.axes.width] = cell.bucket
        return (*cell.loop, *picks)

    @property
    def whole(self) -> tuple[str, ...]:
        """The axes that every cell covers completely."""
        return tuple(axis.name for i, axis in enumerate(self.axes.vmap) if i != self.axes.width)

    def __str__(self) -> str:
        lines = [f"{len(self.cells)} cells, {sum(cell.num_members for cell in self.cells)} members"]
        lines += [f"  {cell.name or 'all'}: {cell.num_members} members, {cell.chunk} at a time" for cell in self.cells]
        return "\n".join(lines)


def plan(
    run: Callable[..., Training], *, loop: Mapping[str, Any] | None = None, vmap: Mapping[str, Any] | None = None
) -> Plan:
    """Cut a sweep into cells.

    Args:
        run: the user's function of the axes, returning a `Training`.
        loop: `{name: values}`, axes that compile anew.
        vmap: `{name: values}`, axes that are traced and batched.

    Returns:
        The plan; `print` shows its cells.

    Raises:
        TypeError: where the axes do not fit the arguments of `run`.
        ValueError: for an empty, ragged or repeated axis.
    """
    axes = parse(run, loop, vmap)
    return Plan(axes, run, tuple(_cells(run, axes)))


def _cells(run: Callable[..., Training], axes: Axes) -> Iterator[Cell]:
    for index in loop_indices(axes):
        fixed = axes.loop_values(index)
        seen = _look(run, axes, fixed)
        cost = _cost(run, axes, fixed, seen["steps"])
        for number, bucket in enumerate(buckets(axes, cost, _COMPILATION)):
            arguments, shape = axes.members(bucket)
            maximum = None if bucket is None else max(int(width) for width in axes.widths[bucket])
            num_params, _ = _sizes(run, axes, fixed, maximum)
            chunk = _chunk(num_params, int(np.prod(shape, dtype=int)))
            labels = [f"{axis.name}={axis.labels[i]}" for axis, i in zip(axes.loop, index, strict=True)]
            if bucket is not None and axes.width is not None:
                width = axes.vmap[axes.width]
                labels.append(f"{width.name}={'/'.join(str(width.labels[i]) for i in bucket)}")
            key = "-".join(["cell", *map(str, index), *([str(number)] if bucket is not None else [])])
            yield Cell(key, ", ".join(labels), index, bucket, fixed, arguments, shape, chunk, **seen)


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

    jax.eval_shape(look, first_member(axes, None))
    return found


def _sizes(run: Callable[..., Training], axes: Axes, fixed: Mapping[str, Any], maximum: int | None) -> tuple[int, int]:
    """Parameters of one member, its width padded to `maximum`, and examples in a step."""

    def shapes(values: Any) -> Any:
        training = dynamics.anchored(call_run(run, fixed, values))
        return training.params0, training.sampler(training.task, training.key, 0)[0]

    params, x = jax.eval_shape(shapes, first_member(axes, maximum))
    return sum(leaf.size for leaf in jax.tree.leaves(params)), int(x.shape[0])


def _cost(run: Callable[..., Training], axes: Axes, fixed: Mapping[str, Any], steps: int) -> Callable[[int], float]:
    """Seconds that all members of one width take when padded to a maximum: 2 · passes · n · p flops a step."""
    rate = _RATE.get(jax.default_backend(), _RATE_ELSEWHERE)
    members = np.prod([len(axis) for i, axis in enumerate(axes.vmap) if i != axes.width])

    def cost(maximum: int) -> float:
        num_params, num_examples = _sizes(run, axes, fixed, maximum)
        return float(2 * _PASSES * num_examples * num_params * steps * members / rate)

    return cost


def _chunk(num_params: int, num_members: int) -> int:
    """How many members are vmapped at a time: all, or one after the other where a CPU is busy enough with one."""
    is_cpu = jax.default_backend() == "cpu"
    return 1 if is_cpu and num_params >= _SEQUENTIAL_ABOVE else num_members


def first_member(axes: Axes, maximum: int | None) -> dict[str, Any]:
    """The vmapped arguments of the first member, its width padded to `maximum`."""
    arguments, _ = axes.members(None if axes.width is None else np.asarray([0]))
    one = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf[0]), arguments)
    return {
        name: replace(value, maximum=maximum) if isinstance(value, Width) and maximum is not None else value
        for name, value in one.items()
    }
