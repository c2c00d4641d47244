"""Samplers: each epoch a permutation, uniform, stateless, the same in every execution mode, and cheap."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxdyn.tasks import from_arrays, full_batch, minibatch
from jaxdyn.tasks.sampling import locate

KEY = jax.random.key(0)
LEAST_P = 1e-4  # of every test of uniformity; keys and sizes were fixed before the first run


def task_of(n):
    return from_arrays(jnp.arange(float(n))[:, None], -jnp.arange(float(n))[:, None])


def stream(n, b, steps, key=KEY):
    """The indices of the steps, one after the other."""
    draw = jax.jit(jax.vmap(lambda step: minibatch(b).indices(key, step, num_examples=n)))
    return np.asarray(draw(jnp.asarray(steps))).ravel()


def epochs(n, num, b=None, key=KEY):
    """The permutations of `num` epochs, [num, n]."""
    return stream(n, b or n, range(num * n // (b or n)), key).reshape(num, n)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(n=st.integers(1, 400), part=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
@example(n=1, part=1.0, seed=0)
@example(n=2, part=0.0, seed=1)
@example(n=256, part=0.125, seed=2)
@example(n=257, part=1.0, seed=3)
def test_every_epoch_visits_each_example_exactly_once(n, part, seed):
    b = max(1, round(part * n))
    num = 3
    places = stream(n, b, range(-(-num * n // b)), jax.random.key(seed))
    for epoch in range(num):
        np.testing.assert_array_equal(np.sort(places[epoch * n : (epoch + 1) * n]), np.arange(n))


def test_an_epoch_of_sixty_thousand_examples_is_a_permutation():
    np.testing.assert_array_equal(np.sort(stream(60_000, 128, range(469))[:60_000]), np.arange(60_000))


def test_the_stream_of_examples_does_not_depend_on_the_batch_size():
    whole = epochs(60, 4)
    for b in (1, 7, 12, 60):
        np.testing.assert_array_equal(stream(60, b, range(240 // b)), whole.ravel()[: 240 // b * b])


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_permutations_of_a_few_examples_are_equally_frequent(n):
    code = epochs(n, 60_000) @ (n ** np.arange(n))
    _, counts = np.unique(code, return_counts=True)
    assert len(counts) == np.prod(np.arange(1, n + 1))
    assert scipy.stats.chisquare(counts).pvalue > LEAST_P


@pytest.mark.parametrize("n", [10, 97, 1000])
def test_each_place_holds_each_example_equally_often(n):
    num = 400 * 1000 // n
    orders = epochs(n, num)
    for place in (0, 1, n // 2, n - 1):
        assert scipy.stats.chisquare(np.bincount(orders[:, place], minlength=n)).pvalue > LEAST_P
    steps = (orders[:, 1:] - orders[:, :-1]) % n  # of neighbours: uniform on 1, …, n − 1
    assert scipy.stats.chisquare(np.bincount(steps.ravel(), minlength=n)[1:]).pvalue > LEAST_P / 10
    fixed = (orders == np.arange(n)).sum(axis=1)  # nearly Poisson(1)
    assert abs(fixed.mean() - 1) < 5 / np.sqrt(num)
    ascents = (orders[:, 1:] > orders[:, :-1]).sum(axis=1)  # mean (n − 1)/2, variance (n + 1)/12
    assert abs(ascents.mean() - (n - 1) / 2) < 5 * np.sqrt((n + 1) / 12 / num)


def test_the_order_of_a_key_is_that_of_earlier_versions():
    """Written down on 2026-11-27: a store that is resumed or grown by a later version needs the same batches."""
    assert epochs(8, 2, key=jax.random.key(0)).tolist() == [[7, 0, 1, 6, 3, 2, 5, 4], [0, 4, 7, 2, 5, 1, 3, 6]]


def test_successive_epochs_and_different_keys_are_independent():
    orders = epochs(6, 20_000)
    pairs = orders[:-1, 0] * 6 + orders[1:, 0]
    assert scipy.stats.chisquare(np.bincount(pairs, minlength=36)).pvalue > LEAST_P
    keys = jax.random.split(KEY, 20_000)
    first = np.asarray(jax.jit(jax.vmap(lambda key: minibatch(6).indices(key, 0, num_examples=6)))(keys))
    assert scipy.stats.chisquare(np.bincount(first[:-1, 0] * 6 + first[1:, 0], minlength=36)).pvalue > LEAST_P
    assert not np.array_equal(*epochs(50, 2))


def test_draws_with_replacement_are_independent_and_uniform():
    draw = jax.jit(jax.vmap(lambda step: minibatch(3, replace=True).indices(KEY, step, num_examples=5)))
    code = np.asarray(draw(jnp.arange(25_000))) @ np.array([1, 5, 25])
    assert scipy.stats.chisquare(np.bincount(code, minlength=125)).pvalue > LEAST_P
    assert minibatch(12, replace=True)(task_of(5), KEY, 0)[0].shape == (12, 1)


@pytest.mark.parametrize("replace", [False, True])
def test_a_batch_is_a_function_of_key_and_step_alone(replace):
    sampler, task = minibatch(7, replace=replace), task_of(20)
    alone = [sampler(task, KEY, step)[0] for step in range(9)]
    step_by_step = jax.jit(
        lambda start: jax.lax.scan(lambda t, _: (t + 1, sampler(task, KEY, t)[0]), start, length=9)[1]
    )
    np.testing.assert_array_equal(step_by_step(0), alone)
    np.testing.assert_array_equal(step_by_step(5)[:4], alone[5:])  # a run resumed at step 5


@pytest.mark.parametrize("replace", [False, True])
def test_members_under_vmap_see_the_batches_they_see_alone(replace):
    sampler, task, keys = minibatch(7, replace=replace), task_of(20), jax.random.split(KEY, 4)
    together = jax.jit(jax.vmap(lambda key: sampler(task, key, 11)[0]))(keys)
    np.testing.assert_array_equal(together, [sampler(task, key, 11)[0] for key in keys])
    assert len({tuple(batch) for batch in np.asarray(together)[:, :, 0].tolist()}) == 4


def test_batches_are_the_same_in_double_precision():
    single = stream(50, 8, range(10))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(stream(50, 8, range(10)), single)


def test_inputs_and_targets_of_a_batch_belong_together():
    x, y = minibatch(7)(task_of(20), KEY, 5)
    np.testing.assert_array_equal(x, -y)
    np.testing.assert_array_equal(x[:, 0], minibatch(7).indices(KEY, 5, num_examples=20))


def test_full_batch_is_all_the_data_in_order():
    task = task_of(9)
    x, y = full_batch(task, KEY, 123)
    assert x is task.x
    assert y is task.y


@settings(max_examples=150, deadline=None, derandomize=True)
@given(n=st.integers(1, 2**31 - 1), part=st.floats(0, 1), step=st.integers(0, 2**31 - 1))
@example(n=60_000, part=0.6, step=2**31 - 1)
@example(n=2**31 - 1, part=1.0, step=2**31 - 1)
def test_the_place_of_a_step_is_exact_for_two_to_the_31_steps(n, part, step):
    b = min(n, max(1, round(part * n)))
    epoch, place = locate(jnp.int32(step), batch_size=b, num_examples=n)
    assert (int(epoch), int(place)) == divmod(step * b, n)


def test_the_last_step_still_walks_a_permutation():
    last = 2**31 - 1  # 7 steps of 3 are 3 epochs of 7; begin at a multiple of 7
    begin = last // 7 * 7 - 7
    for epoch in stream(7, 3, range(begin, begin + 7)).reshape(3, 7):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(7))


def test_samplers_with_equal_settings_are_equal_and_hashable():
    assert minibatch(4) == minibatch(4)
    assert len({minibatch(4), minibatch(4), minibatch(5), minibatch(4, replace=True)}) == 3


def test_batches_that_do_not_fit_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, but is 0"):
        minibatch(0)
    with pytest.raises(ValueError, match=r"`batch_size` is 21, but the task has 20 .*full_batch"):
        minibatch(21)(task_of(20), KEY, 0)


def sizes(jaxpr):
    """Sizes and primitives of all equations, of inner programmes too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, max(variable.aval.size for variable in equation.outvars)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None:
                yield from sizes(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("b", [16, 17])
def test_a_step_costs_memory_and_work_in_proportion_to_the_batch(b):
    jaxpr = jax.make_jaxpr(lambda key, step: minibatch(b).indices(key, step, num_examples=2**20))(KEY, 0)
    names, largest = zip(*sizes(jaxpr.jaxpr), strict=True)
    assert max(largest) <= 64  # 32 rounds; the data have 2^20 examples
    assert not {"sort", "while", "cond"} & set(names)
    assert len(names) < 2500


def test_a_minibatch_is_several_times_cheaper_than_a_choice_without_replacement():
    n, b, steps = 1000, 32, 200

    def seconds(indices):
        total = jax.jit(lambda key: jax.lax.fori_loop(0, steps, lambda t, s: s + indices(key, t).sum(), jnp.int32(0)))
        total(KEY).block_until_ready()
        times = []
        for _ in range(7):
            begin = time.perf_counter()
            total(KEY).block_until_ready()
            times.append(time.perf_counter() - begin)
        return min(times) / steps

    ours = seconds(lambda key, t: minibatch(b).indices(key, t, num_examples=n))
    choice = seconds(lambda key, t: jax.random.choice(jax.random.fold_in(key, t), n, (b,), replace=False))
    assert ours < choice / 5  # measured: 1/25 to 1/100
