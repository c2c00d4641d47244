"""Probes of features against explicit gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd


@pytest.fixture
def values(x64):
    x = jax.random.normal(jax.random.key(3), (40, 5))
    task = jd.tasks.from_arrays(x, x[:, :1] * x[:, 1:2])
    model = jd.models.mlp((5, 8, 6, 1), activation=jnp.tanh)

    def make(**probes):
        record = jd.record(jd.at([0, 9]), **probes)
        training = jd.Training(model, task, optax.sgd(0.1), steps=9, key=jax.random.key(0), record=record)
        trajectory = jd.train(training)
        return trajectory.values, trajectory.final.params, training

    return make


def _gradients(f, x):
    """∇f at every input, one after the other, [n, d]."""
    return np.stack([np.asarray(jax.grad(lambda one: f(one[None])[0, 0])(one)) for one in x])


def test_agop_is_the_mean_of_outer_products(values):
    found, params, training = values(agop=jd.probes.AGOP(), other=jd.probes.AGOP(jnp.ones((1, 5))))
    gradients = _gradients(lambda x: training.model.apply(params, x), training.task.x)
    np.testing.assert_allclose(found["agop"][1], gradients.T @ gradients / 40, rtol=1e-10)
    gradients = _gradients(lambda x: training.model.apply(params, x), jnp.ones((1, 5)))
    np.testing.assert_allclose(found["other"][1], gradients.T @ gradients, rtol=1e-10)


def test_alignment_is_the_cosine_with_the_truth_from_matrix_or_factor(values):
    x = jax.random.normal(jax.random.key(3), (40, 5))

    def target(x):
        return x[:, :1] * x[:, 1:2]

    found, params, training = values(
        matrix=jd.probes.AGOPAlignment(x, to=jd.geometry.agop(target, x)),
        factor=jd.probes.AGOPAlignment(x[:3], factor=jd.geometry.agop_factor(target, x[:3])),
    )
    for name, inputs in (("matrix", x), ("factor", x[:3])):
        trained = _gradients(lambda one: training.model.apply(params, one), inputs)
        true = _gradients(target, inputs)
        a, b = trained.T @ trained, true.T @ true
        expected = np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
        np.testing.assert_allclose(found[name][1], expected, rtol=1e-10)


def test_feature_ansatz_is_the_correlation_of_the_weights_with_the_root_of_the_layers_agop(values):
    found, params, training = values(
        ansatz=jd.probes.FeatureAnsatz("dense_1/weight"), agop=jd.probes.AGOP(layer="dense_1/weight")
    )
    first, weight, last = (np.asarray(params[f"dense_{i}"]["weight"]) for i in range(3))
    hidden = np.tanh(np.asarray(training.task.x) @ first / np.sqrt(5))
    z = hidden @ weight / np.sqrt(8)
    reaching = (1 - np.tanh(z) ** 2) * last[:, 0] / np.sqrt(6)  # ∂f/∂z
    gradients = reaching @ weight.T / np.sqrt(8)
    agop = gradients.T @ gradients / 40
    np.testing.assert_allclose(found["agop"][1], agop, rtol=1e-9, atol=1e-14)
    eigenvalues, vectors = np.linalg.eigh(agop)
    root = (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T
    expected = np.corrcoef((weight @ weight.T).ravel(), root.ravel())[0, 1]
    np.testing.assert_allclose(found["ansatz"][1], expected, rtol=1e-6)


def test_alignment_with_nothing_or_with_two_is_refused(values):
    x = jnp.ones((2, 5))
    for probe in (jd.probes.AGOPAlignment(x), jd.probes.AGOPAlignment(x, jnp.eye(5), jnp.eye(5))):
        with pytest.raises(ValueError, match="either `to`"):
            values(value=probe)
