"""Verdicts and claims as tables in a terminal, in colour where it has any. It prints; it computes nothing."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxdyn import catalogue
from jaxdyn.analysis.claims import Verdict
from jaxdyn.catalogue import Record, Status

_STYLE = {"supported": "green", "not supported": "red", "inconclusive": "yellow", "not run": "dim"}


def print_run(experiment: Any, dataset: Any, verdicts: Sequence[Verdict]) -> None:
    """Print what a run says: the measurements of an experiment that has a `summary` of them, then its verdicts."""
    if experiment.summary is not None:
        heading, *rows = experiment.summary(experiment.config(dataset), dataset)
        table = _table("Means over seeds [95 % interval]", *heading)
        for row in rows:
            table.add_row(*map(Text, row))
        _print(table)
    found = catalogue.status(experiment.name, [Record(experiment.name, tuple(verdicts), "", "", "")])
    print_statuses("Verdicts", [one for one in found if one.verdict])


def print_statuses(title: str, statuses: Sequence[Status]) -> None:
    """Print where claims stand, as `catalogue.status` tells: a row a claim, its cases beside one another."""
    runs = sorted({f"{one.record.preset} {one.record.date[:10]}".strip() for one in statuses if one.record} - {""})
    table = _table(
        " · ".join([title, *runs]), "claim", "statement (source); criterion", "case, estimate [95 % interval], verdict"
    )
    for group in catalogue.grouped(statuses):
        first = group[0].stated
        claim, verdict = group[0].claim, group[0].verdict
        note = "" if claim else " (no longer stated)"
        if claim and verdict and (claim.statement, str(claim.criterion)) != (verdict.statement, verdict.criterion):
            note = f" (of the last run, when it read: {verdict.statement} Now: {claim.criterion}; {claim.note})"
        cases = Table.grid(padding=(0, 2))
        for one in group:
            cells = (
                [one.verdict.id, one.verdict.interval, one.verdict.outcome]
                if one.verdict
                else [one.id, "", one.outcome]
            )
            cases.add_row(*map(Text, cells), style=_STYLE[one.outcome])
        table.add_row(Text(first.id), Text(f"{first.statement} ({first.source}); {group[0].criterion}{note}"), cases)
    _print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_lines=True)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    return table


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
