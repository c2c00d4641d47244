r"""Image networks of practice in NTK scaling: wide ResNets and vision transformers.

Every weight is N(0, 1) and every product is divided by √fan_in, as in the other families; there are no biases, and no gain for the
activation. Normalisation is a function without parameters of the features of one example: `group_norm(g)` or `layer_norm`
stand where the papers of practice have batch statistics, which make examples interact and have no tangent kernel.

**Wide ResNet** WRN-d-k, pre-activated, d = 6N + 4: a 3×3 stem, three groups of N blocks with channels c k, 2c k, 4c k (c = 16), the second
and third group starting with stride 2, then normalise, activate, average, read out. With a = σ(normalise(h)) a block is

    h ← shortcut + conv(σ(normalise(conv(a)))),    shortcut = h, or the 1×1 convolution of a where the shape changes.

**ViT**: patches, z = patch · W/√(p² c) + position (weights N(0, 1), fan_in 1), blocks

    h ← h + attention(layer_norm(h)),    h ← h + σ(layer_norm(h) W_1/√m) W_2/√(r m),

with scores q·k/√(m/heads), then layer norm, the *mean over tokens* (there is no class token) and the readout.

Neither has an infinite-width kernel that jaxdyn knows; the tangent kernel at given parameters is `geometry.ntk`.

References:
    Zagoruyko, Komodakis, arXiv 1605.07146 (wide ResNet). Dosovitskiy et al., arXiv 2010.11929 (ViT). Zhu et al., arXiv 2306.04815
    (WRN-10-10 and ViT-4). Wu, He, arXiv 1803.08494 (group norm).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdyn._typing import Params
from jaxdyn.models.base import Model
from jaxdyn.models.conv import convolve, images
from jaxdyn.models.mlp import Activation
from jaxdyn.models.scaling import ntk
from jaxdyn.models.width import draw

Normalise = Callable[[Any], Any]
"""A function of features, channels last, that mixes no examples and has no parameters."""

_EPSILON = 1e-5  # added to variances


def layer_norm(h: Float[Array, "..."]) -> Float[Array, "..."]:
    """Mean 0 and variance 1 over the channels, at each position of each example (1e-5 is added to the variance).

    Example:
        >>> layer_norm(jnp.array([[1.0, 3.0]])).round(2).tolist()
        [[-1.0, 1.0]]
    """
    centred = h - jnp.mean(h, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + _EPSILON)


def group_norm(num: int) -> Normalise:
    """Mean 0 and variance 1 over all positions and the channels of a group, for each example (1e-5 is added to the variance).

    Args:
        num: the number of groups, which divides the channels; 1 is the layer norm of convolutional networks.

    Raises:
        ValueError: for a number that is not positive, or (when applied) does not divide the channels.

    Example:
        >>> group_norm(2)(jnp.array([1.0, 5.0, 3.0, 9.0]).reshape(1, 2, 1, 2)).round(2).flatten().tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    if num < 1:
        raise ValueError(f"`group_norm` takes a number of groups of at least 1, but got {num}.")

    def normalise(h: Any) -> Any:
        if h.shape[-1] % num:
            raise ValueError(f"{num} groups do not divide {h.shape[-1]} channels; choose a divisor.")
        grouped = h.reshape(*h.shape[:-1], num, -1)
        axes = (*range(1, grouped.ndim - 2), grouped.ndim - 1)
        centred = grouped - jnp.mean(grouped, axis=axes, keepdims=True)
        return (centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=axes, keepdims=True) + _EPSILON)).reshape(h.shape)

    return normalise


def wide_resnet(
    shape: Sequence[int],
    outputs: int,
    *,
    widen: int,
    normalise: Normalise,
    depth: int = 10,
    channels: int = 16,
    activation: Activation = jax.nn.relu,
) -> Model:
    """The wide ResNet WRN-`depth`-`widen` in NTK scaling, without batch statistics.

    Args:
        shape: `(h, w, c)` of one input.
        outputs: k.
        widen: how many times wider than a ResNet: channels are 16, 32 and 64 times this.
        normalise: `group_norm(g)`, `layer_norm`, or a function of your own; `models.identity` for none.
        depth: 10, 16, 22, …: 6N + 4 with N blocks a group.
        channels: of the stem, and of the first group before widening.
        activation: σ.

    Returns:
        A `Model` whose parameters are `{"stem": {"weight": [3, 3, c, 16]}, "group_0_block_0": {"conv_0": {"weight": …}, "conv_1": …,
        "shortcut": … where the shape changes}, …, "readout": {"weight": [64 widen, k]}}`. Inputs are [n, h, w, c], or flat [n, h w c].

    Raises:
        ValueError: for a depth that is not 6N + 4, or numbers that are not positive integers.

    Example:
        >>> model = wide_resnet((8, 8, 3), 10, widen=1, normalise=group_norm(4))  # WRN-10-1
        >>> jax.eval_shape(model.apply, jax.eval_shape(model.init, jax.random.key(0)), jnp.ones((5, 8, 8, 3))).shape
        (5, 10)
    """
    _check(shape, outputs=outputs, widen=widen, channels=channels)
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"A wide ResNet has depth 6N + 4, so 10, 16, 22, …, but `depth` is {depth}.")
    num_blocks = (depth - 4) // 6
    # (name, channels before, channels after, stride)
    blocks = [
        (
            f"group_{group}_block_{block}",
            channels if (group, block) == (0, 0) else channels * widen * 2 ** (group if block else group - 1),
            channels * widen * 2**group,
            2 if group and not block else 1,
        )
        for group in range(3)
        for block in range(num_blocks)
    ]

    def init(key: Any) -> Params:
        shapes: dict[str, Any] = {"stem": (3, 3, shape[2], channels), "readout": (blocks[-1][2], outputs)}
        for name, before, after, stride in blocks:
            shapes[name] = {"conv_0": (3, 3, before, after), "conv_1": (3, 3, after, after)}
            if _changes(before, after, stride):
                shapes[name]["shortcut"] = (1, 1, before, after)
        return _drawn(key, shapes)

    def apply(params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n k"]:
        h = _filtered(images(x, shape), params["stem"])
        for name, before, after, stride in blocks:
            leaf = params[name]
            a = activation(normalise(h))
            z = _filtered(a, leaf["conv_0"], stride)
            shortcut = _filtered(a, leaf["shortcut"], stride) if _changes(before, after, stride) else h
            h = shortcut + _filtered(activation(normalise(z)), leaf["conv_1"])
        return _times(jnp.mean(activation(normalise(h)), axis=(1, 2)), params["readout"])

    return Model(init, apply)


def vit(
    shape: Sequence[int],
    outputs: int,
    *,
    patch: int,
    width: int,
    heads: int,
    depth: int = 4,
    expansion: int = 4,
    activation: Activation = jax.nn.gelu,
) -> Model:
    """A vision transformer in NTK scaling: pre-normalised blocks, mean over tokens, no class token.

    Args:
        shape: `(h, w, c)` of one input.
        outputs: k.
        patch: p, side of a patch; it divides h and w.
        width: m, features of a token.
        heads: attention heads; they divide m.
        depth: blocks.
        expansion: r, hidden features of a block's perceptron in units of m.
        activation: σ of the perceptrons.

    Returns:
        A `Model` whose parameters are `{"embed": {"weight": [p² c, m]}, "position": {"weight": [tokens, m]}, "block_0": {"query":
        {"weight": [m, m]}, "key": …, "value": …, "attended": …, "expand": {"weight": [m, r m]}, "contract": …}, …, "readout": …}`.
        Inputs are [n, h, w, c], or flat [n, h w c].

    Raises:
        ValueError: for patches that do not tile the image, heads that do not divide the width, or numbers that are not positive integers.

    Example:
        >>> model = vit((8, 8, 3), 10, patch=4, width=16, heads=2)
        >>> jax.eval_shape(model.apply, jax.eval_shape(model.init, jax.random.key(0)), jnp.ones((5, 192))).shape
        (5, 10)
    """
    _check(shape, outputs=outputs, patch=patch, width=width, heads=heads, depth=depth, expansion=expansion)
    if shape[0] % patch or shape[1] % patch:
        raise ValueError(
            f"Patches of side {patch} do not tile an image of {shape[0]} × {shape[1]}; choose a common divisor."
        )
    if width % heads:
        raise ValueError(f"{heads} heads do not divide a width of {width}; choose a multiple.")
    num_tokens = shape[0] * shape[1] // patch**2
    hidden = expansion * width

    def init(key: Any) -> Params:
        shapes: dict[str, Any] = {
            "embed": (patch**2 * shape[2], width),
            "position": (num_tokens, width),
            "readout": (width, outputs),
        }
        for block in range(depth):
            square = dict.fromkeys(("query", "key", "value", "attended"), (width, width))
            shapes[f"block_{block}"] = {**square, "expand": (width, hidden), "contract": (hidden, width)}
        return _drawn(key, shapes)

    def attention(h: Any, leaf: Any) -> Any:
        """Every token looks at all tokens of its example, [n, t, m]."""
        query, key, value = (
            _times(h, leaf[name]).reshape(*h.shape[:2], heads, -1) for name in ("query", "key", "value")
        )
        scores = jnp.einsum("nihe,njhe->nhij", query, key) * jnp.asarray((width // heads) ** -0.5, h.dtype)
        mixed = jnp.einsum("nhij,njhe->nihe", jax.nn.softmax(scores, axis=-1), value)
        return _times(mixed.reshape(h.shape), leaf["attended"])

    def apply(params: Any, x: Float[Array, " n *d"]) -> Float[Array, "n k"]:
        rows, columns = shape[0] // patch, shape[1] // patch
        tiles = images(x, shape).reshape(-1, rows, patch, columns, patch, shape[2]).swapaxes(2, 3)
        h = _times(tiles.reshape(-1, num_tokens, patch**2 * shape[2]), params["embed"])
        h = h + params["position"]["weight"][None]
        for block in range(depth):
            leaf = params[f"block_{block}"]
            h = h + attention(layer_norm(h), leaf)
            h = h + _times(activation(_times(layer_norm(h), leaf["expand"])), leaf["contract"])
        return _times(jnp.mean(layer_norm(h), axis=1), params["readout"])

    return Model(init, apply)


def _drawn(key: Any, shapes: Any) -> Any:
    """Weights N(0, 1) of a tree of shapes `(*filter, fan_in, fan_out)`, each from a stream of its own."""
    leaves, structure = jax.tree.flatten(shapes, is_leaf=lambda shape: isinstance(shape, tuple))
    streams = [jax.random.fold_in(key, index) for index in range(len(leaves))]
    weights = [
        draw(stream, math.prod(shape[:-1]), shape[-1]).reshape(shape)
        for stream, shape in zip(streams, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, [{"weight": weight} for weight in weights])


def _times(h: Any, leaf: Any) -> Any:
    """The product h W, divided by √fan_in."""
    fan_in, fan_out = leaf["weight"].shape
    return (h @ leaf["weight"]) * jnp.asarray(ntk(fan_in, fan_out, "hidden").multiplier, h.dtype)


def _filtered(h: Any, leaf: Any, stride: int = 1) -> Any:
    """The convolution of h with W, divided by √fan_in."""
    size, _, before, after = leaf["weight"].shape
    multiplier = ntk(size**2 * before, after, "hidden").multiplier
    return convolve(h, leaf["weight"], stride=stride) * jnp.asarray(multiplier, h.dtype)


def _changes(before: int, after: int, stride: int) -> bool:
    """Whether a block changes the shape, so that its shortcut cannot be the identity."""
    return before != after or stride != 1


def _check(shape: Sequence[int], **numbers: Any) -> None:
    for name, number in {**numbers, **dict(zip(("height", "width", "channels"), shape, strict=False))}.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(
                f"`{name}` is a positive integer, but is {number!r}. (The families of `models.vision` take no padded widths: sweep "
                "sizes with `loop=`.)"
            )
    if len(shape) != 3:
        raise ValueError(f"`shape` is (height, width, channels) of one image, but is {tuple(shape)}.")
