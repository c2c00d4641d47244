"""The exact empirical tangent kernel of any function, at about the cost of a gradient.

    Θ[i, j, a, b] = Σ_p ∂f_a(w; x_i)/∂w_p · ∂f_b(w; x_j)/∂w_p

For a dense layer z = h W the per-example gradients are outer products, so its share is (h hᵀ) ∘ (g gᵀ), with g the cotangents of z
at all examples from one backward pass for each output. `factors` finds h and g for any `apply`; this module contracts them, and
chooses for every parameter leaf, by counted flops, between

* *outer*: Σ_{s,s'} (h_is · h_js')(g_is · g_js') over the positions of an example (one for a dense layer), and
* *gradient*: per-example gradients of that leaf, and their inner products.

Whatever the route, the kernel is exact. Blocks of examples are streamed under a memory budget.

References:
    Jacot et al., arXiv 1806.07572. Novak, Sohl-Dickstein, Schoenholz, arXiv 2206.08720.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn._typing import Apply, Params
from jaxdyn.geometry.factors import Factors, Interpreter, Tap

MEMORY = 2**30
"""Bytes that factors and per-example gradients may take, unless told otherwise."""


@dataclass(frozen=True)
class Route:
    """How one parameter leaf enters the kernel.

    Attributes:
        path: path of the leaf.
        route: `outer` or `gradient`.
        uses: how often the leaf is used.
        positions: positions an example has, over all uses.
        flops: multiply-adds, times two, of its share of the kernel.
    """

    path: str
    route: str
    uses: int
    positions: int
    flops: float


@dataclass(frozen=True)
class Plan:
    """The routes of all leaves. `print` it."""

    routes: tuple[Route, ...]

    def __str__(self) -> str:
        rows = [
            f"{one.path:32} {one.route:9} {one.uses:2d} uses, {one.positions:5d} positions, {one.flops:.2e} flops"
            for one in self.routes
        ]
        return "\n".join(rows)


def ntk(
    apply: Apply, params: Params, x1: Float[Array, "n1 ..."], x2: Any = None, *, memory: int = MEMORY
) -> Float[Array, "n1 n2"]:
    """The tangent kernel summed over outputs and divided by their number, tr_k Θ / k.

    Args:
        apply: `(params, x: [n, *d]) -> [n, k]`; its examples must not interact.
        params: where.
        x1: inputs [n1, *d].
        x2: other inputs [n2, *d]; `x1` when None.
        memory: budget in bytes for factors and per-example gradients; blocks of examples are streamed under it.

    Returns:
        [n1, n2].

    Raises:
        ValueError: for a memory budget below one byte, or inputs of different shapes.

    Example:
        >>> import flax.linen as nn, jaxdyn as jd
        >>> x = jnp.ones((4, 3))
        >>> model = jd.models.from_linen(nn.Dense(2), x)
        >>> jd.geometry.ntk(model.apply, model.init(jax.random.key(0)), x)[0, 0]  # ‖x‖² + 1
        Array(4., dtype=float32)
    """
    with jax.default_matmul_precision("highest"):
        kernel = _kernel(apply, params, x1, x2, memory, _traced)
    return kernel


def ntk_blocks(
    apply: Apply, params: Params, x1: Float[Array, "n1 ..."], x2: Any = None, *, memory: int = MEMORY
) -> Float[Array, "n1 n2 k k"]:
    """The whole tangent kernel Θ[i, j, a, b]; its largest eigenvalue sets critical learning rates.

    Args:
        apply: `(params, x: [n, *d]) -> [n, k]`; its examples must not interact.
        params: where.
        x1: inputs [n1, *d].
        x2: other inputs [n2, *d]; `x1` when None.
        memory: budget in bytes for factors and per-example gradients.

    Returns:
        [n1, n2, k, k].

    Raises:
        ValueError: for a memory budget below one byte, or inputs of different shapes.

    Example:
        >>> ntk_blocks(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.ones((4, 3))).shape
        (4, 4, 2, 2)
    """
    with jax.default_matmul_precision("highest"):
        return _kernel(apply, params, x1, x2, memory, _whole)


def ntk_plan(apply: Apply, params: Params, x1: Float[Array, "n1 ..."], x2: Any = None) -> Plan:
    """Which route every parameter leaf takes, and what it costs. Nothing is computed.

    Args:
        apply: the function.
        params: where.
        x1: inputs [n1, *d].
        x2: other inputs; `x1` when None.

    Example:
        >>> print(ntk_plan(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.ones((4, 3))).routes[0].route)
        outer
    """
    interpreter = Interpreter(apply, params, jax.eval_shape(lambda x: x[0], x1))
    n1, n2 = x1.shape[0], (x1 if x2 is None else x2).shape[0]
    routes = []
    for leaf, places in _by_leaf(interpreter.taps).items():
        taps = [interpreter.taps[i] for i in places]
        positions = sum(tap.positions for tap in taps)
        is_outer, flops = _prefer_outer(taps, n1, n2, interpreter.num_outputs, is_blocks=False)
        routes.append(Route(interpreter.paths[leaf], "outer" if is_outer else "gradient", len(taps), positions, flops))
    return Plan(tuple(routes))


Contract = Callable[[Any, Any, bool], Any]
"""`(first, second, is_outer) -> kernel share`, each of first and second being (h [n, S, C] or None, g [n, k, S, O])."""


def _kernel(apply: Apply, params: Any, x1: Any, x2: Any, memory: int, contract: Contract) -> Any:
    if memory < 1:
        raise ValueError(f"`memory` is a budget in bytes, at least 1, but is {memory}.")
    if x2 is not None and x2.shape[1:] != x1.shape[1:]:
        raise ValueError(f"x1 and x2 are inputs of one shape, but have {x1.shape[1:]} and {x2.shape[1:]} an example.")
    interpreter = Interpreter(apply, params, jax.eval_shape(lambda x: x[0], x1))
    n1, n2 = x1.shape[0], (x1 if x2 is None else x2).shape[0]
    is_blocks = contract is _whole
    size = max(1, memory // max(1, 2 * _bytes(interpreter, n1, n2, is_blocks)))
    if n1 + n2 <= 2 * size:
        first = interpreter.factors(params, x1)
        second = first if x2 is None else interpreter.factors(params, x2)
        return _contract(interpreter, first, second, contract, is_blocks)
    others = x1 if x2 is None else x2

    def rows(a: Any) -> Any:
        first = interpreter.factors(params, a)
        return _streamed(
            lambda b: jnp.swapaxes(
                _contract(interpreter, first, interpreter.factors(params, b), contract, is_blocks), 0, 1
            ),
            others,
            size,
        ).swapaxes(0, 1)

    return _streamed(rows, x1, size)


def _streamed(function: Callable[[Any], Any], x: Any, size: int) -> Any:
    """A function of blocks of examples, its results joined along their first axis."""
    n = x.shape[0]
    num_blocks = -(-n // min(size, n))
    size = -(-n // num_blocks)
    padded = jnp.concatenate([x, jnp.broadcast_to(x[:1], (num_blocks * size - n, *x.shape[1:]))])
    found = jax.lax.map(function, padded.reshape(num_blocks, size, *x.shape[1:]))
    return found.reshape(num_blocks * size, *found.shape[2:])[:n]


def _contract(interpreter: Interpreter, first: Factors, second: Factors, contract: Contract, is_blocks: bool) -> Any:
    total: Any = 0.0
    for places in _by_leaf(interpreter.taps).values():
        taps = [interpreter.taps[i] for i in places]
        n1, n2 = (len(one.cotangents[places[0]]) for one in (first, second))
        is_outer, _ = _prefer_outer(taps, n1, n2, interpreter.num_outputs, is_blocks=is_blocks)
        total = total + contract(_joined(first, places), _joined(second, places), is_outer)
    return total


def _joined(factors: Factors, places: list[int]) -> tuple[Any, Any]:
    """The factors of one leaf, its uses joined along the positions."""
    g = jnp.concatenate([factors.cotangents[i] for i in places], axis=2)
    inputs = [factors.inputs[i] for i in places]
    return (None if inputs[0] is None else jnp.concatenate(inputs, axis=1)), g


def _traced(first: Any, second: Any, is_outer: bool) -> Any:
    (h1, g1), (h2, g2) = first, second
    k = g1.shape[1]
    if not is_outer:
        u1, u2 = (_gradient(h, g).reshape(g.shape[0], -1) for h, g in (first, second))
        return u1 @ u2.T / k
    if g1.shape[2] == 1 and h1 is not None:
        return (h1[:, 0] @ h2[:, 0].T) * (g1.reshape(len(g1), -1) @ g2.reshape(len(g2), -1).T) / k
    return jnp.einsum("isc,jtc,iaso,jato->ij", h1, h2, g1, g2, optimize=[(0, 1), (0, 1), (0, 1)]) / k


def _whole(first: Any, second: Any, is_outer: bool) -> Any:
    (h1, g1), (h2, g2) = first, second
    if not is_outer:
        u1, u2 = (_gradient(h, g) for h, g in (first, second))
        return jnp.einsum("iaq,jbq->ijab", u1, u2)
    if g1.shape[2] == 1:
        return (h1[:, 0] @ h2[:, 0].T)[:, :, None, None] * jnp.einsum("iao,jbo->ijab", g1[:, :, 0], g2[:, :, 0])
    return jnp.einsum("isc,jtc,iaso,jbto->ijab", h1, h2, g1, g2, optimize=[(0, 1), (0, 1), (0, 1)])


def _gradient(h: Any, g: Any) -> Any:
    """Per-example gradients [n, k, q] of a leaf."""
    whole = g[:, :, 0] if h is None else jnp.einsum("isc,iaso->iaco", h, g)
    return whole.reshape(*whole.shape[:2], -1)


def _prefer_outer(taps: list[Tap], n1: int, n2: int, k: int, *, is_blocks: bool) -> tuple[bool, float]:
    """Whether the outer-product route takes fewer flops, and how many the chosen one takes."""
    one, s = taps[0], sum(tap.positions for tap in taps)
    pairs = n1 * n2 * (k if is_blocks else 1)
    gradient = 2.0 * pairs * k * one.fan_in * one.fan_out
    if not one.factored:
        return False, gradient
    gradient += 2.0 * (n1 + n2) * k * s * one.fan_in * one.fan_out
    outer = 2.0 * n1 * n2 * s**2 * one.fan_in + 2.0 * pairs * k * s**2 * one.fan_out
    return outer <= gradient, min(outer, gradient)


def _bytes(interpreter: Interpreter, n1: int, n2: int, is_blocks: bool) -> int:
    """Bytes one example takes: its factors, and the gradients or position pairs formed of them."""
    k, total = interpreter.num_outputs, 0
    for places in _by_leaf(interpreter.taps).values():
        taps = [interpreter.taps[i] for i in places]
        s, one = sum(tap.positions for tap in taps), taps[0]
        is_outer, _ = _prefer_outer(taps, n1, n2, k, is_blocks=is_blocks)
        total += s * (one.fan_in * one.factored + k * one.fan_out)
        if is_outer and s > 1:
            total += 2 * min(n1, n2) * s**2
        elif not is_outer and one.factored:
            total += k * one.fan_in * one.fan_out
    itemsize = max((leaf.dtype.itemsize for leaf in interpreter.leaves), default=4)
    return int(total * itemsize)


def _by_leaf(taps: list[Tap]) -> dict[int, list[int]]:
    """The taps of every leaf."""
    found: dict[int, list[int]] = {}
    for place, tap in enumerate(taps):
        found.setdefault(tap.leaf, []).append(place)
    return found
