"""A vmapped axis used as a fixed value, in whatever way, ends in one error that names the axis and the way out."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdyn as jd

TASK = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=5, n=8)
BY_NUMBER = {1: jnp.tanh, 2: jnp.sin}
BY_TEXT = {"1": jnp.tanh, "2": jnp.sin}


def _training(sizes=(5, 4, 1), activation=jnp.tanh, schedule=0.1, **settings):
    model = jd.models.mlp(sizes, activation=activation)
    record = jd.record(jd.every(1), loss=jd.probes.Loss())
    settings = {"optimizer": optax.sgd(schedule), "task": TASK, "steps": 2, "record": record} | settings
    return jd.Training(model, key=jax.random.key(0), **settings)


def _updating(depth):
    def update(grads, state, params=None):
        return jax.tree.map(lambda g: -g if depth > 1 else g, grads), state

    return optax.GradientTransformation(lambda params: (), update)


WAYS = {
    "times a tuple": lambda depth: _training((5,) + (4,) * depth + (1,)),
    "times a list": lambda depth: _training([5, *[4] * depth, 1]),
    "range": lambda depth: _training((5, *(4 for _ in range(depth)), 1)),
    "a size": lambda depth: _training((5, depth, 1)),
    "int": lambda depth: _training((5, int(depth), 1)),
    "float": lambda depth: _training(activation=lambda h: jnp.tanh(h * float(depth))),
    "item": lambda depth: _training((5, np.asarray(depth).item(), 1)),
    "ceil": lambda depth: _training((5, math.ceil(depth), 1)),
    "if": lambda depth: _training((5, 4, 1) if depth > 1 else (5, 1)),
    "bool": lambda depth: _training(activation=jnp.tanh if bool(depth) else jnp.sin),
    "and": lambda depth: _training(activation=depth and jnp.tanh),
    "chain of comparisons": lambda depth: _training(activation=jnp.tanh if 0 < depth < 2 else jnp.sin),
    "index of a list": lambda depth: _training(activation=[jnp.tanh, jnp.sin, jnp.cos][depth]),
    "slice": lambda depth: _training((5, *(4, 4, 4)[:depth], 1)),
    "key of a dict": lambda depth: _training(activation=BY_NUMBER[depth]),
    "member of a set": lambda depth: _training(activation=jnp.tanh if depth in {1, 3} else jnp.sin),
    "str": lambda depth: _training(activation=BY_TEXT[str(depth)]),
    "f-string": lambda depth: _training(activation=BY_TEXT[f"{depth}"]),
    "format": lambda depth: _training(activation=BY_TEXT[f"{depth:d}"]),
    "percent": lambda depth: _training(activation=BY_TEXT["%d" % depth]),  # noqa: UP031
    "zeros": lambda depth: _training(schedule=0.1 + jnp.zeros(depth).sum()),
    "numpy zeros": lambda depth: _training(schedule=0.1 + np.zeros(depth).sum()),
    "asarray": lambda depth: _training(activation=lambda h: jnp.tanh(h) + np.asarray(depth)),
    "numpy function": lambda depth: _training(schedule=0.1 * np.sqrt(depth)),
    "boolean mask": lambda depth: _training(activation=lambda h: h + jnp.arange(4.0)[np.arange(4) < depth].sum()),
    "static argument": lambda depth: _training(activation=lambda h: jax.jit(jnp.multiply, static_argnums=1)(h, depth)),
    "cached function": lambda depth: _training(activation=functools.lru_cache(lambda d: jnp.tanh)(depth)),
    "static parameter": lambda depth: _training(activation=lambda h: jax.lax.integer_pow(h, depth)),
    "if in an activation": lambda depth: _training(activation=lambda h: jnp.tanh(h) if depth > 1 else h),
    "zeros in an activation": lambda depth: _training(activation=lambda h: h + jnp.zeros(depth).sum()),
    "reshape": lambda depth: _training(activation=lambda h: jnp.tanh(h.reshape(depth, -1)).reshape(h.shape)),
    "axis": lambda depth: _training(activation=lambda h: h - h.sum(axis=depth - 1, keepdims=True)),
    "length of a scan": lambda depth: _training(
        activation=lambda h: jax.lax.scan(lambda h, _: (jnp.tanh(h), None), h, length=depth)[0]
    ),
    "loss": lambda depth: _training(loss=lambda f, y: ((f - y) ** 2).mean() if depth > 1 else abs(f - y).mean()),
    "probe": lambda depth: _training(record=jd.record(jd.every(1), a=lambda s: s.step + jnp.zeros(depth).sum())),
    "steps": lambda depth: _training(steps=depth),
    "every": lambda depth: _training(record=jd.record(jd.every(depth), loss=jd.probes.Loss())),
    "batch size": lambda depth: _training(sampler=jd.tasks.minibatch(depth)),
    "task": lambda depth: _training(task=jd.tasks.polynomial(jax.random.key(0), degree=depth, dim=5, n=8)),
    "exponential decay": lambda depth: _training(schedule=optax.exponential_decay(0.1, depth, 0.9)),
    "cosine decay": lambda depth: _training(schedule=optax.cosine_decay_schedule(0.1, depth)),
    "warm-up": lambda depth: _training(schedule=optax.warmup_cosine_decay_schedule(0.0, 0.1, depth, 10)),
    "piecewise schedule": lambda depth: _training(schedule=optax.piecewise_constant_schedule(0.1, {depth: 0.9})),
    "if in a schedule": lambda depth: _training(schedule=lambda count: 0.1 if depth > 1 else 0.2),
    "several steps": lambda depth: _training(
        optimizer=optax.MultiSteps(optax.sgd(0.1), depth).gradient_transformation()
    ),
    "if in an update": lambda depth: _training(optimizer=_updating(depth)),
    "computed by jax.numpy": lambda depth: _training((5, int(jnp.sqrt(depth)), 1)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_traced_axis_as_a_fixed_value_names_the_axis_and_loop(way):
    with pytest.raises(TypeError, match=r"`depth`.*`loop=`"):
        jd.sweep(lambda depth, lr: WAYS[way](depth), vmap={"depth": np.asarray([2, 1]), "lr": np.asarray([0.1])})


@pytest.mark.parametrize("way", [way for way in WAYS if way != "computed by jax.numpy"])
def test_the_remedy_works(way):
    jd.ensemble.plan(lambda depth, lr: WAYS[way](depth), loop={"depth": [2]}, vmap={"lr": np.asarray([0.1])})


def test_only_the_axes_at_fault_are_named():
    def run(lr, depth, width, seed):
        return _training((5, *[16] * depth, 1), schedule=lr * seed, activation=lambda h: jnp.tanh(h).reshape(-1, width))

    axes = {"lr": np.asarray([0.1]), "depth": np.asarray([1]), "width": np.asarray([16]), "seed": np.arange(2)}
    with pytest.raises(TypeError, match="The vmapped axes `depth`, `width` are traced"):
        jd.sweep(run, vmap=axes)


def test_a_search_names_them_too():
    def run(lr, depth):
        return _training((5, *[16] * depth, 1), schedule=lr)

    with pytest.raises(TypeError, match=r"`depth`.*`loop=`"):
        jd.ensemble.maximal_learning_rate(run, vmap={"depth": np.asarray([1, 2])})


def test_other_errors_of_run_pass_as_they_are():
    with pytest.raises(ZeroDivisionError):
        jd.sweep(lambda depth: _training(steps=1 // 0), vmap={"depth": np.asarray([2, 1])})
    with pytest.raises(KeyError, match="activation"):
        jd.sweep(lambda depth: _training(activation={}["activation"]), vmap={"depth": np.asarray([2, 1])})


def test_an_axis_is_named_where_run_has_another_error_too():
    with pytest.raises(TypeError, match="The vmapped axis `depth` is traced"):
        jd.sweep(lambda depth: _training((5, *[4] * depth, 1), activation=None), vmap={"depth": np.asarray([2, 1])})


def test_a_padded_width_as_a_shape_is_named_as_the_axis_it_is():
    with pytest.raises(TypeError, match="The vmapped axis `units` is traced"):
        jd.sweep(
            lambda units: _training(activation=lambda h: h + jnp.zeros(units).sum()), vmap={"units": jd.widths([4, 8])}
        )
