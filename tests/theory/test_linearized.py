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


def test_the_loss_overflows_even_where_a_mode_has_nothing_to_learn():
    system = linearized.decompose(jnp.diag(jnp.array([1.0, 2.0, 3.0])))
    f0, y = jnp.zeros((3, 1)), jnp.array([[1.0], [0.0], [0.0]])  # the modes of 2 and 3 are already learned
    losses = linearized.train_loss(
        system, f0, y, linearized.descent(jnp.array([1.0, 3.0]), 500), loss=jd.losses.half_sum
    )
    assert losses[0] == 0
    assert np.isinf(losses[1])


@pytest.mark.parametrize("shrink", [1e-7, 1e-3, 0.4999, 0.5001, 1.0, 1.5, 1.999, 2.0, 2.01])
def test_a_mode_decays_and_responds_like_its_geometric_sum_in_float32(shrink):
    count, curvature = 300, 2.0
    evolution = linearized.descent(jnp.array([shrink / curvature, 1.0]), jnp.array([count, count]))
    sum_ = shrink / curvature * np.sum((1 - np.float64(shrink)) ** np.arange(count))
    np.testing.assert_allclose(
        evolution.decay(jnp.array([curvature]))[0, 0], (1 - shrink) ** count, rtol=2e-4, atol=1e-30
    )
    np.testing.assert_allclose(evolution.response(jnp.array([curvature]))[0, 0], sum_, rtol=2e-4)


def test_a_million_small_steps_keep_their_digits_in_float32():
    kernel = jnp.array([[1e-6, 0.0], [0.0, 3e-7]])
    f0, y = jnp.zeros((2, 1)), jnp.ones((2, 1))
    system, evolution = linearized.decompose(kernel), linearized.descent(1.0, 1_000_000)
    expected = 1 - np.exp(1e6 * np.log1p(-np.array([[1e-6], [3e-7]])))
    found = linearized.train_outputs(system, f0, y, evolution, loss=jd.losses.half_sum)
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    pulled = linearized.test_outputs(system, f0, y, evolution, loss=jd.losses.half_sum, cross=kernel, f0_test=f0)
    np.testing.assert_allclose(pulled, expected, rtol=2e-6)


def test_the_response_of_a_null_direction_is_linear_in_time_and_moves_no_test_output(x64):
    system = linearized.decompose(jnp.diag(jnp.array([0.0, 1.0])))
    f0, y = jnp.zeros((2, 1)), jnp.ones((2, 1))
    options = {"loss": jd.losses.half_mean, "cross": jnp.array([[1e-16, 0.0]]), "f0_test": jnp.zeros((1, 1))}
    for evolution in (linearized.descent(0.1, np.array([0, 10, 10**18])), linearized.flow(np.array([0.0, 1.0, 1e17]))):
        np.testing.assert_allclose(evolution.response(jnp.zeros(1))[:, 0], [0.0, 1.0, 1e17], rtol=1e-12)
        assert not linearized.test_outputs(system, f0, y, evolution, **options).any()


@pytest.mark.parametrize("evolution", [linearized.descent, lambda rate, steps: linearized.flow(rate * steps)])
@pytest.mark.parametrize(("kind", "gap"), [("infinite", 0.01), ("empirical", 0.04), ("low rank", 1e-3)])
def test_on_a_singular_kernel_test_outputs_at_training_inputs_are_training_outputs_at_any_time(kind, gap, evolution):
    """The least eigenvalue that is kept is n ε λ_max, and `cross` is rounded by ε λ_max: 1/n of such a mode, as the processor has it."""
    x = jnp.linspace(-31, 31, 100)[:, None]
    model = jd.models.mlp((1, 128, 128, 1), activation=jax.nn.relu, bias=0.05)
    if kind == "infinite":
        kernel = model.kernel(x).ntk
    elif kind == "empirical":
        kernel = jd.geometry.ntk(model.apply, model.init(jax.random.key(0)), x)
    else:
        kernel = jnp.vander(x[:, 0] / 31, 6) @ jnp.vander(x[:, 0] / 31, 6).T
    system, y = linearized.decompose(kernel), jnp.sin(x)
    many = evolution(1 / system.values.max(), np.array([1e5, 1e7, 1e9]))
    options = {"loss": jd.losses.half_sum}
    pulled = linearized.test_outputs(system, 0 * y, y, many, cross=kernel, f0_test=0 * y, **options)
    np.testing.assert_allclose(pulled, linearized.train_outputs(system, 0 * y, y, many, **options), atol=gap)


def test_small_eigenvalues_above_the_rounding_of_a_clean_kernel_are_kept_and_infinite_flow_is_kernel_regression():
    n = 400
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    values = np.r_[np.full(n - 1, 60 * np.finfo(np.float32).eps), 1.0]  # below n ε λ_max
    system = linearized.decompose(jnp.asarray((vectors * values) @ vectors.T, jnp.float32))
    assert jnp.all(system.values > 0)
    np.testing.assert_allclose(system.values[:-1], values[:-1], rtol=0.2)
    kernel = jnp.array([[2.0, 1.0], [1.0, 2.0]])
    y, cross = jnp.array([[1.0], [-2.0]]), jnp.array([[1.0, 0.5]])
    found = linearized.test_outputs(
        linearized.decompose(kernel),
        0 * y,
        y,
        linearized.flow(jnp.inf),
        loss=jd.losses.mse,
        cross=cross,
        f0_test=jnp.zeros((1, 1)),
    )
    np.testing.assert_allclose(found, cross @ np.linalg.solve(kernel, y), rtol=1e-5, atol=1e-6)


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="n ≥ 1"):
        linearized.decompose(jnp.zeros((0, 0)))
    with pytest.raises(ValueError, match="k ≥ 1"):
        linearized.train_loss(
            linearized.System(jnp.zeros(0), jnp.zeros((0, 0))),
            jnp.zeros((0, 1)),
            jnp.zeros((0, 1)),
            linearized.flow(1.0),
            loss=jd.losses.mse,
        )


def test_rounding_below_zero_does_not_grow_over_many_steps():
    root = jax.random.normal(jax.random.key(0), (60, 2))
    system = linearized.decompose(root @ root.T)
    f0, y = jnp.zeros((60, 1)), jnp.ones((60, 1))
    rate = 1.0 / system.values[-1]
    losses = linearized.train_loss(system, f0, y, linearized.descent(rate, np.array([100, 10**8])), loss=jd.losses.mse)
    assert losses[1] <= losses[0] * (1 + 1e-5)


def test_a_scalar_rate_meets_a_vector_of_steps_and_time_zero_is_the_start(x64):
    (kernel, _), (f0, y, _) = _kernel(), _outputs()
    system = linearized.decompose(kernel)
    found = linearized.train_outputs(system, f0, y, linearized.descent(0.1, np.arange(3)), loss=jd.losses.mse)
    assert found.shape == (3, 10, 2)
    np.testing.assert_allclose(found[0], f0, atol=1e-12)
    now = linearized.train_outputs(system, f0, y, linearized.flow(0.0), loss=jd.losses.mse)
    np.testing.assert_allclose(now, f0, atol=1e-12)


def test_the_loss_grid_is_the_loss_of_the_outputs_for_blocks_too(x64):
    rng = np.random.default_rng(3)
    root = rng.normal(size=(5, 2, 30))
    blocks = jnp.asarray(np.einsum("iap,jbp->ijab", root, root))
    f0, y = (jnp.asarray(rng.normal(size=(5, 2))) for _ in range(2))
    system, evolution = linearized.decompose(blocks), linearized.flow(np.array([[0.0, 0.001], [0.01, 0.1]]))
    outputs = linearized.train_outputs(system, f0, y, evolution, loss=jd.losses.torch_mse)
    losses = linearized.train_loss(system, f0, y, evolution, loss=jd.losses.torch_mse)
    for i, j in np.ndindex(2, 2):
        np.testing.assert_allclose(losses[i, j], jd.losses.torch_mse(outputs[i, j], y), rtol=1e-10)


def test_everything_may_be_jitted_and_vmapped(x64):
    kernels = jnp.stack([_kernel(seed=s)[0] for s in range(3)])
    (_, cross), (f0, y, f0_test) = _kernel(), _outputs()

    def one(kernel, rate, steps):
        system, evolution = linearized.decompose(kernel), linearized.descent(rate, steps)
        options = {"loss": jd.losses.mse, "cross": cross, "f0_test": f0_test}
        return (
            linearized.train_loss(system, f0, y, evolution, loss=jd.losses.mse),
            linearized.test_outputs(system, f0, y, evolution, **options),
        )

    rates, steps = jnp.array([0.1, 0.2, 0.3]), jnp.array([3, 40])
    together = jax.jit(jax.vmap(one, in_axes=(0, 0, None)))(kernels, rates, steps)
    for i in range(3):
        for found, alone in zip(together, one(kernels[i], rates[i], steps), strict=True):
            np.testing.assert_allclose(found[i], alone, atol=1e-12)


@pytest.mark.parametrize("steps", [-1, 2.5, [0, 3, -2], np.nan])
def test_steps_that_are_no_steps_are_refused(steps):
    with pytest.raises(ValueError, match="completed steps"):
        linearized.descent(0.1, np.asarray(steps))


def test_a_kernel_between_two_sets_of_inputs_is_refused_as_a_kernel():
    with pytest.raises(ValueError, match=r"cross=…"):
        linearized.decompose(jnp.array([[1.0, 2.0], [0.5, 1.0]]))


@pytest.mark.parametrize("shape", [(4, 9), (3, 10), (4, 10, 2, 2)])
def test_a_cross_kernel_of_another_shape_is_refused(shape):
    (kernel, _), (f0, y, f0_test) = _kernel(), _outputs()
    options = {"loss": jd.losses.mse, "cross": jnp.ones(shape), "f0_test": f0_test}
    with pytest.raises(ValueError, match="does not belong to a kernel with 10 modes"):
        linearized.test_outputs(linearized.decompose(kernel), f0, y, linearized.flow(1.0), **options)


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
