"""Empirical kernels against explicit Jacobians, for every rule and for random networks; what they cost; what they refuse."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxdyn as jd


def _explicit(apply, params, x1, x2):
    """Θ[i, j, a, b] from dense Jacobians."""

    def jacobian(x):
        tree = jax.jacobian(lambda p: apply(p, x))(params)
        n, k = apply(params, x).shape
        return np.concatenate([np.asarray(leaf).reshape(n, k, -1) for leaf in jax.tree.leaves(tree)], axis=-1)

    return np.einsum("iap,jbp->ijab", jacobian(x1), jacobian(x2))


def _agree(apply, params, x1, x2, memory=2**30):
    for other in (None, x2):
        expected = _explicit(apply, params, x1, x1 if other is None else other)
        scale = np.abs(expected).max()
        found = jd.geometry.ntk_blocks(apply, params, x1, other, memory=memory)
        np.testing.assert_allclose(found, expected, atol=1e-10 * scale)
        traced = np.trace(expected, axis1=2, axis2=3) / expected.shape[-1]
        np.testing.assert_allclose(jd.geometry.ntk(apply, params, x1, other, memory=memory), traced, atol=1e-10 * scale)


def _double(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) + 0.01, tree)


def _inputs(*shape):
    return jax.random.normal(jax.random.key(0), (5, *shape)), jax.random.normal(jax.random.key(1), (3, *shape))


class Residual(linen.Module):
    @linen.compact
    def __call__(self, x):
        h = linen.relu(linen.Conv(4, (3, 3))(x))
        h = h + linen.Conv(4, (3, 3))(linen.LayerNorm()(h))
        return linen.Dense(2)(h.mean((1, 2)))


class Transformer(linen.Module):
    @linen.compact
    def __call__(self, x):
        h = linen.Dense(4)(x.reshape(x.shape[0], -1, 2))
        h = h + linen.MultiHeadDotProductAttention(2)(linen.LayerNorm()(h))
        return linen.Dense(3)(linen.gelu(h).mean(1))


class Convolutional(nnx.Module):
    def __init__(self, rngs):
        self.convolution = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(nnx.relu(self.convolution(x)).mean((1, 2)))


@pytest.mark.parametrize("expansion", [jd.exact, jd.linear, jd.quadratic], ids=["exact", "linear", "quadratic"])
@pytest.mark.parametrize("is_padded", [False, True], ids=["plain", "padded"])
def test_networks_and_their_taylor_models_have_their_exact_kernel(expansion, is_padded, x64):
    width = jd.models.Width(maximum=9, active=jnp.asarray(6)) if is_padded else 6
    model = jd.models.mlp((4, width, width, 2), activation=jnp.tanh, bias=0.3)
    params0 = model.init(jax.random.key(2))
    params = jax.tree.map(lambda leaf: leaf * 1.1 + 0.01, params0)
    _agree(expansion(model.apply, params0), params, *_inputs(4))


@pytest.mark.parametrize("module", [Residual(), Transformer()], ids=["residual", "transformer"])
def test_flax_modules_have_their_exact_kernel(module, x64):
    x1, x2 = _inputs(4, 4, 2)
    model = jd.models.from_linen(module, x1)
    _agree(model.apply, _double(model.init(jax.random.key(0))), x1, x2)


def test_nnx_modules_have_their_exact_kernel(x64):
    model = jd.models.from_nnx(Convolutional)
    _agree(model.apply, _double(model.init(jax.random.key(0))), *_inputs(4, 4, 2))


def _rules():
    def embedding(p, x):
        return jnp.tanh(p["w"][jnp.argmax(x, axis=1)])

    def scan(p, x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ p["w"]), None), x, None, length=3)[0]

    return {
        "left operand": lambda p, x: (p["w"].T @ x.T).T,
        "transposed": lambda p, x: x @ p["w"].T,
        "reshaped": lambda p, x: x @ p["w"].reshape(2, 2, 4).reshape(4, 4),
        "scaled": lambda p, x: -(x @ (p["w"] * 0.7)) / 3,
        "scaled by a parameter": lambda p, x: x @ (p["w"] * p["s"][0]),
        "scaled by the example": lambda p, x: (x * jnp.sum(x, axis=1, keepdims=True)) @ p["w"],
        "shifted": lambda p, x: x @ (p["w"] - 1.0),
        "normalised": lambda p, x: x @ (p["w"] / jnp.linalg.norm(p["w"])),
        "elementwise scale": lambda p, x: jnp.tanh(x) * p["s"][None, :],
        "bias": lambda p, x: jnp.tanh(x + p["s"][None, :]),
        "shared in one layout": lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"],
        "shared in two layouts": lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"].T,
        "shared, reshaped and transposed": lambda p, x: (
            x @ p["w"].T.reshape(4, 4) + jnp.tanh(x) @ p["w"].reshape(2, 8).reshape(4, 4)
        ),
        "product of leaves": lambda p, x: x @ (p["w"] @ p["v"]),
        "nonlinear in the leaf": lambda p, x: x @ jnp.sin(p["w"]),
        "nested jit": lambda p, x: jax.jit(lambda w, h: jax.jit(jnp.matmul)(h, w * 2.0))(p["w"], x),
        "remat": lambda p, x: jax.checkpoint(lambda w, h: jnp.tanh(h @ w) @ w)(p["w"], x),
        "einsum over positions": lambda p, x: jnp.einsum("nc,co,od->nd", x, p["w"], p["v"]),
        "unused leaf": lambda p, x: x @ p["v"],
        "embedding": embedding,
        "scan": scan,
        "slice and concatenate": lambda p, x: x @ jnp.concatenate([p["w"][:2], p["v"][2:]]),
        "leaf as output": lambda p, x: 0.0 * x + p["s"][None, :],
        "platform": lambda p, x: jax.lax.platform_dependent(
            x, p["w"], cpu=lambda h, w: h @ w, default=lambda h, w: h @ w * 1.0
        ),
    }


@pytest.mark.parametrize("name", list(_rules()))
def test_every_rule_is_exact(name, x64):
    keys = jax.random.split(jax.random.key(3), 3)
    params = {
        "w": jax.random.normal(keys[0], (4, 4)),
        "v": jax.random.normal(keys[1], (4, 4)),
        "s": jax.random.normal(keys[2], (4,)),
    }
    _agree(_rules()[name], params, *_inputs(4))


LAYERS = st.lists(
    st.sampled_from(["dense", "shared", "transposed", "bias", "scale", "tanh", "skip", "double", "reshape"]),
    min_size=1,
    max_size=6,
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers=LAYERS, seed=st.integers(0, 2**30))
def test_random_networks_are_exact(layers, seed):
    def apply(params, x):
        h = x
        for index, layer in enumerate(layers):
            w, b = params[f"w{index}"], params[f"b{index}"]
            h = {
                "dense": lambda h=h, w=w: h @ w / 2,
                "shared": lambda h=h: jnp.tanh(h @ params["shared"]),
                "transposed": lambda h=h: h @ params["shared"].T,
                "bias": lambda h=h, b=b: h + b[None, :],
                "scale": lambda h=h, b=b: h * b[None, :],
                "tanh": lambda h=h: jnp.tanh(h),
                "skip": lambda h=h, w=w: h + jnp.tanh(h @ w),
                "double": lambda h=h, w=w: jnp.tanh(h @ w) @ (2.0 * w),
                "reshape": lambda h=h, w=w: (h.reshape(-1, 2, 2).reshape(-1, 4)) @ w.reshape(16).reshape(4, 4),
            }[layer]()
        return h @ params["out"]

    with jax.enable_x64(True):
        keys = iter(jax.random.split(jax.random.key(seed), 2 * len(layers) + 2))
        params = {"shared": jax.random.normal(next(keys), (4, 4)), "out": jax.random.normal(next(keys), (4, 2))}
        for index in range(len(layers)):
            params[f"w{index}"] = jax.random.normal(next(keys), (4, 4))
            params[f"b{index}"] = jax.random.normal(next(keys), (4,))
        _agree(apply, params, *_inputs(4))


@pytest.mark.parametrize("memory", [1, 2000, 20000])
def test_streaming_under_a_memory_budget_changes_nothing(memory, x64):
    model = jd.models.mlp((4, 6, 2), activation=jnp.tanh, bias=0.1)
    _agree(model.apply, model.init(jax.random.key(0)), *_inputs(4), memory=memory)


def test_kernels_may_be_jitted_vmapped_and_scanned(x64):
    model = jd.models.mlp((4, 6, 1), activation=jnp.tanh)
    x, _ = _inputs(4)
    members = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 3))

    def kernel(params):
        return jd.geometry.ntk(model.apply, params, x)

    together = jax.jit(jax.vmap(kernel))(members)
    _, scanned = jax.lax.scan(lambda c, p: (c, kernel(p)), None, members)
    for i in range(3):
        alone = kernel(jax.tree.map(lambda leaf, i=i: leaf[i], members))
        np.testing.assert_allclose(together[i], alone, atol=1e-12)
        np.testing.assert_allclose(scanned[i], alone, atol=1e-12)


def test_a_nan_parameter_gives_nan():
    model = jd.models.mlp((4, 6, 1), activation=jnp.tanh)
    params = model.init(jax.random.key(0))
    params["dense_0"]["weight"] = params["dense_0"]["weight"].at[0, 0].set(jnp.nan)
    assert np.isnan(jd.geometry.ntk(model.apply, params, _inputs(4)[0].astype(jnp.float32))).any()


def test_dense_networks_cost_about_a_gradient_and_never_form_the_jacobian():
    """Counted by XLA: flops of the kernel within 1.5 × of a gradient's, memory far below n × p numbers."""
    model = jd.models.mlp((64, 512, 512, 1), activation=jnp.tanh)
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((128, 64), jnp.float32)
    kernel = jax.jit(lambda p, x: jd.geometry.ntk(model.apply, p, x)).lower(params, x).compile()
    gradient = jax.jit(jax.grad(lambda p, x: jnp.mean(model.apply(p, x) ** 2))).lower(params, x).compile()
    assert kernel.cost_analysis()["flops"] < 1.5 * gradient.cost_analysis()["flops"]
    num_params = 64 * 512 + 512 * 512 + 512
    assert kernel.memory_analysis().temp_size_in_bytes < 4 * 128 * num_params / 10


def test_the_plan_tells_the_route_of_every_leaf():
    model = jd.models.mlp((64, 512, 512, 1), activation=jnp.tanh, bias=0.1)
    plan = jd.geometry.ntk_plan(model.apply, model.init(jax.random.key(0)), jnp.ones((128, 64)))
    routes = {route.path: route.route for route in plan.routes}
    assert routes["dense_1/weight"] == "outer"
    assert routes["dense_1/bias"] == "gradient"
    assert len(str(plan).splitlines()) == 6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f, p, x: jd.geometry.ntk(f, p, x, memory=0), "memory"),
        (lambda f, p, x: jd.geometry.ntk(f, p, x, x[:, :2]), "one shape"),
    ],
)
def test_bad_arguments_are_refused(call, words):
    model = jd.models.mlp((4, 6, 1), activation=jnp.tanh)
    with pytest.raises(ValueError, match=words):
        call(model.apply, model.init(jax.random.key(0)), jnp.ones((3, 4)))
