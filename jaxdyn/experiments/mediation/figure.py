"""The figure of the experiment on mediation."""

from typing import Any

import numpy as np

from jaxdyn.analysis import figures, spikes
from jaxdyn.experiments.mediation.measure import RULE, measures
from jaxdyn.experiments.mediation.sweep import Config, observations


def draw(config: Config, dataset: Any) -> Any:
    """Losses with spikes marked, spikes and alignment against the test loss, and what the interventions did."""
    found = measures(config, dataset)
    page, axes = figures.figure(1, 3, size=(4.4, 3.6))
    names, least = found["arm"].values.tolist(), min(config.batch_sizes)
    chosen = (f"b = {least}", observations(config)[-1], f"capped b = {least}", f"forced {config.forced[-1]}")
    shown = [name for name in chosen if name in names]
    starts = spikes.find(dataset["loss"], **RULE)
    for color, name in zip(figures.COLORS, shown, strict=False):
        loss, mark = dataset["loss"].sel(arm=name).isel(seed=0), starts.sel(arm=name).isel(seed=0)
        axes[0, 0].plot(loss["step"], loss, color=color, lw=0.8, label=name)
        axes[0, 0].plot(loss["step"][mark.values], loss[mark.values], "v", color=color, ms=4)
    axes[0, 0].axhline(config.level, color=figures.GREY, ls="--", lw=1.0)
    axes[0, 0].set(yscale="log", xlabel="step", title="training loss of one seed, spikes marked")
    kinds = {"b": "observed", "capped": "capped", "slow": "slow", "forced": "forced"}
    groups = {kind: [name for name in names if name.split()[0] == first] for first, kind in kinds.items()}
    for color, (group, members) in zip(figures.COLORS, groups.items(), strict=False):
        here = found.sel(arm=members)
        for place, x in ((axes[0, 1], here["spikes"]), (axes[0, 2], 1 - here["alignment"])):
            place.plot(x.values.ravel(), np.exp(here["y"]).values.ravel(), ".", color=color, ms=4, alpha=0.35)
            means = x.mean("seed"), np.exp(here["y"].mean("seed"))
            place.plot(*means, "os^D"[list(groups).index(group)], color=color, ms=6, label=group)
    axes[0, 1].set(xscale="symlog", yscale="log", xlabel="spikes", title=f"test loss at training loss {config.level:g}")
    axes[0, 2].set(xscale="log", yscale="log", xlabel="1 − AGOP alignment", title="the same against alignment")
    axes[0, 2].xaxis.set_minor_formatter("")
    for place in axes[0]:
        place.legend(loc="best")
    page.suptitle(
        f"x₁ x₂, d = {config.dim}, n = {config.num_train}, width {config.width}, {config.seeds} seeds, rate {config.ratio:g} of critical"
    )
    return page
