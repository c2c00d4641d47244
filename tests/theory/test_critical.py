"""Critical rates against dense matrices and against training that diverges just above them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd


def _problem(k=2):
    x = jax.random.normal(jax.random.key(0), (12, 4))
    y = jnp.stack([x[:, 0], x[:, 1] * x[:, 2]][:k], axis=1)
    model = jd.models.mlp((4, 20, k), activation=jnp.tanh)
    return model, model.init(jax.random.key(1)), jd.tasks.from_arrays(x, y)


def _jacobian(model, params, task):
    tree = jax.jacobian(lambda p: model.apply(p, task.x).reshape(-1))(params)
    return np.concatenate([np.asarray(leaf).reshape(task.y.size, -1) for leaf in jax.tree.leaves(tree)], axis=1)


@pytest.mark.parametrize("loss", [jd.losses.half_sum, jd.losses.half_mean, jd.losses.mse, jd.losses.torch_mse])
def test_quadratic_losses_have_rate_two_over_c_lambda(loss, x64):
    model, params, task = _problem()
    gauss_newton = jax.hessian(lambda f: loss(f.reshape(task.y.shape), task.y))(jnp.zeros(task.y.size))
    jacobian = _jacobian(model, params, task)
    expected = 2 / np.linalg.eigvalsh(jacobian.T @ gauss_newton @ jacobian)[-1]
    found = jd.theory.critical_learning_rate(model.apply, params, task, loss=loss)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_cross_entropy_uses_the_gauss_newton_matrix(x64):
    model, params, task = _problem()
    labels = jax.nn.one_hot(jnp.arange(12) % 2, 2)
    task = jd.tasks.from_arrays(task.x, labels)
    outputs = model.apply(params, task.x)
    p = np.asarray(jax.nn.softmax(outputs))
    bend = np.zeros((24, 24))
    for i in range(12):
        bend[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = (np.diag(p[i]) - np.outer(p[i], p[i])) / 12
    jacobian = _jacobian(model, params, task)
    expected = 2 / np.linalg.eigvalsh(jacobian.T @ bend @ jacobian)[-1]
    found = jd.theory.critical_learning_rate(model.apply, params, task, loss=jd.losses.cross_entropy)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_the_linear_model_converges_below_and_diverges_above(x64):
    model, params, task = _problem(k=1)
    critical = jd.theory.critical_learning_rate(model.apply, params, task, loss=jd.losses.mse)

    def last(ratio):
        training = jd.Training(
            model, task, optax.sgd(ratio * critical), steps=3000, key=jax.random.key(0), params0=params, expand=jd.linear,
            record=jd.record(jd.at([0, 3000]), loss=jd.probes.Loss()),
        )  # fmt: skip
        return jd.train(training).values["loss"]

    below, above = last(0.99), last(1.01)
    assert below[1] < below[0]
    assert above[1] > 100 * above[0]


def test_relative_rate_is_two_at_the_critical_one():
    model, params, task = _problem()
    critical = jd.theory.critical_learning_rate(model.apply, params, task, loss=jd.losses.mse)
    np.testing.assert_allclose(
        jd.theory.relative_rate(critical, model.apply, params, task, loss=jd.losses.mse), 2, rtol=1e-5
    )
