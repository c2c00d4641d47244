"""Claims and verdicts: what is claimed is data, written once; what a run says of it is computed from a 95 % interval.

A `Claim` states a number and holds its 95 % interval against a criterion that was fixed before the first run. `judge` takes what an
experiment measured, `{id: estimate}`, and gives a `Verdict` for each:

| criterion | supported | not supported | else |
|---|---|---|---|
| `AtMost(bound)` | high ≤ bound | low > bound | inconclusive |
| `AtLeast(bound)` | low ≥ bound | high < bound | inconclusive |
| `Within(low, high)` | the interval lies inside | the interval lies outside | inconclusive |

A claim over several cases (architectures, depths, rates) is one claim: the estimates `C3.1/uniform` and `C3.1/deep` are on the claim
`C3.1`, and so are `C2.6/digits/means` on `C2.6/*/means`. A verdict is about the claim at the sizes that were run, not about the theorem.
An estimate or an end of the interval that is NaN is inconclusive.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from jaxdyn.analysis.estimates import Estimate, estimate


@dataclass(frozen=True)
class Within:
    """The 95 % interval lies in [low, high].

    Raises:
        ValueError: where no number lies between the bounds.
    """

    low: int | float
    high: int | float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"No number lies between the bounds {self.low} and {self.high}.")

    def __str__(self) -> str:
        return f"95 % interval within [{self.low:g}, {self.high:g}]"

    @property
    def ends(self) -> tuple[int | float, int | float]:
        """The least and the largest number that meet the criterion."""
        return self.low, self.high


@dataclass(frozen=True)
class AtMost:
    """The 95 % interval ends at or below `bound`."""

    bound: int | float

    def __post_init__(self) -> None:
        _check_number(self.bound)

    def __str__(self) -> str:
        return f"95 % interval at most {self.bound:g}"

    @property
    def ends(self) -> tuple[int | float, int | float]:
        """The least and the largest number that meet the criterion."""
        return -math.inf, self.bound


@dataclass(frozen=True)
class AtLeast:
    """The 95 % interval begins at or above `bound`."""

    bound: int | float

    def __post_init__(self) -> None:
        _check_number(self.bound)

    def __str__(self) -> str:
        return f"95 % interval at least {self.bound:g}"

    @property
    def ends(self) -> tuple[int | float, int | float]:
        """The least and the largest number that meet the criterion."""
        return self.bound, math.inf


Criterion = AtMost | AtLeast | Within


@dataclass(frozen=True)
class Claim:
    """What is claimed, before it is run.

    Attributes:
        id: short name, unique in its experiment; a part `*` stands for any one part.
        statement: the claim in a sentence that names the number measured.
        source: paper, theorem or figure; "jaxdyn" for our own.
        criterion: what the 95 % interval of the number is held against.
        note: what a reader of the criterion must know, such as that it was changed after a run.
    """

    id: str
    statement: str
    source: str
    criterion: Criterion
    note: str = ""

    def covers(self, id: str) -> bool:
        """Whether a verdict is on this claim: `C5.1` covers `C5.1/tanh`, neither `C5.1b` nor `C5.10`."""
        own, parts = self.id.split("/"), id.split("/")
        return len(own) <= len(parts) and all(a in ("*", b) for a, b in zip(own, parts, strict=False))

    def case(self, id: str) -> str:
        """The case of a verdict that it covers: what the id has beyond the claim's.

        Example:
            >>> Claim("C2.6/*/means", "S", "us", AtMost(0)).case("C2.6/digits/means/adam")
            'digits/adam'
        """
        own, parts = self.id.split("/"), id.split("/")
        return "/".join(part for i, part in enumerate(parts) if i >= len(own) or own[i] == "*")


def find(id: str, claims: Iterable[Claim]) -> Claim | None:
    """The claim that a verdict is on: of those that cover its id, the one with the longest; None where there is none."""
    return max((one for one in claims if one.covers(id)), key=lambda one: len(one.id), default=None)


class Outcome(StrEnum):
    """The three possible verdicts; each is also a plain string."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """What the data say about a claim, in one case of it. Made by `judge`.

    Attributes:
        id: of the claim, and the case behind a slash where there are several.
        statement: the claim in a sentence.
        source: paper, theorem or figure.
        estimate: the number measured.
        low: lower end of its 95 % interval; the estimate itself where the number is exact.
        high: upper end.
        criterion: what the interval is held against, in words.
        verdict: the outcome.
        note: what a reader of the estimate must know, such as members left out.
    """

    id: str
    statement: str
    source: str
    estimate: float
    low: float
    high: float
    criterion: str
    verdict: Outcome
    note: str = ""

    @property
    def interval(self) -> str:
        """Estimate and interval in words."""
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"

    @property
    def outcome(self) -> str:
        """The verdict, with the note behind it where there is one."""
        return f"{self.verdict}: {self.note}" if self.note else str(self.verdict)

    def __str__(self) -> str:
        return f"{self.id}: {self.outcome} — {self.statement} {self.interval}; {self.criterion} ({self.source})"


def judge(estimates: Mapping[str, Any], claims: Sequence[Claim]) -> list[Verdict]:
    """Hold what was measured against what is claimed.

    Args:
        estimates: `{id: estimate}`, each anything that `estimates.estimate` takes: an exact number, `(value, low, high)`, a fit.
        claims: of the experiment.

    Returns:
        A verdict for each estimate, in the order of the claims, the cases of a claim in the order of the estimates.

    Raises:
        ValueError: for an estimate on no claim, or an interval upside down.

    Example:
        >>> freezes = Claim("W1", "The kernel change falls: exponent.", "arXiv 2010.01092", AtMost(-0.4))
        >>> for one in judge({"W1/2": (-0.51, -0.55, -0.47), "W1/3": (-0.45, -0.6, -0.3)}, [freezes]):
        ...     print(one.id, one.verdict)
        W1/2 supported
        W1/3 inconclusive
    """
    homes = {id: find(id, claims) for id in estimates}
    if homeless := [id for id, claim in homes.items() if claim is None]:
        raise ValueError(
            f"There is no claim for the estimates {', '.join(homeless)}; the claims are {', '.join(one.id for one in claims)}."
        )
    return [
        _verdict(id, claim, estimate(found))
        for claim in claims
        for id, found in estimates.items()
        if homes[id] == claim
    ]


def to_json(verdicts: Iterable[Verdict]) -> str:
    """Verdicts as strict JSON, for the attributes of a dataset. Numbers that are not finite become strings.

    Example:
        >>> verdicts = judge({"A": (1.0, 0.5, float("inf"))}, [Claim("A", "Much.", "us", AtLeast(0))])
        >>> from_json(to_json(verdicts)) == verdicts
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


def _verdict(id: str, claim: Claim, found: Estimate) -> Verdict:
    value, low, high, note = found
    if low > high:
        raise ValueError(f"Claim {id}: the interval [{low}, {high}] is upside down.")
    lower, upper = claim.criterion.ends
    if any(map(math.isnan, (value, low, high))):
        outcome = Outcome.INCONCLUSIVE
        note = "; ".join(filter(None, (note, "the estimate or its interval is not a number")))
    elif lower <= low and high <= upper:
        outcome = Outcome.SUPPORTED
    elif high < lower or low > upper:
        outcome = Outcome.NOT_SUPPORTED
    else:
        outcome = Outcome.INCONCLUSIVE
    return Verdict(id, claim.statement, claim.source, value, low, high, str(claim.criterion), outcome, note)


def _check_number(bound: int | float) -> None:
    if math.isnan(bound):
        raise ValueError(f"A bound is a number, but is {bound}.")
