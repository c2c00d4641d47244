"""The losses against their formulas, their normalisation, and what they refuse."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxdyn import losses

CONSTANTS = {"half_sum": 1.0, "half_mean": 1 / 6, "mse": 2 / 6, "torch_mse": 2 / 18}  # n = 6, k = 3


def outputs(n=6, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)), rng.normal(size=(n, k))


@pytest.mark.parametrize("name", CONSTANTS)
def test_quadratic_losses_are_c_over_two_times_the_sum_of_squares(name, x64):
    f, y = outputs()
    loss = getattr(losses, name)
    assert loss.c(6, 3) == pytest.approx(CONSTANTS[name], rel=1e-15)
    expected = CONSTANTS[name] / 2 * sum((f[i, a] - y[i, a]) ** 2 for i in range(6) for a in range(3))
    assert float(loss(jnp.asarray(f), jnp.asarray(y))) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_hessian_of_a_quadratic_loss_in_the_outputs_is_c_times_the_identity(name, x64):
    f, y = (jnp.asarray(a) for a in outputs())
    hessian = jax.hessian(getattr(losses, name))(f, y).reshape(18, 18)
    np.testing.assert_allclose(hessian, CONSTANTS[name] * np.eye(18), atol=1e-14)


def test_gradient_descent_on_a_linear_model_is_stable_exactly_below_two_over_c_lambda(x64):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 8)), rng.normal(size=(5, 1))
    top = np.linalg.eigvalsh(x @ x.T)[-1]
    for name in CONSTANTS:
        loss = getattr(losses, name)
        gradient = jax.jit(jax.grad(lambda w, loss=loss: loss(jnp.asarray(x) @ w, jnp.asarray(y))))
        ends = []
        for ratio in (0.95, 1.05):
            w = jnp.zeros((8, 1))
            for _ in range(300):
                w = w - ratio * 2 / (loss.c(5, 1) * top) * gradient(w)
            ends.append(float(jnp.abs(x @ w - y).max()))
        assert ends[0] < 10 < ends[1], name


def test_one_output_mse_and_torch_mse_agree():
    f, y = (jnp.asarray(a) for a in outputs(k=1))
    assert float(losses.mse(f, y)) == float(losses.torch_mse(f, y))


def test_softmax_cross_entropy_is_the_mean_negative_log_probability(x64):
    f, _ = outputs(k=4)
    labels = np.array([0, 3, 1, 2, 2, 0])
    expected = -np.mean([scipy.special.log_softmax(f[i])[labels[i]] for i in range(6)])
    value = losses.cross_entropy(jnp.asarray(f), jax.nn.one_hot(labels, 4, dtype=jnp.float64))
    assert float(value) == pytest.approx(expected, rel=1e-13)


def test_logistic_loss_is_the_softmax_loss_of_zero_and_the_output(x64):
    f, _ = outputs(k=1)
    y = np.array([1.0, -1, 1, 1, -1, -1])[:, None]
    two = jnp.concatenate([jnp.zeros((6, 1)), jnp.asarray(f)], axis=1)
    one_hot = jnp.asarray(np.concatenate([y < 0, y > 0], axis=1), jnp.float64)
    expected = losses.cross_entropy(two, one_hot)
    assert float(losses.cross_entropy(jnp.asarray(f), jnp.asarray(y))) == pytest.approx(float(expected), rel=1e-13)


@pytest.mark.parametrize("logit", [1e4, 1e30])
def test_cross_entropy_and_its_gradient_stay_finite_for_huge_logits(logit):
    value, gradient = jax.value_and_grad(losses.cross_entropy)(jnp.array([[logit]]), jnp.array([[-1.0]]))
    assert float(value) == pytest.approx(logit)
    assert float(gradient[0, 0]) == 1.0
    value, gradient = jax.value_and_grad(losses.cross_entropy)(jnp.array([[logit, 0.0]]), jnp.array([[0.0, 1.0]]))
    assert float(value) == pytest.approx(logit)
    np.testing.assert_allclose(gradient, [[1.0, -1.0]])


def test_a_correct_confident_prediction_costs_nothing():
    assert float(losses.cross_entropy(jnp.array([[1e4]]), jnp.array([[1.0]]))) == 0.0


EVERY = [losses.half_sum, losses.half_mean, losses.mse, losses.torch_mse, losses.cross_entropy]


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_shapes_that_would_broadcast_are_refused_with_the_remedy(loss):
    flat, column = jnp.ones(4), jnp.ones((4, 1))
    with pytest.raises(ValueError, match=r"\(4, 1\) and \(4,\); write `y\[:, None\]`"):
        loss(column, flat)
    with pytest.raises(ValueError, match=r"write `prediction\[:, None\]`"):
        loss(flat, column)
    with pytest.raises(ValueError, match="one shape"):
        loss(flat, flat)
    with pytest.raises(ValueError, match=r"\(4, 1\) and \(4, 2\)"):
        loss(column, jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="at least 1"):
        loss(jnp.ones((0, 1)), jnp.ones((0, 1)))
    with pytest.raises(ValueError, match="one shape"):  # shapes are static: refused while tracing too
        jax.jit(loss)(column, flat)


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_losses_jit_vmap_and_keep_the_type(loss):
    f, y = jnp.ones((3, 4, 2)), jnp.zeros((3, 4, 2)).at[:, :, 0].set(1)
    together = jax.jit(jax.vmap(loss))(f, y)
    np.testing.assert_allclose(together, [loss(f[i], y[i]) for i in range(3)], rtol=1e-6)
    assert together.dtype == jnp.float32


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_losses_are_hashable_picklable_values_with_a_readable_name(loss):
    assert pickle.loads(pickle.dumps(loss)) == loss
    assert hash(loss) == hash(pickle.loads(pickle.dumps(loss)))
    assert loss.name in repr(loss)
    assert getattr(losses, loss.name) is loss


def test_quadratic_losses_can_be_told_from_others():
    assert [isinstance(loss, losses.Quadratic) for loss in EVERY] == [True] * 4 + [False]
    assert not hasattr(losses.cross_entropy, "c")


def test_a_masked_logit_costs_nothing_and_moves_nothing(x64):
    """A class that an example cannot have has the logit −∞ and the target 0: value, gradient and Hessian are those without it."""
    f, y = jnp.array([[0.0, 1.0], [2.0, -1.0]]), jnp.array([[0.0, 1.0], [1.0, 0.0]])
    masked = jnp.insert(f, 2, -jnp.inf, axis=1), jnp.insert(y, 2, 0.0, axis=1)
    np.testing.assert_allclose(losses.cross_entropy(*masked), losses.cross_entropy(f, y), rtol=1e-14)
    assert float(losses.cross_entropy(masked[0][:1], masked[1][:1])) == pytest.approx(0.31326168751822286, rel=1e-14)
    for derivative in (jax.grad(losses.cross_entropy), jax.hessian(losses.cross_entropy)):
        found, expected = derivative(*masked), derivative(f, y)
        kept = found[tuple([slice(None), slice(2)] * (found.ndim // 2))]
        np.testing.assert_allclose(kept, expected, rtol=1e-12, atol=1e-15)
        assert np.isfinite(found).all()
    for label in (1.0, -1.0):
        one = jnp.array([[label]])
        assert float(losses.cross_entropy(label * jnp.array([[jnp.inf]]), one)) == 0.0
