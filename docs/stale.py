"""Which lines of the README and of the dissertation's pages no longer say what the committed JSON says.

`python docs/stale.py` prints them and fails where there are any; `--write` mends the README's counts of verdicts and their days.
Figures and dates in prose are for a person: read the new verdicts, write the sentence anew, and set `:told:` to the day of the JSON it
speaks of.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from results import RESULTS, benchmarks, counts, of  # noqa: E402

from jaxdyn import experiments  # noqa: E402

ROW = re.compile(
    r"^\| \[`(?P<name>\w+)`\]\(docs/dissertation/\w+\.md\) \| (?P<counts>\d+ / \d+ / \d+) \|", re.MULTILINE
)
DATES = re.compile(r"(?<=runs of )[\d-]+(?: to [\d-]+)?")
NUMBER = r"[-−]?\d+(?:\.\d+)?"
TRIPLE = re.compile(rf"({NUMBER})\)?\s+\[({NUMBER}),\s+({NUMBER})\]")
SECTION = re.compile(r"```\{experiment\} (?P<name>\w+)\n:told: (?P<told>\S+)\n(?P<prose>.*?)```", re.DOTALL)


def readme_counts(text: str) -> Iterator[str]:
    """Rows of verdicts whose counts are not those of the preset `laptop`, and experiments without a row."""
    rows = {row["name"]: row["counts"] for row in ROW.finditer(text)}
    for name in experiments.names():
        expected = told(name)
        if rows.get(name) != expected and expected is not None:
            yield f"README.md: `{name}` has the verdicts {expected}, but its row says {rows.get(name, 'nothing')}."


def readme_dates(text: str) -> Iterator[str]:
    """The days of the runs that the rows count."""
    found = DATES.search(text)
    if (said := found[0] if found else "nothing") != days():
        yield f"README.md: the rows of verdicts count runs of {days()}, but it says {said}."


def days() -> str:
    """First and last day of the runs of preset `laptop`."""
    found = sorted({of(name)[0].date[:10] for name in experiments.names() if of(name)})
    return " to ".join(dict.fromkeys((found[0], found[-1])))


def told(name: str) -> str | None:
    """Counts as the README writes them."""
    found = of(name)
    return " / ".join(map(str, counts(found[0]))) if found else None


def mended(text: str) -> str:
    """The README with the counts and days of today."""
    text = DATES.sub(days(), text, count=1)
    return ROW.sub(lambda row: row[0].replace(row["counts"], told(row["name"]) or row["counts"]), text)


def prose(page: Path) -> Iterator[str]:
    """Texts about a run that is not the one committed, and estimates with intervals that no verdict has."""
    for section in SECTION.finditer(page.read_text(encoding="utf-8")):
        name, found = section["name"], of(section["name"])
        if found and found[0].date[:10] != section["told"]:
            yield f"{page.relative_to(ROOT)}: `{name}` speaks of {section['told']}; the JSON is of {found[0].date[:10]}."
            continue
        measured = list(_measured(name))
        for triple in TRIPLE.finditer(section["prose"]):
            if not any(all(map(_rounds_to, numbers, triple.groups())) for numbers in measured):
                yield f"{page.relative_to(ROOT)}: `{name}` has no verdict {' '.join(triple[0].split())}."


def _measured(name: str) -> Iterator[tuple[float, float, float]]:
    for file in RESULTS.glob(f"{name}*.json"):
        for one in json.loads(file.read_text(encoding="utf-8")).get("verdicts", []):
            yield float(one["estimate"]), float(one["low"]), float(one["high"])


def _rounds_to(value: float, text: str) -> bool:
    digits = len(text.partition(".")[2])
    return abs(value - float(text.replace("−", "-"))) <= 0.500001 * 10**-digits


def _row(name: str, field: str, value: str) -> dict[str, Any]:
    read = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return next(row for row in read["table"] if str(row.get(field, "")).startswith(value))


def readme_figures(text: str) -> Iterator[str]:
    """Benchmark figures that are not those of the JSON, or whose processor or date is not."""
    kernel = _row("ntk", "work", "ntk, MLP 64-1024-1024-1")
    rivals = kernel["rivals"].items()
    figures = {
        "ntk": f"{1000 * kernel['seconds']:.1f} ms, {min(r['ratio'] for name, r in rivals if 'neural-tangents' in name):.0f} ×",
        "curvature": f"{_row('curvature', 'method', 'jaxdyn, cold, block=2')['ratio']:.2f}",
        "ensemble": f"{_row('ensemble', 'row', 'dense m=256 E=64')['torch_over_sweep']:.2f} ×",
    }
    for name, figure in figures.items():
        environment = {file.name: found for file, found in benchmarks(name)}[f"{name}.json"]
        processor = environment["processor"].replace("(R)", "").removesuffix(" Processor")
        ending = f"| {figure} | {processor}, {environment['date'][:10]} |"
        if not re.search(rf"^\| \[`{name}`\].*{re.escape(ending)}$", text, re.MULTILINE):
            yield f"README.md: the row of the benchmark `{name}` should end in {ending!r}."


def stale() -> list[str]:
    """Everything that should be looked at."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = sorted((ROOT / "docs" / "dissertation").glob("*.md"))
    return [
        *readme_counts(text),
        *readme_dates(text),
        *readme_figures(text),
        *(line for page in pages for line in prose(page)),
    ]


def main() -> None:
    """Print what is stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="mend the README's counts and days")
    if parser.parse_args().write:
        readme = ROOT / "README.md"
        readme.write_text(mended(readme.read_text(encoding="utf-8")), encoding="utf-8")
    found = stale()
    print("\n".join(found) or "Nothing is stale.")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
