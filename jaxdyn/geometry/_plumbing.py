r"""From a parameter leaf to the value that is used, and the way back for gradients in factored form.

Between a leaf w and its use lies plumbing that does not see the example: scalings, casts, reshapes, transposes, slices … `views`
finds the linear ones, path by path. A gradient Σ_s h_s ⊗ g_s with respect to the used value goes back along a path without being
multiplied out, as long as each step acts on the axes of one factor only (a reshape that mixes the axes of both does not). Everything
else is left to automatic differentiation; see `_routes`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdyn.geometry._program import Equation, Program, window
from jaxdyn.geometry._uses import Factor, dense

_MANY = 16  # paths from one leaf to one value; beyond, the value counts as nonlinear

_ANY_OPERAND = {"add", "sub", "add_any", "concatenate"}
_ONE_OPERAND = {
    "neg", "convert_element_type", "copy", "reshape", "transpose", "squeeze", "expand_dims", "slice", "split", "rev",
    "broadcast_in_dim", "reduce_sum", "mul",
}  # fmt: skip
_ISOMETRIC = {
    "neg",
    "convert_element_type",
    "copy",
    "reshape",
    "transpose",
    "squeeze",
    "expand_dims",
    "slice",
    "split",
    "rev",
}


class NotSeparableError(Exception):
    """A step mixes the axes of both factors."""


@dataclass(frozen=True)
class Step:
    """One linear equation on a path: from its operand number `operand` to its result number `result`."""

    equation: Equation
    operand: int
    result: int


@dataclass(frozen=True)
class Split:
    """The last step of a grouped convolution: the output channels apart by group."""

    before: tuple[int, ...]
    after: tuple[int, ...]


Path = tuple[Step | Split, ...]
Views = Mapping[int, Mapping[int, tuple[Path, ...] | None]]


def views(program: Program) -> Views:
    """For each value without the example and each leaf in it: the linear paths between them, None if it is not linear."""
    found: dict[int, dict[int, tuple[Path, ...] | None]] = {root: {root: ((),)} for root in program.roots}
    for equation in program.equations:
        for result, value in enumerate(equation.outputs):
            if value not in program.varying and program.leaves[value] and value not in found:
                found[value] = {leaf: _paths(program, found, equation, result, leaf) for leaf in program.leaves[value]}
    return found


def is_isometric(step: Step | Split) -> bool:
    """Whether the step back keeps inner products of gradients."""
    return isinstance(step, Split) or step.equation.name in _ISOMETRIC


def pull_back(
    program: Program, values: Mapping[int, Any], path: Path, left: Factor, right: Factor
) -> tuple[Factor, Factor]:
    """The factors of the gradient at the beginning of a path, from those at its end.

    Args:
        program: the program.
        values: all values that do not depend on the example.
        path: as found by `views`, or a tail of it.
        left: left factor at the end.
        right: right factor at the end.

    Raises:
        NotSeparableError: if a step mixes the axes of both.
    """
    pair = (left, right)
    for step in reversed(path):
        pair = (
            _regroup(pair, step.before, step.after) if isinstance(step, Split) else _back(program, values, step, pair)
        )
    return pair


def _paths(program: Program, found: Views, equation: Equation, result: int, leaf: int) -> tuple[Path, ...] | None:
    carriers = [i for i, v in enumerate(equation.inputs) if leaf in program.leaves[v]]
    is_linear = (
        equation.name in _ANY_OPERAND
        or (equation.name in _ONE_OPERAND and len(carriers) == 1)
        or (equation.name == "div" and carriers == [0])
    )
    same_rank = equation.name not in {"mul", "div", "add", "sub"} or all(
        program.shape(equation.inputs[i]) == program.shape(equation.outputs[0]) for i in carriers
    )
    if (
        not is_linear
        or not same_rank
        or not jnp.issubdtype(program.avals[equation.outputs[result]].dtype, jnp.floating)
    ):
        return None
    paths: list[Path] = []
    for operand in carriers:
        before = found[equation.inputs[operand]][leaf]
        if before is None:
            return None
        paths += [(*path, Step(equation, operand, result)) for path in before]
    return tuple(paths) if len(paths) <= _MANY else None


_Pair = tuple[Factor, Factor]


def _back(program: Program, values: Mapping[int, Any], step: Step, pair: _Pair) -> _Pair:
    equation, parameters = step.equation, step.equation.params
    before = program.shape(equation.inputs[step.operand])
    after = program.shape(equation.outputs[step.result])
    match equation.name:
        case "convert_element_type" | "copy" | "add" | "add_any":
            return pair
        case "neg":
            return _scale(pair, -1)
        case "sub":
            return pair if step.operand == 0 else _scale(pair, -1)
        case "mul":
            return _multiply(program, values, equation.inputs[1 - step.operand], pair)
        case "div":
            return _multiply(program, values, equation.inputs[1], pair, is_division=True)
        case "transpose":
            return _relabel(pair, dict(enumerate(parameters["permutation"])))
        case "reshape" | "squeeze" | "expand_dims":
            return _regroup(pair, before, after)
        case "broadcast_in_dim":
            return _unbroadcast(pair, parameters["broadcast_dimensions"], before)
        case "reduce_sum":
            return _spread(pair, parameters["axes"], before)
        case "rev":
            return tuple_map(pair, lambda f, axis, i: jnp.flip(f, axis) if i in parameters["dimensions"] else f)
        case "slice":
            strides = parameters["strides"] or (1,) * len(before)
            return _embed(pair, before, after, parameters["start_indices"], strides)
        case "split":
            box = window(equation, step.result)
            assert box is not None
            return _embed(pair, before, after, [start for start, _ in box], (1,) * len(before))
        case "concatenate":
            axis = parameters["dimension"]
            start = sum(program.shape(v)[axis] for v in equation.inputs[: step.operand])
            return _cut(pair, axis, start, before[axis], after[axis])
    raise NotSeparableError(equation.name)


def tuple_map(pair: _Pair, function: Any) -> _Pair:
    """Apply `(array, axis, label) -> array` to every labelled axis of both factors."""

    def one(factor: Factor) -> Factor:
        factor = dense(factor, pair[1].array.dtype)
        array = factor.array
        for axis, label in enumerate(factor.labels):
            array = function(array, axis + 1, label)
        return Factor(array, factor.labels)

    return one(pair[0]), one(pair[1])


def _scale(pair: _Pair, number: Any) -> _Pair:
    left, right = pair
    return left, Factor(right.array * number, right.labels)


def _relabel(pair: _Pair, labels: Mapping[int, int]) -> _Pair:
    left, right = (Factor(f.array, tuple(labels[label] for label in f.labels), f.rows) for f in pair)
    return left, right


def _multiply(
    program: Program, values: Mapping[int, Any], number: int, pair: _Pair, *, is_division: bool = False
) -> _Pair:
    """Multiply with an array that changes along the axes of one factor only."""
    axes, compact = _compact(program, values, number)
    operation = jnp.divide if is_division else jnp.multiply
    for side in (1, 0):
        factor = pair[side]
        if set(axes) <= set(factor.labels):
            factor = dense(factor, pair[1].array.dtype)
            order = sorted(axes, key=factor.labels.index)
            compact = jnp.transpose(compact, [axes.index(axis) for axis in order])
            shape = [factor.array.shape[i + 1] if axis in axes else 1 for i, axis in enumerate(factor.labels)]
            scaled = Factor(operation(factor.array, compact.reshape(1, *shape)), factor.labels)
            return (pair[0], scaled) if side == 1 else (scaled, pair[1])
    raise NotSeparableError("mul")


def _compact(program: Program, values: Mapping[int, Any], number: int) -> tuple[list[int], Any]:
    """The axes along which a value changes, and the value on these axes alone."""
    shape = program.shape(number)
    producer = program.producers.get(number)
    if producer is not None and producer.name == "broadcast_in_dim":
        axes, compact = _compact(program, values, producer.inputs[0])
        dims = producer.params["broadcast_dimensions"]
        return [dims[axis] for axis in axes], compact
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    return axes, jnp.reshape(values[number], [shape[axis] for axis in axes])


def _regroup(pair: _Pair, before: Sequence[int], after: Sequence[int]) -> _Pair:
    """Undo a reshape: groups of axes that make up each other must lie in one factor."""
    blocks = _blocks(before, after)

    def one(factor: Factor) -> Factor:
        order: list[int] = []
        sizes: list[int] = []
        labels: list[int] = []
        for inner, outer in blocks:
            present = [axis for axis in outer if axis in factor.labels]
            if present and present != outer:
                raise NotSeparableError("reshape")
            if present:
                order += [factor.labels.index(axis) + 1 for axis in outer]
                sizes += [before[axis] for axis in inner]
                labels += inner
        if factor.rows is not None:
            if len(labels) == 1:
                return Factor(factor.array, tuple(labels), factor.rows)
            factor = dense(factor, pair[1].array.dtype)
        array = jnp.transpose(factor.array, [0, *order])
        return Factor(array.reshape(array.shape[0], *sizes), tuple(labels))

    return one(pair[0]), one(pair[1])


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of axes of equal size on both sides of a reshape; axes of length 1 left out."""
    blocks: list[tuple[list[int], list[int]]] = []
    a = [axis for axis, size in enumerate(before) if size > 1]
    b = [axis for axis, size in enumerate(after) if size > 1]
    while a or b:
        inner, outer = [a.pop(0)], [b.pop(0)]
        while (have := math.prod(before[i] for i in inner)) != (want := math.prod(after[i] for i in outer)):
            if have < want:
                inner.append(a.pop(0))
            else:
                outer.append(b.pop(0))
        blocks.append((inner, outer))
    return blocks


def _unbroadcast(pair: _Pair, dims: Sequence[int], before: Sequence[int]) -> _Pair:
    source = {dim: axis for axis, dim in enumerate(dims) if before[axis] > 1}
    if any(label not in source for label in set(pair[0].labels) & set(pair[1].labels)):
        raise NotSeparableError("broadcast_in_dim")

    def one(factor: Factor) -> Factor:
        summed = [i + 1 for i, label in enumerate(factor.labels) if label not in source]
        labels = tuple(source[label] for label in factor.labels if label in source)
        if not summed:
            return Factor(factor.array, labels, factor.rows)
        return Factor(jnp.sum(dense(factor, pair[1].array.dtype).array, axis=summed), labels)

    return one(pair[0]), one(pair[1])


def _spread(pair: _Pair, axes: Sequence[int], before: Sequence[int]) -> _Pair:
    """Undo a sum: the summed axes come back, constant."""
    left, right = _relabel(pair, dict(enumerate(axis for axis in range(len(before)) if axis not in axes)))
    new = [axis for axis in axes if before[axis] > 1]
    array = right.array.reshape(*right.array.shape, *(1 for _ in new))
    array = jnp.broadcast_to(array, (*right.array.shape, *(before[axis] for axis in new)))
    return left, Factor(array, (*right.labels, *new))


def _embed(
    pair: _Pair, before: Sequence[int], after: Sequence[int], start: Sequence[int], strides: Sequence[int]
) -> _Pair:
    """Undo a slice: zeros around it."""
    left, right = pair
    for axis, size in enumerate(before):
        if size > 1 and after[axis] == 1:
            right = Factor(right.array[..., None], (*right.labels, axis))

    def pad(array: Any, position: int, axis: int) -> Any:
        if before[axis] == after[axis]:
            return array
        low = start[axis]
        high = before[axis] - low - (after[axis] - 1) * strides[axis] - 1
        edges = [(0, 0, 0)] * array.ndim
        edges[position] = (low, high, strides[axis] - 1)
        return jax.lax.pad(array, jnp.zeros((), array.dtype), edges)

    if all(before[axis] == after[axis] for axis in left.labels):
        return left, tuple_map((right, right), pad)[1]
    return tuple_map((left, right), pad)


def _cut(pair: _Pair, axis: int, start: int, size: int, total: int) -> _Pair:
    """Undo a concatenation: the part that came from one operand."""
    if total == 1 or size == total:
        return pair

    def one(factor: Factor) -> Factor:
        if axis not in factor.labels:
            return factor
        factor = dense(factor, pair[1].array.dtype)
        position = factor.labels.index(axis) + 1
        array = jax.lax.slice_in_dim(factor.array, start, start + size, axis=position)
        if size > 1:
            return Factor(array, factor.labels)
        return Factor(jnp.squeeze(array, position), tuple(label for label in factor.labels if label != axis))

    return one(pair[0]), one(pair[1])
