"""The worst of every inequality of the theorem along the paths, and the exponent of the loss of conditioning."""

from typing import Any

import numpy as np

from jaxdyn import losses
from jaxdyn.analysis import estimates
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments.pl.sweep import SHAPES, Config, is_trained
from jaxdyn.theory import pl as theory

FLOOR = 1e-6
"""Losses below this part of the initial one are rounding."""

WORST = {
    "C5.0": ("stability", np.max),
    "C5.1": ("identity", np.max),
    "C5.1b": ("slack", np.min),
    "C5.2": ("speed", np.min),
    "C5.3": ("path", np.max),
}
"""Which end of which measure is the worst; NaN where one is."""


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C5.0 to C5.6."""
    found = measures(config, dataset).astype(float)
    measured: dict[str, Any] = {}
    groups = {"tanh": [f"tanh{width}" for width in config.widths], "softplus": ["softplus"], "quadratic": ["quadratic"]}
    for name, members in groups.items():
        here = found.sel(network=members)
        measured |= {f"{claim}/{name}": end(here[variable].values) for claim, (variable, end) in WORST.items()}
        reached = {one: estimates.geometric_mean(here["reached"].sel(network=one).values) for one in members}
        measured[f"C5.2b/{name}"] = estimates.worst(reached, lowest=False)
    narrow = dataset.sel(network="narrow").isel(start=0)
    measured["C5.4"] = np.abs(narrow["anchor"] / narrow["anchor_largest"]).max()
    conditions = dataset["log_condition"].sel(network="gaussian").isel(start=0).transpose("shape", "seed")
    for (n, m), sample in zip(SHAPES, conditions.values, strict=True):
        measured[f"C5.5/{n}x{m}"] = mean_interval(theory.gaussian_condition_bound(n, m) - sample.astype(float))
    measured["C5.6"] = power_law(by_width(config, found["drop"]), "width", over="seed")
    return measured


def measures(config: Config, dataset: Any) -> Any:
    """What the claims are about, one number a member, for the trained networks.

    Returns:
        An `xarray.Dataset` with dims (network, seed): `stability` (η β), `identity`, `slack`, `speed`, `reached` (L_T/L_0, at least
        1e-12), `path` (over R), `drop` (max_t |λ_min(K_t)/λ_min(K_0) − 1|).
    """
    import xarray as xr

    trained = [name for name in dataset["network"].values.tolist() if is_trained(name)]
    data = dataset.sel(network=trained)
    c = xr.DataArray(
        [losses.mse.c(8 if name == "quadratic" else config.num_train, 1) for name in trained], dims="network"
    )
    eta, loss0, step = data["learning_rate"].isel(start=0), data["loss"].isel(step=0, drop=True), data["step"]
    is_sound = data["loss"] >= FLOOR * loss0
    mu, beta = c * data["kernel"].min("step"), data["sharpness"].max("probe_step")
    radius = theory.radius(loss0, constant=mu, smoothness=beta)
    promised = step * np.log(theory.descent(1, learning_rate=eta, constant=mu))
    speed = np.log((data["loss"] / loss0).where(is_sound & (step > 0))) / promised.where(step > 0)
    slack = ((data["ratio"] - c * data["kernel"]) / (c * data["kernel_largest"])).where(is_sound)
    found = {
        "stability": eta * beta,
        "identity": data["identity"].where(is_sound).max("step"),
        "slack": slack.min("step"),
        "speed": speed.min("step"),
        "reached": (data["loss"].isel(step=-1, drop=True) / loss0).clip(1e-12),  # a loss may be 0 to rounding
        "path": data["path"].isel(step=-1, drop=True) / radius,
        "drop": np.abs(data["kernel"] / data["kernel"].isel(step=0) - 1).max("step"),
    }
    return xr.Dataset(found).drop_vars(["start"], errors="ignore")


def by_width(config: Config, array: Any) -> Any:
    """The tanh networks along their width."""
    names = [f"tanh{width}" for width in config.widths]
    return array.sel(network=names).assign_coords(network=list(config.widths)).rename(network="width")
