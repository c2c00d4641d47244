"""What jaxdyn claims, run or not: chapters, the criteria of every experiment, and the last verdicts on them.

Criteria are read where they are fixed, in the docstring of the experiment's module, and without importing it: every table whose
first heading is `claim` counts,

    | claim | networks | criterion |
    |---|---|---|
    | C5.1 ‖∇L‖² = c² rᵀ K r | all trained | worst relative difference at most 1e-3 |

The first word of a row is the claim's id; its last column, or the one headed `criterion`, is the criterion; a column headed `source` is
the source, else the docstring's references are; the rest is the statement, and an empty cell repeats the one above it. A verdict
`C5.1/tanh` belongs to the row `C5.1`. A bar within a cell has no space on one side, at least: `|λ_min|/λ_max`.

Verdicts come from the JSON that `jaxdyn run` writes beside a store. Nothing here computes a number.
"""

import ast
import importlib.resources
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdyn.analysis import claims
from jaxdyn.analysis.claims import Verdict

NOT_RUN = "not run"


@dataclass(frozen=True)
class Chapter:
    """A chapter of the dissertation.

    Attributes:
        part: the part it stands in.
        title: its title.
        experiments: those that belong to it, landed or not.
    """

    part: str
    title: str
    experiments: tuple[str, ...]


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
class Criterion:
    """A row of the table of criteria: a claim before it is run.

    Attributes:
        id: short name; a verdict of this name, or of this name and something behind a slash, is on this claim.
        statement: what is claimed, of which networks.
        criterion: what the number is held against.
        source: where the claim comes from.
    """

    id: str
    statement: str
    criterion: str
    source: str

    def covers(self, verdict: str) -> bool:
        """Whether a verdict of that id is on this claim: `C5.1` covers `C5.1/tanh`, neither `C5.1b` nor `C5.10`; a part `*` is any."""
        own, parts = self.id.split("/"), verdict.split("/")
        return len(own) <= len(parts) and all(a in ("*", b) for a, b in zip(own, parts, strict=False))


@dataclass(frozen=True)
class Record:
    """The verdicts of one run.

    Attributes:
        experiment: whose they are.
        verdicts: in the order of the run.
        preset: size of the run; "?" where nothing tells.
        date: when it ended, as ISO 8601 (a day, or a day and a time).
        file: where they were read.
    """

    experiment: str
    verdicts: tuple[Verdict, ...]
    preset: str
    date: str
    file: str


@dataclass(frozen=True)
class Status:
    """Where a claim stands.

    Attributes:
        experiment: whose claim it is.
        id: of the verdict, or of the criterion where there is none.
        statement: the claim.
        source: where it comes from.
        criterion: what the number is held against.
        verdict: the last verdict, or None where it was never run.
        record: the run it is from, or None.
        is_stated: whether the claim is among the experiment's criteria today.
    """

    experiment: str
    id: str
    statement: str
    source: str
    criterion: str
    verdict: Verdict | None = None
    record: Record | None = None
    is_stated: bool = True

    @property
    def outcome(self) -> str:
        """`supported`, `not supported`, `inconclusive` or `not run`."""
        return NOT_RUN if self.verdict is None else str(self.verdict.verdict)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON; numbers that are not finite are strings."""
        found: dict[str, Any] = {"estimate": None, "low": None, "high": None, "reason": ""}
        if self.verdict is not None:
            (row,) = json.loads(claims.to_json([self.verdict]))
            found = {name: row[name] for name in found}
        where = ("preset", "date", "file")
        return {
            "experiment": self.experiment,
            "id": self.id,
            "statement": self.statement,
            "source": self.source,
            "criterion": self.criterion,
            "verdict": self.outcome,
            **found,
            **{name: getattr(self.record, name) if self.record else None for name in where},
            "is_stated": self.is_stated,
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


def docstring(experiment: str) -> str:
    """The docstring of an experiment's module, which is not imported."""
    source = importlib.resources.files("jaxdyn").joinpath("experiments", f"{experiment}.py")
    return ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""


def criteria(text: str) -> list[Criterion]:
    r"""The claims in the tables of a docstring.

    Args:
        text: the docstring.

    Example:
        >>> table = "| claim | where | criterion |\n|---|---|---|\n| A1 It falls | wide | slope < 0 |\n| A1b |r| falls | | below 1 |"
        >>> for one in criteria(table):
        ...     print(one.id, "-", one.statement, "-", one.criterion)
        A1 - It falls (wide) - slope < 0
        A1b - |r| falls (wide) - below 1
    """
    references = text.partition("References:")[2]
    source = " ".join(references.split("\n\n")[0].split())
    found: list[Criterion] = []
    for head, *rows in tables(text):
        if head[0].lower() != "claim":
            continue
        names = [name.lower() for name in head]
        last = names.index("criterion") if "criterion" in names else len(names) - 1
        above = [""] * len(head)
        for row in rows:
            identity, _, claim = row[0].partition(" ")
            above = [cell or before for cell, before in zip(row, above, strict=True)]
            own = above[names.index("source")] if "source" in names else source
            places = [above[i] for i, name in enumerate(names) if i not in (0, last) and name != "source" and above[i]]
            statement = f"{claim} ({'; '.join(places)})" if claim and places else claim or "; ".join(places)
            found.append(Criterion(identity.strip(":,*`"), statement.strip(), above[last], own))
    return found


def tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables of a text as rows of cells, headings first, rows of dashes left out; short rows are filled up."""
    found: list[list[list[str]]] = []
    is_inside = False
    for line in text.splitlines():
        is_row = line.lstrip().startswith("|")
        if is_row and not is_inside:
            found.append([])
        is_inside = is_row
        if is_row and set(line) - set("|-: "):
            found[-1].append(_cells(line, len(found[-1][0]) if found[-1] else None))
    return found


def _cells(line: str, num: int | None) -> list[str]:
    inner = re.sub(r"\s*\|$", " ", line.strip())[1:]
    cells = [cell.strip() for cell in re.split(r"(?:(?<=\s)|^)\|(?=\s)", inner)]
    return cells if num is None else (cells + [""] * num)[:num]


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
        verdicts = claims.from_json(json.dumps(read["verdicts"]))
        experiment, date = str(read["attributes"]["experiment"]), str(read["date"])
    except (ValueError, TypeError, KeyError):
        return None
    named = re.fullmatch(rf"{re.escape(experiment)}-(.+)", file.stem)
    preset = str(read.get("preset") or (named.group(1) if named else "?"))
    return Record(experiment, tuple(verdicts), preset, date, str(file))


def status(experiment: str, found: Iterable[Record]) -> list[Status]:
    """Where every claim of an experiment stands, in the order of its criteria.

    Args:
        experiment: a module of `jaxdyn.experiments`.
        found: verdicts, oldest first, of any experiments.

    Returns:
        A status for the last verdict of every id, and for every criterion that has none. Verdicts on claims that the experiment no
        longer states come last.
    """
    last: dict[str, tuple[Verdict, Record]] = {}
    for record in found:
        if record.experiment == experiment:
            last |= {one.id: (one, record) for one in record.verdicts}

    def of(name: str, is_stated: bool = True) -> Status:
        one, record = last[name]
        return Status(experiment, one.id, one.statement, one.source, one.criterion, one, record, is_stated)

    stated = criteria(docstring(experiment))
    homes = {name: max((row.id for row in stated if row.covers(name)), key=len, default=None) for name in last}
    rows: list[Status] = []
    shown: set[str] = set()
    for row in stated:
        names = [name for name in last if homes[name] == row.id]
        rows += [of(name) for name in names if name not in shown]  # several rows may have one id
        if not names:
            rows.append(Status(experiment, row.id, row.statement, row.source, row.criterion))
        shown.update(names)
    return rows + [of(name, is_stated=False) for name in last if homes[name] is None]
