"""Probes of curvature against dense Hessians and kernels along a real run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import jaxdyn as jd


@pytest.fixture
def training(x64):
    x = jax.random.normal(jax.random.key(3), (12, 3))
    y = jnp.stack([x[:, 0], x[:, 1] * x[:, 2]], axis=1)
    task = jd.tasks.from_arrays(x, y)
    model = jd.models.mlp((3, 16, 2), activation=jnp.tanh)

    def make(record, loss=jd.losses.mse):
        return jd.Training(model, task, optax.sgd(0.05), steps=6, key=jax.random.key(0), record=record, loss=loss)

    return make


def _anchored(training):
    params, unravel = ravel_pytree(training.model.init(training.key))
    return params, lambda w: training.model.apply(unravel(w), training.task.x)


def _final(training):
    """The flat final parameters, found without our training loop."""
    w, f = _anchored(training)
    for _ in range(training.steps):
        w = w - 0.05 * jax.grad(lambda w: jnp.sum((f(w) - training.task.y) ** 2) / 12)(w)
    return w, f


def test_sharpness_is_the_largest_eigenvalue_of_the_dense_hessian(training):
    made = training(jd.record(jd.every(2), sharp=jd.probes.Sharpness(tolerance=1e-6)))
    values = jd.train(made).values
    for row, (w, f) in ((0, _anchored(made)), (-1, _final(made))):
        hessian = jax.hessian(lambda w, f=f: jnp.sum((f(w) - made.task.y) ** 2) / 12)(w)
        np.testing.assert_allclose(values["sharp"][row], np.linalg.eigvalsh(hessian)[-1], rtol=1e-8)
    assert values["sharp_converged"].all()
    assert (values["sharp_residual"] <= 1e-6 * values["sharp"]).all()


@pytest.mark.parametrize(
    ("end", "pick"),
    [
        (jd.geometry.spectrum.top, lambda all_values: all_values[::-1][:3]),
        (jd.geometry.spectrum.bottom, lambda all_values: all_values[:3]),
        (jd.geometry.spectrum.dominant, lambda all_values: all_values[np.argsort(-np.abs(all_values))][:3]),
    ],
)
def test_hessian_spectrum_at_each_end_is_that_of_the_dense_hessian(training, end, pick):
    made = training(jd.record(jd.at([0, 6]), eig=jd.probes.HessianSpectrum(3, end=end, tolerance=1e-6)))
    values = jd.train(made).values
    w, f = _final(made)
    hessian = jax.hessian(lambda w: jnp.sum((f(w) - made.task.y) ** 2) / 12)(w)
    np.testing.assert_allclose(values["eig"][-1], pick(np.linalg.eigvalsh(hessian)), rtol=1e-7)


def test_hessian_spectrum_of_the_gauss_newton_matrix_is_that_of_the_kernel(training):
    probe = jd.probes.HessianSpectrum(2, matrix=jd.geometry.operators.gauss_newton, tolerance=1e-7)
    made = training(jd.record(jd.at([0]), eig=probe))
    w, f = _anchored(made)
    jacobian = jax.jacobian(f)(w).reshape(24, -1)
    expected = np.linalg.eigvalsh(2 / 12 * jacobian @ jacobian.T)[::-1][:2]
    np.testing.assert_allclose(jd.train(made).values["eig"][0], expected, rtol=1e-9)


def test_the_vectors_of_a_record_start_the_search_of_the_next(training):
    made = training(jd.record(jd.every(1), eig=jd.probes.HessianSpectrum(2)))
    spent = np.asarray(jd.train(made).values["eig_matvecs"])
    assert spent[1:].max() < spent[0]


def test_a_warm_run_in_pieces_is_the_run_in_one(training):
    made = training(jd.record(jd.every(1), eig=jd.probes.HessianSpectrum(2)))
    whole = jd.train(made).values["eig"]
    state, first = jd.dynamics.advance(made, jd.dynamics.init(made), range(3))
    _, second = jd.dynamics.advance(made, state, range(3, 7))
    np.testing.assert_array_equal(np.concatenate([first["eig"], second["eig"]]), whole)


def test_function_hessian_norm_is_that_of_the_dense_hessian(training):
    x = jax.random.normal(jax.random.key(5), (2, 3))
    made = training(jd.record(jd.at([0, 6]), norm=jd.probes.FunctionHessianNorm(x, tolerance=1e-6)))
    values = jd.train(made).values
    unravel = ravel_pytree(made.model.init(made.key))[1]
    w = _final(made)[0]
    dense = jax.hessian(lambda w: made.model.apply(unravel(w), x))(w)  # [2, 2, p, p]
    np.testing.assert_allclose(values["norm"][1], np.abs(np.linalg.eigvalsh(dense)).max(axis=-1), rtol=1e-8)
    assert values["norm_converged"].all()
    assert (values["norm_matvecs"][1] < values["norm_matvecs"][0]).all()


def test_subspace_loss_splits_the_loss_along_the_eigenvectors_of_the_current_kernel(training):
    made = training(jd.record(jd.at([0, 6]), part=jd.probes.SubspaceLoss(4), loss=jd.probes.Loss()))
    values = jd.train(made).values
    np.testing.assert_allclose(values["part_top"] + values["part_rest"], values["loss"], rtol=1e-12)
    w, f = _final(made)
    jacobian = np.asarray(jax.jacobian(f)(w)).reshape(24, -1)
    vectors = np.linalg.eigh(jacobian @ jacobian.T)[1][:, -4:]
    top = np.sum((vectors.T @ np.asarray(f(w) - made.task.y).reshape(24)) ** 2) / 12
    np.testing.assert_allclose(values["part_top"][1], top, rtol=1e-9)


def test_a_sweep_names_the_parts_and_their_dimensions(training):
    def run(seed):
        made = training(jd.record(jd.every(3), sharp=jd.probes.Sharpness(), eig=jd.probes.HessianSpectrum(2)))
        return jd.Training(made.model, made.task, made.optimizer, steps=6, key=jax.random.key(seed), record=made.record)

    found = jd.sweep(run, vmap={"seed": np.arange(2)})
    assert found.eig.dims == ("seed", "step", "eigen")
    assert found.sharp.dims == found.eig_matvecs.dims == ("seed", "step")
    assert found.sharp_converged.dtype == bool
    np.testing.assert_allclose(found.sharp, found.eig.isel(eigen=0), rtol=1e-3)


def test_a_loss_without_constant_has_no_subspace_loss(training):
    made = training(jd.record(jd.every(1), part=jd.probes.SubspaceLoss(1)), loss=jd.losses.cross_entropy)
    with pytest.raises(ValueError, match="Only a quadratic loss"):
        jd.train(made)


def test_inputs_without_targets_are_refused(training):
    x = jnp.ones((2, 3))
    for probe in (jd.probes.Sharpness(x), jd.probes.SubspaceLoss(1, x)):
        with pytest.raises(ValueError, match="`x` and `y` together"):
            jd.train(training(jd.record(jd.every(1), value=probe)))


def test_two_probes_that_yield_one_variable_are_refused(training):
    part, loss = {"a": jd.probes.SubspaceLoss(1)}, {"a_top": jd.probes.Loss()}
    one = jd.record(jd.every(1), **part, **loss)
    two = (jd.record(jd.every(1), **part), jd.record(jd.every(2), dim="seldom", **loss))
    for record in (one, two):
        with pytest.raises(ValueError, match="`a_top`"):
            jd.train(training(record))


@pytest.mark.parametrize("max_rows", [1024, 1])
def test_batch_critical_rate_is_that_of_the_batch_that_enters_the_next_step(max_rows, x64):
    """From the kernel of the batch and from products with it, against the theory's own at the recorded parameters."""
    x = jax.random.normal(jax.random.key(0), (20, 3))
    task = jd.tasks.from_arrays(x, jnp.stack([x[:, 0], x[:, 1] * x[:, 2]], axis=1))
    model = jd.models.mlp((3, 16, 2), activation=jnp.tanh)
    record = jd.record(
        jd.every(1),
        rate=jd.probes.BatchCriticalRate(max_rows=max_rows, tolerance=1e-6),
        x=lambda snapshot: snapshot.batch[0],
        weight=lambda snapshot: snapshot.params["dense_0"]["weight"],
        readout=lambda snapshot: snapshot.params["dense_1"]["weight"],
    )
    run = jd.Training(
        model, task, optax.sgd(0.05), steps=3, key=jax.random.key(1), sampler=jd.minibatch(6), record=record
    )
    found = jax.jit(lambda: jd.train(run).values)()
    for t in (0, 3):
        params = {"dense_0": {"weight": found["weight"][t]}, "dense_1": {"weight": found["readout"][t]}}
        batch = jd.tasks.from_arrays(found["x"][t], jnp.zeros((6, 2)))
        expected = jd.theory.critical_learning_rate(model.apply, params, batch, loss=jd.losses.mse)
        np.testing.assert_allclose(found["rate"][t], expected, rtol=1e-7)


def test_batch_critical_rate_wants_a_quadratic_loss():
    task = jd.tasks.from_arrays(jnp.ones((4, 3)), jnp.ones((4, 1)))
    model = jd.models.mlp((3, 4, 1), activation=jnp.tanh)
    training = jd.Training(
        model, task, optax.sgd(0.1), steps=1, key=jax.random.key(0), loss=jd.losses.cross_entropy,
        record=jd.record(jd.every(1), rate=jd.probes.BatchCriticalRate()),
    )  # fmt: skip
    with pytest.raises(ValueError, match="quadratic loss"):
        jd.train(training)
