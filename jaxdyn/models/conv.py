r"""Convolutional networks: 3×3 filters (or others), stride 1, zero padding, channels as the width.

    z^{l+1}_{ijβ} = 1/√(s² c_l) Σ_{uvα} W^l_{uvαβ} h^l_{i+u, j+v, α},    h^0 = x,  h^l = g σ(z^l),    f = readout(pool(h^L))

in NTK scaling, with W ~ N(0, 1); other scalings take fan_in = s² c_l. Weights are shared over positions, yet the transition
to linearity holds as the channels grow.

One convolution, lowered thrice: XLA's own inside a compiled loop reaches 1 GFLOP/s on a CPU, shifted slices side by side times one matrix
fifty times that, and twice as much again where few enough examples go at a time for their slices to stay in the cache and the gradient
makes the slices anew. So a CPU gets the last, an accelerator the first; the one in the middle is for whoever reads the equations
(`geometry.ntk` looks for matrix products, not into loops).

References:
    Liu, Zhu, Belkin, arXiv 2010.01092, §5 (convolutions). Arora et al., arXiv 1904.11955 (kernels with global average pooling).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn._typing import Params
from jaxdyn.models.base import Kernels, Model
from jaxdyn.models.gain import check_gain, with_gain
from jaxdyn.models.mlp import Activation, check_kernel, identity
from jaxdyn.models.scaling import Position, Scale, Scaling, ntk
from jaxdyn.models.width import AnyWidth, Width, draw, draw_bias, masked

_CACHE = 1_250_000  # bytes of slices that stay in a core's cache

Pool = Callable[[Any], Any]
"""What stands between the last convolution and the readout: `[n, h, w, c] -> [n, positions, c]`."""


def flatten(h: Float[Array, "n h w c"]) -> Float[Array, "n hw c"]:
    """Every position has readout weights of its own."""
    return h.reshape(h.shape[0], -1, h.shape[-1])


def global_average(h: Float[Array, "n h w c"]) -> Float[Array, "n 1 c"]:
    """The mean over positions: the readout shares its weights among them."""
    return jnp.mean(h, axis=(1, 2))[:, None, :]


def conv(
    shape: Sequence[int],
    channels: Sequence[AnyWidth],
    outputs: int,
    *,
    activation: Activation,
    pool: Pool,
    filter_size: int = 3,
    scaling: Scaling = ntk,
    bias: float = 0.0,
    gain: Any = 1.0,
    output: Activation = identity,
) -> Model:
    """A convolutional network with a linear readout.

    Args:
        shape: `(h, w, c)` of one input.
        channels: `(c_1, …, c_L)`, integers or `Width`s (what a run receives along a `jd.widths` axis).
        outputs: k.
        activation: elementwise σ after every convolution.
        pool: `models.flatten` or `models.global_average`.
        filter_size: s, odd; outside the image are zeros.
        scaling: `models.ntk`, `models.standard` or `models.maximal_update`.
        bias: β, the standard deviation of the biases' contribution; 0 means no bias parameters.
        gain: g, h = g σ(z): a number, or `models.unit_gain(activation)`, √2 for ReLU, which keeps the second moment from layer to layer.
        output: elementwise function of the outputs; there is no infinite-width kernel unless it is the identity.

    Returns:
        A `Model`. Parameters are `{"conv_0": {"weight": [s, s, c, c_1], "bias": [c_1]}, …, "readout": {"weight": [positions · c_L, k]}}`.
        Inputs are [n, h, w, c], or flat [n, h w c]. `kernel` is the limit of all channels going to infinity, for activations
        that neural-tangents knows in closed form; with global average pooling it costs n² (h w)² numbers.

    Raises:
        ValueError: for a shape, channels or a filter that cannot be, a negative bias, or a gain that is not positive.

    Example:
        >>> model = conv((8, 8, 1), (16, 16), 10, activation=jax.nn.relu, pool=global_average)
        >>> params = model.init(jax.random.key(0))
        >>> model.apply(params, jnp.ones((5, 64))).shape
        (5, 10)
    """
    _check(shape, channels, outputs, filter_size, bias)
    check_gain(gain)
    hidden = with_gain(activation, gain)
    height, width, depth = shape
    num_positions = jax.eval_shape(pool, jax.ShapeDtypeStruct((1, height, width, 1), jnp.float32)).shape[1]
    sizes: tuple[AnyWidth, ...] = (depth, *channels)

    def position(layer: int) -> Position:
        return "input" if layer == 0 else "hidden"

    def scale(layer: int) -> Scale:
        return scaling(_times(sizes[layer], filter_size**2), sizes[layer + 1], position(layer))

    def bias_scale(layer: int) -> Scale:
        return scaling(1, sizes[layer + 1], position(layer))

    readout_scale = scaling(_times(sizes[-1], num_positions), outputs, "output")
    readout_bias_scale = scaling(1, outputs, "output")

    def init(key: Any) -> Params:
        params = {}
        for layer in range(len(channels)):
            layer_key = jax.random.fold_in(key, layer)
            fan_in, fan_out = sizes[layer], sizes[layer + 1]
            weight = _draw(layer_key, filter_size**2, fan_in, fan_out)
            weight = weight.reshape(filter_size, filter_size, *weight.shape[1:])
            params[f"conv_{layer}"] = {"weight": weight * jnp.asarray(scale(layer).deviation, weight.dtype)}
            if bias:
                offset = draw_bias(layer_key, fan_out)
                params[f"conv_{layer}"]["bias"] = offset * jnp.asarray(bias_scale(layer).deviation, offset.dtype)
        readout_key = jax.random.fold_in(key, len(channels))
        weight = _draw(readout_key, num_positions, sizes[-1], outputs)
        weight = weight.reshape(-1, outputs) * jnp.asarray(readout_scale.deviation, weight.dtype)
        params["readout"] = {"weight": weight}
        if bias:
            offset = draw_bias(readout_key, outputs)
            params["readout"]["bias"] = offset * jnp.asarray(readout_bias_scale.deviation, offset.dtype)
        return params

    def apply(params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n k"]:
        h = images(x, shape)
        for layer in range(len(channels)):
            leaf = params[f"conv_{layer}"]
            z = convolve(h, leaf["weight"]) * jnp.asarray(scale(layer).multiplier, h.dtype)
            if bias:
                z = z + (leaf["bias"] * jnp.asarray(bias * bias_scale(layer).multiplier, h.dtype))[None, None, None, :]
            h = masked(hidden(z), sizes[layer + 1])
        leaf = params["readout"]
        pooled = pool(h)
        z = (pooled.reshape(pooled.shape[0], -1) @ leaf["weight"]) * jnp.asarray(readout_scale.multiplier, h.dtype)
        if bias:
            z = z + (leaf["bias"] * jnp.asarray(bias * readout_bias_scale.multiplier, h.dtype))[None, :]
        return output(z)

    def kernel(x1: Any, x2: Any = None, *, tolerance: float = 1e-8) -> Kernels:
        check_kernel(scaling, output)
        from jaxdyn.models._neural_tangents import convolution_kernel

        if pool not in (flatten, global_average):
            raise ValueError(f"Only `flatten` and `global_average` have a known kernel, but `pool` is {pool!r}.")
        return convolution_kernel(
            x1,
            x2,
            activation=activation,
            shape=tuple(shape),
            num_hidden=len(channels),
            filter_size=filter_size,
            is_averaged=pool is global_average,
            bias=bias,
            gain=gain,
        )

    return Model(init, apply, kernel)


def images(x: Any, shape: Sequence[int]) -> Any:
    """Inputs as [n, h, w, c]."""
    if math.prod(x.shape[1:]) != math.prod(shape):
        raise ValueError(f"This network takes inputs of shape {tuple(shape)}, but x has shape {tuple(x.shape)}.")
    return x.reshape(x.shape[0], *shape)


def convolve(
    x: Float[Array, "n h w c"], weight: Float[Array, "s s c m"], *, stride: int = 1
) -> Float[Array, "n h2 w2 m"]:
    """The convolution (cross-correlation) with zeros outside, in the form that is fast on the platform it is compiled for.

    Args:
        x: inputs.
        weight: filters, s odd.
        stride: every how many positions an output is taken, from the first; ⌈h / stride⌉ × ⌈w / stride⌉ of them.

    Example:
        >>> convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
        [[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]]
    """
    blocks, shifted, whole = (partial(one, stride=stride) for one in (_in_blocks, _shifted, _whole))
    return jax.lax.platform_dependent(x, weight, cpu=blocks, cuda=whole, rocm=whole, tpu=whole, default=shifted)


def _in_blocks(x: Any, weight: Any, stride: int = 1) -> Any:
    """A few examples at a time, as many as divide their number; their slices are made again for the gradient rather than kept."""
    num, *image = x.shape
    # [m, s² c]: its gradient is then a product of two row-major matrices
    matrix = weight.reshape(-1, weight.shape[3]).T
    most = max(1, _CACHE // (image[0] * image[1] * matrix.shape[1] * x.dtype.itemsize // stride**2 + 1))
    together = next(size for size in range(min(most, num), 0, -1) if num % size == 0) if num else 1
    if together in (1, num):
        return _shifted(x, weight, stride)

    def block(matrix: Any, x: Any) -> Any:
        patches = _patches(x, weight.shape[0], stride)
        product = jax.lax.dot_general(matrix, patches.reshape(-1, matrix.shape[1]), (((1,), (1,)), ((), ())))
        return product.T.reshape(*patches.shape[:3], -1)

    forgetful = jax.checkpoint(block, prevent_cse=False)
    blocks = jax.lax.map(lambda x: forgetful(matrix, x), x.reshape(-1, together, *image))
    return blocks.reshape(num, *blocks.shape[2:])


def _shifted(x: Any, weight: Any, stride: int = 1) -> Any:
    """Shifted copies side by side, times one matrix."""
    return _patches(x, weight.shape[0], stride) @ weight.reshape(-1, weight.shape[3])


def _patches(x: Any, size: int, stride: int) -> Any:
    """What each output sees, [n, h2, w2, s² c]."""
    _, height, width, _ = x.shape
    edge = size // 2
    padded = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    shifts = [(i, j) for i in range(size) for j in range(size)]
    patches = [padded[:, i : i + height : stride, j : j + width : stride, :] for i, j in shifts]
    return jnp.concatenate(patches, axis=-1)


def _whole(x: Any, weight: Any, stride: int = 1) -> Any:
    """XLA's convolution."""
    edge = weight.shape[0] // 2
    padding = [(edge, edge), (edge, edge)]  # "SAME" with a stride would put the odd zero behind
    return jax.lax.conv_general_dilated(
        x, weight, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _draw(key: Any, positions: int, rows: AnyWidth, columns: AnyWidth) -> Any:
    """Standard normal weights [positions, rows, columns], prefix-stable in rows and columns."""
    return jax.vmap(lambda position: draw(jax.random.fold_in(key, position), rows, columns))(jnp.arange(positions))


def _times(width: AnyWidth, factor: int) -> AnyWidth:
    if isinstance(width, Width):
        return Width(width.maximum * factor, width.active * factor)
    return width * factor


def _check(shape: Sequence[int], channels: Sequence[AnyWidth], outputs: int, filter_size: int, bias: float) -> None:
    numbers = [*shape, outputs, filter_size, *(c for c in channels if not isinstance(c, Width))]
    if any(isinstance(size, bool) or not hasattr(size, "__index__") or size < 1 for size in numbers):
        raise ValueError(
            f"`shape`, `channels`, `outputs` and `filter_size` are positive integers, but are {tuple(shape)}, {tuple(channels)}, "
            f"{outputs} and {filter_size}."
        )
    if len(shape) != 3 or not channels:
        raise ValueError(
            f"`shape` is (height, width, channels) and `channels` names one layer or more, but they are {tuple(shape)} and "
            f"{tuple(channels)}."
        )
    if filter_size % 2 == 0:
        raise ValueError(f"`filter_size` must be odd, so that the image keeps its size, but is {filter_size}.")
    if bias < 0:
        raise ValueError(f"`bias` is a standard deviation, at least 0, but is {bias}.")
