"""Traced functions as lists of equations: reading them, executing them, leaving out what nobody needs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jax.extend import core


def variables(atoms: Iterable[Any]) -> Iterator[Any]:
    """The operands that are no literals."""
    return (v for v in atoms if not isinstance(v, core.Literal))


def opened(jaxpr: Any) -> Any:
    """The open jaxpr of a closed one; an open one as it is."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def inner(eqn: Any) -> list[Any]:
    """The jaxprs, open or closed, among an equation's parameters."""
    found = []
    for value in eqn.params.values():
        found += [one for one in (value if isinstance(value, (tuple, list)) else (value,)) if hasattr(one, "eqns")]
    return found


def needed(jaxpr: Any, outvars: Iterable[Any]) -> list[Any]:
    """The equations that some results need, in order; those with effects stay."""
    wanted = set(variables(outvars))
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(v in wanted for v in eqn.outvars):
            kept.append(eqn)
            wanted.update(variables(eqn.invars))
    return kept[::-1]


def bind(eqn: Any, inputs: Sequence[Any], params: dict[str, Any] | None = None) -> list[Any]:
    """The results of one equation, with its own parameters or with others."""
    with eqn.ctx.manager:
        results = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params if params is None else params))
    return list(results) if eqn.primitive.multiple_results else [results]


def scan_parts(eqn: Any) -> tuple[int, int]:
    """How many constants and how many carried values lead the operands of a scan; the rest has one axis more than in the body."""
    body = opened(eqn.params["jaxpr"])
    num_xs = sum(v.aval.ndim != w.aval.ndim for v, w in zip(eqn.invars, body.invars, strict=True))
    num_ys = sum(v.aval.ndim != w.aval.ndim for v, w in zip(eqn.outvars, body.outvars, strict=True))
    num_carry = len(eqn.outvars) - num_ys
    return len(eqn.invars) - num_xs - num_carry, num_carry


def hashed(params: dict[str, Any]) -> Any:
    """The parameters of an equation as a key; None where they cannot be hashed."""
    key = tuple(sorted(params.items(), key=lambda item: item[0]))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def scalar(value: Any) -> Any:
    """What equal scalars have in common, type and dtype included; None for what is no scalar."""
    if isinstance(value, (bool, int, float, complex, np.generic, np.ndarray)) and np.ndim(value) == 0:
        number = np.asarray(value)
        return type(value).__name__, str(number.dtype), number.tobytes()
    return None


Rule = Callable[[Any, list[Any]], Sequence[Any]]


def execute(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], rule: Rule = bind) -> list[Any]:
    """The results of an open jaxpr, each equation executed by a rule `(equation, operands) -> results`."""
    values = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))
    return evaluate(jaxpr.eqns, values, jaxpr.outvars, rule)


def evaluate(eqns: Iterable[Any], values: dict[Any, Any], wanted: Iterable[Any], rule: Rule = bind) -> list[Any]:
    """Execute equations in turn, adding to the values known, and read off what is wanted."""

    def read(v: Any) -> Any:
        return v.val if isinstance(v, core.Literal) else values[v]

    for eqn in eqns:
        values.update(zip(eqn.outvars, rule(eqn, [read(v) for v in eqn.invars]), strict=True))
    return [read(v) for v in wanted]


_REVERSE_ONLY = (
    "The model holds a `jax.custom_vjp` function, which has derivatives of reverse mode only, but this goes by forward mode (Taylor "
    "models, products with tangent kernels): define it by `jax.custom_jvp`, which has both, or use `geometry.ntk`, "
    "`sharpness` and the network itself."
)


def check_forward(jaxpr: Any) -> None:
    """Refuse a forward derivative through a function that has none; JAX says so only when it is computed."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "custom_lin":
            raise TypeError(_REVERSE_ONLY)
        for called in inner(eqn):
            check_forward(opened(called))


@contextmanager
def forward_mode() -> Iterator[None]:
    """Says what to do where JAX meets a function without forward derivatives while it traces."""
    try:
        yield
    except (TypeError, NotImplementedError) as error:
        if "custom_vjp" in str(error) or "custom_lin" in str(error):
            raise TypeError(_REVERSE_ONLY) from error
        raise
