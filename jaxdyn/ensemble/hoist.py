"""Constants become arguments.

Tracing turns an array that a function closes over into a constant of its jaxpr, and XLA compiles constants into the
programme: megabytes of HLO, minutes of constant folding, a new compilation for every new data set. `hoist` rewrites a
traced function so that all such arrays, those inside a user's own `jit` included, are its leading arguments.

It also answers which results of a traced function depend on which of its arguments, so that what depends on no axis of
a sweep need not be batched.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

_CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2"}
_LARGE = 128  # elements; smaller constants may stay inside


def hoist(closed: Any) -> Any:
    """The same traced function with every large constant of an inner jaxpr moved to its top level.

    Args:
        closed: what `jax.make_jaxpr` returned.

    Returns:
        A closed jaxpr whose `consts` hold them all.
    """
    if not any(np.size(const) > _LARGE for const in _inner_consts(closed.jaxpr)):
        return closed
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    return jax.make_jaxpr(lambda *args: _evaluate(closed.jaxpr, closed.consts, args))(*avals)


def call(closed: Any) -> Callable[[Sequence[Any], Sequence[Any]], list[Any]]:
    """The function `(consts, args) -> results` of a traced function, flat on both sides."""

    def function(consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        return list(core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, list(consts)))(*args))

    return function


def lower(closed: Any) -> Any:
    """A traced function lowered for the default device, its constants as arguments."""
    consts = [jax.ShapeDtypeStruct(np.shape(const), const.dtype) for const in closed.consts]
    arguments = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    return jax.jit(call(closed)).lower(consts, arguments)


def dependent(closed: Any) -> list[bool]:
    """For each result of a traced function, whether it may depend on the arguments (rather than on constants alone)."""
    tainted = set(closed.jaxpr.invars)
    return _spread(closed.jaxpr, tainted)


def part(closed: Any, is_wanted: Sequence[bool]) -> Any:
    """The same traced function with some of its results only, and without what they do not need."""
    jaxpr = closed.jaxpr
    outvars = [v for v, wanted in zip(jaxpr.outvars, is_wanted, strict=True) if wanted]
    needed = {v for v in outvars if not isinstance(v, core.Literal)}
    eqns = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(v in needed for v in eqn.outvars):
            eqns.append(eqn)
            needed.update(v for v in eqn.invars if not isinstance(v, core.Literal))
    kept = jaxpr.replace(outvars=outvars, eqns=eqns[::-1], debug_info=jaxpr.debug_info.with_unknown_names())
    return core.ClosedJaxpr(kept, closed.consts)


def is_traced(value: Any) -> bool:
    """Whether an array is being traced, so that its value is not known."""
    try:
        _ = value.is_fully_addressable
    except jax.errors.ConcretizationTypeError:
        return True
    except AttributeError:
        return False
    return False


def _spread(jaxpr: Any, tainted: set[Any]) -> list[bool]:
    for eqn in jaxpr.eqns:
        inputs = [not isinstance(v, core.Literal) and v in tainted for v in eqn.invars]
        if not any(inputs):
            continue
        outputs = [True] * len(eqn.outvars)
        if eqn.primitive.name in _CALLS:
            inner = next(_jaxprs(eqn))
            if len(inner.invars) == len(inputs):
                outputs = _spread(inner, {v for v, t in zip(inner.invars, inputs, strict=True) if t})
        tainted.update(v for v, t in zip(eqn.outvars, outputs, strict=True) if t)
    return [not isinstance(v, core.Literal) and v in tainted for v in jaxpr.outvars]


def _jaxprs(eqn: Any) -> Iterator[Any]:
    """The open jaxprs among an equation's parameters."""
    for closed in _closed(eqn):
        yield getattr(closed, "jaxpr", closed)


def _closed(eqn: Any) -> Iterator[Any]:
    for value in eqn.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(one, "eqns"):
                yield one


def _inner_consts(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        for closed in _closed(eqn):
            yield from getattr(closed, "consts", ())
            yield from _inner_consts(getattr(closed, "jaxpr", closed))


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Trace a jaxpr anew, inlining calls, so that inner constants are captured by the outer trace."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(v: Any) -> Any:
        return v.val if isinstance(v, core.Literal) else values[v]

    for eqn in jaxpr.eqns:
        inputs = [read(v) for v in eqn.invars]
        results = _apply(eqn, inputs)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _apply(eqn: Any, inputs: list[Any]) -> list[Any]:
    inner = list(_closed(eqn))
    if not any(np.size(c) > _LARGE for one in inner for c in (*getattr(one, "consts", ()), *_inner_consts(one))):
        return _bind(eqn, inputs)
    functions = [_function(one) for one in inner]
    name = eqn.primitive.name
    if name in _CALLS:
        return functions[0](*inputs)
    if name == "scan":
        return _scan(eqn, functions[0], inputs)
    if name == "while":
        return _while(eqn, inputs)
    if name == "cond":
        return list(jax.lax.switch(inputs[0], functions, *inputs[1:]))
    return _bind(eqn, inputs)


def _bind(eqn: Any, inputs: list[Any]) -> list[Any]:
    """The results of one equation as it stands."""
    results = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return list(results) if eqn.primitive.multiple_results else [results]


def _function(closed: Any) -> Callable[..., list[Any]]:
    return lambda *args: _evaluate(getattr(closed, "jaxpr", closed), getattr(closed, "consts", ()), args)


def _scan(eqn: Any, body: Callable[..., list[Any]], inputs: list[Any]) -> list[Any]:
    inner = next(_jaxprs(eqn))
    num_xs = sum(v.aval.shape != w.aval.shape for v, w in zip(eqn.invars, inner.invars, strict=True))
    num_ys = sum(v.aval.shape != w.aval.shape for v, w in zip(eqn.outvars, inner.outvars, strict=True))
    num_carry = len(eqn.outvars) - num_ys
    num_consts = len(inputs) - num_carry - num_xs
    fixed, carry, xs = (
        inputs[:num_consts],
        inputs[num_consts : num_consts + num_carry],
        inputs[num_consts + num_carry :],
    )

    def step(carry: Any, x: Any) -> Any:
        results = body(*fixed, *carry, *x)
        return results[:num_carry], results[num_carry:]

    carry, ys = jax.lax.scan(step, carry, xs, length=eqn.params["length"], reverse=eqn.params["reverse"])
    return [*carry, *ys]


def _while(eqn: Any, inputs: list[Any]) -> list[Any]:
    condition, body = _function(eqn.params["cond_jaxpr"]), _function(eqn.params["body_jaxpr"])
    num_condition, num_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    for_condition, for_body = inputs[:num_condition], inputs[num_condition : num_condition + num_body]
    start = tuple(inputs[num_condition + num_body :])
    return list(
        jax.lax.while_loop(
            lambda carry: condition(*for_condition, *carry)[0], lambda carry: tuple(body(*for_body, *carry)), start
        )
    )
