r"""Large rates end in flat minima: curvature and test accuracy against the learning rate, at fixed steps and at fixed physical time.

λ is the largest eigenvalue of K/n, so that with the loss 1/(2n) Σ (c = 1/n) the critical rate is 2/λ_0 and η_rel = η λ_0. Fully
connected ReLU networks with three hidden layers learn the parity of handwritten digits (y = ±1) by full-batch gradient descent; the paper
has width 2048 and MNIST. Every run is looked at after `steps` steps, and after the number of steps at which t η λ_0 = `time` (the paper's
FC network: 80). A run *trains* if `phases.classify` calls it lazy or catapult and its last loss is below its first.

Criteria, fixed before any run:

| claim | criterion |
|---|---|
| C6.1/steps below 2 the curvature stays: λ_T/λ_0, η_rel ≤ 1.5, at fixed steps | geometric mean, worst rate: within [0.8, 1.25] |
| C6.1/time the same at fixed time | geometric mean, worst rate: within [0.8, 1.25] |
| C6.1/rate there it does not depend on the rate, at fixed time | exponent in η_rel within [-0.1, 0.1] |
| C6.2 above 2 it ends below 2/η | η c λ after `steps`, all runs that train, worst: at most 2 |
| C6.2/soon and is there soon, η_rel from 2.5 to 3.5 | steps until below for good (of the first 50), mean: interval at most 10 |
| C6.2/rate it falls with the rate, η_rel ≥ 2.2 that train | exponent of λ_T in η_rel: interval below 0 |
| C6.3/steps the best accuracy at fixed steps is above 2 | best super- minus best sub-critical: interval above 0 |
| C6.3/time at fixed time it is as good or better | the same difference: interval at least -0.01 |
| C6.3/loss the best test loss at fixed steps is above 2 | ratio of the best losses: interval below 1 |
| edge: largest trained rate in units of 1/λ_0 (the paper: ≈ 12 for ReLU) | brackets of the grid, all seeds, within [8, 16] |

The 10 is the paper's "less than 10 steps". "Best" is chosen without the seed it is measured on: for each seed the rate on either side of
2 that is best on average over the others, among the rates at which every seed trains. Accuracies and losses are those at the end of the
horizon, not the best on the way. The paper follows a fixed time by steps at a small rate, which removes the noise of minibatches; full
batches have none, and we do not. (`laptop` had 5 seeds in a first run: with accuracies in steps of 0.002 an interval was infinite.)

References:
    Lewkowycz et al., arXiv 2003.02218, figures 2 and 3.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures, phases
from jaxdyn.analysis.claims import Verdict, at_least, at_most, measured, within
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments import _configuration

SOURCE = "arXiv 2003.02218"
EARLY = 50
"""As many first steps are looked at one by one."""


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    width: int  # of each of the three hidden layers
    seeds: int  # number of initialisations
    num_train: int  # training images
    num_test: int  # test images
    rates: tuple[float, ...]  # relative rates η λ_0, in order
    steps: int  # of gradient descent
    time: float  # t η λ_0 at the fixed physical time; `time`/`rates` steps must not exceed `steps`


RATES = (0.25, 0.5, 1.0, 1.5, 2.2, 2.6, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0)

PRESETS = {
    "ci": Config(64, 3, 64, 200, (0.5, 1.0, 1.5, 2.2, 2.6, 3.0, 3.5, 5.0, 8.0, 12.0), 200, 50.0),
    "laptop": Config(256, 8, 128, 500, RATES, 800, 200.0),
    "paper": Config(2048, 8, 512, 1000, RATES, 8000, 80.0),
}


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Run the sweep.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (rate, seed, …), `rate` the relative one η λ_0: along `step` (all of them) `loss`; along `probe_step` (the first
        50 steps, every horizon, and the end) `curvature` (λ_max of K, not normalised), `test_loss`, `accuracy`; along `start`
        `learning_rate` (absolute).

    Raises:
        ValueError: where the fixed time does not fit into the steps.
    """
    function, loop, vmap = ensemble(config)
    attrs = _configuration.attributes("flatness", config)
    return jd.sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs)


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes: what `jd.sweep` and `jd.ensemble.plan` take."""
    task, horizons = parity(config), horizon(config)
    if horizons.max() > config.steps:
        raise ValueError(
            f"At η_rel = {config.rates[0]:g} the time {config.time:g} takes {horizons.max()} steps, but `steps` is {config.steps}; "
            "raise it or lower `time`."
        )
    times = sorted({*range(min(EARLY, config.steps) + 1), *horizons.tolist(), config.steps})
    model = jd.models.mlp((64, config.width, config.width, config.width, 1), activation=jax.nn.relu)

    def one(rate: Any, seed: Any) -> jd.Training:
        key = jax.random.key(seed)
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.half_mean)
        learning_rate = rate / 2 * critical
        return jd.Training(
            model,
            task,
            optax.sgd(learning_rate),
            steps=config.steps,
            key=key,
            params0=params0,
            loss=jd.losses.half_mean,
            record=(
                jd.record(jd.every(1), loss=jd.probes.Loss()),
                jd.record(
                    jd.at(times), dim="probe_step", curvature=jd.probes.NTKNorm(task.x), test_loss=jd.probes.TestLoss(),
                    accuracy=jd.probes.Accuracy(),
                ),
                jd.record(jd.at([0]), dim="start", learning_rate=lambda _: learning_rate),
            ),
        )  # fmt: skip

    return one, {}, {"rate": np.asarray(config.rates, float), "seed": np.arange(config.seeds)}


def parity(config: Config) -> Any:
    """All ten digits, y = +1 for the even ones and −1 for the odd ones."""
    drawn = jd.tasks.digits(classes=tuple(range(10)), n=config.num_train, n_test=config.num_test, key=jax.random.key(0))
    signs = jnp.where(jnp.arange(10) % 2 == 0, 1.0, -1.0)[:, None]
    return jd.tasks.from_arrays(drawn.x, drawn.y @ signs, x_test=drawn.x_test, y_test=drawn.y_test @ signs)


def horizon(config: Config) -> np.ndarray:
    """Steps to the fixed physical time, for every rate."""
    return np.maximum(1, np.round(config.time / np.asarray(config.rates, float))).astype(int)


def measures(dataset: Any) -> Any:
    """What the claims are about, one number a member.

    Returns:
        An `xarray.Dataset` with dims (rate, seed): `phase`, `trains`; and with `horizon` ("steps", "time"), NaN where a run does not train:
        `kept` (λ/λ_0), `relative` (η c λ), `test_loss`, `accuracy`; and `above` (the last of the first 50 steps with η c λ ≥ 2, plus one).
    """
    import xarray as xr

    config, data = _config(dataset), dataset.load()
    loss, curvature = data["loss"], data["curvature"]
    ends = curvature.sel(probe_step=[0, config.steps]).rename(probe_step="step")
    phase = phases.classify(loss, curvature=ends, diverged_at=data["diverged_at"])
    trains = phase.isin(["lazy", "catapult"]) & (loss.isel(step=-1, drop=True) < loss.isel(step=0, drop=True))
    at = xr.DataArray(horizon(config), dims="rate", coords={"rate": data["rate"]})
    first = curvature.sel(probe_step=0, drop=True)
    eta = data["learning_rate"].isel(start=0, drop=True) * jd.losses.half_mean.c(config.num_train, 1)

    def both(array: Any) -> Any:
        parts = [array.sel(probe_step=config.steps, drop=True), array.sel(probe_step=at).drop_vars("probe_step")]
        return xr.concat(parts, dim=xr.Variable("horizon", ["steps", "time"])).where(trains)

    early = eta * curvature.sel(probe_step=slice(0, EARLY)) >= 2
    found = {
        "phase": phase,
        "trains": trains,
        "kept": both(curvature / first),
        "relative": both(eta * curvature),
        "test_loss": both(data["test_loss"]),
        "accuracy": both(data["accuracy"]),
        "above": (early * (early["probe_step"] + 1)).max("probe_step").where(trains),
    }
    return xr.Dataset({name: one.reset_coords(drop=True) for name, one in found.items()})


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on C6.1 to C6.3 and the edge of training."""
    found = measures(dataset)
    lazy, wild = found.sel(rate=slice(0.0, 1.6)), found.sel(rate=slice(2.1, None))
    wild = wild.sel(rate=wild["trains"].all("seed"))
    verdicts = []
    for when in ("steps", "time"):
        logs = np.log(lazy["kept"].sel(horizon=when).transpose("rate", "seed").values.astype(float))
        worst = max((mean_interval(one) for one in logs), key=lambda one: abs(one.mean))
        statement = f"Below 2 the curvature stays, worst rate: λ_T/λ_0 at fixed {when}."
        verdicts.append(
            within(f"C6.1/{when}", statement=statement, source=SOURCE, lower=0.8, upper=1.25, **_ratio(worst))
        )
    statement = "Below 2 the curvature at fixed time does not depend on the rate: exponent."
    flat = _exponent(lazy["kept"].sel(horizon="time"))
    verdicts.append(within("C6.1/rate", statement=statement, source=SOURCE, lower=-0.1, upper=0.1, **flat))
    largest = float(wild["relative"].sel(horizon="steps").max()) if wild.sizes["rate"] else np.nan
    statement = "Above 2 the curvature ends below 2/η: largest η c λ of all runs that train."
    verdicts.append(at_most("C6.2", statement=statement, source=SOURCE, bound=2.0, **measured(largest)))
    soon = found["above"].sel(rate=slice(2.4, 3.6)).mean("rate").values
    statement = "A catapult is over soon: steps until η c λ stays below 2."
    verdicts.append(
        at_most("C6.2/soon", statement=statement, source=SOURCE, bound=10.0, **measured(mean_interval(soon)))
    )
    falls = _exponent(wild["kept"].sel(horizon="steps"))
    statement = "Above 2 the final curvature falls with the rate: exponent."
    verdicts.append(at_most("C6.2/rate", statement=statement, source=SOURCE, bound=0.0, **falls))
    for when, bound, words in (("steps", 0.0, "lies"), ("time", -0.01, "or as good a one lies")):
        gain = best(found["accuracy"].sel(horizon=when), found["trains"])
        statement = f"The best accuracy at fixed {when} {words} above 2: super- minus sub-critical."
        verdicts.append(
            at_least(f"C6.3/{when}", statement=statement, source=SOURCE, bound=bound, **measured(mean_interval(gain)))
        )
    gain = best(-np.log(found["test_loss"].sel(horizon="steps")), found["trains"])
    statement = "The best test loss at fixed steps is above 2: super- over sub-critical."
    verdicts.append(at_most("C6.3/loss", statement=statement, source=SOURCE, bound=1.0, **_ratio(mean_interval(-gain))))
    edge = phases.bracket(~found["trains"], dim="rate")
    low, high = float(edge.low.min()), float(edge.high.max())
    middle = float(np.sqrt(edge.low * edge.high).mean())
    statement = "Training ends near η λ_0 = 12: brackets of all seeds."
    edges = {"estimate": middle, "low": low, "high": high}
    return [*verdicts, within("edge", statement=statement, source=SOURCE, lower=8.0, upper=16.0, **edges)]


def best(score: Any, trains: Any) -> np.ndarray:
    """Score at the best super-critical rate minus that at the best sub-critical one, each chosen without the seed, [seed].

    Args:
        score: what is to be large, dims (rate, seed).
        trains: whether a run trains, likewise; a rate counts where all seeds train.
    """
    usable = score.sel(rate=trains.all("seed")).transpose("rate", "seed")
    sides = [usable.sel(rate=slice(2.1, None)).values, usable.sel(rate=slice(0.0, 1.9)).values]
    seeds = usable.sizes["seed"]
    if not all(len(side) for side in sides):
        return np.full(seeds, np.nan)
    picked = [[side[np.delete(side, s, axis=1).mean(axis=1).argmax(), s] for s in range(seeds)] for side in sides]
    return np.subtract(*np.asarray(picked, float))


def figure(dataset: Any) -> Any:
    """Loss and curvature early on; curvature, accuracy and test loss against the rate at both horizons."""
    with figures.style():
        return _draw(dataset)


def _draw(dataset: Any) -> Any:
    config, found = _config(dataset), measures(dataset)
    page, axes = figures.figure(1, 4, size=(3.7, 3.4))
    trained = found["rate"].values[found["trains"].all("seed").values]
    shown = trained[np.unique(np.linspace(0, len(trained) - 1, 6).astype(int))]
    early = dataset["curvature"].where(found["trains"]).sel(rate=shown, probe_step=slice(0, EARLY)).load()
    first = early.sel(probe_step=0, drop=True)
    figures.curves(axes[0, 0], (early / first).reset_coords(drop=True), x="probe_step", hue="rate", over="seed")
    axes[0, 0].set_title("λ_t/λ_0, first steps; colour: η_rel")
    axes[0, 0].set_xlabel("step")
    panels = (("kept", "λ/λ_0 at the end"), ("accuracy", "test accuracy"), ("test_loss", "test loss"))
    for place, (name, title) in zip(axes[0, 1:], panels, strict=True):
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
    text = f"fixed steps {config.steps}, fixed time t η λ_0 = {config.time:g}"
    page.suptitle(
        f"Parity of digits, n = {config.num_train}, 3 hidden layers of {config.width}, {config.seeds} seeds; {text}"
    )
    return page


def _exponent(array: Any) -> dict[str, float]:
    """The exponent in the rate; NaN where too few rates train."""
    if array.sizes["rate"] < 3:
        return measured(np.nan)
    fit = power_law(array, "rate", over="seed")
    return {"estimate": fit.exponent, "low": fit.low, "high": fit.high}


def _ratio(interval: Any) -> dict[str, float]:
    """The interval of a mean of logarithms as that of a geometric mean."""
    return measured(np.exp(interval))


def _config(dataset: Any) -> Config:
    return _configuration.restored(dataset, Config)
