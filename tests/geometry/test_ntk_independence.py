"""Which functions the kernel accepts: those that treat examples one by one, and none in which they meet."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxdyn.geometry.ntk import ntk_plan

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
    "spectrum of each": lambda w, x: jnp.abs(jnp.fft.fft(x, axis=1)) @ w,
    "standard deviation of the weights": lambda w, x: x @ (w / w.std()),
}

INTERACTING = {
    "centred over the batch": lambda w, x: (x - x.mean(0, keepdims=True)) @ w,
    "Gram matrix": lambda w, x: (x @ x.T) @ (x @ w),
    "flipped": lambda w, x: x[::-1] @ w,
    "shifted": lambda w, x: jnp.roll(x, 1, 0) @ w,
    "sorted": lambda w, x: jnp.sort(x, 0) @ w,
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
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_functions_of_single_examples_are_accepted(name):
    assert ntk_plan(INDEPENDENT[name], jnp.ones((5, 3)), jnp.ones((4, 5))).routes


@pytest.mark.parametrize("name", INTERACTING)
def test_functions_whose_examples_interact_are_refused(name):
    with pytest.raises(ValueError, match=r"interact|one example"):
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


def test_vmap_is_the_remedy_for_a_function_that_only_seems_to_mix():
    def apply(w, x):
        return jnp.stack([x[i] @ w for i in range(x.shape[0])])

    with pytest.raises(ValueError, match=r"jax\.vmap"):
        ntk_plan(apply, jnp.ones((5, 3)), jnp.ones((4, 5)))
    assert ntk_plan(lambda w, x: jax.vmap(lambda e: apply(w, e[None])[0])(x), jnp.ones((5, 3)), jnp.ones((4, 5))).routes
