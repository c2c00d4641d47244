"""Points of a ball in parameter space: on the sphere, inside, and at least as high as where the search began."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn import _tree
from jaxdyn.geometry import ball

CENTRE = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(4)}


def _distance(params, params0=CENTRE):
    return float(_tree.norm(_tree.sub(params, params0)))


def test_random_points_lie_on_the_sphere_and_differ_between_keys():
    points = [ball.random_point(jax.random.key(seed), CENTRE, radius=3.0) for seed in range(2)]
    assert [_distance(point) for point in points] == pytest.approx([3.0, 3.0], rel=1e-6)
    assert _distance(points[0], points[1]) > 1.0


def test_random_points_are_uniform_on_the_sphere(x64):
    """Coordinates have mean 0 and second moment R²/p, off-diagonal moments 0: within 5 standard errors of 4000 draws."""
    draw = jax.vmap(lambda key: ball.random_point(key, jnp.zeros(5), radius=2.0))
    points = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    error = 5 * 4 / 5 / np.sqrt(4000)
    np.testing.assert_allclose(points.T @ points / 4000, np.eye(5) * 4 / 5, atol=2 * error)
    np.testing.assert_allclose(points.mean(0), 0, atol=2 * error)


def test_left_out_parameters_stay_where_they_are():
    where = {"a": jnp.zeros((2, 3), bool), "b": jnp.ones(4, bool)}
    point = ball.random_point(jax.random.key(0), CENTRE, radius=3.0, where=where)
    np.testing.assert_array_equal(point["a"], CENTRE["a"])
    assert _distance(point) == pytest.approx(3.0, rel=1e-6)
    climbed, _ = ball.ascend(_tree.norm, CENTRE, key=jax.random.key(0), radius=3.0, steps=5, where=where)
    np.testing.assert_array_equal(climbed["a"], CENTRE["a"])


def test_a_quadratic_form_reaches_its_largest_value_on_the_ball(x64):
    """max wᵀA w over ‖w‖ ≤ R is R² λ_max(A)."""
    factor = np.random.default_rng(0).normal(size=(6, 6))
    matrix = jnp.asarray(factor + factor.T)
    point, value = ball.ascend(
        lambda w: w @ matrix @ w, jnp.zeros(6), key=jax.random.key(0), radius=2.0, steps=300, rate=0.3
    )
    assert float(value) == pytest.approx(4 * np.linalg.eigvalsh(matrix)[-1], rel=1e-4)
    assert _distance(point, jnp.zeros(6)) <= 2.0 + 1e-12


def test_ascent_finds_the_peak_inside_the_ball(x64):
    peak = jnp.asarray([0.3, -0.4, 0.0])
    _, value = ball.ascend(
        lambda w: -jnp.sum((w - peak) ** 2), jnp.zeros(3), key=jax.random.key(1), radius=2.0, steps=400
    )
    assert -1e-4 < float(value) <= 0


def test_ascent_is_never_below_the_centre_or_its_start():
    model = jd.models.mlp((3, 16, 1), activation=jnp.tanh)
    params, x = model.init(jax.random.key(0)), jnp.ones((1, 3))
    linear = jd.linear(model.apply, params)

    def gap(w):
        return jnp.abs(model.apply(w, x) - linear(w, x))[0, 0]

    key = jax.random.key(5)
    point, value = ball.ascend(gap, params, key=key, radius=1.0, steps=8)
    start = ball.random_point(key, params, radius=1.0)
    assert float(value) >= max(float(gap(params)), float(gap(start)))
    assert float(gap(point)) == pytest.approx(float(value), rel=1e-5)
    assert float(value) > 2 * float(gap(start))


def test_values_that_are_not_finite_do_not_count():
    def value(w):
        return jnp.where(w[0] > 0.5, jnp.nan, w[0])

    _, found = ball.ascend(value, jnp.zeros(2), key=jax.random.key(0), radius=1.0, steps=20)
    assert 0 <= float(found) <= 0.5
    point, nothing = ball.ascend(lambda w: w[0] * jnp.nan, jnp.zeros(2), key=jax.random.key(0), radius=1.0, steps=3)
    assert np.isnan(nothing)
    np.testing.assert_array_equal(point, np.zeros(2))


def test_radius_zero_is_the_centre():
    point, value = ball.ascend(lambda w: jnp.sum(w), jnp.ones(3), key=jax.random.key(0), radius=0.0, steps=2)
    np.testing.assert_array_equal(point, np.ones(3))
    assert float(value) == 3.0


def test_vmap_over_keys_and_radii_is_a_loop_and_traces_once():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def climb(keys, radii):
        return jax.vmap(lambda key, radius: ball.ascend(value, CENTRE, key=key, radius=radius, steps=5))(keys, radii)

    def value(w):
        return jnp.sum(jnp.sin(w["a"])) + jnp.sum(w["b"] ** 2)

    keys, radii = jax.random.split(jax.random.key(3), 3), jnp.asarray([0.5, 1.0, 2.0])
    together = climb(keys, radii)[1]
    climb(keys, 2 * radii)
    alone = [
        ball.ascend(value, CENTRE, key=key, radius=radius, steps=5)[1] for key, radius in zip(keys, radii, strict=True)
    ]
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-5)


def test_dtype_is_that_of_the_parameters(x64):
    params = {"w": jnp.ones(3, jnp.float32)}
    point = ball.random_point(jax.random.key(0), params, radius=jnp.asarray(1.0))
    climbed, _ = ball.ascend(lambda w: jnp.sum(w["w"]), params, key=jax.random.key(0), radius=1.0, steps=2)
    assert point["w"].dtype == climbed["w"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": -1.0, "steps": 1}, "-1.0"),
        ({"radius": 1.0, "steps": 0}, "steps"),
        ({"radius": 1.0, "steps": 2, "rate": 0.0}, "rate"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ball.ascend(lambda w: jnp.sum(w), jnp.ones(3), key=jax.random.key(0), **settings)
