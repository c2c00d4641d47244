"""What every entry point accepts: one table, model kind by entry point.

"yes" where it works, else words of the message that says what to do.
"""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxdyn as jd

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 3))
Y = X[:, :1]


@jax.custom_vjp
def reverse_only(z):
    return jnp.tanh(z)


reverse_only.defvjp(lambda z: (jnp.tanh(z), z), lambda z, g: (g * (1 - jnp.tanh(z) ** 2),))


class Constants(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.scale = nnx.Variable(jnp.ones(()))
        self.outer = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.outer(self.drop(nnx.tanh(self.norm(self.inner(x))))) * self.scale[...]


class Running(linen.Module):
    """Batch norm in evaluation mode, and dropout that is off."""

    @linen.compact
    def __call__(self, x):
        hidden = linen.BatchNorm(use_running_average=True)(linen.Dense(4)(x))
        return linen.Dense(1)(linen.Dropout(0.5, deterministic=True)(jnp.tanh(hidden)))


def _integers():
    plain = jd.models.mlp((3, 4, 1), activation=jnp.tanh)

    def init(key):
        return {"net": plain.init(key), "scale": jnp.array(2)}

    return jd.models.Model(init, lambda w, x: plain.apply(w["net"], x) * w["scale"].astype(x.dtype))


def _half():
    plain = jd.models.mlp((3, 4, 1), activation=jnp.tanh)

    def init(key):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), plain.init(key))

    return jd.models.Model(init, plain.apply)


MODELS = {
    "custom_vjp": lambda: jd.models.mlp((3, 4, 1), activation=reverse_only),
    "integer leaf": _integers,
    "bfloat16": _half,
    "nnx constants": lambda: jd.models.from_nnx(Constants),
    "linen constants": lambda: jd.models.from_linen(Running(), X),
}


def _train(expand):
    def run(model, params):
        task = jd.tasks.from_arrays(X, Y)
        done = jd.train(jd.Training(model, task, optax.adam(0.1), steps=2, key=KEY, params0=params, expand=expand))
        return [leaf for leaf in jax.tree.leaves(done.final.params) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

    return run


def _product(operator):
    return operator(jnp.ones(operator.dim, operator.dtype))


GEOMETRY, LOSS = jd.geometry, jd.losses.half_sum
ENTRIES = {
    "ntk": lambda m, p: GEOMETRY.ntk(m.apply, p, X),
    "tangent_kernel": lambda m, p: _product(GEOMETRY.operators.tangent_kernel(m.apply, p, X)),
    "gauss_newton": lambda m, p: _product(GEOMETRY.operators.gauss_newton(m.apply, p, X, Y, loss=LOSS)),
    "sharpness": lambda m, p: GEOMETRY.sharpness(m.apply, p, X, Y, loss=LOSS, key=KEY).values,
    "function_hessian_norm": lambda m, p: GEOMETRY.function_hessian_norm(m.apply, p, X[:1], key=KEY),
    "agop": lambda m, p: GEOMETRY.agop(lambda x: m.apply(p, x), X),
    "function_hessian": lambda m, p: _product(GEOMETRY.operators.function_hessian(m.apply, p, X[0])),
    "mixed_difference": lambda m, p: GEOMETRY.multilinear.mixed_difference(m.apply, p, X, p, blocks=[bool]),
    "block_remainder": lambda m, p: GEOMETRY.multilinear.block_remainder(m.apply, p, X, p, only=bool),
    "multilinear": lambda m, p: GEOMETRY.multilinear.multilinear([bool])(m.apply, p)(p, X),
    "quadratic_update": lambda m, p: (
        jd.theory.catapult.quadratic_update(m.apply, p, X, Y, learning_rate=0.1, loss=LOSS).kernel
    ),
    "linear": lambda m, p: jd.linear(m.apply, p)(p, X),
    "quadratic": lambda m, p: jd.quadratic(m.apply, p)(p, X),
    "train": _train(jd.exact),
    "train linear": _train(jd.linear),
}
REFUSED = {
    ("custom_vjp", entry): "custom_jvp"
    for entry in ENTRIES
    if entry.endswith(("linear", "quadratic", "kernel", "newton", "remainder"))
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", MODELS)
def test_every_entry_point_accepts_the_model_or_says_what_to_do(kind, entry):
    model = MODELS[kind]()
    params = model.init(KEY)
    if (kind, entry) in REFUSED:
        with pytest.raises(TypeError, match=REFUSED[kind, entry]):
            ENTRIES[entry](model, params)
    else:
        assert all(
            np.isfinite(np.asarray(leaf, float)).all() for leaf in jax.tree.leaves(ENTRIES[entry](model, params))
        )


def test_integer_leaves_stay_and_the_others_train_as_without_them():
    model, plain = _integers(), jd.models.mlp((3, 4, 1), activation=jnp.tanh)
    task = jd.tasks.from_arrays(X, Y)
    doubled = jd.models.Model(plain.init, lambda w, x: plain.apply(w, x) * 2)
    runs = [jd.train(jd.Training(m, task, optax.adam(0.1), steps=3, key=KEY)).final.params for m in (model, doubled)]
    assert runs[0]["scale"] == 2
    assert runs[0]["scale"].dtype == jnp.int32
    jax.tree.map(np.testing.assert_array_equal, runs[0]["net"], runs[1])


def test_an_nnx_module_that_changes_a_variable_when_applied_is_refused():
    class Counter(nnx.Module):
        def __init__(self, rngs):
            self.dense, self.calls = nnx.Linear(3, 1, rngs=rngs), nnx.Variable(jnp.zeros(()))

        def __call__(self, x):
            self.calls[...] = self.calls[...] + 1
            return self.dense(x)

    model = jd.models.from_nnx(Counter)
    with pytest.raises(ValueError, match="changes variables"):
        model.apply(model.init(KEY), X)
