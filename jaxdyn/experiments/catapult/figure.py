"""The figure of the catapult experiment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from jaxdyn.analysis import figures
from jaxdyn.analysis.scaling import power_law
from jaxdyn.experiments.catapult import measure
from jaxdyn.experiments.catapult.sweep import Config, largest

SHOWN = (1.0, 2.5, 3.5, 4.2)
"""Relative rates of the trajectories."""

DIAGRAM = ("general", "clusters quadratic", "clusters network", "uv", "single quadratic", "single network")


def draw(config: Config, dataset: Any) -> Any:
    """Phase diagram with the lines 2/λ and 4/λ, trajectories, boundaries of the two classes, peaks, and final curvatures."""
    found, whole = measure.measures(config, dataset), largest(config)
    sizes = {family: measure.by_size(found, config, family) for family in whole}
    page, axes = figures.figure(2, 3, size=(4.6, 3.7))
    _diagram(axes[0, 0], sizes, whole)
    _trajectories(axes[0, 1], dataset, whole)
    _classes(axes[0, 2], sizes)
    for family in ("single quadratic", "single network", "uv"):
        peak = sizes[family]["peak"].sel(rate=3.0, method="nearest")
        fit = power_law(peak, "width", over="seed")
        figures.power_law(axes[1, 0], peak, "width", over="seed", fit=fit, label=family, reference=1.0)
    axes[1, 0].set_title("peak loss at η_rel = 3")
    _curvatures(axes[1, 1], {"-": sizes["single quadratic"], "--": sizes["single network"]}, "width")
    axes[1, 1].set_title("one example: final λ over initial λ (network dashed)")
    _curvatures(axes[1, 2], {"-": sizes["general"]}, "gamma")
    axes[1, 2].set_title("general quadratic: peak (right) and final λ")
    _peaks(axes[1, 2].twinx(), sizes["general"])
    page.suptitle(f"Catapult phase: medians of {config.seeds} seeds, {config.steps} steps")
    return page


def _diagram(place: Any, sizes: Mapping[str, Any], largest: Mapping[str, str]) -> None:
    rows = []
    for family in DIAGRAM:
        phase = sizes[family]["phase"]
        name = "gamma" if family == "general" else "width"
        rows.append(phase.isel({name: -1}, drop=True).assign_coords(case=largest[family]))
    figures.phase_diagram(place, xr.concat(rows, dim="case"), x="rate", y="case", over="seed", lines=(2.0, 4.0))
    place.set_xlabel("η_rel = η c λ_max(K_0); dashed: 2 and 4")
    place.set_ylabel("")
    place.set_title("phases")


def _trajectories(place: Any, dataset: Any, largest: Mapping[str, str]) -> None:
    for family, style in (("single quadratic", "-"), ("single network", "--")):
        loss = dataset["loss"].sel(case=largest[family]).isel(seed=0)
        for rate, color in zip(SHOWN, figures.COLORS, strict=False):
            one = loss.sel(rate=rate, method="nearest")
            values = np.where(np.isfinite(one.values) & (one.values > 0), one.values, np.nan)
            label = f"η_rel = {float(one.rate):.3g}" if style == "-" else None
            place.plot(one["step"] + 1, values, style, color=color, label=label, lw=1.2)
    place.set_yscale("log")
    place.set_xscale("log")
    place.set_ylim(1e-12, 1e7)
    place.set_xlabel("step + 1")
    place.set_title(f"loss, {largest['single quadratic']} (network dashed)")
    place.legend(loc="upper right")


def _classes(place: Any, sizes: Mapping[str, Any]) -> None:
    for family, style in (("clusters quadratic", "-"), ("clusters network", "--")):
        kept = sizes[family]["kept"].isel(width=-1).sel(rate=slice(0.5, 5.0))
        for index, color in ((0, figures.COLORS[0]), (1, figures.COLORS[1])):
            one = kept.isel(direction=index).median("seed")
            label = f"λ_{index + 1}" if style == "-" else None
            place.plot(one["rate"], one, style, color=color, label=label)
    for edge in (2.0, 4.0):
        place.axvline(edge, color="black", ls=":", lw=1.0)
    second = (sizes["clusters quadratic"]["relative"].isel(width=-1) / sizes["clusters quadratic"]["rate"]).mean("rate")
    place.axvline(float(2 / second.isel(direction=1).median("seed")), color=figures.COLORS[1], ls=":", lw=1.0)
    place.set_xlabel("η_rel")
    place.set_title("two clusters: final λ_i over initial; 2/λ_1, 2/λ_2, 4/λ_1 dotted")
    place.legend(loc="lower left")


def _curvatures(place: Any, shown: Mapping[str, Any], size: str) -> None:
    for style, data in shown.items():
        kept = data["kept"].isel(direction=0).sel(rate=slice(0.5, 4.0))
        for value, color in zip(kept[size].values, figures.COLORS, strict=False):
            one = kept.sel({size: value}).median("seed")
            place.plot(
                one["rate"], one, style, color=color, label=f"{size} {value:g}" if style == "-" else None, lw=1.2
            )
    rate = np.linspace(2.0, 4.0, 50)
    place.plot(rate, 2 / rate, color=figures.GREY, ls=":", label="2/η")
    place.set_xlabel("η_rel")
    place.legend(loc="lower left")


def _peaks(place: Any, general: Any) -> None:
    for value, color in zip(general["gamma"].values, figures.COLORS, strict=False):
        one = general["peak"].sel(gamma=value, rate=slice(2.1, 4.0)).median("seed")
        place.plot(one["rate"], one, ".", ms=3, color=color)
    place.set_yscale("log")
    place.grid(visible=False)
    place.spines["right"].set_visible(True)
