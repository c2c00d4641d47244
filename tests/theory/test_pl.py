"""PL*: identities at any point, and the convergence theorem on quadratic maps whose constants on the ball are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import jaxdyn as jd
from jaxdyn import losses, models
from jaxdyn.theory import pl

pytestmark = pytest.mark.usefixtures("x64")

LOSSES = [losses.half_sum, losses.half_mean, losses.mse, losses.torch_mse]
N, P, CURVATURE = 8, 60, 0.1


def _network(seed=0):
    model = models.mlp((3, 40, 2), activation=jnp.tanh)
    rng = np.random.default_rng(seed)
    return (
        model,
        model.init(jax.random.key(seed)),
        jnp.asarray(rng.normal(size=(5, 3))),
        jnp.asarray(rng.normal(size=(5, 2))),
    )


def _dense_jacobian(model, params, x):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.jacobian(lambda w: model.apply(unravel(w), x).reshape(-1))(flat))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_squared_gradient_is_the_kernel_form_of_the_residual_and_bounds_the_loss(loss):
    model, params, x, y = _network()
    found = pl.gradient(model.apply, params, x, y, loss=loss)
    np.testing.assert_allclose(found.squared, found.form, rtol=1e-12)
    jacobian = _dense_jacobian(model, params, x)
    residual = np.asarray(model.apply(params, x) - y).reshape(-1)
    c = loss.c(5, 2)
    np.testing.assert_allclose(found.squared, c**2 * np.sum((jacobian.T @ residual) ** 2), rtol=1e-12)
    ratio, mu = pl.ratio(model.apply, params, x, y, loss=loss), pl.constant(model.apply, params, x, loss=loss)
    np.testing.assert_allclose(ratio, found.squared / (2 * loss(model.apply(params, x), y)), rtol=1e-12)
    np.testing.assert_allclose(mu, c * np.linalg.svd(jacobian, compute_uv=False).min() ** 2, rtol=1e-9)
    assert ratio >= mu


def test_the_inequality_is_sharp_along_the_smallest_eigenvector():
    """Targets that put the residual on the bottom eigenvector turn ½‖∇L‖² ≥ μL into an equality: the factor is 2, not 1."""
    model, params, x, _ = _network()
    jacobian = _dense_jacobian(model, params, x)
    bottom = np.linalg.eigh(jacobian @ jacobian.T)[1][:, 0].reshape(5, 2)
    y = model.apply(params, x) - jnp.asarray(bottom)
    found = pl.ratio(model.apply, params, x, y, loss=losses.mse)
    np.testing.assert_allclose(found, pl.constant(model.apply, params, x, loss=losses.mse), rtol=1e-8)


def test_conditioning_is_the_square_of_singular_values_and_zero_when_under_parameterised():
    model, params, x, _ = _network()
    singular = np.linalg.svd(_dense_jacobian(model, params, x), compute_uv=False)
    found = pl.conditioning(model.apply, params, x)
    np.testing.assert_allclose(found, [singular[-1] ** 2, singular[0] ** 2], rtol=1e-9)
    narrow = models.mlp((3, 2, 1), activation=jnp.tanh)  # 8 parameters
    many = jnp.asarray(np.random.default_rng(1).normal(size=(9, 3)))
    found = pl.conditioning(narrow.apply, narrow.init(jax.random.key(0)), many)
    assert abs(found.smallest) < 1e-13 * found.largest


def test_constants_need_a_quadratic_loss_and_the_ratio_does_not():
    model, params, x, y = _network()
    with pytest.raises(ValueError, match=r"jd.losses.half_sum"):
        pl.constant(model.apply, params, x, loss=losses.cross_entropy)
    assert pl.ratio(model.apply, params, x, jax.nn.softmax(y), loss=losses.cross_entropy) > 0


class _QuadraticMap:
    """F_i(w) = a_i·w + ½ wᵀA_i w, its constants on the ball of radius R around 0, and the R that the theorem asks for."""

    def __init__(self, seed, c):
        rng = np.random.default_rng(seed)
        self.a = rng.normal(size=(N, P))
        square = rng.normal(size=(N, P, P))
        square = square + square.transpose(0, 2, 1)
        self.hessians = CURVATURE * square / np.linalg.norm(square, ord=2, axis=(1, 2))[:, None, None]
        self.y = rng.normal(size=N) / np.sqrt(N)  # ‖r_0‖ is about 1
        self.c = c
        self.residual0 = np.linalg.norm(self.y)
        self.bend = np.sqrt(np.sum(np.linalg.norm(self.hessians, ord=2, axis=(1, 2)) ** 2))  # β_F, at most
        singular = np.linalg.svd(self.a, compute_uv=False)

        def constants(radius):
            return singular[0] + self.bend * radius, c * (singular[-1] - self.bend * radius) ** 2

        def gap(radius):
            lipschitz, mu = constants(radius)
            return pl.lipschitz_radius(self.residual0, constant=mu, lipschitz=lipschitz, c=c) - radius

        self.radius = scipy.optimize.brentq(gap, 0.0, 0.5 * singular[-1] / self.bend)
        self.lipschitz, self.mu = constants(self.radius)
        self.smallest0 = singular[-1] ** 2
        self.gradient = np.linalg.norm(self.a, axis=1).max() + CURVATURE * self.radius
        self.task = jd.tasks.from_arrays(jnp.eye(N), jnp.asarray(self.y)[:, None])

    def apply(self, w, x):
        values = jnp.asarray(self.a) @ w + 0.5 * jnp.einsum("p,ipq,q->i", w, jnp.asarray(self.hessians), w)
        return x @ values[:, None]


@pytest.mark.parametrize("loss", [losses.half_sum, losses.mse], ids=lambda loss: loss.name)
def test_gradient_descent_on_a_quadratic_map_obeys_the_theorem(loss):
    system = _QuadraticMap(0, loss.c(N, 1))
    eta = pl.lipschitz_rate(system.residual0, lipschitz=system.lipschitz, smoothness=system.bend, c=system.c)
    model = models.Model(lambda key: jnp.zeros(P), system.apply)
    steps = 60
    run = jd.Training(
        model, system.task, optax.sgd(float(eta)), steps=steps, key=jax.random.key(0), loss=loss,
        record=jd.record(
            jd.every(1), loss=jd.probes.Loss(), ratio=jd.probes.PLRatio(), kernel=jd.probes.Conditioning(),
            path=jd.probes.PathLength(), away=jd.probes.Displacement(),
        ),
    )  # fmt: skip
    found = {name: np.asarray(value) for name, value in jax.jit(lambda: jd.train(run).values)().items()}
    bound = found["loss"][0] * np.asarray(pl.descent(np.arange(steps + 1), learning_rate=eta, constant=system.mu))
    assert np.all(found["loss"] <= bound * (1 + 1e-12))
    assert found["loss"][-1] < 0.05 * found["loss"][0]
    assert np.all(found["ratio"] >= system.mu)
    assert np.all(found["ratio"] >= loss.c(N, 1) * found["kernel"] * (1 - 1e-9))
    assert np.all(np.diff(found["path"]) >= 0)
    assert np.all(found["away"] <= found["path"] * (1 + 1e-12))
    assert 0.05 * system.radius < found["path"][-1] <= system.radius
    assert np.all(loss.c(N, 1) * found["kernel"] >= system.mu)
    stable = pl.stable_conditioning(
        system.smallest0, num_rows=N, radius=found["away"].max(), gradient=system.gradient, hessian=CURVATURE
    )
    assert np.all(found["kernel"] >= stable)
    smooth = system.c * (system.lipschitz**2 + system.bend * system.residual0)
    assert pl.radius(found["loss"][0], constant=system.mu, smoothness=smooth) >= system.radius


def test_kernel_drift_bounds_every_entry_on_a_quadratic_map():
    system = _QuadraticMap(1, 1.0)
    kernel = lambda w: jd.geometry.ntk(system.apply, w, jnp.eye(N))  # noqa: E731
    start = kernel(jnp.zeros(P))
    for seed in range(5):
        w = jd.geometry.ball.random_point(jax.random.key(seed), jnp.zeros(P), radius=system.radius)
        most = pl.kernel_drift(radius=system.radius, gradient=system.gradient, hessian=CURVATURE)
        assert np.abs(kernel(w) - start).max() <= most


def test_path_length_at_a_cadence_is_the_length_of_the_chords():
    model, params, x, y = _network()

    def path(every):
        run = jd.Training(
            model, jd.tasks.from_arrays(x, y), optax.sgd(0.3), steps=8, key=jax.random.key(0), params0=params,
            record=jd.record(jd.every(every), path=jd.probes.PathLength(), away=jd.probes.Displacement()),
        )  # fmt: skip
        return jd.train(run).values

    assert path(8)["path"][-1] == path(8)["away"][-1]
    assert path(8)["path"][-1] < path(1)["path"][-1]
    assert path(1)["path"][0] == 0


def test_gaussian_kernels_are_better_conditioned_than_the_bound():
    rng = np.random.default_rng(0)
    for n, m in ((8, 8), (8, 16), (8, 128)):
        singular = np.linalg.svd(rng.normal(size=(2000, n, m)), compute_uv=False)
        mean = np.mean(2 * np.log(singular[:, 0] / singular[:, -1]))
        assert mean < pl.gaussian_condition_bound(n, m)
        assert mean > pl.gaussian_condition_bound(n, m) - 5  # a bound of another form would not hold at all three


@pytest.mark.parametrize("function", [pl.gaussian_condition_bound, pl.singular_codimension])
def test_fewer_parameters_than_equations_are_refused(function):
    with pytest.raises(ValueError, match="n = 5 equations and m = 4"):
        function(5, 4)


def test_the_codimension_of_singular_matrices_is_the_number_of_conditions():
    """Rank n - 1 matrices n × m have (n - 1)(n + m - (n - 1)) degrees of freedom."""
    for n, m in ((1, 4), (3, 3), (5, 9)):
        assert pl.singular_codimension(n, m) == n * m - (n - 1) * (m + 1)
