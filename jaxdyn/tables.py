"""Verdicts and claims as tables in a terminal, in colour where it has any. It prints; it computes nothing."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxdyn.analysis import claims
from jaxdyn.analysis.claims import Verdict
from jaxdyn.catalogue import Status

_STYLE = {"supported": "green", "not supported": "red", "inconclusive": "yellow", "not run": "dim"}

_COLUMNS = ("claim", "statement (source)", "criterion", "estimate [95 %]", "last verdict", "preset", "date")


def print_run(experiment: Any, dataset: Any, verdicts: Sequence[Verdict]) -> None:
    """Print what a run says: the measurements of an experiment that has a `summary` of them, then its verdicts."""
    if hasattr(experiment, "summary"):
        heading, *rows = experiment.summary(dataset)
        _print("Means over seeds [95 % interval]", heading, [(row, None) for row in rows])
    found = zip(claims.table(verdicts), (one.verdict for one in verdicts), strict=True)
    _print("Verdicts", claims.COLUMNS, list(found))


def print_statuses(title: str, statuses: Sequence[Status]) -> None:
    """Print where the claims of an experiment stand.

    Args:
        title: above the table.
        statuses: as `catalogue.status` gives them.
    """
    _print(title, _COLUMNS, [(_row(one), one.outcome) for one in statuses])


def _row(one: Status) -> tuple[str, ...]:
    estimate, outcome = "", one.outcome
    if one.verdict is not None:
        _, _, estimate, _, outcome = claims.table([one.verdict])[0]
    note = "" if one.is_stated else " (no longer stated)"
    run = (one.record.preset, one.record.date[:10]) if one.record else ("", "")
    return one.id, f"{one.statement} ({one.source})", one.criterion, estimate, outcome + note, *run


def _print(title: str, columns: Sequence[str], rows: Sequence[tuple[tuple[str, ...], str | None]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for cells, outcome in rows:
        table.add_row(*(Text(cell) for cell in cells), style=_STYLE[outcome] if outcome else None)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
