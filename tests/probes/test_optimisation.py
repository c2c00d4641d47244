"""Probes of optimisation and of the ball against the functions they wrap and against functions whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd
from jaxdyn.theory import pl

pytestmark = pytest.mark.usefixtures("x64")


def _bilinear(params, x):
    """f = x u v: its Hessian has the eigenvalues ±|x|, its gradient at (u, v) the norm |x| √(u² + v²)."""
    return x * params["u"] * params["v"]


def _run(apply, params0, x, steps=0, **probes):
    task = jd.tasks.from_arrays(x, jnp.ones((len(x), 1)))
    model = jd.Model(lambda key: params0, apply)
    record = jd.record(jd.every(max(steps, 1)), **probes)
    run = jd.Training(model, task, optax.sgd(0.05), steps=steps, key=jax.random.key(0), record=record)
    return jax.jit(lambda: jd.train(run))(), task


def test_conditioning_and_ratio_are_those_of_theory_at_the_trained_point():
    model = jd.models.mlp((3, 20, 1), activation=jnp.tanh)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    found, task = _run(
        model.apply, model.init(jax.random.key(1)), x, 4, kernel=jd.probes.Conditioning(), ratio=jd.probes.PLRatio()
    )
    params = found.final.params
    expected = pl.conditioning(model.apply, params, x)
    np.testing.assert_allclose(found.values["kernel"][-1], expected.smallest, rtol=1e-9)
    np.testing.assert_allclose(found.values["kernel_largest"][-1], expected.largest, rtol=1e-12)
    ratio = pl.ratio(model.apply, params, x, task.y, loss=jd.losses.mse)
    np.testing.assert_allclose(found.values["ratio"][-1], ratio, rtol=1e-12)


def test_curvature_of_a_bilinear_function_is_known_everywhere_on_the_ball():
    x, params = jnp.array([[1.0], [3.0]]), {"u": jnp.asarray(3.0), "v": jnp.asarray(4.0)}
    probe = jd.probes.BallCurvature(x, jax.random.key(0), 0.5, 40)
    values = _run(_bilinear, params, x, ball=probe)[0].values
    np.testing.assert_allclose(values["ball_curvature"][0, :, :, 0], [[1.0, 3.0]] * 3, rtol=1e-4)
    np.testing.assert_allclose(values["ball_gradient"][0, :, 0], [5.0, 15.0], rtol=1e-12)
    # |f − f_lin| = |x δu δv|, at most |x| R²/2; root mean square over x = 1, 3
    np.testing.assert_allclose(values["ball_gap"][0], np.sqrt(5.0) * 0.125, rtol=1e-2)


def test_a_bilinear_function_is_multilinear_and_a_square_is_not():
    x, params = jnp.array([[1.0], [3.0]]), {"u": jnp.asarray(3.0), "v": jnp.asarray(4.0)}
    probe = jd.probes.Multilinearity(x, jax.random.key(0), 0.5, 40, ("u", "v"))
    found = _run(_bilinear, params, x, p=probe)[0].values
    np.testing.assert_allclose(found["p_mixed"][0], np.sqrt(5.0) * 0.125, rtol=1e-2)
    assert max(found["p_remainder"][0], found["p_beyond"][0]) < 1e-12
    square = lambda w, x: x * (w["u"] ** 2 + w["v"])  # noqa: E731
    found = _run(square, params, x, p=probe)[0].values
    assert found["p_mixed"][0] < 1e-12
    np.testing.assert_allclose(
        found["p_remainder"][0], np.sqrt(5.0) * 0.25 / np.sqrt(2), rtol=1e-2
    )  # mean over two blocks
    np.testing.assert_allclose(found["p_beyond"][0], np.sqrt(5.0) * 0.25, rtol=1e-2)


def test_padding_takes_no_part_of_the_ball():
    """On a padded network the random point moves live parameters alone, by the whole radius."""
    width = jd.models.Width(64, jnp.asarray(2))
    model = jd.models.mlp((1, width, 1), activation=lambda z: z)  # f = x u·v/√2: ‖H‖ = |x|/√2 whatever the point
    x = jnp.array([[2.0]])
    probe = jd.probes.BallCurvature(x, jax.random.key(0), 1.0, 40)
    values = _run(model.apply, model.init(jax.random.key(1)), x, ball=probe)[0].values
    np.testing.assert_allclose(values["ball_curvature"][0, :, 0, 0], np.full(3, np.sqrt(2.0)), rtol=1e-4)
    np.testing.assert_allclose(values["ball_gap"][0], np.sqrt(2.0) / 2, rtol=1e-2)
