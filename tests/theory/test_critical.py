"""Critical rates against dense matrices and against training that diverges just above them."""

import dataclasses

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd
from jaxdyn.theory import critical


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


def test_any_other_loss_goes_through_its_gauss_newton_matrix(x64):
    model, params, task = _problem()

    def coupled(f, y):  # the Hessian in the outputs couples examples and outputs
        return jnp.mean((f - y) ** 4) + 0.1 * jnp.sum(f) ** 2

    outputs = model.apply(params, task.x)
    bend = jax.hessian(lambda f: coupled(f.reshape(outputs.shape), task.y))(outputs.reshape(-1))
    jacobian = _jacobian(model, params, task)
    expected = np.linalg.eigvalsh(jacobian.T @ np.asarray(bend) @ jacobian)[-1]
    np.testing.assert_allclose(jd.theory.curvature(model.apply, params, task, loss=coupled), expected, rtol=1e-8)


def test_the_logistic_loss_of_one_output_has_its_curvature_at_the_present_outputs(x64):
    model, params, task = _problem(k=1)
    task = jd.tasks.from_arrays(task.x, jnp.sign(task.y))
    p = jax.nn.sigmoid(model.apply(params, task.x))[:, 0]
    jacobian = _jacobian(model, params, task)
    expected = np.linalg.eigvalsh(jacobian.T @ np.diag(p * (1 - p) / 12) @ jacobian)[-1]
    found = jd.theory.curvature(model.apply, params, task, loss=jd.losses.cross_entropy)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("loss", [jd.losses.mse, jd.losses.cross_entropy], ids=["mse", "cross_entropy"])
def test_a_run_may_ask_for_its_rate_under_jit_and_vmap(loss, x64):
    model, _, task = _problem()
    task = jd.tasks.from_arrays(task.x, jax.nn.one_hot(jnp.arange(12) % 2, 2))

    def rate(seed):
        return jd.theory.critical_learning_rate(model.apply, model.init(jax.random.key(seed)), task, loss=loss)

    together = jax.jit(jax.vmap(rate))(jnp.arange(3))
    np.testing.assert_allclose(together, [rate(seed) for seed in range(3)], rtol=1e-10)
    assert len(set(together.tolist())) == 3


def test_the_rate_of_a_batch_is_that_of_a_task_that_holds_it(x64):
    model, params, task = _problem(k=1)
    batch = dataclasses.replace(task, x=task.x[:4], y=task.y[:4])
    jacobian = _jacobian(model, params, batch)
    expected = 4 / np.linalg.eigvalsh(jacobian @ jacobian.T)[-1]  # mse: c = 2/n, n the size of the batch
    found = jd.theory.critical_learning_rate(model.apply, params, batch, loss=jd.losses.mse)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_function_that_does_not_move_has_an_infinite_critical_rate():
    task = jd.tasks.from_arrays(jnp.ones((3, 1)), jnp.ones((3, 1)))
    rate = jd.theory.critical_learning_rate(lambda w, x: 0 * w * x, jnp.array(1.0), task, loss=jd.losses.mse)
    assert np.isinf(rate)


@pytest.mark.parametrize("loss", [jd.losses.torch_mse, jd.losses.cross_entropy], ids=["torch_mse", "cross_entropy"])
def test_products_with_a_vector_find_the_eigenvalue_of_the_whole_kernel(loss, x64, monkeypatch):
    x = jax.random.normal(jax.random.key(0), (40, 4))
    task = jd.tasks.from_arrays(x, jax.nn.one_hot(jnp.arange(40) % 3, 3))
    model = jd.models.mlp((4, 30, 3), activation=jnp.tanh)

    def rates():
        return jax.jit(
            jax.vmap(lambda s: jd.theory.curvature(model.apply, model.init(jax.random.key(s)), task, loss=loss))
        )(jnp.arange(2))

    dense = rates()
    monkeypatch.setattr(critical, "DENSE_ROWS", 100)
    monkeypatch.delattr(jd.geometry, "ntk_blocks")  # the kernel is not formed
    np.testing.assert_allclose(rates(), dense, rtol=1e-6)


def test_two_thousand_examples_of_a_linear_function_have_the_rate_of_their_covariance():
    x = jax.random.normal(jax.random.key(0), (2000, 6)) * jnp.arange(1.0, 7)[None, :]
    task = jd.tasks.from_arrays(x, x[:, :1])
    rate = jd.theory.critical_learning_rate(lambda w, x: x @ w, jnp.zeros((6, 1)), task, loss=jd.losses.half_mean)
    np.testing.assert_allclose(
        rate, 2 / np.linalg.eigvalsh(np.cov(x.T, bias=True) + np.outer(x.mean(0), x.mean(0)))[-1], rtol=1e-4
    )


def test_a_nan_parameter_has_a_nan_rate(monkeypatch):
    model, params, task = _problem(k=1)
    broken = jax.tree.map(lambda leaf: leaf.at[0, 0].set(jnp.nan), params)
    for rows in (1024, 1):
        monkeypatch.setattr(critical, "DENSE_ROWS", rows)
        assert np.isnan(jd.theory.critical_learning_rate(model.apply, broken, task, loss=jd.losses.mse))


def test_the_hessian_gives_the_same_rate_for_a_linear_model(x64):
    model, params, task = _problem(k=1)
    linear = jd.linear(model.apply, params)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
    rates = [
        jax.jit(lambda p, rate=rate: rate(linear, p, task, loss=jd.losses.mse))(moved)
        for rate in (jd.theory.critical_learning_rate, jd.theory.hessian_critical_learning_rate)
    ]
    np.testing.assert_allclose(*rates, rtol=1e-7)


def test_the_hessian_rate_of_a_network_is_that_of_its_dense_hessian(x64):
    model, params, task = _problem(k=1)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    dense = jax.jit(jax.hessian(lambda w: jd.losses.mse(model.apply(unravel(w), task.x), task.y)))(flat)
    found = jax.jit(lambda p: jd.theory.hessian_critical_learning_rate(model.apply, p, task, loss=jd.losses.mse))(
        params
    )
    np.testing.assert_allclose(found, 2 / np.linalg.eigvalsh(dense)[-1], rtol=1e-6)


def test_kernel_and_hessian_rates_of_wide_networks_differ_by_less_than_one_over_root_m(x64):
    """The slope in m of the root mean square relative difference, 16 seeds, m = 64 and 1024, is −1 to within 0.35.

    The first criterion, −1/2 to within 1/4 on seeds 0 to 15, was not met: the slope was −1.14. The term Σ r_i H_{f_i} is
    O(1/√m) in norm, but its first-order effect on the top eigenvalue averages over m neurons and the second is its square,
    so both are O(1/m). Seeds 16 to 31 test that.
    """
    x = jax.random.normal(jax.random.key(0), (6, 4))
    task = jd.tasks.from_arrays(x, x[:, :1] * x[:, 1:2])

    def gap(width):
        model = jd.models.two_layer_relu(4, width)

        def one(seed):
            params = model.init(jax.random.key(seed))
            kernel = jd.theory.critical_learning_rate(model.apply, params, task, loss=jd.losses.mse)
            hessian = jd.theory.hessian_critical_learning_rate(model.apply, params, task, loss=jd.losses.mse)
            return hessian / kernel - 1

        return float(jnp.sqrt(jnp.mean(jax.jit(lambda s: jax.lax.map(one, s))(jnp.arange(16, 32)) ** 2)))

    assert abs(np.log(gap(1024) / gap(64)) / np.log(16) + 1) < 0.35


def test_the_batch_rate_is_that_of_the_batch_a_run_sees(x64):
    model, params, task = _problem(k=1)
    sampler, key = jd.minibatch(4), jax.random.key(5)
    training = jd.Training(
        model, task, optax.sgd(0.01), steps=3, key=key, params0=params, sampler=sampler,
        record=jd.record(jd.every(1), batch=lambda snapshot: snapshot.batch[0]),
    )  # fmt: skip
    batches = jax.jit(lambda: jd.train(training).values["batch"])()
    rates = jax.jit(
        jax.vmap(
            lambda step: jd.theory.batch_critical_learning_rate(
                model.apply,
                params,
                task,
                loss=jd.losses.mse,
                sampler=sampler,
                key=jd.dynamics.batch_key(key),
                step=step,
            )
        )
    )(jnp.arange(4))
    rows = np.asarray(_jacobian(model, params, task))  # one row an example

    def jacobians(batch):
        return rows[[int(np.flatnonzero((np.asarray(task.x) == row).all(axis=1))[0]) for row in np.asarray(batch)]]

    for batch, rate in zip(batches, rates, strict=True):
        jacobian = jacobians(batch)
        np.testing.assert_allclose(rate, 2 / (2 / 4 * np.linalg.eigvalsh(jacobian @ jacobian.T)[-1]), rtol=1e-10)
    assert len(set(rates.tolist())) == 4
