"""What equations do with the axis of the examples, one rule a primitive: the data behind `independence`.

A primitive may stand in several tables; one that stands in none keeps the examples where they are, if shapes say so.

* `ALONG`: whether it works along the example axis although the axis keeps its length.
* `INNER`: how many neighbours along the example axis of its result belong to one example; by default as many as in its operands.
* `PLACES`: which columns of its result are the places of the examples; by default none.
* `RANKED`: whether its result depends on how many examples there are; by default, whether an operand does.
* `STARTS`: which of its operands matter; by default all.
* `CERTAIN`: results of which all is known.

In the tables `scatter` and `random_` stand for all primitives that begin so, `reduce_window` for all that have a window.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp

SIZES = (2, 3)  # the numbers of examples that are traced


class Value(NamedTuple):
    """What is known of a value.

    Attributes:
        shapes: its shapes for both numbers of examples.
        is_varying: whether it depends on the inputs.
        inner: how many neighbours along the example axis belong to one example.
        is_ranked: whether it depends on the number of examples or on places among them, other than by `places`.
        places: for each column of the last axis, whether its entries are the places of the examples; one entry if all are alike.
        is_never: whether it is false everywhere, as "place < 0" is.
    """

    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    is_varying: bool = False
    inner: int = 1
    is_ranked: bool = False
    places: tuple[bool, ...] = ()
    is_never: bool = False

    @property
    def is_placed(self) -> bool:
        """Whether it depends on the number of examples or on places among them in any way."""
        return self.is_ranked or any(self.places)

    @property
    def axes(self) -> list[int]:
        """The axes whose lengths differ."""
        return [axis for axis, (a, b) in enumerate(zip(*self.shapes, strict=True)) if a != b]

    @property
    def is_regular(self) -> bool:
        """Whether lengths that differ are in proportion to the numbers of examples."""
        same_rank = len(self.shapes[0]) == len(self.shapes[1])
        return same_rank and all(a == b or a * SIZES[1] == b * SIZES[0] for a, b in zip(*self.shapes, strict=True))


def refuse(what: str) -> NoReturn:
    """Raise the error of examples that interact."""
    raise ValueError(
        f"The examples of `apply` interact, or seem to: {what}. Tangent kernels, average gradient outer products and Hessians of "
        "examples are defined only if the output at one does not depend on the others: replace batch statistics by group or layer "
        "normalisation, or use their running values. If the function does treat examples one by one, say so: "
        "`lambda params, x: jax.vmap(lambda e: apply(params, e[None])[0])(x)`, or, where that is refused too, "
        "`lambda params, x: jax.lax.map(lambda e: apply(params, e[None])[0], x)`."
    )


def holds_places(dtype: Any) -> bool:
    """Whether a dtype holds the place of any example; a small one overflows."""
    return bool(jnp.issubdtype(dtype, jnp.integer)) and dtype.itemsize >= 4


def result(one: Any, other: Any, shapes: Any, operands: Sequence[Value]) -> Value:
    """The result of a plain equation, as far as shapes tell."""
    name, value = _family(one), Value(shapes)
    certain = CERTAIN[name](one, value, operands) if name in CERTAIN else None
    if certain is not None:
        return certain
    operands = STARTS[name](value, operands) if name in STARTS else operands
    places: tuple[bool, ...] = ()
    if name in PLACES and len(value.axes) == 1 and value.is_regular and holds_places(one.outvars[0].aval.dtype):
        places = PLACES[name](one, value, operands)
    # operands whose places stay places, or pick the example's own rows
    told = range(len(operands)) if places else (1,) * _is_own(one, operands)
    is_ranked = any(v.is_ranked if i in told else v.is_placed for i, v in enumerate(operands)) or not value.is_regular
    if name in RANKED:
        is_ranked = RANKED[name](one, value, places, is_ranked)
    inner = 1
    if _carriers(operands) and len(value.axes) == 1 and value.is_regular:
        inner = INNER.get(name, _kept)(one, other, value, operands)
    return Value(shapes, any(v.is_varying for v in operands), inner, is_ranked, places)


def _places_in_a_row(equation: Any, value: Value, operands: Sequence[Value]) -> tuple[bool, ...]:
    if not equation.params["dimension"] == len(value.shapes[0]) - 1 != value.axes[0]:
        return ()
    columns = [v.places * (v.shapes[0][-1] if len(v.places) == 1 else 1) for v in operands]
    found = [c or (False,) * v.shapes[0][-1] for c, v in zip(columns, operands, strict=True)]
    return sum(found, ()) if any(columns) else ()


def _places_of_operand(equation: Any, value: Value, operands: Sequence[Value]) -> tuple[bool, ...]:
    return (True,) if operands[0].places == (True,) else ()


def _is_own(equation: Any, operands: Sequence[Value]) -> bool:
    """Whether a gather or scatter takes for each example its own row, by its place, along the example axis."""
    name, numbers = equation.primitive.name, equation.params.get("dimension_numbers")
    if not (name == "gather" or name.startswith("scatter")) or not operands[1].places:
        return False
    row = numbers.start_index_map if name == "gather" else numbers.scatter_dims_to_operand_dims
    single = numbers.collapsed_slice_dims if name == "gather" else numbers.inserted_window_dims
    places = operands[1].places * (len(row) if len(operands[1].places) == 1 else 1)
    axes = [axis for axis, is_place in zip(row, places, strict=True) if is_place]
    return axes == operands[0].axes and axes[0] in single


def _carriers(operands: Sequence[Value]) -> list[Value]:
    return [v for v in operands if v.is_varying and v.axes]


def _kept(one: Any, other: Any, value: Value, operands: Sequence[Value]) -> int:
    carriers, size = _carriers(operands), value.shapes[0][value.axes[0]]
    if len({(v.inner, v.shapes[0][v.axes[0]]) for v in carriers} | {(carriers[0].inner, size)}) > 1:
        refuse(f"`{one.primitive.name}` rearranges the example axis")
    return carriers[0].inner


def _reshaped(one: Any, other: Any, after: Value, operands: Sequence[Value]) -> int:
    """The examples must stay apart by as much as before."""
    before, order = _carriers(operands)[0], one.params["dimensions"]
    shape, (axis,), (new,) = before.shapes[0], before.axes, after.axes
    order = tuple(range(len(shape)) if order is None else order)  # axes are transposed first
    apart = before.inner * math.prod(shape[i] for i in order[order.index(axis) + 1 :])
    rest = math.prod(after.shapes[0][new + 1 :])
    inner, remainder = divmod(apart, rest)
    if remainder or inner == 0 or after.shapes[0][new] % (inner * SIZES[0]):
        refuse(f"`reshape` of {shape} to {after.shapes[0]} scrambles {SIZES[0]} examples")
    return inner


def _convolved(one: Any, other: Any, value: Value, operands: Sequence[Value]) -> int:
    """Those of its image, or, in groups, of its image with its kernel."""
    parameters, others = one.params, other.params
    spec, (images, kernel) = parameters["dimension_numbers"], operands
    groups = {"feature_group_count": spec.lhs_spec[1], "batch_group_count": spec.lhs_spec[0]}
    grouped = [axis for count, axis in groups.items() if parameters[count] != others[count]]
    axes, out = (images.axes, kernel.axes), spec.rhs_spec[0]
    if not grouped and axes == ([spec.lhs_spec[0]], []) and parameters["batch_group_count"] == 1:
        return images.inner
    if not grouped and axes == ([], [out]) and all(parameters[count] == 1 for count in groups):
        return kernel.inner
    is_led = all(v.inner * SIZES[0] == v.shapes[0][v.axes[0]] for v in operands if v.is_varying and v.axes)
    if len(grouped) != 1 or axes != (grouped, [out]) or not is_led:
        refuse(f"`conv_general_dilated` works along the example axis of a value of shape {images.shapes[0]}")
    return value.shapes[0][value.axes[0]] // SIZES[0]


def check_along(equation: Any, operands: Sequence[Value]) -> None:
    """Refuse equations that keep the length of the example axis but work along it."""
    name, axes = _family(equation), [v.axes[0] if v.axes else -1 for v in operands]
    if name in ALONG and ALONG[name](equation, operands, axes):
        refuse(f"`{equation.primitive.name}` works along the example axis of a value of shape {operands[0].shapes[0]}")


def _family(equation: Any) -> str:
    """The name of a primitive, or the word that stands for it and its like in the tables."""
    name = str(equation.primitive.name)
    if "window_dimensions" in equation.params:
        return "reduce_window"
    return next((family for family in ("scatter", "random_") if name.startswith(family)), name)


def _in_matrices(equation: Any, operands: Sequence[Value], axes: Sequence[int]) -> bool:
    """The last two axes are those of matrices."""
    return any(a >= len(v.shapes[0]) - 2 for a, v in zip(axes, operands, strict=True) if v.axes)


def _contracted(equation: Any, operands: Sequence[Value], axes: Sequence[int]) -> bool:
    return any(a in summed for a, summed in zip(axes, equation.params["dimension_numbers"][0], strict=True))


def _picked(equation: Any, operands: Sequence[Value], axes: Sequence[int]) -> bool:
    """Rows picked by anything but the example's own place."""
    numbers, sizes, axis = equation.params["dimension_numbers"], equation.params["slice_sizes"], axes[0]
    if _is_own(equation, operands):
        return False
    return axis in numbers.start_index_map or (
        axis >= 0 and axis not in numbers.operand_batching_dims and sizes[axis] != operands[0].shapes[0][axis]
    )


def _written(equation: Any, operands: Sequence[Value], axes: Sequence[int]) -> bool:
    rows = equation.params["dimension_numbers"].scatter_dims_to_operand_dims
    return not _is_own(equation, operands) and axes[0] in rows


# `(equation, operands, the example axis of each or -1) -> whether it works along it`.
ALONG: dict[str, Callable[[Any, Sequence[Value], Sequence[int]], bool]] = {
    **dict.fromkeys(
        ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "top_k"),
        lambda equation, operands, axes: equation.params["axis"] == axes[0],
    ),
    **dict.fromkeys(
        (
            "cholesky", "eig", "eigh", "hessenberg", "householder_product", "lu", "qr", "geqrf", "schur", "svd",
            "triangular_solve", "tridiagonal", "tridiagonal_solve",
        ),
        _in_matrices,
    ),
    **dict.fromkeys(("sort", "concatenate"), lambda equation, operands, axes: equation.params["dimension"] in axes),
    "approx_top_k": lambda equation, operands, axes: axes[0] == equation.params["reduction_dimension"],
    "dot_general": _contracted,
    "dynamic_update_slice": lambda equation, operands, axes: (
        axes[0] >= 0 and operands[1].shapes[0][axes[0]] != operands[0].shapes[0][axes[0]]
    ),
    "fft": lambda equation, operands, axes: (
        axes[0] >= len(operands[0].shapes[0]) - len(equation.params["fft_lengths"])
    ),
    "gather": _picked,
    "pad": lambda equation, operands, axes: axes[0] >= 0 and equation.params["padding_config"][axes[0]] != (0, 0, 0),
    "ragged_dot_general": lambda equation, operands, axes: (
        axes[0] not in equation.params["ragged_dot_dimension_numbers"].dot_dimension_numbers[1][0]
    ),
    "reduce_window": lambda equation, operands, axes: (
        axes[0] >= 0 and equation.params["window_dimensions"][axes[0]] != 1
    ),
    "rev": lambda equation, operands, axes: axes[0] in equation.params["dimensions"],
    "scatter": _written,
}  # fmt: skip

# `(equation for 2 examples, equation for 3, result, operands) -> neighbours`; convolutions work along the axis if none fits.
INNER: dict[str, Callable[[Any, Any, Value, Sequence[Value]], int]] = {
    "conv_general_dilated": _convolved,
    "reshape": _reshaped,
}

# `(equation, result, operands) -> for each column whether it holds places`, where the result has one example axis and counts.
PLACES: dict[str, Callable[[Any, Value, Sequence[Value]], tuple[bool, ...]]] = {
    "iota": lambda equation, value, operands: (True,) * (equation.params["dimension"] == value.axes[0]),
    "concatenate": _places_in_a_row,
    **dict.fromkeys(
        ("broadcast_in_dim", "convert_element_type", "copy", "squeeze", "stop_gradient", "transpose"),
        _places_of_operand,
    ),
}


# `(equation, result, its places, whether an operand depends on the number) -> whether the result does`.
RANKED: dict[str, Callable[[Any, Value, tuple[bool, ...], bool], bool]] = {
    "iota": lambda equation, value, places, is_ranked: not places and equation.params["dimension"] in value.axes,
    "random_": lambda equation, value, places, is_ranked: is_ranked or bool(value.axes),
}


def _moving(operands: Sequence[Value], part: Value) -> list[Value]:
    """Where an axis is taken whole, the start does not matter."""
    rank = len(part.shapes[0])
    sizes = zip(operands[-rank:], *operands[0].shapes, *part.shapes, strict=True)
    return [*operands[:-rank], *(start for start, *pairs in sizes if pairs[:2] != pairs[2:])]


# `(result, operands) -> the operands that matter`.
STARTS: dict[str, Callable[[Value, Sequence[Value]], Sequence[Value]]] = {
    "dynamic_slice": lambda value, operands: _moving(operands, value),
    "dynamic_update_slice": lambda value, operands: _moving(operands, operands[1]),
}


def _select(equation: Any, value: Value, operands: Sequence[Value]) -> Value | None:
    return operands[1] if operands[0].is_never else None


def _less(equation: Any, value: Value, operands: Sequence[Value]) -> Value | None:
    """No place is negative."""
    is_never = operands[0].places == (True,) and getattr(equation.invars[1], "val", None) == 0
    return value._replace(is_never=True) if is_never else None


# `(equation, result, operands) -> what is known of the result`, None where only the rest can tell.
CERTAIN: dict[str, Callable[[Any, Value, Sequence[Value]], Value | None]] = {"lt": _less, "select_n": _select}
