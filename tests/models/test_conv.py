"""Convolutional networks against explicit loops, and their infinite-width kernels against stax and Monte Carlo."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd
from jaxdyn.models.conv import _in_blocks, _shifted, _whole

RELU = jax.nn.relu


def _images(n=3, shape=(4, 5, 2), seed=0):
    return jax.random.normal(jax.random.key(seed), (n, *shape))


def _loop(x, weight):
    """Convolution, one output number at a time."""
    x, weight = np.asarray(x), np.asarray(weight)
    edge = weight.shape[0] // 2
    out = np.zeros((*x.shape[:3], weight.shape[3]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            for u in range(-edge, edge + 1):
                for v in range(-edge, edge + 1):
                    if 0 <= i + u < x.shape[1] and 0 <= j + v < x.shape[2]:
                        out[:, i, j] += x[:, i + u, j + v] @ weight[u + edge, v + edge]
    return out


@pytest.mark.parametrize("size", [1, 3, 5])
def test_both_lowerings_are_the_loop(size, x64):
    x, weight = _images(), jax.random.normal(jax.random.key(1), (size, size, 2, 3))
    for lowering in (_shifted, _whole, jd.models.convolve):
        np.testing.assert_allclose(lowering(x, weight), _loop(x, weight), atol=1e-12)


@pytest.mark.parametrize("num", [12, 13])
def test_blocks_of_examples_are_the_whole_and_so_are_their_derivatives(num, monkeypatch, x64):
    """12 examples go in three blocks, 13 all at once."""
    monkeypatch.setattr(sys.modules["jaxdyn.models.conv"], "_CACHE", 8 * 5 * 20 * 18 * 4)
    x, weight = _images(num, (5, 20, 2)), jax.random.normal(jax.random.key(1), (3, 3, 2, 3))
    assert ("scan" in str(jax.make_jaxpr(_in_blocks)(x, weight))) == (num == 12)

    def slope(lowering):
        def loss(x, weight):
            return jnp.sum(jnp.sin(lowering(x, weight)))

        gradient = jax.grad(loss, (0, 1))
        return gradient(x, weight), jax.jvp(gradient, (x, weight), (jnp.cos(x), weight**2))[1]

    np.testing.assert_allclose(_in_blocks(x, weight), _shifted(x, weight), atol=1e-12)
    for ours, plain in zip(jax.tree.leaves(slope(_in_blocks)), jax.tree.leaves(slope(_shifted)), strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-9)


def test_tangent_kernel_reads_the_product_where_the_platform_runs_a_loop(monkeypatch, x64):
    monkeypatch.setattr(sys.modules["jaxdyn.models.conv"], "_CACHE", 8 * 9 * 18 * 2)
    model = jd.models.conv((3, 3, 2), (4, 3), 2, activation=jnp.tanh, pool=jd.models.flatten)
    params, x = model.init(jax.random.key(0)), _images(6, (3, 3, 2))
    jacobian = jax.tree.leaves(jax.jacobian(lambda p: model.apply(p, x))(params))
    rows = np.concatenate([np.asarray(leaf).reshape(6, 2, -1) for leaf in jacobian], axis=-1)
    expected = np.einsum("akp,bkp->ab", rows, rows) / 2
    np.testing.assert_allclose(jd.geometry.ntk(model.apply, params, x), expected, rtol=1e-10)
    traced = str(jax.make_jaxpr(lambda p: jd.geometry.ntk(model.apply, p, x))(params))
    assert "scan" not in traced


def test_accelerators_get_the_convolution_and_the_cpu_a_product():
    model = jd.models.conv((8, 8, 3), (4,), 1, activation=RELU, pool=jd.models.flatten)
    params, x = model.init(jax.random.key(0)), _images(2, (8, 8, 3))
    traced = jax.jit(model.apply).trace(params, x)
    assert "stablehlo.convolution" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.convolution" not in traced.lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.parametrize("pool", [jd.models.flatten, jd.models.global_average])
def test_network_is_its_formula(pool, x64):
    model = jd.models.conv((4, 5, 2), (3, 6), 2, activation=jnp.tanh, pool=pool, bias=0.5)
    params, x = model.init(jax.random.key(0)), _images()
    h = np.asarray(x)
    for layer, fan_in in ((0, 18), (1, 27)):
        leaf = params[f"conv_{layer}"]
        h = np.tanh(_loop(h, leaf["weight"]) / np.sqrt(fan_in) + 0.5 * np.asarray(leaf["bias"]))
    pooled = h.mean((1, 2)) if pool is jd.models.global_average else h.reshape(3, -1)
    leaf = params["readout"]
    expected = pooled @ np.asarray(leaf["weight"]) / np.sqrt(pooled.shape[1]) + 0.5 * np.asarray(leaf["bias"])
    np.testing.assert_allclose(model.apply(params, x), expected, atol=1e-12)
    np.testing.assert_allclose(model.apply(params, x.reshape(3, -1)), expected, atol=1e-12)


@pytest.mark.parametrize("scaling", [jd.models.ntk, jd.models.standard, jd.models.maximal_update])
@pytest.mark.parametrize("pool", [jd.models.flatten, jd.models.global_average])
def test_padded_channels_train_like_the_unpadded_network(scaling, pool, x64):
    x = _images(6)
    task = jd.tasks.from_arrays(x, x[:, 0, 0, :1])

    def train(width):
        model = jd.models.conv((4, 5, 2), (width, width), 1, activation=jnp.cos, pool=pool, scaling=scaling, bias=0.1)
        record = jd.record(jd.at([0, 5]), f=jd.probes.Outputs(), ntk=jd.probes.NTKMatrix(x))
        return jd.train(jd.Training(model, task, optax.adam(0.01), steps=5, key=jax.random.key(2), record=record))

    padded, plain = train(jd.models.Width(7, jnp.asarray(4))), train(4)
    for name in ("f", "ntk"):
        np.testing.assert_allclose(padded.values[name], plain.values[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("pool", [jd.models.flatten, jd.models.global_average])
def test_infinite_kernel_is_the_limit_of_wide_networks(pool):
    x = _images(4, (3, 3, 2))
    model = jd.models.conv((3, 3, 2), (256, 256), 1, activation=RELU, pool=pool, bias=0.3)
    kernel = jax.jit(jax.vmap(lambda key: jd.geometry.ntk(model.apply, model.init(key), x)))
    samples = np.asarray(kernel(jax.random.split(jax.random.key(1), 40)))
    error = 5 * samples.std(0) / np.sqrt(40) + 0.02 * np.abs(samples.mean(0)).max()  # five standard errors, and 1/m
    assert (np.abs(samples.mean(0) - model.kernel(x).ntk) < error).all()
    outputs = np.asarray(
        jax.vmap(lambda key: model.apply(model.init(key), x)[:, 0])(jax.random.split(jax.random.key(2), 400))
    )
    np.testing.assert_allclose(
        outputs.T @ outputs / 400, model.kernel(x).nngp, atol=0.35 * float(model.kernel(x).nngp.max())
    )


def test_kernel_between_two_sets_is_a_block_of_the_whole():
    x = _images(5, (3, 3, 2))
    model = jd.models.conv((3, 3, 2), (4,), 1, activation=RELU, pool=jd.models.global_average)
    np.testing.assert_allclose(model.kernel(x[:2], x[2:]).ntk, model.kernel(x.reshape(5, -1)).ntk[:2, 2:], rtol=1e-5)


def test_kernel_change_falls_with_the_channels():
    task = jd.tasks.digits(classes=(3, 8), n=24)

    def run(channels, seed):
        model = jd.models.conv((8, 8, 1), (channels,), 1, activation=jnp.tanh, pool=jd.models.flatten)
        record = jd.record(jd.at([10]), change=jd.probes.KernelChange(task.x))
        return jd.Training(model, task, optax.sgd(0.3), steps=10, key=jax.random.key(seed), record=record)

    found = jd.sweep(run, vmap={"channels": jd.widths([8, 128]), "seed": np.arange(3)})
    change = found.change.isel(step=-1)
    assert (change.sel(channels=128) < 0.5 * change.sel(channels=8)).all()


def test_quadratic_model_of_a_convolution_is_its_second_order_expansion(x64):
    model = jd.models.conv((3, 3, 1), (4,), 1, activation=jnp.tanh, pool=jd.models.global_average)
    params0, x = model.init(jax.random.key(0)), _images(2, (3, 3, 1))
    moved = jax.tree.map(lambda w: w + 1e-3, params0)
    gap = model.apply(moved, x) - jd.quadratic(model.apply, params0)(moved, x)
    assert np.abs(gap).max() < 1e-8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (8, 8)}, "height, width, channels"),
        ({"channels": ()}, "one layer or more"),
        ({"channels": (0,)}, "positive integers"),
        ({"filter_size": 2}, "odd"),
        ({"bias": -1.0}, "at least 0"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    settings = {"shape": (8, 8, 1), "channels": (4,), "filter_size": 3, "bias": 0.0} | options
    shape, channels = settings.pop("shape"), settings.pop("channels")
    with pytest.raises(ValueError, match=message):
        jd.models.conv(shape, channels, 1, activation=RELU, pool=jd.models.flatten, **settings)


def test_inputs_of_another_shape_and_unknown_kernels_are_refused():
    model = jd.models.conv((4, 4, 1), (4,), 1, activation=jnp.tanh, pool=jd.models.flatten)
    with pytest.raises(ValueError, match=r"inputs of shape \(4, 4, 1\)"):
        model.apply(model.init(jax.random.key(0)), jnp.ones((2, 9)))
    with pytest.raises(ValueError, match="closed form"):
        model.kernel(jnp.ones((2, 4, 4, 1)))
    own = jd.models.conv((4, 4, 1), (4,), 1, activation=RELU, pool=lambda h: h[:, :2, 0])
    assert own.apply(own.init(jax.random.key(0)), jnp.ones((2, 4, 4, 1))).shape == (2, 1)
    with pytest.raises(ValueError, match="known kernel"):
        own.kernel(jnp.ones((2, 4, 4, 1)))
