"""Verdicts: what the data say about a published claim, computed from a 95 % interval and a criterion fixed beforehand.

| constructor | supported | not supported | else |
|---|---|---|---|
| `at_most(bound)` | high ≤ bound | low > bound | inconclusive |
| `at_least(bound)` | low ≥ bound | high < bound | inconclusive |
| `within(lower, upper)` | the interval lies inside | the interval lies outside | inconclusive |

A verdict is about the claim at the sizes that were run, not about the theorem. An estimate or an end of the interval
that is NaN is inconclusive, with the reason. Nothing here is printed or tuned: a claim that is not supported is a
result.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, SupportsFloat

COLUMNS = ("claim", "statement", "estimate [95 % interval]", "criterion", "verdict")
"""Headings of the rows of `table`."""


class Outcome(StrEnum):
    """The three possible verdicts; each is also a plain string."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """What the data say about a claim. Made by `at_most`, `at_least` or `within`, which compute the verdict.

    Attributes:
        id: short name of the claim, unique in its experiment.
        statement: the claim in a sentence.
        source: paper, theorem or figure.
        estimate: the number measured.
        low: lower end of its 95 % interval; the estimate itself where the number is exact.
        high: upper end.
        criterion: what the interval is held against, in words.
        verdict: the outcome.
        reason: why there is no verdict, where a number is missing.
    """

    id: str
    statement: str
    source: str
    estimate: float
    low: float
    high: float
    criterion: str
    verdict: Outcome
    reason: str = ""

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return (
            f"{self.id}: {self.verdict}{reason} — {self.statement} {_interval(self)}; {self.criterion} ({self.source})"
        )


def measured(found: SupportsFloat | Iterable[SupportsFloat]) -> dict[str, float]:
    """The numbers of a verdict as keyword arguments, from `(estimate, low, high)`, or from one number that is exact.

    Example:
        >>> measured((0.5, 0.4, 0.6)), measured(1)
        ({'estimate': 0.5, 'low': 0.4, 'high': 0.6}, {'estimate': 1.0, 'low': 1.0, 'high': 1.0})
    """
    is_one = not isinstance(found, Iterable) or getattr(found, "ndim", 1) == 0
    three: Any = (found,) * 3 if is_one else found
    return dict(zip(("estimate", "low", "high"), map(float, three), strict=True))


def at_most(
    id: str,
    *,
    statement: str,
    source: str,
    estimate: SupportsFloat,
    low: SupportsFloat,
    high: SupportsFloat,
    bound: SupportsFloat,
) -> Verdict:
    """The claim that a number is at most `bound`.

    Args:
        id: short name of the claim.
        statement: the claim in a sentence.
        source: paper, theorem or figure.
        estimate: the number measured.
        low: lower end of its 95 % interval.
        high: upper end.
        bound: fixed before the run.

    Raises:
        ValueError: for low > high or a bound that is not a number.

    Example:
        >>> fit = {"estimate": -0.51, "low": -0.55, "high": -0.47}
        >>> print(at_most("W1", statement="Kernels freeze.", source="arXiv 2010.01092", **fit, bound=-0.4).verdict)
        supported
    """
    number = float(bound)
    return _judge(id, statement, source, (estimate, low, high), -math.inf, number, f"95 % interval at most {number:g}")


def at_least(
    id: str,
    *,
    statement: str,
    source: str,
    estimate: SupportsFloat,
    low: SupportsFloat,
    high: SupportsFloat,
    bound: SupportsFloat,
) -> Verdict:
    """The claim that a number is at least `bound`.

    Args:
        id: short name of the claim.
        statement: the claim in a sentence.
        source: paper, theorem or figure.
        estimate: the number measured.
        low: lower end of its 95 % interval.
        high: upper end.
        bound: fixed before the run.

    Raises:
        ValueError: for low > high or a bound that is not a number.
    """
    number = float(bound)
    return _judge(id, statement, source, (estimate, low, high), number, math.inf, f"95 % interval at least {number:g}")


def within(
    id: str,
    *,
    statement: str,
    source: str,
    estimate: SupportsFloat,
    low: SupportsFloat,
    high: SupportsFloat,
    lower: SupportsFloat,
    upper: SupportsFloat,
) -> Verdict:
    """The claim that a number lies in [lower, upper].

    Args:
        id: short name of the claim.
        statement: the claim in a sentence.
        source: paper, theorem or figure.
        estimate: the number measured.
        low: lower end of its 95 % interval.
        high: upper end.
        lower: lower bound, fixed before the run.
        upper: upper bound.

    Raises:
        ValueError: for low > high, lower > upper, or a bound that is not a number.
    """
    bounds = float(lower), float(upper)
    criterion = f"95 % interval within [{bounds[0]:g}, {bounds[1]:g}]"
    return _judge(id, statement, source, (estimate, low, high), *bounds, criterion)


def table(verdicts: Iterable[Verdict]) -> list[tuple[str, ...]]:
    """Rows of strings under `COLUMNS`, for whoever prints them."""
    return [
        (
            one.id,
            f"{one.statement} ({one.source})",
            _interval(one),
            one.criterion,
            f"{one.verdict}: {one.reason}" if one.reason else str(one.verdict),
        )
        for one in verdicts
    ]


def to_json(verdicts: Iterable[Verdict]) -> str:
    """Verdicts as strict JSON, for the attributes of a dataset. Numbers that are not finite become strings.

    Example:
        >>> one = at_least("A", statement="Much.", source="us", estimate=1.0, low=0.5, high=float("inf"), bound=0.0)
        >>> from_json(to_json([one])) == [one]
        True
    """
    rows = []
    for one in verdicts:
        numbers = {name: getattr(one, name) for name in ("estimate", "low", "high")}
        rows.append(asdict(one) | {k: v if math.isfinite(v) else str(v) for k, v in numbers.items()})
    return json.dumps(rows, ensure_ascii=False, allow_nan=False)


def from_json(text: str) -> list[Verdict]:
    """The verdicts that `to_json` wrote.

    Raises:
        ValueError: for text that it did not write.
    """
    try:
        rows = json.loads(text)
        return [
            Verdict(
                **row | {k: float(row[k]) for k in ("estimate", "low", "high")} | {"verdict": Outcome(row["verdict"])}
            )
            for row in rows
        ]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"Not a list of verdicts as `to_json` writes it ({error}): {text[:80]!r}") from error


def _judge(
    id: str,
    statement: str,
    source: str,
    numbers: tuple[SupportsFloat, SupportsFloat, SupportsFloat],
    lower: float,
    upper: float,
    criterion: str,
) -> Verdict:
    estimate, low, high = (float(number) for number in numbers)
    if low > high:
        raise ValueError(f"Claim {id}: the interval [{low}, {high}] is upside down.")
    if not lower <= upper:
        raise ValueError(f"Claim {id}: no number lies between the bounds {lower} and {upper}.")
    reason = ""
    if math.isnan(estimate) or math.isnan(low) or math.isnan(high):
        outcome, reason = Outcome.INCONCLUSIVE, "the estimate or its interval is not a number"
    elif lower <= low and high <= upper:
        outcome = Outcome.SUPPORTED
    elif high < lower or low > upper:
        outcome = Outcome.NOT_SUPPORTED
    else:
        outcome = Outcome.INCONCLUSIVE
    return Verdict(id, statement, source, estimate, low, high, criterion, outcome, reason)


def _interval(one: Verdict) -> str:
    return f"{one.estimate:.3g} [{one.low:.3g}, {one.high:.3g}]"
