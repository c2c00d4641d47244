r"""The gradients of all outputs at a batch of examples, root by root, in the form that the routes ask for.

One forward pass keeps the left factors h of all products z = h · v. A zero ε is added to each z, and one backward pass for each
output gives ∂f_a/∂ε = g, the right factors, together with the plain gradients of what is on the `gradient` route. The pass is
written for one example and vmapped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdyn.geometry.kernel.plumbing import pull_back
from jaxdyn.geometry.kernel.program import Equation, Program, apply_equation, execute, statics
from jaxdyn.geometry.kernel.routes import Member, Route
from jaxdyn.geometry.kernel.uses import Factor, form, product, right_factor, sort_labels


def gradients(program: Program, routes: Sequence[Route], leaves: Sequence[Any], x: Any) -> dict[int, Any]:
    """The gradients at each example of a batch [n, *d].

    Returns:
        For each root: on the `outer` route, a pair of `Factor`s for each use, with arrays [n, S, …] and [n, k, S, …]; else the
        gradients [n, k, *shape]. Unused ones are missing.
    """
    known = statics(program, leaves)
    return jax.vmap(lambda example: _of_example(program, routes, leaves, known, example))(x)


def _of_example(
    program: Program, routes: Sequence[Route], leaves: Sequence[Any], known: Mapping[int, Any], example: Any
) -> dict[int, Any]:
    uses = {use.equation: use for route in routes for use, _ in route.members}
    direct = {route.root: known[route.root] for route in routes if route.kind == "gradient"}
    offsets = {
        use.output: jnp.zeros(program.shape(use.output), program.avals[use.output].dtype) for use in uses.values()
    }

    def outputs(offsets: Any, direct: Any) -> tuple[Any, Any]:
        lefts = {}

        def rule(equation: Equation, operands: Sequence[Any]) -> Sequence[Any]:
            use = uses.get(equation)
            if use is None:
                results = apply_equation(equation, operands)
                return [direct.get(out, result) for out, result in zip(equation.outvars, results, strict=True)]
            h, v = (operands[equation.invars.index(number)] for number in (use.operand, use.value))
            z, left = product(use, h, v)
            lefts[use.output] = (left, h)
            return [z + offsets[use.output]]

        values = execute(program, leaves, rule, {program.num_leaves: example, **direct})
        return values[program.output], lefts

    out, pull, lefts = jax.vjp(outputs, offsets, direct, has_aux=True)
    rights, found = jax.vmap(pull)(jnp.eye(out.shape[0], dtype=out.dtype))  # each [k, …]
    for route in routes:
        if route.kind == "outer":
            found[route.root] = tuple(
                _factors(program, known, member, lefts[member[0].output], rights[member[0].output])
                for member in route.members
            )
        elif route.kind == "formed":
            found[route.root] = _formed(program, route, leaves, known, lefts, rights)
    return dict(found)


def _factors(
    program: Program, known: Mapping[int, Any], member: Member, aside: tuple[Factor, Any], rights: Any
) -> tuple[Factor, Factor]:
    """Both factors at the root, the right one for all outputs."""
    (use, path), (left, h) = member, aside

    def of_output(g: Any) -> tuple[Factor, Factor]:
        first, second = pull_back(program, known, path, left, right_factor(use, g, h))
        return sort_labels(first), sort_labels(second)

    return jax.vmap(of_output, out_axes=(None, 0))(rights)


def _formed(
    program: Program, route: Route, leaves: Sequence[Any], known: Mapping[int, Any], lefts: Any, rights: Any
) -> Any:
    """The gradient of a root, multiplied out at each use and led back through the plumbing."""
    uses = [use for use, _ in route.members]
    values = sorted({use.value for use in uses})

    def used(root: Any) -> list[Any]:
        found = statics(program, leaves, {route.root: root})
        return [found[value] for value in values]

    def of_output(gs: Any) -> Any:
        formed: dict[int, Any] = {}
        for use in uses:
            left, h = lefts[use.output]
            one = form(use, left, right_factor(use, gs[use.output], h), program.shape(use.value))
            formed[use.value] = formed[use.value] + one if use.value in formed else one
        if values == [route.root]:
            return formed[route.root]
        primals, back = jax.vjp(used, known[route.root])
        (gradient,) = back([formed[v].astype(primal.dtype) for v, primal in zip(values, primals, strict=True)])
        return gradient

    return jax.vmap(of_output)({use.output: rights[use.output] for use in uses})
