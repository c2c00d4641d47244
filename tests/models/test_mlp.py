"""Fully connected networks against numpy, scalings against their definitions, padding against the unpadded network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd
from jaxdyn.models.width import Width


def test_network_is_the_written_formula(x64):
    model = jd.models.mlp((3, 5, 4, 2), activation=jnp.tanh, bias=0.3)
    params = model.init(jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(6, 3))
    h = x
    for layer, fan_in in enumerate((3, 5, 4)):
        leaf = params[f"dense_{layer}"]
        z = h @ np.asarray(leaf["weight"]) / np.sqrt(fan_in) + 0.3 * np.asarray(leaf["bias"])
        h = np.tanh(z) if layer < 2 else z
    np.testing.assert_allclose(model.apply(params, jnp.asarray(x)), h, atol=1e-14)


def test_outputs_have_order_one_under_ntk_and_standard_scaling_and_vanish_under_mup():
    x = jax.random.normal(jax.random.key(1), (20, 16))

    def spread(scaling, width):
        model = jd.models.mlp((16, width, width, 1), activation=jax.nn.relu, scaling=scaling)
        keys = jax.random.split(jax.random.key(0), 200)
        return float(jnp.std(jax.vmap(lambda key: model.apply(model.init(key), x))(keys)))

    for scaling in (jd.models.ntk, jd.models.standard):
        assert 0.8 < spread(scaling, 32) / spread(scaling, 256) < 1.25
    ratio = spread(jd.models.maximal_update, 32) / spread(jd.models.maximal_update, 512)
    assert 3.2 < ratio < 5.0  # √16 = 4: the output of maximal-update networks falls like m^(-1/2)


def test_maximal_update_moves_features_equally_at_all_widths():
    task = jd.tasks.polynomial(jax.random.key(0), degree=1, dim=4, n=16)

    def feature_move(width):
        model = jd.models.mlp((4, width, width, 1), activation=jnp.tanh, scaling=jd.models.maximal_update)
        params0 = model.init(jax.random.key(1))
        training = jd.Training(model, task, optax.sgd(0.1), steps=5, key=jax.random.key(1), params0=params0)
        params = jd.train(training).final.params

        def features(p):
            scale = np.sqrt(width / 4)
            return jnp.tanh(jnp.tanh(task.x @ p["dense_0"]["weight"] * scale) @ p["dense_1"]["weight"])

        return float(jnp.sqrt(jnp.mean((features(params) - features(params0)) ** 2)))

    assert 0.5 < feature_move(64) / feature_move(1024) < 2.0  # NTK scaling would give about 4


@pytest.mark.parametrize("scaling", [jd.models.ntk, jd.models.standard, jd.models.maximal_update])
def test_padded_network_is_the_unpadded_one(scaling, x64):
    x = jax.random.normal(jax.random.key(1), (7, 3))
    wide, narrow = Width(16, jnp.asarray(5)), 5

    def network(width):
        return jd.models.mlp((3, width, width, 2), activation=jnp.cos, scaling=scaling, bias=0.2)

    plain, padded = network(narrow), network(wide)
    key = jax.random.key(3)
    np.testing.assert_allclose(padded.apply(padded.init(key), x), plain.apply(plain.init(key), x), atol=1e-13)


def test_weights_of_the_narrow_network_lead_those_of_the_wide_one():
    def weights(width):
        return jd.models.mlp((3, width, width, 1), activation=jnp.tanh).init(jax.random.key(4))

    narrow, wide = weights(6), weights(64)
    for layer in narrow:
        small, large = narrow[layer]["weight"], wide[layer]["weight"]
        np.testing.assert_array_equal(small, large[: small.shape[0], : small.shape[1]])


def test_padding_stays_zero_under_adam():
    width = Width(12, jnp.asarray(5))
    model = jd.models.mlp((3, width, width, 1), activation=jnp.cos, bias=0.1)
    task = jd.tasks.polynomial(jax.random.key(0), degree=1, dim=3, n=16)
    final = jd.train(jd.Training(model, task, optax.adam(0.01), steps=20, key=jax.random.key(1))).final.params
    assert not np.any(np.asarray(final["dense_1"]["weight"])[5:])
    assert not np.any(np.asarray(final["dense_1"]["weight"])[:, 5:])
    assert np.all(np.asarray(final["dense_1"]["weight"])[:5, :5])


@pytest.mark.parametrize("sizes", [(3,), (3, 0, 1), (3, -2, 1), (3, True, 1)])
def test_bad_sizes_are_refused_with_the_value(sizes):
    with pytest.raises(ValueError, match=r"sizes"):
        jd.models.mlp(sizes, activation=jnp.tanh)


def test_padded_inputs_or_outputs_are_refused():
    with pytest.raises(ValueError, match="Only hidden widths"):
        jd.models.mlp((Width(4, 2), 8, 1), activation=jnp.tanh)


def test_inputs_of_another_dimension_are_refused_with_both_numbers():
    model = jd.models.mlp((3, 4, 1), activation=jnp.tanh)
    with pytest.raises(ValueError, match=r"dimension 3.*dimension 5"):
        model.apply(model.init(jax.random.key(0)), jnp.ones((2, 5)))


def test_a_width_cannot_be_a_shape_and_says_so():
    with pytest.raises(TypeError, match="loop="):
        range(Width(8, jnp.asarray(4)))


@pytest.mark.parametrize("values", [[], [4, 4], [0, 4]])
def test_bad_widths_are_refused(values):
    with pytest.raises(ValueError, match=r"[Ww]idths"):
        jd.widths(values)


def test_padded_widths_refuse_keys_whose_draws_are_not_prefix_stable():
    model = jd.models.mlp((3, Width(8, jnp.asarray(4)), 1), activation=jnp.tanh)
    with pytest.raises(ValueError, match="threefry"):
        model.init(jax.random.key(0, impl="rbg"))


@pytest.mark.parametrize("scaling", [jd.models.standard, jd.models.maximal_update])
def test_only_ntk_scaling_has_an_infinite_kernel(scaling):
    model = jd.models.mlp((3, 8, 1), activation=jax.nn.relu, scaling=scaling)
    with pytest.raises(ValueError, match="NTK scaling"):
        model.kernel(jnp.ones((2, 3)))


def test_nonlinear_outputs_have_no_infinite_kernel():
    with pytest.raises(ValueError, match="nonlinear output"):
        jd.models.mlp((3, 8, 1), activation=jax.nn.relu, output=jnp.tanh).kernel(jnp.ones((2, 3)))


def test_a_linear_network_with_a_bottleneck_has_a_hessian_that_does_not_shrink(x64):
    """f = x A B C D / √(d m b m), against the written product and its dense Hessian."""
    x = jax.random.normal(jax.random.key(1), (1, 3))

    def dense_norm(*hidden):
        model = jd.models.mlp((3, *hidden, 1), activation=jax.nn.identity)
        params = model.init(jax.random.key(2))
        product = x
        for layer, fan_in in enumerate((3, *hidden)):
            product = product @ params[f"dense_{layer}"]["weight"] / np.sqrt(fan_in)
        np.testing.assert_allclose(model.apply(params, x), product, atol=1e-14)
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        dense = jax.jit(jax.hessian(lambda w: model.apply(unravel(w), x)[0, 0]))(flat)
        return model, params, np.abs(np.linalg.eigvalsh(dense)).max()

    model, params, expected = dense_norm(8, 1, 8)
    norm = jax.jit(
        lambda p: jd.geometry.function_hessian_norm(model.apply, p, x, key=jax.random.key(0), tolerance=1e-6)
    )
    np.testing.assert_allclose(norm(params)[0, 0], expected, rtol=1e-8)
    assert dense_norm(64, 1, 64)[2] > 0.5 * expected  # 0.35 without the bottleneck


def test_the_kernel_of_a_linear_network_is_its_depth_times_the_inner_product(x64):
    x = jax.random.normal(jax.random.key(1), (4, 3))
    kernel = jd.models.mlp((3, 8, 8, 1), activation=jax.nn.identity).kernel(x)
    np.testing.assert_allclose(kernel.ntk, 3 * (x @ x.T) / 3, atol=1e-12)
    np.testing.assert_allclose(kernel.nngp, (x @ x.T) / 3, atol=1e-12)
