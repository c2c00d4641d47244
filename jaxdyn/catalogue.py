"""What jaxdyn claims, run or not: chapters, the claims of every experiment, and the last verdicts on them.

Claims are read from `CLAIMS` of each experiment, which loads no JAX; verdicts from the JSON that `jaxdyn run` writes beside a store.
Nothing here computes a number.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdyn import experiments
from jaxdyn.analysis.claims import Claim, Verdict, find, from_json, to_json

NOT_RUN = "not run"


@dataclass(frozen=True)
class Chapter:
    """A chapter of the dissertation."""

    part: str  # the part it stands in
    title: str  # its title
    experiments: tuple[str, ...]  # those that belong to it, landed or not


PARTS = ("Part I: Transition to linearity", "Part II: Beyond linearity", "Further experiments")

CHAPTERS = (
    Chapter(PARTS[0], "Wide networks become linear", ("width", "dag")),
    Chapter(PARTS[0], "What breaks the transition", ("breaking",)),
    Chapter(PARTS[0], "Optimisation: the PL* condition", ("pl",)),
    Chapter(
        PARTS[1], "Quadratic models and catapults", ("catapult", "flatness", "subspace", "generalization", "rates")
    ),
    Chapter(PARTS[1], "Catapults and spikes in SGD", ("spikes",)),
    Chapter(PARTS[1], "Feature learning", ("agop", "optimizers", "rfm", "mediation")),
)
"""The chapters of L. Zhu, "Toward Understanding the Dynamics of Over-Parameterized Neural Networks" (2024), and what is tested of each."""


@dataclass(frozen=True)
class Record:
    """The verdicts of one run."""

    experiment: str  # whose they are
    verdicts: tuple[Verdict, ...]  # in the order of the run
    preset: str  # size of the run; "?" where nothing tells
    date: str  # when it ended, as ISO 8601 (a day, or a day and a time)
    file: str  # where they were read


@dataclass(frozen=True)
class Status:
    """Where a claim stands, in one case of it."""

    experiment: str  # whose claim it is
    claim: Claim | None  # what is claimed; None for a verdict on what is no longer claimed
    verdict: Verdict | None = None  # the last verdict; None where the claim was never run
    record: Record | None = None  # the run it is from, or None

    @property
    def stated(self) -> Claim | Verdict:
        """What tells the id, the statement and the source: the claim, else the verdict."""
        found = self.claim or self.verdict
        assert found is not None
        return found

    @property
    def id(self) -> str:
        """Of the verdict; of the claim where there is none."""
        return (self.verdict or self.stated).id

    @property
    def case(self) -> str:
        """The case of the claim; empty where it has only one."""
        return self.claim.case(self.verdict.id) if self.claim and self.verdict else ""

    @property
    def outcome(self) -> str:
        """`supported`, `not supported`, `inconclusive` or `not run`."""
        return NOT_RUN if self.verdict is None else str(self.verdict.verdict)

    @property
    def criterion(self) -> str:
        """What the number was, or is to be, held against."""
        return str(self.verdict.criterion if self.verdict else self.stated.criterion)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON; numbers that are not finite are strings."""
        found: dict[str, Any] = {"estimate": None, "low": None, "high": None, "note": ""}
        if self.verdict is not None:
            (row,) = json.loads(to_json([self.verdict]))
            found = {name: row[name] for name in found}
        where = ("preset", "date", "file")
        return {
            "experiment": self.experiment,
            "id": self.id,
            "claim": self.stated.id,
            "case": self.case,
            "statement": self.stated.statement,
            "source": self.stated.source,
            "criterion": self.criterion,
            "verdict": self.outcome,
            **found,
            **{name: getattr(self.record, name) if self.record else None for name in where},
            "is_stated": self.claim is not None,
        }


def arrange(experiments: Iterable[str]) -> list[tuple[Chapter, list[str]]]:
    """Experiments under their chapters, chapters without any left out; what belongs to none comes last.

    Example:
        >>> for chapter, members in arrange(["pl", "dag", "mine"]):
        ...     print(chapter.title, members)
        Wide networks become linear ['dag']
        Optimisation: the PL* condition ['pl']
        Of no chapter ['mine']
    """
    given = list(experiments)
    found = [(chapter, [name for name in chapter.experiments if name in given]) for chapter in CHAPTERS]
    homeless = [name for name in given if not any(name in chapter.experiments for chapter in CHAPTERS)]
    found.append((Chapter(PARTS[2], "Of no chapter", ()), homeless))
    return [(chapter, members) for chapter, members in found if members]


def default_places() -> list[Path]:
    """Where verdicts are looked for: in a checkout among its results, then in `runs`. Later places win where dates are equal."""
    root = Path(__file__).parents[1]
    committed = [root / "benchmarks" / "results"] if (root / ".git").exists() else []
    return [place for place in (*committed, Path("runs")) if place.is_dir()]


def records(places: Sequence[Path]) -> list[Record]:
    """The verdicts that lie in files or folders, oldest first.

    Args:
        places: files of verdicts; folders, in which files that hold no verdicts are passed over.

    Raises:
        ValueError: for a place that is not there, or a file that holds no verdicts.
    """
    found: list[Record] = []
    for place in places:
        if place.is_dir():
            found += [one for file in sorted(place.glob("*.json")) if (one := _read(file)) is not None]
        elif (one := _read(place)) is not None:
            found.append(one)
        else:
            raise ValueError(f"{str(place)!r} holds no verdicts; `jaxdyn run` writes them as JSON beside the store.")
    return sorted(found, key=lambda one: one.date)


def _read(file: Path) -> Record | None:
    if not file.is_file():
        raise ValueError(f"There is no file or folder {str(file)!r}; name a file of verdicts, or a folder with some.")
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        verdicts = from_json(json.dumps(read["verdicts"]))
        experiment, date = str(read["attributes"]["experiment"]), str(read["date"])
    except (ValueError, TypeError, KeyError):
        return None
    named = re.fullmatch(rf"{re.escape(experiment)}-(.+)", file.stem)
    preset = str(read.get("preset") or (named.group(1) if named else "?"))
    return Record(experiment, tuple(verdicts), preset, date, str(file))


def status(experiment: str, found: Iterable[Record]) -> list[Status]:
    """Where every claim of an experiment stands, in the order of its claims.

    Args:
        experiment: its name.
        found: verdicts, oldest first, of any experiments.

    Returns:
        A status for the last verdict of every id, and for every claim that has none. Verdicts on what the experiment no longer claims
        come last.
    """
    last: dict[str, tuple[Verdict, Record]] = {}
    for record in found:
        if record.experiment == experiment:
            last |= {one.id: (one, record) for one in record.verdicts}
    claims = experiments.claims(experiment)
    homes = {id: find(id, claims) for id in last}
    rows: list[Status] = []
    for claim in (*claims, None):
        own = [Status(experiment, claim, *last[id]) for id, home in homes.items() if home == claim]
        rows += own or ([Status(experiment, claim)] if claim else [])
    return rows


def grouped(statuses: Iterable[Status]) -> list[list[Status]]:
    """The statuses of each claim together, in the order they come; what is no longer claimed stands alone."""
    groups: dict[Any, list[Status]] = {}
    for one in statuses:
        groups.setdefault(one.claim or one.stated.id, []).append(one)
    return list(groups.values())
