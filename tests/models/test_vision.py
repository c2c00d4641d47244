"""Wide ResNet and ViT against numpy, and the tangent kernel on them against per-example Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdyn as jd
from jaxdyn.models.conv import _shifted, _whole


def _resnet(**changes):
    arguments = {"widen": 1, "channels": 2, "normalise": jd.models.group_norm(2), "activation": jnp.tanh} | changes
    return jd.models.wide_resnet((5, 4, 2), 2, **arguments)


def _vit(**changes):
    arguments = {"patch": 2, "width": 4, "heads": 2, "depth": 1, "expansion": 2} | changes
    return jd.models.vit((4, 6, 2), 2, **arguments)


def _images(model, n=3):
    shape = (5, 4, 2) if model is _resnet else (4, 6, 2)
    return jax.random.normal(jax.random.key(1), (n, *shape))


def _norm(h, groups):
    """Group norm of one example [..., c], group by group."""
    out = np.empty_like(h)
    for g in np.split(np.arange(h.shape[-1]), groups):
        part = h[..., g]
        out[..., g] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    return out


def _conv(h, weight, stride):
    """One example, one output position at a time, divided by √fan_in."""
    size = weight.shape[0]
    padded = np.pad(h, ((size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    rows, columns = range(0, h.shape[0], stride), range(0, h.shape[1], stride)
    z = [[np.tensordot(padded[i : i + size, j : j + size], weight, 3) for j in columns] for i in rows]
    return np.array(z) / np.sqrt(size**2 * weight.shape[2])


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("stride", [2, 3])
def test_strided_convolutions_are_the_loop_in_both_lowerings(size, stride, x64):
    x, weight = _images(_resnet), jax.random.normal(jax.random.key(1), (size, size, 2, 3))
    expected = [_conv(np.asarray(one), np.asarray(weight), stride) * np.sqrt(size**2 * 2) for one in x]
    for lowering in (_shifted, _whole, jd.models.convolve):
        np.testing.assert_allclose(lowering(x, weight, stride=stride), expected, atol=1e-12)


@pytest.mark.parametrize("depth", [10, pytest.param(16, marks=pytest.mark.slow)])
def test_resnet_is_its_formula(depth, x64):
    model = _resnet(depth=depth)
    params, x = jax.jit(model.init)(jax.random.key(0)), _images(_resnet)
    weights = jax.tree.map(np.asarray, params)
    assert len(jax.tree.leaves(params)) == 2 + (depth - 4) + 2  # the first group keeps its shape when widen = 1
    for image, f in zip(np.asarray(x), jax.jit(model.apply)(params, x.reshape(3, -1)), strict=True):
        h = _conv(image, weights["stem"]["weight"], 1)
        for group in range(3):
            for block in range((depth - 4) // 6):
                leaf = weights[f"group_{group}_block_{block}"]
                stride = 2 if group > 0 and block == 0 else 1
                a = np.tanh(_norm(h, 2))
                z = _conv(np.tanh(_norm(_conv(a, leaf["conv_0"]["weight"], stride), 2)), leaf["conv_1"]["weight"], 1)
                h = z + (_conv(a, leaf["shortcut"]["weight"], stride) if "shortcut" in leaf else h)
        pooled = np.tanh(_norm(h, 2)).mean((0, 1))
        np.testing.assert_allclose(f, pooled @ weights["readout"]["weight"] / np.sqrt(len(pooled)), atol=1e-12)


def test_vit_is_its_formula(x64):
    model = _vit(activation=jnp.tanh)
    params, x = jax.jit(model.init)(jax.random.key(0)), _images(_vit)
    leaf = jax.tree.map(np.asarray, params)

    def times(h, weight):
        return h @ weight["weight"] / np.sqrt(len(weight["weight"]))

    def norm(h):
        return np.stack([_norm(token, 1) for token in h])

    for image, f in zip(np.asarray(x), jax.jit(model.apply)(params, x.reshape(3, -1)), strict=True):
        patches = [image[i : i + 2, j : j + 2].reshape(-1) for i in (0, 2) for j in (0, 2, 4)]
        h = times(np.array(patches), leaf["embed"]) + leaf["position"]["weight"]
        block, a = leaf["block_0"], norm(h)
        mixed = np.zeros((6, 4))
        for head in (slice(0, 2), slice(2, 4)):
            q, k, v = (times(a, block[name])[:, head] for name in ("query", "key", "value"))
            for i in range(6):
                share = np.exp([q[i] @ k[j] / np.sqrt(2) for j in range(6)])
                mixed[i, head] = share / share.sum() @ v
        h = h + times(mixed, block["attended"])
        h = h + times(np.tanh(times(norm(h), block["expand"])), block["contract"])
        np.testing.assert_allclose(f, times(norm(h).mean(0), leaf["readout"]), atol=1e-12)


@pytest.mark.parametrize("model", [_resnet, _vit])
def test_tangent_kernel_is_the_one_of_per_example_jacobians(model, x64):
    network, x = model(), _images(model)
    params = jax.jit(network.init)(jax.random.key(0))
    tree = jax.jit(jax.jacrev(network.apply))(params, x)
    jacobian = np.concatenate([np.asarray(leaf).reshape(3, 2, -1) for leaf in jax.tree.leaves(tree)], axis=2)
    expected = np.einsum("iap,jbp->ijab", jacobian, jacobian)
    found = jax.jit(lambda p: jd.geometry.ntk_blocks(network.apply, p, x))(params)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * expected.max())


@pytest.mark.parametrize("model", [pytest.param(_resnet, marks=pytest.mark.slow), _vit])
def test_quadratic_model_errs_to_third_order(model, x64):
    network, x = model(), _images(model)
    params0 = jax.jit(network.init)(jax.random.key(0))
    direction = jax.jit(network.init)(jax.random.key(1))

    @jax.jit
    def gap(step):
        moved = jax.tree.map(lambda w, v: w + step * v, params0, direction)
        return jnp.abs(network.apply(moved, x) - jd.quadratic(network.apply, params0)(moved, x)).max()

    far, near = gap(4e-3), gap(1e-3)
    assert 32 < far / near < 128  # 4³ = 64


@pytest.mark.slow
@pytest.mark.parametrize("model", [_resnet, _vit])
def test_outputs_are_of_order_one_at_any_width(model):
    """NTK scaling: the second moment of the outputs over initialisations does not grow with the width."""
    sizes = [{"widen": 1}, {"widen": 4}] if model is _resnet else [{"width": 8}, {"width": 32}]
    x = _images(model, 2)

    def moment(network):
        return float(jnp.mean(jax.jit(jax.vmap(lambda key: network.apply(network.init(key), x) ** 2))(keys)))

    keys = jax.random.split(jax.random.key(0), 64)
    narrow, wide = (moment(model(**one)) for one in sizes)
    assert 0.5 < wide / narrow < 2
    assert 0.1 < wide < 10


def test_inputs_of_another_shape_and_the_missing_kernel_are_refused():
    for model in (_resnet, _vit):
        network, x = model(), _images(model)
        params = jax.eval_shape(network.init, jax.random.key(0))
        assert jax.eval_shape(network.apply, params, x).shape == (3, 2)
        with pytest.raises(ValueError, match="no infinite-width kernel"):
            network.kernel(x)
        with pytest.raises(ValueError, match="takes inputs of shape"):
            jax.eval_shape(network.apply, params, x[:, :2])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: _resnet(depth=12), "6N"),
        (lambda: _resnet(widen=0), "widen"),
        (lambda: _vit(patch=3), "tile"),
        (lambda: _vit(heads=3), "heads"),
        (lambda: jd.models.vit((4, 4), 1, patch=2, width=4, heads=1), "shape"),
        (lambda: jd.models.group_norm(0), "groups"),
        (lambda: jd.models.group_norm(2)(jnp.ones((1, 2, 2, 3))), "divide"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
