"""The command line: quick help, a run that ends with figure and verdicts, errors a person can act on."""

import argparse
import dataclasses
import importlib
import json
import subprocess
import sys
import time

import pytest

from jaxdyn import cli, experiments

speed = importlib.import_module("jaxdyn.ensemble.deciding.speed")


def _jaxdyn(*arguments, timeout=250, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "jaxdyn", *arguments], capture_output=True, text=True, timeout=timeout, cwd=cwd
    )


def test_help_answers_before_anything_heavy_is_loaded():
    program = "import sys, jaxdyn.cli; jaxdyn.cli._parser().format_help(); print(sorted(set(sys.modules) & {'jax', 'xarray', 'tyro'}))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_help_answers_in_under_half_a_second():
    def seconds():
        began = time.monotonic()
        assert "run" in _jaxdyn("--help").stdout
        return time.monotonic() - began

    assert min(seconds() for _ in range(5)) < 0.5


def test_list_groups_experiments_by_chapter_and_names_presets(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(f"    {name} " in out for name in experiments.names())
    assert out.index("Part I: ") < out.index("Wide networks become linear") < out.index("width") < out.index("dag")
    assert "paper" in out


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """This device counts as measured, so that `jaxdyn run` does not take ten seconds for it; `test_speed` and `test_doctor` do."""
    monkeypatch.setenv("JAXDYN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("jaxdyn.ensemble.calibrate", lambda: None)
    (tmp_path / "cache").mkdir()
    found = dataclasses.asdict(dataclasses.replace(speed._ASSUMED["cpu"], measured="2026-11-24"))
    (tmp_path / "cache" / "speed.json").write_text(json.dumps({speed._device(): found}))


def test_a_preset_that_an_experiment_lacks_is_refused_by_name(capsys):
    assert "desk" not in experiments.load("rfm").presets
    assert cli.main(["plan", "rfm", "--preset", "desk", "--on", "A100"]) == 2
    assert "rfm has no preset 'desk' yet; it has ci, laptop, paper" in capsys.readouterr().err


def test_more_seeds_go_into_the_store_of_the_preset_and_other_changes_into_their_own():
    preset = experiments.load("width").presets["ci"]
    options = argparse.Namespace(name="width", preset="ci", float64=False)
    more, other = dataclasses.replace(preset, seeds=99), dataclasses.replace(preset, num_train=17)
    assert [cli._default_store(options, preset, one).name for one in (preset, more)] == ["width-ci.zarr"] * 2
    assert cli._default_store(options, preset, other).name not in ("width-ci.zarr", "")
    assert cli._default_store(options, preset, other) == cli._default_store(
        options, preset, dataclasses.replace(other, seeds=7)
    )


def test_run_show_and_report_end_with_figure_dataset_verdicts_and_page(tmp_path, measured, monkeypatch, capsys):
    sizes = "--widths 4 8 16 --seeds 3 --steps 5 --num-train 16 --num-test 8"
    store, flags = str(tmp_path / "w.zarr"), sizes.split()
    done = _jaxdyn("run", "width", "--preset", "ci", "--store", store, *flags, "--depths", "1")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "w.png") in done.stdout
    claims = ["W1/1", "W2/1", "W3/1", "W4/1", "W5/1"]
    assert all(claim in done.stdout for claim in claims)
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / "w.json").read_text())
    assert [one["id"] for one in written["verdicts"]] == claims
    assert (written["preset"], written["date"][:2]) == ("ci, changed", "20")
    assert written["attributes"]["versions"]["jaxdyn"]
    assert cli.main(["show", store]) == 0
    shown = capsys.readouterr().out
    assert "27 of 27 members done" in shown
    assert "W5/1" in shown
    assert cli.main(["report", store, "-o", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert all(one["statement"] in page for one in written["verdicts"])
    assert "data:image/svg+xml" in page
    monkeypatch.chdir(tmp_path)
    assert cli.main(["figure", f"{store}/"]) == 0
    assert (tmp_path / "w.pdf").read_bytes().startswith(b"%PDF")
    assert cli.main(["figure", store, "-o", "paper/w.svg"]) == 0
    assert "<svg" in (tmp_path / "paper" / "w.svg").read_text(encoding="utf-8")
    assert cli.main(["figure", store, "-o", "w.doc"]) == 2
    capsys.readouterr()
    assert cli.main(["claims", str(tmp_path / "w.json"), "--experiment", "width"]) == 0
    assert "ci, changed" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(cli, "_set_up", lambda *_, **__: None)  # this process is not the command's
    longer = sizes.replace("--steps 5", "--steps 6").split()
    assert cli.main(["run", "width", "--preset", "ci", "--store", store, *longer, "--depths", "1"]) == 2
    error = capsys.readouterr().err
    assert "belongs to another sweep" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "/nowhere.zarr"], "no jaxdyn store"),
        (["figure", "/nowhere.zarr"], "no jaxdyn store"),
        (["run", "width", "--store", "/proc/nothing/w.zarr", "--preset", "ci"], "nothing"),
    ],
)
def test_what_a_person_can_mend_ends_with_status_two_and_one_line(arguments, words, measured, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments", [["run", "nonsense"], ["show"], ["list", "--nonsense"], ["run", "width", "--preset", "huge"]]
)
def test_bad_usage_is_refused_by_the_parser(arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_list", interrupt)
    assert cli.main(["list"]) == 130
    assert "goes on from there" in capsys.readouterr().err


def test_plan_prints_cells_and_a_budget_without_running(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_set_up", lambda *_, **__: None)  # this process is not the command's
    monkeypatch.setattr("jaxdyn.ensemble.compiling.programme.Programme.start", None)
    assert cli.main(["plan", "width", "--preset", "ci", "--on", "A100", "--count", "4", "--seeds", "3"]) == 0
    out = capsys.readouterr().out
    assert "15 members" in out
    assert "4 × A100" in out
    assert "device-hours" in out
    assert cli.main(["plan", "width", "--on", "K80"]) == 2
    assert "H100" in capsys.readouterr().err


def test_importing_jaxdyn_changes_no_global_and_prints_nothing():
    program = (
        "import jax; before = dict(jax.config.values); import jaxdyn as jd; jd.models; jd.tasks; jd.sweep; jd.experiments; jd.analysis; "
        "print([k for k in before if before[k] != jax.config.values[k]])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert done.stderr == ""


def test_log_gives_plain_lines_even_on_a_terminal(monkeypatch, tmp_path):
    told = []

    def run(_, config, *, store, progress):
        told.append(type(progress).__name__)
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxdyn.experiments.Experiment.run", run)
    monkeypatch.setattr(cli, "_set_up", lambda *_, **__: None)  # this process is not the command's
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for flags in ([], ["--log"]):
        assert cli.main(["run", "width", "--preset", "ci", "--store", str(tmp_path / "a.zarr"), *flags]) == 130
    assert told == ["Bar", "Lines"]
