"""What the machines and the network look at, and how well the ansatz holds."""

from typing import Any

import numpy as np

from jaxdyn.analysis import estimates
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.rfm.claims import NOTEBOOK
from jaxdyn.experiments.rfm.sweep import KERNELS, LAYERS, RELEVANT, Config

CONVENTIONS = ("plain", "removed")


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C7.1 to C7.3 and R1."""
    found = measures(dataset).astype(float)
    measured: dict[str, Any] = {}
    for name in KERNELS:
        here = found.sel(kernel=name)
        measured[f"C7.1/{name}"] = estimates.geometric_mean(here["fall"].values)
        measured[f"C7.2/{name}"] = mean_interval(here["share"].isel(iteration=-1).values)
        measured[f"R1/{name}"] = mean_interval(here["likeness"].values)
    if (config.num_train, config.iterations) == NOTEBOOK[:2]:
        measured["C7.1/notebook"] = mean_interval(found["error"].sel(kernel="laplace").values)
    for convention in CONVENTIONS:
        for layer in range(len(LAYERS)):
            before, after = (found[when].sel(convention=convention, layer=layer).values for when in ("before", "after"))
            note = f"{after.mean():.2f} against {before.mean():.2f}"
            measured[f"C7.3/{convention}/{layer + 1}"] = estimates.estimate(mean_interval(after - before), note)
    return measured


def measures(dataset: Any) -> Any:
    """What the claims are about, one number a seed.

    Returns:
        An `xarray.Dataset`: `fall` and `error` [kernel, seed] (last test MSE over the first; last), `share` [kernel, iteration, seed] of
        the trace of M on the relevant coordinates, `before` and `after` [convention, layer, seed], `likeness` [kernel, seed] (cosine of
        M_T with the network's AGOP after training), `network_share` [time, seed] of the trace of its AGOP.
    """
    import xarray as xr

    kernels = dataset.sel(learner=list(KERNELS)).rename(learner="kernel")
    network = dataset.sel(learner="network", drop=True)
    mse, metric = kernels["machine_mse"].isel(start=0, drop=True), kernels["machine_metric"].isel(start=0, drop=True)
    plain = network["ansatz_plain"]
    last = network.isel(time=-1, drop=True)
    before = [plain.isel(time=0, drop=True), last["ansatz_before"]]
    after = [plain.isel(time=-1, drop=True), last["ansatz_removed"]]
    conventions = xr.DataArray(list(CONVENTIONS), dims="convention", name="convention")
    found = {
        "fall": mse.isel(iteration=-1) / mse.isel(iteration=0),
        "error": mse.isel(iteration=-1),
        "share": _share(metric),
        "before": xr.concat(before, conventions, coords="minimal"),
        "after": xr.concat(after, conventions, coords="minimal"),
        "likeness": _cosine(metric.isel(iteration=-1), last["agop"]),
        "network_share": _share(network["agop"]),
    }
    return xr.Dataset(found)


def _share(matrix: Any) -> Any:
    """Share of the trace on the relevant coordinates."""
    diagonal = matrix.isel(feature_=0, drop=True).copy(
        data=np.einsum("...ii->...i", matrix.transpose(..., "feature", "feature_").values)
    )
    return diagonal.isel(feature=list(RELEVANT)).sum("feature") / diagonal.sum("feature")


def _cosine(a: Any, b: Any) -> Any:
    both = ("feature", "feature_")
    return (a * b).sum(both) / np.sqrt((a**2).sum(both) * (b**2).sum(both))
