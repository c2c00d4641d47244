"""The figure of the spikes experiment."""

from typing import Any

import numpy as np

from jaxdyn.analysis import estimates, figures
from jaxdyn.analysis import spikes as detector
from jaxdyn.experiments.spikes import events
from jaxdyn.experiments.spikes.measure import RULE, SMALL, matched
from jaxdyn.experiments.spikes.probes import SUBSPACES
from jaxdyn.experiments.spikes.sweep import Config, descents


def draw(config: Config, dataset: Any) -> Any:
    """What a batch does by how super-critical it is; where spikes lie; what forced catapults are for."""
    page, axes = figures.figure(3, 3, size=(3.6, 2.6))
    _responses(axes[0], config, dataset)
    forced, stochastic = f"forced {config.raises}", f"b={config.batch_sizes[0]}"
    for place, descent in zip(axes[1], (forced, stochastic), strict=False):
        _run(place, dataset.sel(descent=descent).isel(seed=0), descent)
    _curvature(axes[1, 2], dataset.isel(seed=0), (forced, stochastic))
    _features(axes[2], config, dataset)
    page.suptitle(
        f"Spikes: y = x_1 x_2, width {config.width}, {config.seeds} seeds; top: n = {config.many}, below: {config.num_train}"
    )
    return page


def _responses(axes: Any, config: Config, dataset: Any) -> None:
    """Dose and response: jumps with their placebo, growth of the training loss and of the batch's own."""
    for index, size in enumerate(config.batch_sizes):
        found, color = events.curve(events.of(dataset, size)), figures.COLORS[index]
        for place, values in zip(axes, (found.jumps, found.growth, found.batch), strict=True):
            middle, low, high = (
                np.array(one) for one in zip(*(estimates.mean(one)[:3] for one in values.T), strict=True)
            )
            error = np.array([middle - low, high - middle])
            place.errorbar(
                found.middle, middle, yerr=error, color=color, marker="o", ms=3, capsize=2, lw=1.2, label=f"b={size}"
            )
        by_chance = np.nanmean(found.placebo, axis=0)
        axes[0].plot(found.middle, by_chance, color=color, lw=1, ls=":", label=f"b={size}, placebo")
    titles = (
        f"P(training loss × {events.JUMP:g} in a step)",
        "log growth of the training loss",
        "log growth of the batch's loss",
    )
    for place, title in zip(axes, titles, strict=True):
        place.axvline(1, color=figures.GREY, lw=0.6)
        place.set_title(title)
        place.set_xlabel("η/η_crit(X_b)")
    axes[0].legend(loc="best")


def _run(place: Any, data: Any, descent: str) -> None:
    """A loss with its spikes and its parts."""
    colors, step, loss = figures.COLORS, data["step"].values, data["loss"].values
    top = data["kernel_top"].isel(subspace=SUBSPACES.index(SMALL)).values
    starts = detector.find(data["loss"], **RULE).values
    place.plot(step, loss, color=colors[6], lw=0.9, label="training loss")
    place.plot(step, top, color=colors[0], lw=0.8, label=f"in P≤{SMALL}")
    place.plot(step, np.clip(loss - top, 1e-12, None), color=colors[2], lw=0.8, label=f"in P>{SMALL}")
    place.plot(step[starts], loss[starts], "v", color=colors[1], ms=4, mew=0, label="a spike starts")
    place.set_yscale("log")
    place.set_ylim(bottom=max(1e-6, float(np.nanmin(loss)) / 10))
    place.set_title(descent)
    place.set_xlabel("step")
    place.legend(loc="best")


def _curvature(place: Any, data: Any, shown: tuple[str, ...]) -> None:
    """λ_max(K) along runs."""
    for index, descent in enumerate(shown):
        norm = data["kernel_norm"].sel(descent=descent)
        place.plot(norm["step"], norm / norm.isel(step=0), color=figures.COLORS[3 + index], lw=0.9, label=descent)
    place.set_title("λ_max(K) in units of its first value")
    place.set_xlabel("step")
    place.legend(loc="best")


def _features(axes: Any, config: Config, dataset: Any) -> None:
    """Training losses of forced descents, and their alignment and test loss where the training loss is the target."""
    names = [name for name, (kind, _) in descents(config).items() if kind == "forced"]
    here, found = dataset.isel(seed=0), matched(config, dataset)
    for index, name in enumerate(names):
        axes[0].plot(here["look"], here["train"].sel(descent=name), color=figures.COLORS[index], lw=0.9, label=name)
    axes[0].axhline(config.target, color=figures.GREY, lw=0.6)
    axes[0].set_yscale("log")
    axes[0].set_title("training loss; the line: where they are compared")
    axes[0].set_xlabel("step")
    axes[0].legend(loc="best")
    for place, quantity, title in zip(axes[1:], ("alignment", "test"), ("AGOP alignment", "test loss"), strict=True):
        values = found[quantity].sel(descent=names).transpose("descent", "seed").values
        place.plot(range(len(names)), values, color=figures.GREY, lw=0.5, alpha=0.6)
        place.plot(range(len(names)), np.nanmean(values, axis=1), color=figures.COLORS[0], marker="o", ms=4)
        place.set_title(f"{title} at a training loss of {config.target:g}")
        place.set_xticks(range(len(names)), [str(num) for num in range(len(names))])
        place.set_xlabel("raises of the rate")
    axes[2].set_yscale("log")
