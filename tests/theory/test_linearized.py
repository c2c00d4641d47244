"""The closed form against step-by-step loops, linear models simulated in weights, and its own limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd
from jaxdyn.theory import linearized


def _kernel(n=10, rank=10, seed=0):
    root = np.random.default_rng(seed).normal(size=(n + 4, rank))
    whole = root @ root.T / rank
    return jnp.asarray(whole[:n, :n]), jnp.asarray(whole[n:, :n])


def _outputs(k=2, n=10):
    rng = np.random.default_rng(1)
    return (
        jnp.asarray(rng.normal(size=(n, k))),
        jnp.asarray(rng.normal(size=(n, k))),
        jnp.asarray(rng.normal(size=(4, k))),
    )


def _loop(kernel, cross, f0, y, f0_test, eta, c, steps):
    f, g = np.asarray(f0), np.asarray(f0_test)
    for _ in range(steps):
        f, g = f - eta * c * np.asarray(kernel) @ (f - y), g - eta * c * np.asarray(cross) @ (f - y)
    return f, g


@pytest.mark.parametrize("rank", [10, 3], ids=["full rank", "rank 3"])
@pytest.mark.parametrize("loss", [jd.losses.half_sum, jd.losses.mse])
def test_descent_is_the_explicit_loop_for_every_rate_and_step(rank, loss, x64):
    (kernel, cross), (f0, y, f0_test) = _kernel(rank=rank), _outputs()
    c = loss.c(10, 2)
    top = float(np.linalg.eigvalsh(kernel)[-1])
    rates, steps = np.asarray([0.1, 1.0, 1.9]) / (c * top), np.asarray([0, 1, 7, 1000])
    evolution = linearized.descent(rates[:, None], steps[None, :])
    system = linearized.decompose(kernel)
    train = linearized.train_outputs(system, f0, y, evolution, loss=loss)
    test = linearized.test_outputs(system, f0, y, evolution, loss=loss, cross=cross, f0_test=f0_test)
    losses = linearized.train_loss(system, f0, y, evolution, loss=loss)
    for i, eta in enumerate(rates):
        for j, t in enumerate(steps):
            f, g = _loop(kernel, cross, f0, y, f0_test, eta, c, t)
            np.testing.assert_allclose(train[i, j], f, atol=1e-10)
            np.testing.assert_allclose(test[i, j], g, atol=1e-10)
            np.testing.assert_allclose(losses[i, j], loss(f, y), rtol=1e-9, atol=1e-20)


def test_flow_is_descent_with_tiny_steps(x64):
    (kernel, cross), (f0, y, f0_test) = _kernel(rank=4), _outputs()
    system = linearized.decompose(kernel)
    flow, descent = linearized.flow(np.asarray([3.0])), linearized.descent(np.asarray([3e-6]), np.asarray([1_000_000]))
    for function, extra in (
        (linearized.train_outputs, {}),
        (linearized.test_outputs, {"cross": cross, "f0_test": f0_test}),
    ):
        a = function(system, f0, y, flow, loss=jd.losses.half_sum, **extra)
        b = function(system, f0, y, descent, loss=jd.losses.half_sum, **extra)
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_blocks_of_two_outputs_are_the_linear_model_simulated_in_weights(x64):
    model = jd.models.mlp((3, 6, 2), activation=jnp.tanh)
    x = jax.random.normal(jax.random.key(0), (9, 3))
    task = jd.tasks.from_arrays(x[:6], jnp.stack([x[:6, 0], x[:6, 1]], axis=1), x_test=x[6:], y_test=x[6:, :2])
    params0 = model.init(jax.random.key(1))
    probes = {"train": jd.probes.Outputs(), "test": jd.probes.Outputs(task.x_test)}
    training = jd.Training(
        model, task, optax.sgd(0.2), steps=50, key=jax.random.key(1), params0=params0, expand=jd.linear,
        record=jd.record(jd.at([50]), **probes),
    )  # fmt: skip
    values = jd.train(training).values
    system = linearized.decompose(jd.geometry.ntk_blocks(model.apply, params0, task.x))
    f0, f0_test = model.apply(params0, task.x), model.apply(params0, task.x_test)
    evolution = linearized.descent(0.2, 50)
    cross = jd.geometry.ntk_blocks(model.apply, params0, task.x_test, task.x)
    np.testing.assert_allclose(
        linearized.train_outputs(system, f0, task.y, evolution, loss=jd.losses.mse), values["train"][0], atol=1e-10
    )
    np.testing.assert_allclose(
        linearized.test_outputs(system, f0, task.y, evolution, loss=jd.losses.mse, cross=cross, f0_test=f0_test),
        values["test"][0], atol=1e-10,
    )  # fmt: skip


def test_a_rate_beyond_the_critical_one_overflows_to_infinity_without_error():
    (kernel, _), (f0, y, _) = _kernel(), _outputs()
    grown = linearized.train_loss(
        linearized.decompose(kernel), f0, y, linearized.descent(10.0, 5000), loss=jd.losses.half_sum
    )
    assert np.isinf(grown)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda s, f, y: linearized.train_loss(s, f, y, linearized.flow(1.0), loss=jd.losses.cross_entropy),
            "quadratic",
        ),
        (lambda s, f, y: linearized.train_loss(s, f[:, 0], y, linearized.flow(1.0), loss=jd.losses.mse), r"\[n, k\]"),
        (lambda s, f, y: linearized.train_loss(s, f[:3], y[:3], linearized.flow(1.0), loss=jd.losses.mse), "10 modes"),
        (lambda s, f, y: linearized.decompose(jnp.ones((3, 4))), r"\(3, 4\)"),
    ],
)
def test_what_does_not_belong_together_is_refused(call, words):
    (kernel, _), (f0, y, _) = _kernel(), _outputs()
    with pytest.raises((ValueError, TypeError), match=words):
        call(linearized.decompose(kernel), f0, y)
