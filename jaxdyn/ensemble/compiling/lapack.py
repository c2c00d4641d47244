"""LAPACK on one matrix at a time, on CPUs.

XLA shares a *batched* LAPACK call (what `vmap` makes of `jnp.linalg.eigh` in a probe) out among the very threads that run the
programme, and each call waits for its share: once as many wait as there are threads, nobody is left to do the work, and the
programme hangs. A call for one matrix never waits. So in a sweep on a CPU, decompositions and solves of several matrices go in a loop.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxdyn._jaxpr import bind, execute, inner, opened
from jaxdyn.ensemble.compiling import hoist

_RANKS = {"tridiagonal_solve": 1} | dict.fromkeys(
    (
        "cholesky", "cholesky_update", "eig", "eigh", "geqp3", "geqrf", "hessenberg", "householder_product", "lu", "ormqr", "qr", "schur",
        "svd", "symmetric_product", "triangular_solve", "tridiagonal",
    ),
    2,
)  # fmt: skip
"""For each primitive, the axes of its first operand behind those of a batch."""


def one_at_a_time(closed: Any) -> Callable[[Sequence[Any], Sequence[Any]], list[Any]]:
    """`hoist.call` of a traced function; what it does with LAPACK, vmapped or not, runs in a loop."""
    if not _has_any(closed.jaxpr):
        return hoist.call(closed)
    return lambda consts, args: execute(closed.jaxpr, consts, args, _apply)


def _has_any(jaxpr: Any) -> bool:
    return any(eqn.primitive.name in _RANKS or any(_has_any(opened(one)) for one in inner(eqn)) for eqn in jaxpr.eqns)


def _apply(eqn: Any, inputs: list[Any]) -> list[Any]:
    if eqn.primitive.name in _RANKS:
        one = jax.custom_batching.sequential_vmap(lambda *inputs: tuple(bind(eqn, inputs)))
        for _ in range(inputs[0].ndim - _RANKS[eqn.primitive.name]):
            one = jax.vmap(one)
        return list(one(*inputs))
    return bind(eqn, inputs, {name: _rewritten(value) for name, value in eqn.params.items()})


def _rewritten(value: Any) -> Any:
    """A parameter of an equation, its jaxprs traced anew."""
    if isinstance(value, (tuple, list)):
        again = [_rewritten(one) for one in value]
        return type(value)(*again) if hasattr(value, "_fields") else type(value)(again)
    if not hasattr(value, "eqns") or not _has_any(opened(value)):
        return value
    jaxpr, consts = opened(value), getattr(value, "consts", ())
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in jaxpr.invars]
    traced = jax.make_jaxpr(lambda *args: execute(jaxpr, consts, args, _apply))(*shapes)
    return traced if value is not jaxpr else traced.jaxpr
