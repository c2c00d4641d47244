r"""Multilinearity in blocks of parameters: the part of f that is linear in every block, and what is left within one.

The parameters are cut into B blocks, w = (w_1, …, w_B), and a displacement d into d_1, …, d_B likewise. With Δ_b f(w) = f(w + d_b) − f(w),

    mixed difference   Δ_1 ⋯ Δ_B f (w) = Σ_{S ⊆ {1…B}} (−1)^{B−|S|} f(w + Σ_{b∈S} d_b)
    remainder in b     f(w + d_b) − f(w) − ⟨∇_b f(w), d_b⟩
    expansion          Π_b (1 + ∂_{d_b}) f (w0),   linear in every block

The mixed difference of two blocks is f(w_1 + d_1, w_2 + d_2) − f(w_1 + d_1, w_2) − f(w_1, w_2 + d_2) + f; it vanishes for every
function that is additive over the blocks, a linear one above all. A function is multilinear in its blocks where the remainders vanish;
it is then equal to its expansion. A linear network with B − 1 bottlenecks, cut there, becomes multilinear of degree B as its other
widths grow: the remainders go to zero, the mixed difference does not.

References:
    Liu, Zhu, Belkin, "A note on linear bottleneck networks and their transition to multilinearity", arXiv 2206.15058.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn import _jaxpr, _tree
from jaxdyn._typing import Apply, Expansion, Params
from jaxdyn.geometry.kernel.independence import check
from jaxdyn.geometry.operators import Only, is_selected, paths

Block = Only | Sequence[Only]
"""Which leaves make a block: a path, the beginning of one, a predicate on paths, or several of these."""


def split(direction: Params, blocks: Sequence[Block]) -> tuple[Params, ...]:
    """Cut a displacement into its blocks.

    Args:
        direction: d, a tree like the parameters.
        blocks: B blocks, to which every leaf belongs once: paths such as `"dense_0"`, predicates on paths, or lists of these.

    Returns:
        d_1, …, d_B, trees like `direction` that are zero outside their block.

    Raises:
        ValueError: for a leaf in no block or in several, or a block without a leaf.

    Example:
        >>> first, second = split({"u": jnp.ones(2), "v": jnp.ones(1)}, ["u", "v"])
        >>> first["u"].tolist(), first["v"].tolist()
        ([1.0, 1.0], [0.0])
    """
    names = paths(direction)
    owners = [[b for b, block in enumerate(blocks) if _is_in(name, block)] for name in names]
    for name, owner in zip(names, owners, strict=True):
        if len(owner) != 1:
            where = f"in the blocks {owner}" if owner else "in none"
            raise ValueError(
                f"Every parameter belongs to one block, but {name!r} is {where} of {len(blocks)}: {blocks!r}."
            )
    for b, block in enumerate(blocks):
        if [b] not in owners:
            raise ValueError(f"Block {b}, {block!r}, holds no parameter; the leaves are {', '.join(names)}.")
    return tuple(_part(direction, [owner == [b] for owner in owners]) for b in range(len(blocks)))


def mixed_difference(
    apply: Apply, params: Params, x: Float[Array, "n ..."], direction: Params, *, blocks: Sequence[Block]
) -> Float[Array, "n k"]:
    """The mixed difference of order B, by inclusion and exclusion: 2^B forward passes.

    Args:
        apply: the function, `(params, x: [n, *d]) -> [n, k]`.
        params: w.
        x: inputs [n, *d].
        direction: d, a tree like the parameters.
        blocks: as in `split`.

    Returns:
        Σ_S (−1)^{B−|S|} f(w + Σ_{b∈S} d_b), [n, k].

    Raises:
        ValueError: as `split`, and for a function whose examples interact.

    Example:
        >>> bilinear = lambda w, x: 5.0 * x * w["u"] * w["v"] + w["u"]
        >>> w, d = {"u": jnp.array(1.0), "v": jnp.array(2.0)}, {"u": jnp.array(0.5), "v": jnp.array(3.0)}
        >>> mixed_difference(bilinear, w, jnp.ones((1, 1)), d, blocks=["u", "v"]).tolist()  # 5 · 0.5 · 3
        [[7.5]]
    """
    check(apply, params, x)
    parts = split(direction, blocks)
    with jax.default_matmul_precision("highest"):
        total: Any = 0.0
        for chosen in itertools.product((False, True), repeat=len(parts)):
            moved = params
            for is_in, part in zip(chosen, parts, strict=True):
                moved = _add(moved, part) if is_in else moved
            total = (-1.0) ** (len(parts) - sum(chosen)) * apply(moved, x) + total
    return total


@_jaxpr.forward_mode()
def block_remainder(
    apply: Apply, params: Params, x: Float[Array, "n ..."], direction: Params, *, only: Block
) -> Float[Array, "n k"]:
    """What is left of a change within one block beyond first order.

    Args:
        apply: the function.
        params: w.
        x: inputs [n, *d].
        direction: d, a tree like the parameters; what lies outside the block does not count.
        only: the block.

    Returns:
        f(w + d_b) − f(w) − ⟨∇_b f(w), d_b⟩, [n, k].

    Raises:
        ValueError: for a block without a leaf, and for a function whose examples interact.
        TypeError: for a `jax.custom_vjp` function, which has no forward derivative.

    Example:
        >>> square = lambda w, x: x * w["u"] ** 2 * w["v"]
        >>> w, d = {"u": jnp.array(1.0), "v": jnp.array(2.0)}, {"u": jnp.array(3.0), "v": jnp.array(4.0)}
        >>> [block_remainder(square, w, jnp.ones((1, 1)), d, only=block).tolist() for block in ("u", "v")]  # 2 · 3², 0
        [[[18.0]], [[0.0]]]
    """
    check(apply, params, x)
    names = paths(direction)
    is_inside = [_is_in(name, only) for name in names]
    if not any(is_inside):
        raise ValueError(f"`only={only!r}` selects no parameter; the leaves are {', '.join(names)}.")
    moved, step = _tree.moving(params), _tree.moving(_part(direction, is_inside))

    def function(w: Any) -> Any:
        return apply(_tree.completed(w, params), x)

    with jax.default_matmul_precision("highest"):
        start, slope = jax.jvp(function, (moved,), (step,))
        return function(_add(moved, step)) - start - slope


def multilinear(blocks: Sequence[Block]) -> Expansion:
    """The expansion that is linear in every block, Π_b (1 + ∂_{d_b}) f (w0) with d = w − w0; for one block, the linear model.

    It has all mixed derivatives of different blocks, up to the order B, and none of second order within a block: an expansion like
    `jd.linear`, to be trained or compared with. Costs at most 2^B passes, by nested forward-mode derivatives.

    Args:
        blocks: as in `split`.

    Returns:
        An expansion `(apply, params0) -> apply`.

    Example:
        >>> trilinear = lambda w, x: x * w["a"] * w["b"] * w["c"]
        >>> w0, w = ({name: jnp.array(value) for name in "abc"} for value in (1.0, 3.0))
        >>> expanded = multilinear(["a", "b", "c"])(trilinear, w0)
        >>> expanded(w, jnp.ones((1, 1))).tolist()  # exact
        [[27.0]]
    """

    def expand(apply: Apply, params0: Any) -> Apply:
        @_jaxpr.forward_mode()
        def expanded(params: Any, x: Any) -> Any:
            def linear_in(part: Any, lower: Any) -> Any:
                def upper(w: Any) -> Any:
                    value, slope = jax.jvp(lower, (w,), (part,))
                    return value + slope

                return upper

            function: Any = lambda w: apply(_tree.completed(w, params0), x)  # noqa: E731
            for part in split(_tree.sub(params, params0), blocks):
                function = linear_in(_tree.moving(part), function)
            return function(_tree.moving(params0))

        return expanded

    return expand


def _part(direction: Any, is_inside: Sequence[bool]) -> Any:
    """The leaves that are inside, zeros in the place of the others."""
    leaves, structure = jax.tree.flatten(direction)
    parts = [leaf if inside else jnp.zeros_like(leaf) for leaf, inside in zip(leaves, is_inside, strict=True)]
    return jax.tree.unflatten(structure, parts)


def _is_in(name: str, block: Block) -> bool:
    several = block if isinstance(block, Sequence) and not isinstance(block, str) else [block]
    return any(is_selected(name, one) for one in several)


def _add(params: Any, step: Any) -> Any:
    return jax.tree.map(jnp.add, params, step)
