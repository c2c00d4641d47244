"""Taylor models against polynomials, frozen gates, finite differences and their definition by nested `jvp`, word for word."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core

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


def nested(order):
    """The definition: k nested forward derivatives along δ, with no work saved."""

    def expand(apply, params0):
        def expanded(params, x):
            delta = jax.tree.map(jnp.subtract, params, params0)
            f, terms = (lambda w: apply(w, x)), [apply(params0, x)]
            for k in range(1, order + 1):
                f = (lambda g: lambda w: jax.jvp(g, (w,), (delta,))[1])(f)
                terms.append(f(params0) / math.factorial(k))
            return sum(terms)

        return expanded

    return expand


def scanned(params, x):
    """A network with a loop, which is not looked into."""
    step = lambda h, w: (jnp.tanh(h @ w), None)  # noqa: E731
    return jax.lax.scan(step, x, params["w"])[0]


NETWORKS = {
    "relu": (jd.models.mlp((4, 9, 8, 2), activation=jax.nn.relu, bias=0.5), (4,)),
    "tanh": (jd.models.mlp((4, 9, 8, 2), activation=jnp.tanh), (4,)),
    "gelu": (jd.models.mlp((4, 9, 1), activation=jax.nn.gelu), (4,)),
    "conv": (jd.models.conv((5, 5, 1), (3, 4), 1, activation=jax.nn.silu, pool=jd.models.flatten), (5, 5, 1)),
    "loop": (jd.Model(lambda key: {"w": jax.random.normal(key, (3, 4, 4)) / 2}, scanned), (4,)),
}


def _points(name):
    model, shape = NETWORKS[name]
    params0, params = model.init(jax.random.key(0)), model.init(jax.random.key(1))
    return model, params0, params, jax.random.normal(jax.random.key(2), (6, *shape))


QUICK = {("relu", 2), ("tanh", 1), ("tanh", 3), ("conv", 2), ("loop", 2)}


def _slow_unless(pairs, quick):
    return [pytest.param(*pair, marks=() if pair in quick else pytest.mark.slow) for pair in pairs]


@pytest.mark.parametrize(("name", "order"), _slow_unless([(n, k) for n in NETWORKS for k in (1, 2, 3)], QUICK))
def test_expansions_and_their_gradients_are_the_nested_derivatives(name, order, x64):
    model, params0, params, x = _points(name)
    expanded = jd.taylor(order)(model.apply, params0)

    def both(f):
        return jax.jit(jax.value_and_grad(lambda p: jnp.sum(jnp.sin(f(p, x)))))(params)

    value, gradient = both(nested(order)(model.apply, params0))
    for f in (expanded, expanded.on(x)):
        found, slope = both(f)
        np.testing.assert_allclose(found, value, rtol=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12 * float(jnp.abs(b).max())), slope, gradient
        )


def test_what_is_known_of_some_inputs_is_not_mistaken_for_others(x64):
    model, params0, params, x = _points("tanh")
    expanded = jd.quadratic(model.apply, params0)
    found = expanded.on(x[:3])(params, x[3:])
    np.testing.assert_allclose(found, expanded(params, x[3:]), rtol=1e-12)
    assert jnp.abs(found - expanded(params, x[:3])).min() > 1e-6


SAMPLERS = {"full": jd.full_batch, "minibatch": jd.minibatch(3)}


@pytest.mark.parametrize(
    ("sampler", "order"),
    _slow_unless([(s, k) for s in SAMPLERS for k in (1, 2, 3)], {("minibatch", 2), ("full", 3)}),
)
def test_training_an_expansion_is_training_the_nested_derivatives(order, sampler, x64):
    model, params0, _, x = _points("tanh")
    task = jd.tasks.from_arrays(x, jnp.sign(x[:, :2]))

    def losses(expand):
        return jd.train(
            jd.Training(model, task, optax.adam(0.01), steps=40, key=jax.random.key(0), params0=params0, expand=expand,
                        sampler=SAMPLERS[sampler], record=jd.record(jd.every(4), loss=jd.probes.Loss()))
        ).values["loss"]  # fmt: skip

    expected = losses(nested(order))
    assert expected[-1] < 0.8 * expected[0]
    np.testing.assert_allclose(losses(jd.taylor(order)), expected, rtol=1e-12)


def _flops_of_a_step(model, x, expand, sampler):
    """XLA's count for the body of the loop over the steps, as traced: nothing of it is saved by XLA's own passes."""
    training = jd.Training(
        model, jd.tasks.from_arrays(x, x[:, :1]), optax.sgd(0.1), steps=5, key=jax.random.key(0), expand=expand,
        sampler=sampler, params0=model.init(jax.random.key(0)),
    )  # fmt: skip
    whole = jax.make_jaxpr(lambda state: jd.dynamics.advance(training, state, [5])[0])(jd.dynamics.init(training))
    body = _loop(whole.jaxpr).params["body_jaxpr"]
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in body.jaxpr.invars]
    return jax.jit(core.jaxpr_as_fun(body)).lower(*avals).cost_analysis()["flops"]


def _loop(jaxpr):
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "while":
            return eqn
        for value in eqn.params.values():
            found = _loop(value.jaxpr) if hasattr(value, "jaxpr") else None
            if found is not None:
                return found
    return None


@pytest.mark.parametrize(("activation", "products"), [(jnp.tanh, 9), (jax.nn.relu, 7)], ids=["tanh", "relu"])
def test_a_full_batch_step_has_the_products_of_taylor_propagation_and_none_of_the_anchor(activation, products):
    """Per hidden layer a network step takes 3 products. dz = h0 δW + dh W0 and ddz = 2 dh δW + ddh W0 are 4 and their transposes 5,
    each product of a known and an unknown having one and dh δW two: 9. A ReLU has no second derivative, ddh = φ'(z0) ddz, and with
    one hidden matrix between two layers ddh W0 falls away with its transpose: 7. Minibatches take z0 = h0 W0 too."""
    wide = jd.models.mlp((8, 512, 512, 1), activation=activation)
    x = jax.random.normal(jax.random.key(0), (32, 8))
    network = _flops_of_a_step(wide, x, jd.exact, jd.full_batch)
    assert _flops_of_a_step(wide, x, jd.quadratic, jd.full_batch) / network == pytest.approx(products / 3, rel=0.08)
    assert _flops_of_a_step(wide, x, jd.quadratic, jd.minibatch(32)) / network == pytest.approx(
        (products + 1) / 3, rel=0.08
    )


@pytest.mark.parametrize("order", [-1, True])
def test_bad_orders_are_refused(order):
    with pytest.raises(ValueError, match="order"):
        jd.taylor(order)
