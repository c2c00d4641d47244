"""Is jaxdyn right and fast on this accelerator? One command, a cap on the time of every section, JSON and Markdown.

`python -m benchmarks accelerator --minutes 9 --out DIR` runs the sections of `SECTIONS` in order, each in a process of its own; `--tiny`
is for a CPU. One device is measured. `driver` runs them, `section` is what a process does, `table` writes the Markdown.
"""

from dataclasses import replace
from pathlib import Path

from benchmarks.accelerator.driver import Section, run

HERE = "benchmarks.accelerator"
PRECISIONS = (
    "highest",
    "TF32_TF32_F32_X3",
    "BF16_BF16_F32_X9",
    "BF16_BF16_F32_X6",
    "BF16_BF16_F32_X3",
    "TF32_TF32_F32",
    "default",
    "bfloat16",
)
"""Names that `jax.default_matmul_precision` takes: of float32 products, the exact one first."""

COMPARED = ("highest", "TF32_TF32_F32_X3", "BF16_BF16_F32_X3", "default")
"""Those whose exponents are compared: a network for each lies on the device at once."""

QUICK = "--xla_gpu_enable_triton_gemm=false"
"""Quick to compile on a GPU; sweeps are compiled so anyway."""

SECTIONS = (
    Section("versions", f"{HERE}.machine:versions", 0.1, is_timed=False),
    Section("correctness", f"{HERE}.correctness:checks", 0.3, {"XLA_FLAGS": QUICK}, is_timed=False),
    Section(
        "bits", f"{HERE}.bits:checks", 0.3, {"XLA_FLAGS": f"{QUICK} --xla_gpu_deterministic_ops=true"}, is_timed=False
    ),
    Section("memory", f"{HERE}.memory:estimates", 0.3, is_timed=False),
    Section("precision", f"{HERE}.precision:exponents", 0.3, {"XLA_FLAGS": QUICK}, COMPARED, is_timed=False),
    Section("ensembles", f"{HERE}.ensembles:table", 0.4),
    Section("probes", f"{HERE}.probes:costs", 0.2),
    Section("ceilings", f"{HERE}.machine:ceilings", 0.15),
    Section("decompositions", f"{HERE}.decompositions:costs", 0.1),
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
    sections = [replace(one, parts=one.parts[:2]) if tiny else one for one in SECTIONS]
    found = run(sections, seconds=60 * minutes, out=out, tiny=tiny)
    print((out / "results.md").read_text())
    print(out / "results.json")
    return all(one["status"] == "ok" for one in found["sections"])
