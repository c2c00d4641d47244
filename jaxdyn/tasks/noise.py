"""Noise on the training labels of a task; the test labels and the known truth stay as they are.

Each kind of noise draws from a stream of its own, row by row: the noise of an example depends on the key and on its
place, not on how many examples there are (threefry keys) nor on any network.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Num

from jaxdyn._typing import Key
from jaxdyn.tasks._checks import concrete
from jaxdyn.tasks._draws import normal_rows, uniform_rows
from jaxdyn.tasks.base import Task

_GAUSSIAN, _FLIP, _CLASS = 0x67617573, 0x666C6970, 0x636C6173  # purposes of the streams


def with_label_noise(
    task: Task, key: Key, *, std: Num[ArrayLike, ""] | None = None, flip: Num[ArrayLike, ""] | None = None
) -> Task:
    """The task with noise on its training labels: Gaussian (`std`) or wrong classes (`flip`), one of the two.

    * `std`: y + std · N(0, 1), independently for every example and output.
    * `flip`: round(flip · n) training labels become wrong. ±1 as [n, 1] changes its sign; a one-hot row moves to one of
      the other k − 1 classes, uniformly. Which examples are hit is random; those hit at a smaller fraction are among
      those hit at a larger one with the same key.

    Args:
        task: the clean task.
        key: randomness of the noise.
        std: standard deviation, in units of y, at least 0; it may be traced.
        flip: fraction of wrong labels, in [0, 1]; it may be traced.

    Returns:
        A task with other `y`, all else unchanged.

    Raises:
        ValueError: when not exactly one of `std` and `flip` is given, or one is out of range, or `flip` meets labels
            that are neither ±1 nor one-hot.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxdyn.tasks import from_arrays
        >>> task = from_arrays(jnp.ones((8, 1)), jnp.ones((8, 1)))
        >>> noisy = with_label_noise(task, jax.random.key(0), flip=0.25)
        >>> int((noisy.y == -1).sum())
        2
    """
    if (std is None) == (flip is None):
        raise ValueError(
            f"Give one of `std` (Gaussian noise) and `flip` (wrong classes), but std={std} and flip={flip}."
        )
    if std is not None:
        _in_range("std", std, np.inf)
        noise = normal_rows(jax.random.fold_in(key, _GAUSSIAN), *task.y.shape).astype(task.y.dtype)
        return dataclasses.replace(task, y=task.y + std * noise)
    _in_range("flip", flip, 1.0)
    _are_classes(task.y)
    return dataclasses.replace(task, y=_flipped(task.y, key, jnp.asarray(flip)))


def _flipped(y: Float[Array, "n k"], key: Key, fraction: Num[Array, ""]) -> Float[Array, "n k"]:
    n, k = y.shape
    lots = uniform_rows(jax.random.fold_in(key, _FLIP), n, 1)[:, 0]  # [n]
    rank = jnp.argsort(jnp.argsort(lots))  # the examples with the smallest lots are hit
    is_hit = (rank < jnp.round(fraction * n))[:, None]  # [n, 1]
    if k == 1:
        return jnp.where(is_hit, -y, y)
    draw = uniform_rows(jax.random.fold_in(key, _CLASS), n, 1)[:, 0]  # [n]
    shift = 1 + jnp.minimum((draw * (k - 1)).astype(jnp.int32), k - 2)  # uniform on 1, …, k − 1
    wrong = jax.nn.one_hot((jnp.argmax(y, axis=1) + shift) % k, k, dtype=y.dtype)  # [n, k]
    return jnp.where(is_hit, wrong, y)


def _in_range(name: str, value: Any, maximum: float) -> None:
    known = concrete(value)
    if known is not None and not (0 <= known <= maximum and np.isfinite(known)):
        bound = "at least 0" if maximum == np.inf else f"in [0, {maximum:g}]"
        raise ValueError(f"`{name}` must be {bound}, but is {known}.")


def _are_classes(y: Any) -> None:
    """An error unless the labels are ±1 as [n, 1] or one-hot rows; nothing is known of a tracer."""
    known = concrete(y)
    if known is None:
        return
    is_sign = known.shape[1] == 1
    one_hot_faults = ((known != 0) & (known != 1)).any(axis=1) | (known.sum(axis=1) != 1)
    wrong = np.abs(known[:, 0]) != 1 if is_sign else one_hot_faults
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"`flip` needs labels ±1 as [n, 1] or one-hot rows, but {int(wrong.sum())} of {len(known)} labels are "
            f"neither, the first in row {first}: {known[first].tolist()}; use `std` for real-valued targets."
        )
