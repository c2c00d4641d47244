"""Matvecs against explicit Jacobians, Hessians and finite differences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn import losses, models
from jaxdyn.geometry import operators, spectrum

pytestmark = pytest.mark.usefixtures("x64")


def problem(k=2, seed=0):
    model = models.mlp((3, 4, k), activation=jnp.tanh, bias=0.3)
    params = model.init(jax.random.key(seed))
    x, y = (jax.random.normal(jax.random.key(seed + i), (5, d)) for i, d in ((1, 3), (2, k)))
    return model.apply, params, x, y


def flat_jacobian(apply, params, x):
    """Rows (example, output), columns in the order of `operators.paths`, by central differences."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    columns = []
    for step in np.eye(flat.size) * 1e-5:
        columns.append((apply(unravel(flat + step), x) - apply(unravel(flat - step), x)).reshape(-1) / 2e-5)
    return np.stack(columns, axis=1)


def test_tangent_kernel_is_jacobian_times_its_transpose():
    apply, params, x, _ = problem()
    jacobian = jax.jacobian(apply)(params, x)
    rows = np.concatenate([np.asarray(leaf).reshape(10, -1) for leaf in jax.tree.leaves(jacobian)], axis=1)
    operator = operators.tangent_kernel(apply, params, x)
    np.testing.assert_allclose(spectrum.dense(operator, dim=operator.dim), rows @ rows.T, atol=1e-12)
    np.testing.assert_allclose(rows, flat_jacobian(apply, params, x), atol=1e-8)


@pytest.mark.parametrize("loss", [losses.mse, losses.half_sum, losses.cross_entropy])
def test_gauss_newton_is_jacobians_around_the_output_hessian(loss):
    apply, params, x, y = problem()
    y = jax.nn.softmax(y) if loss is losses.cross_entropy else y
    rows = flat_jacobian(apply, params, x)
    outputs = apply(params, x)
    bend = jax.hessian(lambda f: loss(f.reshape(outputs.shape), y))(outputs.reshape(-1))
    operator = operators.gauss_newton(apply, params, x, y, loss=loss)
    np.testing.assert_allclose(spectrum.dense(operator, dim=operator.dim), rows.T @ np.asarray(bend) @ rows, atol=1e-7)


def test_loss_hessian_is_the_derivative_of_the_gradient():
    apply, params, x, y = problem()
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    gradient = jax.grad(lambda w: losses.cross_entropy(apply(unravel(w), x), jax.nn.softmax(y)))
    expected = [(gradient(flat + step) - gradient(flat - step)) / 2e-5 for step in np.eye(flat.size) * 1e-5]
    operator = operators.loss_hessian(apply, params, x, jax.nn.softmax(y), loss=losses.cross_entropy)
    np.testing.assert_allclose(spectrum.dense(operator, dim=operator.dim), np.stack(expected), atol=1e-8)


def test_loss_hessian_is_gauss_newton_plus_residuals_times_function_hessians():
    apply, params, x, y = problem()
    residual = apply(params, x) - y
    dim = operators.loss_hessian(apply, params, x, y, loss=losses.half_sum).dim
    total = spectrum.dense(operators.gauss_newton(apply, params, x, y, loss=losses.half_sum), dim=dim)
    for i in range(5):
        for a in range(2):
            hessian = operators.function_hessian(apply, params, x[i], output=a)
            total = total + residual[i, a] * spectrum.dense(hessian, dim=dim)
    whole = spectrum.dense(operators.loss_hessian(apply, params, x, y, loss=losses.half_sum), dim=dim)
    np.testing.assert_allclose(total, whole, atol=1e-12)


@pytest.mark.parametrize("only", ["dense_1", "dense_0/weight", lambda path: path.endswith("bias")])
def test_restriction_is_the_principal_submatrix(only):
    apply, params, x, y = problem()
    selects = only if callable(only) else lambda path: path == only or path.startswith(only + "/")
    keep = []
    for path, leaf in zip(operators.paths(params), jax.tree.leaves(params), strict=True):
        keep += [selects(path)] * leaf.size
    whole = operators.loss_hessian(apply, params, x, y, loss=losses.mse)
    part = operators.loss_hessian(apply, params, x, y, loss=losses.mse, only=only)
    expected = np.asarray(spectrum.dense(whole, dim=whole.dim))[np.ix_(keep, keep)]
    np.testing.assert_allclose(spectrum.dense(part, dim=part.dim), expected, atol=1e-12)


def test_restricted_kernels_of_all_layers_sum_to_the_whole():
    apply, params, x, _ = problem()
    parts = [operators.tangent_kernel(apply, params, x, only=layer) for layer in ("dense_0", "dense_1")]
    whole = operators.tangent_kernel(apply, params, x)
    total = sum(spectrum.dense(part, dim=part.dim) for part in parts)
    np.testing.assert_allclose(total, spectrum.dense(whole, dim=whole.dim), atol=1e-12)


def test_unravel_gives_the_selected_leaves_by_path():
    apply, params, x, y = problem()
    part = operators.loss_hessian(apply, params, x, y, loss=losses.mse, only="dense_1")
    tree = part.unravel(jnp.arange(float(part.dim)))
    assert {path: leaf.shape for path, leaf in tree.items()} == {"dense_1/bias": (2,), "dense_1/weight": (4, 2)}
    np.testing.assert_array_equal(part.ravel(tree), np.arange(part.dim))


def test_integer_leaves_stay_where_they_are():
    apply = lambda p, x: x * p["w"] ** p["power"]  # noqa: E731
    hessian = operators.function_hessian(apply, {"w": jnp.asarray(2.0), "power": jnp.asarray(3)}, jnp.ones(1))
    np.testing.assert_allclose(hessian(jnp.ones(1)), [12.0])


def test_restriction_to_nothing_names_the_leaves():
    apply, params, x, _ = problem()
    with pytest.raises(ValueError, match="dense_0/weight"):
        operators.tangent_kernel(apply, params, x, only="dense_7")


def test_operators_live_inside_jit_and_vmap():
    _, _, x, y = problem()
    model = models.mlp((3, 4, 2), activation=jnp.tanh)
    members = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 3))

    def product(params):
        operator = operators.loss_hessian(model.apply, params, x, y, loss=losses.mse)
        return operator(jnp.ones(operator.dim))

    together = jax.jit(jax.vmap(product))(members)
    alone = [product(jax.tree.map(lambda leaf, i=i: leaf[i], members)) for i in range(3)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-13)
