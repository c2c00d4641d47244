"""Exponents of curvature, kernel change and multilinearity in the width, network by network."""

from typing import Any

from jaxdyn.analysis import estimates
from jaxdyn.analysis.scaling import power_law
from jaxdyn.experiments.breaking.networks import NETWORKS
from jaxdyn.experiments.breaking.sweep import Config

EXPONENTS = {
    "C4.1": {"C4.1": "change", "C4.1h": "curvature"},
    "C4.2": {"C4.2": "change", "C4.2h": "curvature"},
    "C4.3": {"C4.3": "curvature", "C4.3g": "gradient"},
    "C4.4": {"C4.4": "curvature"},
    "C4.5": {"C4.5": "curvature"},
    "M": {"M1": "remainder", "M2": "mixed", "M3": "beyond"},
}
"""Which exponents are claimed of the networks of a kind."""


def intervals(_: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C4.1 to C4.5 and M1 to M3 for every network they are about."""
    found = measures(dataset)
    measured: dict[str, Any] = {}
    for name in dataset["network"].values.tolist():
        network, here = NETWORKS[name], found.sel(network=name)
        for claim, variable in EXPONENTS[network.claim].items():
            if variable != "mixed" or len(network.blocks) > 1:
                measured[f"{claim}/{name}"] = power_law(here[variable], "width", over="seed")
        if network.claim == "C4.2":
            losses = {
                width: estimates.geometric_mean(here["loss"].sel(width=width))
                for width in here["width"].values.tolist()
            }
            measured[f"C4.2l/{name}"] = estimates.worst(losses, lowest=False)
    return measured


def measures(dataset: Any) -> Any:
    """One number a member, as far as the networks at hand have it.

    Returns:
        An `xarray.Dataset` with dims (network, width, seed): `change` (largest relative kernel change), `loss` (end over start),
        `curvature`, `gradient`, `gap`, `remainder`, `mixed`, `beyond`.
    """
    import xarray as xr

    start = dataset.isel(start=0, drop=True)
    found = {str(name).split("_")[-1]: start[name] for name in start if str(name).startswith(("ball_", "multilinear_"))}
    if "curvature" in found:
        found["curvature"] = found["curvature"].max("point").mean(["example", "output"])
        found["gradient"] = found["gradient"].mean(["example", "output"])
    if "loss" in dataset:
        found["change"] = dataset["change"].max("step")
        found["loss"] = dataset["loss"].isel(step=-1, drop=True) / dataset["loss"].isel(step=0, drop=True)
    return xr.Dataset(found).load()
