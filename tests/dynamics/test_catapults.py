"""Raises of the rate: what each is followed by, where it happens by a hand-made loop, the guard, and ensembles.

The setting of the first test: width 512, n = 100, rate 0.9 critical, then 1.2 critical below a loss of 0.2, three raises. A raise is
followed by a catapult if the loss rises above twice its value and above the level, comes back below it, and leaves λ_max lower.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import jaxdyn as jd

LEVEL = 0.2


def _flat(snapshot):
    return ravel_pytree(snapshot.params)[0]


def _run(width=32, n=20, steps=12, ratio=1.1, num=1, seed=1, rate=2.0, record=None, **changes):
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=5, n=n)
    model = jd.models.mlp((5, width, 1), activation=jax.nn.relu)
    descent = jd.dynamics.catapults(
        rate, apply=model.apply, x=task.x, loss=jd.losses.mse, ratio=ratio, level=LEVEL, num=num, **changes
    )
    probes = {"loss": jd.probes.Loss(), "rate": lambda snapshot: snapshot.optimizer_state.rate} | (record or {})
    return jd.Training(
        model, task, descent, steps=steps, key=jax.random.key(seed), record=jd.record(jd.every(1), **probes)
    )


def test_each_raise_is_followed_by_a_catapult_that_lowers_the_curvature(x64):
    c = 2 / 100
    small = _run(width=512, n=100)

    @jax.jit
    def kernel(params):
        return jd.geometry.ntk(small.model.apply, params, small.task.x)

    start = np.linalg.eigvalsh(kernel(small.model.init(small.key)))[-1]
    run = _run(512, 100, 100, ratio=1.2, num=3, rate=0.9 * 2 / (c * start), record={"params": _flat})
    found = jax.jit(lambda: jd.train(run))()
    state = found.final.opt_state
    loss, rate = (np.asarray(found.values[name]) for name in ("loss", "rate"))
    raised = np.asarray(state.raised_at)
    assert state.num_raised == 3
    assert state.num_retreats == 0
    unravel = ravel_pytree(found.final.params)[1]
    ends = [*raised, 100]
    largest = [np.linalg.eigvalsh(kernel(unravel(found.values["params"][t])))[-1] for t in ends]
    np.testing.assert_allclose(state.curvatures, largest[:3], rtol=1e-5)
    assert (np.diff(largest) < 0).all()
    for number, (at, until) in enumerate(itertools.pairwise(ends)):
        assert loss[at] < LEVEL
        assert loss[at:until].max() > max(2 * loss[at], LEVEL)
        assert loss[until] < LEVEL
        expected = max(rate[at], 1.2 * 2 / (c * largest[number]))
        np.testing.assert_allclose(rate[at + 1 : until + 1], expected, rtol=1e-5)
    assert (rate[: raised[0] + 1] == rate[0]).all()


def test_the_run_is_plain_descent_with_those_rates(x64):
    run = _run()
    found = jax.jit(lambda: jd.train(run))()
    assert found.final.opt_state.num_raised == 1
    params = run.model.init(run.key)
    step = jax.jit(jax.value_and_grad(lambda p: jd.losses.mse(run.model.apply(p, run.task.x), run.task.y)))
    for t in range(12):
        value, grad = step(params)
        np.testing.assert_allclose(value, found.values["loss"][t], rtol=1e-7)
        params = jax.tree.map(lambda w, g, rate=found.values["rate"][t + 1]: w - rate * g, params, grad)


def test_the_guard_keeps_a_run_that_would_diverge():
    @jax.jit
    def train(ceiling):
        return jd.train(_run(64, steps=60, ratio=6.0, ceiling=ceiling))

    free, guarded = train(np.inf), train(100.0)
    assert free.diverged_at > 0
    assert guarded.diverged_at == -1
    assert guarded.final.opt_state.num_retreats > 0
    assert np.isfinite(guarded.values["loss"]).all()


def test_members_of_an_ensemble_raise_when_they_would_alone(x64):
    def run(ratio, seed):
        return _run(ratio=ratio, num=2, seed=seed)

    together = jd.sweep(run, vmap={"ratio": np.array([1.1, 1.3]), "seed": np.arange(2)})
    alone = jax.jit(lambda: jd.train(run(1.3, 1)).values)()
    for name in ("loss", "rate"):
        np.testing.assert_allclose(together[name].sel(ratio=1.3, seed=1), alone[name], rtol=1e-6)
    assert (together.rate.max("step") > together.rate.isel(step=0)).any()


def test_momentum_may_be_chained_before_it():
    rule = {
        "apply": lambda p, x: x * p,
        "x": jnp.ones((2, 1)),
        "loss": jd.losses.mse,
        "ratio": 1.2,
        "level": 0.1,
        "num": 1,
    }
    chained = optax.with_extra_args_support(optax.chain(optax.trace(0.9), jd.dynamics.catapults(0.01, **rule)))
    plain = optax.sgd(0.01, momentum=0.9)
    params, ours, theirs = jnp.ones(()), chained.init(jnp.ones(())), plain.init(jnp.ones(()))
    for grad in (1.0, -2.0):
        update, ours = chained.update(jnp.asarray(grad), ours, params, value=jnp.asarray(5.0))
        expected, theirs = plain.update(jnp.asarray(grad), theirs, params)
        np.testing.assert_allclose(update, expected, rtol=1e-6)


def _rates(values, **changes):
    """The rate of every step where the losses are given; the critical rate of f = p on two examples is 1."""
    rule = {"apply": lambda p, x: x * p, "x": jnp.ones((2, 1)), "loss": jd.losses.mse, "level": 0.1, "num": 2}
    descent = jd.dynamics.catapults(0.01, ratio=1.2, **rule | changes)
    params, state, found = jnp.ones(()), descent.init(jnp.ones(())), []
    step = jax.jit(descent.update)
    for value in values:
        _, state = step(params, state, params, value=jnp.asarray(value))
        found.append(float(state.rate))
    return found, state


@pytest.mark.parametrize("stays", [0.05, 0.5])  # the loss never rises above the level; it rises and never comes back
def test_with_patience_a_raise_ends_whether_a_catapult_came_or_not(stays):
    values = [1.0, 0.05, *[stays] * 3, *[0.05] * 2, *[0.5] * 5]
    rates, state = _rates(values, patience=3)
    np.testing.assert_allclose(rates, [0.01, *[1.2] * 3, 0.5, *[1.2] * 3, *[0.5] * 4], rtol=1e-5)
    assert state.raised_at.tolist() == [1, 5]
    assert not state.is_raised


def test_without_patience_a_raise_goes_on_until_the_next():
    rates, state = _rates([1.0, *[0.05] * 6])
    np.testing.assert_allclose(rates, [0.01, *[1.2] * 6], rtol=1e-5)
    assert state.raised_at.tolist() == [1, -1]


def test_patience_does_not_touch_catapults_that_come_in_time():
    values = [1.0, 0.05, 0.5, 0.05, 0.5]  # the second raise falls on the step at which the first would end
    rates, state = _rates(values, patience=2)
    assert rates == _rates(values)[0]
    assert state.raised_at.tolist() == [1, 3]
    assert _rates([1.0, 1.0], num=0, patience=1)[0] == [np.float32(0.01)] * 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ratio": 1.0}, "ratio"),
        ({"level": -1.0}, "level"),
        ({"num": -1}, "num"),
        ({"ceiling": 0.5}, "ceiling"),
        ({"retreat": 1.5}, "retreat"),
        ({"patience": 0}, "patience"),
        ({"loss": jd.losses.cross_entropy}, "quadratic"),
    ],
)
def test_rules_that_make_no_sense_are_refused(change, words):
    rule = {"loss": jd.losses.mse, "ratio": 1.2, "level": 0.1, "num": 1} | change
    arguments = {"apply": lambda p, x: x * p, "x": jnp.ones((2, 1))} | rule
    with pytest.raises(ValueError, match=words):
        jd.dynamics.catapults(0.1, **arguments)


def test_without_the_loss_there_is_an_error_that_says_so():
    descent = jd.dynamics.catapults(
        0.1, apply=lambda p, x: x * p, x=jnp.ones((2, 1)), loss=jd.losses.mse, ratio=1.2, level=0.1, num=1
    )
    params = jnp.ones(())
    with pytest.raises(ValueError, match="value=loss"):
        descent.update(params, descent.init(params), params)
