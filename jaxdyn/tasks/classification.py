"""From labelled examples to a task: which examples, which scale, which code for the classes.

This is the one home of the conventions that all real data share:

* **Choice.** Training examples are taken class by class in turn from the front of each class, test examples likewise
  from the back of what is left, so that classes are balanced as far as the data allow, training and test sets are
  disjoint, the examples of a smaller n are the leading ones of a larger n, and the test set does not depend on n while
  the data suffice. Without a key the order is that of the data; with one they are shuffled first.
* **Scale**, `normalise`. μ, σ and a are those of the training set, and test inputs get the same map:

  | name | map |
  |---|---|
  | `"centred"` (default) | a (x − μ), with the mean μ of each feature and one number a: the mean of ‖x‖²/d is 1 |
  | `"standard"` | (x − μ)/σ feature by feature; those that never vary stay 0 |
  | `"sphere"` | √d x/‖x‖ example by example: ‖x‖² = d; an input that is 0 stays 0 |
  | `"none"` | x |

* **Code**, `coding`, in the order in which the classes are given:

  | name | y |
  |---|---|
  | `"sign"` (default for two classes) | −1 for the first and +1 for the second, [n, 1] |
  | `"one-hot"` (default for more) | one-hot, [n, k] |
  | `"centred one-hot"` | one-hot less 1/k, [n, k] |

All of it runs on the host, in NumPy, once; a task of real data is made outside `jit` and `vmap`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn._typing import Key
from jaxdyn.tasks._checks import concrete, count
from jaxdyn.tasks.base import Task, from_arrays

Coding = Literal["sign", "one-hot", "centred one-hot"]
Scale = Literal["centred", "standard", "sphere", "none"]


def classification(
    x: Any,
    labels: Any,
    *,
    classes: Sequence[int | str],
    n: int | None = None,
    n_test: int | None = None,
    key: Key | None = None,
    x_test: Any = None,
    labels_test: Any = None,
    coding: Coding | None = None,
    normalise: Scale = "centred",
    shape: Sequence[int] | None = None,
) -> Task:
    """A task from labelled examples, by the conventions of this module.

    Args:
        x: examples, [N, *d], of any real type.
        labels: the class of each, [N], integers or strings.
        classes: the classes to learn, at least two, in the order of their code.
        n: training examples, at least one a class. Default: three quarters of the examples of these classes, less if
            `n_test` asks for more than the rest; all of them where there are separate test data.
        n_test: test examples; 0 for none. Default: all that remain.
        key: shuffles the data before the choice. Default: the order of the data.
        x_test: separate test data, [N', *d]; `x` then serves for training alone.
        labels_test: the class of each, [N'].
        coding: code of the classes: `"sign"`, `"one-hot"` or `"centred one-hot"`. Default: signs for two, one-hot for more.
        normalise: scale of the inputs: `"centred"`, `"standard"`, `"sphere"` or `"none"`.
        shape: shape of one input of the task, such as (28, 28, 1) for convolutions. Default: flat, (d,).

    Returns:
        A task with `x` [n, *shape] and `y` [n, 1] or [n, k].

    Raises:
        ValueError: for an unknown or repeated class, too few examples, or arrays that do not fit.
        TypeError: for labels that are not integers or strings, or a traced key.

    Example:
        >>> import numpy as np
        >>> x, labels = np.random.default_rng(0).normal(size=(90, 5)), np.arange(90) % 3
        >>> task = classification(x, labels, classes=(0, 2), n=40)
        >>> task.x.shape, task.y.shape, task.x_test.shape, task.y[:2, 0].tolist()
        ((40, 5), (40, 1), (20, 5), [-1.0, 1.0])
    """
    x, labels = _labelled("x", x, "labels", labels)
    read_test = None
    if x_test is not None:
        x_test, labels_test = _labelled("x_test", x_test, "labels_test", labels_test)
        if x_test.shape[1:] != x.shape[1:]:
            raise ValueError(f"One example of `x_test` has shape {x_test.shape[1:]}, but one of `x` has {x.shape[1:]}.")
        read_test = x_test.__getitem__
    elif labels_test is not None:
        raise ValueError("`labels_test` is given without `x_test`; give both or neither.")
    choice: Any = {"n": n, "n_test": n_test, "key": key, "coding": coding, "normalise": normalise, "shape": shape}
    return from_labels(x.__getitem__, labels, classes=classes, read_test=read_test, labels_test=labels_test, **choice)


def from_labels(
    read: Callable[[Any], Any],
    labels: Any,
    *,
    classes: Sequence[int | str],
    n: int | None,
    n_test: int | None,
    key: Key | None,
    read_test: Callable[[Any], Any] | None = None,
    labels_test: Any = None,
    coding: str | None,
    normalise: str,
    shape: Sequence[int] | None,
) -> Task:
    """`classification` of examples that are read once they are chosen.

    `read` gives the examples [n, *d] of places [n] in `labels`, and `read_test` those of places in `labels_test`, where there are
    separate test data. Labels are NumPy arrays of integers or strings; all else is as in `classification`.
    """
    classes = list(classes)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"`classes` must be two or more different classes, but is {tuple(classes)}.")
    for name, value, known in (
        ("coding", coding, (None, *get_args(Coding))),
        ("normalise", normalise, get_args(Scale)),
    ):
        if value not in known:
            raise ValueError(f"`{name}` is {value!r}, but must be one of {known}.")
    words = _seed(key)
    pools = _pools(labels, classes, None if words is None else np.random.default_rng([*words, 0]))
    if read_test is None:
        train, test = _split(pools, n, n_test, classes)
        read_test, labels_test = read, labels
    else:
        test_pools = _pools(labels_test, classes, None if words is None else np.random.default_rng([*words, 1]))
        train = _chosen(pools, n, classes, name="n", minimum=len(classes))
        test = _chosen(test_pools, n_test, classes, name="n_test", minimum=0)
    x = read(train)
    x_test = read_test(test) if len(test) else x[:0]
    inputs, inputs_test = _scaled(x, x_test, normalise, shape)
    y, y_test = (_coded(values, classes, coding) for values in (labels[train], labels_test[test]))
    return from_arrays(inputs, y, x_test=inputs_test, y_test=y_test) if len(test) else from_arrays(inputs, y)


def name_to_number(classes: Sequence[int | str], names: Any, *, first: int = 0) -> Sequence[int | str]:
    """Names of classes replaced by their numbers, which count from `first`, where there are names."""
    if names is None:
        return classes
    listed = [str(name) for name in names]
    unknown = [name for name in classes if isinstance(name, str) and name not in listed]
    if unknown:
        raise ValueError(f"`classes` contains {unknown}, but the classes are called {listed}.")
    return [listed.index(name) + first if isinstance(name, str) else name for name in classes]


def _labelled(name_x: str, x: Any, name_labels: str, labels: Any) -> tuple[Any, Any]:
    """Both as NumPy arrays that fit."""
    x, labels = np.asarray(x), np.asarray(labels)
    if labels.ndim != 1 or x.ndim < 2 or len(x) != len(labels):
        raise ValueError(
            f"`{name_x}` must be [n, *d] and `{name_labels}` [n], but their shapes are {x.shape} and {labels.shape}."
        )
    if labels.dtype.kind not in "iuU":
        raise TypeError(
            f"`{name_labels}` must be integers or strings, but are {labels.dtype}; for real-valued targets use "
            "`from_arrays`."
        )
    if x.dtype.kind not in "iufb":
        raise TypeError(f"`{name_x}` must hold real numbers, but its type is {x.dtype}.")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        rows = ~np.isfinite(x.reshape(len(x), -1)).all(axis=1)
        raise ValueError(
            f"`{name_x}` contains NaN or inf in {int(rows.sum())} of {len(x)} examples, the first in row "
            f"{int(np.argmax(rows))}; remove those examples or mend the data."
        )
    return x, labels


def _seed(key: Key | None) -> list[int] | None:
    """The words of a key, as a seed of NumPy's generator."""
    if key is None:
        return None
    words = concrete(jax.random.key_data(key))
    if words is None:
        raise TypeError(
            "Real data are chosen on the host, but `key` is traced here (inside `jit` or `vmap`); make the task "
            "outside the traced function, one for each key."
        )
    return [int(word) for word in words.ravel()]


def _pools(labels: Any, classes: list[int | str], generator: np.random.Generator | None) -> list[Any]:
    """The places of each class, in the order of choice."""
    order = np.arange(len(labels)) if generator is None else generator.permutation(len(labels))
    known = np.unique(labels).tolist()
    unknown = [label for label in classes if label not in known]
    if unknown:
        shown = ", ".join(map(str, known[:20])) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        raise ValueError(f"`classes` contains {unknown}, but the data have classes {shown}.")
    return [order[labels[order] == label] for label in classes]


def _split(pools: list[Any], n: int | None, n_test: int | None, classes: list[int | str]) -> tuple[Any, Any]:
    """Disjoint training and test places from one set of data."""
    total = sum(map(len, pools))
    if n_test is not None:
        n_test = count("n_test", n_test, minimum=0)
    if n is None:
        n = 3 * total // 4 if n_test is None else min(3 * total // 4, total - n_test)
        if n < len(classes):
            raise ValueError(f"`n_test` is {n_test}, which leaves {n} of {_available(pools, classes)} to train on.")
    train = _chosen(pools, n, classes, name="n", minimum=len(classes))
    rest = [pool[~np.isin(pool, train)][::-1] for pool in pools]
    if n_test is not None and n + n_test > total:
        raise ValueError(
            f"n={n} and n_test={n_test} are {n + n_test} examples, but there are {_available(pools, classes)}."
        )
    return train, _chosen(rest, n_test, classes, name="n_test", minimum=0)


def _chosen(pools: list[Any], num: int | None, classes: list[int | str], *, name: str, minimum: int) -> Any:
    """The first `num` places, one of each class in turn; all of them without `num`."""
    rank = np.concatenate([np.arange(len(pool)) for pool in pools])
    turn = np.concatenate([np.full(len(pool), i) for i, pool in enumerate(pools)])
    order = np.concatenate(pools)[np.lexsort((turn, rank))]
    if num is None:
        return order
    num = count(name, num, minimum=minimum)
    if num > len(order):
        raise ValueError(f"`{name}` is {num}, but there are {_available(pools, classes)}.")
    return order[:num]


def _available(pools: list[Any], classes: list[int | str]) -> str:
    each = ", ".join(f"{len(pool)} of class {label}" for pool, label in zip(pools, classes, strict=True))
    return f"{sum(map(len, pools))} examples ({each})"


def _scaled(x: Any, x_test: Any, normalise: str, shape: Sequence[int] | None) -> tuple[Any, Any]:
    """Both by the map of the first, whose statistics are computed in double precision, and reshaped."""
    d = math.prod(x.shape[1:])
    shape = (d,) if shape is None else tuple(shape)
    if math.prod(shape) != d or min(shape, default=0) < 1:
        raise ValueError(f"`shape` is {shape}, but one input has {d} numbers, of shape {x.shape[1:]}.")
    dtype = jnp.result_type(float)
    flat, flat_test = (array.reshape(len(array), d).astype(dtype) for array in (x, x_test))
    scaled: tuple[Any, Any] = flat, flat_test
    if normalise == "sphere":
        scaled = _on_sphere(flat), _on_sphere(flat_test)
    elif normalise != "none":
        mean = flat.mean(axis=0, dtype=np.float64)
        flat, flat_test = flat - mean.astype(dtype), flat_test - mean.astype(dtype)
        scale = np.sqrt(np.mean(np.square(flat), axis=0 if normalise == "standard" else None, dtype=np.float64))
        if not scale.any():
            raise ValueError(
                f"The {len(x)} training inputs are all equal, so that they have no scale; take more of them."
            )
        scale = np.where(scale == 0, np.inf, scale).astype(dtype)
        scaled = flat / scale, flat_test / scale
    return scaled[0].reshape(-1, *shape), scaled[1].reshape(-1, *shape)


def _on_sphere(x: Any) -> Any:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return math.sqrt(x.shape[1]) * x / np.where(norms == 0, 1, norms)


def _coded(labels: Any, classes: list[int | str], coding: str | None) -> Any:
    if coding == "sign" and len(classes) != 2:
        raise ValueError(f'`coding` is "sign", but there are {len(classes)} classes; take two, or "one-hot".')
    if coding == "sign" or (coding is None and len(classes) == 2):
        return np.where(labels == classes[0], -1.0, 1.0)[:, None]
    hot = (labels[:, None] == np.asarray(classes)[None, :]).astype(np.float64)
    return hot - 1 / len(classes) if coding == "centred one-hot" else hot
