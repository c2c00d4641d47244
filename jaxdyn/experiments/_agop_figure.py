"""The page of the `agop` experiment, and its table."""

from typing import Any

import numpy as np

from jaxdyn.analysis import figures, spikes
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments import agop


def draw(dataset: Any, config: Any) -> Any:
    """A column for each traced run, one for the batch size and one for the catapults."""
    shown = agop.traced(config)
    columns = len(shown) + 1 + bool(config.catapults)
    page, axes = figures.figure(3, columns, size=(3.5, 2.3))
    for column, variant in enumerate(shown):
        _run(axes[:, column], dataset.sel(task=config.tasks[0], variant=variant).isel(seed=0), config, variant)
    found = agop.measures(dataset).sel(budget="loss").mean("reference")
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


def _run(axes: Any, data: Any, config: Any, variant: str) -> None:
    loss = data["loss"].dropna("step")
    starts = spikes.find(loss, **agop.RULE)
    colors = figures.COLORS
    axes[0].plot(loss["step"], loss, color=colors[6], lw=0.9, label="loss")
    axes[0].plot(
        loss["step"].values[starts.values],
        loss.values[starts.values],
        "v",
        color=colors[1],
        ms=4,
        mew=0,
        label="a spike starts",
    )
    for name, color, label in (
        ("subspace_top", colors[0], f"in P≤{agop.TOP}"),
        ("subspace_rest", colors[2], f"in P>{agop.TOP}"),
    ):
        part = data[name].dropna("trace_step")
        axes[0].plot(part["trace_step"], part, color=color, lw=0.8, label=f"{label}, {agop.TRACED} examples")
    axes[0].set_yscale("log")
    axes[0].legend(loc="best", ncols=1)
    words = "gradient descent" if "raises" in variant else "stochastic descent"
    axes[0].set_title(f"{config.tasks[0]}, {words}, {variant}")
    curvature = data["curvature"].dropna("trace_step")
    axes[1].plot(curvature["trace_step"], curvature, color=colors[3], lw=0.9)
    axes[1].set_title(f"λ_max(K) of {agop.TRACED} training examples")
    alignment = data["alignment"].mean("reference").dropna("probe_step")
    axes[2].plot(alignment["probe_step"], alignment, color=colors[4])
    axes[2].set_title("AGOP alignment")
    axes[2].set_xlabel("step")
    last = float(loss["step"].max())
    for place in axes:
        place.set_xlim(0, last)
        for step in loss["step"].values[starts.values][:100]:
            place.axvline(step, color=figures.GREY, lw=0.4, alpha=0.4, zorder=0)


def _against(axes: Any, found: Any, variants: list[str], x: list[int], name: str, config: Any) -> None:
    panels = (("spikes", "spikes of a run"), ("alignment", "AGOP alignment"), ("test_loss", "test loss"))
    for place, (quantity, title) in zip(axes, panels, strict=True):
        for index, task in enumerate(config.tasks):
            color = figures.COLORS[index]
            values = found[quantity].sel(task=task, variant=variants).transpose("variant", "seed").values
            cells = [interval(row) for row in values]
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


def rows(found: Any, config: Any) -> list[tuple[str, ...]]:
    """Means over seeds and their 95 % intervals, as rows of strings under a row of headings."""
    columns = {"spikes": 1, "per_step": 1000, "per_epoch": 1, "alignment": 1, "test_loss": 1, "error": 1, "time": 1}
    names = ("spikes", "per 1000 steps", "per epoch", "alignment", "test loss", "test error", "steps")
    table: list[tuple[str, ...]] = [("task, equal", "variant", *names)]
    for task in config.tasks:
        for budget in agop.BUDGETS:
            here = found.sel(task=task, budget=budget)
            if not bool(here["time"].notnull().any()):
                continue
            for variant in found["variant"].values.tolist():
                cells = []
                for name, scale in columns.items():
                    values = scale * here[name].sel(variant=variant)
                    if "reference" in values.dims:
                        values = values.mean("reference")
                    one = interval(values.values)
                    cells.append("{:.3g} [{:.3g}, {:.3g}]".format(*one) if np.isfinite(one[0]) else "-")
                table.append((f"{task}, {budget}", variant, *cells))
    return table


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval of the members that have a value; NaN for fewer than two."""
    sample = values[np.isfinite(values)]
    if len(sample) < 2:
        return (np.nan, np.nan, np.nan)
    one = mean_interval(sample)
    return (one.mean, one.low, one.high)
