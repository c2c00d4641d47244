"""Tasks as pytrees, and what `from_arrays` makes, refuses and says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdyn.tasks import Task, from_arrays
from jaxdyn.tasks._checks import count

X, Y = np.arange(12.0).reshape(6, 2), np.arange(6.0)[:, None]


def double(x):
    return 2 * x[:, :1]


def test_data_become_jax_arrays_of_the_default_type():
    for kind in (np.float64, np.float32, np.float16, np.uint8, np.int64, np.bool_):
        task = from_arrays(X.astype(kind), Y)
        assert isinstance(task.x, jax.Array)
        assert task.x.dtype == task.y.dtype == jnp.float32
        np.testing.assert_array_equal(task.x, X.astype(kind).astype(np.float32))
    assert from_arrays(X.tolist(), Y.tolist()).x.shape == (6, 2)


def test_data_become_float64_under_x64(x64):
    task = from_arrays(X.astype(np.float32), Y + 1e-12)
    assert task.x.dtype == task.y.dtype == jnp.float64
    np.testing.assert_array_equal(task.y, Y + 1e-12)


def test_inputs_may_have_any_number_of_axes_but_one():
    assert from_arrays(np.ones((3, 8, 8, 1)), np.ones((3, 2))).x.shape == (3, 8, 8, 1)
    with pytest.raises(ValueError, match=r"shape \(6,\); for scalar inputs write `x\[:, None\]`"):
        from_arrays(X[:, 0], Y)


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_targets_that_are_not_a_table_of_real_numbers_are_refused(make):
    with pytest.raises(ValueError, match=r"`y` must be \[n, k\].*shape \(6,\).*`y\[:, None\]`"):
        from_arrays(X, make(Y[:, 0]))
    with pytest.raises(ValueError, match="flatten"):
        from_arrays(X, make(Y[:, :, None]))
    with pytest.raises(TypeError, match=r"int.*one_hot.*±1"):
        from_arrays(X, make(Y.astype(np.int32)))
    with pytest.raises(TypeError, match="bool"):
        from_arrays(X, make(Y > 2))
    with pytest.raises(TypeError, match="complex"):
        from_arrays(X, make(Y.astype(np.complex64)))
    with pytest.raises(TypeError, match="real numbers"):
        from_arrays(np.asarray(X, object), make(Y))


def test_nan_and_infinity_are_counted_and_located():
    bad = X.copy()
    bad[1, 1] = bad[4, 0] = np.nan
    with pytest.raises(ValueError, match=r"`x` contains 2 of 12 values .* index \(1, 1\): nan"):
        from_arrays(bad, Y)
    bad = Y.copy()
    bad[3, 0] = np.inf
    with pytest.raises(ValueError, match=r"`y_test` contains 1 of 6 .*\(3, 0\): inf"):
        from_arrays(X, Y, x_test=X, y_test=bad)
    with pytest.raises(ValueError, match=r"not finite in float32.*1e\+300"):
        from_arrays(X, Y + 1e300)


def test_sizes_must_agree_and_not_be_zero():
    with pytest.raises(ValueError, match="`x` has 6 examples, but `y` has 5"):
        from_arrays(X, Y[:5])
    with pytest.raises(ValueError, match=r"`x` is empty: its shape is \(0, 2\)"):
        from_arrays(X[:0], Y[:0])
    with pytest.raises(ValueError, match="`y` is empty"):
        from_arrays(X, Y[:, :0])
    with pytest.raises(ValueError, match=r"`x_test` has shape \(3,\)"):
        from_arrays(X, Y, x_test=np.ones((2, 3)), y_test=Y[:2])
    with pytest.raises(ValueError, match=r"`y_test` has shape \(2,\)"):
        from_arrays(X, Y, x_test=X, y_test=np.ones((6, 2)))
    with pytest.raises(ValueError, match="`x_test` has 6 examples, but `y_test` has 4"):
        from_arrays(X, Y, x_test=X, y_test=Y[:4])


def test_test_data_come_as_a_pair_unless_the_truth_is_known():
    with pytest.raises(ValueError, match="without `x_test`"):
        from_arrays(X, Y, y_test=Y)
    with pytest.raises(ValueError, match="without `y_test`"):
        from_arrays(X, Y, x_test=X)
    task = from_arrays(X, Y, x_test=X[:3], target=double)
    np.testing.assert_array_equal(task.y_test, 2 * X[:3, :1])


def test_a_target_that_is_no_jax_function_from_x_to_y_is_refused():
    with pytest.raises(ValueError, match=r"maps `x` of shape \(6, 2\) to \(6, 2\), but `y` has shape \(6, 1\)"):
        from_arrays(X, Y, target=jnp.sin)
    with pytest.raises(TypeError, match=r"jax.numpy"):
        from_arrays(X, Y, target=lambda x: np.sin(np.asarray(x))[:, :1])


def test_a_task_is_a_pytree_whose_structure_depends_on_the_target_alone():
    a, b = (
        from_arrays(X, Y, x_test=X, y_test=Y, target=double),
        from_arrays(X + 1, Y, x_test=X, y_test=Y, target=double),
    )
    assert len(jax.tree.leaves(a)) == 4
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert hash(jax.tree.structure(a)) == hash(jax.tree.structure(b))
    assert jax.tree.structure(a) != jax.tree.structure(from_arrays(X, Y, x_test=X, y_test=Y))
    traces = []

    @jax.jit
    def score(task):
        traces.append(1)
        return jnp.abs(task.target(task.x) - task.y).sum()

    assert float(score(a)) == np.abs(2 * X[:, :1] - Y).sum()
    score(b)
    assert len(traces) == 1


def test_a_task_can_be_rebuilt_around_any_leaves():
    task = from_arrays(X, Y)
    for leaf in (None, object(), 0, "x"):
        leaves, structure = jax.tree.flatten(task)
        rebuilt = jax.tree.unflatten(structure, [leaf] * len(leaves))
        assert rebuilt.x is leaf
    assert dataclasses.replace(task, x=0).x == 0


def test_tasks_stack_and_vmap():
    tasks = [from_arrays(X * i, Y, target=double) for i in (1, 2, 3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    sums = jax.vmap(lambda task: task.target(task.x).sum())(stacked)
    np.testing.assert_allclose(sums, [2 * (X * i)[:, 0].sum() for i in (1, 2, 3)])
    halves = jax.vmap(lambda task: task.x.sum(), in_axes=(Task(0, None),))(
        dataclasses.replace(stacked, y=None, target=None)
    )
    np.testing.assert_allclose(halves, [(X * i).sum() for i in (1, 2, 3)])


def test_tracers_are_accepted_and_their_shapes_checked():
    task = jax.jit(lambda x, y: from_arrays(x, y))(X * np.nan, Y)
    assert np.isnan(task.x).all()
    with pytest.raises(ValueError, match=r"`y\[:, None\]`"):
        jax.jit(lambda x, y: from_arrays(x, y))(X, Y[:, 0])
    with pytest.raises(TypeError, match="int32"):
        jax.vmap(lambda y: from_arrays(X, y))(jnp.ones((3, 6, 1), jnp.int32))


def test_counts_are_positive_integers_known_when_tracing():
    assert count("n", np.int64(3)) == 3
    with pytest.raises(ValueError, match="`n` must be at least 1, but is 0"):
        count("n", 0)
    for bad in (2.0, "2", True, None):
        with pytest.raises(TypeError, match="`n` must be an integer"):
            count("n", bad)
    with pytest.raises(TypeError, match="`loop=`"):
        jax.jit(lambda n: count("n", n))(3)
