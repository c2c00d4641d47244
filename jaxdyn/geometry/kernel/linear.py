"""The linear steps between a parameter leaf and its use, and how the two factors of a gradient go back through each.

A step must act on the axes of one factor only; one that mixes the axes of both raises `NotSeparableError`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdyn.geometry.kernel.program import Equation, Program, window
from jaxdyn.geometry.kernel.uses import Factor, dense


class NotSeparableError(Exception):
    """A step mixes the axes of both factors."""


@dataclass(frozen=True)
class Step:
    """One linear equation on a path: from its operand number `operand` to its result number `result`."""

    equation: Equation
    operand: int
    result: int


Pair = tuple[Factor, Factor]


class At(NamedTuple):
    """A step, the shapes of its operand and result, its program, and all values that do not depend on the example."""

    step: Step
    before: tuple[int, ...]
    after: tuple[int, ...]
    program: Program
    values: Mapping[int, Any]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the primitive."""
        return self.step.equation.params


def _tuple_map(pair: Pair, function: Any) -> Pair:
    """Apply `(array, axis, label) -> array` to every labelled axis of both factors."""

    def one(factor: Factor) -> Factor:
        factor = dense(factor, pair[1].array.dtype)
        array = factor.array
        for axis, label in enumerate(factor.labels):
            array = function(array, axis + 1, label)
        return Factor(array, factor.labels)

    return one(pair[0]), one(pair[1])


def _reverse(at: At, pair: Pair) -> Pair:
    return _tuple_map(pair, lambda f, axis, i: jnp.flip(f, axis) if i in at.params["dimensions"] else f)


def _scale(pair: Pair, number: Any) -> Pair:
    left, right = pair
    return left, Factor(right.array * number, right.labels)


def _relabel(pair: Pair, labels: Mapping[int, int]) -> Pair:
    left, right = (Factor(f.array, tuple(labels[label] for label in f.labels), f.rows) for f in pair)
    return left, right


def _multiply(at: At, pair: Pair, operand: int, operation: Any) -> Pair:
    """Multiply with an operand, or divide by it, that changes along the axes of one factor only."""
    axes, compact = _compact(at.program, at.values, at.step.equation.invars[operand])
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
        axes, compact = _compact(program, values, producer.invars[0])
        dims = producer.params["broadcast_dimensions"]
        return [dims[axis] for axis in axes], compact
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    return axes, jnp.reshape(values[number], [shape[axis] for axis in axes])


def regroup(pair: Pair, before: Sequence[int], after: Sequence[int]) -> Pair:
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


def _broadcast(at: At, pair: Pair) -> Pair:
    source = {dim: axis for axis, dim in enumerate(at.params["broadcast_dimensions"]) if at.before[axis] > 1}
    if any(label not in source for label in set(pair[0].labels) & set(pair[1].labels)):
        raise NotSeparableError("broadcast_in_dim")

    def one(factor: Factor) -> Factor:
        summed = [i + 1 for i, label in enumerate(factor.labels) if label not in source]
        labels = tuple(source[label] for label in factor.labels if label in source)
        if not summed:
            return Factor(factor.array, labels, factor.rows)
        return Factor(jnp.sum(dense(factor, pair[1].array.dtype).array, axis=summed), labels)

    return one(pair[0]), one(pair[1])


def _sum(at: At, pair: Pair) -> Pair:
    """The summed axes come back, constant."""
    axes, before = at.params["axes"], at.before
    left, right = _relabel(pair, dict(enumerate(axis for axis in range(len(before)) if axis not in axes)))
    new = [axis for axis in axes if before[axis] > 1]
    array = right.array.reshape(*right.array.shape, *(1 for _ in new))
    array = jnp.broadcast_to(array, (*right.array.shape, *(before[axis] for axis in new)))
    return left, Factor(array, (*right.labels, *new))


def _slice(at: At, pair: Pair) -> Pair:
    """Zeros around a slice, or a part of a split."""
    box = window(at.step.equation, at.step.result)
    assert box is not None
    before, after, start = at.before, at.after, [low for low, _ in box]
    strides = at.params.get("strides") or (1,) * len(before)
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
        return left, _tuple_map((right, right), pad)[1]
    return _tuple_map((left, right), pad)


def _concatenate(at: At, pair: Pair) -> Pair:
    """The part that came from one operand."""
    axis, equation = at.params["dimension"], at.step.equation
    size, total = at.before[axis], at.after[axis]
    start = sum(at.program.shape(v)[axis] for v in equation.invars[: at.step.operand])
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


def _same(at: At, pair: Pair) -> Pair:
    return pair


def _regrouped(at: At, pair: Pair) -> Pair:
    return regroup(pair, at.before, at.after)


class Linear(NamedTuple):
    """What is to be known of a linear step.

    Attributes:
        back: `(at, factors of the gradient of the result) -> factors of that of the operand`.
        carries: of the operands that depend on the leaf, whether the result is linear in it.
        is_isometric: whether the step back keeps inner products of gradients.
        is_elementwise: whether an operand of another shape, a scalar, would be broadcast.
    """

    back: Callable[[At, Pair], Pair]
    carries: Callable[[list[int]], bool] = lambda operands: len(operands) == 1
    is_isometric: bool = False
    is_elementwise: bool = False


def _any(operands: list[int]) -> bool:
    return True


LINEAR = {
    "add": Linear(_same, _any, is_elementwise=True),
    "add_any": Linear(_same, _any),
    "sub": Linear(lambda at, pair: _scale(pair, -1) if at.step.operand else pair, _any, is_elementwise=True),
    "concatenate": Linear(_concatenate, _any),
    "mul": Linear(lambda at, pair: _multiply(at, pair, 1 - at.step.operand, jnp.multiply), is_elementwise=True),
    "div": Linear(
        lambda at, pair: _multiply(at, pair, 1, jnp.divide), lambda operands: operands == [0], is_elementwise=True
    ),
    "neg": Linear(lambda at, pair: _scale(pair, -1), is_isometric=True),
    "convert_element_type": Linear(_same, is_isometric=True),
    "copy": Linear(_same, is_isometric=True),
    "reshape": Linear(_regrouped, is_isometric=True),
    "squeeze": Linear(_regrouped, is_isometric=True),
    "expand_dims": Linear(_regrouped, is_isometric=True),
    "transpose": Linear(lambda at, pair: _relabel(pair, dict(enumerate(at.params["permutation"]))), is_isometric=True),
    "slice": Linear(_slice, is_isometric=True),
    "split": Linear(_slice, is_isometric=True),
    "rev": Linear(_reverse, is_isometric=True),
    "broadcast_in_dim": Linear(_broadcast),
    "reduce_sum": Linear(_sum),
}
