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

from jaxdyn._jaxpr import bind, evaluate, execute, inner, needed, opened, variables

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
    """Trace a flat function, with equal equations made one, calls inlined, and what no result needs left out.

    Args:
        function: of arrays, returning a sequence of arrays.
        args: arrays or shapes.

    Returns:
        A closed jaxpr.
    """
    shapes = [jax.ShapeDtypeStruct(np.shape(arg), arg.dtype) for arg in args]
    first = jax.make_jaxpr(function)(*shapes)
    again = jax.make_jaxpr(lambda *args: _Evaluation().run(first.jaxpr, first.consts, args))(*shapes)
    kept = needed(again.jaxpr, again.jaxpr.outvars)
    return core.ClosedJaxpr(again.jaxpr.replace(eqns=kept), again.consts)


def call(closed: Any, args: Sequence[Any]) -> list[Any]:
    """The results of a traced function."""
    return list(core.jaxpr_as_fun(closed)(*args))


def split(closed: Any, num_fixed: int) -> Split:
    """Split a traced function between its first `num_fixed` arguments and the others.

    Args:
        closed: what `merged` returned.
        num_fixed: how many arguments, from the first, are known early.

    Returns:
        The two parts. Results that see none of the other arguments are residuals too.
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


class _Evaluation:
    """Evaluates a jaxpr, remembering every equation: one that comes again, with the same operands, is not made anew."""

    def __init__(self) -> None:
        self._made: dict[Any, list[Any]] = {}
        self._alive: list[Any] = []  # identities are keys, so what they name must stay

    def run(self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        return execute(jaxpr, consts, args, self._apply)

    def _apply(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        if eqn.primitive.name not in _CALLS:
            return self._once(eqn, inputs)
        (called,) = inner(eqn)
        return self.run(opened(called), getattr(called, "consts", ()), inputs)

    def _once(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        key = None if eqn.effects else (eqn.primitive, _hashable(eqn.params), tuple(map(self._identity, inputs)))
        if key in self._made:
            return self._made[key]
        results = bind(eqn, inputs)
        if key is not None and key[1] is not None:
            self._made[key] = results
        return results

    def _identity(self, value: Any) -> Any:
        if np.ndim(value) == 0 and isinstance(value, (np.generic, np.ndarray, bool, int, float, complex)):
            return (type(value).__name__, str(np.asarray(value).dtype), np.asarray(value).tobytes())
        self._alive.append(value)
        return id(value)


def _hashable(params: dict[str, Any]) -> Any:
    """The parameters of an equation as a key, or None where they have none."""
    try:
        key = tuple(sorted(params.items(), key=lambda item: item[0]))
        hash(key)
    except TypeError:
        return None
    return key
