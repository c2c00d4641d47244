"""Spikes, alignment and test loss where a run has learned the training set; their regression, and differences between arms."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdyn.analysis import association, crossings, estimates, spikes
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.mediation.sweep import Config, observations

RULE: dict[str, Any] = {"factor": 2.0, "window": 30, "floor": 0.02, "rearm": 1.1}
"""What counts as a spike of the full training loss."""

MEASURED = {"spikes": "spikes", "alignment": "a", "test": "y", "residual": "residual"}
"""Which number of a run a claim of M3 and M4 is about."""


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of M1 to M4."""
    found = measures(config, dataset)
    observed = centred(config, found)
    fit = association.mediation(observed["y"], exposure=observed["s"], mediator=observed["a"], over="seed")
    slope = float((observed["a"] * observed["y"]).sum() / (observed["a"] ** 2).where(observed["y"].notnull()).sum())
    measured: dict[str, Any] = {
        "M1": estimates.estimate(fit.total, f"{fit.num_units} runs"),
        "M2": fit.share,
        "M2/direct": fit.direct,
        "M2/alignment": fit.mediator,
    }

    def compare(claim: str, arm: str, other: str, names: Mapping[str, str]) -> None:
        pair = (found.sel(arm=arm, drop=True) - found.sel(arm=other, drop=True)).dropna("seed", subset=["y"])
        pair = pair.assign(residual=pair["y"] - slope * pair["a"])
        num = pair.sizes["seed"]
        for name, quantity in names.items():
            numbers: Any = mean_interval(pair[quantity].values) if num >= 3 else np.nan
            measured[f"{claim}/{name}"] = estimates.estimate(numbers, f"{num} seeds")

    for b in config.capped:
        compare(f"M3/b={b}", f"capped b = {b}", f"b = {b}", MEASURED)
        compare(f"M3/b={b}", f"capped b = {b}", f"slow b = {b}", {"rate": "y"})
    for num in config.forced:
        compare(f"M4/{num}", f"forced {num}", observations(config)[-1], MEASURED)
    return measured


def measures(config: Config, dataset: Any) -> Any:
    """Every run where its training loss first reaches the level.

    Returns:
        An `xarray.Dataset` with dims (arm, seed): `y`, `s`, `a`, `alignment`, `spikes`, `at` (steps taken), `rate`; NaN where the
        level was not reached.
    """
    import xarray as xr

    def read(values: Any) -> Any:
        return crossings.at_level(values, dataset["train"], level=config.level, dim="probe_step")

    at = read(dataset["probe_step"])
    starts = spikes.find(dataset["loss"], **RULE)
    count = (starts & (dataset["step"] <= at)).sum("step").where(at.notnull()).astype(float)
    alignment = read(dataset["alignment"])
    found = {
        "y": read(dataset["log_test"]), "s": np.log1p(count), "a": -np.log1p(-alignment), "alignment": alignment, "spikes": count, "at": at,
        "rate": read(dataset["rate"]),
    }  # fmt: skip
    return xr.Dataset(found).transpose("arm", "seed")


def centred(config: Config, found: Any) -> Any:
    """The measures of the observations, each seed's mean over the batch sizes subtracted."""
    observed = found.sel(arm=observations(config))
    return observed - observed.mean("arm")
