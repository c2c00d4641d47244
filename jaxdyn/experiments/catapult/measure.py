"""Shares of runs in a phase, brackets of its boundaries, exponents of peaks and final curvatures, and the exact maps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdyn as jd
from jaxdyn.analysis import brackets, estimates, phases
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments.catapult.sweep import Config, cases, largest

FALL = 0.97
"""An eigenvalue that ends below this part of its start has fallen."""

NEARLY_ALL = 0.95
"""Of the rates of a window, this part or more is nearly all."""


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C1.1 to C1.5, C1.8, C6.4, and of the exact maps where the run was in double precision."""
    found = measures(config, dataset)
    whole = {family: found.sel(case=label) for family, label in largest(config).items()}
    quadratics = [whole["single quadratic"], whole["clusters quadratic"]]
    shares = {here["case"].item(): _share(here["phase"] == "catapult", 2.2, 3.8) for here in quadratics}
    measured: dict[str, Any] = {"C1.8": estimates.worst(shares, lowest=True)}
    for family, here in whole.items():
        measured |= _regimes(family, here)
    for family in ("single network", "single quadratic", "uv"):
        here = by_size(found, config, family)
        drift = np.abs(_first(here["kept"]) - 1).sel(rate=slice(0.0, 1.7)).mean("rate")
        measured[f"C1.1b/{family}"] = power_law(drift.where(drift > 0), "width", over="seed")
        measured[f"C6.4/{family}"] = power_law(_near(here["peak"], 3.0), "width", over="seed")
    for family in ("single network", "single quadratic"):
        window = whole[family].sel(rate=slice(2.19, 3.61))
        measured[f"C1.4/peak/{family}"] = power_law(window["peak"], "rate", over="seed")
        measured[f"C1.4/kernel/{family}"] = power_law(_first(window["kept"]), "rate", over="seed")
    for family, size in {"single network": "width", "single quadratic": "width", "general": "gamma"}.items():
        kept = _first(by_size(found, config, family)["kept"])
        for rate in (2.2, 2.8, 3.5):
            measured[f"C1.4/size/{family}/{rate:g}"] = power_law(_near(kept, rate), size, over="seed")
    peak = by_size(found, config, "general")["peak"]
    measured["C1.4/gamma"] = power_law(_near(peak, 3.0), "gamma", over="seed")
    for family in ("clusters network", "clusters quadratic"):
        for index in (0, 1):
            measured[f"C1.5/λ_{index + 1}/{family}"] = _falls(whole[family].isel(direction=index))
    for pair in ("single", "clusters"):
        ratio = whole[f"{pair} network"][["peak", "kept"]] / whole[f"{pair} quadratic"][["peak", "kept"]]
        for claim, one in {"peak": ratio["peak"], "kernel": _first(ratio["kept"])}.items():
            for rate in (2.5, 3.0):
                logs = np.log(_near(one, rate)).values.astype(float)
                measured[f"C1.5/{claim}/{pair}/{rate:g}"] = np.exp(mean_interval(logs))
    if dataset["loss"].dtype == np.float64:
        for family in ("single quadratic", "uv", "clusters quadratic"):
            here = dataset.sel(case=largest(config)[family], rate=slice(0.0, 3.8))
            measured[f"map/{family}"] = map_error(here, steps=config.steps, c=_c(config, family))
    return measured


def measures(config: Config, dataset: Any) -> Any:
    """What the claims are about, one number a member.

    Returns:
        An `xarray.Dataset` with dims (case, rate, seed): `phase`, `trains`, `peak` (largest loss; NaN where the run does not train);
        and with `direction` (the larger at the start first) `relative` (η c λ_i(0)), `final_relative` (at the end) and `kept`
        (λ_i(T)/λ_i(0); NaN where the run does not train).
    """
    import xarray as xr

    loss, kernel = dataset["loss"], dataset["state_kernel"]
    first, last = kernel.isel(probe_step=0, drop=True), kernel.isel(probe_step=-1, drop=True)
    is_swapped = first.isel(direction=1) > first.isel(direction=0)
    first, last = (xr.where(is_swapped, one.isel(direction=slice(None, None, -1)), one) for one in (first, last))
    curvature = kernel.max("direction", skipna=False).rename(probe_step="step")
    phase = phases.classify(loss, curvature=curvature, diverged_at=dataset["diverged_at"])
    trains = phase.isin(["lazy", "catapult"]) & (loss.isel(step=-1, drop=True) < loss.isel(step=0, drop=True))
    c = xr.DataArray([_c(config, label) for label in dataset["case"].values.tolist()], dims="case")
    eta = dataset["learning_rate"].isel(start=0, drop=True)
    found = {
        "phase": phase,
        "trains": trains,
        "peak": loss.max("step").where(trains),
        "relative": eta * c * first,
        "final_relative": (eta * c * last).where(trains),
        "kept": (last / first).where(trains & (first > 0)),
    }
    return xr.Dataset({name: one.reset_coords(drop=True) for name, one in found.items()})


def by_size(found: Any, config: Config, family: str) -> Any:
    """The cases of a family along their `width` or `gamma`."""
    chosen = {label: case.size for label, case in cases(config).items() if case.family == family}
    sizes = found.sel(case=list(chosen)).assign_coords(case=list(chosen.values()))
    return sizes.rename(case="gamma" if family == "general" else "width")


def map_error(here: Any, *, steps: int, c: float) -> float:
    """The largest error of the exact map of one example, over the largest value of the run, at all records of all runs.

    Args:
        here: the dataset of one case.
        steps: of the run.
        c: constant of the loss.
    """
    here = here.transpose("probe_step", "rate", "seed", ...)
    start, first = here.isel(start=0), here.isel(probe_step=0)
    with jax.enable_x64(True):
        lr, coupling, target = (jnp.asarray(start[name].values) for name in ("learning_rate", "coupling", "target"))
        step = jd.theory.catapult.example_map(lr[:, :, None], coupling=coupling, y=target, c=c)
        state = jd.theory.catapult.Example(
            *(jnp.asarray(first[f"state_{name}"].values) for name in ("output", "kernel"))
        )
        path = jax.jit(lambda state: jd.theory.catapult.trajectory(step, state, steps=steps))(state)
    errors = []
    for predicted, name in ((path.output, "state_output"), (path.kernel, "state_kernel")):
        expected = np.asarray(predicted)[here["probe_step"].values]  # [t, rate, seed, 2]
        scale = np.abs(expected).max(axis=(0, -1), keepdims=True)
        errors.append(np.max(np.abs(expected - here[name].values) / scale))
    return float(max(errors))


def _regimes(family: str, here: Any) -> dict[str, Any]:
    """Lazy, catapult, divergent, and where they end."""
    phase, is_below = here["phase"], here["final_relative"].max("direction") < 2
    measured = {
        f"C1.1/{family}": _share(phase == "lazy", 0.0, 1.8, least=1.0),
        f"C1.2/{family}": _share((phase == "catapult") & is_below, 2.2, 3.8),
        f"C1.3/boundary/{family}": _boundary(phases.bracket(~here["trains"], dim="rate")),
    }
    if not family.endswith("network"):
        measured[f"C1.3/{family}"] = _share(phase == "divergent", 4.2, 6.0)
    if family in ("single network", "single quadratic", "uv"):
        measured[f"C1.2/boundary/{family}"] = _boundary(phases.bracket(phase != "lazy", dim="rate"))
    return measured


def _falls(here: Any) -> Any:
    """From which rate on an eigenvalue falls, in its own units; a run that does not train counts as one where it does."""
    edge = phases.bracket(~(here["kept"] >= FALL), dim="rate")
    unit = (here["relative"] / here["rate"]).mean("rate")  # λ_i/λ_1
    return _boundary(phases.Bracket(edge.low * unit, edge.high * unit))


def _boundary(edge: phases.Bracket) -> Any:
    """The geometric mean over seeds; not a number where the grid does not hold the boundary of every seed."""
    found = brackets.geometric_mean(edge.low.clip(0), edge.high)
    return found if np.isfinite(found).all() else found._replace(mean=np.nan)


def _share(condition: Any, low: float, high: float, *, least: float = NEARLY_ALL) -> estimates.Estimate:
    """The share of the seeds in which a condition holds at this part or more of the rates in a window; the note has the worst seed."""
    parts = condition.sel(rate=slice(low - 1e-3, high + 1e-3)).mean("rate")
    return estimates.estimate(
        estimates.share(parts.values >= least), f"worst seed: {float(parts.min()):.2g} of the rates"
    )


def _near(array: Any, rate: float) -> Any:
    return array.sel(rate=rate, method="nearest")


def _first(array: Any) -> Any:
    return array.isel(direction=0, drop=True)


def _c(config: Config, label: str) -> float:
    return jd.losses.mse.c(config.num_train, 1) if "clusters" in label else 1.0
