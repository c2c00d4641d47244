"""Sections one after the other, each in a process that is killed when its time is up; what is known is on disk at any moment.

A thread cannot stop XLA while it compiles, a process can be stopped, and the memory of a device is free again when the process that held it
has ended. The processes share one folder of compiled programmes, empty at the start.
"""

import datetime
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
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
    """

    name: str
    work: str
    share: float
    environment: Mapping[str, str] = field(default_factory=dict)


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
    place = out / "work"
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
    for section in sections:
        left = seconds - (time.monotonic() - began)
        entry: dict[str, Any] = {"section": section.name, "status": "skipped"}
        entry |= {"seconds": 0.0, "cpu": 0.0, "cap": 0.0, "rows": [], "error": ""}
        found["sections"].append(entry)
        if left > 1:
            entry.update(status="running", cap=min(section.share * seconds, left))
            write(found, out)
            _run_one(section, entry, found, out, tiny)
        write(found, out)
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


def _run_one(section: Section, entry: dict[str, Any], found: dict[str, Any], out: Path, tiny: bool) -> None:
    place = (out / "work").resolve()
    lines, log = place / f"{section.name}.jsonl", place / f"{section.name}.log"
    lines.write_text("")
    request = {"tiny": tiny, "folder": str(place), "seconds": entry["cap"]}
    command = [sys.executable, "-m", "benchmarks.accelerator.section", section.work, json.dumps(request), str(lines)]
    began, worked = time.monotonic(), _cpu()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=_environment(section, place, tiny), stdout=output, stderr=subprocess.STDOUT, process_group=0
        )
    is_late = False
    try:
        while process.poll() is None:
            is_late = time.monotonic() - began > entry["cap"]
            if is_late:
                break
            if _take(lines, entry, found):
                write(found, out)
            time.sleep(_PAUSE)
    finally:  # the process and all that it started
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    _take(lines, entry, found)
    entry["seconds"], entry["cpu"] = round(time.monotonic() - began, 1), round(_cpu() - worked, 1)
    is_wrong = any(row.get("ok") is False for row in entry["rows"])
    entry["status"] = "timeout" if is_late else "failed" if status else "wrong" if is_wrong else "ok"
    if status:
        entry["error"] = log.read_text(errors="replace")[-1500:]


def _cpu() -> float:
    """Seconds that the processes which have ended spent on the host's cores."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _take(lines: Path, entry: dict[str, Any], found: dict[str, Any]) -> bool:
    """Read the rows that are complete; tell whether there are new ones."""
    rows = [json.loads(line) for line in lines.read_text().splitlines(keepends=True) if line.endswith("\n")]
    for row in rows:
        found["environment"] = row.pop("environment", found["environment"])
    is_more = len(rows) > len(entry["rows"])
    entry["rows"] = rows
    return is_more


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
