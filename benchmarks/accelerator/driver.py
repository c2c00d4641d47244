"""Sections in processes of their own, killed when their time is up; what is known is on disk at any moment.

Those that measure time run one after the other, what stands between them side by side.

A thread cannot stop XLA while it compiles, a process can be stopped, and the memory of a device is free again when the process that held it
has ended. The processes share one folder of compiled programmes, empty at the start.
"""

import datetime
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accelerator import table

ROOT = Path(__file__).parents[2]
_PAUSE = 0.2
_UNOPTIMISED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Quick to compile on a CPU."""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: its name.
        work: `module:function`, a function of a `section.Setting` that yields rows, dictionaries of plain data.
        share: the part of the whole time that it may take.
        environment: variables of its process; XLA_FLAGS is added to what is there.
        parts: what `Setting.part` says in each of its processes, which run side by side; one process when left as it is.
        is_timed: whether it measures time, so that it must have the device for itself; neighbours that do not run side by side.
    """

    name: str
    work: str
    share: float
    environment: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[str] = ("",)
    is_timed: bool = True


def run(sections: Sequence[Section], *, seconds: float, out: Path, tiny: bool) -> dict[str, Any]:
    """Run sections.

    Args:
        sections: in this order.
        seconds: the time for all.
        out: folder for the results.
        tiny: toy sizes.

    Returns:
        What `results.json` holds: `environment`, and of each section seconds, those of the host's cores, cap, rows, `status` (`ok`;
        `wrong`: a row says so; `failed`; `timeout`; `skipped`: no time was left) and, where it did not end well, the end of its log.
    """
    began = time.monotonic()
    place = (out / "work").resolve()
    shutil.rmtree(place / "cache", ignore_errors=True)
    (place / "cache").mkdir(parents=True)
    found: dict[str, Any] = {
        "benchmark": "accelerator",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "minutes": seconds / 60,
        "tiny": tiny,
        "environment": {},
        "sections": [],
    }
    for is_timed, group in itertools.groupby(sections, key=lambda section: section.is_timed):
        for together in ([one] for one in group) if is_timed else [list(group)]:
            running = [_Running(section, found["environment"], place, tiny) for section in together]
            found["sections"] += [one.entry for one in running]
            _follow(running, began + seconds, seconds, lambda: write(found, out))
    return found


def write(found: Mapping[str, Any], out: Path) -> None:
    """Write JSON and Markdown; who reads them sees the old or the new, never a part."""
    for name, text in (
        ("results.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n"),
        ("results.md", table.markdown(found)),
    ):
        beside = out / f".{name}.{os.getpid()}"
        beside.write_text(text, encoding="utf-8")
        beside.replace(out / name)


class _Running:
    """A section whose processes have been asked for.

    Args:
        section: the section.
        environment: filled by a row that tells it.
        place: the working folder.
        tiny: toy sizes.
    """

    def __init__(self, section: Section, environment: dict[str, Any], place: Path, tiny: bool) -> None:
        self.section, self.environment, self.tiny, self.place = section, environment, tiny, place
        self.entry: dict[str, Any] = {"section": section.name, "status": "skipped"}
        self.entry |= {"seconds": 0.0, "cpu": 0.0, "cap": 0.0, "rows": [], "error": ""}
        names = [f"{section.name}-{i}" if i else section.name for i in range(len(section.parts))]
        self.files = [place / f"{name}.jsonl" for name in names]
        self.logs = [place / f"{name}.log" for name in names]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, cap: float) -> None:
        """Start its processes, which have so many seconds."""
        self.began = time.monotonic()
        self.entry.update(status="running", cap=cap)
        for part, lines, log in zip(self.section.parts, self.files, self.logs, strict=True):
            lines.write_text("")
            setting = {"tiny": self.tiny, "folder": str(self.place), "seconds": self.entry["cap"], "part": part}
            command = [sys.executable, "-m", "benchmarks.accelerator.section", self.section.work]
            command += [json.dumps(setting), str(lines)]
            environment = _environment(self.section, self.place, self.tiny)
            with log.open("w") as output:
                self.processes.append(
                    subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, process_group=0)
                )

    def is_over(self) -> bool:
        """Whether all its processes have ended, or its time is up; then status and seconds are in the entry."""
        over = sum(self._has_ended(process) for process in self.processes) == len(self.processes)
        is_late = not over and time.monotonic() - self.began > self.entry["cap"]
        if over or is_late:
            self.end("timeout" if is_late else "")
        return over or is_late

    def end(self, status: str = "") -> None:
        """Kill its processes and all that they started; a status says what became of it where that is known."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            self._has_ended(process, 0)
        self.entry["seconds"] = round(time.monotonic() - self.began, 1)
        self.entry["cpu"] = round(self.entry["cpu"], 1)
        failed = [log for process, log in zip(self.processes, self.logs, strict=True) if process.returncode]
        self.entry["error"] = "\n".join(log.read_text(errors="replace")[-1500:] for log in failed)
        self.take()
        is_wrong = any(row.get("ok") is False for row in self.entry["rows"])
        self.entry["status"] = status or ("failed" if failed else "wrong" if is_wrong else "ok")

    def take(self) -> bool:
        """Read the rows that are complete; whether there are new ones."""
        texts = [file.read_text().splitlines(keepends=True) for file in self.files if file.exists()]
        rows = [json.loads(line) for lines in texts for line in lines if line.endswith("\n")]
        for row in rows:
            self.environment.update(row.pop("environment", {}))
        is_more = len(rows) > len(self.entry["rows"])
        self.entry["rows"] = rows
        return is_more

    def _has_ended(self, process: subprocess.Popen[bytes], flags: int = os.WNOHANG) -> bool:
        """Whether a process has ended; then its seconds, and those of what it waited for, are added."""
        if process.returncode is None:
            number, status, spent = os.wait4(process.pid, flags)
            if number:
                process.returncode = os.waitstatus_to_exitcode(status)
                self.entry["cpu"] += spent.ru_utime + spent.ru_stime
        return process.returncode is not None


def _follow(waiting: list[_Running], end: float, seconds: float, save: Callable[[], None]) -> None:
    """Run sections side by side, as many processes as there are cores, until the last one is over.

    Args:
        waiting: in this order.
        end: when all must be over, on the monotonic clock.
        seconds: the time of which each section has its share.
        save: called when something is new.
    """
    running: list[_Running] = []
    save()
    try:
        while waiting or running:
            busy = sum(len(one.section.parts) for one in running)
            while waiting and (not busy or busy + len(waiting[0].section.parts) <= (os.cpu_count() or 1)):
                one = waiting.pop(0)
                if (left := end - time.monotonic()) > 1:
                    running.append(one)
                    one.start(min(one.section.share * seconds, left))
                    busy += len(one.section.parts)
                    save()
            is_new = sum(one.take() for one in running) > 0
            over = [one for one in running if one.is_over()]
            running = [one for one in running if one not in over]
            if is_new or over:
                save()
            time.sleep(_PAUSE)
    finally:
        for one in running:
            one.end("failed")


def _environment(section: Section, place: Path, tiny: bool) -> dict[str, str]:
    """Variables of a section's process: one device, the CPU beside it as the reference, memory taken as it is needed."""
    there = dict(os.environ)
    settings = {
        "CUDA_VISIBLE_DEVICES": there.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
        "JAX_COMPILATION_CACHE_DIR": str(place / "cache"),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAXDYN_CACHE": str(place / "jaxdyn"),
        "MPLBACKEND": "agg",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [there.get("PYTHONPATH")])]),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(place / "pycache"),  # installed packages may lack theirs, and many processes start
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    platforms = there.get("JAX_PLATFORMS")
    if platforms and "cpu" not in platforms.split(","):
        settings["JAX_PLATFORMS"] = f"{platforms},cpu"
    flags = (there.get("XLA_FLAGS", ""), section.environment.get("XLA_FLAGS", ""), _UNOPTIMISED if tiny else "")
    return there | settings | section.environment | {"XLA_FLAGS": " ".join(filter(None, flags))}
