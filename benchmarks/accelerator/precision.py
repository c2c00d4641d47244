"""Which matmul precisions keep the exponent of the distance between a network and its linear model?

|f - f_lin| falls as width^-1/2 … -1; products that round too coarsely put a floor under it, and the exponent goes towards zero.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import jaxdyn as jd
from benchmarks.accelerator.section import Row, Setting, attempts
from jaxdyn.analysis.scaling import power_law
from jaxdyn.experiments.width import sweep as experiment


def exponents(setting: Setting) -> Iterator[Row]:
    """One precision, the part: exponent with its interval, distance of the widest networks, seconds."""
    sizes: tuple[Any, ...] = ((256, 512, 1024, 2048, 4096), 4, (2,), (3, 8), 128, 128, 120, 1.0, 2)
    if setting.tiny:
        sizes = ((16, 32, 64), 2, (1,), (3, 8), 16, 16, 20, 1.0, 2)
    yield from attempts({setting.part: partial(exponent, setting.part, experiment.Config(*sizes))})


def exponent(precision: str, config: experiment.Config) -> Row:
    """The exponent of the `width` experiment's networks and linear models, trained in one precision; why, where the backend refuses."""
    one, _, axes = experiment.ensemble(config)

    def run(expand: Any, width: Any, seed: Any) -> jd.Training:
        training = one(config.depths[0], expand, width, seed)
        outputs = jd.record(jd.at([config.steps]), outputs=jd.probes.Outputs(training.task.x_test))
        return replace(training, record=outputs, precision=precision)

    loop = {"expand": {name: experiment.EXPANSIONS[name] for name in ("full", "linear")}}
    try:
        found = jd.sweep(run, loop=loop, vmap=axes).outputs.isel(step=-1)
    except Exception as refusal:
        if not re.search("not supported|unsupported|unimplemented", str(refusal), re.IGNORECASE):
            raise
        return {"refused": str(refusal)[:160]}
    gap = found.sel(expand="full") - found.sel(expand="linear")
    distance = np.sqrt((gap**2).mean([dim for dim in gap.dims if dim not in ("width", "seed")]))
    fit = power_law(distance, "width", over="seed")
    return {
        "exponent": float(fit.exponent),
        "low": float(fit.low),
        "high": float(fit.high),
        "distance of the widest": float(distance.isel(width=-1).mean()),
    }
