"""Every model, expansion and probe obeys the same contract: jit, vmap, dtype, shape, one trace."""

import cases
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd

models = pytest.mark.parametrize("case", cases.MODELS, ids=lambda case: case.name)
probes = pytest.mark.parametrize("case", cases.PROBES, ids=lambda case: case.name)


def _inputs(case, n=5):
    return jax.random.normal(jax.random.key(7), (n, *case.shape))


@models
def test_outputs_are_n_by_k(case):
    model = case.make()
    assert model.apply(model.init(jax.random.key(0)), _inputs(case)).shape == (5, case.outputs)


@models
def test_examples_do_not_interact(case):
    model, x = case.make(), _inputs(case)
    params = model.init(jax.random.key(0))
    alone = jnp.concatenate([model.apply(params, x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_allclose(model.apply(params, x), alone, atol=1e-6)


@models
def test_jit_traces_once_and_changes_nothing(case):
    model, x = case.make(), _inputs(case)
    params = model.init(jax.random.key(0))
    apply = jax.jit(chex.assert_max_traces(lambda p, x: model.apply(p, x), n=1))
    np.testing.assert_allclose(apply(params, x), model.apply(params, x), atol=1e-6)
    apply(params, x + 1)


@models
def test_vmap_over_seeds_is_a_loop_over_seeds(case):
    model, x = case.make(), _inputs(case)
    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.vmap(lambda key: model.apply(model.init(key), x))(keys)
    alone = jnp.stack([model.apply(model.init(key), x) for key in keys])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@models
def test_dtype_follows_the_default(case, x64):
    """Our families compute in the default type; flax modules in the type of their own parameters, float32."""
    model = case.make()
    params = model.init(jax.random.key(0))
    expected = jnp.float32 if case.name in ("linen", "nnx") else jnp.float64
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(expected)}
    assert model.apply(params, _inputs(case)).dtype == jnp.float64


@models
@pytest.mark.parametrize("expansion", cases.EXPANSIONS, ids=lambda pair: pair[0])
def test_expansions_agree_with_the_network_at_the_anchor(case, expansion):
    model, x = case.make(), _inputs(case)
    params = model.init(jax.random.key(0))
    expanded = expansion[1](model.apply, params)
    np.testing.assert_allclose(expanded(params, x), model.apply(params, x), atol=1e-6)


@probes
def test_probe_has_its_shape_and_dims_in_a_vmapped_run(case):
    def run(seed):
        key = jax.random.key(seed)
        x = jax.random.normal(jax.random.key(3), (13, 3))
        y = jnp.stack([x[:, 0], x[:, 1] * x[:, 2]], axis=1)
        task = jd.tasks.from_arrays(x[:8], y[:8], x_test=x[8:], y_test=y[8:])
        model = jd.models.mlp((3, 16, 2), activation=jnp.tanh)
        return jd.Training(
            model, task, optax.sgd(0.05), steps=4, key=key, record=jd.record(jd.every(2), value=case.make(task))
        )

    together = jd.sweep(run, vmap={"seed": np.arange(2)})
    assert together.value.shape == (2, 3, *case.shape)
    assert np.isfinite(together.value).all()
    alone = jd.train(run(1)).values["value"]
    np.testing.assert_allclose(together.value.sel(seed=1), alone, rtol=2e-4, atol=2e-5)
