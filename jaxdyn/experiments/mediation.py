"""Does AGOP alignment mediate what spikes do to the test loss? A regression, and two interventions.

y = x_1 x_2 with x ~ N(0, I_d) and n = 20 d examples, fresh for every seed; a ReLU network with one hidden layer in NTK scaling;
L = (1/n) Σ (f − y)². Every arm starts at the rate η = `ratio` times the critical one, 2/(c λ_max(K_0)), and is judged where its loss on the
whole training set first reaches `level` (`analysis.crossings`), so that all have learned the training set equally well.

| arm | what it is |
|---|---|
| b = … | SGD at η with batches of b, up to all n examples: the observations |
| capped b = … | the same, but each step at min(η, 0.9 η_crit(X_b, w_t)): no step is super-critical for its own batch |
| slow b = … | the same at a constant rate, η times the mean of that cap over 64 batches at w_0: the control for the lower rate |
| forced … | all n examples, with the rate raised to 1.4 times the critical one whenever the loss has come down to 0.2, so many times |

Spikes are counted on the full training loss at every step until the crossing: factor 2, window 30, floor 0.02, rearm 1.1
(`analysis.spikes`). Of a run: y = log test loss, s = log(1 + spikes), a = −log(1 − alignment), the alignment with the AGOP of the true
target at the test inputs; a is taken because alignments crowd below 1. Observations have their seed's mean over the batch sizes
subtracted, since seeds have their own data. M3 and M4 are differences within seeds, of the seeds where both arms reach the level; the
statement says how many.

Criteria, fixed before any run:

| claim | criterion |
|---|---|
| M1 more spikes go with a lower test loss | standardised slope of y on s: interval below 0 |
| M2 half of that or more goes through alignment | share 1 − c'/c: interval above 0.5 |
| M2 direct: nothing is left beside it | standardised slope c' of y on s beside a: interval within [-0.2, 0.2] |
| M2 alignment: given the spikes, alignment goes with a lower test loss | slope of y on a beside s: interval below 0 |
| M3 spikes: the cap takes spikes away (a check of the intervention) | spikes, capped − plain: interval below 0 |
| M3 alignment: and with them alignment | a, capped − plain: interval below 0 |
| M3 test: and the test loss rises | y, capped − plain: interval above 0 |
| M3 rate: more than at a constantly lower rate | y, capped − slow: interval above 0 |
| M4 spikes, alignment, test: forced spikes do the opposite at full batch | forced − plain: above 0, above 0, below 0 |
| M3, M4 residual: the test loss moves as the alignment's change predicts | y − its prediction: interval within [-0.2, 0.2] |

The prediction of the last row is the line of y on a through the observations alone, so it is made without having seen an intervention; 0.2
is a fifth of the test loss. M2 is about a linear model of observations; if alignment is the path, M2 direct and the residuals are zero.

The first `ci` preset (d = 10, batches of 8) was too small to measure anything: hardly a run reached the level. It is larger since.

The cap is not the end of all spikes: a step that is sub-critical for its own batch may raise the loss of the other examples.

Gess and Heydecker (arXiv 2603.10079) give an explicit criterion, the sign of a function G of kernel, rate and data, for SGD in this scaling
to spike with high probability. Only the abstract could be read, which does not state G; nothing here compares with it.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815 (the chain from spikes through alignment to test loss; the tests of it are ours).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import association, crossings, figures, spikes
from jaxdyn.analysis.claims import Verdict, at_least, at_most, measured, within
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments import _configuration

RULE: dict[str, Any] = {"factor": 2.0, "window": 30, "floor": 0.02, "rearm": 1.1}
"""What counts as a spike of the full training loss."""

SHARE = 0.9
"""A capped step stays below this part of its batch's critical rate."""

FORCED_RATIO, FORCED_LEVEL = 1.4, 0.2
"""The rate after a raise, in units of the critical one, and the loss that calls for it."""

WORDS = {
    "spikes": ("spikes", "The number of spikes"),
    "alignment": ("a", "Alignment, −log(1 − ρ),"),
    "test": ("y", "The log test loss"),
    "rate": ("y", "Against a constantly lower rate the log test loss"),
    "residual": ("residual", ""),
}
"""Which number of a run a claim is about, and what it is called."""

SOURCE = "jaxdyn, on arXiv 2306.04815"


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment.

    Attributes:
        dim: d.
        num_train: n; as many test examples.
        width: m.
        seeds: number of data sets and initialisations.
        batch_sizes: of the observations; `num_train` is added as the last.
        capped: batch sizes, some of those, that are also run capped and slow.
        forced: numbers of raises.
        ratio: initial rate in units of the critical one.
        level: training loss at which runs are judged; the target has variance 1.
        steps: of a run that does not reach it.
        every: steps between two records of test loss and alignment.
    """

    dim: int
    num_train: int
    width: int
    seeds: int
    batch_sizes: tuple[int, ...]
    capped: tuple[int, ...]
    forced: tuple[int, ...]
    ratio: float
    level: float
    steps: int
    every: int


PRESETS = {
    "ci": Config(20, 400, 128, 5, (16, 64), (16,), (1,), 0.9, 0.02, 800, 10),
    "laptop": Config(30, 600, 256, 12, (8, 16, 32, 64, 128), (8, 16), (1, 2), 0.9, 0.01, 4000, 10),
    "paper": Config(100, 2000, 4096, 32, (4, 8, 16, 32, 64, 128, 256, 512), (8, 16), (1, 2), 0.9, 0.005, 20000, 20),
}


class Setting(NamedTuple):
    """What an arm makes its optimizer from.

    Attributes:
        rate: η.
        model: the network.
        params0: its anchor.
        task: what it learns.
        sampler: its batches.
        key: the key that the sampler is called with.
    """

    rate: Any
    model: jd.Model
    params0: Any
    task: Any
    sampler: Any
    key: Any


class CappedState(NamedTuple):
    """Steps taken, and the sum of their rates."""

    count: Any
    total: Any


def plain(setting: Setting) -> optax.GradientTransformation:
    """SGD at the rate itself."""
    return optax.sgd(setting.rate)


def capped(setting: Setting) -> optax.GradientTransformationExtraArgs:
    """SGD whose rate never exceeds `SHARE` of the critical rate of the batch that it is about to use, at the current parameters."""

    def init(_: Any) -> CappedState:
        return CappedState(jnp.zeros((), jnp.int32), jnp.zeros_like(setting.rate))

    def update(grads: Any, state: CappedState, params: Any = None, **_: Any) -> tuple[Any, CappedState]:
        rate = jnp.minimum(setting.rate, SHARE * _critical(setting, params, state.count))
        return jax.tree.map(lambda g: -rate * g, grads), CappedState(state.count + 1, state.total + rate)

    return optax.GradientTransformationExtraArgs(init, update)


def slow(setting: Setting) -> optax.GradientTransformation:
    """SGD at a constant rate: the mean that `capped` would have over 64 batches at the anchor."""
    rates = jax.lax.map(lambda step: _critical(setting, setting.params0, step), jnp.arange(64))
    return optax.inject_hyperparams(optax.sgd)(learning_rate=jnp.mean(jnp.minimum(setting.rate, SHARE * rates)))


def forced(num: int) -> Callable[[Setting], optax.GradientTransformation]:
    """Gradient descent whose rate is raised above the critical one `num` times."""

    def make(setting: Setting) -> optax.GradientTransformation:
        return jd.dynamics.catapults(
            setting.rate, apply=setting.model.apply, x=setting.task.x, loss=jd.losses.mse, ratio=FORCED_RATIO, level=FORCED_LEVEL,
            num=num,
        )  # fmt: skip

    return make


def _critical(setting: Setting, params: Any, step: Any) -> Any:
    return jd.theory.batch_critical_learning_rate(
        setting.model.apply, params, setting.task, loss=jd.losses.mse, sampler=setting.sampler, key=setting.key, step=step
    )  # fmt: skip


def arms(config: Config) -> Mapping[str, tuple[int, Callable[[Setting], Any]]]:
    """Batch size and optimizer of every arm."""
    observed = {
        name: (b, plain) for name, b in zip(observations(config), (*config.batch_sizes, config.num_train), strict=True)
    }
    lowered = {f"{make.__name__} b = {b}": (b, make) for b in config.capped for make in (capped, slow)}
    raised = {f"forced {num}": (config.num_train, forced(num)) for num in config.forced}
    return {**observed, **lowered, **raised}


def observations(config: Config) -> list[str]:
    """Names of the arms without an intervention, the whole training set last."""
    return [f"b = {b}" for b in (*config.batch_sizes, config.num_train)]


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Run the sweep. An arm ends when all of its seeds have reached the level.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (arm, seed, …): `loss` [step] on the training set; `train` (the same), `log_test`, `alignment` and `rate`
        (mean so far where capped, last otherwise) [probe_step]; `learning_rate` and `relative_rate` [start], η c λ_max(K_0).
    """
    function, loop, vmap = ensemble(config)
    attrs = _configuration.attributes("mediation", config)
    level = config.level
    return jd.sweep(
        function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs,
        stop=lambda values: (np.asarray(values["train"]) <= level).any(axis=1),
    )  # fmt: skip


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes: what `jd.sweep` and `jd.ensemble.plan` take."""
    model = jd.models.mlp((config.dim, config.width, 1), activation=jax.nn.relu)
    made = arms(config)

    def one(arm: str, seed: Any) -> jd.Training:
        key = jax.random.key(seed)
        task = jd.tasks.polynomial(
            jax.random.fold_in(key, 1), degree=2, dim=config.dim, n=config.num_train, n_test=config.num_train
        )
        truth = jd.geometry.agop(task.target, task.x_test)
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
        rate = config.ratio * critical
        batch_size, make = made[arm]
        sampler = jd.full_batch if batch_size == config.num_train else jd.minibatch(batch_size)
        test = jd.probes.TestLoss()
        return jd.Training(
            model,
            task,
            make(Setting(rate, model, params0, task, sampler, jd.dynamics.batch_key(key))),
            steps=config.steps,
            key=key,
            params0=params0,
            sampler=sampler,
            record=(
                jd.record(jd.at([0]), dim="start", learning_rate=lambda _: rate, relative_rate=lambda _: 2 * rate / critical),
                jd.record(jd.every(1), loss=jd.probes.Loss()),
                jd.record(
                    jd.every(config.every), dim="probe_step", train=jd.probes.Loss(), log_test=lambda snapshot: jnp.log(test(snapshot)),
                    alignment=jd.probes.AGOPAlignment(task.x_test, to=truth), rate=lambda snapshot: _rate(snapshot, rate),
                ),
            ),
        )  # fmt: skip

    return one, {"arm": list(made)}, {"seed": np.arange(config.seeds)}


def _rate(snapshot: Any, rate: Any) -> Any:
    """The mean rate so far of a capped run, the last rate of a forced or slow one, η of any other."""
    state = snapshot.optimizer_state
    if isinstance(state, CappedState):
        return state.total / jnp.maximum(state.count, 1)
    if hasattr(state, "hyperparams"):
        return state.hyperparams["learning_rate"]
    return state.rate if isinstance(state, jd.dynamics.CatapultState) else rate


def measures(dataset: Any) -> Any:
    """Every run where its training loss first reaches the level.

    Returns:
        An `xarray.Dataset` with dims (arm, seed): `y`, `s`, `a`, `alignment`, `spikes`, `at` (steps taken), `rate`; NaN where the
        level was not reached.
    """
    import xarray as xr

    data, config = dataset.load(), _config(dataset)

    def read(values: Any) -> Any:
        return crossings.at_level(values, data["train"], level=config.level, dim="probe_step")

    at = read(data["probe_step"])
    starts = spikes.find(data["loss"], **RULE)
    count = (starts & (data["step"] <= at)).sum("step").where(at.notnull()).astype(float)
    alignment = read(data["alignment"])
    found = {
        "y": read(data["log_test"]), "s": np.log1p(count), "a": -np.log1p(-alignment), "alignment": alignment, "spikes": count, "at": at,
        "rate": read(data["rate"]),
    }  # fmt: skip
    return xr.Dataset(found).transpose("arm", "seed")


def centred(dataset: Any) -> Any:
    """`measures` of the observations, each seed's mean over the batch sizes subtracted."""
    observed = measures(dataset).sel(arm=observations(_config(dataset)))
    return observed - observed.mean("arm")


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on M1 to M4."""
    found, observed, config = measures(dataset), centred(dataset), _config(dataset)
    fit = association.mediation(observed["y"], exposure=observed["s"], mediator=observed["a"], over="seed")
    slope = float((observed["a"] * observed["y"]).sum() / (observed["a"] ** 2).where(observed["y"].notnull()).sum())
    units = f"{fit.num_units} runs, {config.seeds} seeds, {len(config.batch_sizes) + 1} batch sizes"

    def judge(judged: Callable[..., Verdict], name: str, statement: str, numbers: Any, **bounds: float) -> Verdict:
        return judged(name, statement=statement, source=SOURCE, **bounds, **measured(numbers))

    verdicts = [
        judge(at_most, "M1", f"More spikes go with a lower test loss: slope ({units}).", fit.total, bound=0.0),
        judge(at_least, "M2", "Half of that or more goes through alignment: share 1 − c'/c.", fit.share, bound=0.5),
        judge(within, "M2/direct", "Beside alignment, spikes have no slope: c'.", fit.direct, lower=-0.2, upper=0.2),
        judge(at_most, "M2/alignment", "Beside spikes, alignment has a negative slope: b.", fit.mediator, bound=0.0),
    ]

    def compare(claim: str, arm: str, other: str, signs: Mapping[str, int]) -> None:
        pair = found.sel(arm=arm, drop=True) - found.sel(arm=other, drop=True)
        is_there = pair["y"].notnull()
        pair, what = pair.isel(seed=np.flatnonzero(is_there.values)), f"{arm} − {other}, {int(is_there.sum())} seeds"
        pair = pair.assign(residual=pair["y"] - slope * pair["a"])
        for name, sign in signs.items():
            quantity, label = WORDS[name]
            numbers = mean_interval(pair[quantity].values) if pair.sizes["seed"] >= 3 else (np.nan,) * 3
            if sign == 0:
                statement = f"The test loss moves as alignment predicts: log residual ({what})."
                verdicts.append(judge(within, f"{claim}/{name}", statement, numbers, lower=-0.2, upper=0.2))
            else:
                statement = f"{label} {'rises' if sign > 0 else 'falls'}: difference ({what})."
                judged = at_least if sign > 0 else at_most
                verdicts.append(judge(judged, f"{claim}/{name}", statement, numbers, bound=0.0))

    for b in config.capped:
        clipped = {"spikes": -1, "alignment": -1, "test": 1, "residual": 0}
        compare(f"M3/b={b}", f"capped b = {b}", f"b = {b}", clipped)
        compare(f"M3/b={b}", f"capped b = {b}", f"slow b = {b}", {"rate": 1})
    for num in config.forced:
        risen = {"spikes": 1, "alignment": 1, "test": -1, "residual": 0}
        compare(f"M4/{num}", f"forced {num}", observations(config)[-1], risen)
    return verdicts


def figure(dataset: Any) -> Any:
    """Losses with spikes marked, spikes and alignment against the test loss, and what the interventions did."""
    with figures.style():
        return _draw(dataset.load())


def _draw(data: Any) -> Any:
    config, found = _config(data), measures(data)
    page, axes = figures.figure(1, 3, size=(4.4, 3.6))
    names, least = found["arm"].values.tolist(), min(config.batch_sizes)
    chosen = (f"b = {least}", observations(config)[-1], f"capped b = {least}", f"forced {config.forced[-1]}")
    shown = [name for name in chosen if name in names]
    starts = spikes.find(data["loss"], **RULE)
    for color, name in zip(figures.COLORS, shown, strict=False):
        loss, mark = data["loss"].sel(arm=name).isel(seed=0), starts.sel(arm=name).isel(seed=0)
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


def _config(dataset: Any) -> Config:
    return _configuration.restored(dataset, Config)
