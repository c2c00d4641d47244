"""Mixed differences, block remainders and the multilinear expansion on functions whose answers are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import geometry, models
from jaxdyn.geometry import multilinear as ml

pytestmark = pytest.mark.usefixtures("x64")

X = np.random.default_rng(0).normal(size=(4, 3))  # float64 whatever JAX's default is when the module is imported


def _tree(seed, sizes=(("a", 3), ("b", 2), ("c", 2))):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=size)) for name, size in sizes}


def _tensor():
    return jnp.asarray(np.random.default_rng(9).normal(size=(3, 3, 2, 2)))


def _trilinear(w, x):
    return jnp.einsum("ni,ijkl,j,k,l->n", x, _tensor(), w["a"], w["b"], w["c"])[:, None]


def test_mixed_difference_of_a_trilinear_function_is_the_form_at_the_displacements():
    w, d = _tree(1), _tree(2)
    found = ml.mixed_difference(_trilinear, w, jnp.asarray(X), d, blocks=["a", "b", "c"])
    expected = np.einsum("ni,ijkl,j,k,l->n", X, *(np.asarray(part) for part in (_tensor(), d["a"], d["b"], d["c"])))
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-12)


def test_mixed_difference_of_two_blocks_is_the_written_formula():
    model = models.mlp((3, 5, 4, 2), activation=jnp.tanh)
    w, d = (model.init(jax.random.key(seed)) for seed in (0, 1))

    def at(first, second):
        moves = {"dense_0": first, "dense_1": second, "dense_2": second}
        return np.asarray(
            model.apply(
                {name: {"weight": w[name]["weight"] + t * d[name]["weight"]} for name, t in moves.items()},
                jnp.asarray(X),
            )
        )

    found = ml.mixed_difference(model.apply, w, jnp.asarray(X), d, blocks=["dense_0", ["dense_1", "dense_2"]])
    np.testing.assert_allclose(found, at(1, 1) - at(1, 0) - at(0, 1) + at(0, 0), atol=1e-13)
    by_predicate = ml.mixed_difference(
        model.apply, w, jnp.asarray(X), d, blocks=[lambda path: path < "dense_1", lambda path: path > "dense_1"]
    )
    np.testing.assert_allclose(by_predicate, found, atol=1e-14)


def test_mixed_difference_vanishes_where_one_block_does_not_interact():
    function = lambda w, x: (x @ jnp.sin(w["a"]) + jnp.sum(w["b"] ** 3) * w["c"][0] ** 2)[:, None]  # noqa: E731
    w, d = _tree(1), _tree(2)
    np.testing.assert_allclose(
        ml.mixed_difference(function, w, jnp.asarray(X), d, blocks=["a", ["b", "c"]]), 0.0, atol=1e-12
    )
    assert np.abs(ml.mixed_difference(function, w, jnp.asarray(X), d, blocks=[["a", "b"], "c"])).min() > 1e-3


def test_remainder_is_the_quadratic_form_of_the_block_and_ignores_the_others():
    matrix = jnp.asarray(np.random.default_rng(3).normal(size=(2, 2)))
    function = lambda w, x: (x[:, 0] * (w["b"] @ matrix @ w["b"]) * w["c"][0] + x @ w["a"])[:, None]  # noqa: E731
    w, d = _tree(1), _tree(2)
    found = ml.block_remainder(function, w, jnp.asarray(X), d, only="b")
    expected = X[:, 0] * float(d["b"] @ matrix @ d["b"]) * float(w["c"][0])
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-12)
    for linear in ("a", "c"):
        np.testing.assert_allclose(ml.block_remainder(function, w, jnp.asarray(X), d, only=linear), 0.0, atol=1e-12)


def test_a_linear_bottleneck_network_is_multilinear_in_its_layers():
    model = models.mlp((3, 6, 1, 6, 1), activation=lambda z: z)
    w0, w = (model.init(jax.random.key(seed)) for seed in (0, 1))
    layers = [f"dense_{layer}" for layer in range(4)]
    direction = jax.tree.map(jnp.subtract, w, w0)
    for layer in layers:
        np.testing.assert_allclose(
            ml.block_remainder(model.apply, w0, jnp.asarray(X), direction, only=layer), 0.0, atol=1e-13
        )
    np.testing.assert_allclose(
        ml.multilinear(layers)(model.apply, w0)(w, jnp.asarray(X)), model.apply(w, jnp.asarray(X)), atol=1e-12
    )
    halves = [layers[:2], layers[2:]]
    assert (
        np.abs(ml.multilinear(halves)(model.apply, w0)(w, jnp.asarray(X)) - model.apply(w, jnp.asarray(X))).max() > 1e-3
    )


def test_expansion_is_the_sum_over_subsets_of_mixed_derivatives():
    model = models.mlp((3, 4, 4, 1), activation=jnp.tanh)
    w0, w = (model.init(jax.random.key(seed)) for seed in (0, 1))
    parts = ml.split(jax.tree.map(jnp.subtract, w, w0), ["dense_0", "dense_1", "dense_2"])

    def along(*t):
        moved = w0
        for scale, part in zip(t, parts, strict=True):
            moved = jax.tree.map(lambda a, b, scale=scale: a + scale * b, moved, part)
        return model.apply(moved, jnp.asarray(X))

    total = 0.0
    for size in range(4):
        for subset in itertools.combinations(range(3), size):
            derivative = along
            for argument in subset:
                derivative = jax.jacfwd(derivative, argnums=argument)
            total = total + derivative(0.0, 0.0, 0.0)
    found = ml.multilinear(["dense_0", "dense_1", "dense_2"])(model.apply, w0)(w, jnp.asarray(X))
    np.testing.assert_allclose(found, total, atol=1e-12)


def test_expansion_in_one_block_is_the_linear_model():
    model = models.mlp((3, 4, 1), activation=jnp.tanh)
    w0, w = (model.init(jax.random.key(seed)) for seed in (0, 1))
    np.testing.assert_allclose(
        ml.multilinear([["dense_0", "dense_1"]])(model.apply, w0)(w, jnp.asarray(X)),
        models.linear(model.apply, w0)(w, jnp.asarray(X)),
        atol=1e-13,
    )


def test_mixed_differences_may_be_differentiated_and_vmapped():
    model = models.mlp((3, 4, 1), activation=jnp.tanh)
    w = model.init(jax.random.key(0))
    members = jax.vmap(model.init)(jax.random.split(jax.random.key(1), 3))
    value = lambda d: ml.mixed_difference(model.apply, w, jnp.asarray(X), d, blocks=["dense_0", "dense_1"]).sum()  # noqa: E731
    together = jax.vmap(jax.grad(value))(members)
    alone = jax.grad(value)(jax.tree.map(lambda leaf: leaf[1], members))
    np.testing.assert_allclose(together["dense_0"]["weight"][1], alone["dense_0"]["weight"], atol=1e-13)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (["a", "b"], "'c' is in none"),
        (["a", ["a", "b"], "c"], r"blocks \[0, 1\]"),
        (["a", "b", "c", "d"], "holds no parameter"),
    ],
)
def test_blocks_that_are_no_partition_are_refused_with_the_leaf(blocks, message):
    with pytest.raises(ValueError, match=message):
        geometry.multilinear.split(_tree(0), blocks)
    with pytest.raises(ValueError, match="selects no parameter"):
        ml.block_remainder(_trilinear, _tree(0), jnp.asarray(X), _tree(1), only="nothing")
