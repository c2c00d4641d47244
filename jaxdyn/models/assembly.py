"""Assemblies of sub-models, from which wide networks emerge.

    f(v, w; x) = output( Σ_i s_i v_i g(w_i; x) ),    i = 1 … m,    v_i of order one

with g any sub-model and s_i the share of member i: 1/√m for each (`equal`), or a constant for one (`dominated`). The w_i are drawn
independently (`distinct`) or are one and the same (`shared`).

With equal shares and distinct members the Hessian of f is block diagonal over the pairs (v_i, w_i), its w-block obeys

    ‖H‖ ≤ max_i |v_i| ‖H_{g_i}‖ / √m,    while    ‖∇_w f‖² = (1/m) Σ_i v_i² ‖∇g_i‖²

is of order one: linearity emerges. One dominant member, or members that are not diverse, break it. A sub-model may be an
assembly again; with `output=` an assembly of assemblies of neurons is a network without shared weights, and an assembly of
neurons `mlp((d, 1), output=tanh)` is the one-hidden-layer network.

References:
    Liu, Zhu, Belkin, "Transition to linearity of wide neural networks is an emerging property of assembling weak models",
    arXiv 2203.05104.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn._typing import Params
from jaxdyn.models.base import Model
from jaxdyn.models.mlp import Activation, identity
from jaxdyn.models.width import AnyWidth, Width, draw_bias, inverse_sqrt, mask, masked, maximum

Shares = Callable[[AnyWidth], Any]
"""A function `num -> [m]`: the constants s_i in front of the members."""


class Weights(NamedTuple):
    """How the weights v of an assembly are drawn, and whether they learn.

    Attributes:
        draw: `(key, num) -> [m]`, of order one, zero in the padding of a `Width`.
        use: what v passes through in the forward pass: the identity, or `jax.lax.stop_gradient`, behind which v has no gradient.
    """

    draw: Callable[[Any, AnyWidth], Any]
    use: Callable[[Any], Any] = identity


class Members(NamedTuple):
    """How the members' parameters are drawn, and how their outputs are summed.

    Attributes:
        init: `(sub, key, num) -> params`.
        total: `(sub, params, x, coefficients [m]) -> [n, k]`, the sum of the members' outputs times the coefficients.
    """

    init: Callable[[Model, Any, AnyWidth], Params]
    total: Callable[[Model, Any, Any, Any], Any]


gaussian: Weights = Weights(draw_bias)
"""v_i ~ N(0, 1), trained. max_i |v_i| grows like √(2 log m)."""

signs: Weights = Weights(lambda key, num: jnp.sign(draw_bias(key, num)))
"""v_i = ±1 with equal chances, trained."""


def frozen(weights: Weights) -> Weights:
    """The same weights, not trained: they are kept among the parameters, but the function has no derivative in them.

    Gradient descent leaves them alone; a transformation that moves parameters without a gradient (weight decay) does not.

    Example:
        >>> model = assembly(Model(lambda key: jnp.ones(()), lambda w, x: w * x), 4, weights=frozen(signs))
        >>> gradient = jax.grad(lambda p: model.apply(p, jnp.ones((1, 1)))[0, 0])(model.init(jax.random.key(0)))
        >>> gradient["weight"].tolist()
        [0.0, 0.0, 0.0, 0.0]
    """
    return weights._replace(use=jax.lax.stop_gradient)


def equal(num: AnyWidth) -> Float[Array, " m"]:
    """Equal shares: s_i = 1/√m.

    Example:
        >>> equal(4).tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    return jnp.full(maximum(num), inverse_sqrt(num), float)


def dominated(share: float) -> Shares:
    """Shares of which the first does not shrink with m: s_1 = `share`, all others 1/√m.

    Example:
        >>> dominated(1.0)(4).tolist()
        [1.0, 0.5, 0.5, 0.5]
    """
    return lambda num: equal(num).at[0].set(share)


def _stack(sub: Model, key: Any, num: AnyWidth) -> Any:
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(maximum(num)))
    params = jax.vmap(sub.init)(keys)

    def without_padding(leaf: Any) -> Any:
        live = mask(num, leaf.dtype)
        return leaf if live is None else leaf * live.reshape(-1, *(1,) * (leaf.ndim - 1))

    return jax.tree.map(without_padding, params)


def _sum_of_stack(sub: Model, params: Any, x: Any, coefficients: Any) -> Any:
    outputs = jax.vmap(sub.apply, in_axes=(0, None))(params, x)  # [m, n, k]
    return jnp.tensordot(coefficients, outputs, axes=1)


distinct: Members = Members(_stack, _sum_of_stack)
"""Members with parameters of their own, drawn independently: the diverse assembly. Leaves are stacked, [m, …]."""

shared: Members = Members(
    lambda sub, key, num: sub.init(jax.random.fold_in(key, 0)),
    lambda sub, params, x, coefficients: jnp.sum(coefficients) * sub.apply(params, x),
)
"""Members that all have the parameters of the first: the assembly that is not diverse."""


def assembly(
    sub: Model,
    num: AnyWidth,
    *,
    weights: Weights = gaussian,
    shares: Shares = equal,
    members: Members = distinct,
    output: Activation = identity,
) -> Model:
    """Many copies of a sub-model, weighted and summed.

    Args:
        sub: g, any model; another assembly too.
        num: m, the number of members: an integer, or a `Width` (what a run receives along a `jd.widths` axis).
        weights: `models.gaussian`, `models.signs`, or one of them `models.frozen(…)`.
        shares: `models.equal`, or `models.dominated(share)`.
        members: `models.distinct`, or `models.shared`.
        output: elementwise function of the sum.

    Returns:
        A `Model`. Parameters are `{"members": leaves of the sub-model, stacked [m, …] where distinct, "weight": v [m]}`; the first
        members and weights of a seed are the same at every m. There is no infinite-width kernel: that of m → ∞ averages the
        *finite* sub-model over its initialisation, for which jaxdyn knows no closed form.

    Raises:
        ValueError: for a number of members that is not a positive integer.

    Example:
        >>> from jaxdyn.models.mlp import mlp
        >>> model = assembly(mlp((3, 4, 1), activation=jnp.tanh), 16)
        >>> params = model.init(jax.random.key(0))
        >>> model.apply(params, jnp.ones((5, 3))).shape, params["members"]["dense_0"]["weight"].shape
        ((5, 1), (16, 3, 4))
    """
    if not isinstance(num, Width) and (isinstance(num, bool) or not hasattr(num, "__index__") or num < 1):
        raise ValueError(f"`num` is a positive number of members (or a `Width`), but is {num!r}.")

    def init(key: Any) -> Params:
        return {
            "members": members.init(sub, jax.random.fold_in(key, 0), num),
            "weight": weights.draw(jax.random.fold_in(key, 1), num),
        }

    def apply(params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n k"]:
        weight = weights.use(params["weight"])
        coefficients = masked(weight * shares(num).astype(weight.dtype), num)
        return output(members.total(sub, params["members"], x, coefficients))

    return Model(init, apply)
