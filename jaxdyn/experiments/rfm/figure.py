"""The figure of the experiment on recursive feature machines."""

from typing import Any

import numpy as np

from jaxdyn.analysis import figures
from jaxdyn.experiments.rfm.measure import CONVENTIONS, measures
from jaxdyn.experiments.rfm.sweep import DEVIATION, DIM, KERNELS, LAYERS, RELEVANT, Config


def draw(config: Config, dataset: Any) -> Any:
    """Test errors over the iterations, what the learners look at, and the ansatz before and after training."""
    found = measures(dataset)
    page, axes = figures.figure(1, 3, size=(4.2, 3.4))
    network = dataset.sel(learner="network", drop=True)
    metric = dataset["machine_metric"].isel(start=0, iteration=-1, drop=True)
    looks = {name: metric.sel(learner=name) for name in KERNELS} | {"network": network["agop"].isel(time=-1)}
    for index, (name, matrix) in enumerate(looks.items()):
        color = figures.COLORS[index]
        if name in KERNELS:
            errors = dataset["machine_mse"].sel(learner=name).isel(start=0)
            axes[0, 0].plot(errors["iteration"], errors.transpose("iteration", "seed"), color=color, alpha=0.25, lw=0.8)
            axes[0, 0].plot(errors["iteration"], errors.mean("seed"), "o-", color=color, ms=4, label=name)
        diagonal = np.einsum("sii->si", matrix.transpose("seed", "feature", "feature_").values)
        shares = (diagonal / diagonal.sum(axis=1, keepdims=True)).mean(axis=0)
        axes[0, 1].bar(np.arange(DIM) + 0.27 * (index - 1), shares, 0.27, color=color, label=name)
    level = float(network["test"].isel(time=-1).mean())
    axes[0, 0].axhline(level, color=figures.COLORS[2], ls="--", lw=1.0, label="network")
    axes[0, 0].set(yscale="log", xlabel="iteration", title=f"test MSE (target variance {DEVIATION**4 / 2:.3g})")
    axes[0, 1].set(xlabel="coordinate", title="share of the trace: metric M_T, AGOP of the network")
    axes[0, 1].set_xticks([*RELEVANT, 10, 15, DIM - 1])
    for place, (convention, layer) in enumerate((c, i) for c in CONVENTIONS for i in range(len(LAYERS))):
        at = {"convention": convention, "layer": layer}
        for side, when in enumerate(("before", "after")):
            values = found[when].sel(at).values
            spread = np.linspace(-0.08, 0.08, len(values))
            label = f"{when} training" if place == 0 else None
            axes[0, 2].plot(place + 0.3 * side + spread, values, ".", color=figures.COLORS[side], ms=5, label=label)
    axes[0, 2].set_xticks(np.arange(4) + 0.15, [f"{c}\nlayer {i + 1}" for c in CONVENTIONS for i in range(len(LAYERS))])
    axes[0, 2].set(title="Pearson correlation of W Wᵀ and G^½")
    for place in axes[0]:
        place.legend(loc="best")
    page.suptitle(f"x₀ x₁ 1{{x₅ > 0}}, d = {DIM}, n = {config.num_train}, {config.seeds} seeds")
    return page
