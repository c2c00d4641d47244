"""Whether a function treats its examples one by one; if they interact, it is refused.

The kernel Θ(x, x') of two examples, and an AGOP or a Hessian at an example, exist only if f(x) does not depend on the other members of
its batch. Whatever is told per example calls `check`, which traces the function for 2 and for 3 examples and walks both programmes
side by side. Axes whose lengths are as 2 to 3 carry the examples. It is refused if

* a value that depends on the inputs loses that axis, or gets a second one (batch statistics, sums, Gram matrices over the batch),
* an equation works along it (sort, cumulative sum, flip, convolution, product or recurrence over the batch …),
* a number depends on how many examples there are, or on an example's place among them, which may only pick the example's own row.

No value is computed; NumPy arrays that the function makes of the number of examples are read (`_constants`). What happens inside
foreign code (callbacks, custom kernels) is judged by shapes alone.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxdyn.geometry import _constants
from jaxdyn.geometry._program import scan_parts

_SIZES = (2, 3)
_LINEAR_ALGEBRA = {
    "cholesky", "eig", "eigh", "hessenberg", "householder_product", "lu", "qr", "geqrf", "schur", "svd", "triangular_solve",
    "tridiagonal", "tridiagonal_solve",
}  # fmt: skip
_ALONG_AXIS = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "top_k"}
_FAITHFUL = {"broadcast_in_dim", "convert_element_type", "copy", "squeeze", "stop_gradient", "transpose"}


class _Value(NamedTuple):
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
        return same_rank and all(a == b or a * _SIZES[1] == b * _SIZES[0] for a, b in zip(*self.shapes, strict=True))


def check(apply: Any, params: Any, x: Any) -> int:
    """Refuse anything but a real function of single examples.

    Args:
        apply: `(params, x: [n, *d]) -> [n, k]`.
        params: parameters; only shapes and dtypes matter.
        x: inputs [n, *d]; only shape and dtype matter.

    Returns:
        The number of outputs k.

    Raises:
        ValueError: for no example, for outputs that are not real or not [n, k], or naming the operation in which examples meet.
    """
    if not x.shape or 0 in x.shape:
        raise ValueError(f"`x` must hold at least one example, [n, *d], but has shape {tuple(x.shape)}.")
    kinds = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), params)
    num_leaves = len(jax.tree.leaves(kinds))

    def trace(size: int) -> tuple[Any, int]:
        batch = jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
        closed, output = jax.make_jaxpr(apply, return_shape=True)(kinds, batch)
        return closed, _num_outputs(output, batch)

    traces, (num_outputs, _) = zip(*map(trace, _SIZES), strict=True)
    first, second = (closed.jaxpr for closed in traces)
    inputs = [_Value(pair, is_varying=i == num_leaves) for i, pair in enumerate(_shapes(first.invars, second.invars))]
    consts = [_constant(*pair) for pair in zip(*(closed.consts for closed in traces), strict=False)]
    (found,) = _walk(first, second, consts, inputs)
    if found.is_ranked or (found.is_varying and (found.axes != [0] or found.inner != 1)):
        _refuse(
            f"the outputs, of shape {found.shapes[0]} for {_SIZES[0]} examples, do not have the examples as their first axis"
        )
    if x.shape[0] not in (1, *_SIZES) and not _constants.confirmed(traces, lambda: trace(x.shape[0])[0]):
        _refuse(f"a NumPy array made of their number picks other rows of {x.shape[0]} examples than their own")
    return num_outputs


def _num_outputs(output: Any, x: Any) -> int:
    shape: Any = getattr(output, "shape", ())
    if len(shape) != 2 or shape[0] != x.shape[0] or shape[1] == 0 or not jnp.issubdtype(output.dtype, jnp.floating):
        found = f"{getattr(output, 'dtype', type(output).__name__)} of shape {shape}"
        raise ValueError(
            f"The function must map inputs [n, *d] to real outputs [n, k], but inputs of shape {x.shape} give {found}; add an axis for "
            "a single output with `[:, None]`, put the examples first, and make two outputs of the parts of a complex one."
        )
    return int(shape[1])


def _refuse(what: str) -> NoReturn:
    raise ValueError(
        f"The examples of `apply` interact, or seem to: {what}. Tangent kernels, average gradient outer products and Hessians of "
        "examples are defined only if the output at one does not depend on the others: replace batch statistics by group or layer "
        "normalisation, or use their running values. If the function does treat examples one by one, say so: "
        "`lambda params, x: jax.vmap(lambda e: apply(params, e[None])[0])(x)`, or, where that is refused too, "
        "`lambda params, x: jax.lax.map(lambda e: apply(params, e[None])[0], x)`."
    )


def _shapes(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    return [(tuple(a.aval.shape), tuple(b.aval.shape)) for a, b in zip(first, second, strict=True)]


def _constant(first: Any, second: Any) -> _Value:
    value = _Value((np.shape(first), np.shape(second)))
    numbers = (bool, int, float, complex, np.generic, np.ndarray)
    if all(isinstance(c, numbers) and np.ndim(c) == 0 for c in (first, second)):
        return value._replace(is_ranked=np.asarray(first).tobytes() != np.asarray(second).tobytes())
    return value._replace(**_constants.known(first, second))


def _walk(first: Any, second: Any, consts: Sequence[_Value], inputs: Sequence[_Value]) -> list[_Value]:
    """The results of two programmes side by side."""
    kinds = [[(e.primitive.name, len(e.invars), len(e.outvars)) for e in jaxpr.eqns] for jaxpr in (first, second)]
    if kinds[0] != kinds[1] or len(first.constvars) != len(second.constvars):
        _refuse("the programmes for 2 and for 3 examples differ")
    known: dict[Any, _Value] = dict(zip([*first.constvars, *first.invars], [*consts, *inputs], strict=True))

    def read(a: Any, b: Any) -> _Value:
        if isinstance(a, core.Literal) != isinstance(b, core.Literal):
            _refuse("the programmes for 2 and for 3 examples differ")
        return _constant(a.val, b.val) if isinstance(a, core.Literal) else known[a]

    for one, other in zip(first.eqns, second.eqns, strict=True):
        operands = [read(a, b) for a, b in zip(one.invars, other.invars, strict=True)]
        known.update(zip(one.outvars, _equation(one, other, operands), strict=True))
    return [read(a, b) for a, b in zip(first.outvars, second.outvars, strict=True)]


def _equation(one: Any, other: Any, operands: Sequence[_Value]) -> list[_Value]:
    results = _inside(one, other, operands)
    if results is None:
        results = [_result(one, other, shapes, operands) for shapes in _shapes(one.outvars, other.outvars)]
        if any(v.is_varying and v.axes for v in operands):
            _along(one, operands)
    name = one.primitive.name
    for var, value in zip(one.outvars, results, strict=True):
        if value.is_varying and (len(value.axes) != 1 or not value.is_regular):
            small, large = value.shapes
            _refuse(f"`{name}` makes shape {small} of {_SIZES[0]} examples and {large} of {_SIZES[1]}")
        if value.is_varying and value.is_ranked and jnp.issubdtype(var.aval.dtype, jnp.inexact):
            _refuse(f"`{name}` uses the number of examples, or an example's place among them")
    return results


def _result(one: Any, other: Any, shapes: Any, operands: Sequence[_Value]) -> _Value:
    """The result of a plain equation, as far as shapes tell."""
    name, value = one.primitive.name, _Value(shapes)
    if name == "select_n" and operands[0].is_never:
        return operands[1]
    if name == "lt" and operands[0].places == (True,) and getattr(one.invars[1], "val", None) == 0:
        return value._replace(is_never=True)
    if name in ("dynamic_slice", "dynamic_update_slice"):  # where an axis is taken whole, the start does not matter
        part, rank = value if name == "dynamic_slice" else operands[1], len(shapes[0])
        sizes = zip(operands[-rank:], *operands[0].shapes, *part.shapes, strict=True)
        operands = [*operands[:-rank], *(start for start, *pairs in sizes if pairs[:2] != pairs[2:])]
    places = _places(one, value, operands)
    told = (
        range(len(operands)) if places else (1,) * _is_own(one, operands)
    )  # whose places stay places or pick own rows
    is_ranked = any(v.is_ranked if i in told else v.is_placed for i, v in enumerate(operands)) or not value.is_regular
    if name == "iota":
        is_ranked = not places and one.params["dimension"] in value.axes
    elif name.startswith("random_"):
        is_ranked = is_ranked or bool(value.axes)
    inner = 1
    carriers = [v for v in operands if v.is_varying and v.axes]
    if carriers and len(value.axes) == 1 and value.is_regular:
        if name == "reshape":
            inner = _reshaped(carriers[0], value, one.params["dimensions"])
        elif name == "conv_general_dilated":
            inner = _convolved(one.params, other.params, value, operands)
        else:
            size = shapes[0][value.axes[0]]
            if len({(v.inner, v.shapes[0][v.axes[0]]) for v in carriers} | {(carriers[0].inner, size)}) > 1:
                _refuse(f"`{name}` rearranges the example axis")
            inner = carriers[0].inner
    return _Value(shapes, any(v.is_varying for v in operands), inner, is_ranked, places)


def _places(equation: Any, value: _Value, operands: Sequence[_Value]) -> tuple[bool, ...]:
    """Which columns of a result are still the places of the examples."""
    name, rank = equation.primitive.name, len(value.shapes[0])
    if len(value.axes) != 1 or not value.is_regular or not _constants.counts(equation.outvars[0].aval.dtype):
        return ()
    if name == "iota":
        return (True,) * (equation.params["dimension"] == value.axes[0])
    if name == "concatenate" and equation.params["dimension"] == rank - 1 != value.axes[0]:
        columns = [v.places * (v.shapes[0][-1] if len(v.places) == 1 else 1) for v in operands]
        found = [c or (False,) * v.shapes[0][-1] for c, v in zip(columns, operands, strict=True)]
        return sum(found, ()) if any(columns) else ()
    return (True,) if name in _FAITHFUL and operands[0].places == (True,) else ()


def _is_own(equation: Any, operands: Sequence[_Value]) -> bool:
    """Whether a gather or scatter takes for each example its own row, by its place, along the example axis."""
    name, numbers = equation.primitive.name, equation.params.get("dimension_numbers")
    if not (name == "gather" or name.startswith("scatter")) or not operands[1].places:
        return False
    row = numbers.start_index_map if name == "gather" else numbers.scatter_dims_to_operand_dims
    single = numbers.collapsed_slice_dims if name == "gather" else numbers.inserted_window_dims
    places = operands[1].places * (len(row) if len(operands[1].places) == 1 else 1)
    axes = [axis for axis, is_place in zip(row, places, strict=True) if is_place]
    return axes == operands[0].axes and axes[0] in single


def _reshaped(before: _Value, after: _Value, order: Any) -> int:
    """How many neighbours belong to one example after a reshape: the examples must stay apart by as much as before."""
    shape, (axis,), (new,) = before.shapes[0], before.axes, after.axes
    order = tuple(range(len(shape)) if order is None else order)  # axes are transposed first
    apart = before.inner * math.prod(shape[i] for i in order[order.index(axis) + 1 :])
    rest = math.prod(after.shapes[0][new + 1 :])
    inner, remainder = divmod(apart, rest)
    if remainder or inner == 0 or after.shapes[0][new] % (inner * _SIZES[0]):
        _refuse(f"`reshape` of {shape} to {after.shapes[0]} scrambles {_SIZES[0]} examples")
    return inner


def _along(one: Any, operands: Sequence[_Value]) -> None:
    """Refuse equations that keep the length of the example axis but work along it."""
    name, parameters = one.primitive.name, one.params
    axes = [value.axes[0] if value.axes else -1 for value in operands]
    axis = axes[0]
    is_mixing = name == "rev" and axis in parameters["dimensions"]
    match name:
        case "sort" | "concatenate":
            is_mixing = parameters["dimension"] in axes
        case "approx_top_k":
            is_mixing = axis == parameters["reduction_dimension"]
        case "pad":
            is_mixing = axis >= 0 and parameters["padding_config"][axis] != (0, 0, 0)
        case "ragged_dot_general":
            is_mixing = axis not in parameters["ragged_dot_dimension_numbers"].dot_dimension_numbers[1][0]
        case "dot_general":
            contracted, _ = parameters["dimension_numbers"]
            is_mixing = any(a in summed for a, summed in zip(axes, contracted, strict=True))
        case "gather" if not _is_own(one, operands):
            numbers, sizes = parameters["dimension_numbers"], parameters["slice_sizes"]
            is_mixing = axis in numbers.start_index_map or (
                axis >= 0 and axis not in numbers.operand_batching_dims and sizes[axis] != operands[0].shapes[0][axis]
            )
        case "dynamic_update_slice":
            is_mixing = axis >= 0 and operands[1].shapes[0][axis] != operands[0].shapes[0][axis]
        case "fft":
            is_mixing = axis >= len(operands[0].shapes[0]) - len(parameters["fft_lengths"])
    if name.startswith("scatter") and not _is_own(one, operands):
        is_mixing = axis in parameters["dimension_numbers"].scatter_dims_to_operand_dims
    elif name in _ALONG_AXIS:
        is_mixing = parameters["axis"] == axis
    elif name in _LINEAR_ALGEBRA:
        is_mixing = any(a >= len(v.shapes[0]) - 2 for a, v in zip(axes, operands, strict=True) if v.axes)
    elif "window_dimensions" in parameters:
        is_mixing = axis >= 0 and parameters["window_dimensions"][axis] != 1
    if is_mixing:
        _refuse(f"`{name}` works along the example axis of a value of shape {operands[0].shapes[0]}")


def _convolved(parameters: Any, others: Any, value: _Value, operands: Sequence[_Value]) -> int:
    """How many neighbours belong to one example after a convolution: of its image, or, in groups, of its image with its kernel."""
    spec, (images, kernel) = parameters["dimension_numbers"], operands
    counts = {"feature_group_count": spec.lhs_spec[1], "batch_group_count": spec.lhs_spec[0]}
    grouped = [axis for count, axis in counts.items() if parameters[count] != others[count]]
    axes, out = (images.axes, kernel.axes), spec.rhs_spec[0]
    if not grouped and axes == ([spec.lhs_spec[0]], []) and parameters["batch_group_count"] == 1:
        return images.inner
    if not grouped and axes == ([], [out]) and all(parameters[count] == 1 for count in counts):
        return kernel.inner
    is_led = all(v.inner * _SIZES[0] == v.shapes[0][v.axes[0]] for v in operands if v.is_varying and v.axes)
    if len(grouped) != 1 or axes != (grouped, [out]) or not is_led:
        _refuse(f"`conv_general_dilated` works along the example axis of a value of shape {images.shapes[0]}")
    return value.shapes[0][value.axes[0]] // _SIZES[0]


def _inside(one: Any, other: Any, operands: Sequence[_Value]) -> list[_Value] | None:
    """The results of a call, a branch or a loop from the inside; None for plain equations."""
    name = one.primitive.name
    if name in ("scan", "while"):
        return (_scan if name == "scan" else _while)(one, other, operands)
    if name == "device_put":
        return list(operands)
    if name == "custom_linear_solve":  # the function is its `solve`; the other three programmes are for derivatives
        lengths, start = one.params["const_lengths"], sum(one.params["const_lengths"][:2])
        known = [*operands[start : start + lengths.solve], *operands[sum(lengths) :]]
        return _walk_closed(one.params["jaxprs"].solve, other.params["jaxprs"].solve, known)
    if name == "cond":
        pairs = zip(one.params["branches"], other.params["branches"], strict=True)
        branches = zip(*(_walk_closed(a, b, operands[1:]) for a, b in pairs), strict=True)
        return [_join([operands[0]._replace(shapes=v.shapes), *rest, v]) for v, *rest in branches]
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = one.params.get(key)
        if hasattr(inner, "eqns") and len(getattr(inner, "jaxpr", inner).invars) == len(operands):
            return _walk_closed(inner, other.params[key], operands)
    return None


def _walk_closed(one: Any, other: Any, operands: Sequence[_Value]) -> list[_Value]:
    consts = [_constant(a, b) for a, b in zip(getattr(one, "consts", ()), getattr(other, "consts", ()), strict=True)]
    return _walk(getattr(one, "jaxpr", one), getattr(other, "jaxpr", other), consts, operands)


def _join(values: Sequence[_Value]) -> _Value:
    inners = {v.inner for v in values if v.is_varying and v.axes}
    if len(inners) > 1:
        _refuse("the branches of a condition arrange the examples differently")
    is_varying, is_ranked = any(v.is_varying for v in values), any(v.is_placed for v in values)
    return _Value(values[-1].shapes, is_varying, inners.pop() if inners else 1, is_ranked)


def _scan(one: Any, other: Any, operands: Sequence[_Value]) -> list[_Value]:
    num_consts, num_carry = scan_parts(one)
    consts, rest = operands[:num_consts], operands[num_consts:]
    carry, xs = rest[:num_carry], rest[num_carry:]
    shapes = _shapes(one.outvars, other.outvars)
    if one.params["length"] != other.params["length"]:
        return _over_examples(one, operands, num_consts + num_carry, num_carry, shapes)
    rows = [v._replace(shapes=(v.shapes[0][1:], v.shapes[1][1:])) for v in xs]

    def body(state: Sequence[_Value]) -> list[_Value]:
        return _walk_closed(one.params["jaxpr"], other.params["jaxpr"], [*consts, *state, *rows])

    results = _fixed(body, list(carry))
    return [v._replace(shapes=shape) for v, shape in zip(results, shapes, strict=True)]


def _over_examples(one: Any, operands: Sequence[_Value], num_fixed: int, num_carry: int, shapes: Any) -> list[_Value]:
    """A scan over examples one by one, as `lax.map` makes: nothing may be carried."""
    fixed, xs, inner = operands[:num_fixed], operands[num_fixed:], one.params["jaxpr"].jaxpr
    varying = {var for var, v in zip(inner.invars[num_fixed:], xs, strict=True) if v.is_varying}
    for equation in inner.eqns:
        if any(not isinstance(v, core.Literal) and v in varying for v in equation.invars):
            varying.update(equation.outvars)
    depends = [not isinstance(v, core.Literal) and v in varying for v in inner.outvars]
    if any(v.is_varying for v in fixed) or any(depends[:num_carry]):
        _refuse("`scan` runs over the examples and carries from one to the next")
    ranked = any(v.is_placed for v in xs) or num_carry > 0
    return [_Value(shape, is_varying=flag, is_ranked=ranked) for flag, shape in zip(depends, shapes, strict=True)]


def _while(one: Any, other: Any, operands: Sequence[_Value]) -> list[_Value]:
    num_cond, num_body = one.params["cond_nconsts"], one.params["body_nconsts"]
    cond_consts, rest = operands[:num_cond], operands[num_cond:]
    body_consts, carry = rest[:num_body], rest[num_body:]

    def body(state: Sequence[_Value]) -> list[_Value]:
        return _walk_closed(one.params["body_jaxpr"], other.params["body_jaxpr"], [*body_consts, *state])

    results = _fixed(body, list(carry))
    _walk_closed(one.params["cond_jaxpr"], other.params["cond_jaxpr"], [*cond_consts, *results])
    return results


def _fixed(body: Any, carry: list[_Value]) -> list[_Value]:
    """The results of a loop: iterate until nothing more depends on the inputs."""
    while True:
        results: list[_Value] = body(carry)
        joined = [_join([a, b]) for a, b in zip(carry, results[: len(carry)], strict=True)]
        if joined == carry:
            return [*joined, *results[len(carry) :]]
        carry = joined
