"""The figure of the spikes experiment."""

from typing import Any

import numpy as np

from jaxdyn.analysis import figures
from jaxdyn.analysis import spikes as detector
from jaxdyn.experiments.spikes.measure import RULE, SMALL
from jaxdyn.experiments.spikes.sweep import SUBSPACES, Config


def draw(config: Config, dataset: Any) -> Any:
    """One run of each descent of each network: the loss with its spikes, its parts, λ_max(K), and where batches were super-critical."""
    shown = ["catapult", "raised", f"b={config.batch_sizes[0]}", f"b={config.batch_sizes[-1]}"]
    shown = list(dict.fromkeys(shown))
    page, axes = figures.figure(2 * len(config.networks), len(shown), size=(3.5, 2.2))
    colors = figures.COLORS
    for row, network in enumerate(config.networks):
        for column, descent in enumerate(shown):
            here = dataset.sel(network=network, descent=descent).isel(seed=0)
            upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
            step, loss = here["step"].values, here["loss"].values
            top = here["kernel_top"].isel(subspace=SUBSPACES.index(SMALL)).values
            starts = detector.find(here["loss"], **RULE).values
            upper.plot(step, loss, color=colors[6], lw=0.9, label="loss")
            upper.plot(step, top, color=colors[0], lw=0.8, label=f"in P≤{SMALL}")
            upper.plot(step, np.clip(loss - top, 1e-12, None), color=colors[2], lw=0.8, label=f"in P>{SMALL}")
            upper.plot(step[starts], loss[starts], "v", color=colors[1], ms=4, mew=0, label="a spike starts")
            upper.set_yscale("log")
            upper.set_ylim(bottom=max(1e-6, float(np.nanmin(loss)) / 10))
            upper.set_title(f"{network}, {descent}")
            lower.plot(step, here["kernel_norm"].values, color=colors[3], lw=0.9)
            lower.set_title("λ_max(K)")
            if "critical_rate" in here and bool(here["critical_rate"].notnull().any()):
                is_super = here["learning_rate"].isel(start=0).values > here["critical_rate"].values
                where = np.full(int(is_super.sum()), lower.get_ylim()[0])
                lower.plot(step[is_super], where, "|", color=colors[1], ms=5, label="super-critical batch")
                lower.legend(loc="best")
            lower.set_xlabel("step")
    axes[0, 0].legend(loc="best")
    page.suptitle(f"Spikes: digits 3 and 8, n = {config.num_train}, one of {config.seeds} seeds")
    return page
