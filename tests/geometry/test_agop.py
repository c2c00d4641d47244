"""AGOP against closed forms, explicit loops over examples, and sub-networks that begin at the layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import geometry, models

pytestmark = pytest.mark.usefixtures("x64")


def by_loop(f, x):
    """1/n Σ_j J_jᵀ J_j, one example and one output at a time."""
    d = x[0].size
    total = np.zeros((d, d))
    jacobian = jax.jit(jax.jacobian(lambda e: f(e[None])[0]))
    for example in x:
        for row in np.asarray(jacobian(example)).reshape(-1, d):
            total += np.outer(row, row)
    return total / len(x)


def test_agop_of_a_product_of_coordinates_is_known():
    x = jax.random.normal(jax.random.key(0), (50, 4))
    a, b = np.asarray(x[:, 0]), np.asarray(x[:, 1])
    expected = np.zeros((4, 4))
    expected[:2, :2] = [[np.mean(b**2), np.mean(a * b)], [np.mean(a * b), np.mean(a**2)]]
    np.testing.assert_allclose(geometry.agop(lambda x: x[:, :1] * x[:, 1:2], x), expected, atol=1e-14)


def test_agop_of_a_linear_map_is_its_gram_matrix():
    weight = jax.random.normal(jax.random.key(0), (6, 3))
    x = jax.random.normal(jax.random.key(1), (10, 6))
    np.testing.assert_allclose(geometry.agop(lambda x: x @ weight, x), weight @ weight.T, atol=1e-13)


def test_agop_of_a_quadratic_form_in_expectation_is_its_square():
    form = jnp.diag(jnp.array([1.0, 2.0, 0.0]))
    x = jax.random.normal(jax.random.key(0), (200_000, 3))
    found = geometry.agop(lambda x: 0.5 * jnp.sum(x @ form * x, axis=1, keepdims=True), x)
    np.testing.assert_allclose(found, form @ form, atol=0.05)


@pytest.mark.parametrize("memory", [1, 3000, 2**28])
@pytest.mark.parametrize("k", [1, 3])
def test_agop_of_a_network_is_the_loop_whatever_the_blocks(memory, k):
    model = models.mlp((6, 8, k), activation=jnp.tanh, bias=0.2)
    params = model.init(jax.random.key(0))
    f = lambda x: model.apply(params, x)  # noqa: E731
    x = jax.random.normal(jax.random.key(1), (7, 2, 3))  # inputs that are not flat
    np.testing.assert_allclose(geometry.agop(f, x, memory=memory), by_loop(f, x), atol=1e-13)


def test_examples_that_fill_up_a_block_do_not_count():
    f = lambda x: jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True))  # noqa: E731 - zeros would give NaN
    x = jax.random.normal(jax.random.key(0), (5, 3))
    np.testing.assert_allclose(geometry.agop(f, x, memory=2 * 3 * 8 * 2), by_loop(f, x), atol=1e-14)


def test_factor_is_a_factor():
    model = models.mlp((6, 8, 2), activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    f = lambda x: model.apply(params, x)  # noqa: E731
    x = jax.random.normal(jax.random.key(1), (7, 6))
    factor = geometry.agop_factor(f, x)
    assert factor.shape == (14, 6)
    np.testing.assert_allclose(factor.T @ factor, geometry.agop(f, x), atol=1e-13)


def test_agop_lives_inside_jit_and_vmap():
    model = models.mlp((3, 4, 1), activation=jnp.tanh)
    members = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))
    x = jax.random.normal(jax.random.key(1), (5, 3))
    found = jax.jit(jax.vmap(lambda p: geometry.agop(lambda x: model.apply(p, x), x)))(members)
    for i in range(2):
        params = jax.tree.map(lambda leaf, i=i: leaf[i], members)
        np.testing.assert_allclose(found[i], by_loop(lambda x, p=params: model.apply(p, x), x), atol=1e-13)


def test_layer_agop_is_the_agop_of_the_network_from_that_layer_on():
    model = models.mlp((5, 7, 6, 2), activation=jnp.tanh, bias=0.1)
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (9, 5))

    def layer(h, name):
        leaf = params[name]
        return h @ leaf["weight"] / jnp.sqrt(h.shape[1] * 1.0) + 0.1 * leaf["bias"][None, :]

    h1 = jnp.tanh(layer(x, "dense_0"))
    h2 = jnp.tanh(layer(h1, "dense_1"))
    from_first = lambda h: layer(jnp.tanh(layer(h, "dense_1")), "dense_2")  # noqa: E731
    np.testing.assert_allclose(from_first(h1), model.apply(params, x), atol=1e-13)
    expected = {"dense_1/weight": by_loop(from_first, h1), "dense_2/weight": by_loop(lambda h: layer(h, "dense_2"), h2)}
    size = {"dense_1/weight": 6 * 2 * 2 * 8, "dense_2/weight": 2 * 2 * 2 * 8}  # bytes for an example
    for path, matrix in expected.items():
        for block in (1, 5, 9):  # nine examples in blocks of five: the last is filled up
            agop = jax.jit(lambda p: geometry.layer_agop(model.apply, p, x, layer=path, memory=block * size[path]))  # noqa: B023
            np.testing.assert_allclose(agop(params), matrix, atol=1e-13)


def test_first_layer_agop_is_the_agop():
    model = models.mlp((5, 7, 1), activation=jax.nn.relu)
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (9, 5))
    whole = geometry.agop(lambda x: model.apply(params, x), x)
    for layer in ("dense_0/weight", ("dense_0", "weight")):
        found = jax.jit(lambda p, layer=layer: geometry.layer_agop(model.apply, p, x, layer=layer))(params)
        np.testing.assert_allclose(found, whole, atol=1e-14)


def test_layer_agop_of_a_transposed_scaled_weight_on_the_left():
    params = {"w": jax.random.normal(jax.random.key(0), (4, 3))}
    apply = lambda p, x: jnp.tanh((0.5 * p["w"]).T @ x.T).T  # noqa: E731
    x = jax.random.normal(jax.random.key(1), (6, 4))
    found = geometry.layer_agop(apply, params, x, layer="w")
    np.testing.assert_allclose(found, by_loop(lambda x: apply(params, x), x), atol=1e-13)


def test_a_shared_weight_sums_its_uses():
    params = {"w": 0.3 * jax.random.normal(jax.random.key(0), (4, 4)), "v": jnp.ones((4, 1))}
    x = jax.random.normal(jax.random.key(1), (6, 4))
    apply = lambda p, x: jnp.tanh(jnp.tanh(x @ p["w"]) @ p["w"]) @ p["v"]  # noqa: E731
    second = lambda h: jnp.tanh(h @ params["w"]) @ params["v"]  # noqa: E731
    expected = by_loop(lambda x: apply(params, x), x) + by_loop(second, jnp.tanh(x @ params["w"]))
    np.testing.assert_allclose(geometry.layer_agop(apply, params, x, layer="w"), expected, atol=1e-13)


def test_layer_agop_of_a_convolution_sums_over_patches():
    module = nn.Conv(3, (2, 2), padding="VALID", use_bias=False)
    x = jax.random.normal(jax.random.key(1), (4, 5, 5, 2))
    params = module.init(jax.random.key(0), x)["params"]
    head = jax.random.normal(jax.random.key(2), (4, 4, 3, 2))

    def after(z):
        return jnp.einsum("nijc,ijca->na", jnp.tanh(z), head)

    kernel = np.asarray(params["kernel"]).reshape(8, 3)  # height, width, in
    expected = np.zeros((8, 8))
    for example in x:
        patches = np.stack([np.asarray(example[i : i + 2, j : j + 2]).reshape(-1) for i in range(4) for j in range(4)])
        jacobian = jax.jacobian(lambda p: after((p @ kernel).reshape(1, 4, 4, 3))[0])(jnp.asarray(patches))
        expected += np.einsum("apd,ape->de", jacobian, jacobian)
    apply = lambda p, x: after(module.apply({"params": p}, x))  # noqa: E731
    found = geometry.layer_agop(apply, params, x, layer="kernel")
    np.testing.assert_allclose(found, expected / 4, atol=1e-12)


@pytest.mark.parametrize(("layer", "match"), [("dense_9/weight", "dense_0/weight"), ("dense_0/bias", "dense_1/weight")])
def test_a_wrong_path_lists_the_right_ones(layer, match):
    model = models.mlp((3, 4, 1), activation=jnp.tanh, bias=0.1)
    params = model.init(jax.random.key(0))
    with pytest.raises(ValueError, match=match):
        geometry.layer_agop(model.apply, params, jnp.ones((2, 3)), layer=layer)


def test_neural_feature_matrix_is_the_gram_matrix_of_the_inputs():
    weight = jax.random.normal(jax.random.key(0), (2, 2, 3, 5))
    anchor = {"conv": {"kernel": jnp.ones_like(weight)}}
    rows = np.asarray(weight).reshape(12, 5)
    found = geometry.neural_feature_matrix({"conv": {"kernel": weight}}, layer="conv/kernel")
    np.testing.assert_allclose(found, rows @ rows.T, atol=1e-13)
    moved = geometry.neural_feature_matrix({"conv": {"kernel": weight}}, layer="conv/kernel", params0=anchor)
    np.testing.assert_allclose(moved, (rows - 1) @ (rows - 1).T, atol=1e-13)
    with pytest.raises(ValueError, match="bias"):
        geometry.neural_feature_matrix({"bias": jnp.ones(3)}, layer="bias")


def test_functions_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[:, None\]"):
        geometry.agop(lambda x: x[:, 0], jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="at least one example"):
        geometry.agop(lambda x: x, jnp.ones((0, 2)))
