"""Choice, scale and code of labelled examples, against explicit loops; the digits."""

import inspect

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxdyn.tasks import classification, digits, npz

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
LABELS = np.repeat([5, 7, 9], [10, 4, 6])[RNG.permutation(20)]
X = RNG.normal(size=(20, 3)) * [1, 5, 2] + [0, 1, -3]


def by_turns(pools, num):
    """One of each pool in turn, until there are `num`."""
    pools, taken = [list(pool) for pool in pools], []
    while len(taken) < num:
        for pool in pools:
            if pool and len(taken) < num:
                taken.append(pool.pop(0))
    return taken


def expected(classes, n, n_test):
    """The training and test rows by the rule of the module's docstring."""
    pools = [np.flatnonzero(label == LABELS).tolist() for label in classes]
    train = by_turns(pools, n)
    rest = [[row for row in reversed(pool) if row not in train] for pool in pools]
    return train, by_turns(rest, n_test)


def scaled(train, test):
    """The inputs by the formula a (x − μ)."""
    centred = X[train] - X[train].mean(axis=0)
    a = 1 / np.sqrt(np.mean(np.sum(centred**2, axis=1)) / 3)
    return a * centred, a * (X[test] - X[train].mean(axis=0))


@pytest.mark.parametrize(
    ("classes", "n", "n_test"), [((5, 7, 9), 12, 8), ((5, 7, 9), 17, 3), ((9, 5), 9, 4), ((7, 9), 3, 7)]
)
def test_choice_scale_and_code_follow_the_rules(classes, n, n_test, x64):
    task = classification(X, LABELS, classes=classes, n=n, n_test=n_test)
    train, test = expected(classes, n, n_test)
    x, x_test = scaled(train, test)
    np.testing.assert_allclose(task.x, x, rtol=1e-12)
    np.testing.assert_allclose(task.x_test, x_test, rtol=1e-12)
    for y, rows in ((task.y, train), (task.y_test, test)):
        if len(classes) == 2:
            code = [[-1.0] if LABELS[row] == classes[0] else [1.0] for row in rows]
        else:
            code = [[float(LABELS[row] == label) for label in classes] for row in rows]
        np.testing.assert_array_equal(y, code)


def test_training_inputs_are_centred_with_unit_mean_square():
    task = classification(X, LABELS, classes=(5, 7, 9))
    np.testing.assert_allclose(task.x.mean(axis=0), 0, atol=1e-6)
    assert float(jnp.mean(jnp.sum(task.x**2, axis=1)) / 3) == pytest.approx(1, rel=1e-6)
    assert not np.allclose(task.x_test.mean(axis=0), 0, atol=1e-2)


def test_by_default_three_quarters_train_and_the_rest_tests():
    task = classification(X, LABELS, classes=(5, 7, 9))
    assert (len(task.x), len(task.x_test)) == (15, 5)
    task = classification(X, LABELS, classes=(5, 7, 9), n_test=2)
    assert (len(task.x), len(task.x_test)) == (15, 2)
    task = classification(X, LABELS, classes=(5, 7, 9), n_test=12)
    assert (len(task.x), len(task.x_test)) == (8, 12)
    assert classification(X, LABELS, classes=(5, 7), n=14).x_test is None
    assert classification(X, LABELS, classes=(5, 7), n=4, n_test=0).y_test is None


def test_the_classes_of_smaller_training_sets_lead_those_of_larger_ones_and_share_the_test_set():
    small, large = (digits(classes=(1, 4, 6), n=n, n_test=50) for n in (60, 240))
    np.testing.assert_array_equal(small.y, large.y[:60])
    np.testing.assert_array_equal(small.y_test, large.y_test)
    for few, many in ((small.x, large.x[:60]), (small.x_test, large.x_test)):  # equal up to the affine map
        one, other = ((x - x.mean(axis=0)) / x.std(axis=0).max() for x in (np.asarray(few), np.asarray(many)))
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_key_shuffles_and_equal_keys_agree():
    plain, one, two, again = (
        classification(X, LABELS, classes=(5, 9), n=8, key=key)
        for key in (None, KEY, jax.random.key(1), jax.random.key(0))
    )
    np.testing.assert_array_equal(one.x, again.x)
    for a, b in ((plain, one), (plain, two), (one, two)):
        assert not np.allclose(a.x, b.x)
    np.testing.assert_array_equal(one.y, plain.y)  # the classes still alternate


def test_separate_test_data_are_used_whole_with_the_scale_of_the_training_data(x64):
    x_test, labels_test = X[:7] + 1, np.array([5, 7, 9, 5, 7, 9, 5])
    task = classification(X, LABELS, classes=(5, 7), x_test=x_test, labels_test=labels_test)
    assert (len(task.x), len(task.x_test)) == (14, 5)
    train = by_turns([np.flatnonzero(label == LABELS) for label in (5, 7)], 14)
    centred = X[train] - X[train].mean(axis=0)
    expected_test = (x_test[[0, 1, 3, 4, 6]] - X[train].mean(axis=0)) / np.sqrt(np.mean(centred**2))
    np.testing.assert_allclose(task.x_test, expected_test, rtol=1e-12)
    assert len(classification(X, LABELS, classes=(5, 7), n_test=2, x_test=x_test, labels_test=labels_test).y_test) == 2


def test_inputs_can_be_given_a_shape_and_labels_can_be_names():
    names = np.array(["a", "b"])[np.arange(20) % 2]
    task = classification(np.arange(120.0).reshape(20, 2, 3), names, classes=("b", "a"), shape=(3, 2, 1))
    flat = classification(np.arange(120.0).reshape(20, 6), names, classes=("b", "a"))
    np.testing.assert_array_equal(task.x.reshape(15, 6), flat.x)
    assert task.x_test.shape == (5, 3, 2, 1)
    assert task.y[:2, 0].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": (5, 6)}, r"`classes` contains \[6\], but the data have classes 5, 7, 9"),
        ({"classes": (5, 5)}, "two or more different classes"),
        ({"classes": (5,)}, "two or more different classes"),
        ({"classes": (5, 7), "n": 15}, r"`n` is 15, but there are 14 examples \(10 of class 5, 4 of class 7\)"),
        ({"classes": (5, 7), "n": 10, "n_test": 5}, "n=10 and n_test=5 are 15 examples, but there are 14"),
        ({"classes": (5, 7), "n_test": 13}, "`n_test` is 13, which leaves 1 of 14"),
        ({"classes": (5, 7, 9), "n": 2}, "`n` must be at least 3, but is 2"),
        ({"classes": (5, 7), "n_test": -1}, "`n_test` must be at least 0"),
        ({"classes": (5, 7), "shape": (2, 2)}, r"`shape` is \(2, 2\), but one input has 3 numbers"),
        ({"classes": (5, 7), "labels_test": LABELS}, "without `x_test`"),
        ({"classes": (5, 7), "x_test": X[:, :2], "labels_test": LABELS}, r"`x_test` has shape \(2,\)"),
        ({"classes": (5, 7), "x_test": X, "labels_test": LABELS[:3]}, r"\(20, 3\) and \(3,\)"),
    ],
)
def test_requests_that_do_not_fit_are_refused_with_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        classification(X, LABELS, **arguments)


def test_data_that_cannot_be_used_are_refused():
    with pytest.raises(TypeError, match="integers or strings, but are float64"):
        classification(X, LABELS.astype(float), classes=(5, 7))
    with pytest.raises(ValueError, match="all equal"):
        classification(np.ones((20, 3)), LABELS, classes=(5, 7))
    bad = X.copy()
    bad[[3, 6], 1] = np.nan
    with pytest.raises(ValueError, match="NaN or inf in 2 of 20 examples, the first in row 3"):
        classification(bad, LABELS, classes=(5, 7))
    with pytest.raises(TypeError, match="real numbers"):
        classification(X.astype(complex), LABELS, classes=(5, 7))


def test_digits_are_balanced_centred_flat_images_with_signs():
    task = digits(classes=(3, 8), n=256)
    assert (task.x.shape, task.y.shape, task.x_test.shape, task.y_test.shape) == (
        (256, 64),
        (256, 1),
        (101, 64),
        (101, 1),
    )
    assert float(task.y.sum()) == 0
    assert float(jnp.mean(task.x**2)) == pytest.approx(1, rel=1e-5)
    assert digits(classes=range(10)).y.shape == (1347, 10)
    assert digits(classes=(0, 1), shape=(8, 8, 1)).x.shape[1:] == (8, 8, 1)


@pytest.mark.parametrize("key", [None, KEY], ids=["in order", "shuffled"])
def test_training_and_test_digits_partition_the_images_of_their_classes(key, x64):
    task = digits(classes=(3, 8), n=256, key=key)
    raw, labels = load_digits(return_X_y=True)
    raw, labels = raw[np.isin(labels, (3, 8))], labels[np.isin(labels, (3, 8))]
    probe = np.random.default_rng(0).normal(size=64)

    def fingerprint(x, y):
        standard = (x - x.mean(axis=0)) / x.std(axis=0).max()
        return np.sort((standard @ probe) + 1000 * y)

    both = np.concatenate([task.x, task.x_test])
    signs = np.concatenate([task.y, task.y_test])[:, 0]
    np.testing.assert_allclose(fingerprint(both, signs), fingerprint(raw, np.where(labels == 3, -1, 1)), atol=1e-9)


def test_digits_refuse_what_is_not_there():
    with pytest.raises(ValueError, match=r"`n` is 400, but there are 357 examples \(183 of class 3, 174 of class 8\)"):
        digits(classes=(3, 8), n=400)
    with pytest.raises(ValueError, match=r"\[11\], but the data have classes 0, 1, 2, 3"):
        digits(classes=(3, 11))


def test_a_traced_key_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match="outside the traced function"):
        jax.vmap(lambda key: digits(classes=(3, 8), key=key).x)(jax.random.split(KEY, 2))


@pytest.mark.parametrize("classes", [(0, 1), (2, 0, 1)])
def test_codes_are_those_of_their_names(classes):
    labels = np.arange(12) % 3
    x = np.random.default_rng(0).normal(size=(12, 4))
    places = {coding: classification(x, labels, classes=classes, n=6, coding=coding) for coding in ("one-hot", None)}
    hot = np.array([[float(label == one) for one in classes] for label in [*classes] * (6 // len(classes))])
    np.testing.assert_array_equal(places["one-hot"].y, hot)
    assert places[None].y.shape[1] == (1 if len(classes) == 2 else 3)
    centred = classification(x, labels, classes=classes, n=6, coding="centred one-hot").y
    np.testing.assert_allclose(centred, hot - 1 / len(classes), rtol=1e-6)
    np.testing.assert_allclose(np.sum(centred, axis=1), 0, atol=1e-6)


def test_scales_are_those_of_their_names(x64):
    labels = np.arange(20) % 2
    x = np.random.default_rng(0).normal(3, 2, size=(20, 5))
    x[:, 2] = 7
    x[0] = 0

    def task(name):
        return classification(x, labels, classes=(0, 1), n=12, n_test=8, normalise=name)

    plain = task("none")
    assert {tuple(row) for row in np.asarray(plain.x).tolist()} <= {tuple(row) for row in x.tolist()}
    train = np.asarray(plain.x)
    deviation = np.where(train.std(axis=0) == 0, np.inf, train.std(axis=0))
    for found, raw in ((task("standard").x, train), (task("standard").x_test, np.asarray(plain.x_test))):
        np.testing.assert_allclose(found, (raw - train.mean(axis=0)) / deviation, rtol=1e-12)
    for found, raw in ((task("sphere").x, train), (task("sphere").x_test, plain.x_test)):
        for one, row in zip(found, np.asarray(raw), strict=True):
            np.testing.assert_allclose(one, row * np.sqrt(5 / np.sum(row**2)) if row.any() else 0 * row, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coding": "signs"}, "`coding` is 'signs', but must be one of"),
        ({"normalise": "zscore"}, "`normalise` is 'zscore', but must be one of"),
        ({"coding": "sign", "classes": (0, 1, 2)}, '`coding` is "sign", but there are 3 classes'),
    ],
)
def test_codes_and_scales_that_are_none_are_refused(arguments, message):
    unchecked = inspect.unwrap(classification)
    with pytest.raises(ValueError, match=message):
        unchecked(np.ones((30, 2)) * np.arange(30)[:, None], np.arange(30) % 3, **{"classes": (0, 1), **arguments})


def test_pictures_of_ones_own_become_tasks_as_the_guide_says(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
    names = np.array(["cat", "dog"])[np.arange(12) % 2]
    expected = classification(pixels, names, classes=("dog", "cat"), n=8)

    for index, (picture, name) in enumerate(zip(pixels, names, strict=True)):
        (tmp_path / name).mkdir(exist_ok=True)
        matplotlib.image.imsave(tmp_path / name / f"{index:02}.png", picture)
    paths = sorted(tmp_path.glob("*/*.png"))
    x = np.stack([matplotlib.image.imread(path) for path in paths])
    folder = classification(x[..., :3], np.array([path.parent.name for path in paths]), classes=("dog", "cat"), n=8)

    hugging_face = {"image": list(pixels), "label": (np.arange(12) % 2).tolist()}
    x = np.stack([np.asarray(image) for image in hugging_face["image"]])
    columns = classification(x, np.asarray(hugging_face["label"]), classes=(1, 0), n=8)

    torchvision = [(picture, index % 2) for index, picture in enumerate(pixels)]
    x, labels = zip(*((np.asarray(image), label) for image, label in torchvision), strict=True)
    pairs = classification(x, labels, classes=(1, 0), n=8)

    np.savez(tmp_path / "own.npz", x=pixels, y=names)
    for task in (folder, columns, pairs, npz(tmp_path / "own.npz", classes=("dog", "cat"), n=8)):
        for name in ("x", "y", "x_test", "y_test"):
            np.testing.assert_allclose(getattr(task, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
