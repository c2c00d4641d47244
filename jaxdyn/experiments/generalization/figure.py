"""The figure of the generalization experiment."""

from typing import Any

from jaxdyn.analysis import figures
from jaxdyn.experiments.generalization.measure import curves
from jaxdyn.experiments.generalization.sweep import CRITICAL, MODELS, Config


def draw(config: Config, dataset: Any) -> Any:
    """Best test loss and accuracy against the rate, a panel for each setting."""
    found = curves(dataset)
    panels = found["panel"].values.tolist()
    columns = min(5, len(panels))
    page, axes = figures.figure(2 * -(-len(panels) // columns), columns, size=(2.9, 2.3))
    for place in axes.flat:
        place.set_visible(False)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        for offset, name in enumerate(("test_loss", "accuracy")):
            place, here = axes[2 * row + offset, column], found[name].sel(panel=panel)
            place.set_visible(True)
            place.axvline(CRITICAL, color=figures.GREY, ls=(0, (4, 3)), lw=1.0)
            for model, color in zip(MODELS, figures.COLORS, strict=False):
                members = here.sel(model=model).transpose("seed", "rate")
                place.plot(found["rate"], members.values.T, ".", color=color, alpha=0.3, ms=4, mew=0)
                place.plot(found["rate"], members.mean("seed"), color=color, label=model, marker="o", ms=3)
            if name == "test_loss":
                place.set_title(panel)
                place.set_yscale("log")
            place.set_xlabel("η c λ_max(K_0)")
    axes[0, 0].set_ylabel("best test loss")
    axes[1, 0].set_ylabel("test accuracy there")
    axes[1, 0].legend(loc="lower left")  # where no model has failed yet
    page.suptitle(
        f"Best test loss along {config.steps} steps, n = {config.num_train}, means of {config.seeds} seeds; "
        "dashed: critical"
    )
    return page
