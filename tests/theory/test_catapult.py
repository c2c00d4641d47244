"""The exact maps against gradient descent through `jd.train` in float64, through catapults, and against numpy loops.

Criteria, fixed beforehand: outputs, losses and kernels agree to 1e-12 of their largest value along the run; rates
η_rel = 1, 2.2, 3 and 3.8, 200 steps; 4.3 diverges. An orbit that is chaotic amplifies rounding; at these rates none is.
"""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd
from jaxdyn.theory import catapult

RATES = (1.0, 2.2, 3.0, 3.8)


def _orbits(model, task, expand, loss, rates, steps=200):
    """Outputs [r, t, n, 1] and kernels [r, t, n, n] of gradient descent, and the absolute rates."""
    params0 = model.init(jax.random.key(1))
    apply = expand(model.apply, params0)
    unit = jd.theory.critical_learning_rate(apply, params0, task, loss=loss) / 2

    def run(lr):
        probes = jd.record(jd.every(1), f=jd.probes.Outputs(), kernel=jd.probes.NTKMatrix(task.x))
        training = jd.Training(
            model, task, optax.sgd(lr), steps=steps, key=jax.random.key(0), params0=params0, loss=loss, expand=expand,
            record=probes,
        )  # fmt: skip
        return jd.train(training)

    lr = jnp.asarray(rates) * unit
    found = jax.jit(jax.vmap(run))(lr)
    return lr, found.values["f"], found.values["kernel"], found.diverged_at


def _assert_same(found, expected):
    scale = jnp.max(jnp.abs(expected), axis=0)
    assert np.isfinite(expected).all()
    assert float(jnp.max(jnp.abs(found - expected) / scale[None])) < 1e-12


def _one(dim, y, scale=1.0):
    x = jax.random.normal(jax.random.key(5), (1, dim)) * scale
    return jd.tasks.from_arrays(x, jnp.full((1, 1), y))


SINGLE = {
    "two_layer": (lambda: jd.models.two_layer_relu(5, 300), 5, jd.models.frozen_gates, 0.7, lambda x: x / (300 * 5)),
    "two_layer_jvp": (lambda: jd.models.two_layer_relu(5, 300), 5, jd.quadratic, 0.7, lambda x: x / (300 * 5)),
    "uv": (lambda: jd.models.uv(200), 1, jd.exact, 0.3, lambda x: x / 200),
    "pure": (lambda: jd.models.pure_quadratic(200, gamma=0.07), 3, jd.exact, 0.0, lambda x: x * 0.07**2),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "loss"), [*((name, jd.losses.half_sum) for name in SINGLE), ("two_layer", jd.losses.mse)], ids=str
)
def test_one_example_follows_its_map_through_the_catapult(name, loss, x64):
    make, dim, expand, y, coupling = SINGLE[name]
    task = _one(dim, y)
    lr, f, kernel, _ = _orbits(make(), task, expand, loss, RATES)
    a = coupling(jnp.sum(task.x**2))
    step = catapult.example_map(lr, coupling=a, y=y, c=loss.c(1, 1))
    path = catapult.trajectory(step, catapult.Example(f[:, 0, 0, 0], kernel[:, 0, 0, 0]), steps=200)
    _assert_same(path.output, f[:, :, 0, 0].T)
    _assert_same(path.kernel, kernel[:, :, 0, 0].T)
    rise = jnp.max((path.output - y) ** 2, axis=0) / (path.output[0] - y) ** 2
    assert rise[0] == 1
    assert (rise[1:] > 1.1).all()  # the runs above 2 did catapult


def test_the_reduced_map_is_the_map_without_units(x64):
    setting = {"coupling": 0.002, "y": 0.7, "c": 2.0}
    lr = jnp.asarray(RATES) / 2
    start = catapult.Example(jnp.full(4, 0.4), jnp.ones(4))
    path = catapult.trajectory(catapult.example_map(lr, **setting), start, steps=200)
    expected = catapult.reduce(path, lr[None, :], **setting)
    found = catapult.trajectory(catapult.reduced_map, catapult.reduce(start, lr, **setting), steps=200)
    for one, other in zip(found, expected, strict=True):
        _assert_same(one, other)
    kappa = catapult.growth(jax.tree.map(lambda part: part[:-1], found))
    np.testing.assert_allclose(found.u[1:], kappa * found.u[:-1], rtol=1e-13)


@pytest.mark.parametrize("ratio", [4.3, 6.0])
def test_above_four_the_map_and_gradient_descent_diverge(ratio, x64):
    task = _one(5, 0.7)
    lr, f, kernel, diverged_at = _orbits(
        jd.models.two_layer_relu(5, 300), task, jd.models.frozen_gates, jd.losses.half_sum, (ratio,)
    )
    assert diverged_at[0] > 0
    step = catapult.example_map(lr[0], coupling=jnp.sum(task.x**2) / 1500, y=0.7, c=1.0)
    path = catapult.trajectory(step, catapult.Example(f[0, 0, 0, 0], kernel[0, 0, 0, 0]), steps=200)
    assert not np.isfinite(path.output[-1])


def _two_classes(n=24):
    key = jax.random.key(8)
    y = jnp.where(jnp.arange(n) % 2 == 0, 1.0, -1.0)[:, None]
    return jd.tasks.from_arrays(2 * y + jax.random.normal(key, (n, 1)), y)


@pytest.mark.parametrize("loss", [jd.losses.mse, jd.losses.half_mean], ids=repr)
def test_in_one_dimension_each_sign_class_is_one_example(loss, x64):
    task = _two_classes()
    lr, f, kernel, _ = _orbits(
        jd.models.two_layer_relu(1, 400), task, jd.models.frozen_gates, loss, (1.0, 2.1, 2.6, 3.3), steps=150
    )
    classes = catapult.sign_classes(task.x, task.y, 400)
    c = loss.c(24, 1)

    @jax.jit
    def predicted(rate, f0, kernel0):
        step = catapult.example_map(rate, coupling=classes.coupling, y=classes.y, c=c)
        path = catapult.trajectory(step, classes.states(f0, kernel0), steps=150)
        return classes.outputs(path), path.kernel, classes.loss(path, c=c)

    later = jax.jit(jax.vmap(jax.vmap(classes.states)))(f, kernel)
    losses = c / 2 * jnp.sum((f - task.y[None, None]) ** 2, axis=(2, 3))
    for i, rate in enumerate(lr):
        outputs, kernels, values = predicted(rate, f[i, 0], kernel[i, 0])
        _assert_same(outputs, f[i])
        _assert_same(kernels, later.kernel[i])
        _assert_same(values, losses[i])


def test_a_class_without_examples_stays_at_rest(x64):
    x = jnp.array([[1.0], [2.0]])
    classes = catapult.sign_classes(x, x, 10)
    assert classes.coupling[1] == classes.y[1] == 0
    step = catapult.example_map(0.1, coupling=classes.coupling, y=classes.y, c=1.0)
    after = step(classes.states(x, x @ x.T))
    assert after.output[1] == after.kernel[1] == 0


def _general(gamma=0.05):
    signs = jnp.where(jax.random.bernoulli(jax.random.key(2), shape=(40,)), 1.0, -1.0)
    return jd.models.general_quadratic(
        40,
        gamma=gamma,
        feature=lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True),
        curvature=lambda x, w: signs[None, :] * w[None, :] * x,
    )


@pytest.mark.parametrize("name", ["general", "two_layer"])
def test_the_update_of_a_general_quadratic_model_is_one_step_of_gradient_descent(name, x64):
    if name == "general":
        model, expand = _general(), jd.exact
        task = jd.tasks.from_arrays(*(jax.random.normal(jax.random.key(i), (6, d)) for i, d in ((3, 40), (4, 1))))
    else:
        model, expand = jd.models.mlp((4, 30, 2), activation=jnp.tanh), jd.quadratic
        task = jd.tasks.from_arrays(*(jax.random.normal(jax.random.key(i), (6, d)) for i, d in ((3, 4), (4, 2))))
    params0, loss, lr = model.init(jax.random.key(0)), jd.losses.mse, 0.8
    apply = expand(model.apply, params0)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.cos(jnp.arange(leaf.size).reshape(leaf.shape)), params0)

    @jax.jit
    def predicted(params):
        return catapult.quadratic_update(apply, params, task.x, task.y, learning_rate=lr, loss=loss)

    @jax.jit
    def kernels(params):
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        jacobian = jax.jacrev(lambda w: apply(unravel(w), task.x).reshape(-1))(flat)
        return jacobian @ jacobian.T

    found = predicted(params)
    gradient = jax.jit(jax.grad(lambda p: loss(apply(p, task.x), task.y)))(params)
    after = jax.tree.map(lambda p, g: p - lr * g, params, gradient)
    kernel = kernels(after)
    np.testing.assert_allclose(found.outputs, apply(after, task.x), atol=1e-12 * float(jnp.abs(found.outputs).max()))
    np.testing.assert_allclose(found.kernel, kernel, atol=1e-12 * float(jnp.abs(kernel).max()))
    before = kernels(params)
    eta, r = lr * 2 / 6, (apply(params, task.x) - task.y).reshape(-1)
    moved = r - eta * before @ r + found.output_correction @ r
    np.testing.assert_allclose(moved, (found.outputs - task.y).reshape(-1), atol=1e-12)
    np.testing.assert_allclose(before - found.kernel_decrease, found.kernel, atol=1e-12)


def test_the_correction_of_a_network_is_that_of_its_quadratic_model_at_the_anchor(x64):
    model = jd.models.mlp((4, 30, 1), activation=jnp.tanh)
    task = jd.tasks.from_arrays(*(jax.random.normal(jax.random.key(i), (5, d)) for i, d in ((3, 4), (4, 1))))
    params0 = model.init(jax.random.key(0))

    def predicted(apply):
        return jax.jit(
            lambda p: catapult.quadratic_update(apply, p, task.x, task.y, learning_rate=0.5, loss=jd.losses.mse)
        )(params0)

    both = [predicted(apply) for apply in (model.apply, jd.quadratic(model.apply, params0))]
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_losses_without_a_constant_are_refused():
    with pytest.raises(ValueError, match="quadratic loss"):
        catapult.quadratic_update(
            lambda w, x: x * w, jnp.ones(()), jnp.ones((2, 1)), jnp.ones((2, 1)), learning_rate=0.1,
            loss=jd.losses.cross_entropy,
        )  # fmt: skip


@pytest.mark.parametrize("y", [0.0, 0.6])
def test_equilibria_are_fixed_points_and_unstable(y, x64):
    setting = {"coupling": 0.01, "y": y, "c": 2.0}
    step = catapult.example_map(0.4, **setting)
    for name, point in catapult.equilibria(0.4, **setting)._asdict().items():
        after = step(point)
        np.testing.assert_allclose(after.output, point.output, atol=1e-13)
        np.testing.assert_allclose(after.kernel, point.kernel, atol=1e-13)
        if name != "origin" or y != 0:
            assert catapult.multipliers(step, point)[0] > 1.01
    reduced = catapult.reduce(catapult.equilibria(0.4, **setting).above, 0.4, **setting)
    np.testing.assert_allclose(catapult.growth(reduced), 1.0, rtol=1e-13)
    np.testing.assert_allclose(reduced.u * (4 - reduced.v) + 4 * reduced.w, 0.0, atol=1e-12)


def test_the_edge_equilibrium_is_realised_by_the_uv_model(x64):
    """u = v = b with every step a reflection: gradient descent turns b into −b and back, at constant loss."""
    m, eta, y = 4, 0.5, 0.25
    point = catapult.equilibria(eta, coupling=1 / m, y=y, c=1.0).above
    b = np.sqrt(float(point.kernel) / 2)
    u, v = np.full(m, b), np.full(m, b)
    f = u @ v / np.sqrt(m)
    np.testing.assert_allclose(f, point.output, rtol=1e-13)
    np.testing.assert_allclose(u - eta * (f - y) * v / np.sqrt(m), -v, rtol=1e-12)


@pytest.mark.parametrize(("v", "stable"), [(0.3, True), (1.9, True), (2.1, False), (3.0, False)])
def test_zero_loss_is_stable_below_two(v, stable, x64):
    step = catapult.example_map(1.0, coupling=0.01, y=0.5, c=1.0)
    moduli = catapult.multipliers(step, catapult.Example(jnp.asarray(0.5), jnp.asarray(v)))
    np.testing.assert_allclose(sorted(moduli), sorted([1.0, abs(1 - v)]), atol=1e-12)
    path = catapult.trajectory(step, catapult.Example(jnp.asarray(0.5 + 1e-6), jnp.asarray(v)), steps=100)
    assert (jnp.max(jnp.abs(path.output - 0.5)) <= 1.01e-6) == stable


def test_the_cycle_of_period_two_at_four(x64):
    start = catapult.Reduced(u=2.0, v=4.0, w=0.0)
    path = catapult.trajectory(catapult.reduced_map, start, steps=4)
    np.testing.assert_array_equal(path.u, 2.0)
    np.testing.assert_array_equal(path.v, 4.0)


def test_the_phases_lie_between_the_boundaries(x64):
    """Wide (a = 1e-6): 1 % beside 2/(cλ) and 4/(cλ) the run is lazy, catapults, converges, diverges."""
    c, kernel = 0.25, 1.7
    critical, maximal = catapult.boundaries(kernel, c=c)
    lr = jnp.stack([0.99 * critical, 1.01 * critical, 0.99 * maximal, 1.01 * maximal])
    found = catapult.outcome(
        lr, catapult.Example(jnp.ones(4), jnp.full(4, kernel)), coupling=1e-6, y=0.0, c=c, steps=3000
    )
    start = c / 2
    assert found.peak[0] == start
    assert found.peak[1] > 10 * start
    assert np.isfinite(found.peak[:3]).all()
    assert (found.final[:3] < 1e-6 * start).all()
    assert (lr[:3] * c * found.kernel[:3] < 2).all()
    assert not np.isfinite(found.final[3])
    np.testing.assert_allclose(found.kernel[0], kernel, rtol=1e-4)


def test_the_peak_grows_like_the_width(x64):
    """Slope of log peak in log m within 0.1 of one, m = 2⁹ … 2¹⁷ at η_rel = 3."""
    m = 2.0 ** np.arange(9, 18)
    start = catapult.Example(jnp.ones(9), jnp.ones(9))
    found = catapult.outcome(jnp.full(9, 3.0), start, coupling=jnp.asarray(1 / m), y=0.0, c=1.0, steps=400)
    assert abs(np.polyfit(np.log(m), np.log(found.peak), 1)[0] - 1) < 0.1


def test_sign_classes_ask_for_one_dimension():
    with pytest.raises(ValueError, match="quadratic_update"):
        catapult.sign_classes(jnp.ones((3, 2)), jnp.ones((3, 1)), 10)
