"""Whether a function treats its examples one by one; if they interact, it is refused.

The kernel Θ(x, x') of two examples, and an AGOP or a Hessian at an example, exist only if f(x) does not depend on the other members of
its batch. Whatever is told per example calls `check`, which traces the function for 2 and for 3 examples and walks both programmes
side by side. Axes whose lengths are as 2 to 3 carry the examples. It is refused if

* a value that depends on the inputs loses that axis, or gets a second one (batch statistics, sums, Gram matrices over the batch),
* an equation works along it (sort, cumulative sum, flip, convolution, product or recurrence over the batch …),
* a number depends on how many examples there are, or on an example's place among them, which may only pick the example's own row.

What single primitives do along the axis is in `axes`, what is walked from the inside in `INSIDE`. No value is computed; NumPy arrays
that the function makes of the number of examples are read (`constants`). What happens inside foreign code (callbacks, custom kernels)
is judged by shapes alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxdyn._jaxpr import scan_parts
from jaxdyn.geometry.kernel import constants
from jaxdyn.geometry.kernel.axes import SIZES, Value, check_along, refuse, result


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

    traces, (num_outputs, _) = zip(*map(trace, SIZES), strict=True)
    first, second = (closed.jaxpr for closed in traces)
    inputs = [Value(pair, is_varying=i == num_leaves) for i, pair in enumerate(_shapes(first.invars, second.invars))]
    consts = [_constant(*pair) for pair in zip(*(closed.consts for closed in traces), strict=False)]
    (found,) = _walk(first, second, consts, inputs)
    if found.is_ranked or (found.is_varying and (found.axes != [0] or found.inner != 1)):
        refuse(
            f"the outputs, of shape {found.shapes[0]} for {SIZES[0]} examples, do not have the examples as their first axis"
        )
    if x.shape[0] not in (1, *SIZES) and not constants.confirmed(traces, lambda: trace(x.shape[0])[0]):
        refuse(f"a NumPy array made of their number picks other rows of {x.shape[0]} examples than their own")
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


def _shapes(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    return [(tuple(a.aval.shape), tuple(b.aval.shape)) for a, b in zip(first, second, strict=True)]


def _constant(first: Any, second: Any) -> Value:
    value = Value((np.shape(first), np.shape(second)))
    numbers = (bool, int, float, complex, np.generic, np.ndarray)
    if all(isinstance(c, numbers) and np.ndim(c) == 0 for c in (first, second)):
        return value._replace(is_ranked=np.asarray(first).tobytes() != np.asarray(second).tobytes())
    return value._replace(**constants.known(first, second))


def _walk(first: Any, second: Any, consts: Sequence[Value], inputs: Sequence[Value]) -> list[Value]:
    """The results of two programmes side by side."""
    kinds = [[(e.primitive.name, len(e.invars), len(e.outvars)) for e in jaxpr.eqns] for jaxpr in (first, second)]
    if kinds[0] != kinds[1] or len(first.constvars) != len(second.constvars):
        refuse("the programmes for 2 and for 3 examples differ")
    known: dict[Any, Value] = dict(zip([*first.constvars, *first.invars], [*consts, *inputs], strict=True))

    def read(a: Any, b: Any) -> Value:
        if isinstance(a, core.Literal) != isinstance(b, core.Literal):
            refuse("the programmes for 2 and for 3 examples differ")
        return _constant(a.val, b.val) if isinstance(a, core.Literal) else known[a]

    for one, other in zip(first.eqns, second.eqns, strict=True):
        operands = [read(a, b) for a, b in zip(one.invars, other.invars, strict=True)]
        known.update(zip(one.outvars, _equation(one, other, operands), strict=True))
    return [read(a, b) for a, b in zip(first.outvars, second.outvars, strict=True)]


def _equation(one: Any, other: Any, operands: Sequence[Value]) -> list[Value]:
    name = one.primitive.name
    results = INSIDE.get(name, _call)(one, other, operands)
    if results is None:
        results = [result(one, other, shapes, operands) for shapes in _shapes(one.outvars, other.outvars)]
        if any(v.is_varying and v.axes for v in operands):
            check_along(one, operands)
    for var, value in zip(one.outvars, results, strict=True):
        if value.is_varying and (len(value.axes) != 1 or not value.is_regular):
            small, large = value.shapes
            refuse(f"`{name}` makes shape {small} of {SIZES[0]} examples and {large} of {SIZES[1]}")
        if value.is_varying and value.is_ranked and jnp.issubdtype(var.aval.dtype, jnp.inexact):
            refuse(f"`{name}` uses the number of examples, or an example's place among them")
    return results


def _call(one: Any, other: Any, operands: Sequence[Value]) -> list[Value] | None:
    """The results of a call from the inside; None for plain equations."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = one.params.get(key)
        if hasattr(inner, "eqns") and len(getattr(inner, "jaxpr", inner).invars) == len(operands):
            return _walk_closed(inner, other.params[key], operands)
    return None


def _walk_closed(one: Any, other: Any, operands: Sequence[Value]) -> list[Value]:
    consts = [_constant(a, b) for a, b in zip(getattr(one, "consts", ()), getattr(other, "consts", ()), strict=True)]
    return _walk(getattr(one, "jaxpr", one), getattr(other, "jaxpr", other), consts, operands)


def _join(values: Sequence[Value]) -> Value:
    inners = {v.inner for v in values if v.is_varying and v.axes}
    if len(inners) > 1:
        refuse("the branches of a condition arrange the examples differently")
    is_varying, is_ranked = any(v.is_varying for v in values), any(v.is_placed for v in values)
    return Value(values[-1].shapes, is_varying, inners.pop() if inners else 1, is_ranked)


def _scan(one: Any, other: Any, operands: Sequence[Value]) -> list[Value]:
    num_consts, num_carry = scan_parts(one)
    consts, rest = operands[:num_consts], operands[num_consts:]
    carry, xs = rest[:num_carry], rest[num_carry:]
    shapes = _shapes(one.outvars, other.outvars)
    if one.params["length"] != other.params["length"]:
        return _over_examples(one, operands, num_consts + num_carry, num_carry, shapes)
    rows = [v._replace(shapes=(v.shapes[0][1:], v.shapes[1][1:])) for v in xs]

    def body(state: Sequence[Value]) -> list[Value]:
        return _walk_closed(one.params["jaxpr"], other.params["jaxpr"], [*consts, *state, *rows])

    results = _fixed(body, list(carry))
    return [v._replace(shapes=shape) for v, shape in zip(results, shapes, strict=True)]


def _over_examples(one: Any, operands: Sequence[Value], num_fixed: int, num_carry: int, shapes: Any) -> list[Value]:
    """A scan over examples one by one, as `lax.map` makes: nothing may be carried."""
    fixed, xs, inner = operands[:num_fixed], operands[num_fixed:], one.params["jaxpr"].jaxpr
    varying = {var for var, v in zip(inner.invars[num_fixed:], xs, strict=True) if v.is_varying}
    for equation in inner.eqns:
        if any(not isinstance(v, core.Literal) and v in varying for v in equation.invars):
            varying.update(equation.outvars)
    depends = [not isinstance(v, core.Literal) and v in varying for v in inner.outvars]
    if any(v.is_varying for v in fixed) or any(depends[:num_carry]):
        refuse("`scan` runs over the examples and carries from one to the next")
    ranked = any(v.is_placed for v in xs) or num_carry > 0
    return [Value(shape, is_varying=flag, is_ranked=ranked) for flag, shape in zip(depends, shapes, strict=True)]


def _while(one: Any, other: Any, operands: Sequence[Value]) -> list[Value]:
    num_cond, num_body = one.params["cond_nconsts"], one.params["body_nconsts"]
    cond_consts, rest = operands[:num_cond], operands[num_cond:]
    body_consts, carry = rest[:num_body], rest[num_body:]

    def body(state: Sequence[Value]) -> list[Value]:
        return _walk_closed(one.params["body_jaxpr"], other.params["body_jaxpr"], [*body_consts, *state])

    results = _fixed(body, list(carry))
    _walk_closed(one.params["cond_jaxpr"], other.params["cond_jaxpr"], [*cond_consts, *results])
    return results


def _fixed(body: Any, carry: list[Value]) -> list[Value]:
    """The results of a loop: iterate until nothing more depends on the inputs."""
    while True:
        results: list[Value] = body(carry)
        joined = [_join([a, b]) for a, b in zip(carry, results[: len(carry)], strict=True)]
        if joined == carry:
            return [*joined, *results[len(carry) :]]
        carry = joined


def _cond(one: Any, other: Any, operands: Sequence[Value]) -> list[Value]:
    pairs = zip(one.params["branches"], other.params["branches"], strict=True)
    branches = zip(*(_walk_closed(a, b, operands[1:]) for a, b in pairs), strict=True)
    return [_join([operands[0]._replace(shapes=v.shapes), *rest, v]) for v, *rest in branches]


def _linear_solve(one: Any, other: Any, operands: Sequence[Value]) -> list[Value]:
    """The function is its `solve`; the other three programmes are for derivatives."""
    lengths, start = one.params["const_lengths"], sum(one.params["const_lengths"][:2])
    known = [*operands[start : start + lengths.solve], *operands[sum(lengths) :]]
    return _walk_closed(one.params["jaxprs"].solve, other.params["jaxprs"].solve, known)


# What has an inside other than the one jaxpr of a call: `(equation for 2 examples, equation for 3, operands) -> results`.
INSIDE: dict[str, Callable[[Any, Any, Sequence[Value]], list[Value] | None]] = {
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
    "device_put": lambda one, other, operands: list(operands),
    "scan": _scan,
    "while": _while,
}
