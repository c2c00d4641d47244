"""Convolutions and embeddings in the tangent kernel: parameters used at many positions of an example."""

import jax.numpy as jnp
import numpy as np
import pytest
from geometry.reference import assert_exact, assert_exact_on, normal, params_of, routes
from jax import lax

pytestmark = pytest.mark.usefixtures("x64")

IMAGES = normal(1, 3, 6, 6, 4)
TOKENS = np.random.default_rng(3).integers(0, 9, (4, 5))
SEQUENCE = normal(4, 3, 6, 4)


def conv(h, w, strides=(1, 1), padding="SAME", **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(h, w, strides, padding, dimension_numbers=numbers, **options)


def pixels(h):
    return h.reshape(h.shape[0], -1)[:, :4]


PRODUCTS = {
    "embedding": (lambda p, t: jnp.tanh(p["e"][t]).sum(1) @ p["w"], {"e": (9, 4), "w": (4, 2)}, TOKENS),
    "embedding in columns": (lambda p, t: jnp.tanh(p["e"][:, t]).sum(2).T, {"e": (3, 9)}, TOKENS),
    "tied embedding": (lambda p, t: (jnp.tanh(p["e"][t]).sum(1) @ p["e"].T)[:, ::3], {"e": (9, 4)}, TOKENS),
    "scaled embedding": (lambda p, t: jnp.tanh((2 * p["e"])[t]).sum(1), {"e": (9, 4)}, TOKENS),
    "embedding of a slice": (
        lambda p, t: p["e"][t].sum(1) + jnp.tanh(p["e"][2:][t // 2]).sum(1),
        {"e": (9, 4)},
        TOKENS,
    ),
    "embedding out of bounds": (
        lambda p, t: jnp.nan_to_num(jnp.take(p["e"], t + 3, axis=0, mode="fill")).sum(1),
        {"e": (9, 4)},
        TOKENS,
    ),
    "convolution": (lambda p, x: pixels(jnp.tanh(conv(x, p["w"]))), {"w": (3, 3, 4, 2)}, IMAGES),
    "strided convolution": (lambda p, x: pixels(conv(x, p["w"], (2, 1), "VALID")), {"w": (2, 3, 4, 2)}, IMAGES),
    "dilated convolution": (
        lambda p, x: pixels(conv(x, p["w"], padding=((1, -1), (2, 0)), rhs_dilation=(2, 1), lhs_dilation=(1, 2))),
        {"w": (2, 3, 4, 2)},
        IMAGES,
    ),
    "patches": (lambda p, x: pixels(conv(x, p["w"], (3, 2), "VALID")), {"w": (3, 2, 4, 2)}, IMAGES),
    "grouped convolution": (
        lambda p, x: pixels(jnp.tanh(conv(x, p["w"], feature_group_count=2))),
        {"w": (3, 3, 2, 6)},
        IMAGES,
    ),
    "depthwise convolution": (
        lambda p, x: pixels(jnp.tanh(conv(x, p["w"] * 0.5, feature_group_count=4))),
        {"w": (3, 3, 1, 4)},
        IMAGES,
    ),
    "kernels first": (
        lambda p, x: pixels(lax.conv_general_dilated(x.transpose(0, 3, 1, 2), p["w"], (1, 1), "SAME")),
        {"w": (2, 4, 3, 3)},
        IMAGES,
    ),
    "one dimension": (
        lambda p, x: lax.conv_general_dilated(x, p["w"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")).sum(1),
        {"w": (3, 4, 2)},
        SEQUENCE,
    ),
    "wide kernel": (lambda p, x: pixels(conv(x, p["w"])), {"w": (9, 9, 4, 1)}, IMAGES),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_exact_on_both_routes(name, monkeypatch):
    assert_exact_on(("outer", "formed"), *PRODUCTS[name], monkeypatch)


def test_standardised_kernel_is_exact():
    def apply(p, x):
        centred = p["w"] - p["w"].mean((0, 1, 2), keepdims=True)
        return pixels(conv(x, centred / centred.std((0, 1, 2), keepdims=True)))

    params = params_of({"w": (3, 3, 4, 2)})
    assert_exact(apply, params, IMAGES, IMAGES[:2])
    assert routes(apply, params, IMAGES)["w"] == "formed"
