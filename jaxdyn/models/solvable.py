"""Models whose training has exact low-dimensional maps: the quadratic models of the catapult phase.

    two_layer_relu      f = (1/√m) Σ_i v_i relu(u_i·x/√d),        u ~ N(0, 1), v = ±1, both layers trained
    with frozen_gates   g = (1/√(md)) Σ_i v_i 1[u0_i·x > 0] u_i·x, its quadratic model around (u0, v0), exactly
    uv                  f = (1/√m) Σ_i v_i u_i x,                  u, v ~ N(0, 1), x a number
    general_quadratic   g = w·φ(x) + (γ/2) wᵀΣ(x)w,                Σ(x) symmetric, γ in the part of 1/√m
    pure_quadratic      g = (γ/2) ‖x‖ Σ_j s_j w_j²,                φ = 0, Σ(x)² = ‖x‖² I

The Hessian of the two-layer network has only the block between u_i and v_i, which does not depend on v or u while the gates
stand still, so the quadratic model is the network with its gates frozen: one product with the anchor's weights more than the
network, where `models.quadratic` takes three nested derivatives. `theory.catapult` holds the maps these models follow.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2205.11787, section 3 and appendix "Quadratic models" (two-layer and general).
    Lewkowycz, Bahri, Dyer, Sohl-Dickstein, Gur-Ari, arXiv 2003.02218, section 3 (`uv`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Num

from jaxdyn._typing import Apply, Expansion, Params
from jaxdyn.models.assembly import Weights, signs
from jaxdyn.models.base import Kernels, Model
from jaxdyn.models.width import AnyWidth, Width, draw, inverse_sqrt

Feature = Callable[[Any], Any]
"""φ: inputs [n, *d] to features [n, p]."""

Curvature = Callable[[Any, Any], Any]
"""The product `(x: [n, *d], w: [p]) -> Σ(x) w: [n, p]` with symmetric matrices."""


@dataclass(frozen=True, eq=False)
class TwoLayerReLU:
    """The function of a two-layer ReLU network, which knows its quadratic model.

    Attributes:
        dim: input dimension d.
        width: m.
    """

    dim: int
    width: AnyWidth

    def __call__(self, params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n 1"]:
        """f(u, v; x), [n, 1]."""
        return self._output(jax.nn.relu(self._hidden(params["u"], x)), params["v"])

    def gates(self, params: Any, x: Float[Array, " n *d"]) -> Bool[Array, "n m"]:
        """Which hidden units are open, [n, m]."""
        return self._hidden(jax.lax.stop_gradient(params["u"]), x) > 0

    def gated(self, params: Any, x: Float[Array, " n *d"], gates: Bool[Array, "n m"]) -> Float[Array, "n 1"]:
        """The network with given gates, [n, 1]."""
        return self._output(jnp.where(gates, self._hidden(params["u"], x), 0.0), params["v"])

    def _hidden(self, u: Any, x: Any) -> Any:
        flat = _flat(x, self.dim)
        return (flat @ u) * jnp.asarray(inverse_sqrt(self.dim), flat.dtype)  # [n, m]

    def _output(self, h: Any, v: Any) -> Any:
        return (h @ v) * jnp.asarray(inverse_sqrt(self.width), h.dtype)


@dataclass(frozen=True, eq=False)
class FrozenGates:
    """The function of a two-layer ReLU network with its gates frozen.

    Attributes:
        network: the network.
        params0: the anchor.
    """

    network: TwoLayerReLU
    params0: Any

    def __call__(self, params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n 1"]:
        """g(u, v; x), [n, 1]."""
        return self.network.gated(params, x, self.network.gates(self.params0, x))

    def on(self, x: Float[Array, " n *d"]) -> Apply:
        """The same function with the gates of fixed inputs found once, here; used where it is called with this very array."""
        known = self.network.gates(self.params0, x)  # [n, m]
        return lambda params, inputs: self.network.gated(params, x, known) if inputs is x else self(params, inputs)


def two_layer_relu(dim: int, width: AnyWidth, *, weights: Weights = signs) -> Model:
    """The two-layer ReLU network f = (1/√m) Σ v_i relu(u_i·x/√d) with both layers trained.

    Up to the start of v it is `mlp((dim, width, 1), activation=jax.nn.relu)`, with the same u of the same key.

    Args:
        dim: input dimension d.
        width: m, an integer or a `Width`.
        weights: how v starts: `models.signs` (±1), `models.gaussian`, or your own; entries of mean square 1 for `kernel` to hold.

    Returns:
        A `Model`; parameters `{"u": [d, m], "v": [m, 1]}`. `kernel` is the limit m -> ∞.

    Raises:
        ValueError: for a dimension or a width that is not positive.

    Example:
        >>> model = two_layer_relu(3, 8)
        >>> params0 = model.init(jax.random.key(0))
        >>> params, x = jax.tree.map(lambda leaf: leaf + 0.5, params0), jnp.ones((5, 3))
        >>> from jaxdyn.models import quadratic
        >>> expanded = quadratic(model.apply, params0)(params, x)
        >>> bool(jnp.allclose(frozen_gates(model.apply, params0)(params, x), expanded, atol=1e-5))
        True
    """
    _check_sizes(dim, width)

    def init(key: Any) -> Params:
        u_key, v_key = (jax.random.fold_in(key, layer) for layer in range(2))
        return {"u": draw(u_key, dim, width), "v": weights.draw(v_key, width)[:, None]}

    def kernel(x1: Any, x2: Any = None, *, tolerance: float = 1e-8) -> Kernels:
        from jaxdyn.models._neural_tangents import dense_kernel

        return dense_kernel(x1, x2, activation=jax.nn.relu, num_hidden=1, bias=0.0, gain=1.0)

    return Model(init, TwoLayerReLU(dim, width), kernel)


def frozen_gates(apply: Apply, params0: Params) -> Apply:
    """The quadratic model of a two-layer ReLU network as that network with its gates frozen at the anchor.

    An expansion: `Training(model, …, expand=models.frozen_gates)` trains what `expand=models.quadratic` trains, to
    rounding.

    Args:
        apply: the function of `two_layer_relu`.
        params0: the anchor.

    Returns:
        `(params, x) -> [n, 1]`.

    Raises:
        TypeError: for any other function.
    """
    return FrozenGates(_two_layer(apply), params0)


def frozen_gates_on(x: Float[Array, "n ..."]) -> Expansion:
    """`frozen_gates` with the gates of fixed inputs found once, [n, m], where the expansion is made.

    `Training` does so by itself with `sampler=full_batch`; this is for loops of one's own. The gates are used where the function is
    called with this very array, and found anew for any other, so the function is the same.

    Args:
        x: the array that the steps will see, [n, *d].

    Returns:
        An expansion `(apply, params0) -> apply`; a `TypeError` from it for another function than that of `two_layer_relu`.
    """
    return lambda apply, params0: FrozenGates(_two_layer(apply), params0).on(x)


def uv(width: AnyWidth) -> Model:
    """The model f = (1/√m) Σ v_i u_i x of paper 2003.02218, a two-layer linear network of one input.

    Args:
        width: m, an integer or a `Width`.

    Returns:
        A `Model` for inputs [n, 1]; parameters `{"u": [1, m], "v": [m, 1]}`, N(0, 1). `kernel` is the limit m -> ∞: the
        covariance x x' and the tangent kernel 2 x x'.

    Raises:
        ValueError: for a width that is not positive.

    Example:
        >>> model = uv(4)
        >>> params = {"u": jnp.ones((1, 4)), "v": jnp.ones((4, 1))}
        >>> float(model.apply(params, jnp.array([[3.0]]))[0, 0])
        6.0
    """
    _check_sizes(1, width)

    def init(key: Any) -> Params:
        u_key, v_key = (jax.random.fold_in(key, layer) for layer in range(2))
        return {"u": draw(u_key, 1, width), "v": draw(v_key, width, 1)}

    def apply(params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n 1"]:
        h = _flat(x, 1) @ params["u"]  # [n, m]
        return (h @ params["v"]) * jnp.asarray(inverse_sqrt(width), h.dtype)

    def kernel(x1: Any, x2: Any = None, *, tolerance: float = 1e-8) -> Kernels:
        a = _flat(jnp.asarray(x1), 1)
        product = a @ (a if x2 is None else _flat(jnp.asarray(x2), 1)).T
        return Kernels(product, 2 * product)

    return Model(init, apply, kernel)


def general_quadratic(num_params: int, *, gamma: Any, feature: Feature, curvature: Curvature) -> Model:
    """The general quadratic model g = w·φ(x) + (γ/2) wᵀΣ(x)w; w ~ N(0, I).

    Its gradient is φ(x) + γΣ(x)w and its Hessian γΣ(x). Only the symmetric part of Σ enters.

    Args:
        num_params: p.
        gamma: γ, in the part of 1/√m; may be traced.
        feature: φ, `x: [n, *d] -> [n, p]`.
        curvature: `(x, w) -> Σ(x) w`, [n, p]: the product rather than the matrix, so that p stays cheap.

    Returns:
        A `Model`; parameters `{"w": [p]}`. There is no infinite-width kernel.

    Raises:
        ValueError: for a number of parameters that is not positive, or (from `apply`) φ or Σw of another shape than [n, p].

    Example:
        >>> signs = jnp.where(jnp.arange(4) % 2 == 0, 1.0, -1.0)  # Σ = diag(±1) whatever x: figure 8 of the paper
        >>> model = general_quadratic(4, gamma=0.5, feature=lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True),
        ...                           curvature=lambda x, w: jnp.broadcast_to((signs * w)[None, :], x.shape))
        >>> float(model.apply({"w": jnp.array([1.0, 0.0, 2.0, 1.0])}, jnp.array([[0.0, 0.0, 3.0, 0.0]]))[0, 0])
        3.0
    """
    _check_count("num_params", num_params)

    def init(key: Any) -> Params:
        return {"w": draw(jax.random.fold_in(key, 0), 1, num_params)[0]}

    def apply(params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n 1"]:
        w = params["w"]
        features, bent = feature(x), curvature(x, w)
        for name, value in (("feature(x)", features), ("curvature(x, w)", bent)):
            if value.shape != (x.shape[0], num_params):
                raise ValueError(
                    f"`{name}` is [n, p] = {(x.shape[0], num_params)} for this model, but has shape {value.shape}."
                )
        return ((features + bent * (jnp.asarray(gamma, w.dtype) / 2)) @ w)[:, None]

    return Model(init, apply)


def pure_quadratic(num_params: int, *, gamma: Any) -> Model:
    """The pure quadratic model g = (γ/2) ‖x‖ Σ_j s_j w_j², s = +1, −1, +1, …; no linear part, Σ(x)² = ‖x‖² I.

    With γ = 1/√p it is of order one at the start, and its kernel ‖x‖²γ²‖w‖² about ‖x‖².

    Args:
        num_params: p.
        gamma: γ; may be traced.

    Returns:
        A `Model` for inputs [n, *d]; parameters `{"w": [p]}`, N(0, 1). There is no infinite-width kernel.

    Raises:
        ValueError: for a number of parameters that is not positive.

    Example:
        >>> model = pure_quadratic(2, gamma=1.0)
        >>> float(model.apply({"w": jnp.array([2.0, 1.0])}, jnp.array([[3.0, 4.0]]))[0, 0])
        7.5
    """
    _check_count("num_params", num_params)
    alternating = jnp.where(jnp.arange(num_params) % 2 == 0, 1, -1)

    def feature(x: Any) -> Any:
        return jnp.zeros((x.shape[0], num_params), x.dtype)

    def curvature(x: Any, w: Any) -> Any:
        return jnp.linalg.norm(x.reshape(x.shape[0], -1), axis=1)[:, None] * (alternating.astype(w.dtype) * w)[None, :]

    return general_quadratic(num_params, gamma=gamma, feature=feature, curvature=curvature)


def _two_layer(apply: Any) -> TwoLayerReLU:
    if not isinstance(apply, TwoLayerReLU):
        raise TypeError(
            f"Only the network of `models.two_layer_relu` is its quadratic model with frozen gates, but got {apply!r}; use "
            "`models.quadratic`."
        )
    return apply


def _flat(x: Num[ArrayLike, "..."], dim: int) -> Any:
    flat = jnp.asarray(x).reshape(len(x), -1)  # type: ignore[arg-type]
    if flat.shape[1] != dim:
        raise ValueError(
            f"This network takes inputs of dimension {dim}, but x has shape {jnp.shape(x)}, i.e. dimension {flat.shape[1]}."
        )
    return flat


def _check_sizes(dim: int, width: AnyWidth) -> None:
    _check_count("dim", dim)
    if not isinstance(width, Width):
        _check_count("width", width)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"`{name}` is a positive integer, but is {value!r}.")
