"""Infinite-width kernels against neural-tangents itself, dense integration, closed forms and wide finite networks."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.models import _neural_tangents, dual


def _inputs(n=6, d=5, variance=1.0, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return jnp.asarray(x * np.sqrt(variance / np.mean(x**2, axis=1, keepdims=True)))


def _kernel(activation, depth=2, bias=0.0):
    return jd.models.mlp((5, *(7,) * depth, 1), activation=activation, bias=bias).kernel


def _by_integration(activation, x, depth, num=4001, span=9.0):
    """The recursion with every Gaussian expectation as a trapezoid sum over a plane of num² points."""
    line = np.linspace(-span, span, num)
    weight = np.exp(-(line**2) / 2)
    weight /= weight.sum()
    slope = jax.vmap(jax.vmap(jax.grad(activation)))
    covariance = np.asarray(x @ x.T) / x.shape[1]
    ntk = covariance.copy()
    for _ in range(depth):
        moment, bend = np.empty_like(covariance), np.empty_like(covariance)
        for i in range(len(x)):
            for j in range(len(x)):
                p, q, c = covariance[i, i], covariance[j, j], covariance[i, j]
                u = np.sqrt(p) * line[:, None] + 0 * line[None, :]
                rest = np.sqrt(max(q - c**2 / p, 0.0))
                v = (c / np.sqrt(p)) * line[:, None] + rest * line[None, :]
                first, second = np.asarray(activation(u)), np.asarray(activation(v))
                moment[i, j] = weight @ (first * second) @ weight
                bend[i, j] = weight @ (np.asarray(slope(u)) * np.asarray(slope(v))) @ weight
        covariance, ntk = moment, moment + ntk * bend
    return covariance, ntk


@pytest.mark.parametrize("variance", [0.25, 1.0, 4.0])
def test_tanh_kernel_is_the_dense_integral(variance, x64):
    x = _inputs(n=2, variance=variance)
    found = _kernel(jnp.tanh, depth=1)(x)
    nngp, ntk = _by_integration(jnp.tanh, x, depth=1, num=1201)
    np.testing.assert_allclose(found.nngp, nngp, rtol=1e-7)
    np.testing.assert_allclose(found.ntk, ntk, rtol=1e-7)


@pytest.mark.parametrize("activation", [jax.nn.softplus, jax.nn.silu, jax.nn.gelu, lambda z: jnp.tanh(2 * z) + z])
def test_other_smooth_kernels_are_the_dense_integral(activation, x64):
    x = _inputs(n=2)
    nngp, ntk = _by_integration(activation, x, depth=1, num=801)
    found = _kernel(activation, depth=1)(x)
    np.testing.assert_allclose(found.nngp, nngp, rtol=1e-7)
    np.testing.assert_allclose(found.ntk, ntk, rtol=1e-7)


@pytest.mark.parametrize("bias", [0.0, 0.3])
@pytest.mark.parametrize(
    ("activation", "layer"),
    [
        (jax.nn.relu, "Relu"),
        (jax.lax.erf, "Erf"),
        (jnp.sin, "Sin"),
        (functools.partial(jax.nn.gelu, approximate=False), "Gelu"),
    ],
    ids=["relu", "erf", "sin", "gelu"],
)
def test_closed_forms_are_those_of_stax(activation, layer, bias, x64):
    stax = _neural_tangents.stax()
    x = _inputs()
    with jax.numpy_rank_promotion("allow"):
        dense = functools.partial(stax.Dense, 1, b_std=bias or None)
        make = getattr(stax, layer)
        reference = stax.serial(dense(), make(), dense(), make(), dense())[2](x[:4], x[2:], ("nngp", "ntk"))
    found = _kernel(activation, bias=bias)(x[:4], x[2:])
    np.testing.assert_allclose(found.nngp, reference.nngp, rtol=1e-12)
    np.testing.assert_allclose(found.ntk, reference.ntk, rtol=1e-12)


@pytest.mark.parametrize("activation", [jax.lax.erf, jnp.sin, functools.partial(jax.nn.gelu, approximate=False)])
def test_the_series_agrees_with_the_closed_forms(activation, x64):
    """Hermite series and neural-tangents' formulas are two routes to the same kernel, biases and x1 != x2 included."""
    x = _inputs()
    series = dual.dense_kernel(activation=activation, num_hidden=3, bias=0.2, gain=1.0)(x[:4], x[1:])
    closed = _kernel(activation, depth=3, bias=0.2)(x[:4], x[1:])
    np.testing.assert_allclose(series.nngp, closed.nngp, rtol=1e-7)
    np.testing.assert_allclose(series.ntk, closed.ntk, rtol=1e-7)


def test_the_default_degree_of_neural_tangents_is_wrong_where_ours_is_not(x64):
    """At input variance 4 the tanh kernel by their rule of degree 25 is off by percents: the reason for the series."""
    stax = _neural_tangents.stax()
    x = _inputs(n=2, variance=4.0)
    with _neural_tangents._calm():
        layers = (stax.Dense(1), stax.ElementwiseNumerical(jnp.tanh, deg=25), stax.Dense(1))
        theirs = stax.serial(*layers)[2](x, x, "ntk")
    ours = _kernel(jnp.tanh, depth=1)(x).ntk
    assert float(jnp.max(jnp.abs(theirs - ours) / ours)) > 1e-3


def test_wide_networks_have_these_kernels_within_monte_carlo_error():
    """Means over 400 networks of width 512, at four standard errors plus the O(1/m) bias of a finite width."""
    x = _inputs(n=3).astype(jnp.float32)
    model = jd.models.mlp((5, 512, 512, 1), activation=jnp.tanh, bias=0.1)

    def one(key):
        params = model.init(key)
        jacobian = jax.jacobian(lambda p: model.apply(p, x)[:, 0])(params)
        ntk = sum(jnp.einsum("ip,jp->ij", j.reshape(3, -1), j.reshape(3, -1)) for j in jax.tree.leaves(jacobian))
        outputs = model.apply(params, x)[:, 0]
        return outputs[:, None] * outputs[None, :], ntk

    nngps, ntks = jax.lax.map(one, jax.random.split(jax.random.key(0), 400), batch_size=20)
    for samples, limit in zip((nngps, ntks), model.kernel(x), strict=True):
        error = np.asarray(samples).std(0) / np.sqrt(400)
        assert (np.abs(np.asarray(samples).mean(0) - np.asarray(limit)) < 4 * error + 0.02 * np.abs(limit)).all()


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.tanh])
def test_float32_kernels_are_the_float64_ones_to_rounding(activation):
    with jax.enable_x64(True):
        x = _inputs()
        double = jax.device_get(_kernel(activation)(x))
    single = _kernel(activation)(jnp.asarray(np.asarray(x), jnp.float32))
    assert single.ntk.dtype == jnp.float32
    np.testing.assert_allclose(
        single.ntk, double.ntk, rtol=1e-4
    )  # relu: arccos near 1 loses half the digits in float32


def test_kernels_are_symmetric_and_positive(x64):
    for activation in (jax.nn.relu, jnp.tanh):
        for part in _kernel(activation)(_inputs(n=12)):
            np.testing.assert_allclose(part, part.T, atol=1e-12)
            assert np.linalg.eigvalsh(part).min() > -1e-12


def test_closed_forms_may_be_jitted():
    x = _inputs().astype(jnp.float32)
    kernel = _kernel(jax.nn.relu)
    np.testing.assert_allclose(jax.jit(lambda a: kernel(a).ntk)(x), kernel(x).ntk, rtol=1e-5)


def test_images_are_flattened_and_one_layer_is_the_linear_kernel():
    x = jax.random.normal(jax.random.key(0), (4, 2, 3))
    found = jd.models.mlp((6, 1), activation=jnp.tanh).kernel(x)
    flat = x.reshape(4, 6)
    np.testing.assert_allclose(found.ntk, flat @ flat.T / 6, rtol=1e-5)


@pytest.mark.parametrize("activation", [lambda z: jnp.maximum(z, 0.0), jax.nn.relu6, jax.nn.hard_tanh])
def test_kinks_are_refused_with_the_remedy(activation):
    with pytest.raises(ValueError, match=r"does not settle.*variance.*kink"):
        _kernel(activation)(_inputs().astype(jnp.float32))


def test_inputs_too_large_for_the_series_are_refused_with_their_variance():
    with pytest.raises(ValueError, match=r"variance of 1e\+04"):
        _kernel(jnp.tanh)(_inputs(variance=1e4).astype(jnp.float32))


def test_a_traced_series_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda x: _kernel(jnp.tanh)(x).ntk)(_inputs().astype(jnp.float32))


def test_inputs_of_two_dimensions_are_refused():
    with pytest.raises(ValueError, match="5 and 4"):
        _kernel(jax.nn.relu)(jnp.ones((2, 5)), jnp.ones((2, 4)))


def test_the_import_takes_no_tensorflow_and_leaves_jax_as_it_was():
    program = (
        "import sys, jax, jax.core, jax.interpreters.ad as ad; before = set(dir(jax.core)), set(dir(ad)); "
        "from jaxdyn.models import _neural_tangents as n; n.stax(); n.stax(); "
        "print((set(dir(jax.core)), set(dir(ad))) == before, 'jax.util' in sys.modules, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "True False False", done.stdout + done.stderr


def test_the_kernel_of_zero_inputs_is_zero_without_bias():
    zero = jd.models.mlp((3, 8, 8, 1), activation=jnp.tanh).kernel(jnp.zeros((2, 3)))
    assert (zero.nngp == 0).all()
    assert (zero.ntk == 0).all()


@pytest.mark.parametrize("blocks", [False, True], ids=["mlp", "block_dag"])
def test_the_tolerance_of_a_series_is_asked_for_where_the_kernel_is(blocks, x64):
    """Inputs of one dimension: both preactivations are multiples of one Gaussian, so the values are integrals over a line."""
    x = jnp.sqrt(10.0) * jnp.array([[1.0], [-0.5]])
    model = (
        jd.models.block_dag({"h": ["x"], "y": ["h"]}, widths={"x": 1, "h": 8, "y": 1}, activation=jnp.tanh)
        if blocks
        else jd.models.mlp((1, 8, 1), activation=jnp.tanh)
    )
    with pytest.raises(ValueError, match=r"still changes by .*tolerance="):
        model.kernel(x)
    z = np.linspace(-10, 10, 40_001)
    u = np.asarray(x)[:, 0, None] * z
    weight = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    slope = 1 - np.tanh(u) ** 2
    nngp = np.tanh(u) @ (weight[:, None] * np.tanh(u).T)
    ntk = nngp + np.asarray(x @ x.T) * (slope @ (weight[:, None] * slope.T))
    found = model.kernel(x, tolerance=1e-4)
    np.testing.assert_allclose(found.nngp, nngp, atol=2e-4)
    np.testing.assert_allclose(found.ntk, ntk, atol=2e-4 * ntk.max())
