"""Curvature and test accuracy at both horizons, on either side of the critical rate."""

from typing import Any

import numpy as np

import jaxdyn as jd
from jaxdyn.analysis import brackets, estimates, phases
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments.flatness.sweep import EARLY, Config, horizon


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C6.1 to C6.3 and the edge of training."""
    found = measures(config, dataset)
    trains, kept, accuracy = found["trains"], found["kept"], found["accuracy"]
    lazy, wild = kept.sel(rate=slice(0.0, 1.6)), found.sel(rate=slice(2.1, None))
    wild = wild.sel(rate=wild["trains"].all("seed"))
    steps = {name: wild[name].sel(horizon="steps") for name in ("relative", "kept")}
    soon = found["above"].sel(rate=slice(2.4, 3.6)).mean("rate")
    loss = best(-np.log(found["test_loss"].sel(horizon="steps")), trains)
    edge = phases.bracket(~trains, dim="rate")
    return {
        "C6.1/steps": _farthest(lazy.sel(horizon="steps")),
        "C6.1/time": _farthest(lazy.sel(horizon="time")),
        "C6.1/rate": _exponent(lazy.sel(horizon="time")),
        "C6.2": mean_interval(steps["relative"].max("rate").values) if wild.sizes["rate"] else np.nan,
        "C6.2/soon": mean_interval(soon.values),
        "C6.2/rate": _exponent(steps["kept"]),
        "C6.3/steps": mean_interval(best(accuracy.sel(horizon="steps"), trains)),
        "C6.3/time": mean_interval(best(accuracy.sel(horizon="time"), trains)),
        "C6.3/loss": np.exp(mean_interval(-loss)),
        "edge": brackets.geometric_mean(edge.low.clip(0), edge.high),
    }


def measures(config: Config, dataset: Any) -> Any:
    """What the claims are about, one number a member.

    Returns:
        An `xarray.Dataset` with dims (rate, seed): `trains`; and with `horizon` ("steps", "time"), NaN where a run does not train:
        `kept` (λ/λ_0), `relative` (η c λ), `test_loss`, `accuracy`; and `above` (the last of the first 50 steps with η c λ ≥ 2, plus one).
    """
    import xarray as xr

    loss, curvature = dataset["loss"], dataset["curvature"]
    ends = curvature.sel(probe_step=[0, config.steps]).rename(probe_step="step")
    phase = phases.classify(loss, curvature=ends, diverged_at=dataset["diverged_at"])
    trains = phase.isin(["lazy", "catapult"]) & (loss.isel(step=-1, drop=True) < loss.isel(step=0, drop=True))
    at = xr.DataArray(horizon(config), dims="rate", coords={"rate": dataset["rate"]})
    first = curvature.sel(probe_step=0, drop=True)
    eta = dataset["learning_rate"].isel(start=0, drop=True) * jd.losses.half_mean.c(config.num_train, 1)

    def both(array: Any) -> Any:
        parts = [array.sel(probe_step=config.steps, drop=True), array.sel(probe_step=at).drop_vars("probe_step")]
        return xr.concat(parts, dim=xr.Variable("horizon", ["steps", "time"])).where(trains)

    early = eta * curvature.sel(probe_step=slice(0, EARLY)) >= 2
    found = {
        "trains": trains,
        "kept": both(curvature / first),
        "relative": both(eta * curvature),
        "test_loss": both(dataset["test_loss"]),
        "accuracy": both(dataset["accuracy"]),
        "above": (early * (early["probe_step"] + 1)).max("probe_step").where(trains),
    }
    return xr.Dataset({name: one.reset_coords(drop=True) for name, one in found.items()})


def best(score: Any, trains: Any) -> np.ndarray:
    """Score at the best super-critical rate minus that at the best sub-critical one, each chosen without the seed, [seed].

    Args:
        score: what is to be large, dims (rate, seed).
        trains: whether a run trains, likewise; a rate counts where all seeds train.
    """
    usable = score.sel(rate=trains.all("seed")).transpose("rate", "seed")
    sides = [usable.sel(rate=slice(2.1, None)).values, usable.sel(rate=slice(0.0, 1.9)).values]
    seeds = usable.sizes["seed"]
    if not all(len(side) for side in sides):
        return np.full(seeds, np.nan)
    picked = [[side[np.delete(side, s, axis=1).mean(axis=1).argmax(), s] for s in range(seeds)] for side in sides]
    return np.subtract(*np.asarray(picked, float))


def _farthest(ratio: Any) -> estimates.Estimate:
    """The geometric mean over seeds at the rate where it is farthest from 1."""
    logs = {float(rate): mean_interval(np.log(ratio.sel(rate=rate).values.astype(float))) for rate in ratio["rate"]}
    rate = max(logs, key=lambda one: abs(logs[one].mean))
    return estimates.estimate(np.exp(logs[rate]), f"worst at {rate:g}")


def _exponent(array: Any) -> Any:
    """The exponent in the rate; NaN where too few rates train."""
    return power_law(array, "rate", over="seed") if array.sizes["rate"] >= 3 else np.nan
