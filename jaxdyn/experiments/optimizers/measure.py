"""Rates chosen by training loss, alignment and test loss under two budgets, and how one ranks the other."""

from typing import Any

import numpy as np

from jaxdyn.analysis import association, crossings, estimates
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.optimizers.sweep import Config

BUDGETS = ("steps", "loss")


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C2.6 and O1 under both budgets."""
    found = measures(config, dataset)
    measured: dict[str, Any] = {}
    for budget in BUDGETS:
        here = found.sel(budget=budget)
        is_there = np.isfinite(here["log_test"]).all("seed")
        ranked = here.isel(optimizer=np.flatnonzero(is_there.values))
        num = ranked.sizes["optimizer"]
        alignment, log_test = (ranked[name].astype(float) for name in ("alignment", "log_test"))
        within: Any = np.nan
        spread: Any = np.nan
        if num >= 3:
            within = mean_interval(association.rank_correlation(alignment, log_test, "optimizer").values)
            spread = np.exp(mean_interval((log_test.max("optimizer") - log_test.min("optimizer")).values))
        rows = {
            f"C2.6/{config.task}/{budget}/means": association.ranking(alignment, log_test, "optimizer", over="seed"),
            f"C2.6/{config.task}/{budget}/seeds": within,
            f"O1/{config.task}/{budget}": spread,
        }
        measured |= {id: estimates.estimate(one, f"{num} optimizers") for id, one in rows.items()}
    return measured


def choose(dataset: Any) -> Any:
    """The scale of every optimizer: lowest final training loss, geometric mean over the seeds, where none of them diverged.

    Returns:
        A `DataArray` with dimension `optimizer`; NaN where every rate has a seed that diverged.
    """
    is_sound = (dataset["diverged_at"] < 0).all("seed")
    final = np.log(dataset["loss"].isel(step=-1, drop=True)).mean("seed").where(is_sound)
    best = final.fillna(np.inf).idxmin("scale")
    return best.where(is_sound.any("scale"))


def measures(config: Config, dataset: Any) -> Any:
    """Alignment and test loss of every optimizer at its chosen rate, under both budgets.

    Returns:
        An `xarray.Dataset` with dims (budget, optimizer, seed): `alignment`, `log_test`, `at` (steps taken), and `scale` [optimizer].
        NaN where the loss was not reached.
    """
    import xarray as xr

    scale = choose(dataset)
    names = scale.dropna("optimizer")
    chosen = dataset.sel(optimizer=names["optimizer"]).sel(scale=names)
    curves = {"alignment": chosen["alignment"], "log_test": np.log(chosen["test"]), "at": chosen["step"]}
    found = {}
    for name, curve in curves.items():
        last = curve.broadcast_like(chosen["loss"]).isel(step=-1, drop=True)
        reached = crossings.at_level(curve, chosen["loss"], level=config.level)
        both = xr.concat([last, reached], dim="budget", coords="minimal").assign_coords(budget=list(BUDGETS))
        found[name] = both.drop_vars("scale", errors="ignore")
    return xr.Dataset(found).assign(scale=scale).transpose("budget", "optimizer", "seed")
