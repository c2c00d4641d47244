"""When to look: schedules of record times.

A record time counts completed steps: 0 is the anchor, `steps` the end. A schedule is turned into times when the number
of steps is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int


@runtime_checkable
class Schedule(Protocol):
    """A rule that gives the record times of a run of `steps` steps, sorted and distinct, in [0, steps]."""

    def times(self, steps: int) -> Int[np.ndarray, " t"]:
        """The record times of a run of that length."""
        ...


@dataclass(frozen=True)
class Every:
    """Every k-th step, the anchor and the end."""

    k: int

    def times(self, steps: int) -> Int[np.ndarray, " t"]:
        """0, k, 2k, … and `steps`."""
        return np.union1d(np.arange(0, steps + 1, self.k), [steps]).astype(np.int32)


@dataclass(frozen=True)
class LogSpaced:
    """`num` times with nearly equal ratios, the anchor and the end among them."""

    num: int

    def times(self, steps: int) -> Int[np.ndarray, " t"]:
        """0, 1, …, `steps`: min(num, steps + 1) distinct times, whose ratios are equal as soon as integers allow."""
        num = min(self.num, steps + 1)
        times = [0, 1][: min(num, 2)]
        while len(times) < num:
            remaining = num - len(times)
            ratio = (steps / times[-1]) ** (1 / remaining)
            times.append(max(times[-1] + 1, round(times[-1] * ratio)))
        times[-1] = steps
        return np.asarray(times, np.int32)


@dataclass(frozen=True)
class At:
    """The times that were asked for."""

    at: tuple[int, ...]

    def times(self, steps: int) -> Int[np.ndarray, " t"]:
        """The times themselves.

        Raises:
            ValueError: where one lies beyond the run.
        """
        beyond = [time for time in self.at if time > steps]
        if beyond:
            raise ValueError(
                f"Argument `at` must be sorted steps in [0, steps={steps}], but contains {beyond[0]}; raise `steps` or "
                "shorten the schedule."
            )
        return np.asarray(self.at, np.int32)


def every(k: int) -> Every:
    """Record every k-th step, the anchor (0) and the end (`steps`) included.

    Raises:
        ValueError: unless k is a whole number of at least 1.

    Example:
        >>> every(4).times(10).tolist()
        [0, 4, 8, 10]
    """
    return Every(_count(k, "every"))


def log_spaced(num: int) -> LogSpaced:
    """Record at `num` times of nearly equal ratios, the anchor (0) and the end (`steps`) included.

    Fewer where the run has fewer than `num` - 1 steps.

    Raises:
        ValueError: unless `num` is a whole number of at least 2.

    Example:
        >>> log_spaced(6).times(1000).tolist()
        [0, 1, 6, 33, 182, 1000]
    """
    if _count(num, "log_spaced") < 2:
        raise ValueError(f"`log_spaced` records at least the anchor and the end: num >= 2, but got {num}.")
    return LogSpaced(int(num))


def at(times: Sequence[int]) -> At:
    """Record at the given numbers of completed steps.

    Raises:
        ValueError: for an empty, unsorted, repeated, negative or fractional time.

    Example:
        >>> at([0, 10, 100]).times(100).tolist()
        [0, 10, 100]
    """
    array = np.asarray(times)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"Argument `at` must be a non-empty list of steps, but is {times!r}.")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"Argument `at` must be whole numbers of steps, but is {times!r}.")
    if array[0] < 0 or (np.diff(array) <= 0).any():
        raise ValueError(
            f"Argument `at` must be sorted, distinct steps of at least 0, but is {array.tolist()}; sort it."
        )
    return At(tuple(array.tolist()))


def _count(value: int, name: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:
        raise ValueError(f"`{name}` takes a whole number of at least 1, but got {value!r}.")
    return int(value)
