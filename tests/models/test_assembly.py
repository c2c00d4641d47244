"""Assemblies against networks, loops over members and dense Hessians."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import jaxdyn as jd
from jaxdyn import geometry, models
from jaxdyn.models.width import Width

SUB = models.mlp((3, 4, 1), activation=jnp.tanh)
X = jax.random.normal(jax.random.key(7), (5, 3))


def _member(params, i):
    return jax.tree.map(lambda leaf: leaf[i], params["members"])


def _dense_hessian(function, tree):
    flat, unravel = ravel_pytree(tree)
    return np.asarray(jax.hessian(lambda w: function(unravel(w)))(flat))


def _norm(matrix):
    return np.abs(np.linalg.eigvalsh(matrix)).max()


@pytest.mark.usefixtures("x64")
def test_an_assembly_is_the_weighted_sum_of_its_members():
    model = models.assembly(SUB, 6)
    params = model.init(jax.random.key(0))
    total = sum(float(params["weight"][i]) * np.asarray(SUB.apply(_member(params, i), X)) for i in range(6))
    np.testing.assert_allclose(model.apply(params, X), total / np.sqrt(6), atol=1e-14)


@pytest.mark.usefixtures("x64")
def test_an_assembly_of_neurons_is_a_network_with_one_hidden_layer():
    neuron = models.mlp((3, 1), activation=jnp.tanh, output=jnp.tanh)
    model, network = models.assembly(neuron, 9), models.mlp((3, 9, 1), activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    same = {
        "dense_0": {"weight": params["members"]["dense_0"]["weight"][:, :, 0].T},
        "dense_1": {"weight": params["weight"][:, None]},
    }
    np.testing.assert_allclose(model.apply(params, X), network.apply(same, X), atol=1e-14)
    np.testing.assert_allclose(
        geometry.ntk(model.apply, params, X), geometry.ntk(network.apply, same, X), rtol=1e-12, atol=1e-13
    )


@pytest.mark.usefixtures("x64")
def test_a_recursive_assembly_is_the_nested_sum():
    inner = models.assembly(models.mlp((3, 1), activation=jnp.tanh, output=jnp.sin), 4, output=jnp.tanh)
    model = models.assembly(inner, 3, weights=models.signs)
    params = model.init(jax.random.key(2))
    total = np.zeros((5, 1))
    for i in range(3):
        one = _member(params, i)
        branch = np.zeros((5, 1))
        for j in range(4):
            weight = np.asarray(one["members"]["dense_0"]["weight"][j])
            branch += float(one["weight"][j]) * np.sin(np.asarray(X) @ weight / np.sqrt(3))
        total += float(params["weight"][i]) * np.tanh(branch / 2)
    np.testing.assert_allclose(model.apply(params, X), total / np.sqrt(3), atol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("weights", [models.gaussian, models.signs])
def test_hessian_in_the_members_is_block_diagonal_and_its_norm_is_the_largest_block(weights):
    num = 5
    model = models.assembly(SUB, num, weights=weights)
    params = model.init(jax.random.key(1))
    x = X[:1]
    dense = _dense_hessian(
        lambda stacked: model.apply({"members": stacked, "weight": params["weight"]}, x)[0, 0], params["members"]
    )
    member = np.asarray(
        ravel_pytree(
            jax.tree.map(
                lambda leaf: jnp.broadcast_to(jnp.arange(num).reshape(-1, *(1,) * (leaf.ndim - 1)), leaf.shape),
                params["members"],
            )
        )[0]
    )
    assert np.all(dense[member[:, None] != member[None, :]] == 0.0)
    blocks = [
        abs(float(params["weight"][i])) * _norm(_dense_hessian(lambda w: SUB.apply(w, x)[0, 0], _member(params, i)))
        for i in range(num)
    ]
    np.testing.assert_allclose(_norm(dense), max(blocks) / np.sqrt(num), rtol=1e-10)
    found = geometry.function_hessian_norm(
        model.apply, params, x, key=jax.random.key(0), only="members", tolerance=1e-8
    )
    np.testing.assert_allclose(found[0, 0], max(blocks) / np.sqrt(num), rtol=1e-8)


@pytest.mark.usefixtures("x64")
def test_the_squared_gradient_is_the_mean_of_the_members_squared_gradients():
    model = models.assembly(SUB, 7, weights=models.frozen(models.gaussian))
    params = model.init(jax.random.key(3))
    gradient = jax.grad(lambda p: model.apply(p, X[:1])[0, 0])(params)
    np.testing.assert_array_equal(gradient["weight"], 0.0)
    squares = []
    for i in range(7):
        own, _ = ravel_pytree(jax.grad(lambda w: SUB.apply(w, X[:1])[0, 0])(_member(params, i)))
        squares.append(float(params["weight"][i]) ** 2 * float(own @ own))
    flat, _ = ravel_pytree(gradient)
    np.testing.assert_allclose(flat @ flat, np.mean(squares), rtol=1e-12)
    np.testing.assert_allclose(geometry.ntk(model.apply, params, X[:1])[0, 0], np.mean(squares), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_dominant_member_keeps_its_curvature_at_any_size():
    for num in (4, 64):
        model = models.assembly(SUB, num, weights=models.signs, shares=models.dominated(0.7))
        params = model.init(jax.random.key(4))
        own = _norm(_dense_hessian(lambda w: SUB.apply(w, X[:1])[0, 0], _member(params, 0)))
        norm = geometry.function_hessian_norm(
            model.apply, params, X[:1], key=jax.random.key(0), only="members", tolerance=1e-6
        )
        assert norm[0, 0] >= 0.7 * own * (1 - 1e-6)
    first = models.assembly(SUB, 4, shares=models.dominated(1.0)).init(jax.random.key(4))
    later = models.assembly(SUB, 64, shares=models.dominated(1.0)).init(jax.random.key(4))
    for small, large in zip(jax.tree.leaves(first), jax.tree.leaves(later), strict=True):
        np.testing.assert_array_equal(small, large[:4])


@pytest.mark.usefixtures("x64")
def test_a_shared_assembly_is_one_model_times_the_sum_of_its_coefficients():
    model = models.assembly(SUB, 6, members=models.shared, weights=models.signs)
    params = model.init(jax.random.key(5))
    factor = float(jnp.sum(params["weight"])) / np.sqrt(6)
    np.testing.assert_allclose(model.apply(params, X), factor * np.asarray(SUB.apply(params["members"], X)), atol=1e-14)
    assert params["members"]["dense_0"]["weight"].shape == (3, 4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("members", "shares"), [(models.distinct, models.equal), (models.shared, models.dominated(0.5))]
)
def test_a_padded_assembly_is_the_unpadded_one(members, shares):
    sub = models.mlp((3, 4, 2), activation=jnp.cos, bias=0.2)  # cos(0) = 1: padded members would show

    def build(num):
        return models.assembly(sub, num, members=members, shares=shares)

    plain, padded = build(5), build(Width(12, jnp.asarray(5)))
    key = jax.random.key(6)
    params = padded.init(key)
    np.testing.assert_allclose(padded.apply(params, X), plain.apply(plain.init(key), X), atol=1e-14)
    task = jd.tasks.from_arrays(X, jnp.ones((5, 2)))
    final = [
        jd.train(jd.Training(one, task, optax.adam(0.05), steps=4, key=key)).final.params for one in (plain, padded)
    ]
    np.testing.assert_allclose(padded.apply(final[1], X), plain.apply(final[0], X), atol=1e-12)
    np.testing.assert_array_equal(final[1]["weight"][5:], 0.0)


def test_signs_are_signs_and_frozen_weights_do_not_move():
    model = models.assembly(SUB, 32, weights=models.frozen(models.signs))
    params = model.init(jax.random.key(8))
    assert set(np.asarray(params["weight"]).tolist()) == {-1.0, 1.0}
    task = jd.tasks.from_arrays(X, jnp.ones((5, 1)))
    final = jd.train(
        jd.Training(model, task, optax.sgd(0.1), steps=5, key=jax.random.key(8), params0=params)
    ).final.params
    np.testing.assert_array_equal(final["weight"], params["weight"])
    assert not np.array_equal(final["members"]["dense_0"]["weight"], params["members"]["dense_0"]["weight"])


@pytest.mark.parametrize("num", [0, -1, True])
def test_bad_numbers_of_members_are_refused(num):
    with pytest.raises(ValueError, match="num"):
        models.assembly(SUB, num)


def test_an_assembly_has_no_infinite_width_kernel():
    with pytest.raises(ValueError, match="no infinite-width kernel"):
        models.assembly(SUB, 3).kernel(X)
