"""Fully connected networks.

    h_0 = x,   z_l = multiplier_l · h_{l-1} W_l + β b_l,   h_l = g σ(z_l),   f(x) = output(z_L)

with the multipliers of a scaling (`models.ntk`: 1/√fan_in), W ~ N(0, 1) and, unless `bias` and `gain` are given, no bias and g = 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn._typing import Params
from jaxdyn.models.base import Kernels, Model
from jaxdyn.models.gain import check_gain, with_gain
from jaxdyn.models.scaling import Position, Scale, Scaling, ntk
from jaxdyn.models.width import AnyWidth, Width, draw, draw_bias, masked

Activation = Callable[[Any], Any]


def identity(z: Any) -> Any:
    """The linear output: returns its argument."""
    return z


def mlp(
    sizes: Sequence[AnyWidth],
    *,
    activation: Activation,
    scaling: Scaling = ntk,
    bias: float = 0.0,
    gain: Any = 1.0,
    output: Activation = identity,
) -> Model:
    """A fully connected network.

    Args:
        sizes: `(d, m_1, …, m_L, k)`: input dimension, hidden widths, outputs. Hidden widths are integers or `Width`s
            (what a run receives along a `jd.widths` axis). A narrow hidden layer is a bottleneck.
        activation: elementwise σ of the hidden layers.
        scaling: `models.ntk`, `models.standard` or `models.maximal_update`.
        bias: β, the standard deviation of the biases' contribution; 0 means no bias parameters.
        gain: g, h = g σ(z): a number, or `models.unit_gain(activation)`, √2 for ReLU, which keeps the second moment from layer to layer.
        output: elementwise function of the outputs. Anything but the identity breaks the transition to linearity
            (Liu, Zhu, Belkin 2020), and there is no infinite-width kernel then.

    Returns:
        A `Model`. Parameters are `{"dense_0": {"weight": [d, m_1], "bias": [m_1]}, …}`. Inputs [n, *d] are flattened.
        `kernel` is the limit of all hidden widths going to infinity.

    Raises:
        ValueError: for sizes that are not at least two positive integers, a negative bias, or a gain that is not positive.

    Example:
        >>> model = mlp((3, 8, 1), activation=jnp.tanh)
        >>> params = model.init(jax.random.key(0))
        >>> model.apply(params, jnp.ones((5, 3))).shape
        (5, 1)
    """
    _check(sizes, bias)
    check_gain(gain)
    hidden = with_gain(activation, gain)
    num_layers = len(sizes) - 1

    def scale(layer: int) -> Scale:
        return scaling(sizes[layer], sizes[layer + 1], _position(layer, num_layers))

    def bias_scale(layer: int) -> Scale:
        return scaling(1, sizes[layer + 1], _position(layer, num_layers))

    def init(key: Any) -> Params:
        params = {}
        for layer in range(num_layers):
            layer_key = jax.random.fold_in(key, layer)
            fan_in, fan_out = sizes[layer], sizes[layer + 1]
            weight = draw(layer_key, fan_in, fan_out)
            params[f"dense_{layer}"] = {"weight": weight * jnp.asarray(scale(layer).deviation, weight.dtype)}
            if bias:
                offset = draw_bias(layer_key, fan_out)
                params[f"dense_{layer}"]["bias"] = offset * jnp.asarray(bias_scale(layer).deviation, offset.dtype)
        return params

    def apply(params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n k"]:
        h = x.reshape(x.shape[0], -1)
        if h.shape[1] != sizes[0]:
            raise ValueError(
                f"This network takes inputs of dimension {sizes[0]}, but x has shape {tuple(x.shape)}, i.e. dimension "
                f"{h.shape[1]}; give `sizes` the dimension of the task first."
            )
        for layer in range(num_layers):
            leaf = params[f"dense_{layer}"]
            z = (h @ leaf["weight"]) * jnp.asarray(scale(layer).multiplier, h.dtype)
            if bias:
                z = z + (leaf["bias"] * jnp.asarray(bias * bias_scale(layer).multiplier, h.dtype))[None, :]
            if layer == num_layers - 1:
                return output(z)
            h = masked(hidden(z), sizes[layer + 1])
        raise AssertionError("unreachable: there is at least one layer")

    def kernel(x1: Any, x2: Any = None, *, tolerance: float = 1e-8) -> Kernels:
        check_kernel(scaling, output)
        from jaxdyn.models._neural_tangents import dense_kernel

        return dense_kernel(x1, x2, tolerance, activation=activation, num_hidden=num_layers - 1, bias=bias, gain=gain)

    return Model(init, apply, kernel)


def check_kernel(scaling: Scaling, output: Activation) -> None:
    """Refuse what has no infinite-width tangent kernel."""
    if scaling is not ntk:
        raise ValueError(
            f"Only NTK scaling has an infinite-width tangent kernel, but this network uses "
            f"{getattr(scaling, '__name__', scaling)}: under standard scaling the kernel grows like the width, under "
            "maximal-update scaling it moves. Use `scaling=models.ntk`."
        )
    if output is not identity:
        raise ValueError(
            "A nonlinear output has no deterministic infinite-width kernel (it stays random, and moves in training). "
            "Drop `output=`, or use `geometry.ntk` at given parameters."
        )


def _position(layer: int, num_layers: int) -> Position:
    if num_layers == 1:
        return "only"
    return "input" if layer == 0 else "output" if layer == num_layers - 1 else "hidden"


def _check(sizes: Sequence[AnyWidth], bias: float) -> None:
    if len(sizes) < 2:
        raise ValueError(f"`sizes` needs an input dimension and a number of outputs, but is {tuple(sizes)}.")
    for position, size in enumerate(sizes):
        if isinstance(size, Width):
            if position in (0, len(sizes) - 1):
                raise ValueError("Only hidden widths can be padded; the input dimension and the outputs are integers.")
        elif isinstance(size, bool) or not hasattr(size, "__index__") or size < 1:
            raise ValueError(
                f"`sizes` are positive integers (or `Width`s along a `jd.widths` axis), but entry {position} of "
                f"{tuple(sizes)} is {size!r}."
            )
    if bias < 0:
        raise ValueError(f"`bias` is a standard deviation, at least 0, but is {bias}.")
