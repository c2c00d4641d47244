"""A traced function without repeated work, split at its last argument into what is known before and what is not.

    f(c, δ) = later(known(c), δ)

Nested derivatives write the same equation several times, and reverse mode then carries a cotangent back along every copy. `merged`
makes one of equal equations *before* anything is differentiated: the k-th derivative along δ by k nested `jvp` becomes the
propagation of k Taylor coefficients, and its transpose one backward pass a coefficient. `split` finds which equations do not see
δ, so that whoever calls f again and again with the same c runs those once.

Calls are inlined, but for functions with derivatives of their own (`custom_jvp`). Loops and branches stay whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxdyn._jaxpr import Rule, bind, evaluate, execute, hashed, inner, needed, opened, scalar, variables

_CALLS = {"jit", "pjit", "closed_call", "core_call"}
_CHEAP = {"broadcast_in_dim", "iota"}  # computed where they are used: their results are larger than what they read


@dataclass(frozen=True, eq=False)
class Split:
    """A traced function `(*fixed, *varying) -> results`, all flat, in two parts.

    Attributes:
        known: `fixed -> residuals`, the arrays that the second part needs.
        later: `(residuals, varying) -> results`.
    """

    known: Callable[[Sequence[Any]], list[Any]]
    later: Callable[[Sequence[Any], Sequence[Any]], list[Any]]


def merged(function: Callable[..., Sequence[Any]], *args: Any) -> Any:
    """The closed jaxpr of a function of arrays, with equal equations made one, calls inlined, and what no result needs left out."""
    shapes = [jax.ShapeDtypeStruct(np.shape(arg), arg.dtype) for arg in args]
    first = jax.make_jaxpr(function)(*shapes)
    again = jax.make_jaxpr(lambda *args: execute(first.jaxpr, first.consts, args, _once()))(*shapes)
    kept = needed(again.jaxpr, again.jaxpr.outvars)
    return core.ClosedJaxpr(again.jaxpr.replace(eqns=kept), again.consts)


def call(closed: Any, args: Sequence[Any]) -> list[Any]:
    """The results of a traced function."""
    return list(core.jaxpr_as_fun(closed)(*args))


def split(closed: Any, num_fixed: int) -> Split:
    """Split what `merged` returned between its first `num_fixed` arguments, known early, and the others.

    Results that see none of the others are residuals too.
    """
    jaxpr = closed.jaxpr
    seen = set(jaxpr.invars[num_fixed:])
    early: list[Any] = []
    late: list[Any] = []
    for eqn in jaxpr.eqns:
        is_late = bool(eqn.effects) or any(v in seen for v in variables(eqn.invars))
        (late if is_late else early).append(eqn)
        if is_late:
            seen.update(eqn.outvars)
    maker = {v: eqn for eqn in early for v in eqn.outvars}
    again: list[Any] = []  # cheap equations that are computed in both parts
    residuals: dict[Any, None] = {}
    wanted = [v for eqn in late for v in variables(eqn.invars)] + list(variables(jaxpr.outvars))
    while wanted:
        v = wanted.pop()
        if v in seen or v in residuals:
            continue
        eqn = maker.get(v)
        if eqn is not None and eqn.primitive.name in _CHEAP:
            again = [eqn, *(one for one in again if one is not eqn)]
            wanted.extend(variables(eqn.invars))
        else:
            residuals[v] = None
    names = list(residuals)
    order = {id(eqn): i for i, eqn in enumerate(jaxpr.eqns)}
    second = sorted([*again, *late], key=lambda eqn: order[id(eqn)])

    def known(fixed: Sequence[Any]) -> list[Any]:
        given = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        given.update(zip(jaxpr.invars[:num_fixed], fixed, strict=True))
        return evaluate(early, given, names)

    def later(values: Sequence[Any], varying: Sequence[Any]) -> list[Any]:
        given = dict(zip(names, values, strict=True))
        given.update(zip(jaxpr.invars[num_fixed:], varying, strict=True))
        return evaluate(second, given, jaxpr.outvars)

    return Split(known, later)


def _once() -> Rule:
    """A rule that inlines calls and remembers every equation: one that comes again, with the same operands, is not made anew."""
    made: dict[Any, list[Any]] = {}
    alive: list[Any] = []  # identities are keys, so what they name must stay

    def apply(eqn: Any, inputs: list[Any]) -> list[Any]:
        if eqn.primitive.name in _CALLS:
            (called,) = inner(eqn)
            return execute(opened(called), getattr(called, "consts", ()), inputs, apply)
        params = None if eqn.effects else hashed(eqn.params)
        if params is None:
            return bind(eqn, inputs)
        alive.extend(inputs)
        key = (eqn.primitive, params, tuple(scalar(value) or id(value) for value in inputs))
        if key not in made:
            made[key] = bind(eqn, inputs)
        return made[key]

    return apply
