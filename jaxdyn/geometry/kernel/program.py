"""The function of one example as a flat list of equations, and what every value in it depends on.

`trace` turns `apply` into the jaxpr of `x -> apply(params, x[None])[0]` and flattens it: nested calls that a parameter enters are
opened (`inlining`), equal equations are merged (nested derivatives repeat themselves), dead ones dropped. Every value is a number.
For each it is known whether it depends on the example, and on which parameter leaves.

A leaf that is only cut into pieces that do not overlap (a flat vector of all parameters, layers stacked in one array) counts as its
pieces: their gradients have no cross terms. The *roots* of a program are its floating leaves, or their pieces.

Calls with a derivative of their own (`custom_jvp`, `custom_vjp`) stay whole: their rule is part of the function.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxdyn._jaxpr import Rule, bind, evaluate, hashed, scalar
from jaxdyn.geometry.kernel.inlining import INLINED


@dataclass(frozen=True, eq=False)
class Equation:
    """One equation of a flat program.

    Attributes:
        source: the jaxpr equation it comes from, with the primitive and its parameters.
        invars: the numbers of its operands.
        outvars: the numbers of its results.
    """

    source: Any
    invars: tuple[int, ...]
    outvars: tuple[int, ...]

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
    """The flat program of one example; of parameters and inputs [n, *d] only shapes and dtypes matter."""
    leaves, structure = jax.tree.flatten(params)
    kinds = [jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]
    example = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)

    def one(values: Any, example: Any) -> Any:
        return apply(jax.tree.unflatten(structure, values), example[None])[0]

    closed = jax.make_jaxpr(one)(kinds, example)
    flat = _Flat(kinds, example)
    (output,) = flat.inline(closed.jaxpr, [flat.constant(c) for c in closed.consts], list(range(len(kinds) + 1)))
    return flat.program(output)


def apply_equation(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    """The results of one equation."""
    return bind(equation.source, operands)


def execute(
    program: Program,
    leaves: Sequence[Any],
    rule: Rule = apply_equation,
    given: Mapping[int, Any] | None = None,
    equations: Sequence[Equation] | None = None,
) -> dict[int, Any]:
    """All values of a program, or those of some of its equations.

    `given` are further values known beforehand, such as the example, or parameters and constants replaced.
    """
    values: dict[int, Any] = {**dict(enumerate(leaves)), **program.constants, **(given or {})}
    evaluate(program.equations if equations is None else equations, values, (), rule)
    return values


def statics(program: Program, leaves: Sequence[Any], replaced: Mapping[int, Any] | None = None) -> dict[int, Any]:
    """All values that do not depend on the example, some roots perhaps replaced."""
    replaced = replaced or {}

    def rule(equation: Equation, operands: Sequence[Any]) -> list[Any]:
        results = apply_equation(equation, operands)
        return [replaced.get(out, result) for out, result in zip(equation.outvars, results, strict=True)]

    fixed = [equation for equation in program.equations if program.varying.isdisjoint(equation.outvars)]
    return execute(program, leaves, rule, replaced, fixed)


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
        self.platforms: dict[int, Any] = {}  # what the index of a branch stands for

    def program(self, output: int) -> Program:
        """The finished program, without dead equations."""
        alive, kept = {output}, []
        for equation in reversed(self.equations):
            if alive.intersection(equation.outvars):
                alive.update(equation.invars)
                kept.append(equation)
        equations = tuple(reversed(kept))
        producers = {out: equation for equation in equations for out in equation.outvars}
        roots = tuple(
            root for leaf in range(self.num_leaves) if self.leaves[leaf] for root in _pieces(leaf, equations, output)
        )
        leaves = {number: frozenset({number} if number in roots else ()) for number in self.avals}
        for equation in equations:
            reached: frozenset[int] = frozenset().union(*(leaves[v] for v in equation.invars))
            leaves.update((out, leaves[out] or reached) for out in equation.outvars)
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
        key: Any = scalar(value) or ("constant", id(value))
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
        inlined = None
        if leaves and source.primitive.name in INLINED:
            platforms = self.platforms.get(inputs[0])
            inlined = INLINED[source.primitive.name](source, [self.avals[v] for v in inputs], platforms)
        if inlined is not None:
            consts = [self.constant(c) for c in inlined.consts]
            return self.inline(inlined.jaxpr, consts, inputs[len(inputs) - len(inlined.jaxpr.invars) :])
        params = None if source.effects else hashed(source.params)
        key = (source.primitive.name, inputs, params)  # of equal equations
        if params is not None and key in self.known:
            return tuple(self.known[key])
        is_varying = any(v in self.varying for v in inputs)
        outputs = tuple(self.new(var.aval, leaves, is_varying=is_varying) for var in source.outvars)
        self.equations.append(Equation(source, inputs, outputs))
        if source.primitive.name == "platform_index":
            self.platforms[outputs[0]] = source.params["platforms"]
        if params is not None:
            self.known[key] = outputs
        return outputs


def _pieces(leaf: int, equations: Sequence[Equation], output: int) -> tuple[int, ...]:
    """The leaf, or the values that it is cut into if nothing else happens to it and they do not overlap."""
    cuts: dict[int, Any] = {}
    for equation in equations:
        if leaf in equation.invars:
            cuts.update((out, window(equation, result)) for result, out in enumerate(equation.outvars))
    boxes = list(cuts.values())
    is_cut = None not in boxes and all(_is_apart(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    return tuple(cuts) if cuts and is_cut and leaf != output else (leaf,)


def _is_apart(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]]) -> bool:
    return any(
        stop_a <= start_b or stop_b <= start_a for (start_a, stop_a), (start_b, stop_b) in zip(a, b, strict=True)
    )
