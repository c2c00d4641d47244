"""The trial on an accelerator: a section cannot harm the next, what is known is on disk at once, and the page says what the JSON says."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accelerator import correctness, experiment
from benchmarks.accelerator.driver import Section, run
from benchmarks.accelerator.section import attempts

ROOT = Path(__file__).parents[1]
FAKES = """
import json, os, subprocess, sys, time

def fine(setting):
    yield {"what": "first | one", "n": 3, "x": 1.25e-7, "yes": True, "times": [1, 2], "environment": {"device": "fake"}}
    yield {"what": "second", "other": 2.5}

def failing(setting):
    yield {"what": "before"}
    raise RuntimeError("out of luck")

def crashing(setting):
    yield {"what": "before"}
    os.abort()

def wrong(setting):
    yield {"what": "judged", "ok": False}

def sleeping(setting):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield {"what": "asleep", "pid": child.pid, "cap": setting.seconds}
    time.sleep(600)

def witness(setting):
    def read():
        return json.loads((setting.folder.parent / "results.json").read_text())["sections"]
    yield {"what": "before", "statuses": [one["status"] for one in read()], "tiny": setting.tiny}
    for _ in range(200):
        if read()[-1]["rows"]:
            break
        time.sleep(0.05)
    yield {"what": "own rows", "seen": [row["what"] for row in read()[-1]["rows"]]}
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    (tmp_path / "fakes.py").write_text(FAKES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda name, share=0.5, **settings: Section(name, f"fakes:{name}", share, **settings)


def _is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def _dies(pid, seconds=10):
    end = time.monotonic() + seconds
    while _is_alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not _is_alive(pid)


def test_sections_that_fail_crash_or_sleep_are_recorded_and_the_next_ones_run(fakes, tmp_path):
    names = ("failing", "crashing", "sleeping", "wrong", "fine")
    began = time.monotonic()
    run([fakes(name, 0.05 if name == "sleeping" else 0.5) for name in names], seconds=60, out=tmp_path, tiny=True)
    found = {one["section"]: one for one in json.loads((tmp_path / "results.json").read_text())["sections"]}
    assert {name: one["status"] for name, one in found.items()} == {
        "failing": "failed",
        "crashing": "failed",
        "sleeping": "timeout",
        "wrong": "wrong",
        "fine": "ok",
    }
    assert "RuntimeError: out of luck" in found["failing"]["error"]
    for name in ("failing", "crashing"):
        assert [row["what"] for row in found[name]["rows"]] == ["before"]
    (asleep,) = found["sleeping"]["rows"]
    assert asleep["cap"] == found["sleeping"]["cap"] == 3
    assert 3 <= found["sleeping"]["seconds"] < 15
    assert _dies(asleep["pid"])  # and what it had started
    assert time.monotonic() - began < 60


def test_what_is_known_is_on_disk_before_a_section_ends(fakes, tmp_path):
    found = run([fakes("fine"), fakes("failing"), fakes("witness")], seconds=60, out=tmp_path, tiny=False)
    before, own = found["sections"][-1]["rows"]
    assert before == {"what": "before", "statuses": ["ok", "failed", "running"], "tiny": False}
    assert own["seen"][0] == "before"
    assert found["environment"] == {"device": "fake"}
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".results")]


def test_a_section_for_which_no_time_is_left_is_skipped(fakes, tmp_path):
    found = run([fakes("sleeping", 1.0), fakes("fine")], seconds=2, out=tmp_path, tiny=True)
    assert [one["status"] for one in found["sections"]] == ["timeout", "skipped"]
    assert "| fine | skipped |" in (tmp_path / "results.md").read_text()


def test_sections_end_with_the_driver(fakes, tmp_path):
    script = textwrap.dedent(
        f"""
        import signal, sys
        from pathlib import Path
        from benchmarks.accelerator.driver import Section, run
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(143))
        run([Section("sleeping", "fakes:sleeping", 1.0)], seconds=300, out=Path({str(tmp_path)!r}), tiny=True)
        """
    )
    driver = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    rows = tmp_path / "work" / "sleeping.jsonl"
    end = time.monotonic() + 60
    while not (rows.exists() and rows.read_text().endswith("\n")) and time.monotonic() < end:
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=30) == 143
    assert _dies(json.loads(rows.read_text())["pid"])


def test_the_page_says_what_the_json_says(fakes, tmp_path):
    run([fakes("fine"), fakes("failing"), fakes("wrong")], seconds=60, out=tmp_path, tiny=True)
    found = json.loads((tmp_path / "results.json").read_text())
    overview, *tables = _tables((tmp_path / "results.md").read_text())
    assert [row["section"] for row in overview] == [one["section"] for one in found["sections"]]
    for shown, row in zip(overview, found["sections"], strict=True):
        _agree(shown, {name: row[name] for name in ("section", "status", "seconds", "cpu", "cap")})
    for shown_rows, section in zip(tables, found["sections"], strict=True):
        for shown, row in zip(shown_rows, section["rows"], strict=True):
            _agree(shown, {name: value for name, value in row.items() if not isinstance(value, (list, dict))})


def _tables(page):
    """Rows of each Markdown table as dictionaries, empty cells left out."""
    for block in page.split("\n\n"):
        if block.startswith("| "):
            lines = [
                [cell.strip().replace("\0", "|") for cell in line.replace("\\|", "\0").strip("| ").split(" | ")]
                for line in (one.removesuffix("|") for one in block.splitlines())
            ]
            yield [{k: v for k, v in zip(lines[0], line, strict=False) if v} for line in lines[2:]]


def _agree(shown, row):
    assert shown.keys() == row.keys()
    for name, value in row.items():
        if isinstance(value, bool):
            assert shown[name] == ("yes" if value else "no")
        elif isinstance(value, float):
            assert float(shown[name]) == pytest.approx(value, rel=1e-3)
        else:
            assert shown[name] == str(value)


def test_an_action_that_raises_is_a_row(tmp_path):
    def fail():
        raise ValueError("no")

    first, second = attempts({"bad": fail, "good": lambda: {"x": 1}})
    assert (first["what"], first["ok"], first["error"]) == ("bad", False, "ValueError: no")
    assert (second["what"], second["x"]) == ("good", 1)


@pytest.mark.parametrize("found", [[1.0, 2.0003], [1.0, np.nan]], ids=["off", "nan"])
def test_what_differs_is_judged_wrong(found):
    expected = np.array([1.0, 2.0])
    assert correctness.judged(expected, expected, 1e-4)["ok"]
    assert not correctness.judged(found, expected, 1e-4)["ok"]


def test_a_command_is_stopped_when_its_time_is_up(tmp_path):
    asleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    status, seconds = experiment.stopped(asleep, 1.0, tmp_path / "log")
    assert status in experiment.STOPPED
    assert 1 <= seconds < 20
    status, _ = experiment.stopped([sys.executable, "-c", "print('done')"], 60.0, tmp_path / "log")
    assert (status, (tmp_path / "log").read_text()) == (0, "done\n")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_whole_trial_is_green_at_toy_size(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "accelerator", "--tiny", "--minutes", "20", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True)
    found = json.loads((tmp_path / "results.json").read_text())
    assert {one["section"]: one["status"] for one in found["sections"]} == dict.fromkeys(
        ("versions", "ceilings", "correctness", "bits", "ensembles", "probes", "memory", "precision", "width"), "ok"
    )
    assert done.returncode == 0
    assert found["environment"].keys() >= {"date", "processor", "jax", "python"}
    assert (tmp_path / "results.md").read_text() in done.stdout
