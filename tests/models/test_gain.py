"""The gain against activations scaled by hand, closed forms, and the recursion of kernels written out in NumPy."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

import jaxdyn as jd
from jaxdyn.models.graphs import graph

SKIP = {"h1": ["x"], "h2": ["x", "h1"], "y": ["h1", "h2"]}
EDGES = ([0, 0, 1, 1, 2, 3], [2, 3, 2, 3, 4, 4])
GAIN = 1.7


def _inputs(n=5, d=4, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, d)))


MODELS = {
    "mlp": lambda **how: jd.models.mlp((4, 6, 5, 2), bias=0.3, **how),
    "mlp, standard": lambda **how: jd.models.mlp((4, 6, 5, 2), scaling=jd.models.standard, **how),
    "conv": lambda **how: jd.models.conv((2, 2, 1), (3, 4), 2, pool=jd.models.flatten, **how),
    "block_dag": lambda **how: jd.models.block_dag(SKIP, widths={"x": 4, "h1": 5, "h2": 6, "y": 2}, **how),
    "dag": lambda **how: _two_columns(jd.models.dag(EDGES, **how)),
    "masked_dag": lambda **how: _two_columns(jd.models.masked_dag(jd.models.graphs.Masks.of(graph(EDGES)), **how)),
}


def _two_columns(model):
    return dataclasses.replace(model, apply=lambda params, x: model.apply(params, x[:, :2]))


@pytest.mark.parametrize("name", MODELS)
def test_a_gain_is_an_activation_scaled_by_hand(name, x64):
    with_gain, by_hand = (
        MODELS[name](activation=jnp.tanh, gain=GAIN),
        MODELS[name](activation=lambda z: GAIN * jnp.tanh(z)),
    )
    params = with_gain.init(jax.random.key(0))
    chex.assert_trees_all_equal(params, by_hand.init(jax.random.key(0)))
    np.testing.assert_allclose(with_gain.apply(params, _inputs()), by_hand.apply(params, _inputs()), rtol=1e-12)
    plain = MODELS[name](activation=jnp.tanh)
    assert np.abs(np.asarray(plain.apply(params, _inputs()) - with_gain.apply(params, _inputs()))).max() > 1e-2


def test_a_hidden_vertex_without_a_nonlinearity_has_the_gain_too(x64):
    model = jd.models.dag(([0, 1], [1, 2]), activation=jd.models.identity, gain=GAIN)
    params = model.init(jax.random.key(0))
    expected = GAIN * params["layer_1"]["weight"][0] * params["layer_2"]["weight"][0]
    np.testing.assert_allclose(model.apply(params, jnp.ones((1, 1))), [[expected]], rtol=1e-12)


def _relu_kernels(x, depth, bias, gain):
    """Cho and Saul's formulas with the gain, in NumPy."""
    nngp = x @ x.T / x.shape[1] + bias**2
    ntk = nngp
    for _ in range(depth):
        scale = np.sqrt(np.outer(np.diag(nngp), np.diag(nngp)))
        angle = np.arccos(np.clip(nngp / scale, -1, 1))
        moment = gain**2 * scale * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        slope = gain**2 * (np.pi - angle) / (2 * np.pi)
        nngp = moment + bias**2
        ntk = nngp + ntk * slope
    return nngp, ntk


def test_the_relu_kernels_are_those_of_cho_and_saul(x64):
    x = _inputs()
    found = jd.models.mlp((4, 8, 8, 8, 1), activation=jax.nn.relu, bias=0.4, gain=GAIN).kernel(x)
    for ours, expected in zip(found, _relu_kernels(np.asarray(x), 3, 0.4, GAIN), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "block_dag"])
@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.relu, jnp.sin], ids=lambda f: f.__name__)
def test_kernels_are_those_of_the_activation_scaled_by_hand(name, activation, x64):
    """A scaled activation has no closed form but, where it is smooth, a series; of ReLU the first layers of a wide network tell."""
    found = MODELS[name](activation=activation, gain=GAIN).kernel(_inputs(), _inputs(3, seed=1))
    if activation is jax.nn.relu:  # ReLU is homogeneous: with no bias the gain multiplies what comes behind it
        plain = jd.models.mlp((4, 6, 1), activation=activation).kernel(_inputs())
        gained = jd.models.mlp((4, 6, 1), activation=activation, gain=GAIN).kernel(_inputs())
        np.testing.assert_allclose(gained.nngp, GAIN**2 * plain.nngp, rtol=1e-6)
        np.testing.assert_allclose(gained.ntk, GAIN**2 * plain.ntk, rtol=1e-6)
        return
    by_hand = MODELS[name](activation=lambda z: GAIN * activation(z)).kernel(_inputs(), _inputs(3, seed=1))
    chex.assert_trees_all_close(found, by_hand, rtol=1e-6)


def test_the_convolutional_kernel_is_that_of_wide_networks():
    x = _inputs(3).astype(jnp.float32)
    model = jd.models.conv((2, 2, 1), (256, 256), 1, activation=jax.nn.relu, pool=jd.models.flatten, gain=GAIN)
    kernels = jax.lax.map(
        lambda key: jd.geometry.ntk(model.apply, model.init(key), x), jax.random.split(jax.random.key(0), 60)
    )
    error = np.asarray(kernels).std(0) / np.sqrt(60)
    limit = np.asarray(model.kernel(x).ntk)
    assert (np.abs(np.asarray(kernels).mean(0) - limit) < 4 * error + 0.02 * np.abs(limit)).all()


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.relu, jax.nn.gelu, jax.nn.relu6], ids=lambda f: f.__name__)
def test_unit_gain_keeps_the_second_moment(activation):
    with jax.enable_x64(True):
        moment, _ = integrate.quad(
            lambda z: float(activation(jnp.float64(z))) ** 2 * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi),
            -12,
            12,
            points=[0, 6],
        )
    assert jd.models.unit_gain(activation) == pytest.approx(1 / np.sqrt(moment), rel=1e-8)
    assert jd.models.unit_gain(jax.nn.relu) == pytest.approx(np.sqrt(2), rel=1e-12)


def test_deep_relu_networks_of_unit_gain_keep_the_diagonal(x64):
    x = _inputs()
    x = x * jnp.sqrt(4 / jnp.sum(x**2, axis=1, keepdims=True))
    found = jd.models.mlp((4, *(8,) * 6, 1), activation=jax.nn.relu, gain=jd.models.unit_gain(jax.nn.relu)).kernel(x)
    np.testing.assert_allclose(np.diag(found.nngp), 1.0, rtol=1e-6)


@pytest.mark.parametrize("gain", [0, -1.0, np.nan, np.inf, "relu", None, np.ones(2)])
def test_a_gain_that_is_no_positive_number_is_refused(gain):
    for name in ("mlp", "conv", "block_dag", "dag", "masked_dag"):
        with pytest.raises(ValueError, match="`gain` is a positive number"):
            MODELS[name](activation=jnp.tanh, gain=gain)
    with pytest.raises(ValueError, match="no gain makes it 1"):
        jd.models.unit_gain(lambda z: 0 * z)


def test_a_gain_may_be_an_axis_of_a_sweep():
    task = jd.tasks.polynomial(jax.random.key(0), degree=1, dim=3, n=8)

    def run(gain):
        model = jd.models.mlp((3, 16, 1), activation=jnp.tanh, gain=gain)
        record = jd.record(jd.at([0]), norm=lambda s: jnp.sum(s.network(s.params, task.x) ** 2))
        import optax

        return jd.Training(model, task, optax.sgd(0.1), steps=1, key=jax.random.key(1), record=record)

    norms = jd.sweep(run, vmap={"gain": jnp.array([1.0, 2.0])}).norm.values[:, 0]
    assert norms[1] == pytest.approx(4 * norms[0], rel=1e-5)
