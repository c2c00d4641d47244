"""Shares of the top eigenspace in a catapult, its complement, and the two diagnostics of the top direction."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdyn import losses
from jaxdyn.analysis import estimates, phases
from jaxdyn.experiments.subspace.sweep import Config

RISE = 1.1
"""A loss above this multiple of its start has risen, as `analysis.phases` has it."""

DOUBLED = 2.0
"""A part of the loss above this multiple of its start spikes."""


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C1.6, C2.1 and C1.2 for each network and model."""
    found = measures(config, dataset)
    measured: dict[str, Any] = {}
    for network in found["network"].values.tolist():
        for model in found["model"].values.tolist():
            here = found.sel(network=network, model=model)
            others = int((here["phase"] != "catapult").sum())
            note = f"{others} of {here['phase'].size} runs are no catapults and left out" if others else ""
            numbers = {
                "C1.6": _of_worst_rate(here, "top_one", lambda mean: -mean),
                "C2.1/top": _of_worst_rate(here, "top", lambda mean: -mean),
                "C2.1/rest": estimates.estimate(
                    _of_worst_rate(here, "rest", lambda mean: mean, over_seeds=estimates.geometric_mean), _needed(here)
                ),
                "C1.6/positive": _of_worst_member(here, "positive", np.nanargmin),
                "C1.6/scale": _of_worst_rate(here, "scale", lambda mean: abs(mean - 1)),
                "C1.2/norm": _of_worst_rate(here, "final", lambda mean: mean),
            }
            measured |= {f"{claim}/{network}/{model}": estimates.estimate(one, note) for claim, one in numbers.items()}
    return measured


def measures(config: Config, dataset: Any) -> Any:
    """What the claims are about, one number a member.

    Returns:
        An `xarray.Dataset` with dims (network, model, rate, seed): `phase`, `rise` (peak over start), `size` (s), `top_one` and `top`
        (shares of P_{≤1} and P_{≤s} in the peak), `rest_one` and `rest` (largest P_{>1}L and P_{>s}L over their starts), `needed`
        (the least s whose complement does not spike), `positive`, `scale`, `final` (η c λ_1 at the end).
        All but the first three are NaN where the run is no catapult.
    """
    import xarray as xr

    loss, values = dataset["loss"], dataset["top_eigenvalue"]
    unit = dataset["learning_rate"].isel(start=0, drop=True) * losses.mse.c(config.num_train, 1)
    evidence = phases.evidence(
        loss, curvature=values.isel(mode=0, drop=True), diverged_at=dataset["diverged_at"], rise=RISE
    )
    start, peak = loss.isel(step=0, drop=True), evidence["peak"]
    size = (unit * values.isel(step=0, drop=True) > 2).sum("mode").clip(1)
    cumulative = dataset["top_loss"].cumsum("mode")
    place = loss.fillna(-1).argmax("step")
    one, several = cumulative.isel(mode=0, drop=True), cumulative.isel(mode=size - 1)
    outside = dataset["top_loss"].isel(mode=slice(None, None, -1)).cumsum("mode").isel(mode=slice(None, None, -1))
    is_calm = (outside / outside.isel(step=0)).max("step") <= DOUBLED
    correction, decrease = (dataset[f"top_{name}"].shift(step=-1) for name in ("output_correction", "kernel_decrease"))
    is_large = (loss >= peak / 2) & correction.notnull()
    is_growing = (loss >= 2 * start) & (dataset["step"] <= dataset["step"][place]) & (correction > 0)
    found = {
        "top_one": (one / loss).isel(step=place),
        "top": (several / loss).isel(step=place),
        "rest_one": ((loss - one) / (loss - one).isel(step=0, drop=True)).max("step"),
        "rest": ((loss - several) / (loss - several).isel(step=0, drop=True)).max("step"),
        "positive": ((correction > 0) & (decrease > 0)).where(is_large).mean("step"),
        "scale": _slope(np.log(one.where(is_growing)), np.log(correction.where(is_growing))),
        "needed": is_calm.argmax("mode").clip(1),
        "final": unit * values.isel(step=-1, mode=0, drop=True),
    }
    is_catapult = evidence["phase"] == "catapult"
    kept = {name: array.where(is_catapult) for name, array in found.items()}
    whole = xr.Dataset({"phase": evidence["phase"], "rise": evidence["rise"], "size": size, **kept})
    return whole.drop_vars(["step", "mode"], errors="ignore")


def median_size(here: Any, rate: float) -> int:
    """The median of s over seeds at a rate."""
    return int(here["size"].sel(rate=rate).median())


def _slope(x: Any, y: Any) -> Any:
    """Least-squares slope of y in x along the steps, for each member; NaN where fewer than 3 steps are finite."""
    is_there = np.isfinite(x) & np.isfinite(y)
    x, y = x.where(is_there), y.where(is_there)
    across = x - x.mean("step")
    slope = (across * (y - y.mean("step"))).sum("step") / (across**2).sum("step")
    return slope.where(is_there.sum("step") >= 3)


def _of_worst_rate(
    here: Any,
    number: str,
    badness: Callable[[float], float],
    *,
    over_seeds: Callable[[Any], estimates.Estimate] = estimates.mean,
) -> estimates.Estimate:
    """The mean over catapults at the rate where it is worst; a rate without an interval only where all are."""
    means = {float(rate): over_seeds(here[number].sel(rate=rate).values) for rate in here["rate"].values}
    sound = [rate for rate, one in means.items() if np.isfinite(one.value)] or list(means)
    rate = max(sound, key=lambda one: badness(means[one].value))
    return estimates.Estimate(*means[rate][:3], f"η_rel = {rate:g}, s = {median_size(here, rate)}")


def _of_worst_member(here: Any, number: str, worst: Callable[[Any], Any]) -> estimates.Estimate:
    """The number of the worst member, and who that is; NaN where there is none."""
    flat = here.stack(member=("rate", "seed"))
    values = flat[number].values.astype(float)
    if not np.isfinite(values).any():
        return estimates.estimate(np.nan, "no run")
    one = flat.isel(member=int(worst(values)))
    rate = float(one["rate"])
    return estimates.estimate(
        one[number],
        f"η_rel = {rate:g}, s = {int(one['size'])}, peak {float(one['rise']):.3g} L_0; median there "
        f"{float(here[number].sel(rate=rate).median()):.3g}",
    )


def _needed(here: Any) -> str:
    needed = here["needed"].values[np.isfinite(here["needed"].values)]
    found = f"median {np.median(needed):g}, at most {needed.max():g}" if needed.size else "not known"
    return f"the least s whose complement does not double: {found}"
