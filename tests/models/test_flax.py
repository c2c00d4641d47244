"""Flax modules are models; what a pure function cannot hold is refused by name."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxdyn as jd


class Convolutional(nnx.Module):
    def __init__(self, rngs):
        self.convolution = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.dense(nnx.relu(self.convolution(x)).mean((1, 2)))


def test_linen_model_is_the_module():
    module = linen.Dense(2)
    x = jax.random.normal(jax.random.key(0), (5, 3))
    model = jd.models.from_linen(module, x)
    params = model.init(jax.random.key(1))
    np.testing.assert_allclose(model.apply(params, x), x @ params["kernel"] + params["bias"][None, :], atol=1e-6)


def test_nnx_model_is_the_module():
    x = jax.random.normal(jax.random.key(0), (5, 8, 8, 1))
    model = jd.models.from_nnx(Convolutional)
    direct = Convolutional(nnx.Rngs(jax.random.key(1)))(x)
    np.testing.assert_allclose(model.apply(model.init(jax.random.key(1)), x), direct, atol=1e-6)


def test_nnx_model_trains_in_a_sweep():
    x = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
    task = jd.tasks.from_arrays(x, jnp.sign(x.mean((1, 2))))
    model = jd.models.from_nnx(Convolutional)

    def run(seed):
        return jd.Training(
            model,
            task,
            optax.sgd(0.1),
            steps=20,
            key=jax.random.key(seed),
            record=jd.record(jd.every(20), loss=jd.probes.Loss()),
        )

    loss = jd.sweep(run, vmap={"seed": np.arange(2)}).loss
    assert (loss.isel(step=-1) < loss.isel(step=0)).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jd.models.from_nnx(lambda rngs: nnx.BatchNorm(3, rngs=rngs)), "BatchStat"),
        (lambda: jd.models.from_nnx(lambda rngs: nnx.Dropout(0.5, rngs=rngs)), "Rng"),
        (lambda: jd.models.from_linen(linen.BatchNorm(use_running_average=False), jnp.ones((2, 3))), "batch_stats"),
        (lambda: jd.models.from_linen(linen.Dropout(0.5, deterministic=False), jnp.ones((2, 3))), "dropout"),
    ],
    ids=["nnx batch norm", "nnx dropout", "linen batch norm", "linen dropout"],
)
def test_what_is_not_a_pure_function_of_parameters_is_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_flax_models_have_no_infinite_kernel_and_say_what_to_use():
    model = jd.models.from_linen(linen.Dense(1), jnp.ones((1, 3)))
    with pytest.raises(ValueError, match=r"geometry\.ntk"):
        model.kernel(jnp.ones((2, 3)))
