r"""Average gradient outer products: which directions of its input a function, or a layer, looks at.

    G(f) = 1/n Σ_j Σ_a ∇_x f_a(x_j) ∇_x f_a(x_j)ᵀ ∈ R^{d×d},

gradients with respect to the *input*, averaged over examples and summed over outputs. For a layer z = h W (or a convolution)
the input is what the layer reads, and the gradient is the one that reaches h through this layer:
∂f/∂h = W ∂f/∂z, so G = W S Wᵀ with S = 1/n Σ ∂f/∂z ∂f/∂zᵀ. The neural feature matrix is W Wᵀ, and the neural feature
ansatz says that training makes it proportional to a power of G. Both are [fan_in, fan_in].

Not a kernel (`geometry.ntk` takes gradients with respect to the weights). Comparing two of these is `geometry.alignment`.

Cost: a backward pass for each output over all examples, without weight gradients, and one d × nk × d product. Streamed in blocks of
examples.

References:
    A. Radhakrishnan, D. Beaglehole, P. Pandit, M. Belkin, arXiv 2212.13881. N. Mallinar et al., ICML 2025, Def. 2.1.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn._typing import Apply, Params
from jaxdyn.geometry.kernel.independence import check
from jaxdyn.geometry.kernel.program import Equation, Program, apply_equation, execute, statics, trace
from jaxdyn.geometry.kernel.uses import PRODUCTS, Use, find
from jaxdyn.geometry.operators import paths

Layer = str | Sequence[Any]
"""The path of a parameter leaf, `"dense_1/weight"` or `("dense_1", "weight")`."""

MEMORY = 2**28
"""Bytes that the gradients of a block of examples may take, unless told otherwise."""


def agop(f: Callable[[Any], Any], x: Float[Array, "n ..."], *, memory: int = MEMORY) -> Float[Array, "d d"]:
    """The average gradient outer product of f with respect to its input.

    Args:
        f: a function `x: [n, *d] -> [n, k]` whose examples do not interact, such as `lambda x: apply(params, x)`.
        x: inputs [n, *d]; `d` below is the size of one.
        memory: bytes for the gradients of a block of examples.

    Returns:
        G, [d, d]: mean over examples, sum over outputs.

    Raises:
        ValueError: for an f whose output is not real or not [n, k] or whose examples interact, or no example.

    Example:
        >>> agop(lambda x: x[:, :1] * x[:, 1:2], jnp.array([[1.0, 2.0, 3.0]])).tolist()  # ∇ = (2, 1, 0)
        [[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    d = math.prod(x.shape[1:])
    k = _num_outputs(f, x)

    def block(examples: Any, is_real: Any) -> Any:
        rows = jnp.where(is_real[:, None, None], _input_gradients(f, examples), 0.0).reshape(-1, d)
        return rows.T @ rows

    with jax.default_matmul_precision("highest"):
        return _streamed(block, x, per_example=2 * k * d * x.dtype.itemsize, memory=memory) / x.shape[0]


def agop_factor(f: Callable[[Any], Any], x: Float[Array, "n ..."]) -> Float[Array, "r d"]:
    """A factor F of the average gradient outer product, G = Fᵀ F, when d × d is too large: the gradients / √n.

    Args:
        f: as in `agop`.
        x: inputs [n, *d].

    Returns:
        F, [n k, d], for `alignment.factor_cosine`.

    Raises:
        ValueError: for an f whose output is not real or not [n, k] or whose examples interact, or no example.

    Example:
        >>> agop_factor(lambda x: x[:, :1] * x[:, 1:2], jnp.array([[1.0, 2.0, 3.0]])).tolist()
        [[2.0, 1.0, 0.0]]
    """
    _num_outputs(f, x)
    with jax.default_matmul_precision("highest"):
        gradients = _input_gradients(f, x)
    return gradients.reshape(-1, gradients.shape[-1]) / jnp.sqrt(jnp.asarray(x.shape[0], gradients.dtype))


def layer_agop(
    apply: Apply, params: Params, x: Float[Array, "n ..."], *, layer: Layer, memory: int = MEMORY
) -> Float[Array, "fan_in fan_in"]:
    """The average gradient outer product with respect to the input of a layer.

    The layer is named by its weight: the leaf is followed to the matrix product or convolution that it enters. A layer that reads
    several positions of an example (a convolution its patches, attention its tokens) has them summed, and so has a
    weight that is used several times. In a network with skips, what goes around the layer does not count.

    Args:
        apply: the function, `(params, x: [n, *d]) -> [n, k]`; its examples must not interact.
        params: where.
        x: inputs [n, *d].
        layer: path of the weight, `"dense_1/weight"` or `("dense_1", "weight")`.
        memory: bytes for the gradients of a block of examples.

    Returns:
        G, [fan_in, fan_in]: mean over examples, sum over outputs and positions. The rows of a convolution's patch are ordered
        (height, width, channel), like the leading axes of a [height, width, in, out] weight.

    Raises:
        ValueError: for a path that is no leaf, or whose leaf enters no plain product (a bias, a grouped convolution); for an `apply` as
            in `agop`.

    Example:
        >>> params = {"first": 2 * jnp.eye(2), "second": jnp.array([[3.0], [0.0]])}
        >>> apply = lambda w, x: (x @ w["first"]) @ w["second"]
        >>> layer_agop(apply, params, jnp.ones((4, 2)), layer="second").tolist()
        [[9.0, 0.0], [0.0, 0.0]]
    """
    leaf, name = _leaf(params, layer)
    k = check(apply, params, x)
    program = trace(apply, params, x)
    leaves = jax.tree.leaves(params)
    uses = _uses(program, leaf)
    if not uses:
        found = [path for index, path in enumerate(paths(params)) if _uses(program, index)]
        raise ValueError(
            f"The leaf {name!r} enters no matrix product or ungrouped convolution with the inputs, so it has no layer input. "
            f"Leaves that do: {', '.join(found) or 'none'}."
        )

    def outputs(offsets: Any, example: Any) -> Any:
        def rule(equation: Equation, operands: Any) -> Any:
            first, *rest = apply_equation(equation, operands)
            return [first + offsets[equation.outvars[0]] if equation.outvars[0] in offsets else first, *rest]

        return execute(program, leaves, rule, {program.num_leaves: example})[program.output]

    def cotangents(example: Any) -> Any:
        zeros = {use: jnp.zeros(program.shape(use), program.avals[use].dtype) for use in uses}
        result, pull = jax.vjp(lambda offsets: outputs(offsets, example), zeros)
        return jax.vmap(lambda row: pull(row)[0])(jnp.eye(k, dtype=result.dtype))  # {use: [k, *z]}

    def block(examples: Any, is_real: Any) -> Any:
        sums = {}
        for use, g in jax.vmap(cotangents)(examples).items():
            rows = jnp.where(is_real.reshape(-1, *[1] * (g.ndim - 1)), g, 0.0)
            rows = _positions(uses[use], rows.reshape(-1, *g.shape[2:]))
            sums[use] = rows.T @ rows  # [fan_out, fan_out]
        return sums

    size = sum(math.prod(program.shape(use)) for use in uses) * k * 2 * x.dtype.itemsize
    with jax.default_matmul_precision("highest"):
        sums = _streamed(block, x, per_example=size, memory=memory)
        known = statics(program, leaves)
        total: Any = 0.0
        for number, use in uses.items():
            weight = _matrix(use, known[use.value])  # [fan_in, fan_out]
            total = total + weight @ sums[number] @ weight.T / x.shape[0]
        return total


def neural_feature_matrix(
    params: Params, *, layer: Layer, params0: Params | None = None, num_output_axes: int = 1
) -> Float[Array, "fan_in fan_in"]:
    """The neural feature matrix W Wᵀ of a layer with weight [*fan_in, *fan_out].

    In the literature's layout [fan_out, fan_in] it is written WᵀW.

    Args:
        params: parameters.
        layer: path of the weight.
        params0: the anchor; given, W − W0 takes the place of W.
        num_output_axes: how many trailing axes of the leaf are outputs: 1 for dense layers and convolutions; 2 for the
            [in, heads, features] projections of flax attention.

    Returns:
        [fan_in, fan_in], of which `layer_agop` is the counterpart in the neural feature ansatz.

    Raises:
        ValueError: for a path that is no leaf, or a leaf with too few axes.

    Example:
        >>> neural_feature_matrix({"w": jnp.array([[1.0], [2.0]])}, layer="w").tolist()
        [[1.0, 2.0], [2.0, 4.0]]
    """
    index, name = _leaf(params, layer)
    weight = jnp.asarray(jax.tree.leaves(params)[index])
    if params0 is not None:
        weight = weight - jax.tree.leaves(params0)[index]
    if not 1 <= num_output_axes < weight.ndim:
        raise ValueError(
            f"The leaf {name!r} has shape {weight.shape}; a weight has at least one axis of inputs before its "
            f"{num_output_axes} of outputs."
        )
    matrix = weight.reshape(math.prod(weight.shape[:-num_output_axes]), -1)
    with jax.default_matmul_precision("highest"):
        return matrix @ matrix.T


def _matrix(use: Use, value: Any) -> Any:
    """A weight as [fan_in, fan_out]."""
    rows = sorted(use.left) if use.equation.name == "dot_general" else use.left
    fan_in = math.prod(value.shape[axis] for axis in rows)
    return jnp.transpose(value, (*rows, *use.right)).reshape(fan_in, -1)


def _positions(use: Use, rows: Any) -> Any:
    """Cotangents [rows, *z] as [rows · positions, fan_out]."""
    rows = jax.vmap(lambda g: PRODUCTS[use.equation.name].positions_first(use, g, None))(rows)
    return rows.reshape(-1, math.prod(use.shape[axis] for axis in use.right))


def _uses(program: Program, leaf: int) -> dict[int, Use]:
    """The plain products of an example's values with something made of the leaf alone, by the number of their result."""
    made_of = {leaf}
    found = {}
    for equation in program.equations:
        if not any(out in program.varying for out in equation.outvars):
            if made_of.intersection(equation.invars):
                made_of.update(equation.outvars)
            continue
        sides = [side for side, value in enumerate(equation.invars[:2]) if value in made_of]
        use = find(program, equation, sides[0]) if len(sides) == 1 and equation.name != "gather" else None
        if use is not None and not set(use.left) & set(use.right):  # neither batched nor grouped
            found[use.output] = use
    return found


def _leaf(params: Any, layer: Layer) -> tuple[int, str]:
    name = layer.strip("/") if isinstance(layer, str) else "/".join(str(key) for key in layer)
    names = paths(params)
    if name not in names:
        raise ValueError(f"`layer={name!r}` is not the path of a parameter leaf; these are: {', '.join(names)}.")
    return names.index(name), name


def _num_outputs(f: Callable[[Any], Any], x: Any) -> int:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"`x` must be real numbers to have gradients, but is {x.dtype}; convert it, or differentiate after the embedding."
        )
    return check(lambda _, inputs: f(inputs), (), x)


def _input_gradients(f: Callable[[Any], Any], x: Any) -> Any:
    """∇_x f_a(x_j), [n, k, d]: one backward pass for each output serves all examples, which do not interact."""
    result, pull = jax.vjp(f, x)
    n, k = result.shape
    if k == 1:
        return pull(jnp.ones_like(result))[0].reshape(1, n, -1).swapaxes(0, 1)
    chosen = jnp.broadcast_to(jnp.eye(k, dtype=result.dtype)[:, None, :], (k, n, k))
    return jax.vmap(lambda row: pull(row)[0])(chosen).reshape(k, n, -1).swapaxes(0, 1)


def _streamed(block: Callable[[Any, Any], Any], x: Any, *, per_example: int, memory: int) -> Any:
    """The sum of `block(examples, is_real)` over blocks of examples; the last is filled up with copies that are not real."""
    n = x.shape[0]
    num_blocks = -(-n // max(1, min(n, memory // per_example)))
    size = -(-n // num_blocks)
    if num_blocks == 1:
        return block(x, jnp.ones(n, bool))
    filled = jnp.concatenate([x, jnp.broadcast_to(x[:1], (num_blocks * size - n, *x.shape[1:]))])
    blocks = (
        filled.reshape(num_blocks, size, *x.shape[1:]),
        (jnp.arange(num_blocks * size) < n).reshape(num_blocks, size),
    )
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(block, *(b[0] for b in blocks)))

    def add(total: Any, one: Any) -> Any:
        return jax.tree.map(jnp.add, total, block(*one)), None

    return jax.lax.scan(add, zeros, blocks)[0]
