"""Which equations are opened where a parameter enters them, so that the products inside are seen.

Calls, reshapes in another order, short scans, and the branch of a `lax.platform_dependent` that belongs to the default platform.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxdyn._jaxpr import scan_parts

_UNROLLED = 1000  # equations that an unrolled scan may add


def _call(source: Any, avals: Sequence[Any], platforms: Any) -> Any:
    body = source.params.get("jaxpr", source.params.get("call_jaxpr"))
    return body if hasattr(body, "consts") else core.ClosedJaxpr(body, ())


def _reshape(source: Any, avals: Sequence[Any], platforms: Any) -> Any:
    """A reshape in another order as two steps, of which all rules know."""
    order, sizes = source.params["dimensions"], source.params["new_sizes"]
    return None if order is None else jax.make_jaxpr(lambda v: v.transpose(order).reshape(sizes))(avals[0])


def _cond(source: Any, avals: Sequence[Any], platforms: Any) -> Any:
    """The branch of the default platform, or the generic one where the former is a loop. All compute the same function."""
    branches = source.params["branches"]
    if platforms is None:
        return None
    here = jax.default_backend()
    names = {here, "cuda", "rocm"} if here == "gpu" else {here}
    own = next((i for i, group in enumerate(platforms) if group is None or names.intersection(group)), 0)
    is_loop = any(equation.primitive.name in ("scan", "while") for equation in branches[own].jaxpr.eqns)
    return branches[next((i for i, group in enumerate(platforms) if group is None), own) if is_loop else own]


def _scan(source: Any, avals: Sequence[Any], platforms: Any) -> Any:
    is_short = (source.params["length"] - 1) * len(source.params["jaxpr"].jaxpr.eqns) <= _UNROLLED
    return jax.make_jaxpr(_unrolled(source))(*avals) if is_short else None


def _unrolled(scan: Any) -> Callable[..., Any]:
    """The function of a scan without the scan."""
    body, length = core.jaxpr_as_fun(scan.params["jaxpr"]), scan.params["length"]
    num_consts, num_carry = scan_parts(scan)
    order = list(reversed(range(length)) if scan.params["reverse"] else range(length))

    def function(*args: Any) -> Any:
        consts, rest = args[:num_consts], args[num_consts:]
        carry, xs = list(rest[:num_carry]), rest[num_carry:]
        collected: dict[int, Any] = {}
        for step in order:
            results = body(*consts, *carry, *(jax.lax.index_in_dim(x, step, keepdims=False) for x in xs))
            carry, collected[step] = list(results[:num_carry]), results[num_carry:]
        columns = zip(*(collected[step] for step in range(length)), strict=True)
        return [*carry, *(jnp.stack(column) for column in columns)]

    return function


# `(equation, shapes of its operands, the platforms that the first operand stands for) -> closed jaxpr` of the last operands, or None.
INLINED: dict[str, Callable[[Any, Sequence[Any], Any], Any]] = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2"), _call),
    "reshape": _reshape,
    "cond": _cond,
    "scan": _scan,
}
