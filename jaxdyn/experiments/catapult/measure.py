"""Phases, peaks and final eigenvalues of every case, and where each begins and ends along the rates."""

from typing import Any

import numpy as np

from jaxdyn import losses
from jaxdyn.analysis import estimates, phases
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments.catapult.maps import error
from jaxdyn.experiments.catapult.sweep import Config, cases

FALL = 0.97
"""An eigenvalue that keeps less than this part has fallen."""

WINDOW = slice(2.199, 3.801)
"""Relative rates of the catapult phase."""


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C1.1 to C1.5, C1.8, C6.4 and the exact maps."""
    found, whole = measures(config, dataset), largest(config)
    measured: dict[str, Any] = {}
    for family, label in whole.items():
        measured |= _regimes(family, found.sel(case=label))
    for family in ("single network", "single quadratic", "uv"):
        here = by_size(config, found, family)
        drift = np.abs(here["kept"].isel(direction=0, drop=True) - 1).sel(rate=slice(0.0, 1.7)).mean("rate")
        measured[f"C6.4/{family}"] = power_law(here["peak"].sel(rate=3.0, method="nearest"), "width", over="seed")
        measured[f"C1.1b/{family}"] = power_law(drift.where(drift > 0), "width", over="seed")
    for family in ("single network", "single quadratic"):
        measured |= _sizes(family, by_size(config, found, family), "width")
        window = found.sel(case=whole[family], rate=slice(2.19, 3.61))
        measured[f"C1.4/peak/{family}"] = power_law(window["peak"], "rate", over="seed")
        measured[f"C1.4/kernel/{family}"] = power_law(window["kept"].isel(direction=0, drop=True), "rate", over="seed")
    general = by_size(config, found, "general")
    measured["C1.4/gamma"] = power_law(general["peak"].sel(rate=3.0, method="nearest"), "gamma", over="seed")
    measured |= _sizes("general", general, "gamma")
    for family in ("clusters network", "clusters quadratic"):
        for index in (0, 1):
            measured[f"C1.5/λ_{index + 1}/{family}"] = _falls(found.sel(case=whole[family]), index)
    for pair in ("single", "clusters"):
        measured |= _agreement(pair, *(found.sel(case=whole[f"{pair} {one}"]) for one in ("network", "quadratic")))
    quadratics = (found.sel(case=whole[f"{pair} quadratic"]) for pair in ("single", "clusters"))
    measured["C1.8"] = min(_share(one["phase"] == "catapult", WINDOW) for one in quadratics)
    if dataset["loss"].dtype == np.float64:
        for family in ("single quadratic", "uv", "clusters quadratic"):
            c = losses.mse.c(config.num_train, 1) if "clusters" in family else 1.0
            measured[f"map/{family}"] = error(
                dataset.sel(case=whole[family], rate=slice(0.0, 3.8)), steps=config.steps, c=c
            )
    return measured


def measures(config: Config, dataset: Any) -> Any:
    """What the claims are about, one number a member.

    Returns:
        An `xarray.Dataset` with dims (case, rate, seed): `phase`, `trains`, `peak` (largest loss; NaN where the run does not train),
        `c`, `learning_rate`, and with `direction` (the larger at the start first) `relative` (η c λ_i(0)), `final_relative` (at the
        end) and `kept` (λ_i(T)/λ_i(0); NaN where the run does not train).
    """
    import xarray as xr

    kernel = dataset["state_kernel"]
    first, last = kernel.isel(probe_step=0, drop=True), kernel.isel(probe_step=-1, drop=True)
    is_swapped = first.isel(direction=1) > first.isel(direction=0)
    first, last = (xr.where(is_swapped, one.isel(direction=slice(None, None, -1)), one) for one in (first, last))
    curvature = kernel.max("direction", skipna=False).rename(probe_step="step")
    phase = phases.classify(dataset["loss"], curvature=curvature, diverged_at=dataset["diverged_at"])
    loss = dataset["loss"]
    trains = phase.isin(["lazy", "catapult"]) & (loss.isel(step=-1, drop=True) < loss.isel(step=0, drop=True))
    c = xr.DataArray(
        [2 / config.num_train if "clusters" in label else 1.0 for label in dataset["case"].values.tolist()], dims="case"
    )
    eta = dataset["learning_rate"].isel(start=0, drop=True)
    found = {
        "phase": phase,
        "trains": trains,
        "peak": loss.max("step").where(trains),
        "c": c,
        "learning_rate": eta,
        "relative": eta * c * first,
        "final_relative": (eta * c * last).where(trains),
        "kept": (last / first).where(trains & (first > 0)),
    }
    return xr.Dataset({name: one.reset_coords(drop=True) for name, one in found.items()}).transpose(
        "case", "rate", "seed", ...
    )


def largest(config: Config) -> dict[str, str]:
    """The label of the last, largest case of every family."""
    return {case.family: label for label, case in cases(config).items()}


def by_size(config: Config, found: Any, family: str) -> Any:
    """The cases of a family along their width or γ."""
    name = "gamma" if family == "general" else "width"
    chosen = {label: case.size for label, case in cases(config).items() if case.family == family}
    return found.sel(case=list(chosen)).assign_coords(case=list(chosen.values())).rename(case=name)


def _regimes(family: str, here: Any) -> dict[str, Any]:
    """Lazy, catapult, divergent, and where they end."""
    phase = here["phase"]
    is_below = (phase == "catapult") & (here["final_relative"].max("direction") < 2)
    found = {
        f"C1.1/{family}": _share(phase == "lazy", slice(0.0, 1.8)),
        f"C1.2/{family}": _share(is_below, WINDOW),
        f"C1.3/boundary/{family}": _boundary(phases.bracket(~here["trains"], dim="rate")),
    }
    if not family.endswith("network"):
        found[f"C1.3/{family}"] = _share(phase == "divergent", slice(4.2, 6.0))
    if "clusters" not in family and family != "general":
        found[f"C1.2/boundary/{family}"] = _boundary(phases.bracket(phase != "lazy", dim="rate"))
    return found


def _sizes(family: str, here: Any, size: str) -> dict[str, Any]:
    kept = here["kept"].isel(direction=0, drop=True)
    return {
        f"C1.4/size/{family}/{rate:g}": power_law(kept.sel(rate=rate, method="nearest"), size, over="seed")
        for rate in (2.2, 2.8, 3.5)
    }


def _falls(here: Any, index: int) -> estimates.Estimate:
    """From which rate on an eigenvalue falls, in its own units; a run that does not train counts as one where it does."""
    kept, own = here["kept"].isel(direction=index), here["relative"].isel(direction=index)
    edge = phases.bracket(~(kept >= FALL), dim="rate")
    unit = (own / here["rate"]).mean("rate")  # λ_i/λ_1
    return _boundary(phases.Bracket(edge.low * unit, edge.high * unit))


def _agreement(pair: str, network: Any, quadratic: Any) -> dict[str, Any]:
    """Peaks and final curvatures of the network over those of its quadratic model."""
    found: dict[str, Any] = {}
    for rate in (2.5, 3.0):
        one, other = (data.sel(rate=rate, method="nearest") for data in (network, quadratic))
        for claim, name in {"peak": "peak", "kernel": "kept"}.items():
            ratio = np.log(one[name] / other[name])
            ratio = ratio.isel(direction=0) if "direction" in ratio.dims else ratio
            found[f"C1.5/{claim}/{pair}/{rate:g}"] = np.exp(mean_interval(ratio.values.astype(float)))
    return found


def _boundary(edge: Any) -> estimates.Estimate:
    """The brackets of all seeds together, and the mean of their middles."""
    low, high = np.asarray(edge.low.values, float), np.asarray(edge.high.values, float)
    is_known = np.isfinite(low).all() and np.isfinite(high).all()
    middle = float(np.sqrt(low * high).mean()) if is_known else float("nan")
    return estimates.Estimate(middle, float(low.min()), float(high.max()))


def _share(condition: Any, window: slice) -> float:
    """The share of the runs with rates in a window, in the seed where it is smallest."""
    return float(condition.sel(rate=window).mean("rate").min())
