"""The spikes of every descent, what lies in the kernel's top eigenspace, and what precedes them."""

from typing import Any

import numpy as np

from jaxdyn.analysis import estimates
from jaxdyn.analysis import spikes as detector
from jaxdyn.experiments.spikes.sweep import SUBSPACES, Config, descents

SMALL = 5
"""The subspace of the claims."""

RULE: dict[str, Any] = {"factor": 2.0, "window": 30, "floor": 0.02, "rearm": 1.1}
"""What a spike is."""

GRID: dict[str, Any] = {"factor": [1.5, 2.0, 4.0], "window": [15, 30, 60], "floor": [0.02], "rearm": [1.1]}
"""The rules that the counts are held against."""

GROWTH = 1.1
"""A loss that grows by this factor in a step has jumped."""


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C2.1 to C2.3 for every network and descent."""
    measured: dict[str, Any] = {}
    for network in config.networks:
        for descent in descents(config):
            case, rows = f"{network}/{descent}", annotated(dataset, network, descent)
            share, growth, change = (
                by_seed(values, rows, config.seeds)
                for values in (
                    rows["share"].sel(subspace=SMALL),
                    np.log(rows["growth"].clip(1e-12)),
                    np.log(rows["curvature_after"] / rows["curvature_before"]),
                )
            )
            measured[f"C2.1/{case}"] = estimates.mean(share)
            mean = estimates.mean(growth)
            measured[f"C2.1b/{case}"] = estimates.estimate(np.exp(mean[:3]), mean.note)
            is_gradient_descent = descent in ("catapult", "raised")
            measured[f"{'C2.3' if is_gradient_descent else 'C2.2c'}/{case}"] = estimates.mean(change)
            here = dataset.sel(network=network, descent=descent)
            if descent == "raised":
                raised = here["curvatures"].isel(end=0).values  # [seed, raise]
                for i in range(1, config.raises):
                    measured[f"C2.3b/{case}/{i + 1}"] = estimates.mean(np.log(raised[:, i] / raised[:, i - 1]))
            elif not is_gradient_descent:
                measured |= _super_critical(here, rows, case, config.seeds)
    return measured


def summary(config: Config, dataset: Any) -> list[tuple[str, ...]]:
    """Counts under the rules of `GRID` and the share of each subspace in the peaks, as rows of strings under a row of headings."""
    rules = [(factor, window) for factor in GRID["factor"] for window in GRID["window"]]
    heading = (
        "network",
        "descent",
        *(f"P≤{s} of the peak" for s in SUBSPACES),
        *(f"spikes ×{f:g}, {w}" for f, w in rules),
    )
    rows: list[tuple[str, ...]] = [heading]
    for network in config.networks:
        for descent in descents(config):
            found = annotated(dataset, network, descent)
            shares = [by_seed(found["share"].sel(subspace=s), found, config.seeds) for s in SUBSPACES]
            cells = [f"{np.nanmean(one):.3f}" if np.isfinite(one).any() else "-" for one in shares]
            counts = detector.sensitivity(dataset["loss"].sel(network=network, descent=descent, drop=True), **GRID)
            means = counts.mean("seed").isel(floor=0, rearm=0)
            cells += [f"{float(means.sel(factor=f, window=w)):.2g}" for f, w in rules]
            rows.append((network, descent, *cells))
    return rows


def annotated(dataset: Any, network: str, descent: str) -> Any:
    """The spikes of one descent of one network, a row each; see `analysis.spikes.annotate`.

    Returns:
        Its dataset, and beside it `growth` of the complement and `share` [subspace, spike] of the peak in every subspace.
    """
    import xarray as xr

    here = dataset.sel(network=network, descent=descent)
    here = here.where(here["diverged_at"] < 0)
    whole = here["loss"]
    more: dict[str, Any] = {}
    if "critical_rate" in here and bool(here["critical_rate"].notnull().any()):
        rate = here["learning_rate"].isel(start=0, drop=True)
        more = {"learning_rate": rate, "critical_rate": here["critical_rate"].drop_vars("step").rename(step="record")}
    shares, found = [], None
    for position in range(len(SUBSPACES)):
        top = here["kernel_top"].isel(subspace=position, drop=True)
        rest = (whole - top).clip(min=0)
        found = detector.annotate(
            whole, **RULE, top=_apart(top), rest=_apart(rest), curvature=_apart(here["kernel_norm"]), **more
        )
        shares.append(found["top_share"].values)
        if SUBSPACES[position] == SMALL:
            beside = detector.annotate(whole, **RULE, curvature=_apart(rest))
            growth = (1 - found["top_share"]) * found["peak"] / beside["curvature_before"]
    assert found is not None
    return found.assign(
        growth=growth, share=xr.DataArray(np.array(shares), dims=("subspace", "spike"), coords={"subspace": list(SUBSPACES)})
    )  # fmt: skip


def _apart(array: Any) -> Any:
    """Along a time of its own name, as `annotate` wants what is not the loss."""
    return array.rename(step="record")


def _super_critical(here: Any, rows: Any, case: str, num: int) -> dict[str, Any]:
    """What super-critical batches do, step by step and before spikes."""
    loss = here["loss"].transpose("seed", "step").values
    rate = here["learning_rate"].isel(start=0).values[:, None]
    is_super = (rate > here["critical_rate"].transpose("seed", "step").values)[:, :-1]
    is_seen = loss[:, :-1] > RULE["floor"]
    is_jump = loss[:, 1:] > GROWTH * loss[:, :-1]

    def probability(event: np.ndarray, among: np.ndarray) -> np.ndarray:
        total = among.sum(axis=1)
        return np.divide((event & among).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)

    base = probability(is_super, is_seen)
    excess = probability(is_jump, is_seen & is_super) - probability(is_jump, is_seen & ~is_super)
    before = by_seed(rows["super_critical_share"], rows, num) - base
    note = f"{np.nanmean(base):.1%} of the steps are super-critical"
    return {
        f"C2.2/{case}": estimates.estimate(estimates.mean(excess), note),
        f"C2.2b/{case}": estimates.estimate(estimates.mean(before), note),
    }


def by_seed(values: Any, rows: Any, num: int) -> np.ndarray:
    """The mean over the spikes of each seed, NaN left out; NaN for a seed without."""
    numbers, seed = np.asarray(values.values, float), rows["seed"].values.astype(int)
    is_there = np.isfinite(numbers)
    total = np.bincount(seed[is_there], minlength=num)
    summed = np.bincount(seed[is_there], numbers[is_there], minlength=num)
    return np.divide(summed, total, out=np.full(num, np.nan), where=total > 0)
