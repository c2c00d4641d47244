"""The figure of the experiment on spikes and features."""

from typing import Any

import numpy as np

from jaxdyn.analysis import estimates, figures, spikes
from jaxdyn.experiments.agop.measure import RULE, measures
from jaxdyn.experiments.agop.sweep import TOP, TRACED, Config, traced


def draw(config: Config, dataset: Any) -> Any:
    """Two runs with their spikes, subspaces, kernel and alignment on one time axis each, and what batch size and catapults do."""
    shown = traced(config)
    columns = len(shown) + 1 + bool(config.catapults)
    page, axes = figures.figure(3, columns, size=(3.5, 2.3))
    for column, variant in enumerate(shown):
        _run(axes[:, column], dataset.sel(task=config.tasks[0], variant=variant).isel(seed=0), config, variant)
    found = measures(config, dataset).sel(budget="loss").mean("reference")
    sizes = [f"b={size}" for size in config.batch_sizes]
    _against(axes[:, len(shown)], found, sizes, list(config.batch_sizes), "batch size", config)
    if config.catapults:
        raised = [f"b={config.num_train}", *(f"{num} raises" for num in config.catapults)]
        _against(axes[:, -1], found, raised, [0, *config.catapults], "raises of the rate", config)
    page.suptitle(
        f"Spikes and features: width {config.width}, n = {config.num_train}, η = {config.rate:g} · 2/(c λ_max(K_0)), "
        f"{config.seeds} seeds; right, to equal training loss"
    )
    return page


def _run(axes: Any, data: Any, config: Config, variant: str) -> None:
    loss = data["loss"].dropna("step")
    starts = spikes.find(loss, **RULE)
    colors = figures.COLORS
    axes[0].plot(loss["step"], loss, color=colors[6], lw=0.9, label="loss")
    marked = loss[starts.values]
    axes[0].plot(marked["step"], marked, "v", color=colors[1], ms=4, mew=0, label="a spike starts")
    for name, color, label in (("subspace_top", colors[0], f"in P≤{TOP}"), ("subspace_rest", colors[2], f"in P>{TOP}")):
        part = data[name].dropna("trace_step")
        axes[0].plot(part["trace_step"], part, color=color, lw=0.8, label=f"{label}, {TRACED} examples")
    axes[0].set_yscale("log")
    axes[0].legend(loc="best", ncols=1)
    words = "gradient descent" if "raises" in variant else "stochastic descent"
    axes[0].set_title(f"{config.tasks[0]}, {words}, {variant}")
    curvature = data["curvature"].dropna("trace_step")
    axes[1].plot(curvature["trace_step"], curvature, color=colors[3], lw=0.9)
    axes[1].set_title(f"λ_max(K) of {TRACED} training examples")
    alignment = data["alignment"].mean("reference").dropna("probe_step")
    axes[2].plot(alignment["probe_step"], alignment, color=colors[4])
    axes[2].set_title("AGOP alignment")
    axes[2].set_xlabel("step")
    last = float(loss["step"].max())
    for place in axes:
        place.set_xlim(0, last)
        for step in marked["step"].values[:100]:
            place.axvline(step, color=figures.GREY, lw=0.4, alpha=0.4, zorder=0)


def _against(axes: Any, found: Any, variants: list[str], x: list[int], name: str, config: Config) -> None:
    panels = (("spikes", "spikes of a run"), ("alignment", "AGOP alignment"), ("test_loss", "test loss"))
    for place, (quantity, title) in zip(axes, panels, strict=True):
        for index, task in enumerate(config.tasks):
            color = figures.COLORS[index]
            values = found[quantity].sel(task=task, variant=variants).transpose("variant", "seed").values
            cells = [estimates.mean(row)[:3] for row in values]
            middle, low, high = (np.array(one) for one in zip(*cells, strict=True))
            place.errorbar(
                x, middle, yerr=[middle - low, high - middle], color=color, marker="o", ms=3.5, capsize=2, lw=1.2, label=task
            )  # fmt: skip
        place.set_title(title)
        if name == "batch size":
            place.set_xscale("log", base=2)
            place.set_xticks(x, [str(size) for size in x])
        else:
            place.set_xticks(x)
        if quantity == "test_loss":
            place.set_yscale("log")
    axes[0].set_yscale("symlog", linthresh=1.0)
    axes[0].set_ylim(bottom=0)
    axes[0].legend(loc="best")
    axes[2].set_xlabel(name)
