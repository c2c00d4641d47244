"""The `width` experiment by its own command, for as long as there is time; its store goes on where it was left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.accelerator.section import Row, Setting

GRACE = 30.0
"""Seconds between SIGTERM and the end of the time, at most a third of it."""

STOPPED = (143, -signal.SIGTERM)
"""Statuses of a run that was stopped with its progress kept, and of one that had none yet."""


def width(setting: Setting) -> Iterator[Row]:
    """`jaxdyn run width`: whether it ended or was stopped, and how many members are done."""
    preset = "ci" if setting.tiny else "paper"
    store = setting.folder / f"width-{preset}.zarr"
    command = [sys.executable, "-m", "jaxdyn", "run", "width", "--preset", preset, "--log", "--store", str(store)]
    command += ["--widths", "16", "32", "64", "--seeds", "2"] if setting.tiny else []
    status, seconds = stopped(command, setting.seconds - min(GRACE, setting.seconds / 3), setting.folder / "run.log")
    found: Row = {"what": f"width --preset {preset}", "status": status, "run s": seconds, "ok": status in (0, *STOPPED)}
    yield found | ({} if not store.exists() else progress(store))


def stopped(command: list[str], seconds: float, log: Path) -> tuple[int, float]:
    """Run a command, with SIGTERM after some seconds; its status and how long it ran."""
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=dict(os.environ))
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
    return process.returncode, round(time.monotonic() - began, 1)


def progress(store: Path) -> Row:
    """How much of a store is there."""
    import jaxdyn as jd

    dataset = jd.results.open(store)
    spent = {f"{part} s": dataset.attrs.get(f"seconds_{part}") for part in ("running", "compiling")}
    return {"members": int(dataset.done.size), "done": int(dataset.done.sum()), **spent}
