"""The figure of the subspace experiment."""

from typing import Any

from jaxdyn import losses
from jaxdyn.analysis import figures
from jaxdyn.experiments.subspace.measure import measures, median_size
from jaxdyn.experiments.subspace.sweep import MODELS, NETWORKS, Config

SEEN = 1e-6
"""Losses below this part of the start are rounding, and are not drawn."""


def draw(config: Config, dataset: Any) -> Any:
    """For every network and model: losses in and outside the top eigenspace, the two diagnostics, and the kernel norm."""
    found = measures(config, dataset)
    rate = float(config.rates[len(config.rates) // 2])
    cells = [(network, model) for network in NETWORKS for model in MODELS]
    page, axes = figures.figure(3, len(cells), size=(3.2, 2.5))
    for column, (network, model) in enumerate(cells):
        here = dataset.sel(network=network, model=model)
        size = median_size(found.sel(network=network, model=model), rate)
        member = here.sel(rate=rate).isel(seed=0)
        cumulative, loss = member["top_loss"].cumsum("mode"), member["loss"]
        top, middle, bottom = (axes[row, column] for row in range(3))
        parts = {
            "loss": loss,
            "in p1": cumulative.isel(mode=0),
            f"outside P≤s, s = {size}": loss - cumulative.isel(mode=size - 1),
        }
        start = SEEN * float(loss[0])
        for (label, line), color in zip(parts.items(), figures.COLORS, strict=False):
            shown = line.where(line > start)
            top.plot(line["step"], shown, color=color, label=label, lw=2.2 if label == "loss" else 1.4)
        top.set_title(f"{network}, {model}: η_rel = {rate:g}, seed {int(member['seed'])}")
        top.set_yscale("log")
        is_seen = cumulative.isel(mode=0, drop=True).shift(step=1) > start
        decrease = member["top_kernel_decrease"] / member["top_eigenvalue"].isel(step=0, mode=0, drop=True)
        middle.plot(member["step"], member["top_output_correction"].where(is_seen), label="p1ᵀR_f p1")
        middle.plot(member["step"], decrease.where(is_seen), label="p1ᵀR_K p1 / λ_1(K_0)")
        middle.axhline(0.0, color=figures.GREY, lw=0.8)
        middle.set_xlim(*top.get_xlim())
        unit = here["learning_rate"].isel(start=0, drop=True) * losses.mse.c(config.num_train, 1)
        is_catapult = found["phase"].sel(network=network, model=model, drop=True) == "catapult"
        norms = (unit * here["top_eigenvalue"].isel(mode=0, drop=True)).where(is_catapult)
        figures.curves(bottom, norms.transpose("rate", "seed", "step"), hue="rate", over="seed")
        bottom.axhline(2.0, color=figures.GREY, ls=(0, (4, 3)), lw=1.0)
        bottom.set_ylim(0.0, 1.1 * max(config.rates))
        for place in (top, middle):
            place.set_xlabel("step")
            place.legend(loc="best")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("of the step that ended here")
    axes[2, 0].set_ylabel("η c λ_1(K_t) of catapults")
    page.suptitle(
        f"{config.data}, n = {config.num_train}: catapults of two-layer ReLU networks, width {config.width}, {config.channels} channels, "
        f"{config.seeds} seeds"
    )
    return page
