"""The README and the site: their code runs, what they print is what they say, and their verdicts are those of the committed JSON."""

import contextlib
import doctest
import importlib
import inspect
import io
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest
import yaml

import jaxdyn as jd
from jaxdyn import cli, experiments

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import stale  # noqa: E402

PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
FENCE = re.compile(
    r"^( *)```(?P<kind>python|text|\{code-block\} python)\n(?P<body>.*?)^\1```$", re.DOTALL | re.MULTILINE
)
SIZES = {
    "[64, 128, 256, 512]": "[16, 24, 32]",
    "steps=500": "steps=20",
    "n=256": "n=24",
    "[8, 256]": "[8]",
    "(64, 512, 1)": "(64, 16, 1)",
}
"""What the README says, and the sizes at which it is tested."""


def blocks(page):
    """The fences of a page: kind, body and line."""
    text = page.read_text(encoding="utf-8")
    return [(one["kind"], one["body"], text[: one.start()].count("\n") + 2) for one in FENCE.finditer(text)]


def with_code(*kinds):
    return [
        pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if any(b[0] in kinds for b in blocks(page))
    ]


@pytest.mark.parametrize("page", with_code("python"))
def test_the_code_of_a_page_runs_and_prints_what_stands_below_it(page, tmp_path, monkeypatch):
    """One namespace a page, in an empty folder. A `text` fence behind a block is what it prints."""
    monkeypatch.chdir(tmp_path)
    namespace, printed, before = {"__name__": "page"}, None, None
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("default")  # what a user sees is no error
        for kind, body, line in blocks(page):
            if kind == "python":
                for said, tested in SIZES.items() if page.name == "README.md" else ():
                    body = body.replace(said, tested)
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile("\n" * (line - 1) + body, str(page), "exec"), namespace)
                printed = out.getvalue()
            elif kind == "text" and before == "python":
                flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
                assert doctest.OutputChecker().check_output(body, printed, flags), f"{page}:{line}: printed {printed!r}"
            before = kind


@pytest.mark.parametrize("page", with_code("{code-block} python"))
def test_the_calls_of_others_are_at_least_python(page):
    for kind, body, _ in blocks(page):
        if kind.startswith("{"):
            compile(body, str(page), "exec")


def test_verdicts_figures_and_dates_are_those_of_the_committed_json():
    """`python docs/stale.py` prints the same, and with `--write` mends the counts."""
    assert stale.stale() == []


def test_what_is_stale_is_found(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    wrong = text.replace("| 10 / 0 / 0 |", "| 9 / 1 / 0 |").replace("AMD EPYC", "AMD Ryzen")
    wrong = wrong.replace("runs of 20", "runs of 19")
    (counts,), (figure,), (date,) = stale.readme_counts(wrong), stale.readme_figures(wrong), stale.readme_dates(wrong)
    assert ("`width`" in counts, "`ensemble`" in figure, "runs of 20" in date) == (True, True, True)
    mended = stale.mended(wrong)
    assert [*stale.readme_counts(mended), *stale.readme_dates(mended)] == []
    monkeypatch.setattr(stale, "ROOT", tmp_path)
    page, named = tmp_path / "page.md", "```{experiment} width\n:told: DAY\nIt is -0.98 [-1.04, -0.9HERE].\n```\n"
    day = stale.of("width")[0].date[:10]
    for told, digit, complaints in ((day, 2, 0), (day, 5, 1), ("2020-01-01", 2, 1)):
        page.write_text(named.replace("DAY", told).replace("HERE", str(digit)))
        assert len(list(stale.prose(page))) == complaints


@pytest.mark.parametrize("module", ["results", "docstrings"])
def test_the_examples_of_the_extensions_hold(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_the_readme_is_short_and_has_the_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 9000
    assert [line for line in text.splitlines() if len(line) > 200] == []
    first, second, *_ = re.findall(r"^```\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)
    assert (first, second) == ("pip install uv && uv run jaxdyn run width", "uv run --extra test pytest")


def test_every_experiment_has_a_place_and_no_page_is_too_long():
    chapters = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "dissertation").glob("*.md"))
    assert sorted(re.findall(r"\{experiment\} (\w+)", chapters)) == sorted(experiments.names())
    folder = ROOT / "docs"
    files = [path for kind in ("md", "py", "css") for path in folder.rglob(f"*.{kind}") if "_build" not in path.parts]
    assert {path.name: n for path in files if (n := len(path.read_text(encoding="utf-8").splitlines())) > 400} == {}


def test_every_public_name_is_in_the_reference():
    """Each namespace, and each module inside one, has its `api` directive."""
    told = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    modules = [name for name in jd.__all__ if inspect.ismodule(getattr(jd, name))]
    inside = [
        f"{name}.{one}"
        for name in modules
        for one in getattr(getattr(jd, name), "__all__", ())
        if inspect.ismodule(getattr(getattr(jd, name), one))
    ]
    assert [name for name in [*modules, *inside] if f"{{api}} jaxdyn.{name}\n" not in told] == []


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


EXAMPLES = sorted((ROOT / "docs" / "examples").iterdir())


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_command_lines_of_the_files_for_clusters_are_understood(file):
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".sh":
        assert subprocess.run(["bash", "-n", str(file)], capture_output=True).returncode == 0
    else:
        service, job = yaml.safe_load_all(text)
        assert (service["kind"], job["kind"], job["spec"]["completionMode"]) == ("Service", "Job", "Indexed")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        told = {one["name"]: one["value"] for one in container["env"]}
        name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
        assert told["JAX_COORDINATOR_ADDRESS"].startswith(f"{name}-0.{subdomain}:")
        assert int(told["JAX_NUM_PROCESSES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
        assert subdomain == service["metadata"]["name"]
    words = [shlex.split(line) for line in re.findall(r"\bjaxdyn run .*", text)]
    assert words
    names = re.search(r"names=\((.*)\)", text)
    for name in names[1].split() if names else ["width"]:
        for line in words:
            options, rest = cli._parser().parse_known_args([name if word == "$name" else word for word in line[1:]])
            assert not rest
            assert options.preset in experiments.load(options.name).presets


@pytest.mark.slow  # each plan traces 48 cells
@pytest.mark.timeout(900)
def test_what_clusters_says_of_the_paper_preset_is_what_the_planner_says():
    text = (ROOT / "docs" / "guides" / "clusters.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(--on .*?)` \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for options, duration, hours in rows:
        command = [sys.executable, "-m", "jaxdyn", "plan", "width", "--preset", "paper", *options.split()]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert f" {duration}, {hours} device-hours" in told
