"""Spikes, alignment and test loss at the end of three budgets, and their slopes along batch sizes and raises."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdyn.analysis import estimates, spikes
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.agop import budgets
from jaxdyn.experiments.agop.sweep import Config, target_of, variants

RULE: dict[str, Any] = {"factor": 2.0, "window": 30, "floor": 0.02, "rearm": 1.1}
"""What a spike is."""

GRID: dict[str, Any] = {"factor": [1.5, 2.0, 4.0], "window": [15, 60], "floor": [0.02], "rearm": [1.1]}
"""The rules that the counts are held against."""

BUDGETS = ("steps", "epochs", "loss")
COUNTS = ("spikes", "per_step", "per_epoch")


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C2.4, C2.5 and R for every task and budget that was run."""
    found = measures(config, dataset).assign(test=lambda one: np.log(one["test_loss"]))
    sizes = {f"b={size}": -math.log2(size) for size in config.batch_sizes}
    raises = {f"b={config.num_train}": 0.0} | {f"{num} raises": float(num) for num in config.catapults}
    measured: dict[str, Any] = {}
    for task in config.tasks:
        for budget, size in zip(BUDGETS, (config.steps, config.epochs, 1), strict=True):
            if not size:
                continue
            here = found.sel(task=task, budget=budget)
            for quantity in (*COUNTS, "alignment", "test"):
                measured[f"C2.4/{task}/{budget}/{quantity}"] = rise(here[quantity], sizes)
            if config.catapults and budget != "epochs":  # equal steps are equal epochs here
                for quantity in ("alignment", "test"):
                    measured[f"C2.5/{task}/{budget}/{quantity}"] = rise(here[quantity], raises)
        measured[f"C2.4/{task}/rule"] = _least_rise(dataset, found, task, sizes)
    if "digits" in config.tasks:
        errors = ", ".join(f"{one:.3f}" for one in json.loads(dataset.attrs["reference_error"]))
        agreement = mean_interval(json.loads(dataset.attrs["reference_agreement"]))
        measured["R/digits"] = estimates.estimate(agreement, f"held-out errors {errors}")
    return measured


def rise(array: Any, along: Mapping[str, float]) -> estimates.Estimate:
    """The mean slope of a quantity; where it is known against several references, the interval covers all of theirs."""
    slopes = slope(array, along)
    many = slopes if slopes.ndim == 2 else slopes[:, None]  # [seed, reference]
    is_sound = np.isfinite(many).all(axis=1)
    return estimates.enclosing(estimates.mean(column) for column in np.where(is_sound[:, None], many, np.nan).T)


def slope(array: Any, along: Mapping[str, float]) -> np.ndarray:
    """Least-squares slopes along some variants, [seed, …]."""
    x = np.array(list(along.values()))
    values = array.sel(variant=list(along)).transpose("variant", "seed", ...).values
    found: np.ndarray = np.tensordot(x - x.mean(), values, axes=1) / np.sum((x - x.mean()) ** 2)
    return found


def _least_rise(dataset: Any, found: Any, task: str, sizes: Mapping[str, float]) -> estimates.Estimate:
    end = found["time"].sel(task=task, budget="loss", variant=list(sizes), drop=True)
    losses = dataset["loss"].sel(task=task, variant=list(sizes), drop=True)
    counts = spikes.sensitivity(losses.where(losses["step"] <= end), **GRID)
    counts = counts.where(end.notnull()).stack(rule=list(GRID))
    means = [float(np.nanmean(slope(counts.isel(rule=i), sizes))) for i in range(counts.sizes["rule"])]
    least = int(np.argmin(means))
    rule = dict(zip(GRID, counts["rule"].values[least], strict=True))
    words = ", ".join(f"{key} {value:g}" for key, value in rule.items() if len(GRID[key]) > 1)
    return estimates.estimate(rise(counts.isel(rule=least, drop=True), sizes), f"least for {words}")


def measures(config: Config, dataset: Any) -> Any:
    """What the claims are about: one number a member and budget.

    Returns:
        An `xarray.Dataset` with dims (budget, task, variant, seed): `spikes`, `per_step`, `per_epoch`, `time` (steps spent), `test_loss`,
        `error`, `alignment` [reference]; NaN where the budget or a raise was not reached, or the run diverged.
    """
    import xarray as xr

    kinds = variants(config)
    size = xr.DataArray([kinds[name][0] for name in dataset["variant"].values.tolist()], dims="variant")
    epoch = xr.apply_ufunc(lambda one: budgets.epoch(config.num_train, one), size)
    losses = dataset["loss"].transpose("task", "variant", "seed", "step")
    targets = np.array([target_of(config, task) for task in dataset["task"].values.tolist()])
    reached = budgets.reached(losses.values, epoch.values[None, :, None], targets[:, None, None])
    asked = xr.DataArray([float(kinds[name][1]) for name in dataset["variant"].values.tolist()], dims="variant")
    raised = dataset["raises"].clip(min=0) if "raises" in dataset else xr.zeros_like(dataset["test_loss"])
    ends = {
        "steps": xr.full_like(losses.isel(step=0, drop=True), config.steps if config.steps else -1),
        "epochs": xr.full_like(losses.isel(step=0, drop=True), 1) * (epoch * config.epochs if config.epochs else -1),
        "loss": losses.isel(step=0, drop=True).copy(data=reached),
    }
    found = []
    for budget in BUDGETS:
        end = ends[budget].astype(float)
        is_there = (end >= 0) & (dataset["diverged_at"] < 0)
        counts = spikes.count(losses.where(losses["step"] <= end), **RULE, steps_per_epoch=config.num_train / size)
        at = np.searchsorted(dataset["probe_step"].values, end.values).clip(0, dataset.sizes["probe_step"] - 1)
        looks = dataset[["test_loss", "accuracy", "alignment"]].assign(raised=raised)
        seen = looks.isel(probe_step=end.copy(data=at).astype(int), drop=True)
        one = xr.Dataset(
            {
                "spikes": counts["per_run"],
                "per_step": counts["per_step"],
                "per_epoch": counts["per_epoch"],
                "time": end,
                "test_loss": seen["test_loss"],
                "error": 1 - seen["accuracy"],
                "alignment": seen["alignment"],
            }
        ).where(is_there & (seen["raised"] >= asked))
        found.append(one.drop_vars(["probe_step", "step"], errors="ignore"))
    return xr.concat(found, dim=xr.DataArray(list(BUDGETS), dims="budget", name="budget"))


def summary(config: Config, dataset: Any) -> list[tuple[str, ...]]:
    """Means over seeds and their 95 % intervals, as rows of strings under a row of headings."""
    found = measures(config, dataset)
    columns = {"spikes": 1, "per_step": 1000, "per_epoch": 1, "alignment": 1, "test_loss": 1, "error": 1, "time": 1}
    names = ("spikes", "per 1000 steps", "per epoch", "alignment", "test loss", "test error", "steps")
    table: list[tuple[str, ...]] = [("task, equal", "variant", *names)]
    for task in config.tasks:
        for budget in BUDGETS:
            here = found.sel(task=task, budget=budget)
            if not bool(here["time"].notnull().any()):
                continue
            for variant in found["variant"].values.tolist():
                cells = []
                for name, scale in columns.items():
                    values = scale * here[name].sel(variant=variant)
                    if "reference" in values.dims:
                        values = values.mean("reference")
                    one = estimates.mean(values.values)[:3]
                    cells.append("{:.3g} [{:.3g}, {:.3g}]".format(*one) if np.isfinite(one[0]) else "-")
                table.append((f"{task}, {budget}", variant, *cells))
    return table
