"""Taylor models against polynomials, frozen gates and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_taylor_is_exact_on_polynomials_of_its_degree_and_only_there(order, x64):
    powers = jnp.arange(order + 1)

    def apply(params, x):
        value = jnp.sum(params["w"][None, :] * x, axis=1)
        return jnp.sum(value[:, None] ** powers[None, :], axis=1, keepdims=True)

    rng = np.random.default_rng(0)
    params0, params = ({"w": jnp.asarray(rng.normal(size=4))} for _ in range(2))
    x = jnp.asarray(rng.normal(size=(6, 4)))
    np.testing.assert_allclose(jd.taylor(order)(apply, params0)(params, x), apply(params, x), rtol=1e-12)
    if order:
        lower = jd.taylor(order - 1)(apply, params0)(params, x)
        assert np.max(np.abs(lower - apply(params, x))) > 1e-3


def test_quadratic_model_of_a_two_layer_relu_network_is_the_network_with_frozen_gates(x64):
    model = jd.models.mlp((5, 40, 2), activation=jax.nn.relu)
    params0, params = model.init(jax.random.key(0)), model.init(jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (9, 5))
    gates = (np.asarray(x) @ np.asarray(params0["dense_0"]["weight"])) > 0
    hidden = gates * (np.asarray(x) @ np.asarray(params["dense_0"]["weight"])) / np.sqrt(5)
    frozen = hidden @ np.asarray(params["dense_1"]["weight"]) / np.sqrt(40)
    np.testing.assert_allclose(jd.quadratic(model.apply, params0)(params, x), frozen, atol=1e-12)


def test_linear_model_is_the_finite_difference_of_the_network(x64):
    model = jd.models.mlp((3, 7, 1), activation=jnp.tanh)
    params0, direction = model.init(jax.random.key(0)), model.init(jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (4, 3))
    h = 1e-5

    def at(t):
        return model.apply(jax.tree.map(lambda a, b: a + t * b, params0, direction), x)

    slope = (at(h) - at(-h)) / (2 * h)
    shifted = jax.tree.map(jnp.add, params0, direction)
    np.testing.assert_allclose(jd.linear(model.apply, params0)(shifted, x), at(0.0) + slope, atol=1e-8)


def test_exact_ignores_the_anchor():
    model = jd.models.mlp((3, 7, 1), activation=jnp.tanh)
    assert jd.exact(model.apply, model.init(jax.random.key(0))) is model.apply


@pytest.mark.parametrize("order", [-1, True])
def test_bad_orders_are_refused(order):
    with pytest.raises(ValueError, match="order"):
        jd.taylor(order)
