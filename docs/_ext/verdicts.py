"""The dissertation's claims and verdicts on the site, from the catalogue and the committed JSON, anew at every build."""

import json
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

from docstrings import to_myst
from docutils import nodes
from docutils.parsers.rst import directives
from results import RESULTS, ROOT, counts, of
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from jaxdyn import catalogue, experiments
from jaxdyn.analysis.claims import Outcome
from jaxdyn.catalogue import Record, Status

OUTCOMES = (str(Outcome.SUPPORTED), str(Outcome.INCONCLUSIVE), str(Outcome.NOT_SUPPORTED))
FIGURES = (
    "benchmarks/results/{file}.svg",
    "benchmarks/results/{file}.png",
    "notebooks/{file}.svg",
    "notebooks/{file}.png",
)


class Experiment(SphinxDirective):
    """`{experiment} dag`: a run, what it shows (the content), its figure, its claims and its set-up.

    `:told:` is the date of the JSON that the content speaks of; where the JSON is newer, the page says so.
    """

    required_arguments = 1
    has_content = True
    option_spec = {"told": directives.unchanged_required}  # noqa: RUF012 (docutils reads it so)

    def run(self) -> list[nodes.Node]:
        """The nodes."""
        name = self.arguments[0]
        for file in (*RESULTS.glob(f"{name}*.json"), *(ROOT / "jaxdyn" / "experiments" / name).glob("*.py")):
            self.env.note_dependency(str(file))
        found = of(name)
        body = self.parse_text_to_nodes(self._command(name))
        body += self._prose(found[0].date[:10] if found else "")
        if not found:
            body += self.parse_text_to_nodes("It has not been run.")
            body.append(_raw(_claims(catalogue.status(name, []))))
        for record in found:
            body += self._record(record)
        method = experiments.docstring(name).partition("\n\n")[2]
        fold = ["::::{dropdown} Set-up, definitions and references", to_myst(method), "::::"]
        return body + self.parse_text_to_nodes("\n".join(fold))

    def _command(self, name: str) -> str:
        title = experiments.docstring(name).partition("\n\n")[0].replace("\n", " ")
        return f"*{title}*\n\n```shell\njaxdyn run {name}\n```\n"

    def _prose(self, date: str) -> list[nodes.Node]:
        told = self.options.get("told", "")
        found = self.parse_content_to_nodes() if self.content else []
        if date and told and date != told:
            found += self.parse_text_to_nodes(
                f":::{{note}}\nThe text above speaks of the run of {told}. The verdicts below are newer, of {date}.\n:::"
            )
        return found

    def _record(self, record: Record) -> list[nodes.Node]:
        attributes = json.loads(Path(record.file).read_text(encoding="utf-8"))["attributes"]
        name = Path(record.file).name
        lines = [
            f"**{_preset(record)}**, {record.date[:10]}: {_machine(attributes)} ({{download}}`{name} </../benchmarks/results/{name}>`)"
        ]
        body = self.parse_text_to_nodes("\n".join(lines))
        body.append(_raw(_pills(Counter(str(one.verdict) for one in record.verdicts))))
        for pattern in FIGURES:
            picture = ROOT / pattern.format(file=Path(record.file).stem)
            if picture.exists():
                self.env.note_dependency(str(picture))
                body += self.parse_text_to_nodes(f"![{record.experiment}](/../{picture.relative_to(ROOT)})")
                break
        statuses = catalogue.status(record.experiment, [record])
        if record.preset != "laptop":
            statuses = [one for one in statuses if one.verdict is not None]
        body.append(_raw(_claims(statuses)))
        return body


def _preset(record: Record) -> str:
    stem = Path(record.file).stem.removeprefix(f"{record.experiment}-")
    return f"Preset `{stem}`"


def _machine(attributes: dict[str, Any]) -> str:
    processor = attributes.get("processor") or (
        "processor not recorded" if attributes.get("device_kind") == "cpu" else attributes.get("device_kind", "?")
    )
    versions, commit = attributes.get("versions", {}), str(attributes.get("git_commit", ""))[:7]
    seconds = sum(attributes.get(f"seconds_{key}", 0.0) for key in ("tracing", "compiling", "running"))
    facts = [
        f"{processor}",
        f"{attributes.get('devices_used', '?')} devices",
        f"JAX {versions.get('jax', '?')}",
        *([f"{seconds:.0f} s of tracing, compiling and running"] if seconds else []),
        *([f"commit `{commit}`"] if commit else []),
    ]
    return ", ".join(facts)


class Summary(SphinxDirective):
    """`{verdicts}`: a row for every experiment."""

    def run(self) -> list[nodes.Node]:
        """A table with links to the chapters' pages."""
        self.env.note_dependency(str(RESULTS))
        pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "dissertation").glob("*.md")}
        rows = ["| experiment | run | supported | inconclusive | not supported |", "|---|---|---|---|---|"]
        for chapter, names in catalogue.arrange(experiments.names()):
            title = chapter.title.replace("*", "\\*")
            rows.append(f"| **{title}** | | | | |")
            for name in names:
                page = next((stem for stem, text in pages.items() if f"{{experiment}} {name}\n" in text), None)
                link = f"[`{name}`]({page}.md)" if page else f"`{name}`"
                found = of(name)
                for record in found:
                    self.env.note_dependency(record.file)
                    cells = " | ".join(map(str, counts(record)))
                    rows.append(f"| {link} | {Path(record.file).stem}, {record.date[:10]} | {cells} |")
                rows += [] if found else [f"| {link} | not run | | | |"]
        return self.parse_text_to_nodes("\n".join(rows))


def _raw(html: str) -> nodes.Node:
    return nodes.raw("", html, format="html")


def _pill(outcome: str, num: int | None = None) -> str:
    number = "" if num is None else f"{num} "
    return f'<span class="pill {outcome.replace(" ", "-")}">{number}{escape(outcome)}</span>'


def _pills(found: Counter[str]) -> str:
    order = (*OUTCOMES, catalogue.NOT_RUN)
    return f'<p class="pills">{" ".join(_pill(one, found[one]) for one in order if found[one])}</p>'


def _claims(statuses: list[Status]) -> str:
    return f'<div class="claims">{"".join(_claim(group) for group in catalogue.grouped(statuses))}</div>'


def _claim(group: list[Status]) -> str:
    """A claim that folds open to its cases."""
    stated = group[0].stated
    found = Counter(one.outcome for one in group)
    is_one = len(group) == 1
    number = (
        f'<span class="number">{_number(group[0])}</span>'
        if is_one
        else f'<span class="number">{len(group)} cases</span>'
    )
    order = (one for one in (*OUTCOMES, catalogue.NOT_RUN) if found[one])
    pills = " ".join(_pill(one, None if is_one else found[one]) for one in order)
    note = f"<p>{escape(stated.note)}</p>" if stated.note else ""
    head = f'<summary><b>{escape(group[0].id if is_one else stated.id)}</b> <span class="statement">{escape(stated.statement)}</span> '
    head += f'<span class="found">{number} {pills}</span></summary>'
    about = f'<p class="about">Criterion: {escape(group[0].criterion)}. Source: {escape(stated.source)}.</p>{note}'
    notes = f"<p>{escape(group[0].verdict.note)}</p>" if is_one and group[0].verdict and group[0].verdict.note else ""
    return f'<details class="claim">{head}<div class="inside">{about}{notes}{"" if is_one else _cases(group)}</div></details>'


def _cases(group: list[Status]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.case or one.id)}</td><td>{_number(one)}</td><td>{_pill(one.outcome)}"
        f"{f'<div>{escape(one.verdict.note)}</div>' if one.verdict and one.verdict.note else ''}</td></tr>"
        for one in group
    )
    head = "<thead><tr><th>case</th><th>estimate [95 %]</th><th>verdict</th></tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div>'


def _number(one: Status) -> str:
    return escape(one.verdict.interval) if one.verdict else ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("experiment", Experiment)
    app.add_directive("verdicts", Summary)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
