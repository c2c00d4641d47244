"""Cosine and Pearson against numpy, and their invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.geometry import alignment

pytestmark = pytest.mark.usefixtures("x64")


def matrices(d=6):
    a, b = (jax.random.normal(jax.random.key(seed), (d, d)) for seed in (0, 1))
    return a @ a.T, b @ b.T


def test_cosine_is_the_normalised_trace_of_the_product():
    a, b = matrices()
    expected = np.trace(a.T @ b) / np.sqrt(np.trace(a.T @ a) * np.trace(b.T @ b))
    np.testing.assert_allclose(alignment.cosine(a, b), expected, rtol=1e-14)


def test_pearson_is_the_correlation_of_entries():
    a, b = matrices()
    expected = np.corrcoef(np.asarray(a).reshape(-1), np.asarray(b).reshape(-1))[0, 1]
    np.testing.assert_allclose(alignment.pearson(a, b), expected, rtol=1e-13)


def test_cosine_is_not_centred_and_pearson_is():
    a, b = matrices()
    np.testing.assert_allclose(alignment.pearson(a + 3.0, b), alignment.pearson(a, b), rtol=1e-12)
    assert abs(alignment.cosine(a + 3.0, b) - alignment.cosine(a, b)) > 1e-2


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_alignment_does_not_depend_on_the_scale(scale):
    a, b = (m.astype(jnp.float32) for m in matrices())
    scale = jnp.float32(scale)
    np.testing.assert_allclose(alignment.cosine(scale * a, b), alignment.cosine(a, b), rtol=1e-5)
    np.testing.assert_allclose(alignment.pearson(scale * a, b), alignment.pearson(a, b), rtol=1e-5)


@pytest.mark.parametrize(("r", "s", "d"), [(3, 4, 10), (20, 3, 10), (1, 1, 5)])
def test_cosine_from_factors_is_the_cosine(r, s, d):
    a, b = jax.random.normal(jax.random.key(0), (r, d)), jax.random.normal(jax.random.key(1), (s, d))
    np.testing.assert_allclose(alignment.factor_cosine(a, b), alignment.cosine(a.T @ a, b.T @ b), rtol=1e-13)


def test_cosine_from_factors_forms_nothing_of_d_squared():
    a, b = jnp.ones((3, 50_000)), jnp.ones((2, 50_000))
    sizes = [v.aval.size for eqn in jax.make_jaxpr(alignment.factor_cosine)(a, b).eqns for v in eqn.outvars]
    assert max(sizes) <= a.size
    np.testing.assert_allclose(alignment.factor_cosine(a, b), 1.0)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1 / 3])
def test_matrix_power_is_one(exponent):
    a, _ = matrices()
    values, vectors = np.linalg.eigh(np.asarray(a))
    expected = (vectors * values**exponent) @ vectors.T
    np.testing.assert_allclose(alignment.matrix_power(a, exponent), expected, atol=1e-12)


def test_square_root_of_a_singular_matrix_has_no_nan():
    root = alignment.matrix_power(jnp.ones((3, 3)), 0.5)
    np.testing.assert_allclose(root @ root, np.ones((3, 3)), atol=1e-12)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3, 3\)"):
        alignment.cosine(jnp.eye(2), jnp.eye(3))
    with pytest.raises(ValueError, match="one d"):
        alignment.factor_cosine(jnp.eye(2), jnp.eye(3))
    with pytest.raises(ValueError, match="positive"):
        alignment.matrix_power(jnp.eye(2), 0.0)


def test_the_power_of_a_matrix_in_half_precision_is_found_in_single_precision():
    matrix = jnp.diag(jnp.array([4.0, 9.0], jnp.bfloat16))
    np.testing.assert_allclose(alignment.matrix_power(matrix, 0.5), np.diag([2.0, 3.0]), atol=1e-5)
