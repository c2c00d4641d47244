"""Estimates: a number, its 95 % interval and what a reader must know of it; how several members, cases or rates become one.

| function | what it gives |
|---|---|
| `estimate` | a number that is exact, a triple or a fit, as an `Estimate` |
| `mean`, `geometric_mean` | over members, with `scaling.mean_interval`; members that are not finite are left out and counted |
| `share` | of trials that succeed, with the Clopper-Pearson interval: never without a width |
| `worst` | of several intervals, the one whose end lies farthest on the wrong side |
| `enclosing` | one interval that holds several |
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdyn.analysis import levels
from jaxdyn.analysis.scaling import PowerLaw, mean_interval


class Estimate(NamedTuple):
    """A number and its 95 % interval.

    Attributes:
        value: the number; NaN where it could not be measured.
        low: lower end; the number itself where it is exact.
        high: upper end.
        note: what a reader must know, such as members left out.
    """

    value: float
    low: float
    high: float
    note: str = ""


def estimate(found: Any, note: str = "") -> Estimate:
    """What was measured, as an estimate.

    Args:
        found: an `Estimate`, `(value, low, high)`, a `PowerLaw` (its exponent), or one number, which is exact.
        note: put behind the estimate's own.

    Example:
        >>> estimate(0.5), estimate((0.5, 0.4, 0.6), "worst of 3")
        (Estimate(value=0.5, low=0.5, high=0.5, note=''), Estimate(value=0.5, low=0.4, high=0.6, note='worst of 3'))
    """
    own = found.note if isinstance(found, Estimate) else ""
    if isinstance(found, PowerLaw):
        own = f"{found.fitted.num_excluded} {found.fitted.over}s left out" if found.fitted.num_excluded else ""
        found = (found.exponent, found.low, found.high)
    is_one = not isinstance(found, Iterable) or getattr(found, "ndim", 1) == 0
    value, low, high = (found,) * 3 if is_one else tuple(found)[:3]
    return Estimate(float(value), float(low), float(high), "; ".join(filter(None, (own, note))))


def mean(sample: Any) -> Estimate:
    """The mean over members and its 95 % interval; members that are not finite are left out, and the note counts them.

    Args:
        sample: one number a member, [s].

    Returns:
        NaN where fewer than two members are left.

    Example:
        >>> mean([1.0, 2.0, 3.0, np.nan]).note
        '1 of 4 seeds left out'
    """
    values = np.asarray(sample, float)
    kept = values[np.isfinite(values)]
    ends = mean_interval(kept) if len(kept) >= 2 else (np.nan,) * 3
    return estimate(
        ends, "" if len(kept) == len(values) else f"{len(values) - len(kept)} of {len(values)} seeds left out"
    )


def geometric_mean(sample: Any) -> Estimate:
    """The geometric mean over members, likewise: exp of the mean of logarithms and of its ends.

    Example:
        >>> round(geometric_mean([1.0, 4.0, 2.0]).value, 6)
        2.0
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        found = mean(np.log(np.asarray(sample)))
    return estimate(np.exp(found[:3]), found.note)


def share(successes: Any, trials: Any = None) -> Estimate:
    """The share of independent trials that succeed, with the exact (Clopper-Pearson) 95 % interval; the note counts them.

    Args:
        successes: their number, or one boolean a trial, [s].
        trials: their number; left out where `successes` are booleans.

    Returns:
        NaN where there are no trials.

    Raises:
        ValueError: for counts that are none, or more successes than trials.

    Example:
        >>> found = share([True] * 8)
        >>> found.value, round(found.low, 3), found.high, found.note
        (1.0, 0.631, 1.0, '8 of 8')
    """
    if trials is None:
        each = np.asarray(successes)
        if each.dtype != bool or each.ndim != 1:
            raise ValueError(
                f"A share without `trials` needs one boolean a trial, but has {each.dtype} of shape {each.shape}; give both counts."
            )
        successes, trials = int(each.sum()), each.size
    if int(successes) != successes or int(trials) != trials or not 0 <= successes <= trials:
        raise ValueError(f"A share counts successes among trials, but there are {successes} of {trials}.")
    note = f"{int(successes)} of {int(trials)}"
    if trials == 0:
        return Estimate(np.nan, np.nan, np.nan, note)
    from scipy.stats import binomtest

    ends = binomtest(int(successes), int(trials)).proportion_ci(1 - 2 * levels.tail(), method="exact")
    return Estimate(float(successes / trials), float(ends.low), float(ends.high), note)


def worst(found: Mapping[Any, Any], *, lowest: bool) -> Estimate:
    """Of several cases the worst: the one whose upper end is highest, or whose lower end is lowest; the note names it.

    Args:
        found: `{case: what estimate takes}`.
        lowest: whether low is bad, as for a claim of the kind "at least".

    Example:
        >>> worst({64: (1.0, 0.8, 1.2), 128: (0.9, 0.5, 1.3)}, lowest=False).note
        'worst at 128'
    """
    estimates = {case: estimate(one) for case, one in found.items()}
    case = (
        min(estimates, key=lambda one: estimates[one].low)
        if lowest
        else max(estimates, key=lambda one: estimates[one].high)
    )
    return estimate(estimates[case], f"worst at {case}")


def enclosing(found: Iterable[Any]) -> Estimate:
    """Of several estimates of one number, none of them known to be right: their mean, with an interval that holds all of theirs.

    Example:
        >>> enclosing([(1.0, 0.5, 1.5), (2.0, 1.0, 3.0)])[:3]
        (1.5, 0.5, 3.0)
    """
    values, lows, highs, notes = zip(*map(estimate, found), strict=True)
    return Estimate(float(np.mean(values)), min(lows), max(highs), "; ".join(dict.fromkeys(filter(None, notes))))
