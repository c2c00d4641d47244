"""How fast are sweeps, against PyTorch, hand-written JAX, plain scripts and the machine? What do records, checkpoints and memory cost?

Each row asserts that all rivals compute the same losses before it times them; rivals run in turn, and medians of the rounds' ratios
are quoted. This process has one CPU device a core, as `jaxdyn run` has; every rival has a process of its own, with its library's defaults.
"""

from pathlib import Path
from typing import Any

import jax

from benchmarks import harness
from benchmarks.ensemble import cold, overheads, scaling, training


def main(*, quick: bool = False, path: Path | None = None) -> None:
    """Run the benchmark; at toy size without what needs many processes."""
    rounds = 1 if quick else 7
    table = training.rows(quick=quick, rounds=rounds)
    show(table)
    costs: list[dict[str, Any]] = []
    target = write(table, costs, path)  # and again after every row: a run that is cut off keeps what it measured
    figure = (path or harness.RESULTS / "ensemble.json").with_name("ensemble-scaling.png")
    dear = [
        lambda: overheads.timed(cold.row, rounds=3),
        lambda: overheads.timed(overheads.checkpoints, rounds=3),
        lambda: overheads.timed(overheads.memory),
        lambda: overheads.timed(scaling.row, figure),
    ]
    for measure in [lambda: overheads.timed(overheads.recording, quick=quick, rounds=rounds), *([] if quick else dear)]:
        costs.append(measure())
        target = write(table, costs, path)
    overheads.show(costs)
    print(target)


def write(table: list[dict[str, Any]], costs: list[dict[str, Any]], path: Path | None) -> Path:
    """Write what was measured."""
    question, devices = (__doc__ or "").splitlines()[0], jax.local_device_count()
    return harness.write("ensemble", [*table, *costs], path, question=question, devices=devices)


def show(table: list[dict[str, Any]]) -> None:
    """Print what the rows say."""
    harness.show(
        "an ensemble's training, compilation apart (over 1: the sweep is faster)",
        ["row", "sweep s", "PyTorch / sweep", "JAX / sweep", "of matmul rate", "sweep / best fixed", "at a time"],
        [
            [
                one["row"],
                f"{one['sweep_seconds']:.2f}",
                f"{one['torch_over_sweep']:.2f} ({one['torch_rival']})" if "torch_over_sweep" in one else "-",
                f"{one['jax_over_sweep']:.2f} ({one['jax_rival']})" if "jax_over_sweep" in one else "-",
                f"{one['of_matmul_rate']:.0%}",
                f"{one['sweep_over_best_fixed']:.2f} ({one['best_fixed']})",
                str(one["members_at_a_time"]),
            ]
            for one in table
        ],
    )
