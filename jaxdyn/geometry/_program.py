"""The function of one example as a flat list of equations, and what every value in it depends on.

`trace` turns `apply` into the jaxpr of `x -> apply(params, x[None])[0]` and flattens it: nested calls that a parameter enters are
inlined (`jit`, `remat`, short scans, and the branch of a `lax.platform_dependent` that belongs to the default platform), equal
equations are merged (nested derivatives repeat themselves), dead ones dropped. Every value is a number. For each it is known
whether it depends on the example, and on which parameter leaves.

A leaf that is only cut into pieces that do not overlap (a flat vector of all parameters, layers stacked in one array) counts as its
pieces: their gradients have no cross terms. The *roots* of a program are its floating leaves, or their pieces.

Calls with a derivative of their own (`custom_jvp`, `custom_vjp`) stay whole: their rule is part of the function.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxdyn._jaxpr import bind

_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2")
_UNROLLED = 1000  # equations that an unrolled scan may add


@dataclass(frozen=True, eq=False)
class Equation:
    """One equation of a flat program.

    Attributes:
        source: the jaxpr equation it comes from, with the primitive and its parameters.
        inputs: the numbers of its operands.
        outputs: the numbers of its results.
    """

    source: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the primitive."""
        return str(self.source.primitive.name)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the primitive."""
        return dict(self.source.params)


@dataclass(frozen=True, eq=False)
class Program:
    """A flat program of one example. Values 0 … num_leaves - 1 are the parameter leaves, `num_leaves` is the example.

    Attributes:
        equations: in order of execution.
        num_leaves: number of parameter leaves.
        output: the number of the result, of shape [k].
        avals: shape and dtype of each value.
        constants: the values known beforehand.
        roots: the values whose gradients make the kernel.
        leaves: the roots that each value depends on.
        varying: the values that depend on the example.
        producers: the equation that computes each value; parameters, constants and the example have none.
    """

    equations: tuple[Equation, ...]
    num_leaves: int
    output: int
    avals: dict[int, Any]
    constants: dict[int, Any]
    roots: tuple[int, ...]
    leaves: dict[int, frozenset[int]]
    varying: frozenset[int]
    producers: dict[int, Equation]

    def shape(self, value: int) -> tuple[int, ...]:
        """The shape of a value."""
        return tuple(self.avals[value].shape)


def trace(apply: Any, params: Any, x: Any) -> Program:
    """The flat program of one example.

    Args:
        apply: `(params, x: [n, *d]) -> [n, k]`.
        params: parameters; only shapes and dtypes matter.
        x: inputs [n, *d]; only the shape of one example matters.
    """
    leaves, structure = jax.tree.flatten(params)
    kinds = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
    example = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)

    def one(values: Any, example: Any) -> Any:
        return apply(jax.tree.unflatten(structure, values), example[None])[0]

    closed = jax.make_jaxpr(one)(kinds, example)
    flat = _Flat(kinds, example)
    (output,) = flat.inline(closed.jaxpr, [flat.constant(c) for c in closed.consts], list(range(len(kinds) + 1)))
    return flat.program(output)


def scan_parts(scan: Any) -> tuple[int, int]:
    """How many constants and how many carried values lead the operands of a scan; the rest has one axis more than in the body."""
    body = getattr(scan.params["jaxpr"], "jaxpr", scan.params["jaxpr"])
    num_xs = sum(v.aval.ndim != w.aval.ndim for v, w in zip(scan.invars, body.invars, strict=True))
    num_ys = sum(v.aval.ndim != w.aval.ndim for v, w in zip(scan.outvars, body.outvars, strict=True))
    num_carry = len(scan.outvars) - num_ys
    return len(scan.invars) - num_xs - num_carry, num_carry


def statics(program: Program, leaves: Sequence[Any], replaced: Mapping[int, Any] | None = None) -> dict[int, Any]:
    """All values that do not depend on the example, some roots perhaps replaced."""
    replaced = replaced or {}
    values: dict[int, Any] = {**dict(enumerate(leaves)), **program.constants, **replaced}
    for equation in program.equations:
        if not any(out in program.varying for out in equation.outputs):
            results = bind(equation.source, [values[v] for v in equation.inputs])
            values.update(zip(equation.outputs, results, strict=True))
            values.update((out, replaced[out]) for out in equation.outputs if out in replaced)
    return values


def window(equation: Equation, result: int) -> tuple[tuple[int, int], ...] | None:
    """The box that a slice or a split cuts out of its operand, as (start, stop) for each axis; None for other equations."""
    parameters = equation.params
    if equation.name == "slice":
        return tuple(zip(parameters["start_indices"], parameters["limit_indices"], strict=True))
    if equation.name == "split":
        start = sum(parameters["sizes"][:result])
        part = (start, start + parameters["sizes"][result])
        return tuple(
            part if axis == parameters["axis"] else (0, size)
            for axis, size in enumerate(equation.source.invars[0].aval.shape)
        )
    return None


class _Flat:
    """A program under construction."""

    def __init__(self, kinds: Sequence[Any], example: Any) -> None:
        self.num_leaves = len(kinds)
        self.avals: dict[int, Any] = dict(enumerate([*kinds, example]))
        self.leaves: dict[int, frozenset[int]] = {
            i: frozenset({i}) if jnp.issubdtype(kind.dtype, jnp.floating) else frozenset()
            for i, kind in enumerate(kinds)
        }
        self.leaves[self.num_leaves] = frozenset()
        self.varying = {self.num_leaves}
        self.constants: dict[int, Any] = {}
        self.equations: list[Equation] = []
        self.known: dict[Any, Any] = {}

    def program(self, output: int) -> Program:
        """The finished program, without dead equations."""
        alive, kept = {output}, []
        for equation in reversed(self.equations):
            if alive.intersection(equation.outputs):
                alive.update(equation.inputs)
                kept.append(equation)
        equations = tuple(reversed(kept))
        producers = {out: equation for equation in equations for out in equation.outputs}
        roots = tuple(
            root for leaf in range(self.num_leaves) if self.leaves[leaf] for root in _pieces(leaf, equations, output)
        )
        leaves = {number: frozenset({number} if number in roots else ()) for number in self.avals}
        for equation in equations:
            reached: frozenset[int] = frozenset().union(*(leaves[v] for v in equation.inputs))
            leaves.update((out, leaves[out] or reached) for out in equation.outputs)
        varying = frozenset(self.varying)
        return Program(
            equations, self.num_leaves, output, self.avals, self.constants, roots, leaves, varying, producers
        )

    def new(self, aval: Any, leaves: frozenset[int], *, is_varying: bool) -> int:
        number = len(self.avals)
        self.avals[number] = aval
        self.leaves[number] = leaves
        if is_varying:
            self.varying.add(number)
        return number

    def constant(self, value: Any) -> int:
        """The number of a constant; equal scalars share one."""
        key: Any = ("constant", id(value))
        if isinstance(value, (bool, int, float, complex, np.generic, np.ndarray)) and np.ndim(value) == 0:
            key = ("scalar", type(value).__name__, str(np.asarray(value).dtype), np.asarray(value).tobytes())
        if key not in self.known:
            number = self.new(jax.typeof(value), frozenset(), is_varying=False)
            self.constants[number] = value
            self.known[key] = number
        return int(self.known[key])

    def inline(self, jaxpr: Any, consts: Sequence[int], args: Sequence[int]) -> list[int]:
        """Append the equations of a jaxpr; return the numbers of its results."""
        numbers: dict[Any, int] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def read(atom: Any) -> int:
            return self.constant(atom.val) if isinstance(atom, core.Literal) else numbers[atom]

        for source in jaxpr.eqns:
            outputs = self.append(source, tuple(read(atom) for atom in source.invars))
            numbers.update(zip(source.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def append(self, source: Any, inputs: tuple[int, ...]) -> Sequence[int]:
        """Append one equation, inlined where parameters enter a call."""
        leaves = frozenset().union(*(self.leaves[v] for v in inputs))
        if leaves:
            inner = self._body(source, inputs)
            if inner is not None:
                closed, args = inner
                return self.inline(closed.jaxpr, [self.constant(c) for c in closed.consts], args)
        key = _key(source, inputs)
        if key is not None and key in self.known:
            return tuple(self.known[key])
        is_varying = any(v in self.varying for v in inputs)
        outputs = tuple(self.new(var.aval, leaves, is_varying=is_varying) for var in source.outvars)
        self.equations.append(Equation(source, inputs, outputs))
        if key is not None:
            self.known[key] = outputs
        return outputs

    def _body(self, source: Any, inputs: tuple[int, ...]) -> tuple[Any, Sequence[int]] | None:
        name, params = source.primitive.name, source.params
        if name in _CALLS:
            body = params.get("jaxpr", params.get("call_jaxpr"))
            return (body if hasattr(body, "consts") else core.ClosedJaxpr(body, ()), inputs)
        if name == "reshape" and params["dimensions"] is not None:  # two steps, of which all rules know
            order, sizes = params["dimensions"], params["new_sizes"]
            return jax.make_jaxpr(lambda v: v.transpose(order).reshape(sizes))(self.avals[inputs[0]]), inputs
        if name == "cond":
            platforms = self._platforms(inputs[0])
            if platforms is not None:
                return params["branches"][_branch(platforms, params["branches"])], inputs[1:]
        if name == "scan" and (params["length"] - 1) * len(params["jaxpr"].jaxpr.eqns) <= _UNROLLED:
            return jax.make_jaxpr(_unrolled(source))(*(self.avals[v] for v in inputs)), inputs
        return None

    def _platforms(self, index: int) -> Any:
        for equation in reversed(self.equations):
            if index in equation.outputs:
                return equation.params["platforms"] if equation.name == "platform_index" else None
        return None


def _pieces(leaf: int, equations: Sequence[Equation], output: int) -> tuple[int, ...]:
    """The leaf, or the values that it is cut into if nothing else happens to it and they do not overlap."""
    cuts: dict[int, Any] = {}
    for equation in equations:
        if leaf in equation.inputs:
            cuts.update((out, window(equation, result)) for result, out in enumerate(equation.outputs))
    boxes = list(cuts.values())
    is_cut = None not in boxes and all(_is_apart(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    return tuple(cuts) if cuts and is_cut and leaf != output else (leaf,)


def _is_apart(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]]) -> bool:
    return any(
        stop_a <= start_b or stop_b <= start_a for (start_a, stop_a), (start_b, stop_b) in zip(a, b, strict=True)
    )


def _branch(platforms: Sequence[Any], branches: Sequence[Any]) -> int:
    """Which branch to read: that of the default platform, or the generic one where the former is a loop. All compute the same function."""
    here = jax.default_backend()
    names = {here, "cuda", "rocm"} if here == "gpu" else {here}
    own = next((i for i, group in enumerate(platforms) if group is None or names.intersection(group)), 0)
    is_loop = any(equation.primitive.name in ("scan", "while") for equation in branches[own].jaxpr.eqns)
    return next((i for i, group in enumerate(platforms) if group is None), own) if is_loop else own


def _unrolled(scan: Any) -> Callable[..., Any]:
    """The function of a scan without the scan."""
    body, length = core.jaxpr_as_fun(scan.params["jaxpr"]), scan.params["length"]
    num_consts, num_carry = scan_parts(scan)
    order = list(reversed(range(length)) if scan.params["reverse"] else range(length))

    def function(*args: Any) -> Any:
        consts, carry, xs = (
            args[:num_consts],
            list(args[num_consts : num_consts + num_carry]),
            args[num_consts + num_carry :],
        )
        collected: dict[int, Any] = {}
        for step in order:
            results = body(*consts, *carry, *(jax.lax.index_in_dim(x, step, keepdims=False) for x in xs))
            carry, collected[step] = list(results[:num_carry]), results[num_carry:]
        columns = zip(*(collected[step] for step in range(length)), strict=True)
        return [*carry, *(jnp.stack(column) for column in columns)]

    return function


def _key(source: Any, inputs: tuple[int, ...]) -> Any:
    """What equal equations have in common; None where equality cannot be told."""
    if source.effects:
        return None
    try:
        key = (source.primitive.name, inputs, tuple(sorted(source.params.items(), key=lambda item: item[0])))
        hash(key)
    except TypeError:
        return None
    return key
