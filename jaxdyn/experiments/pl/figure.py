"""The figure of the PL* experiment."""

from typing import Any

import numpy as np

from jaxdyn import losses
from jaxdyn.analysis import figures
from jaxdyn.analysis.scaling import power_law
from jaxdyn.experiments.pl.measure import FLOOR, by_width, measures
from jaxdyn.experiments.pl.sweep import Config
from jaxdyn.theory import pl as theory


def draw(config: Config, dataset: Any) -> Any:
    """Losses against their guaranteed rates, the PL* ratio against its bound, and the drop of λ_min with the width."""
    found = measures(config, dataset)
    data = dataset.sel(network=found["network"].values)
    page, axes = figures.figure(1, 3, size=(4.4, 3.6))
    for index, name in enumerate(found["network"].values.tolist()):
        color, one = figures.COLORS[index % len(figures.COLORS)], data.sel(network=name)
        c = losses.mse.c(8 if name == "quadratic" else config.num_train, 1)
        mu = float(np.median(c * one["kernel"].min("step")))
        eta = float(np.median(one["learning_rate"]))
        relative = (one["loss"] / one["loss"].isel(step=0)).median("seed")
        axes[0, 0].plot(one["step"], relative, color=color, label=name)
        promised = theory.descent(one["step"], learning_rate=eta, constant=mu)
        axes[0, 0].plot(one["step"], promised, color=color, ls=":", lw=1.0)
        axes[0, 1].plot(one["step"], one["ratio"].where(relative > FLOOR).median("seed"), color=color, label=name)
        axes[0, 1].plot(one["step"], c * one["kernel"].median("seed"), color=color, ls=":", lw=1.0)
    titles = ("L_t/L_0, guaranteed (1 − ημ)^t dotted", "‖∇L‖²/(2L), c λ_min(K) dotted")
    for place, title in zip(axes[0], titles, strict=False):
        place.set_yscale("log")
        place.set_xlabel("step")
        place.set_title(title)
        place.legend(loc="best")
    axes[0, 0].set_ylim(FLOOR, 2.0)
    drop = by_width(config, found["drop"])
    figures.power_law(axes[0, 2], drop, "width", over="seed", fit=power_law(drop, "width", over="seed"))
    axes[0, 2].set_title("max_t |λ_min(K_t)/λ_min(K_0) − 1|")
    page.suptitle(
        f"Digits 3 and 8, n = {config.num_train}, η c λ_max(K_0) = {config.rate:g}, medians of {config.seeds} seeds"
    )
    return page
