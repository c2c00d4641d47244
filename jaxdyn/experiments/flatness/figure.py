"""The figure of the flatness experiment."""

from typing import Any

import numpy as np

from jaxdyn.analysis import figures
from jaxdyn.experiments.flatness.measure import measures
from jaxdyn.experiments.flatness.sweep import EARLY, Config

PANELS = {"kept": "λ/λ_0 at the end", "accuracy": "test accuracy", "test_loss": "test loss"}


def draw(config: Config, dataset: Any) -> Any:
    """Curvature early on; curvature, accuracy and test loss against the rate at both horizons."""
    found = measures(config, dataset)
    page, axes = figures.figure(1, 4, size=(3.7, 3.4))
    trained = found["rate"].values[found["trains"].all("seed").values]
    shown = trained[np.unique(np.linspace(0, len(trained) - 1, 6).astype(int))]
    early = dataset["curvature"].where(found["trains"]).sel(rate=shown, probe_step=slice(0, EARLY))
    first = early.sel(probe_step=0, drop=True)
    figures.curves(axes[0, 0], (early / first).reset_coords(drop=True), x="probe_step", hue="rate", over="seed")
    axes[0, 0].set_title("λ_t/λ_0, first steps; colour: η_rel")
    axes[0, 0].set_xlabel("step")
    for place, (name, title) in zip(axes[0, 1:], PANELS.items(), strict=True):
        figures.curves(place, found[name], x="rate", hue="horizon", over="seed")
        place.axvline(2.0, color=figures.GREY, ls=":", lw=1.0)
        place.set_xscale("log")
        place.set_xticks([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0], ["1/4", "1/2", "1", "2", "4", "8", "16"])
        place.minorticks_off()
        place.set_xlabel("η_rel = η λ_0")
        place.set_title(title)
    rate = np.geomspace(2.0, max(config.rates), 50)
    axes[0, 1].plot(rate, 2 / rate, color=figures.GREY, ls="--", label="2/η")
    axes[0, 1].legend(loc="lower left")
    page.suptitle(
        f"Parity of digits, n = {config.num_train}, 3 hidden layers of {config.width}, {config.seeds} seeds; "
        f"fixed steps {config.steps}, fixed time t η λ_0 = {config.time:g}"
    )
    return page
