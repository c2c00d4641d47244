"""Synthetic tasks against the laws they are drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdyn.tasks import multi_index, polynomial, two_clusters

KEY = jax.random.key(0)


def ridge(z):
    return jnp.tanh(z[:, :1]) + z[:, 1:2] ** 2


def make_polynomial(key, n=20, n_test=7):
    return polynomial(key, degree=3, dim=5, n=n, n_test=n_test)


def make_multi_index(key, n=20, n_test=7):
    return multi_index(key, link=ridge, directions=2, dim=5, n=n, n_test=n_test)


def make_two_clusters(key, n=20, n_test=7):
    return two_clusters(key, n=n, n_test=n_test, dim=2)


FAMILIES = [make_polynomial, make_multi_index, make_two_clusters]


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_polynomial_is_the_product_of_the_leading_coordinates(degree):
    task = polynomial(KEY, degree=degree, dim=6, n=50, n_test=30)
    for x, y in ((task.x, task.y), (task.x_test, task.y_test)):
        np.testing.assert_allclose(y[:, 0], np.prod(np.asarray(x)[:, :degree], axis=1), rtol=1e-6)
        np.testing.assert_array_equal(task.target(x), y)
    assert (task.x.shape, task.y.shape, task.x_test.shape) == ((50, 6), (50, 1), (30, 6))


def test_the_gradient_of_the_polynomial_target_is_the_product_of_the_others_at_zero_too():
    target = polynomial(KEY, degree=3, dim=4, n=2).target
    gradient = jax.grad(lambda x: target(x[None])[0, 0])(jnp.array([0.0, 2.0, 5.0, 9.0]))
    np.testing.assert_array_equal(gradient, [10.0, 0.0, 0.0, 0.0])


def test_multi_index_depends_on_orthonormal_directions_only(x64):
    task = multi_index(KEY, link=ridge, directions=2, dim=9, n=40, n_test=11)
    u = np.asarray(task.target.directions)
    np.testing.assert_allclose(u.T @ u, np.eye(2), atol=1e-14)
    z = np.asarray(task.x) @ u
    np.testing.assert_allclose(task.y[:, 0], np.tanh(z[:, 0]) + z[:, 1] ** 2, rtol=1e-12)
    moved = task.x + np.random.default_rng(0).normal(size=(40, 9)) @ (np.eye(9) - u @ u.T)
    np.testing.assert_allclose(task.target(moved), task.y, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(task.target(task.x_test), task.y_test, rtol=1e-12)


def test_directions_are_uniform_on_the_sphere():
    # For a Haar column in R^3 each coordinate is uniform on [-1, 1]; 2000 draws, threshold fixed beforehand.
    draw = jax.jit(
        jax.vmap(lambda key: multi_index(key, link=ridge, directions=2, dim=3, n=1, n_test=0).target.directions)
    )
    u = np.asarray(draw(jax.random.split(KEY, 2000)))  # [2000, 3, 2]
    for entry in u.reshape(2000, 6).T:
        assert scipy.stats.kstest(entry, scipy.stats.uniform(-1, 2).cdf).pvalue > 1e-4


def test_inputs_are_standard_normal_and_independent_of_the_test_inputs():
    task = polynomial(KEY, degree=2, dim=4, n=5000, n_test=5000)
    for x in (task.x, task.x_test):
        assert scipy.stats.kstest(np.asarray(x).ravel(), "norm").pvalue > 1e-4
    correlation = np.corrcoef(np.asarray(task.x).ravel(), np.asarray(task.x_test).ravel())[0, 1]
    assert abs(correlation) < 4 / np.sqrt(20000)
    assert float(jnp.var(task.y)) == pytest.approx(1.0, abs=6 * np.sqrt(8 / 5000))  # Var (x1 x2)^2 = 8


def test_two_clusters_are_normal_around_their_signs():
    task = two_clusters(KEY, n=4000, n_test=10)
    x, y = np.asarray(task.x)[:, 0], np.asarray(task.y)[:, 0]
    assert task.y.shape == (4000, 1)
    assert set(y) == {-1.0, 1.0}
    assert y.sum() == 0
    for sign in (-1, 1):
        assert scipy.stats.kstest(x[y == sign], scipy.stats.norm(2 * sign, 1).cdf).pvalue > 1e-4
    wide = two_clusters(KEY, n=4000, centers=5.0, std=0.5, dim=3, n_test=0)
    x, y = np.asarray(wide.x), np.asarray(wide.y)
    assert scipy.stats.kstest(((x - [5.0, 0, 0] * y) / 0.5).ravel(), "norm").pvalue > 1e-4
    assert wide.x_test is None
    assert wide.y_test is None


@pytest.mark.parametrize("make", FAMILIES)
def test_a_smaller_task_is_the_beginning_of_a_larger_one(make):
    small, large = make(KEY, n=10, n_test=4), make(KEY, n=25, n_test=9)
    np.testing.assert_allclose(small.x, large.x[:10], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(small.y, large.y[:10], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(small.x_test, large.x_test[:4], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", FAMILIES)
def test_a_task_made_under_vmap_is_the_one_made_alone(make, x64):
    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(make))(keys)
    for i in range(3):
        alone, member = make(keys[i]), jax.tree.map(lambda leaf, i=i: leaf[i], together)
        assert jax.tree.structure(alone) == jax.tree.structure(member)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), alone, member)
    assert not np.allclose(together.x[0], together.x[1])


@pytest.mark.parametrize("make", FAMILIES)
def test_equal_parameters_give_equal_tree_structures_and_one_trace(make):
    a, b = make(jax.random.key(1)), make(jax.random.key(2))
    assert jax.tree.structure(a) == jax.tree.structure(b)
    traces = []

    @jax.jit
    def total(task):
        traces.append(1)
        return task.x.sum() if task.target is None else task.target(task.x).sum()

    total(a), total(b)
    assert len(traces) == 1


def test_the_directions_of_a_target_are_no_constant_of_a_compiled_programme():
    task = multi_index(KEY, link=ridge, directions=2, dim=300, n=2, n_test=0)
    lowered = jax.jit(lambda task: task.target(task.x)).lower(task).as_text()
    assert len(lowered) < 6000


def test_bad_numbers_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="`degree` is 4, but there are only dim=3"):
        polynomial(KEY, degree=4, dim=3, n=5)
    with pytest.raises(ValueError, match="`n` must be at least 1, but is 0"):
        polynomial(KEY, degree=1, dim=3, n=0)
    with pytest.raises(ValueError, match="`n_test` must be at least 0, but is -1"):
        two_clusters(KEY, n=3, n_test=-1)
    with pytest.raises(ValueError, match="`directions` is 4, but there are only dim=3"):
        multi_index(KEY, link=ridge, directions=4, dim=3, n=5)
    with pytest.raises(ValueError, match=r"to \(2,\); for one output keep the axis"):
        multi_index(KEY, link=lambda z: z.sum(axis=1), directions=2, dim=3, n=5)
