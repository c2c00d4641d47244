"""Hessian norms against dense Hessians and models whose Hessian is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import geometry, losses, models
from jaxdyn.geometry import hessian


@pytest.mark.usefixtures("x64")
def test_function_hessian_norms_are_those_of_dense_hessians():
    model = models.mlp((3, 10, 2), activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, 3))
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    dense = jax.hessian(lambda w: model.apply(unravel(w), x))(flat)  # [n, k, p, p]
    expected = np.abs(np.linalg.eigvalsh(np.asarray(dense))).max(axis=-1)
    found = jax.jit(
        lambda p: geometry.function_hessian_spectra(model.apply, p, x, key=jax.random.key(2), tolerance=1e-9)
    )(params)
    assert found.converged.all()
    np.testing.assert_allclose(found.norms, expected, rtol=1e-9)
    batched = geometry.function_hessian_norm(
        model.apply, params, x, key=jax.random.key(2), tolerance=1e-9, batch_size=4
    )
    np.testing.assert_allclose(batched, expected, rtol=1e-9)


def test_norms_do_not_depend_on_the_batch_size():
    model = models.mlp((3, 20, 2), activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 3))
    one, two = (
        geometry.function_hessian_norm(model.apply, params, x, key=jax.random.key(2), batch_size=size)
        for size in (1, 2)
    )
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_norm_takes_the_negative_end_when_it_dominates():
    apply = lambda w, x: x * jnp.sum(jnp.array([1.0, -3.0]) * w**2)[None, None]  # noqa: E731
    norm = geometry.function_hessian_norm(apply, jnp.ones(2), jnp.ones((1, 1)), key=jax.random.key(0))
    np.testing.assert_allclose(norm, [[6.0]], rtol=1e-5)


def test_linear_function_has_no_hessian():
    norm = geometry.function_hessian_norm(
        lambda w, x: x @ w, jnp.ones((100, 2)), jnp.ones((2, 100)), key=jax.random.key(0)
    )
    np.testing.assert_array_equal(norm, np.zeros((2, 2)))


def test_norm_of_a_two_layer_linear_network_is_known():
    width = 200
    model = models.mlp((1, width, 1), activation=lambda z: z)
    params = model.init(jax.random.key(0))
    norm = geometry.function_hessian_norm(model.apply, params, jnp.array([[2.0]]), key=jax.random.key(1))
    np.testing.assert_allclose(norm, [[2.0 / np.sqrt(width)]], rtol=1e-5)


def test_nan_parameter_gives_nan():
    model = models.mlp((2, 40, 1), activation=jnp.tanh)
    params = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), model.init(jax.random.key(0)))
    norm = geometry.function_hessian_norm(model.apply, params, jnp.ones((1, 2)), key=jax.random.key(1))
    assert np.isnan(norm).all()


def test_norms_may_be_vmapped_over_members():
    model = models.mlp((2, 20, 1), activation=jnp.tanh)
    members = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 3))
    x = jnp.ones((2, 2))
    norm = lambda p: geometry.function_hessian_norm(model.apply, p, x, key=jax.random.key(1))  # noqa: E731
    together = jax.jit(jax.vmap(norm))(members)
    alone = [norm(jax.tree.map(lambda leaf, i=i: leaf[i], members)) for i in range(3)]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-4)


def test_supremum_of_a_cubic_is_found_on_the_boundary():
    apply = lambda w, x: x * jnp.sum(w**3)[None, None]  # noqa: E731 - the Hessian is diag(6 w)
    w = jnp.array([1.0, 0.5, -0.2])
    found = geometry.function_hessian_supremum(
        apply, w, jnp.ones((1, 1)), radius=2.0, key=jax.random.key(0), steps=20, num_directions=8
    )
    np.testing.assert_allclose(found.anchor, [[6.0]], rtol=1e-4)
    assert found.lower_bound <= 18.0 * (1 + 1e-4)  # the true supremum
    np.testing.assert_allclose(found.climbed, [[18.0]], rtol=0.02)
    assert found.sampled < 18.0


@pytest.mark.usefixtures("x64")
def test_supremum_never_leaves_the_ball_and_never_falls_below_the_anchor():
    model = models.mlp((2, 30, 1), activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    x = jnp.ones((1, 2))
    bounds = [
        geometry.function_hessian_supremum(
            model.apply, params, x, radius=radius, key=jax.random.key(1), steps=4, num_directions=2
        )
        for radius in (0.0, 1.0)
    ]
    norm = geometry.function_hessian_norm(model.apply, params, x, key=jax.random.key(2))
    np.testing.assert_allclose(bounds[0].lower_bound, norm, rtol=1e-4)
    np.testing.assert_allclose(bounds[0].sampled, norm, rtol=1e-4)
    assert bounds[1].lower_bound > 1.05 * norm


@pytest.mark.parametrize("change", [{"radius": -1.0}, {"steps": 0}, {"num_directions": 0}])
def test_supremum_names_bad_arguments(change):
    arguments = {"radius": 1.0, "key": jax.random.key(0)} | change
    with pytest.raises(ValueError, match=next(iter(change))):
        geometry.function_hessian_supremum(lambda w, x: x @ w, jnp.ones((2, 1)), jnp.ones((1, 2)), **arguments)
    with pytest.raises(ValueError, match="batch_size"):
        hessian.function_hessian_norm(
            lambda w, x: x @ w, jnp.ones((2, 1)), jnp.ones((1, 2)), key=jax.random.key(0), batch_size=0
        )


def test_sharpness_of_a_linear_model_is_c_times_the_top_of_its_kernel():
    x = jax.random.normal(jax.random.key(0), (30, 100))
    y = jnp.ones((30, 1))
    found = geometry.sharpness(
        lambda w, x: x @ w, jnp.zeros((100, 1)), x, y, loss=losses.mse, key=jax.random.key(1), num=2
    )
    expected = 2 / 30 * np.linalg.eigvalsh(np.asarray(x @ x.T))[::-1][:2]
    np.testing.assert_allclose(found.values, expected, rtol=1e-4)
    assert found.converged.all()


def test_sharpness_follows_training_from_a_warm_start():
    model = models.mlp((8, 32, 2), activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    x, y = jax.random.normal(jax.random.key(1), (20, 8)), jax.random.normal(jax.random.key(2), (20, 2))
    measure = jax.jit(
        lambda p, guess: geometry.sharpness(
            model.apply, p, x, y, loss=losses.mse, key=jax.random.key(3), num=3, guess=guess
        )
    )
    descend = jax.jit(
        lambda p: jax.tree.map(lambda w, g: w - 0.05 * g, p, jax.grad(lambda q: losses.mse(model.apply(q, x), y))(p))
    )
    cold = found = measure(params, None)
    for _ in range(10):
        params = descend(params)
        found = measure(params, found)
        fresh = measure(params, None)
        assert found.converged.all()
        np.testing.assert_allclose(found.values, fresh.values, rtol=1e-4)
    assert found.num_matvecs < cold.num_matvecs / 2


def test_half_precision_parameters_have_the_curvature_of_the_same_point_in_single_precision():
    model = models.mlp((8, 32, 2), activation=jnp.tanh)
    x, y = jax.random.normal(jax.random.key(1), (20, 8)), jax.random.normal(jax.random.key(2), (20, 2))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (model.init(jax.random.key(0)), x, y))
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    key = jax.random.key(3)
    for measure in (
        lambda p, x, y: geometry.sharpness(model.apply, p, x, y, loss=losses.mse, key=key),
        lambda p, x, y: geometry.function_hessian_spectra(model.apply, p, x[:1], key=key),
    ):
        found = measure(*half)
        jax.tree.map(np.testing.assert_array_equal, found, measure(*single))
        assert found.converged.all()


def test_the_ascent_climbs_a_function_of_any_scale_and_leaves_integer_parameters_alone():
    apply = lambda p, x: x * 1e-25 * jnp.sum(p["w"] ** 3)[None, None] * p["sign"]  # noqa: E731 - the Hessian is diag(6e-25 w)
    params = {"w": jnp.array([1.0, 0.5, -0.2]), "sign": jnp.array(-1)}
    found = geometry.function_hessian_supremum(
        apply, params, jnp.ones((1, 1)), radius=2.0, key=jax.random.key(0), steps=20, num_directions=8
    )
    np.testing.assert_allclose(found.anchor, [[6e-25]], rtol=1e-4)
    np.testing.assert_allclose(found.climbed, [[18e-25]], rtol=0.02)
