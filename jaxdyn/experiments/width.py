"""Wide networks become linear: a width sweep on real images against Taylor models and the infinite-width NTK.

Fully connected tanh networks of two depths learn two classes of scikit-learn's digits by sub-critical full-batch gradient
descent, η = `rate` / (c λ_max(K_∞)) with K_∞ the infinite-width kernel on the training images, the same for all widths and
seeds; beside each network, its linear and quadratic models run from the same initialisation.

Criteria, fixed before any run:

| claim | criterion |
|---|---|
| W1 kernel change max_t ‖K_t - K_0‖_F/‖K_0‖_F falls like m^(-1/2) or faster | 95 % interval of the exponent below -0.4 |
| W2 rms over test images of f - f_lin at the end falls like m^(-1/2) or faster | 95 % interval of the exponent below -0.4 |
| W3 ‖K_0 - K_∞‖_F/‖K_∞‖_F falls like m^(-1/2) | 95 % interval of the exponent within [-0.6, -0.4] |
| W4 the quadratic model is closer to the network than the linear one | rms ratio, worst width: 95 % interval below 1 |
| W5 the trained network approaches kernel gradient descent with K_∞ from its own initial outputs | 95 % interval of the exponent below 0 |

The slack of 0.1 around -1/2 allows for finite width: exponents of -0.44 to -0.53 were measured for Hessian norms at widths up to
1024. The kernel regression is started from each seed's own initial outputs, whose spread does not shrink with the width; the
ensemble mean, in which it averages out, is shown in the figure with its standard error.

References:
    Liu, Zhu, Belkin, arXiv 2010.01092. Zhu, Liu, Belkin, arXiv 2205.11786, Cor. 3.7. Zhu et al., arXiv 2205.11787.
    Jacot et al., arXiv 1806.07572.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures
from jaxdyn.analysis.claims import Verdict, at_most, within
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments import _configuration
from jaxdyn.models.width import Width


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment.

    Attributes:
        widths: hidden widths.
        seeds: number of initialisations.
        depths: numbers of hidden layers.
        classes: the two digits to tell apart.
        num_train: training images.
        num_test: test images.
        steps: steps of gradient descent.
        rate: learning rate times c λ_max(K_∞); below 2 is sub-critical.
        num_records: record times, logarithmically spaced.
    """

    widths: tuple[int, ...]
    seeds: int
    depths: tuple[int, ...]
    classes: tuple[int, int]
    num_train: int
    num_test: int
    steps: int
    rate: float
    num_records: int


PRESETS = {
    "ci": Config((16, 32, 64, 128, 256), 8, (2,), (3, 8), 64, 64, 100, 1.0, 6),
    "laptop": Config((32, 64, 128, 256, 512), 8, (2, 3), (3, 8), 128, 128, 120, 1.0, 12),
    "paper": Config((64, 128, 256, 512, 1024, 2048, 4096, 8192), 16, (2, 3), (3, 8), 256, 100, 1000, 1.0, 20),
}

EXPANSIONS = {"full": jd.exact, "linear": jd.linear, "quadratic": jd.quadratic}


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Run the sweep.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (depth, expand, width, seed, step, …) and variables `loss`, `outputs` (training images),
        `outputs_test`, and for the networks alone `change`, `distance`, `curvature`.
    """
    function, loop, vmap = ensemble(config)
    attrs = _configuration.attributes("width", config)
    return jd.sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs)


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes: what `jd.sweep` and `jd.ensemble.plan` take."""
    task = _task(config)
    kernels = {depth: _network(depth, 1).kernel(task.x).ntk for depth in config.depths}
    rates = {depth: _learning_rate(config, kernels[depth]) for depth in config.depths}

    def one(depth: int, expand: Any, width: Any, seed: Any) -> jd.Training:
        probes: dict[str, Any] = {
            "loss": jd.probes.Loss(),
            "outputs": jd.probes.Outputs(),
            "outputs_test": jd.probes.Outputs(task.x_test),
        }
        if expand is jd.exact:
            probes["change"] = jd.probes.KernelChange(task.x)
            probes["distance"] = jd.probes.KernelDistance(task.x, to=kernels[depth])
            probes["curvature"] = jd.probes.NTKNorm(task.x)
        return jd.Training(
            _network(depth, width),
            task,
            optax.sgd(rates[depth]),
            steps=config.steps,
            key=jax.random.key(seed),
            expand=expand,
            record=jd.record(jd.log_spaced(config.num_records), **probes),
        )

    loop = {"depth": list(config.depths), "expand": EXPANSIONS}
    return one, loop, {"width": jd.widths(config.widths), "seed": np.arange(config.seeds)}


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on W1 to W5, one for each depth."""
    config = _config(dataset)
    found = distances(config, dataset).load()
    return [verdict for depth in config.depths for verdict in _claims_at(depth, found)]


def kernel_descent(config: Config, dataset: Any) -> Any:
    """Gradient descent with the infinite-width kernel, started from each seed's own initial outputs.

    Args:
        config: sizes.
        dataset: what `run` returned.

    Returns:
        An `xarray.DataArray` of test outputs with dims (depth, width, seed, step, test, output).
    """
    import xarray as xr

    task, linearized = _task(config), jd.theory.linearized
    full = dataset.sel(expand="full")
    found = []
    for depth in config.depths:
        network = _network(depth, 1)
        kernel = network.kernel(task.x).ntk
        system = linearized.decompose(kernel)
        evolution = linearized.descent(_learning_rate(config, kernel), dataset["step"].values)

        predict = functools.partial(
            linearized.test_outputs, system, y=task.y, evolution=evolution, loss=jd.losses.mse,
            cross=network.kernel(task.x_test, task.x).ntk,
        )  # fmt: skip
        start = full.sel(depth=depth).isel(step=0)
        f0 = jnp.asarray(start["outputs"].transpose("width", "seed", ...).values)
        f0_test = jnp.asarray(start["outputs_test"].transpose("width", "seed", ...).values)
        found.append(
            np.asarray(jax.vmap(jax.vmap(lambda a, b, predict=predict: predict(f0=a, f0_test=b)))(f0, f0_test))
        )
    like = full["outputs_test"].transpose("depth", "width", "seed", "step", ...)
    return xr.DataArray(np.stack(found), dims=like.dims, coords=like.coords)


def distances(config: Config, dataset: Any) -> Any:
    """Root mean square distances between test outputs at the end, over test images and outputs.

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
        "infinite": rms(full - kernel_descent(config, dataset).isel(step=-1)),
        "change": network["change"].max("step"),
        "distance": network["distance"].isel(step=0),
    }
    return xr.Dataset({name: array.drop_vars(["expand", "step"], errors="ignore") for name, array in found.items()})


def figure(dataset: Any) -> Any:
    """Exponents of every distance against the width, and the ensemble mean against kernel descent."""
    with figures.style():
        return _draw(dataset)


def _draw(dataset: Any) -> Any:
    config = _config(dataset)
    found = distances(config, dataset)
    panels = {
        "change": "kernel change max‖K_t − K_0‖/‖K_0‖",
        "distance": "‖K_0 − K_∞‖/‖K_∞‖ at initialisation",
        "linear": "rms test f − f_lin",
        "quadratic": "rms test f − f_quad",
        "infinite": "rms test f − f_∞ from own start",
    }
    page, axes = figures.figure(2, 3)
    for place, (name, title) in zip(axes.flat, panels.items(), strict=False):
        for depth in config.depths:
            array = found[name].sel(depth=depth)
            fit = _fit(array)
            figures.power_law(place, array, "width", over="seed", fit=fit, label=f"{depth} layers")
        place.set_title(title)
    _mean_panel(axes.flat[-1], config, dataset)
    page.suptitle(
        f"Digits {config.classes[0]} and {config.classes[1]}, n = {config.num_train}, tanh, {config.steps} steps at "
        f"η c λ_max(K_∞) = {config.rate:g}, {config.seeds} seeds"
    )
    return page


def _mean_panel(axes: Any, config: Config, dataset: Any) -> None:
    """The ensemble mean of the trained test outputs against kernel descent from zero, which has no initial noise."""
    task, linearized = _task(config), jd.theory.linearized
    depth = config.depths[0]
    kernel = _network(depth, 1).kernel(task.x).ntk
    evolution = linearized.descent(_learning_rate(config, kernel), config.steps)
    prediction = linearized.test_outputs(
        linearized.decompose(kernel), jnp.zeros_like(task.y), task.y, evolution, loss=jd.losses.mse,
        cross=_network(depth, 1).kernel(task.x_test, task.x).ntk, f0_test=jnp.zeros_like(task.y_test),
    )  # fmt: skip
    widest = dataset["outputs_test"].sel(expand="full", depth=depth, width=max(config.widths)).isel(step=-1)
    example, output = (dim for dim in widest.dims if dim != "seed")
    members = widest.isel({output: 0}).transpose("seed", example).values  # [r, n]
    error = members.std(0, ddof=1) / np.sqrt(len(members))
    order = np.argsort(np.asarray(prediction)[:, 0])
    place = np.arange(len(order))
    axes.plot(place, np.asarray(prediction)[order, 0], color="black", label="infinite-width mean")
    axes.errorbar(
        place, members.mean(0)[order], error[order], fmt=".", ms=3, lw=0.7, label="ensemble mean ± standard error"
    )
    axes.set_title(f"trained outputs, {depth} hidden layers of {max(config.widths)}")
    axes.set_xlabel("test image, by predicted output")
    axes.legend(loc="upper left")


def _claims_at(depth: int, found: Any) -> list[Verdict]:
    here = found.sel(depth=depth)
    change, linear, distance, infinite = (_fit(here[name]) for name in ("change", "linear", "distance", "infinite"))
    ratio, low, high, width = _worst_ratio(here)
    where = f"{depth} hidden layers"

    def of(fit: Any) -> dict[str, float]:
        return {"estimate": fit.exponent, "low": fit.low, "high": fit.high}

    return [
        at_most(
            f"W1/{depth}",
            statement=f"The kernel change along training falls like m^(-1/2) or faster ({where}).",
            source="arXiv 2010.01092",
            bound=-0.4,
            **of(change),
        ),
        at_most(
            f"W2/{depth}",
            statement=f"The distance of the network to its linear model falls like m^(-1/2) or faster ({where}).",
            source="arXiv 2205.11786, Cor. 3.7",
            bound=-0.4,
            **of(linear),
        ),
        within(
            f"W3/{depth}",
            statement=f"The initial kernel approaches the infinite-width one like m^(-1/2) ({where}).",
            source="arXiv 1806.07572, Thm 1",
            lower=-0.6,
            upper=-0.4,
            **of(distance),
        ),
        at_most(
            f"W4/{depth}",
            statement=f"The quadratic model is closer to the network than the linear one at every width ({where}; the "
            f"worst is {width}).",
            source="arXiv 2205.11787",
            estimate=ratio,
            low=low,
            high=high,
            bound=1.0,
        ),
        at_most(
            f"W5/{depth}",
            statement=f"The trained network approaches infinite-width kernel descent from its own start ({where}).",
            source="arXiv 1806.07572, Thm 2",
            bound=0.0,
            **of(infinite),
        ),
    ]


def _worst_ratio(here: Any) -> tuple[float, float, float, int]:
    """Geometric-mean ratio of distances with its 95 % interval, at the width where its upper end is highest."""
    logs = np.log(here["quadratic"] / here["linear"])
    found = [(*mean_interval(logs.sel(width=width).values), int(width)) for width in here["width"].values]
    mean, low, high, width = max(found, key=lambda one: one[2])
    return float(np.exp(mean)), float(np.exp(low)), float(np.exp(high)), width


def _fit(array: Any) -> Any:
    return power_law(array.transpose("width", "seed").astype(float), "width", over="seed")


def _task(config: Config) -> Any:
    return jd.tasks.digits(classes=config.classes, n=config.num_train, n_test=config.num_test)


def _network(depth: int, width: int | Width) -> jd.Model:
    return jd.models.mlp((64, *(width,) * depth, 1), activation=jnp.tanh)


def _learning_rate(config: Config, kernel: Any) -> float:
    """η with η c λ_max(K_∞) = `rate`."""
    n = kernel.shape[0]
    return config.rate / (jd.losses.mse.c(n, 1) * float(jnp.linalg.eigvalsh(kernel)[-1]))


def _config(dataset: Any) -> Config:
    return _configuration.restored(dataset, Config)
