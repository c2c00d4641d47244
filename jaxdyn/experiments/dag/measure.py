"""Exponents of Hessian norms, gradients and kernel changes in m."""

from typing import Any

import numpy as np

from jaxdyn.analysis import estimates
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments.dag.sweep import POINTS, Config


def intervals(_: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C3.1 to C3.6 and B1 to B3 for the architectures that were run."""
    names = dataset["architecture"].values.tolist()
    measured: dict[str, Any] = {}

    def exponent(id: str, array: Any) -> None:
        fit = power_law(array, "width", over="seed")
        measured[id] = estimates.estimate(fit, f"m = {fit.fitted.low:g} to {fit.fitted.high:g}")

    norms = dataset["linearity_norm"].isel(step=0)
    for name in names:
        here, norm = dataset.sel(architecture=name), norms.sel(architecture=name)
        if name == "fixed budget":
            for claim in ("B1/min", "B1/mean"):
                exponent(claim, norm.isel(point=0, function=0))
            continue
        for i, point in enumerate(POINTS):
            exponent(f"C3.1/{name}/{point}", norm.isel(point=i, function=0))
        exponent(f"C3.2/{name}", here["linearity_gradient"].isel(step=0, function=0))
        exponent(f"C3.3/{name}", here["linearity_gap"].isel(step=0))
        if name != "convolution":
            exponent(f"C3.5/{name}", norm.isel(point=0, function=2))
        widest = estimates.geometric_mean(over_floor(here).isel(width=-1))
        measured[f"C3.6/{name}"] = estimates.estimate(widest, f"m = {max(here['width'].values.tolist())}")
        exponent(f"B3/{name}", here["change"].isel(time=-1))
    at_anchor = norms.isel(point=0, function=0)
    if {"uniform", "heavy-tailed"} <= set(names):
        exponent("C3.4", _ratio(at_anchor, "heavy-tailed", "uniform"))
    if {"deep", "fully connected"} <= set(names):
        logs = np.log(_ratio(at_anchor, "deep", "fully connected")).mean("width").values
        measured["B2"] = np.exp(mean_interval(logs))
    return measured


def over_floor(here: Any) -> Any:
    """‖H‖ of φ(f) at w0 over φ''(f) ‖∇f‖², the part of it that stays: H = φ'(f) H_f + φ''(f) ∇f ∇fᵀ.

    Of a softplus φ'' = φ' (1 − φ'), and φ' is the ratio of the two gradients.
    """
    length = here["linearity_gradient"].isel(step=0)
    slope = length.isel(function=1) / length.isel(function=0)
    floor = slope * (1 - slope) * length.isel(function=0) ** 2
    return here["linearity_norm"].isel(step=0, point=0, function=1) / floor


def _ratio(norm: Any, over: str, under: str) -> Any:
    return norm.sel(architecture=over, drop=True) / norm.sel(architecture=under, drop=True)
