"""Exponents of the distances between networks, their Taylor models and the infinite-width kernel."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdyn as jd
from jaxdyn.analysis import estimates
from jaxdyn.analysis.scaling import power_law
from jaxdyn.experiments.width.sweep import Config, learning_rate, network, task


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of W1 to W5 for each depth."""
    found = distances(dataset, kernel_descent(config, dataset))
    measured: dict[str, Any] = {}
    for depth in config.depths:
        here = found.sel(depth=depth)
        for claim, name in {"W1": "change", "W2": "linear", "W3": "distance", "W5": "infinite"}.items():
            measured[f"{claim}/{depth}"] = power_law(here[name], "width", over="seed")
        ratio = here["quadratic"] / here["linear"]
        measured[f"W4/{depth}"] = estimates.worst(
            {width: estimates.geometric_mean(ratio.sel(width=width).values) for width in config.widths}, lowest=False
        )
    return measured


def kernel_descent(config: Config, dataset: Any) -> Any:
    """Gradient descent with the infinite-width kernel, started from each seed's own initial outputs.

    Returns:
        An `xarray.DataArray` of test outputs with dims (depth, width, seed, step, test, output).
    """
    import xarray as xr

    data, linearized = task(config), jd.theory.linearized
    full = dataset.sel(expand="full")
    found = []
    for depth in config.depths:
        limit = network(depth, 1)
        kernel = limit.kernel(data.x).ntk
        predict = functools.partial(
            linearized.test_outputs, linearized.decompose(kernel), y=data.y, loss=jd.losses.mse,
            evolution=linearized.descent(learning_rate(config, kernel), dataset["step"].values),
            cross=limit.kernel(data.x_test, data.x).ntk,
        )  # fmt: skip
        start = full.sel(depth=depth).isel(step=0)
        f0, f0_test = (
            jnp.asarray(start[name].transpose("width", "seed", ...).values) for name in ("outputs", "outputs_test")
        )
        found.append(
            np.asarray(jax.vmap(jax.vmap(lambda a, b, predict=predict: predict(f0=a, f0_test=b)))(f0, f0_test))
        )
    like = full["outputs_test"].transpose("depth", "width", "seed", "step", ...)
    return xr.DataArray(np.stack(found), dims=like.dims, coords=like.coords)


def distances(dataset: Any, infinite: Any) -> Any:
    """Root mean square distances between test outputs at the end, over test images and outputs.

    Args:
        dataset: of the sweep.
        infinite: test outputs of kernel descent, as `kernel_descent` gives them.

    Returns:
        An `xarray.Dataset` with dims (depth, width, seed): `linear`, `quadratic` (network against its Taylor models),
        `infinite` (network against kernel descent), and `change` (largest relative kernel change), `distance` (of the
        initial kernel to the infinite one).
    """
    import xarray as xr

    end = dataset["outputs_test"].isel(step=-1)
    full = end.sel(expand="full")
    examples = [dim for dim in full.dims if dim not in ("depth", "width", "seed")]

    def rms(difference: Any) -> Any:
        return np.sqrt((difference**2).mean(examples))

    network = dataset.sel(expand="full")
    found = {
        "linear": rms(full - end.sel(expand="linear")),
        "quadratic": rms(full - end.sel(expand="quadratic")),
        "infinite": rms(full - infinite.isel(step=-1)),
        "change": network["change"].max("step"),
        "distance": network["distance"].isel(step=0),
    }
    return xr.Dataset({name: array.drop_vars(["expand", "step"], errors="ignore") for name, array in found.items()})
