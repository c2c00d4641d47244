"""Projections against numpy's eigenvectors, and what gradient descent does in each eigenspace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import geometry, losses, models
from jaxdyn.geometry import operators, spectrum, subspace

pytestmark = pytest.mark.usefixtures("x64")


def setting(k=1, n=8):
    model = models.mlp((4, 16, k), activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (n, 4))
    residual = jax.random.normal(jax.random.key(2), (n, k))
    return geometry.ntk_blocks(model.apply, params, x), residual, (model, params, x)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("num", [1, 3, 8])
def test_top_is_the_sum_over_the_leading_eigenvectors(k, num):
    blocks, residual, _ = setting(k)
    n = len(residual)
    matrix = np.asarray(blocks).transpose(0, 2, 1, 3).reshape(n * k, n * k)
    _, vectors = np.linalg.eigh(matrix)
    flat = np.asarray(residual).reshape(-1)
    expected = sum(np.dot(u, flat) * u for u in vectors.T[::-1][:num]).reshape(n, k)
    parts = geometry.project(blocks, residual, num)
    np.testing.assert_allclose(parts.top, expected, atol=1e-10)
    np.testing.assert_allclose(parts.top + parts.rest, residual, atol=1e-14)
    np.testing.assert_allclose(jnp.sum(parts.top * parts.rest), 0.0, atol=1e-12)


def test_blocks_matrix_and_traced_kernel_agree():
    blocks, residual, _ = setting()
    for kernel in (geometry.as_matrix(blocks), blocks[:, :, 0, 0]):
        np.testing.assert_allclose(
            geometry.project(kernel, residual, 2).top, geometry.project(blocks, residual, 2).top, atol=1e-12
        )


@pytest.mark.parametrize("loss", [losses.mse, losses.half_sum, losses.torch_mse])
def test_subspace_losses_sum_to_the_loss(loss):
    blocks, residual, _ = setting(k=2)
    parts = geometry.subspace_loss(blocks, residual, 3, loss=loss)
    np.testing.assert_allclose(parts.top + parts.rest, loss(residual, jnp.zeros_like(residual)), rtol=1e-13)
    assert parts.top > 0
    assert parts.rest > 0


def test_linear_model_above_the_critical_rate_explodes_in_the_top_alone():
    kernel = jnp.diag(jnp.array([3.0, 1.0, 0.5]))
    residual = start = jnp.ones((3, 1))
    for _ in range(20):
        residual = residual - 0.8 * kernel @ residual  # 2/3 < rate < 2
    before, after = (geometry.subspace_loss(kernel, r, 1) for r in (start, residual))
    assert after.top > 10 * before.top
    assert after.rest < 1e-2 * before.rest


def test_vectors_from_the_matrix_free_kernel_do_as_well():
    blocks, residual, (model, params, x) = setting(k=2)
    kernel = operators.tangent_kernel(model.apply, params, x)
    found = spectrum.top(kernel, dim=kernel.dim, num=3, key=jax.random.key(0), tolerance=1e-12)
    np.testing.assert_allclose(
        subspace.project_onto(found.vectors, residual).top, geometry.project(blocks, residual, 3).top, atol=1e-8
    )


def test_kernels_that_do_not_fit_are_refused():
    blocks, residual, _ = setting(k=2)
    with pytest.raises(ValueError, match="ntk_blocks"):
        geometry.project(blocks[:, :, 0, 0], residual, 1)
    with pytest.raises(ValueError, match=r"\[1, 16\]"):
        geometry.project(blocks, residual, 17)
    with pytest.raises(ValueError, match=r"\[n, n, k, k\]"):
        geometry.project(jnp.ones((3, 4)), residual, 1)
    with pytest.raises(ValueError, match="16 entries"):
        subspace.project_onto(jnp.ones((3, 1)), residual)


@pytest.fixture(params=["cpu", "accelerator"])
def guess(request, monkeypatch):
    """How a first guess at the top eigenvector is made: as a CPU does it, or as an accelerator would."""
    if request.param == "accelerator":
        monkeypatch.setattr(subspace, "_ritz", subspace._powered)
    return request.param


@pytest.mark.usefixtures("x64", "guess")
@pytest.mark.parametrize("gap", [0.0, 1e-6, 1e-3, 0.5])
@pytest.mark.parametrize("size", [3, 120])
def test_kernel_norm_is_the_largest_eigenvalue_also_of_clusters(gap, size):
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((size, size)))[0]
    values = np.r_[2.0, 2.0 - gap * np.arange(1, size) / size]
    kernel = jnp.asarray((vectors * values) @ vectors.T)
    np.testing.assert_allclose(jax.jit(geometry.kernel_norm)(kernel), 2.0, rtol=4e-9)  # √ε/4


@pytest.mark.usefixtures("guess")
@pytest.mark.parametrize("hard", [[], [5], [0, 7]])
def test_kernel_norms_of_a_stack_are_those_of_its_kernels(hard):
    """Kernels that need a search lie among easy ones; also mapped twice and along another axis."""
    root = np.random.default_rng(0).standard_normal((8, 60, 90)) / np.arange(1, 91) ** 0.5
    stack = np.asarray(root @ root.mT, np.float32)
    stack[hard] = -np.eye(60) + 1.5 * np.diag(np.arange(60) == 3)  # the largest in absolute value is negative
    expected = np.linalg.eigvalsh(np.float64(stack))[:, -1]
    norms = jax.jit(jax.vmap(geometry.kernel_norm))
    np.testing.assert_allclose(norms(stack), expected, rtol=1e-5)
    twice = jax.vmap(jax.vmap(geometry.kernel_norm))(stack.reshape(2, 4, 60, 60))
    np.testing.assert_allclose(twice, expected.reshape(2, 4), rtol=1e-5)
    last = jax.vmap(geometry.kernel_norm, in_axes=2)(np.moveaxis(stack, 0, 2))
    np.testing.assert_allclose(last, expected, rtol=1e-5)


@pytest.mark.usefixtures("guess")
def test_a_stack_is_searched_only_where_a_kernel_needs_it(monkeypatch):
    searched, search = [], subspace._search

    def counted(matrix):
        jax.debug.callback(lambda: searched.append(1))
        return search(matrix)

    monkeypatch.setattr(subspace, "_search", counted)
    norms = jax.jit(jax.vmap(lambda kernel: geometry.kernel_norm(kernel)))
    easy = jnp.stack([jnp.diag(base ** jnp.arange(40.0)) for base in (1.3, 1.5, 1.7)])
    norms(easy).block_until_ready()
    assert not searched
    norms(easy.at[1].set(-jnp.eye(40))).block_until_ready()
    jax.effects_barrier()
    assert searched


def test_kernel_norm_of_nan_is_nan_and_of_blocks_that_of_their_matrix():
    assert np.isnan(geometry.kernel_norm(jnp.full((40, 40), jnp.nan)))
    blocks = jnp.einsum("ij,ab->ijab", jnp.eye(20), jnp.diag(jnp.array([1.0, 7.0])))
    np.testing.assert_allclose(geometry.kernel_norm(blocks), 7.0, rtol=1e-6)


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**110])
@pytest.mark.parametrize("size", [8, 120])
def test_kernels_of_any_scale_and_half_precision_are_decomposed(scale, size):
    root = np.random.default_rng(0).standard_normal((size, 40))
    kernel = jnp.asarray(root @ root.T, jnp.float32)
    norm = np.linalg.eigvalsh(np.asarray(kernel, float))[-1]
    np.testing.assert_allclose(geometry.kernel_norm(scale * kernel) / scale, norm, rtol=1e-5)
    top = subspace.eigenspace(kernel, 1)
    np.testing.assert_allclose(jnp.abs(top.T @ subspace.eigenspace(scale * kernel, 1)), [[1.0]], rtol=1e-5)
    half = kernel.astype(jnp.bfloat16)
    np.testing.assert_allclose(geometry.kernel_norm(half), norm, rtol=1e-2)
    np.testing.assert_allclose(jnp.abs(top.T @ subspace.eigenspace(half, 1)), [[1.0]], rtol=1e-2)
