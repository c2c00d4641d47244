"""Brackets of maximal rates, and what the network does over what its quadratic model does."""

from typing import Any

import numpy as np

from jaxdyn.analysis import brackets, estimates
from jaxdyn.analysis.claims import find
from jaxdyn.analysis.phases import bracket
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments.rates.claims import CLAIMS
from jaxdyn.experiments.rates.sweep import Case, Config

DEAD = 1e-6
"""A kernel with less than this part of its first top eigenvalue is dead."""

PREDICTED = {"H5/peak": "peak", "H5/curvature": "curvature", "H5t": "test", "H5s": "test_below"}
"""Claims on the quadratic model's foresight, and what they measure."""


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of R1 to H7, for the cases that the configuration has."""
    found, known = maximal(dataset), set(dataset["case"].values.tolist())
    base = Case("relu", 1, "gaussian", config.width)
    second, positive, adam = base._replace(hidden=2), base._replace(data="positive"), base._replace(optimizer="adam")
    measured: dict[str, Any] = {}
    for name in ("gd", *map(str, config.momenta)):
        one = found.sel(case=base._replace(optimizer=name, model="linear").name)
        measured[f"R1/{name}"] = estimates.share(((one["low"] < 2) & (one["high"] > 2)).values)
    measured["R2"] = largest(found, base._replace(width=max(config.widths), model="quadratic"))
    for case in (base._replace(hidden=hidden, data=data) for hidden in config.hidden for data in config.data):
        measured[f"C6/{case.hidden} {case.data}"] = largest(found, case)
    measured |= {"D1": largest(found, base), "D2": largest(found, positive), "D3": largest(found, second)}
    measured |= {"H1": _over(found, second, base), "H4": _over(found, positive, base)}
    for relu in (base, second):
        tanh = relu._replace(activation="tanh")
        if tanh.name in known:
            measured[f"H2/{relu.hidden}"] = _over(found, tanh, relu)
    for momentum in config.momenta:
        measured[f"H6/{momentum:g}"] = _over(found, base._replace(optimizer=str(momentum)), base)
    measured["H7"] = _over(found, adam, adam._replace(model="linear"))
    measured["H3"] = _exponent(found, config)
    ratio = predicted(config, dataset)
    return measured | {claim: _foretold(claim, ratio[name]) for claim, name in PREDICTED.items()}


def maximal(dataset: Any) -> Any:
    """The bracket of the maximal rate.

    Returns:
        An `xarray.Dataset` with dims (case, seed): `low`, the ratio before the first that fails (0 where the first of the grid fails),
        and `high`, the first that fails (infinity where none does).
    """
    first, last = dataset["loss"].isel(step=0, drop=True), dataset["loss"].isel(step=-1, drop=True)
    left = dataset["curvature"].isel(end=-1, drop=True) / dataset["curvature"].isel(end=0, drop=True)
    holds = np.isfinite(last) & (last < first) & (left > DEAD) & (dataset["diverged_at"] < 0)
    found = bracket(~holds.transpose("case", "seed", "ratio"), dim="ratio")
    return found.low.clip(0).to_dataset(name="low").assign(high=found.high)


def predicted(config: Config, dataset: Any) -> Any:
    """What the network does over what its quadratic model does, from the same start.

    Returns:
        An `xarray.Dataset` with dims (width, seed): `peak`, `curvature`, `test` at the ratio next to 3, `test_below` at the first.
    """
    import xarray as xr

    grid = dataset["ratio"].values
    window, below = float(grid[np.argmin(np.abs(np.log(grid / 3)))]), float(grid[0])

    def of(model: str) -> Any:
        one = dataset.sel(case=[Case("relu", 1, "gaussian", width, model=model).name for width in config.widths])
        one = one.assign_coords(case=list(config.widths)).rename(case="width")
        here, last = one.sel(ratio=window, drop=True), one.isel(end=-1, drop=True)
        found = {"peak": here["loss"].max("step"), "test_below": last["loss_test"].sel(ratio=below, drop=True)}
        there = last.sel(ratio=window, drop=True)
        return xr.Dataset(found | {"curvature": there["curvature"], "test": there["loss_test"]})

    return (of("network") / of("quadratic")).transpose("width", "seed")


def largest(found: Any, case: Case) -> Any:
    """The maximal rate of a case, geometric mean over seeds; its interval holds the brackets."""
    one = found.sel(case=case.name)
    return brackets.geometric_mean(one["low"], one["high"])


def _over(found: Any, case: Case, other: Case) -> Any:
    """The maximal rate of one case over another's, seed by seed."""
    a, b = found.sel(case=case.name), found.sel(case=other.name)
    with np.errstate(all="ignore"):
        return brackets.geometric_mean(a["low"] / b["high"], a["high"] / b["low"])


def _exponent(found: Any, config: Config) -> Any:
    names = [Case("relu", 1, "gaussian", width).name for width in config.widths]
    middles = np.sqrt(found["low"] * found["high"]).sel(case=names)
    middles = middles.assign_coords(case=list(config.widths)).rename(case="width")
    is_known = len(config.widths) > 2 and bool((np.isfinite(middles) & (middles > 0)).all())
    return power_law(middles, "width", over="seed") if is_known else np.nan


def _foretold(claim: str, ratio: Any) -> estimates.Estimate:
    """The geometric mean at the largest width; the note says from which width on the criterion is met."""
    ends = {int(width): spread(ratio.sel(width=width)) for width in ratio["width"].values}
    stated = find(claim, CLAIMS)
    assert stated is not None
    lower, upper = stated.criterion.ends
    good = [width for width, one in ends.items() if lower <= one.low and one.high <= upper]
    down_to = next((w for w in ends if all(v in good for v in ends if v >= w)), None)
    return estimates.estimate(
        ends[max(ends)], "at no width of the sweep" if down_to is None else f"from width {down_to} on"
    )


def spread(values: Any) -> estimates.Estimate:
    """Geometric mean over seeds with its interval; NaN where a member is not finite."""
    with np.errstate(all="ignore"):
        return estimates.estimate(np.exp(mean_interval(np.log(values.values))))
