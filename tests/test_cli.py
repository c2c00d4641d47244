"""The command line: quick help, a run that ends with figure and verdicts, errors a person can act on."""

import json
import subprocess
import sys
import time

import pytest

from jaxdyn import cli


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


def test_list_names_experiments_and_presets(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "width" in out
    assert "paper" in out


def test_run_and_show_end_with_figure_dataset_and_verdicts(tmp_path):
    flags = [
        "--widths",
        "4",
        "8",
        "16",
        "--seeds",
        "3",
        "--steps",
        "5",
        "--num-train",
        "16",
        "--num-test",
        "8",
        "--depths",
        "1",
    ]
    done = _jaxdyn("run", "width", "--preset", "ci", "--store", str(tmp_path / "w.zarr"), *flags)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "w.png") in done.stdout
    for claim in ("W1/1", "W2/1", "W3/1", "W4/1", "W5/1"):
        assert claim in done.stdout
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / "w.json").read_text())
    assert [one["id"] for one in written["verdicts"]] == ["W1/1", "W2/1", "W3/1", "W4/1", "W5/1"]
    assert written["attributes"]["versions"]["jaxdyn"]
    shown = _jaxdyn("show", str(tmp_path / "w.zarr"))
    assert shown.returncode == 0, shown.stderr
    assert "9 of 9 members done" not in shown.stdout
    assert "27 of 27 members done" in shown.stdout
    assert "W5/1" in shown.stdout
    other = _jaxdyn("run", "width", "--preset", "ci", "--store", str(tmp_path / "w.zarr"), *flags[:-2])
    assert other.returncode == 2
    assert "belongs to another sweep" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "/nowhere.zarr"], "no jaxdyn store"),
        (["run", "width", "--store", "/proc/nothing/w.zarr", "--preset", "ci"], "nothing"),
    ],
)
def test_what_a_person_can_mend_ends_with_status_two_and_one_line(arguments, words, capsys):
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

    def run(config, *, store, progress):
        told.append(type(progress).__name__)
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxdyn.experiments.width.run", run)
    monkeypatch.setattr(cli, "_set_up", lambda *_, **__: None)  # this process is not the command's
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for flags in ([], ["--log"]):
        assert cli.main(["run", "width", "--preset", "ci", "--store", str(tmp_path / "a.zarr"), *flags]) == 130
    assert told == ["Bar", "Lines"]
