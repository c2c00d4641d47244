"""Row (c): a whole sweep in a fresh process with an empty cache, compilation included, against plain scripts.

Widths × seeds × rates of full-batch gradient descent (two hidden tanh layers, d = 64, n = 128), all final losses equal. The good script
compiles once a width with rate and seed traced, and calls that for every member, or vmapped: the faster of the two counts. The naive one
compiles for every configuration.
"""

import statistics
import tempfile
from typing import Any

import numpy as np

from benchmarks.ensemble.child import ask

SIZES = {"widths": [32, 64, 128, 256, 512], "seeds": 4, "rates": [0.05, 0.1, 0.15, 0.2], "steps": 200}


def row(*, rounds: int) -> dict[str, Any]:
    """The row."""
    taken: dict[str, list[dict[str, Any]]] = {"sweep": [], "again": [], "members": [], "vmap": [], "naive": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            kept = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_ENABLE_COMPILATION_CACHE": "true"}
            taken["sweep"].append(ask("cold_sweep", environment=kept, **SIZES))
            taken["again"].append(ask("cold_sweep", environment=kept, **SIZES))
        for style in ("members", "vmap", *(["naive"] if number == 0 else [])):
            taken[style].append(ask("cold_script", style=style, **SIZES))
    expected = taken["sweep"][0]["losses"]
    for style, found in taken.items():
        np.testing.assert_allclose(found[0]["losses"], expected, rtol=2e-2, atol=1e-6, err_msg=style)
    seconds = {style: [one["seconds"] for one in found] for style, found in taken.items()}
    good = min(("members", "vmap"), key=lambda style: statistics.median(seconds[style]))
    compiling = [
        again["compiling"] / cold["compiling"] for again, cold in zip(taken["again"], taken["sweep"], strict=True)
    ]
    return {
        "row": "cold",
        **{f"{style}_seconds": statistics.median(values) for style, values in seconds.items()},
        "good": good,
        "good_over_sweep": statistics.median(g / s for g, s in zip(seconds[good], seconds["sweep"], strict=True)),
        "naive_over_sweep": seconds["naive"][0] / seconds["sweep"][0],
        "seconds_waiting_for_xla": statistics.median(one["waiting"] for one in taken["sweep"]),
        "trace_seconds": statistics.median(one["tracing"] for one in taken["sweep"]),
        "compile_seconds_cold": statistics.median(one["compiling"] for one in taken["sweep"]),
        "compile_seconds_again": statistics.median(one["compiling"] for one in taken["again"]),
        "compiling_again_over_cold": statistics.median(compiling),
        "times": seconds,
    }
