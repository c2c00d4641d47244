"""The figure of the width experiment."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxdyn as jd
from jaxdyn.analysis import figures
from jaxdyn.analysis.scaling import power_law
from jaxdyn.experiments.width import measure
from jaxdyn.experiments.width.sweep import Config, learning_rate, network, task

PANELS = {
    "change": "kernel change max‖K_t − K_0‖/‖K_0‖",
    "distance": "‖K_0 − K_∞‖/‖K_∞‖ at initialisation",
    "linear": "rms test f − f_lin",
    "quadratic": "rms test f − f_quad",
    "infinite": "rms test f − f_∞ from own start",
}


def draw(config: Config, dataset: Any) -> Any:
    """Exponents of every distance against the width, and the ensemble mean against kernel descent."""
    found = measure.distances(dataset, measure.kernel_descent(config, dataset))
    page, axes = figures.figure(2, 3)
    for place, (name, title) in zip(axes.flat, PANELS.items(), strict=False):
        for depth in config.depths:
            array = found[name].sel(depth=depth)
            fit = power_law(array, "width", over="seed")
            figures.power_law(place, array, "width", over="seed", fit=fit, label=f"{depth} layers")
        place.set_title(title)
    _means(axes.flat[-1], config, dataset)
    page.suptitle(
        f"Digits {config.classes[0]} and {config.classes[1]}, n = {config.num_train}, tanh, {config.steps} steps at "
        f"η c λ_max(K_∞) = {config.rate:g}, {config.seeds} seeds"
    )
    return page


def _means(axes: Any, config: Config, dataset: Any) -> None:
    """The ensemble mean of the trained test outputs against kernel descent from zero, which has no initial noise."""
    data, linearized, depth = task(config), jd.theory.linearized, config.depths[0]
    limit = network(depth, 1)
    kernel = limit.kernel(data.x).ntk
    prediction = np.asarray(
        linearized.test_outputs(
            linearized.decompose(kernel), jnp.zeros_like(data.y), data.y,
            linearized.descent(learning_rate(config, kernel), config.steps), loss=jd.losses.mse,
            cross=limit.kernel(data.x_test, data.x).ntk, f0_test=jnp.zeros_like(data.y_test),
        )
    )[:, 0]  # fmt: skip
    widest = dataset["outputs_test"].sel(expand="full", depth=depth, width=max(config.widths)).isel(step=-1)
    example, output = (dim for dim in widest.dims if dim != "seed")
    members = widest.isel({output: 0}).transpose("seed", example).values  # [r, n]
    error = members.std(0, ddof=1) / np.sqrt(len(members))
    order, place = np.argsort(prediction), np.arange(len(prediction))
    axes.plot(place, prediction[order], color="black", label="infinite-width mean")
    axes.errorbar(
        place, members.mean(0)[order], error[order], fmt=".", ms=3, lw=0.7, label="ensemble mean ± standard error"
    )
    axes.set_title(f"trained outputs, {depth} hidden layers of {max(config.widths)}")
    axes.set_xlabel("test image, by predicted output")
    axes.legend(loc="upper left")
