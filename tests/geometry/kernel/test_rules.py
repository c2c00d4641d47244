"""Every rule of the tangent kernel against explicit Jacobians in float64, on every route that the rule allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry.reference import assert_exact, assert_exact_on, normal, params_of, routes
from jax import lax
from jax.flatten_util import ravel_pytree

import jaxdyn as jd
from jaxdyn.geometry.kernel import ntk_blocks

pytestmark = pytest.mark.usefixtures("x64")


IMAGES = normal(1, 3, 6, 6, 4)
FLAT = normal(2, 4, 5)
TOKENS = np.random.default_rng(3).integers(0, 9, (4, 5))
SEQUENCE = normal(4, 3, 6, 4)

SEPARABLE = {
    "weights on the right": (lambda p, x: jnp.tanh(x @ p["u"]) @ p["v"], {"u": (5, 7), "v": (7, 3)}, FLAT),
    "weights on the left": (lambda p, x: (p["v"] @ jnp.tanh(p["u"] @ x.T)).T, {"u": (7, 5), "v": (3, 7)}, FLAT),
    "positions": (lambda p, x: jnp.tanh(x @ p["u"]).sum(1) @ p["v"], {"u": (4, 7), "v": (7, 2)}, SEQUENCE),
    "batched heads": (
        lambda p, x: jnp.einsum("nhd,hde->ne", jnp.tanh(jnp.einsum("nsd,hde->nhe", x, p["u"])), p["v"]),
        {"u": (2, 4, 3), "v": (2, 3, 3)},
        SEQUENCE,
    ),
    "three contracted axes": (lambda p, x: jnp.einsum("nijk,ijkl->nl", x, p["w"]), {"w": (6, 6, 4, 2)}, IMAGES),
    "tied by transposition": (lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"].T, {"w": (5, 7)}, FLAT),
    "used three times": (lambda p, x: jnp.tanh(jnp.tanh(x @ p["w"]) @ p["w"]) @ p["w"], {"w": (5, 5)}, FLAT),
    "scaled by numbers": (lambda p, x: x @ (-(p["w"] * 3.0 / 7) / jnp.sqrt(2.0)), {"w": (5, 3)}, FLAT),
    "masked rows": (lambda p, x: x @ (p["w"] * jnp.arange(5.0)[:, None]), {"w": (5, 3)}, FLAT),
    "masked columns": (lambda p, x: x @ (p["w"] / jnp.arange(1.0, 4.0)[None]), {"w": (5, 3)}, FLAT),
    "scaled by another parameter": (lambda p, x: x @ (p["w"] * p["s"][None]), {"w": (5, 3)}, FLAT),
    "reshaped by axes": (lambda p, x: x @ p["w"].reshape(5, 6), {"w": (5, 2, 3)}, FLAT),
    "mixed by a reshape": (lambda p, x: x @ p["w"].reshape(5, 3), {"w": (3, 5)}, FLAT),
    "transposed": (lambda p, x: x @ jnp.transpose(p["w"], (2, 0, 1)).reshape(5, 4), {"w": (2, 2, 5)}, FLAT),
    "squeezed and expanded": (lambda p, x: x @ p["w"][:, 0, :, None].reshape(5, 3), {"w": (5, 1, 3)}, FLAT),
    "sliced with overlap": (lambda p, x: jnp.tanh(x[:, :3] @ p["w"][:3]) + x[:, 1:] @ p["w"][1:], {"w": (5, 3)}, FLAT),
    "strided": (lambda p, x: x @ p["w"][1::2] + x @ p["w"][:5], {"w": (11, 3)}, FLAT),
    "one row": (lambda p, x: x[:, :1] @ p["w"][2:3] + x @ p["w"], {"w": (5, 3)}, FLAT),
    "concatenated": (lambda p, x: x @ jnp.concatenate([p["u"], p["v"], p["u"][:2]]), {"u": (2, 3), "v": (1, 3)}, FLAT),
    "sum with its transpose": (lambda p, x: jnp.tanh(x @ (p["w"] + p["w"].T)), {"w": (5, 5)}, FLAT),
    "difference": (lambda p, x: jnp.tanh(x @ (1.0 - p["w"])) @ (p["w"] - 2.0), {"w": (5, 5)}, FLAT),
    "broadcast": (lambda p, x: x @ jnp.broadcast_to(p["w"][:, None], (5, 3)), {"w": (5,)}, FLAT),
    "summed": (lambda p, x: x @ p["w"].sum(1), {"w": (5, 2, 3)}, FLAT),
    "flipped": (lambda p, x: x @ p["w"][::-1] + x @ p["w"], {"w": (5, 3)}, FLAT),
    "nested calls": (
        lambda p, x: jax.jit(jax.checkpoint(lambda w, h: jnp.tanh(h @ w)))(p["w"], x),
        {"w": (5, 3)},
        FLAT,
    ),
    "platform dependent": (
        lambda p, x: lax.platform_dependent(x, p["w"], cpu=lambda h, w: h @ w, default=lambda h, w: (w.T @ h.T).T),
        {"w": (5, 3)},
        FLAT,
    ),
    "recurrence": (
        lambda p, x: lax.scan(lambda h, s: (jnp.tanh(h @ p["w"] + s @ p["u"]), None), x[:, 0], x.swapaxes(0, 1))[0],
        {"w": (4, 4), "u": (4, 4)},
        SEQUENCE,
    ),
    "stacked layers": (
        lambda p, x: lax.scan(lambda h, w: (jnp.tanh(h @ w), h[:, :1]), x, p["w"], reverse=True)[0],
        {"w": (3, 5, 5)},
        FLAT,
    ),
}

BACKPROPAGATED = {
    "bias": (lambda p, x: jnp.tanh(x @ p["w"] + p["b"][None]), {"b": (3,)}, FLAT),
    "bias at all positions": (lambda p, x: jnp.tanh(x + p["b"][None, None]).sum(1), {"b": (4,)}, SEQUENCE),
    "gain": (lambda p, x: jnp.tanh(x * p["b"][None]), {"b": (5,)}, FLAT),
    "scalar": (lambda p, x: jnp.tanh(x * p["b"]), {"b": ()}, FLAT),
    "nonlinear use": (lambda p, x: jnp.sin(x[:, :, None] * p["b"][None]).sum(1), {"b": (5, 3)}, FLAT),
    "power": (lambda p, x: jnp.abs(x) ** p["b"][None], {"b": (5,)}, FLAT),
    "without the example": (lambda p, x: jnp.broadcast_to(jnp.sin(p["b"])[None], (x.shape[0], 3)), {"b": (3,)}, FLAT),
    "learned token": (
        lambda p, x: jnp.tanh(jnp.concatenate([jnp.broadcast_to(p["b"], (x.shape[0], 1, 4)), x], axis=1)).sum(1),
        {"b": (1, 1, 4)},
        SEQUENCE,
    ),
    "kernel made by the example": (
        lambda p, x: jax.vmap(lambda e: jnp.convolve(p["b"], e, mode="valid"))(x),
        {"b": (8,)},
        FLAT,
    ),
    "long loop": (
        lambda p, x: lax.scan(lambda h, _: (jnp.tanh(h @ p["b"]), None), x, None, length=600)[0],
        {"b": (5, 5)},
        FLAT,
    ),
    "data-dependent branch": (
        lambda p, x: jax.vmap(lambda e: lax.cond(e[0] > 0, lambda: e @ p["b"], lambda: jnp.sin(e @ p["b"])))(x),
        {"b": (5, 3)},
        FLAT,
    ),
}

NONLINEAR_PLUMBING = {
    "weight normalisation": (
        lambda p, x: x @ (p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True)),
        {"w": (5, 3)},
        FLAT,
    ),
    "square": (lambda p, x: x @ p["w"] ** 2, {"w": (5, 3)}, FLAT),
    "low rank": (lambda p, x: x @ (p["u"] @ p["v"]), {"u": (5, 2), "v": (2, 3)}, FLAT),
    "stopped in part": (lambda p, x: x @ (p["w"] - lax.stop_gradient(p["w"] / 2) + p["w"] ** 3), {"w": (5, 3)}, FLAT),
}


@pytest.mark.parametrize("name", SEPARABLE)
def test_products_are_exact_on_both_routes(name, monkeypatch):
    assert_exact_on(("outer", "formed"), *SEPARABLE[name], monkeypatch)


def test_reshape_that_mixes_the_axes_of_both_factors_needs_whole_gradients(monkeypatch):
    apply = lambda p, x: jnp.tanh(x @ p["w"].reshape(5, 3)) + x[:, :3] @ p["w"][:, :3]  # noqa: E731
    assert_exact_on(("formed",), apply, {"w": (3, 5)}, FLAT, monkeypatch)


@pytest.mark.parametrize("name", BACKPROPAGATED)
def test_other_uses_are_exact(name):
    apply, shapes, x = BACKPROPAGATED[name]
    params = params_of(shapes)
    assert_exact(apply, params, x, x[:2])
    assert routes(apply, params, x)["b"] == "gradient"


@pytest.mark.parametrize("name", NONLINEAR_PLUMBING)
def test_nonlinear_plumbing_is_exact(name):
    apply, shapes, x = NONLINEAR_PLUMBING[name]
    params = params_of(shapes)
    assert_exact(apply, params, x, x[:2])
    assert {route for path, route in routes(apply, params, x).items() if path in shapes} == {"formed"}


@jax.custom_jvp
def passed_through(w):
    return jnp.round(w)


passed_through.defjvps(lambda tangent, out, w: tangent)


@jax.custom_vjp
def clipped(w, x):
    return x @ w


clipped.defvjp(lambda w, x: (x @ w, (w, x)), lambda kept, g: (jnp.clip(kept[1].T @ g, -0.1, 0.1), g @ kept[0].T))


@pytest.mark.parametrize(
    "apply", [lambda p, x: x @ passed_through(p["w"]), lambda p, x: jnp.tanh(clipped(p["w"], x))], ids=["jvp", "vjp"]
)
def test_custom_derivatives_are_part_of_the_function(apply):
    assert_exact(apply, {"w": normal(0, 5, 3)}, FLAT)


def test_flat_vector_of_parameters_takes_the_routes_of_its_pieces():
    model = jd.models.mlp((5, 32, 32, 2), activation=jnp.tanh, bias=0.3)
    flat, unravel = ravel_pytree(model.init(jax.random.key(0)))
    apply = lambda vector, x: model.apply(unravel(vector), x)  # noqa: E731
    assert_exact(apply, flat, FLAT)
    assert sorted(routes(apply, flat, FLAT).values()) == ["gradient"] * 3 + ["outer"] * 3


@pytest.mark.parametrize("expansion", [jd.linear, jd.quadratic, jd.taylor(3)], ids=["linear", "quadratic", "cubic"])
def test_taylor_models_take_the_routes_of_products(expansion):
    model = jd.models.mlp((5, 16, 16, 2), activation=jnp.tanh)
    params0 = model.init(jax.random.key(0))
    params = jax.tree.map(lambda w: w + 0.1 * normal(5, *w.shape), params0)
    apply = expansion(model.apply, params0)
    assert_exact(apply, params, FLAT)
    assert set(routes(apply, params, FLAT).values()) <= {"outer", "formed"}


def test_padded_network_has_the_kernel_of_the_unpadded_one_on_the_fast_route():
    x = jnp.asarray(FLAT)

    def kernel(width):
        model = jd.models.mlp((5, width, width, 2), activation=jax.nn.sigmoid)
        return ntk_blocks(model.apply, model.init(jax.random.key(0)), x)

    padded = jax.jit(jax.vmap(lambda active: kernel(jd.models.Width(24, active))))(jnp.array([8, 24]))
    for width, found in zip((8, 24), padded, strict=True):
        np.testing.assert_allclose(found, jax.jit(kernel, static_argnums=0)(width), atol=1e-12)
    model = jd.models.mlp((5, *[jd.models.Width(24, jnp.asarray(8))] * 2, 2), activation=jax.nn.sigmoid)
    assert set(routes(model.apply, model.init(jax.random.key(0)), x).values()) == {"outer"}
