"""Label noise: its law, its reach, its independence of everything else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdyn.tasks import from_arrays, polynomial, two_clusters, with_label_noise

KEY = jax.random.key(3)


def one_hot_task(n=300, k=4):
    return from_arrays(np.ones((n, 2)), np.eye(k)[np.arange(n) % k])


def test_gaussian_noise_is_normal_with_its_deviation_and_touches_training_labels_only():
    task = polynomial(KEY, degree=2, dim=3, n=3000, n_test=20)
    noisy = with_label_noise(task, KEY, std=0.3)
    difference = np.asarray(noisy.y - task.y).ravel()
    assert scipy.stats.kstest(difference / 0.3, "norm").pvalue > 1e-4
    for name in ("x", "x_test", "y_test", "target"):
        assert getattr(noisy, name) is getattr(task, name)


def test_noise_is_independent_of_the_inputs_even_with_the_same_key():
    task = polynomial(KEY, degree=1, dim=1, n=4000, n_test=0)
    noise = np.asarray(with_label_noise(task, KEY, std=1.0).y - task.y)[:, 0]
    assert abs(np.corrcoef(noise, np.asarray(task.x)[:, 0])[0, 1]) < 4 / np.sqrt(4000)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_flips_hit_the_exact_number_of_labels(fraction):
    signs = two_clusters(KEY, n=130)
    flipped = with_label_noise(signs, KEY, flip=fraction).y
    assert int((flipped != signs.y).sum()) == round(130 * fraction)
    assert set(np.abs(np.asarray(flipped)).ravel()) == {1.0}
    classes = one_hot_task()
    flipped = np.asarray(with_label_noise(classes, KEY, flip=fraction).y)
    assert int((flipped != np.asarray(classes.y)).any(axis=1).sum()) == round(300 * fraction)
    np.testing.assert_array_equal(flipped.sum(axis=1), 1)


def test_a_wrong_class_is_uniform_among_the_others():
    task = one_hot_task(n=6000, k=4)
    wrong = np.asarray(with_label_noise(task, KEY, flip=1.0).y).argmax(axis=1)
    shift = (wrong - np.arange(6000) % 4) % 4
    assert scipy.stats.chisquare(np.bincount(shift, minlength=4)[1:]).pvalue > 1e-4
    assert (shift > 0).all()


def test_labels_hit_at_a_small_fraction_are_hit_at_a_larger_one():
    task = two_clusters(KEY, n=200)
    hits = [np.asarray(with_label_noise(task, KEY, flip=p).y != task.y) for p in (0.1, 0.4)]
    assert (hits[1] >= hits[0]).all()


def test_the_noise_of_an_example_does_not_depend_on_how_many_there_are():
    task = two_clusters(KEY, n=40)
    small = from_arrays(task.x[:10], task.y[:10])
    few, many = (with_label_noise(clean, KEY, std=1.0).y for clean in (small, task))
    np.testing.assert_allclose(few, many[:10], rtol=1e-5, atol=1e-6)


def test_noise_levels_and_keys_may_be_traced():
    task, levels = two_clusters(KEY, n=40), jnp.array([0.1, 0.5])
    for name in ("std", "flip"):
        together = jax.jit(jax.vmap(lambda level, name=name: with_label_noise(task, KEY, **{name: level}).y))(levels)
        for i in range(2):
            np.testing.assert_allclose(together[i], with_label_noise(task, KEY, **{name: levels[i]}).y, rtol=1e-6)
    keys = jax.random.split(KEY, 2)
    together = jax.vmap(lambda key: with_label_noise(task, key, flip=0.3).y)(keys)
    np.testing.assert_array_equal(together[1], with_label_noise(task, keys[1], flip=0.3).y)


def test_bad_requests_are_refused():
    task = two_clusters(KEY, n=10)
    with pytest.raises(ValueError, match="Give one of"):
        with_label_noise(task, KEY)
    with pytest.raises(ValueError, match="Give one of"):
        with_label_noise(task, KEY, std=1.0, flip=0.1)
    with pytest.raises(ValueError, match="`std` must be at least 0, but is -1"):
        with_label_noise(task, KEY, std=-1.0)
    with pytest.raises(ValueError, match=r"`flip` must be in \[0, 1\], but is 1.5"):
        with_label_noise(task, KEY, flip=1.5)
    with pytest.raises(ValueError, match="`std` must be at least 0, but is nan"):
        with_label_noise(task, KEY, std=float("nan"))
    with pytest.raises(ValueError, match="labels are neither, the first in row 0"):
        with_label_noise(polynomial(KEY, degree=2, dim=2, n=10), KEY, flip=0.1)
    with pytest.raises(ValueError, match="neither"):
        with_label_noise(from_arrays(np.ones((2, 1)), np.array([[1.0, 1.0], [1.0, 0.0]])), KEY, flip=0.1)
