"""Curvature and accuracy of the runs that train, at both horizons."""

from typing import Any

import numpy as np

from jaxdyn import losses
from jaxdyn.analysis import estimates, phases
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments.flatness.sweep import EARLY, Config, horizon


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C6.1 to C6.3 and the edge of training."""
    found = measures(config, dataset)
    lazy, wild = found.sel(rate=slice(0.0, 1.6)), found.sel(rate=slice(2.1, None))
    wild = wild.sel(rate=wild["trains"].all("seed"))
    measured: dict[str, Any] = {}
    for when in ("steps", "time"):
        logs = np.log(lazy["kept"].sel(horizon=when).astype(float))
        worst = max(
            (mean_interval(logs.sel(rate=rate).values) for rate in logs["rate"].values), key=lambda one: abs(one.mean)
        )
        measured[f"C6.1/{when}"] = np.exp(worst)
    measured["C6.1/rate"] = _exponent(lazy["kept"].sel(horizon="time"))
    measured["C6.2"] = float(wild["relative"].sel(horizon="steps").max()) if wild.sizes["rate"] else np.nan
    measured["C6.2/soon"] = mean_interval(found["above"].sel(rate=slice(2.4, 3.6)).mean("rate").values)
    measured["C6.2/rate"] = _exponent(wild["kept"].sel(horizon="steps"))
    for when in ("steps", "time"):
        measured[f"C6.3/{when}"] = mean_interval(best(found["accuracy"].sel(horizon=when), found["trains"]))
    gain = best(-np.log(found["test_loss"].sel(horizon="steps")), found["trains"])
    measured["C6.3/loss"] = np.exp(mean_interval(-gain))
    edge = phases.bracket(~found["trains"], dim="rate")
    middle = float(np.sqrt(edge.low * edge.high).mean())
    measured["edge"] = estimates.Estimate(middle, float(edge.low.min()), float(edge.high.max()))
    return measured


def measures(config: Config, dataset: Any) -> Any:
    """What the claims are about, one number a member.

    Returns:
        An `xarray.Dataset` with dims (rate, seed): `phase`, `trains`; and with `horizon` ("steps", "time"), NaN where a run does not train:
        `kept` (λ/λ_0), `relative` (η c λ), `test_loss`, `accuracy`; and `above` (the last of the first 50 steps with η c λ ≥ 2, plus one).
    """
    import xarray as xr

    loss, curvature = dataset["loss"], dataset["curvature"]
    ends = curvature.sel(probe_step=[0, config.steps]).rename(probe_step="step")
    phase = phases.classify(loss, curvature=ends, diverged_at=dataset["diverged_at"])
    trains = phase.isin(["lazy", "catapult"]) & (loss.isel(step=-1, drop=True) < loss.isel(step=0, drop=True))
    at = xr.DataArray(horizon(config), dims="rate", coords={"rate": dataset["rate"]})
    first = curvature.sel(probe_step=0, drop=True)
    eta = dataset["learning_rate"].isel(start=0, drop=True) * losses.half_mean.c(config.num_train, 1)

    def both(array: Any) -> Any:
        parts = [array.sel(probe_step=config.steps, drop=True), array.sel(probe_step=at).drop_vars("probe_step")]
        return xr.concat(parts, dim=xr.Variable("horizon", ["steps", "time"])).where(trains)

    early = eta * curvature.sel(probe_step=slice(0, EARLY)) >= 2
    found = {
        "phase": phase,
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


def _exponent(array: Any) -> Any:
    """The exponent in the rate; NaN where too few rates train."""
    return power_law(array, "rate", over="seed") if array.sizes["rate"] >= 3 else np.nan
