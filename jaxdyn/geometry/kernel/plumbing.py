r"""From a parameter leaf to the value that is used, and the way back for gradients in factored form.

Between a leaf w and its use lies plumbing that does not see the example: scalings, casts, reshapes, transposes, slices … `linear_paths`
finds the linear ones, path by path. A gradient Σ_s h_s ⊗ g_s with respect to the used value goes back along a path without being
multiplied out, as long as each step acts on the axes of one factor only (a reshape that mixes the axes of both does not). Everything
else is left to automatic differentiation; see `routes`. The steps are in `linear`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jaxdyn.geometry.kernel.linear import LINEAR, At, Step, regroup
from jaxdyn.geometry.kernel.program import Equation, Program
from jaxdyn.geometry.kernel.uses import Factor

_MANY = 16  # paths from one leaf to one value; beyond, the value counts as nonlinear


@dataclass(frozen=True)
class Split:
    """The last step of a grouped convolution: the output channels apart by group."""

    before: tuple[int, ...]
    after: tuple[int, ...]


Path = tuple[Step | Split, ...]
Views = Mapping[int, Mapping[int, tuple[Path, ...] | None]]


def linear_paths(program: Program) -> Views:
    """For each value without the example and each leaf in it: the linear paths between them, None if it is not linear."""
    found: dict[int, dict[int, tuple[Path, ...] | None]] = {root: {root: ((),)} for root in program.roots}
    for equation in program.equations:
        for result, value in enumerate(equation.outvars):
            if value not in program.varying and program.leaves[value] and value not in found:
                found[value] = {leaf: _paths(program, found, equation, result, leaf) for leaf in program.leaves[value]}
    return found


def is_isometric(step: Step | Split) -> bool:
    """Whether the step back keeps inner products of gradients."""
    return isinstance(step, Split) or LINEAR[step.equation.name].is_isometric


def pull_back(
    program: Program, values: Mapping[int, Any], path: Path, left: Factor, right: Factor
) -> tuple[Factor, Factor]:
    """The factors of the gradient at the beginning of a path (of `linear_paths`, or a tail of one), from those at its end.

    Raises:
        NotSeparableError: if a step mixes the axes of both.
    """
    pair = (left, right)
    for step in reversed(path):
        if isinstance(step, Split):
            pair = regroup(pair, step.before, step.after)
        else:
            equation = step.equation
            before, after = program.shape(equation.invars[step.operand]), program.shape(equation.outvars[step.result])
            pair = LINEAR[equation.name].back(At(step, before, after, program, values), pair)
    return pair


def _paths(program: Program, found: Views, equation: Equation, result: int, leaf: int) -> tuple[Path, ...] | None:
    carriers = [i for i, v in enumerate(equation.invars) if leaf in program.leaves[v]]
    rule, aval = LINEAR.get(equation.name), program.avals[equation.outvars[result]]
    if rule is None or not rule.carries(carriers) or not jnp.issubdtype(aval.dtype, jnp.floating):
        return None
    if rule.is_elementwise and any(program.shape(equation.invars[i]) != aval.shape for i in carriers):
        return None
    paths: list[Path] = []
    for operand in carriers:
        before = found[equation.invars[operand]][leaf]
        if before is None:
            return None
        paths += [(*path, Step(equation, operand, result)) for path in before]
    return tuple(paths) if len(paths) <= _MANY else None
