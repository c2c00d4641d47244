r"""Where a catapult happens: the loss in the top eigenspace of the current tangent kernel, and outside it.

Two-layer ReLU networks, fully connected (`models.two_layer_relu`) and convolutional (3 × 3, zero padding, flat readout), and their
quadratic models around the same initialisation, by gradient descent on n pictures of two classes at η_rel = η c λ_1(K_0) between 2 and 4.
At every step the kernel K_t on the training pictures is decomposed anew, K_t u_i = λ_i u_i, and with r = f − y

    P_{≤s}L = (c/2) Σ_{i≤s} ⟨u_i, r⟩²,    P_{>s}L = L − P_{≤s}L.

The diagnostics of paper 2205.11787, appendix 19.3, are for networks defined by what a step does to the top direction p1 = u_1(t):

    ⟨p1, r_{t+1}⟩ = (1 − η c λ_1 + p1ᵀR_f p1) ⟨p1, r_t⟩,    p1ᵀK_{t+1} p1 = λ_1 − p1ᵀR_K p1.

For a quadratic model p1ᵀR_K p1 is then that of `theory.catapult.quadratic_update`, and p1ᵀR_f p1 stands for p1ᵀR_f r/⟨p1, r⟩: the whole of
R_f's effect on p1. The quadratic form of K_{t+1} is not its top eigenvalue, which is recorded as well.

s is known before the run: the number of eigenvalues of K_0 above 2/(η c), those with η c λ_i(K_0) > 2, at least 1. Only runs that
`analysis.phases` calls a catapult count (loss up by more than a tenth, then below its start); the others are counted in the statements.

Criteria, fixed before any run; each for every network and model at the rate with the worst mean, intervals over initialisations
(C2.1/rest and C1.6/positive: the worst member):

| claim | number | criterion |
|---|---|---|
| C1.6 the loss in p1 almost captures the spike | P_{≤1}L / L at the step of the peak | at least 0.9 |
| C2.1/top nearly all of the spike is in P_{≤s} | P_{≤s}L / L at the step of the peak | at least 0.9 |
| C2.1/rest the complement does not spike | max_t P_{>s}L_t / P_{>s}L_0 | at most 2: a spike doubles |
| C1.6/positive both diagnostics are positive when the loss is large | share of the steps from half the peak or more | at least 0.95 |
| C1.6/scale p1ᵀR_f p1 scales with the loss | exponent of its positive values in P_{≤1}L, from 2 L_0 to the peak | within [0.75, 1.25] |
| C1.2/norm the kernel norm ends below 2/(η c) | η c λ_1 at the end | at most 2 |

At 0.9 a tenth of the peak is elsewhere, which for a peak of ten times the start still is about the start itself. After the first
laptop run the two numbers with a bound that most members attain exactly (1) lost their intervals, whose ends the bootstrap put at
infinity, and are the worst member's since, which is the stricter reading; and the worst rate is that of the worst mean, where it had been
that of the end of an interval, which chose rates with two catapults left. Numbers and bounds are as they were.

The statements also tell the least s whose complement does not double, which no criterion uses.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2205.11787, figures 6 and 7, appendix 19.3. Zhu et al., arXiv 2306.04815, claim 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures
from jaxdyn.analysis.claims import Verdict, at_least, at_most, measured, within
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments import _configuration, _pictures

NETWORKS = ("dense", "convolution")
MODELS = ("network", "quadratic")
RISE = 1.1
"""A loss above this multiple of its start has risen, as `analysis.phases` has it."""

DOUBLED = 2.0
"""A part of the loss above this multiple of its start spikes."""

SEEN = 1e-6
"""Losses below this part of the start are rounding, and are not drawn."""

PAPER, SGD_PAPER = "arXiv 2205.11787", "arXiv 2306.04815"


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    data: str  # one of `digits`, `mnist`, `fashion-mnist`, `cifar-2`; all but the first need files under `$JAXDYN_DATA`
    side: int  # pixels a side, at most; larger pictures are averaged over blocks
    num_train: int  # training pictures n
    width: int  # hidden neurons of the fully connected network
    channels: int  # of the convolutional one
    rates: tuple[float, ...]  # η c λ_1(K_0)
    seeds: int  # number of initialisations
    steps: int  # steps of gradient descent


PRESETS = {
    "ci": Config("digits", 8, 32, 256, 16, (2.4, 3.0), 5, 30),
    "laptop": Config("digits", 8, 128, 1024, 128, (2.4, 3.0, 3.6), 8, 60),
    "paper": Config("cifar-2", 32, 128, 2048, 1024, (2.2, 2.6, 3.0, 3.4, 3.8), 10, 500),
}


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Run the sweep.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (network, model, rate, seed, …): along `step` (all of them) `loss`, and by `TopDirection` `top_eigenvalue`
        and `top_loss` [mode], `top_output_correction` and `top_kernel_decrease`; along `start` `learning_rate`.
    """
    function, loop, vmap = ensemble(config)
    attrs = _configuration.attributes("subspace", config)
    return jd.sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs)


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes: what `jd.sweep` and `jd.ensemble.plan` take."""
    task = _pictures.task(config.data, n=config.num_train, n_test=0, side=config.side)
    c = jd.losses.mse.c(config.num_train, 1)
    shape = _pictures.shape(config.data, config.side)
    models = {
        "dense": jd.models.two_layer_relu(task.x.shape[1], config.width),
        "convolution": jd.models.conv(
            shape, (config.channels,), 1, activation=jax.nn.relu, pool=jd.models.flatten
        ),
    }  # fmt: skip
    quadratic = {"dense": jd.models.frozen_gates_on(task.x), "convolution": jd.quadratic}

    def one(network: str, model: str, rate: Any, seed: Any) -> jd.Training:
        key, chosen = jax.random.key(seed), models[network]
        params0 = chosen.init(key)
        learning_rate = rate / 2 * jd.theory.critical_learning_rate(chosen.apply, params0, task, loss=jd.losses.mse)
        return jd.Training(
            chosen,
            task,
            optax.sgd(learning_rate),
            steps=config.steps,
            key=key,
            params0=params0,
            expand=quadratic[network] if model == "quadratic" else jd.exact,
            record=(
                jd.record(jd.every(1), loss=jd.probes.Loss(), top=TopDirection(learning_rate * c)),
                jd.record(jd.at([0]), dim="start", learning_rate=lambda snapshot: learning_rate),
            ),
        )

    loop = {"network": list(NETWORKS), "model": list(MODELS)}
    return one, loop, {"rate": np.asarray(config.rates), "seed": np.arange(config.seeds)}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class TopDirection:
    """The loss in every eigendirection of the current kernel, and what the last step did to the top one. Record it at every step.

    `eigenvalue` and `loss` [mode] are λ_i and (c/2)⟨u_i, r⟩², largest eigenvalue first. `output_correction` and `kernel_decrease` are
    p1ᵀR_f p1 and p1ᵀR_K p1 of the step that ended here, p1 being the top direction at its start; NaN at the first record. Costs the
    kernel and the eigenvectors of an n × n matrix.
    """

    rate: Any  # η c

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "eigenvalue": ("mode",),
        "loss": ("mode",),
        "output_correction": (),
        "kernel_decrease": (),
    }

    def start(self, snapshot: Any) -> Any:
        """No direction yet: zeros in place of p1, λ_1 and ⟨p1, r⟩."""
        y = snapshot.task.y
        return jnp.zeros(y.size, y.dtype), jnp.zeros((), y.dtype), jnp.zeros((), y.dtype)

    def __call__(self, snapshot: Any, memory: Any) -> Any:
        """The values, and the direction for the next record."""
        task = snapshot.task
        residual = (snapshot.apply(snapshot.params, task.x) - task.y).reshape(-1)
        kernel = jd.geometry.as_matrix(jd.geometry.ntk_blocks(snapshot.apply, snapshot.params, task.x))
        values, vectors = jnp.linalg.eigh((kernel + kernel.T) / 2)
        values, vectors = values[::-1], vectors[:, ::-1]
        part = vectors.T @ residual
        direction, value, before = memory
        is_first = value == 0
        growth = (direction @ residual) / jnp.where(before == 0, jnp.nan, before)
        found = {
            "eigenvalue": values,
            "loss": snapshot.loss.c(*task.y.shape) / 2 * part**2,
            "output_correction": growth - 1 + self.rate * value,
            "kernel_decrease": jnp.where(is_first, jnp.nan, value - direction @ (kernel @ direction)),
        }
        return found, (vectors[:, 0], values[0], part[0])


def measures(dataset: Any) -> Any:
    """What the claims are about, one number a member.

    Returns:
        An `xarray.Dataset` with dims (network, model, rate, seed): `phase`, `rise` (peak over start), `size` (s), `top_one` and `top`
        (shares of P_{≤1} and P_{≤s} in the peak), `rest_one` and `rest` (largest P_{>1}L and P_{>s}L over their starts), `needed`
        (the least s whose complement does not spike), `positive`, `scale`, `final` (η c λ_1 at the end), `fall` (λ_1 at the end over
        its start). All but the first three are NaN where the run is no catapult.
    """
    import xarray as xr

    data = dataset.load()
    config = _config(data)
    loss, values = data["loss"], data["top_eigenvalue"]
    unit = data["learning_rate"].isel(start=0, drop=True) * jd.losses.mse.c(config.num_train, 1)
    evidence = jd.analysis.phases.evidence(
        loss, curvature=values.isel(mode=0, drop=True), diverged_at=data["diverged_at"], rise=RISE
    )
    start, peak = loss.isel(step=0, drop=True), evidence["peak"]
    size = (unit * values.isel(step=0, drop=True) > 2).sum("mode").clip(1)
    cumulative = data["top_loss"].cumsum("mode")
    place = loss.fillna(-1).argmax("step")
    one, several = cumulative.isel(mode=0, drop=True), cumulative.isel(mode=size - 1)
    outside = data["top_loss"].isel(mode=slice(None, None, -1)).cumsum("mode").isel(mode=slice(None, None, -1))
    is_calm = (outside / outside.isel(step=0)).max("step") <= DOUBLED
    correction, decrease = (data[f"top_{name}"].shift(step=-1) for name in ("output_correction", "kernel_decrease"))
    is_large = (loss >= peak / 2) & correction.notnull()
    is_growing = (loss >= 2 * start) & (data["step"] <= data["step"][place]) & (correction > 0)
    found = {
        "top_one": (one / loss).isel(step=place),
        "top": (several / loss).isel(step=place),
        "rest_one": ((loss - one) / (loss - one).isel(step=0, drop=True)).max("step"),
        "rest": ((loss - several) / (loss - several).isel(step=0, drop=True)).max("step"),
        "positive": ((correction > 0) & (decrease > 0)).where(is_large).mean("step"),
        "scale": _slope(np.log(one.where(is_growing)), np.log(correction.where(is_growing))),
        "needed": is_calm.argmax("mode").clip(1),
        "final": unit * values.isel(step=-1, mode=0, drop=True),
        "fall": evidence["curvature_ratio"],
    }
    is_catapult = evidence["phase"] == "catapult"
    kept = {name: array.where(is_catapult) for name, array in found.items()}
    whole = xr.Dataset({"phase": evidence["phase"], "rise": evidence["rise"], "size": size, **kept})
    return whole.drop_vars(["step", "mode"], errors="ignore")


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on C1.6, C2.1 and C1.2 for each network and model."""
    found = measures(dataset)
    return [
        verdict
        for network in found["network"].values.tolist()
        for model in found["model"].values.tolist()
        for verdict in _verdicts(f"{network}, {model}", found.sel(network=network, model=model))
    ]


def _verdicts(name: str, here: Any) -> list[Verdict]:
    others = int((here["phase"] != "catapult").sum())
    note = f" {others} of {here['phase'].size} runs are no catapults and left out." if others else ""
    needed = here["needed"].values[np.isfinite(here["needed"].values)]
    enough = (
        f" The least s whose does not: median {np.median(needed):g}, at most {needed.max():g}." if needed.size else ""
    )
    end = name.replace(", ", "/")

    def mean(judge: Any, claim: str, statement: str, number: str, source: str, bound: float) -> Verdict:
        interval, rate = _worst(here[number], lowest=judge is at_least)
        words = f"{statement} ({name}; η_rel = {rate:g}, s = {_size(here, rate)}).{note}"
        return judge(f"{claim}/{end}", statement=words, source=source, bound=bound, **interval)

    def member(judge: Any, claim: str, statement: str, number: str, source: str, bound: float) -> Verdict:
        value, where = _extreme(here, number, lowest=judge is at_least)
        words = f"{statement} ({name}; {where}).{enough if number == 'rest' else ''}{note}"
        return judge(
            f"{claim}/{end}", statement=words, source=source, bound=bound, estimate=value, low=value, high=value
        )

    slopes = [(_interval(here["scale"].sel(rate=rate)), float(rate)) for rate in here["rate"].values]
    interval, rate = max(slopes, key=lambda one: abs(one[0]["estimate"] - 1) if np.isfinite(one[0]["estimate"]) else -1)
    return [
        mean(at_least, "C1.6", "P_{≤1}L is almost all of the loss at the peak: its share", "top_one", f"{PAPER}, figures 6 and 7", 0.9),
        mean(at_least, "C2.1/top", "P_{≤s}L is nearly all of the loss at the peak: its share", "top", SGD_PAPER, 0.9),
        member(at_most, "C2.1/rest", "The complement does not spike: max P_{>s}L over its start", "rest", SGD_PAPER, DOUBLED),
        member(at_least, "C1.6/positive", "p1ᵀR_f p1, p1ᵀR_K p1 > 0 at large loss: share", "positive", f"{PAPER}, app. 19.3", 0.95),
        within(
            f"C1.6/scale/{end}",
            statement=f"p1ᵀR_f p1 scales with the loss in p1: exponent ({name}; η_rel = {rate:g}).{note}",
            source=f"{PAPER}, app. 19.3", lower=0.75, upper=1.25, **interval,
        ),
        mean(at_most, "C1.2/norm", "The kernel norm ends below 2/(ηc): ηcλ_1 at the end", "final", f"{PAPER}, theorem 1", 2.0),
    ]  # fmt: skip


def figure(dataset: Any) -> Any:
    """For every network and model: losses in and outside the top eigenspace, the two diagnostics, and the kernel norm."""
    with figures.style():
        return _draw(dataset.load())


def _draw(data: Any) -> Any:
    config, found = _config(data), measures(data)
    rate = float(config.rates[len(config.rates) // 2])
    cells = [(network, model) for network in NETWORKS for model in MODELS]
    page, axes = figures.figure(3, len(cells), size=(3.2, 2.5))
    for column, (network, model) in enumerate(cells):
        here = data.sel(network=network, model=model)
        size = _size(found.sel(network=network, model=model), rate)
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
        unit = here["learning_rate"].isel(start=0, drop=True) * jd.losses.mse.c(config.num_train, 1)
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


def _slope(x: Any, y: Any) -> Any:
    """Least-squares slope of y in x along the steps, for each member; NaN where fewer than 3 steps are finite."""
    is_there = np.isfinite(x) & np.isfinite(y)
    x, y = x.where(is_there), y.where(is_there)
    across = x - x.mean("step")
    slope = (across * (y - y.mean("step"))).sum("step") / (across**2).sum("step")
    return slope.where(is_there.sum("step") >= 3)


def _worst(array: Any, *, lowest: bool) -> tuple[dict[str, float], float]:
    """The interval over seeds at the rate with the lowest, or highest, mean; a rate without an interval only where all are."""
    found = [(_interval(array.sel(rate=rate)), float(rate)) for rate in array["rate"].values]
    sound = [one for one in found if np.isfinite(one[0]["estimate"])] or found
    return (min if lowest else max)(sound, key=lambda one: one[0]["estimate"])


def _extreme(here: Any, number: str, *, lowest: bool) -> tuple[float, str]:
    """The number of the worst member, and who that is; NaN where there is none."""
    flat = here.stack(member=("rate", "seed"))
    values = flat[number].values.astype(float)
    if not np.isfinite(values).any():
        return float("nan"), "no run"
    place = int(np.nanargmin(values) if lowest else np.nanargmax(values))
    one = flat.isel(member=place)
    middle = float(np.nanmedian(here[number].sel(rate=one["rate"].item()).values))
    where = f"η_rel = {one['rate'].item():g}, s = {int(one['size'])}, peak {float(one['rise']):.3g} L_0; median there {middle:.3g}"
    return float(values[place]), where


def _interval(array: Any) -> dict[str, float]:
    """The mean over the members that have a number; NaN for fewer than 2."""
    values = array.values[np.isfinite(array.values)].astype(float)
    numbers = mean_interval(values) if len(values) >= 2 else (np.nan,) * 3
    return measured(numbers)


def _size(here: Any, rate: float) -> int:
    return int(here["size"].sel(rate=rate).median())


def _config(dataset: Any) -> Config:
    return _configuration.restored(dataset, Config)
