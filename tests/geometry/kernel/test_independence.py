"""Which functions are accepted where something is told per example: those that treat examples one by one, none in which they meet."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry.reference import normal
from jax import lax

from jaxdyn.geometry.kernel import ntk_blocks, ntk_plan
from jaxdyn.theory import radial, rfm


def filtered(num_inputs, num_outputs, num_groups):
    """Each example convolved with filters made of it; vmap folds the examples into groups of the convolution."""

    def one(w, e):
        filters = jnp.sin(e[None, :3] + w[0, 0] * jnp.arange(num_outputs * num_inputs // num_groups)[:, None])
        lines = e[None] * jnp.arange(1.0, num_inputs + 1)[:, None]
        shape = (num_outputs, num_inputs // num_groups, 3)
        return lax.conv_general_dilated(
            lines[None], filters.reshape(shape), (1,), "SAME", feature_group_count=num_groups
        ).reshape(-1)

    return jax.vmap(one, (None, 0))


def labels(x):
    return jnp.argmax(x[:, :3], axis=1)


INDEPENDENT = {
    "transposed": lambda w, x: (w.T @ x.T).T,
    "examples merged with positions": lambda w, x: (
        (jnp.broadcast_to(x[:, None], (x.shape[0], 4, 5)).reshape(-1, 5) @ w).reshape(x.shape[0], 4, 3).mean(1)
    ),
    "repeated": lambda w, x: (jnp.repeat(x, 2, 0).reshape(-1, 2, 5) @ w).sum(1),
    "sorted within each": jax.vmap(lambda w, e: jnp.sort(e) @ w, (None, 0)),
    "one after the other": lambda w, x: lax.map(lambda e: e @ w, x),
    "softmax over outputs": lambda w, x: jax.nn.softmax(x @ w),
    "scan over features": lambda w, x: lax.scan(lambda h, s: (jnp.tanh(h + s[:, None]), h), x @ w, x.T)[0],
    "products within each": lambda w, x: jnp.einsum("ni,nj,ik->nk", x, x, w),
    "picked along outputs": lambda w, x: jnp.take_along_axis(x @ w, jnp.argmax(x @ w, 1)[:, None], 1),
    "one-hot": lambda w, x: jax.nn.one_hot(jnp.argmax(x, 1), 5) @ w,
    "no example at all": lambda w, x: jnp.zeros((x.shape[0], 1)) + w.sum(),
    "platform dependent": lambda w, x: lax.platform_dependent(x, w, cpu=lambda x, w: x @ w, default=lambda x, w: x @ w),
    "loop": lambda w, x: lax.fori_loop(0, 3, lambda i, h: jnp.sin(h), x @ w),
    "convolved with itself": lambda w, x: jax.vmap(lambda e: jnp.convolve(e, e[:3], mode="same"))(x) @ w,
    "linear system of each": lambda w, x: jax.vmap(lambda e: jnp.linalg.solve(jnp.outer(e, e) + jnp.eye(5), e))(x) @ w,
    "largest of each": lambda w, x: lax.top_k(x @ w, 2)[0],
    "padded features": lambda w, x: jnp.pad(x, ((0, 0), (1, 0))) @ w[:1].repeat(6, 0),
    "spectrum of each": lambda w, x: jnp.abs(jnp.fft.fft(x, axis=1)) @ w,
    "standard deviation of the weights": lambda w, x: x @ (w / w.std()),
    "filters of each": filtered(1, 2, 1),
    "several filters of each": filtered(2, 3, 1),
    "filters of each in groups": filtered(4, 6, 2),
    "reshaped in another order": lambda w, x: lax.reshape(
        jnp.stack([x, 2 * x]), (x.shape[0], 10), dimensions=(1, 0, 2)
    ),
    "kernel machine": lambda w, x: rfm.predict(radial.laplace(2.0), jnp.eye(5), w.T, w[:3], x),
    "all of it, from a place": lambda w, x: lax.dynamic_slice_in_dim(x, x.shape[0], x.shape[0]) @ w,
    "own row, by place": lambda w, x: (x @ w)[jnp.arange(x.shape[0]), labels(x)][:, None],
    "own row, by numpy's place": lambda w, x: (x @ w)[np.arange(x.shape[0]), labels(x)][:, None],
    "own row, by numpy's column": lambda w, x: (x @ w)[np.ix_(np.arange(x.shape[0]), np.array([2, 0]))],
    "own row, the first of it": lambda w, x: (x @ w)[np.arange(x.shape[0]), np.zeros(x.shape[0], int)][:, None],
    "numpy's ones": lambda w, x: jnp.concatenate([x, np.ones((x.shape[0], 1))], axis=1) @ jnp.ones((6, 2)),
    "own column, by place": lambda w, x: (w.T @ x.T)[labels(x), jnp.arange(x.shape[0])][:, None],
    "own row, sorted": lambda w, x: (x @ w)[jnp.arange(x.shape[0])[:, None], jnp.argsort(x[:, :3], 1)],
    "own row, overwritten": lambda w, x: (x @ w).at[jnp.arange(x.shape[0]), labels(x)].set(0.0),
    "own row, collected": lambda w, x: (
        x @ w * jnp.zeros((x.shape[0], 3)).at[jnp.arange(x.shape[0]), labels(x)].add(1.0)
    ),
    "cross entropy of the likeliest": lambda w, x: jnp.take_along_axis(
        jax.nn.log_softmax(x @ w), labels(x)[:, None], 1
    ),
}

INTERACTING = {
    "centred over the batch": lambda w, x: (x - x.mean(0, keepdims=True)) @ w,
    "Gram matrix": lambda w, x: (x @ x.T) @ (x @ w),
    "flipped": lambda w, x: x[::-1] @ w,
    "shifted": lambda w, x: jnp.roll(x, 1, 0) @ w,
    "sorted": lambda w, x: jnp.sort(x, 0) @ w,
    "largest of the batch": lambda w, x: lax.top_k((x @ w).T, x.shape[0])[0].T,
    "about the largest of the batch": lambda w, x: lax.approx_max_k(x @ w, x.shape[0], reduction_dimension=0)[0],
    "shifted by padding": lambda w, x: lax.pad(x @ w, 0.0, ((1, -1, 0), (0, 0, 0))),
    "weights by place, ragged": lambda w, x: lax.ragged_dot(x, jnp.stack([w, 2 * w]), jnp.array([1, 1])),
    "coupled linear system": lambda w, x: jax.scipy.sparse.linalg.cg(lambda h: h + h.mean(0, keepdims=True), x @ w)[0],
    "reversed by splitting": lambda w, x: jnp.concatenate(jnp.split(x, x.shape[0])[::-1]) @ w,
    "cumulative": lambda w, x: jnp.cumsum(x, 0) @ w,
    "divided by their number": lambda w, x: x @ w / x.shape[0],
    "times their integer number": lambda w, x: x @ w * jnp.asarray(x.shape[0]),
    "weighted by place": lambda w, x: x @ w * jnp.arange(x.shape[0])[:, None],
    "scrambled by a reshape": lambda w, x: x.reshape(5, -1).T @ w,
    "softmax over the batch": lambda w, x: jax.nn.softmax(x @ w, 0),
    "centring matrix": lambda w, x: (jnp.eye(x.shape[0]) - 1 / x.shape[0]) @ x @ w,
    "compared with the first": lambda w, x: x @ w + (x @ w)[:1],
    "first overwritten": lambda w, x: (x @ w).at[0].set(0.0),
    "carried from one to the next": lambda w, x: lax.scan(lambda h, e: (h + e, h), jnp.zeros(5), x)[1] @ w,
    "largest of all": lambda w, x: x @ w / jnp.max(jnp.abs(x)),
    "convolved": lambda w, x: jnp.convolve(x[:, 0], w[:, 0], mode="same")[:, None],
    "spectrum over the batch": lambda w, x: jnp.abs(jnp.fft.fft(x, axis=0)) @ w,
    "noise": lambda w, x: (x + jax.random.normal(jax.random.key(0), x.shape)) @ w,
    "common branch": lambda w, x: lax.cond(x.sum() > 0, lambda: x @ w, lambda: -x @ w),
    "common loop": lambda w, x: lax.while_loop(lambda h: h.sum() > 0, lambda h: h - 1, x @ w),
    "other axis": lambda w, x: (x @ w).T,
    "written from a place": lambda w, x: lax.dynamic_update_slice_in_dim(x @ w, jnp.ones((1, 3)), x.shape[0] - 1, 0),
    "columns from a place": lambda w, x: lax.dynamic_slice_in_dim(x @ w, x.shape[0] - 2, 2, 1),
    "rows from the end": lambda w, x: (x @ w)[x.shape[0] - 1 - jnp.arange(x.shape[0]), labels(x)][:, None],
    "row by place, clipped": lambda w, x: (x @ w)[jnp.minimum(jnp.arange(x.shape[0]), 1)],
    "row by numpy's place, clipped at the third": lambda w, x: (x @ w)[np.minimum(np.arange(x.shape[0]), 2)],
    "row by numpy's place, from the start again": lambda w, x: (x @ w)[np.arange(x.shape[0]) % 3, labels(x)][:, None],
    "row by numpy's place, within jit": jax.jit(lambda w, x: (x @ w)[np.arange(x.shape[0]) % 3]),
    "later rows left out": lambda w, x: jnp.where(np.arange(x.shape[0])[:, None] > 2, 0.0, x @ w),
    "numpy's equal rows, but for later ones": lambda w, x: x @ w * (1.0 + np.arange(x.shape[0]) // 3)[:, None],
    "times numpy's number": lambda w, x: x @ w * np.array([[x.shape[0]]]),
    "labels by place": lambda w, x: (x @ w)[np.arange(x.shape[0]), np.array([0, 1, 2, 1])[: x.shape[0]]][:, None],
    "row of the label": lambda w, x: (x @ w)[labels(x) % 2, jnp.arange(x.shape[0]) % 3][:, None],
    "column by place": lambda w, x: (x @ w)[jnp.arange(x.shape[0]), jnp.arange(x.shape[0]) % 3][:, None],
    "column by label and place": lambda w, x: jnp.take_along_axis(
        x @ w, (labels(x) + jnp.arange(x.shape[0]))[:, None] % 3, 1
    ),
    "weights by place": lambda w, x: x @ w * w[jnp.arange(x.shape[0])],
    "place written": lambda w, x: (
        x @ w + jnp.zeros((x.shape[0], 3), int).at[jnp.arange(x.shape[0]), 0].set(jnp.arange(x.shape[0]))
    ),
    "place alone": lambda w, x: jnp.arange(x.shape[0])[:, None].astype(float),
    "filters of the first": lambda w, x: filtered(1, 2, 1)(w, x * 0 + x[:1]),
    "filters of the neighbour": lambda w, x: lax.conv_general_dilated(
        x[None], jnp.roll(x, 1, 0)[:, None, :3], (1,), "SAME", feature_group_count=x.shape[0]
    )[0],
    "filters interleaved": lambda w, x: lax.conv_general_dilated(
        jnp.broadcast_to(x[None], (2, *x.shape)).reshape(1, -1, 5),
        jnp.repeat(x[:, None, :3], 2, 0),
        (1,),
        "SAME",
        feature_group_count=2 * x.shape[0],
    ).reshape(-1, 10),
    "scrambled by a reshape in another order": lambda w, x: lax.reshape(x, x.shape, dimensions=(1, 0)) @ w,
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_functions_of_single_examples_are_accepted(name):
    apply, w, x = (
        INDEPENDENT[name],
        jnp.asarray(normal(0, 5, 3), jnp.float32),
        jnp.asarray(normal(1, 4, 5), jnp.float32),
    )
    assert ntk_plan(apply, w, x).routes
    together, alone = jax.jit(lambda x: (apply(w, x), [apply(w, x[i : i + 1])[0] for i in range(4)]))(x)
    np.testing.assert_allclose(together, jnp.stack(alone), atol=1e-4)


@pytest.mark.parametrize("name", INTERACTING)
def test_functions_whose_examples_interact_are_refused(name):
    with pytest.raises(ValueError, match=r"interact|\[n, k\]"):
        ntk_plan(INTERACTING[name], jnp.ones((5, 3)), jnp.ones((4, 5)))


def test_batch_statistics_are_refused_and_running_ones_accepted():
    x = jnp.ones((4, 5))
    module = nn.BatchNorm(use_running_average=False)
    variables = module.init(jax.random.key(0), x)

    def apply(is_running):
        norm = nn.BatchNorm(use_running_average=is_running)
        rest = {"batch_stats": variables["batch_stats"]}
        return lambda p, x: norm.apply({"params": p, **rest}, x, mutable=["batch_stats"])[0]

    assert len(ntk_plan(apply(True), variables["params"], x).routes) == 2
    with pytest.raises(ValueError, match="batch statistics by group or layer normalisation"):
        ntk_plan(apply(False), variables["params"], x)


SEEMING = {
    "one by one": lambda w, x: jnp.stack([x[i] @ w for i in range(x.shape[0])]),
    "last rows": lambda w, x: jnp.concatenate([x, x])[-x.shape[0] :] @ w,
    "loop until all have ended": lambda w, x: lax.while_loop(
        lambda h: jnp.any(h > 1), lambda h: jnp.where(h > 1, h / 2, h), x @ w
    ),
    "filters": lambda w, x: jnp.stack([filtered(2, 3, 1)(w, e[None])[0] for e in x]),
}


@pytest.mark.parametrize("name", SEEMING)
def test_both_remedies_serve_a_function_that_only_seems_to_mix(name):
    apply, w, x = SEEMING[name], jnp.ones((5, 3)), jnp.ones((4, 5))
    with pytest.raises(ValueError, match=r"jax\.vmap.*jax\.lax\.map"):
        ntk_plan(apply, w, x)
    mapped = ntk_plan(lambda w, x: lax.map(lambda e: apply(w, e[None])[0], x), w, x)
    assert mapped.routes == ntk_plan(lambda w, x: jax.vmap(lambda e: apply(w, e[None])[0])(x), w, x).routes


def test_lax_map_serves_where_vmap_is_refused_too():
    """A batching rule of its own that takes the examples from the end."""

    @jax.custom_batching.custom_vmap
    def sine(e):
        return jnp.sin(e)

    @sine.def_vmap
    def _(size, in_batched, x):
        return jnp.sin(x[::-1])[::-1], True

    w, x = jnp.ones((5, 3)), jnp.ones((4, 5))
    with pytest.raises(ValueError, match=r"jax\.lax\.map"):
        ntk_plan(lambda w, x: jax.vmap(sine)(x) @ w, w, x)
    assert ntk_plan(lambda w, x: lax.map(sine, x) @ w, w, x).routes


@pytest.mark.usefixtures("x64")
def test_rows_by_numpys_place_give_the_dense_kernel_for_any_number_of_examples_in_blocks_or_not():
    w = jnp.asarray(normal(0, 5, 3))

    def apply(w, x):
        hidden = jnp.tanh(x @ w)
        one = hidden[np.arange(len(x)), labels(x)][:, None]
        return jnp.concatenate([one, hidden[np.ix_(np.arange(len(x)), np.array([2, 0]))]], axis=1)

    for n in range(2, 10):
        x = jnp.asarray(normal(n, n, 5))
        jacobian = jax.jacrev(lambda w, x=x: apply(w, x).reshape(-1))(w).reshape(3 * n, -1)
        for memory in (2**28, 3000):
            found = ntk_blocks(apply, w, x, memory=memory).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
            np.testing.assert_allclose(found, jacobian @ jacobian.T, atol=1e-13)
        clipped = lambda w, x, last=n - 2: jnp.tanh(x @ w)[np.minimum(np.arange(len(x)), last)]  # noqa: E731
        if n > 2:
            with pytest.raises(ValueError, match="interact"):
                ntk_blocks(clipped, w, x)
