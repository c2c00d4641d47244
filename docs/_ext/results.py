"""What is committed in `benchmarks/results`, as the README, the pages and `stale.py` read it; without Sphinx."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from jaxdyn import catalogue
from jaxdyn.catalogue import Record

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def benchmarks(name: str) -> list[tuple[Path, dict[str, Any]]]:
    """The files of a benchmark, with what they say of the machine; one a processor where there are several."""
    found = []
    for file in sorted(RESULTS.glob("*.json")):
        read = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(read, dict) and read.get("benchmark") == name:
            found.append((file, read.get("environment", {})))
    return found


def machine(environment: dict[str, Any]) -> str:
    """The machine in words.

    Example:
        >>> machine({"processor": "AMD EPYC", "cpu_count": 2, "date": "2026-11-25T19:34:31+00:00", "jax": "0.10.2"})
        'AMD EPYC, 2 cores, JAX 0.10.2, 2026-11-25'
        >>> machine({"processor": "Xeon", "cpu_count": 16, "device": "NVIDIA H100", "date": "2026-11-27T18:31:53+00:00"})
        'NVIDIA H100 beside Xeon, 16 cores, JAX ?, 2026-11-27'
    """
    processor = str(environment.get("processor") or "processor not recorded")
    if environment.get("device", "cpu") != "cpu":
        processor = f"{environment['device']} beside {processor}"
    cores = f", {environment['cpu_count']} cores" if "cpu_count" in environment else ""
    return f"{processor}{cores}, JAX {environment.get('jax', '?')}, {str(environment.get('date', '?'))[:10]}"


def of(experiment: str) -> list[Record]:
    """The committed verdicts of an experiment: the preset `laptop` first, then by name."""
    found = [one for one in catalogue.records([RESULTS]) if one.experiment == experiment]
    return sorted(found, key=lambda one: (one.preset != "laptop", one.file))


def counts(record: Record) -> tuple[int, int, int]:
    """How many cases are supported, inconclusive, not supported."""
    found = Counter(str(one.verdict) for one in record.verdicts)
    return found["supported"], found["inconclusive"], found["not supported"]
