"""Is jaxdyn right and fast on this accelerator? One command, a cap on the time of every section, JSON and Markdown.

`python -m benchmarks accelerator --minutes 9 --out DIR` runs the sections of `SECTIONS` in order, each in a process of its own; `--tiny`
is for a CPU. One device is measured. `driver` runs them, `section` is what a process does, `table` writes the Markdown.
"""

from pathlib import Path

from benchmarks.accelerator.driver import Section, run

HERE = "benchmarks.accelerator"
SECTIONS = (
    Section("versions", f"{HERE}.machine:versions", 0.06),
    Section("ceilings", f"{HERE}.machine:ceilings", 0.12),
    Section("correctness", f"{HERE}.correctness:checks", 0.2),
    Section("bits", f"{HERE}.bits:checks", 0.12, {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}),
    Section("ensembles", f"{HERE}.ensembles:table", 0.25),
    Section("probes", f"{HERE}.probes:costs", 0.15),
    Section("memory", f"{HERE}.memory:estimates", 0.1),
    Section("precision", f"{HERE}.precision:exponents", 0.2),
    Section("width", f"{HERE}.experiment:width", 1.0),
)
"""In the order in which they run, each with the share of the whole time that it may take; the last one gets what is left."""


def main(*, minutes: float, out: Path, tiny: bool = False) -> bool:
    """Run the trial, print its tables.

    Args:
        minutes: the whole time.
        out: folder of `results.json`, `results.md` and, in `work/`, logs, compiled programmes and the store of the experiment.
        tiny: toy sizes: does it run, not how fast.

    Returns:
        Whether every section is green.
    """
    found = run(SECTIONS, seconds=60 * minutes, out=out, tiny=tiny)
    print((out / "results.md").read_text())
    print(out / "results.json")
    return all(one["status"] == "ok" for one in found["sections"])
