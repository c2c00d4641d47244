"""The level of the intervals of `analysis`: 95 %, unless a `with significance(alpha)` says otherwise.

Every function here that turns a sample into an interval asks `tail()` what is to lie beyond each of its ends, so that what an
experiment measures needs no argument for it. `analysis.looks` gives the level of each of several looks at growing data.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

ALPHA = 0.05
"""Two-sided error of an interval, unless told otherwise."""

BEYOND = 25
"""Resamples that must lie beyond each end of a bootstrap interval."""

MOST = 20_000
"""Resamples that an interval may take."""

_alpha: ContextVar[float] = ContextVar("alpha", default=ALPHA)


@contextmanager
def significance(alpha: float) -> Iterator[None]:
    """Within this context, intervals have the level 1 − alpha.

    Args:
        alpha: probability that an interval misses, half of it beyond each end.

    Raises:
        ValueError: for an alpha that is not between 0 and 1.

    Example:
        >>> with significance(0.2):
        ...     tail()
        0.1
    """
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` is the probability that an interval misses, between 0 and 1, but is {alpha}.")
    token = _alpha.set(float(alpha))
    try:
        yield
    finally:
        _alpha.reset(token)


def tail() -> float:
    """What is to lie beyond each end of an interval: alpha/2."""
    return _alpha.get() / 2


def resamples(asked: int) -> int | None:
    """How many bootstrap resamples an interval takes: those asked for, more where an end needs them; None where it needs too many."""
    needed = int(-(-BEYOND // tail()))
    return max(asked, needed) if needed <= MOST else None


def student(degrees: int) -> float:
    """The quantile of Student's t that `tail()` lies beyond."""
    from scipy.special import stdtrit

    beyond = tail()
    return float(stdtrit(degrees, 1 - beyond) if beyond > 1e-6 else -stdtrit(degrees, beyond))
