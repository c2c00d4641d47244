"""The empirical tangent kernel as a whole: random networks, streaming, transformations, cost, refusals. Rules have their own file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry.reference import assert_exact, normal
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import jaxdyn as jd
from jaxdyn.geometry.kernel import ntk, ntk_blocks, ntk_plan

MLP = jd.models.mlp((4, 6, 2), activation=jnp.tanh, bias=0.1)


def float64(params):
    return jax.tree.map(lambda w: w.astype(jnp.float64), params)


def convolved(h, w):
    """Four features as a line of two pixels with two channels."""
    numbers = ("NWC", "WIO", "NWC")
    line = h.reshape(-1, 2, 2)
    out = jax.lax.conv_general_dilated(line, w[:, :2].reshape(2, 2, 2), (1,), "SAME", dimension_numbers=numbers)
    return out.reshape(-1, 4)


def normalised(h):
    return (h - h.mean(1, keepdims=True)) / jnp.sqrt(h.var(1, keepdims=True) + 0.1)


LAYERS = {
    "dense": lambda h, w, b, shared: h @ w / 2,
    "shared": lambda h, w, b, shared: jnp.tanh(h @ shared),
    "transposed": lambda h, w, b, shared: h @ (0.7 * shared.T),
    "tied": lambda h, w, b, shared: jnp.tanh(h @ w) @ (0.5 * w.T),
    "tied in another order": lambda h, w, b, shared: jnp.tanh(h @ w) @ jax.lax.reshape(w, (4, 4), dimensions=(1, 0)),
    "bias": lambda h, w, b, shared: h + b[None, :],
    "gain": lambda h, w, b, shared: normalised(h) * b[None, :],
    "skip": lambda h, w, b, shared: h + jnp.tanh(h @ w),
    "twice": lambda h, w, b, shared: jnp.tanh(h @ w) @ (-2.0 * w),
    "reshaped": lambda h, w, b, shared: (
        h.reshape(-1, 2, 2).reshape(-1, 4) @ shared.reshape(16).reshape(2, 8).reshape(4, 4)
    ),
    "convolution": lambda h, w, b, shared: jnp.tanh(convolved(h, w)),
    "columns": lambda h, w, b, shared: jnp.concatenate([h @ w[:, :2], h @ shared[:, 2:]], axis=1),
    "attention": lambda h, w, b, shared: jnp.einsum(
        "ns,nst->nt", h, jax.nn.softmax(h[:, :, None] * (h @ w)[:, None], axis=1)
    ),
    "nonlinear": lambda h, w, b, shared: jnp.sin(h @ jnp.exp(w / 3)),
}


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers=st.lists(st.sampled_from(sorted(LAYERS)), min_size=2, max_size=4), seed=st.integers(0, 2**30))
@example(layers=["tied"], seed=0)
@example(layers=["tied in another order"], seed=0)
@example(layers=["shared", "transposed"], seed=0)
def test_random_compositions_are_exact(layers, seed):
    def apply(params, x):
        for index, layer in enumerate(layers):
            x = LAYERS[layer](x, params["w"][index], params["b"][index], params["shared"])
        return x @ params["out"]

    num = len(layers)
    params = {"w": normal(seed, num, 4, 4), "b": normal(seed + 1, num, 4)}
    params |= {"shared": normal(seed + 2, 4, 4), "out": normal(seed + 3, 4, 2)}
    with jax.enable_x64(True):
        assert_exact(apply, params, normal(0, 5, 4), normal(1, 3, 4))


@pytest.mark.parametrize("memory", [1, 2000, 4000, 20000])
@pytest.mark.parametrize("is_one", [True, False], ids=["one set", "two sets"])
def test_streaming_under_a_memory_budget_changes_nothing(memory, is_one, x64):
    params, x1 = float64(MLP.init(jax.random.key(0))), jnp.asarray(normal(0, 7, 4))
    x2 = None if is_one else jnp.asarray(normal(1, 5, 4))
    for kernel in (ntk, ntk_blocks):
        found = jax.jit(lambda p, kernel=kernel: kernel(MLP.apply, p, x1, x2, memory=memory))(params)
        expected = jax.jit(lambda p, kernel=kernel: kernel(MLP.apply, p, x1, x2))(params)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_budget_bounds_the_memory_that_is_taken():
    model = jd.models.mlp((64, 256, 10), activation=jax.nn.relu)
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((512, 64), jnp.float32)

    def taken(memory):
        kernel = jax.jit(lambda p, x: ntk(model.apply, p, x, memory=memory))
        return kernel.lower(params, x).compile().memory_analysis().temp_size_in_bytes

    assert taken(2**21) < 2**21 + 4 * 512**2 * 4 < taken(None)


def test_kernels_are_symmetric_to_the_last_bit():
    params, x = MLP.init(jax.random.key(0)), jnp.asarray(normal(0, 9, 4), jnp.float32)
    whole = np.asarray(jax.jit(lambda p: ntk_blocks(MLP.apply, p, x))(params))
    np.testing.assert_array_equal(whole, whole.transpose(1, 0, 3, 2))
    trace = np.asarray(jax.jit(lambda p: ntk(MLP.apply, p, x))(params))
    np.testing.assert_array_equal(trace, trace.T)


def test_kernels_may_be_jitted_vmapped_and_scanned(x64):
    x = jnp.asarray(normal(0, 5, 4))
    members = float64(jax.vmap(MLP.init)(jax.random.split(jax.random.key(0), 3)))

    @jax.jit
    def kernel(params):
        return ntk(MLP.apply, params, x)

    together = jax.jit(jax.vmap(kernel))(members)
    _, scanned = jax.lax.scan(lambda c, p: (c, kernel(p)), None, members)
    for i in range(3):
        alone = kernel(jax.tree.map(lambda leaf, i=i: leaf[i], members))
        np.testing.assert_allclose(together[i], alone, atol=1e-12)
        np.testing.assert_allclose(scanned[i], alone, atol=1e-12)


def test_kernel_is_differentiable_in_the_parameters(x64):
    model = jd.models.mlp((3, 4, 1), activation=jnp.tanh)
    x, params = jnp.asarray(normal(0, 3, 3)), float64(model.init(jax.random.key(0)))
    direction = jax.tree.map(lambda w: jnp.ones_like(w), params)

    @jax.jit
    def kernel(t):
        return ntk(model.apply, jax.tree.map(lambda w, d: w + t * d, params, direction), x)

    _, slope = jax.jvp(kernel, (0.0,), (1.0,))
    np.testing.assert_allclose(slope, (kernel(1e-5) - kernel(-1e-5)) / 2e-5, atol=1e-6)


def test_a_nan_parameter_gives_nan():
    params = MLP.init(jax.random.key(0))
    params["dense_0"]["weight"] = params["dense_0"]["weight"].at[0, 0].set(jnp.nan)
    assert np.isnan(jax.jit(lambda p: ntk(MLP.apply, p, jnp.ones((3, 4))))(params)).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_parameters_are_summed_in_float32(dtype):
    params = jax.tree.map(lambda w: w.astype(dtype), MLP.init(jax.random.key(0)))
    x = jnp.asarray(normal(0, 5, 4), dtype)
    found = jax.jit(lambda p: ntk(MLP.apply, p, x))(params)
    wide = jax.jit(lambda p: ntk(MLP.apply, p, x.astype(jnp.float32)))(
        jax.tree.map(lambda w: w.astype(jnp.float32), params)
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wide, atol=0.05 * float(jnp.abs(wide).max()))


def test_integer_and_unused_parameters_do_not_count():
    params = {"w": jnp.ones((4, 2)), "step": jnp.asarray(3), "unused": jnp.ones(5)}
    apply = lambda p, x: (x * p["step"]) @ p["w"]  # noqa: E731
    x = jnp.asarray(normal(0, 3, 4), jnp.float32)
    np.testing.assert_allclose(ntk(apply, params, x), 9 * x @ x.T, rtol=1e-5)
    assert {leaf.path: leaf.route for leaf in ntk_plan(apply, params, x).routes} == {"w": "outer", "unused": "unused"}
    assert not ntk_blocks(lambda p, x: x, params, x).any()


def test_dense_networks_cost_about_a_gradient_and_never_form_the_jacobian():
    """Counted by XLA: flops of the kernel within 1.3 × of a gradient's, memory far below n × p numbers."""
    model = jd.models.mlp((64, 1024, 1024, 1), activation=jnp.tanh)
    params = jax.eval_shape(model.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((256, 64), jnp.float32)
    kernel = jax.jit(lambda p, x: ntk(model.apply, p, x)).lower(params, x).compile()
    gradient = jax.jit(jax.grad(lambda p, x: jnp.mean(model.apply(p, x) ** 2))).lower(params, x).compile()
    assert kernel.cost_analysis()["flops"] < 1.3 * gradient.cost_analysis()["flops"]
    num_params = 64 * 1024 + 1024 * 1024 + 1024
    assert kernel.memory_analysis().temp_size_in_bytes < 4 * 256 * num_params / 50


def test_the_plan_tells_the_route_of_every_leaf():
    model = jd.models.mlp((64, 512, 512, 1), activation=jnp.tanh, bias=0.1)
    plan = ntk_plan(
        model.apply, jax.eval_shape(model.init, jax.random.key(0)), jax.ShapeDtypeStruct((128, 64), jnp.float32)
    )
    routes = {route.path: route.route for route in plan.routes}
    assert routes["dense_1/weight"] == "outer"
    assert routes["dense_1/bias"] == "gradient"
    text = str(plan)
    assert all(word in text for word in ("dense_2/weight", "512×512", "outer", "1 dot_general", "blocks of 128 × 128"))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p, x: ntk(MLP.apply, p, x, memory=0), "memory"),
        (lambda p, x: ntk(MLP.apply, p, x, x[:, :2]), "one shape"),
        (lambda p, x: ntk(lambda p, x: MLP.apply(p, x)[:, 0], p, x), r"\[n, k\]"),
    ],
    ids=["memory", "shapes", "outputs"],
)
def test_bad_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(MLP.init(jax.random.key(0)), jnp.ones((3, 4)))
