r"""The gradients of all outputs at a batch of examples, root by root, in the form that the routes ask for.

One forward pass keeps the left factors h of all products z = h · v. A zero ε is added to each z, and one backward pass for each
output gives ∂f_a/∂ε = g, the right factors, together with the plain gradients of what is on the `gradient` route. The pass is
written for one example and vmapped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdyn._jaxpr import bind
from jaxdyn.geometry import _plumbing, _uses
from jaxdyn.geometry._program import Program, statics
from jaxdyn.geometry._routes import Member, Route
from jaxdyn.geometry._uses import Factor


def gradients(program: Program, routes: Sequence[Route], leaves: Sequence[Any], x: Any) -> dict[int, Any]:
    """The gradients at each example of a batch.

    Args:
        program: the function of one example.
        routes: the route of each root.
        leaves: the parameters.
        x: examples [n, *d].

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
        values = {**dict(enumerate(leaves)), program.num_leaves: example, **program.constants, **direct}
        lefts = {}
        for equation in program.equations:
            use = uses.get(equation)
            if use is None:
                results = bind(equation.source, [values[v] for v in equation.inputs])
                values.update(zip(equation.outputs, results, strict=True))
                values.update((out, direct[out]) for out in equation.outputs if out in direct)
            else:
                h = values[use.operand]
                z, left = _uses.product(use, h, values[use.value])
                values[use.output] = z + offsets[use.output]
                lefts[use.output] = (left, h)
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
        first, second = _plumbing.pull_back(program, known, path, left, _uses.right_factor(use, g, h))
        return _uses.sort_labels(first), _uses.sort_labels(second)

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
            one = _uses.form(use, left, _uses.right_factor(use, gs[use.output], h), program.shape(use.value))
            formed[use.value] = formed[use.value] + one if use.value in formed else one
        if values == [route.root]:
            return formed[route.root]
        primals, back = jax.vjp(used, known[route.root])
        (gradient,) = back([formed[v].astype(primal.dtype) for v, primal in zip(values, primals, strict=True)])
        return gradient

    return jax.vmap(of_output)({use.output: rights[use.output] for use in uses})
