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

from jaxdyn._jaxpr import bind, execute, inner, needed, opened, scan_parts

_CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint", "remat2"}
_LARGE = 128  # elements; smaller constants may stay inside


def hoist(closed: Any) -> Any:
    """What `jax.make_jaxpr` returned, with every large constant of an inner jaxpr among the `consts` of the whole."""
    if not any(np.size(const) > _LARGE for const in _inner_consts(closed.jaxpr)):
        return closed
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.invars]
    return jax.make_jaxpr(lambda *args: execute(closed.jaxpr, closed.consts, args, _apply))(*avals)


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
    unknown = jaxpr.debug_info.with_unknown_names()
    kept = jaxpr.replace(outvars=outvars, eqns=needed(jaxpr, outvars), debug_info=unknown)
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
            called = opened(inner(eqn)[0])
            if len(called.invars) == len(inputs):
                outputs = _spread(called, {v for v, t in zip(called.invars, inputs, strict=True) if t})
        tainted.update(v for v, t in zip(eqn.outvars, outputs, strict=True) if t)
    return [not isinstance(v, core.Literal) and v in tainted for v in jaxpr.outvars]


def _inner_consts(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        for one in inner(eqn):
            yield from getattr(one, "consts", ())
            yield from _inner_consts(opened(one))


def _apply(eqn: Any, inputs: list[Any]) -> list[Any]:
    within = inner(eqn)
    if not any(np.size(c) > _LARGE for one in within for c in (*getattr(one, "consts", ()), *_inner_consts(one))):
        return bind(eqn, inputs)
    functions = [_function(one) for one in within]
    name = eqn.primitive.name
    if name in _CALLS:
        return functions[0](*inputs)
    if name == "scan":
        return _scan(eqn, functions[0], inputs)
    if name == "while":
        return _while(eqn, inputs)
    if name == "cond":
        return list(jax.lax.switch(inputs[0], functions, *inputs[1:]))
    return bind(eqn, inputs)


def _function(closed: Any) -> Callable[..., list[Any]]:
    return lambda *args: execute(opened(closed), getattr(closed, "consts", ()), args, _apply)


def _scan(eqn: Any, body: Callable[..., list[Any]], inputs: list[Any]) -> list[Any]:
    num_consts, num_carry = scan_parts(eqn)
    fixed, rest = inputs[:num_consts], inputs[num_consts:]
    carry, xs = rest[:num_carry], rest[num_carry:]

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
