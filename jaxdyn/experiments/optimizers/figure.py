"""The figure of the experiment on optimizers."""

from typing import Any

import numpy as np

from jaxdyn.analysis import figures
from jaxdyn.experiments.optimizers.measure import BUDGETS, measures
from jaxdyn.experiments.optimizers.sweep import Config


def draw(config: Config, dataset: Any) -> Any:
    """Alignment against test loss under both budgets, and the training loss over the rates."""
    found = measures(config, dataset)
    page, axes = figures.figure(1, 3, size=(4.2, 3.6))
    names = dataset["optimizer"].values.tolist()
    colors = dict(zip(names, (*figures.COLORS, figures.GREY), strict=False))
    final = np.exp(np.log(dataset["loss"].isel(step=-1)).mean("seed")).where((dataset["diverged_at"] < 0).all("seed"))
    for place, budget in zip(axes[0], BUDGETS, strict=False):
        for name in found["optimizer"].values.tolist():
            here = found.sel(budget=budget, optimizer=name)
            x, y = here["alignment"].values, np.exp(here["log_test"].values)
            if np.isfinite(y).all():
                place.plot(x, y, ".", color=colors[name], ms=4, alpha=0.35)
                place.plot(x.mean(), np.exp(np.log(y).mean()), "o", color=colors[name], ms=6, label=name)
        place.set(yscale="log", xlabel="AGOP alignment", ylabel="test loss")
    axes[0, 0].set_title(f"after {config.steps} steps")
    axes[0, 1].set_title(f"at training loss {config.level:g}")
    for name in names:
        axes[0, 2].plot(dataset["scale"], final.sel(optimizer=name), ".-", color=colors[name], label=name)
        if np.isfinite(scale := float(found["scale"].sel(optimizer=name))):
            axes[0, 2].plot(scale, final.sel(optimizer=name, scale=scale), "o", color=colors[name], ms=6)
    axes[0, 2].set(xscale="log", yscale="log", xlabel="rate over the largest of its grid")
    axes[0, 2].set_title("final training loss; the chosen rate")
    page.legend(*axes[0, 2].get_legend_handles_labels(), loc="outside right center")
    what = f"x₁ x₂, d = {config.dim}" if config.task == "polynomial" else "ten digits"
    sizes = f"n = {config.num_train}, width {config.width}, {config.seeds} seeds, batches of {config.batch_size}"
    page.suptitle(f"{what}, {sizes}")
    return page
