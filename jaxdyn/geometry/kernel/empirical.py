r"""The exact empirical tangent kernel of any function, at about the cost of one gradient.

    Θ[i, j, a, b] = Σ_p ∂f_a(x_i)/∂w_p · ∂f_b(x_j)/∂w_p

For a layer z = h W the gradient of an example is an outer product h ⊗ g, with g the cotangent of z, so

    Θ = Σ_layers (h hᵀ) ∘ (g gᵀ)

needs one backward pass over the batch for each output, not one for each example. This holds for any function that a jaxpr can say,
flax modules included; the docstring of the package follows one through all stations. A leaf that no rule covers gets its per-example
gradient from automatic differentiation. The result is exact on every route; `ntk_plan` says which ones were taken.

Call it inside `jax.jit`, as everything here: op by op it is slow.

"Derivative" is what JAX's automatic differentiation returns, custom rules included. Examples must not interact: batch statistics
are refused (`independence`). Sums run in at least float32. This is neither the infinite-width kernel (`model.kernel`) nor an
approximation by sampling.

References:
    Jacot, Gabriel, Hongler, arXiv 1806.07572 (the kernel). Novak, Sohl-Dickstein, Schoenholz, arXiv 2206.08720 (what it costs).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jaxdyn._typing import Apply, Params
from jaxdyn.geometry.kernel.contraction import contract
from jaxdyn.geometry.kernel.gradients import gradients
from jaxdyn.geometry.kernel.independence import check
from jaxdyn.geometry.kernel.plan import LeafRoute, Plan
from jaxdyn.geometry.kernel.program import Program, trace, window
from jaxdyn.geometry.kernel.routes import Route, choose

_MEMORY = 2**30  # bytes, by default


def ntk(
    apply: Apply,
    params: Params,
    x1: Num[Array, "n1 ..."],
    x2: Num[Array, "n2 ..."] | None = None,
    *,
    memory: int | None = None,
) -> Float[Array, "n1 n2"]:
    """The empirical tangent kernel, averaged over outputs: (1/k) Σ_a Θ[i, j, a, a].

    Args:
        apply: `(params, x: [n, *d]) -> [n, k]`, pure; examples must not interact.
        params: any tree of parameters; other leaves than floating ones count as constants.
        x1: inputs [n1, *d].
        x2: inputs [n2, *d]; None means x1, and a symmetric result.
        memory: bytes that gradients and intermediates may take; above it, blocks of examples are streamed. None means 1 GiB.

    Returns:
        The kernel [n1, n2], in the dtype of the outputs or float32, whichever is wider.

    Raises:
        ValueError: if the outputs are not real or not [n, k], if examples interact, or if shapes or `memory` make no sense.

    Example:
        >>> import flax.linen as nn
        >>> x = jnp.ones((5, 3))
        >>> module = nn.Sequential([nn.Dense(8), nn.tanh, nn.Dense(1)])
        >>> params = module.init(jax.random.key(0), x)
        >>> ntk(module.apply, params, x).shape
        (5, 5)
    """
    return _kernel(apply, params, x1, x2, memory, is_whole=False)


def ntk_blocks(
    apply: Apply,
    params: Params,
    x1: Num[Array, "n1 ..."],
    x2: Num[Array, "n2 ..."] | None = None,
    *,
    memory: int | None = None,
) -> Float[Array, "n1 n2 k k"]:
    """The whole empirical tangent kernel Θ[i, j, a, b] = Σ_p ∂f_a(x_i)/∂w_p · ∂f_b(x_j)/∂w_p.

    Its top eigenvalue as a matrix (`geometry.as_matrix`) sets the critical learning rate when k > 1.

    Args:
        apply: as for `ntk`.
        params: as for `ntk`.
        x1: inputs [n1, *d].
        x2: inputs [n2, *d]; None means x1, and Θ[i, j, a, b] = Θ[j, i, b, a] to the last bit.
        memory: as for `ntk`.

    Returns:
        The kernel [n1, n2, k, k].

    Raises:
        ValueError: as for `ntk`.

    Example:
        >>> ntk_blocks(lambda w, x: x @ w, jnp.ones((2, 3)), jnp.ones((1, 2)))[0, 0].tolist()  # |x|² times the identity
        [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
    """
    return _kernel(apply, params, x1, x2, memory, is_whole=True)


def ntk_plan(apply: Apply, params: Params, x1: Any, x2: Any = None, *, memory: int | None = None) -> Plan:
    """The route that `ntk` takes for each parameter leaf, with its counted work. Nothing is computed.

    Args:
        apply: as for `ntk`.
        params: as for `ntk`; shapes and dtypes suffice (`jax.ShapeDtypeStruct`).
        x1: as for `ntk`; shape and dtype suffice.
        x2: as for `ntk`.
        memory: as for `ntk`.

    Returns:
        A `Plan`, readable when printed.

    Raises:
        ValueError: as for `ntk`.

    Example:
        >>> plan = ntk_plan(lambda p, x: x @ p["w"] + p["b"], {"w": jnp.ones((3, 2)), "b": jnp.ones((1, 2))}, jnp.ones((4, 3)))
        >>> [(leaf.path, leaf.route, leaf.equations) for leaf in plan.routes]
        [('b', 'gradient', '1 add'), ('w', 'outer', '1 dot_general')]
    """
    program, routes, (rows, columns, num_passes) = _prepare(apply, params, x1, x2, memory, is_whole=False)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    entries = tuple(
        LeafRoute(
            _name(program, route.root, names),
            program.shape(route.root),
            route.kind,
            route.equations,
            route.flops,
            route.held,
        )
        for route in routes
    )
    return Plan(entries, rows, columns, num_passes, program.shape(program.output)[0])


def _kernel(apply: Any, params: Any, x1: Any, x2: Any, memory: int | None, *, is_whole: bool) -> Any:
    with jax.default_matmul_precision("highest"):
        program, routes, (rows, columns, num_passes) = _prepare(apply, params, x1, x2, memory, is_whole=is_whole)
        leaves = jax.tree.leaves(params)
        dtype = jnp.promote_types(program.avals[program.output].dtype, jnp.float32)
        num_outputs = program.shape(program.output)[0]
        tail = (num_outputs, num_outputs) if is_whole else ()

        def block(first: Any, second: Any) -> Any:
            kernel = contract(first, second, dtype, is_whole=is_whole)
            return kernel if is_whole else kernel / num_outputs

        def passes(x: Any) -> Any:
            return gradients(program, routes, leaves, x)

        if not any(route.kind != "unused" for route in routes):
            return jnp.zeros((x1.shape[0], (x1 if x2 is None else x2).shape[0], *tail), dtype)
        if num_passes <= 2:
            first = passes(x1)
            kernel = _by_rows(block, first, first if x2 is None else passes(x2), rows, x1.shape[0])
        else:
            kernel = _by_tiles(block, passes, x1, x1 if x2 is None else x2, rows, columns)
        if x2 is not None:
            return kernel
        return (kernel + jnp.transpose(kernel, (1, 0, 3, 2) if is_whole else (1, 0))) / 2


def _by_rows(block: Any, first: Any, second: Any, rows: int, n1: int) -> Any:
    """All gradients at once, contracted some rows at a time."""
    if rows >= n1:
        return block(first, second)
    parts = jax.lax.map(lambda part: block(part, second), jax.tree.map(lambda leaf: _in_blocks(leaf, rows), first))
    return parts.reshape(-1, *parts.shape[2:])[:n1]


def _by_tiles(block: Any, passes: Any, x1: Any, x2: Any, rows: int, columns: int) -> Any:
    """Gradients made anew for each tile of the kernel."""
    blocks = _in_blocks(x2, columns)

    def band(examples: Any) -> Any:
        first = passes(examples)
        parts = jax.lax.map(lambda column: block(first, passes(column)), blocks)  # [blocks, rows, columns, …]
        parts = jnp.moveaxis(parts, 0, 1)
        return parts.reshape(parts.shape[0], -1, *parts.shape[3:])[:, : x2.shape[0]]

    bands = jax.lax.map(band, _in_blocks(x1, rows))
    return bands.reshape(-1, *bands.shape[2:])[: x1.shape[0]]


def _in_blocks(x: Any, size: int) -> Any:
    """Examples in blocks of equal size, the last one filled up with the first example."""
    missing = -x.shape[0] % size
    filled = jnp.concatenate([x, jnp.repeat(x[:1], missing, axis=0)]) if missing else x
    return filled.reshape(-1, size, *x.shape[1:])


def _prepare(apply: Any, params: Any, x1: Any, x2: Any, memory: int | None, *, is_whole: bool) -> Any:
    _validate(x1, x2, memory)
    n1, n2 = x1.shape[0], (x1 if x2 is None else x2).shape[0]
    check(apply, params, x1)
    program = trace(apply, params, x1)
    routes = choose(program, n1, n2, is_whole=is_whole)
    blocks = _blocks(program, routes, n1, n2, _MEMORY if memory is None else memory, is_symmetric=x2 is None)
    return program, routes, blocks


def _blocks(
    program: Program, routes: tuple[Route, ...], n1: int, n2: int, memory: int, *, is_symmetric: bool
) -> tuple[int, int, int]:
    """Examples in the rows and columns of a block within a budget, and how often a pass is made.

    Everything at once, or rows of one set of gradients, or tiles.
    """
    results = [v for equation in program.equations for v in equation.outvars if v in program.varying]
    activations = sum(math.prod(program.shape(v)) * program.avals[v].dtype.itemsize for v in results)
    held = sum(route.held for route in routes) + activations
    paired = max((route.paired for route in routes), default=0.0)
    num_examples = n1 if is_symmetric else n1 + n2
    if num_examples * held <= memory / 2:
        rows = max(1, min(n1, int(memory / 2 / max(1.0, n2 * paired))))
        return rows, n2, 1 if is_symmetric else 2
    side = max(1, int((math.sqrt(held**2 + paired * memory) - held) / paired) if paired else int(memory / 2 / held))
    rows, columns = min(n1, side), min(n2, side)
    num_rows = -(-n1 // rows)
    return rows, columns, num_rows + num_rows * -(-n2 // columns)


def _validate(x1: Any, x2: Any, memory: int | None) -> None:
    if x2 is not None and (len(x2.shape) == 0 or x2.shape[0] == 0 or tuple(x1.shape[1:]) != tuple(x2.shape[1:])):
        shapes = f"{tuple(x1.shape)} and {tuple(x2.shape)}"
        raise ValueError(f"`x1` and `x2` hold at least one example each, [n, *d] of one shape, but are {shapes}.")
    if memory is not None and memory <= 0:
        raise ValueError(f"`memory` is a positive number of bytes (or None for 1 GiB), but is {memory}.")


def _name(program: Program, root: int, names: list[str]) -> str:
    """The path of a leaf, with the box of a piece."""
    if root < program.num_leaves:
        return names[root]
    equation = program.producers[root]
    box = window(equation, equation.outvars.index(root)) or ()
    return f"{names[equation.invars[0]]}[{', '.join(f'{start}:{stop}' for start, stop in box)}]"
