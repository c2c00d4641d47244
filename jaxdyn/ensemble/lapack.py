"""Decompositions of several members one after the other, on CPUs.

XLA shares a *batched* LAPACK call (what `vmap` makes of `jnp.linalg.eigh` in a probe) out among the very threads that run the
programme, and each call waits for its share: once as many wait as there are threads, nobody is left to do the work, and the
programme hangs. A call for one matrix never waits. So where members are vmapped on a CPU, their decompositions go in a loop.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

_DECOMPOSITIONS = {
    "cholesky", "eig", "eigh", "geqp3", "geqrf", "hessenberg", "householder_product", "lu", "ormqr", "qr", "schur", "svd",
    "tridiagonal",
}  # fmt: skip


def one_at_a_time(closed: Any) -> Callable[[Sequence[Any], Sequence[Any]], list[Any]]:
    """The function `(consts, args) -> results` of a traced function; vmapped, its decompositions run in a loop.

    Args:
        closed: what `jax.make_jaxpr` returned.
    """

    def function(consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        if not _has_any(closed.jaxpr):
            return list(core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, list(consts)))(*args))
        return _evaluate(closed.jaxpr, consts, args)

    return function


def _has_any(jaxpr: Any) -> bool:
    return any(
        eqn.primitive.name in _DECOMPOSITIONS or any(_has_any(getattr(one, "jaxpr", one)) for one in _inner(eqn))
        for eqn in jaxpr.eqns
    )


def _inner(eqn: Any) -> list[Any]:
    """The jaxprs, open or closed, among an equation's parameters."""
    found = []
    for value in eqn.params.values():
        found += [one for one in (value if isinstance(value, (tuple, list)) else (value,)) if hasattr(one, "eqns")]
    return found


def _evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(v: Any) -> Any:
        return v.val if isinstance(v, core.Literal) else values[v]

    for eqn in jaxpr.eqns:
        inputs = [read(v) for v in eqn.invars]
        if eqn.primitive.name in _DECOMPOSITIONS:
            one = jax.custom_batching.sequential_vmap(lambda *inputs, eqn=eqn: tuple(_bind(eqn, eqn.params, inputs)))
            results = one(*inputs)
        else:
            results = _bind(eqn, {name: _rewritten(value) for name, value in eqn.params.items()}, inputs)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _rewritten(value: Any) -> Any:
    """A parameter of an equation, its jaxprs traced anew."""
    if isinstance(value, (tuple, list)):
        again = [_rewritten(one) for one in value]
        return type(value)(*again) if hasattr(value, "_fields") else type(value)(again)
    if not hasattr(value, "eqns") or not _has_any(getattr(value, "jaxpr", value)):
        return value
    jaxpr, consts = getattr(value, "jaxpr", value), getattr(value, "consts", ())
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in jaxpr.invars]
    traced = jax.make_jaxpr(lambda *args: _evaluate(jaxpr, consts, args))(*shapes)
    return traced if value is not jaxpr else traced.jaxpr


def _bind(eqn: Any, params: Any, inputs: Sequence[Any]) -> list[Any]:
    results = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(params))
    return list(results) if eqn.primitive.multiple_results else [results]
