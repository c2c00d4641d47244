"""One page for what was found: the dissertation's chapters, claims and verdicts, figures, and where the numbers come from.

The page is a single HTML file without scripts that asks nobody for anything (a content security policy says so to the browser);
figures are embedded as SVG, or as PNG where that would be larger than a megabyte. Verdicts and figures are computed anew from the
stores by the experiments themselves, in the precision of the run.
"""

import base64
import contextlib
import datetime
import importlib.resources
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdyn import catalogue, experiments, results
from jaxdyn.analysis import figures
from jaxdyn.analysis.claims import Outcome, Verdict
from jaxdyn.catalogue import NOT_RUN, Record, Status
from jaxdyn.markup import Html, element, join, prose, table

LARGEST_SVG = 1_000_000
"""Bytes."""

OUTCOMES = (*(str(one) for one in Outcome), NOT_RUN)


@dataclass(frozen=True)
class Run:
    """What a store holds."""

    experiment: str  # its name
    where: str  # path or URL of the store
    done: int  # members that are computed
    total: int  # members there are
    verdicts: tuple[Verdict, ...]  # on the claims; none where members are missing
    figure: str  # a data URI; empty where members are missing
    caption: str  # what the figure shows
    preset: str  # size of the run, "?" where nothing tells
    date: str  # when it ended or was last written
    attrs: Mapping[str, Any]  # the dataset's

    @property
    def is_finished(self) -> bool:
        """Whether every member is computed."""
        return self.done == self.total


def read(store: str | Path) -> Run:
    """Read a store, judge its claims and draw its figure.

    Args:
        store: path or URL.

    Raises:
        ValueError: where there is no jaxdyn store, for one of no experiment, and for one of an experiment that has changed since.
    """
    name, dataset = of_experiment(store)
    done, total = int(dataset["done"].sum()), int(dataset["done"].size)
    verdicts, figure, caption = _judged(name, dataset, store) if done == total else ((), "", "")
    preset, date = _written(store)
    return Run(name, str(store), done, total, verdicts, figure, caption, preset, date, dict(dataset.attrs))


def of_experiment(store: str | Path) -> tuple[str, Any]:
    """The name of the experiment that a store belongs to, and its dataset.

    Raises:
        ValueError: where there is no jaxdyn store, and for one of no experiment.
    """
    dataset, known = results.open(store), experiments.names()
    name = dataset.attrs.get("experiment")
    if "done" not in dataset:
        raise ValueError(f"The zarr store {str(store)!r} was not written by jaxdyn: it has no variable `done`.")
    if name not in known:
        raise ValueError(
            f"The store {str(store)!r} belongs to no experiment (its attribute `experiment` is {name!r}; there are "
            f"{', '.join(known)}). `jaxdyn show` prints what it holds."
        )
    return str(name), dataset


def page(runs: Sequence[Run], records: Iterable[Record] = ()) -> str:
    """The page, in which every experiment has a place.

    Args:
        runs: what it shows in full.
        records: verdicts of other runs, oldest first, for the experiments without a run.

    Returns:
        HTML.
    """
    rest, arranged = list(records), catalogue.arrange(experiments.names())
    body: list[Html] = []
    contents: list[Html] = []
    part = ""
    for chapter, names in arranged:
        if chapter.part != part:
            part = chapter.part
            body.append(element("h2", part, class_="part"))
            contents.append(element("li", part, class_="part"))
        links = [element("li", element("a", name, href=f"#{name}")) for name in names]
        contents.append(element("li", chapter.title, element("ul", *links)))
        sections = [_experiment(name, [run for run in runs if run.experiment == name], rest) for name in names]
        body.append(element("section", element("h3", chapter.title), *sections, class_="chapter"))
    title = "Training dynamics of wide networks: claims and verdicts"
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    version = ", ".join(sorted({str(run.attrs.get("versions", {}).get("jaxdyn", "?")) for run in runs})) or "?"
    about = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} of jaxdyn {version}, put together on {today}."
    header = element("header", element("h1", title), element("p", about), _legend(), _summary(arranged, runs, rest))
    menu = element("nav", element("b", "Contents"), element("ul", *contents), aria_label="Contents")
    whole = element("body", header, menu, element("main", *body))
    return f"<!doctype html>\n{element('html', _head(title), whole, lang='en').text}\n"


def _judged(name: str, dataset: Any, store: str | Path) -> tuple[tuple[Verdict, ...], str, str]:
    import jax

    experiment = experiments.load(name)
    try:
        with jax.enable_x64(bool(dataset.attrs.get("float64"))):
            verdicts, figure = tuple(experiment.verdicts(dataset)), experiment.figure(dataset)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"The store {str(store)!r} does not fit the experiment {name!r} of this version ({type(error).__name__}: {error}); "
            "leave it out, or run the experiment again."
        ) from error
    return verdicts, embed(figure), (experiment.draw.__doc__ or "").partition("\n\n")[0]


def embed(figure: Any) -> str:
    """A figure of matplotlib's as a data URI: SVG up to `LARGEST_SVG` bytes, else PNG."""
    import matplotlib

    def written(form: str) -> bytes:
        file = io.BytesIO()
        with figures.style(), matplotlib.rc_context({"svg.hashsalt": "jaxdyn"}):
            figure.savefig(
                file, format=form, dpi=200, facecolor="white", metadata={"Date": None} if form == "svg" else {}
            )
        return file.getvalue()

    image, kind = written("svg"), "svg+xml"
    if len(image) > LARGEST_SVG:
        image, kind = written("png"), "png"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _written(store: str | Path) -> tuple[str, str]:
    """Preset and date of a run: from the verdicts beside its store, else "?" and when the store was last written."""
    with contextlib.suppress(ValueError, OSError):
        beside = Path(store).with_suffix(".json")
        if beside.is_file() and (found := catalogue.records([beside])):
            return found[-1].preset, found[-1].date[:10]
        moment = (Path(store) / "zarr.json").stat().st_mtime
        return "?", datetime.datetime.fromtimestamp(moment, datetime.UTC).date().isoformat()
    return "?", "?"


def _head(title: str) -> Html:
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    style = importlib.resources.files("jaxdyn").joinpath("report.css").read_text(encoding="utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name_="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(style)),
    )


def _legend() -> Html:
    return element(
        "p",
        "A verdict holds a 95 % interval against a criterion fixed before the run: ", _pill("supported"), " where all of it "
        "meets the criterion, ", _pill("not supported"), " where none of it does, ", _pill("inconclusive"), " else. It speaks of "
        "the sizes that were run.",
        class_="legend",
    )  # fmt: skip


def _summary(arranged: Any, runs: Sequence[Run], records: Sequence[Record]) -> Html:
    rows: list[list[str | Html]] = []
    for _, names in arranged:
        for name in names:
            link = element("a", name, href=f"#{name}")
            own = [run for run in runs if run.experiment == name]
            for run in own:
                state = f"{run.preset}, {run.date}" if run.is_finished else f"{run.done} of {run.total} members"
                rows.append([link, state, *_counts(_statuses(run) if run.is_finished else [])])
            if not own:
                rows.append([link, "not in this report", *_counts(catalogue.status(name, records))])
    return element("div", table(["experiment", "run", *OUTCOMES], rows, class_="summary"), class_="wide")


def _counts(statuses: Sequence[Status]) -> list[str | Html]:
    counts = Counter(one.outcome for one in statuses)
    return [str(counts[one]) if counts[one] else "–" for one in OUTCOMES]


def _experiment(name: str, runs: Sequence[Run], records: Sequence[Record]) -> Html:
    text = experiments.docstring(name)
    title, _, method = text.partition("\n\n")
    shown = [_run(run, is_alone=len(runs) == 1) for run in runs] or [_elsewhere(catalogue.status(name, records))]
    details = element("details", element("summary", "Method"), prose(method))
    heading = element("h4", element("span", name, class_="name"), title.rstrip("."))
    return element("article", heading, *shown, details, id=name)


def _run(run: Run, *, is_alone: bool) -> Html:
    heading = join() if is_alone else element("h5", f"{Path(run.where).name}: {run.preset}, {run.date}")
    if not run.is_finished:
        text = (
            f"Half-finished: {run.done} of {run.total} members are done. Verdicts and figure need all of them; the command that began "
            "the run goes on with it."
        )
        return element("div", heading, element("p", text, class_="warning"), _provenance(run), class_="run")
    picture = element("img", src=run.figure, alt=f"{run.experiment}: {run.caption}")
    figure = element("figure", element("div", picture, class_="wide"), element("figcaption", run.caption))
    return element("div", heading, _verdicts(_statuses(run)), figure, _provenance(run), class_="run")


def _statuses(run: Run) -> list[Status]:
    """The claims of a run in the order of the criteria, with those it says nothing about."""
    return catalogue.status(run.experiment, [Record(run.experiment, run.verdicts, run.preset, run.date, run.where)])


def _elsewhere(statuses: Sequence[Status]) -> Html:
    """The claims of an experiment whose stores are not in the report, with their last verdicts."""
    files = sorted({f"{Path(one.record.file).name} ({one.record.date[:10]})" for one in statuses if one.record})
    told = f"Last verdicts from {', '.join(files)}." if files else "It has not been run."
    note = element("p", f"No store of this experiment is in this report. {told}", class_="note")
    return element("div", note, _verdicts(statuses), class_="run")


def _verdicts(statuses: Sequence[Status]) -> Html:
    rows = [row for group in catalogue.grouped(statuses) for row in _rows(group)]
    return table(["claim", "statement", "criterion", "estimate [95 %]", "verdict"], rows, class_="verdicts")


def _rows(group: Sequence[Status]) -> list[list[str | Html]]:
    """A claim with one case is a row; with more, a row that folds open to its cases."""
    stated, criterion = group[0].stated, group[0].criterion
    statement = join(stated.statement, " ", element("span", stated.source, class_="source"))
    if len(group) == 1:
        return [[_breakable(group[0].id), statement, criterion, *_found(group[0])]]
    counts = Counter(one.outcome for one in group)
    pills = [part for outcome, num in counts.items() for part in (f"{num} ", _pill(outcome), " ")]
    cases = table(["case", "estimate [95 %]", "verdict"], [[_breakable(one.case), *_found(one)] for one in group])
    fold = element("details", element("summary", f"{len(group)} cases"), cases, class_="cases")
    return [[_breakable(stated.id), join(statement, fold), criterion, "", join(*pills)]]


def _breakable(name: str) -> Html:
    first, *others = name.split("/")
    return join(first, *(part for other in others for part in ("/", element("wbr"), other)))


def _found(one: Status) -> list[str | Html]:
    """Estimate with interval, and verdict with its note."""
    if one.verdict is None:
        return ["", _pill(one.outcome)]
    estimate, _, interval = one.verdict.interval.partition(" ")
    number = join(element("span", estimate, class_="number"), " ", element("span", interval, class_="number interval"))
    note = element("div", one.verdict.note, class_="source") if one.verdict.note else ""
    return [number, join(_pill(one.outcome), note)]


def _pill(outcome: str) -> Html:
    return element("span", outcome, class_=f"pill {outcome.replace(' ', '-')}")


def _provenance(run: Run) -> Html:
    attrs = run.attrs
    versions = attrs.get("versions", {})
    device = f"{attrs.get('device_count', '?')} × {attrs.get('device_kind', '?')}"
    took = [
        f"{attrs[key]:.0f} s {key.removeprefix('seconds_')}"
        for key in ("seconds_compiling", "seconds_running")
        if key in attrs
    ]
    facts = {
        "store": run.where,
        "preset": run.preset,
        "date": run.date,
        "members": f"{run.done} of {run.total}",
        "time": ", ".join(took) or "?",
        "device": f"{device}, {'float64' if attrs.get('float64') else 'float32'}, precision {', '.join(attrs.get('precision', ['?']))}",
        "commit": str(attrs.get("git_commit", "?")),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()) or "?",
    }
    try:
        config = json.loads(attrs.get("config", "{}"))
    except ValueError:
        config = {"config": attrs["config"]}
    words = {key: ", ".join(map(str, one)) if isinstance(one, list) else str(one) for key, one in config.items()}
    facts["configuration"] = "; ".join(f"{key} = {value}" for key, value in words.items()) or "?"
    pairs = [part for key, value in facts.items() for part in (element("dt", key), element("dd", value))]
    return element("dl", *pairs, class_="provenance")
