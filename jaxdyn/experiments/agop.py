r"""Spikes and features: what the batch size, and catapults in gradient descent, do to the AGOP alignment and the test loss.

Two-layer ReLU networks in NTK scaling learn, at one rate η = `rate` · 2/(c λ_max(K_0)) for all batch sizes,

| task | what it is |
|---|---|
| rank-2, rank-3, rank-4 | y = x_1 ⋯ x_r, x ~ N(0, I_d), d the largest with C(d + r − 1, r) ≤ 1.28 n monomials (r = 2, n = 1000: d = 50) |
| digits | scikit-learn's images, even against odd, d = 64; the true AGOP is *estimated*, see below |

Beside stochastic descent, gradient descent with catapults (`dynamics.catapults`): the rate is raised to `jump` · 2/(c λ_max(K_t)) each
time the loss has come below `level`. Without biases the odd part of a two-layer ReLU network is linear, so that x_1 x_2 x_3 needs them:
rank-2 has none, the others have biases of deviation 1.

One run of each batch size answers three questions: what there is after equal steps, after equal epochs, and once the training loss has
stayed below the task's target for an epoch. A spike is what `spikes.find` finds with `RULE`, on the loss of the whole training set at
every step.

The true AGOP of the digits is that of reference networks (two hidden layers, Adam), each trained on all images, test images included, but
one fold of them, on which its error is measured. Each is a possible truth: intervals of the alignment cover the intervals with respect to
every reference, and R says how well they agree.

Criteria, fixed before any run. Every quantity is regressed on −log2(batch size), or the number of raises, for each seed; intervals are
those of the mean slope over seeds. "Above 0" means an interval at least 1e-6, so that no spikes at all support nothing. Seeds with a run
that diverged, never reached the target or were not raised as often as asked are left out of an answer, which says how many there were.

Changed after the first laptop run, looking at losses alone: its one target of 2e-3 was reached by no run of rank-3 and the digits, which
now have 0.3 and 0.1, and raises that had not taken place by the end of a budget counted as raises. The raises of rank-3 come after both
budgets.

| claim | criterion |
|---|---|
| C2.4 spikes of a run, per step and per epoch, rise as the batch shrinks | slope per halving above 0 |
| C2.4 alignment rises as the batch shrinks | slope per halving above 0 |
| C2.4 test loss falls as the batch shrinks | slope of its logarithm per halving below 0 |
| C2.4 rule: spikes of a run rise, to equal loss, whatever the rule | the least slope over the rules of `GRID` above 0 |
| C2.5 alignment rises with the raises of the rate | slope per raise above 0 |
| C2.5 test loss falls with the raises of the rate | slope of its logarithm per raise below 0 |
| R the references agree (digits) | cosine of each with the mean of the others: 95 % interval at least 0.9 |

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815. Its numbers could not be read; rule, rates and sizes are ours.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures, spikes
from jaxdyn.analysis.claims import Verdict, at_least, at_most
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments import _budgets, _configuration, _references

RULE: dict[str, Any] = {"factor": 2.0, "window": 30, "floor": 0.02, "rearm": 1.1}
"""What a spike is."""

GRID: dict[str, Any] = {"factor": [1.5, 2.0, 4.0], "window": [15, 60], "floor": [0.02], "rearm": [1.1]}
"""The rules that the counts are held against."""

BUDGETS = ("steps", "epochs", "loss")
COUNTS = {"spikes": "Spikes a run", "per_step": "Spikes a step", "per_epoch": "Spikes an epoch"}
TRACED, TOP = 128, 5  # training examples on which the kernel of one run is followed, and eigenvectors of its top
SOURCE = "arXiv 2306.04815"
NUMBERS = ("estimate", "low", "high")
ABOVE = 1e-6


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment.

    Attributes:
        tasks: some of rank-2, rank-3, rank-4, digits.
        batch_sizes: the last is that of gradient descent, n.
        catapults: numbers of raises of the rate in gradient descent, beside none.
        seeds: number of initialisations and streams of minibatches.
        width: of the hidden layer.
        num_test: test examples (the digits may have fewer).
        rate: η in units of 2/(c λ_max(K_0)).
        jump: η after a raise in units of the critical rate of that moment.
        level: loss below which the rate is raised.
        targets: of each task, the training loss that ends a run.
        steps: budget of steps; 0 for no such answer.
        epochs: budget of epochs; 0 for no such answer.
        most: steps after which a run ends although its loss has not reached the target.
        every: steps between two looks at the alignment and the test loss.
        references: number of reference networks of the digits.
        reference_steps: steps of their training.
    """

    tasks: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    catapults: tuple[int, ...]
    seeds: int
    width: int
    num_test: int
    rate: float
    jump: float
    level: float
    targets: tuple[float, ...]
    steps: int
    epochs: int
    most: int
    every: int
    references: int
    reference_steps: int

    @property
    def num_train(self) -> int:
        """N."""
        return max(self.batch_sizes)


PRESETS = {
    "ci": Config(("rank-2",), (8, 32, 256), (1,), 8, 128, 200, 0.9, 1.4, 0.2, (2e-3,), 250, 10, 1500, 25, 4, 100),
    "laptop": Config(
        ("rank-2", "rank-3", "digits"), (8, 16, 32, 64, 250, 1000), (1, 2, 3), 8, 512, 1000, 0.9, 1.4, 0.2, (2e-3, 0.3, 0.1),
        1000, 50, 8000, 25, 4, 1000,
    ),
    "paper": Config(
        ("rank-2", "rank-3", "rank-4"), (8, 16, 32, 64, 128, 512, 4000), (1, 2, 3, 4), 16, 4096, 4000, 0.9, 1.4, 0.2, (2e-3, 2e-3, 2e-3),
        4000, 100, 100000, 50, 4, 1000,
    ),
}  # fmt: skip


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Train the references of the digits, where they are asked for, and run the sweep.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (task, variant, seed, …), a variant being "b=…" or "… raises": along `step` (all of them) `loss`; along
        `probe_step` `test_loss`, `accuracy` (of the sign), `alignment` [reference], and `rate` and `raises` of runs with catapults; along
        `start` `learning_rate`, `relative_rate` (η c λ_max(K_0)), `batch_size`, `least` (steps before which a run does not end); along
        `trace_step`, of the `traced` runs only, `subspace_top`, `subspace_rest` and `curvature` of the kernel of the first 128 training
        examples.
    """
    truths, described = _references.truths(config) if "digits" in config.tasks else (None, {})
    function, loop, vmap = ensemble(config, truths)
    attrs = {**_configuration.attributes("agop", config), **described}

    def stop(values: Any) -> Any:
        size, least = (values[name][:, 0].astype(int) for name in ("batch_size", "least"))
        num = values["loss"].shape[1] - 1
        return (num >= least) & (
            _budgets.reached(values["loss"], _budgets.epoch(config.num_train, size), values["target"][:, 0]) >= 0
        )

    return jd.sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs, stop=stop)


def ensemble(config: Config, truths: Any = None) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes: what `jd.sweep` and `jd.ensemble.plan` take.

    Args:
        config: sizes.
        truths: AGOPs of the references of the digits, [reference, d, d]; zeros, enough for a plan, when None.
    """
    n = config.num_train
    if truths is None:
        truths = jnp.zeros((config.references, 64, 64))
    tasks = {
        name: _references.parity(config) if name == "digits" else _references.monomial(config, name)
        for name in config.tasks
    }
    aims = {name: truths if task.target is None else _references.known(config, task) for name, task in tasks.items()}
    kinds = variants(config)

    def one(task: str, variant: str, seed: Any) -> jd.Training:
        data, (size, raises), target = tasks[task], kinds[variant], target_of(config, task)
        key = jax.random.key(seed)
        model = network(config, task, data)
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, data, loss=jd.losses.mse)
        learning_rate = config.rate * critical
        least = max(config.steps, config.epochs * _budgets.epoch(config.num_train, size))
        optimizer: Any = optax.sgd(learning_rate)
        more: dict[str, Any] = {}
        if raises:
            optimizer = jd.dynamics.catapults(
                learning_rate, apply=model.apply, x=data.x, loss=jd.losses.mse, ratio=config.jump, level=config.level, num=raises
            )  # fmt: skip
            more = {
                "rate": lambda snapshot: snapshot.optimizer_state.rate,
                "raises": lambda snapshot: snapshot.optimizer_state.num_raised,
            }
        records = [
            jd.record(jd.every(1), loss=jd.probes.Loss()),
            jd.record(
                jd.every(config.every), dim="probe_step", test_loss=jd.probes.TestLoss(), accuracy=jd.probes.Accuracy(),
                alignment=_references.Alignment(data.x_test, aims[task]), **more,
            ),
            jd.record(
                jd.at([0]), dim="start", learning_rate=lambda snapshot: learning_rate,
                relative_rate=lambda snapshot: 2 * learning_rate / critical, batch_size=lambda snapshot: jnp.asarray(float(size)),
                least=lambda snapshot: jnp.asarray(float(least)), target=lambda snapshot: jnp.asarray(target),
            ),
        ]  # fmt: skip
        if task == config.tasks[0] and variant in traced(config):
            x, y = data.x[:TRACED], data.y[:TRACED]
            records.append(
                jd.record(
                    jd.every(2), dim="trace_step", subspace=jd.probes.SubspaceLoss(TOP, x, y), curvature=jd.probes.NTKNorm(x)
                )
            )  # fmt: skip
        return jd.Training(
            model,
            data,
            optimizer,
            steps=max(config.most, least),
            key=key,
            params0=params0,
            sampler=jd.full_batch if size == n else jd.minibatch(size),
            record=tuple(records),
        )

    return one, {"task": list(config.tasks), "variant": list(kinds)}, {"seed": np.arange(config.seeds)}


def variants(config: Config) -> dict[str, tuple[int, int]]:
    """`{name: (batch size, raises of the rate)}`."""
    found = {f"b={size}": (size, 0) for size in config.batch_sizes}
    return found | {f"{num} raises": (config.num_train, num) for num in config.catapults}


def traced(config: Config) -> tuple[str, ...]:
    """The variants of the first task whose kernel is followed for the figure: one with catapults, one with minibatches."""
    raised = [f"{num} raises" for num in config.catapults[:2]]
    small = [size for size in config.batch_sizes if size <= 32]
    return tuple(raised[-1:] + [f"b={size}" for size in small[-1:]])


def target_of(config: Config, task: str) -> float:
    """The training loss that ends a run on a task."""
    return config.targets[config.tasks.index(task)]


def network(config: Config, task: str, data: jd.Task) -> jd.Model:
    """The network that learns a task."""
    sizes = (data.x.shape[1], config.width, 1)
    return jd.models.mlp(sizes, activation=jax.nn.relu, bias=0.0 if task == "rank-2" else 1.0)


def measures(dataset: Any) -> Any:
    """What the claims are about: one number a member and budget.

    Returns:
        An `xarray.Dataset` with dims (budget, task, variant, seed): `spikes`, `per_step`, `per_epoch`, `time` (steps spent), `test_loss`,
        `error`, `alignment` [reference]; NaN where the budget or a raise was not reached, or the run diverged.
    """
    import xarray as xr

    config, data = _config(dataset), dataset.load()
    kinds = variants(config)
    size = xr.DataArray([kinds[name][0] for name in data["variant"].values.tolist()], dims="variant")
    epoch = xr.apply_ufunc(lambda one: _budgets.epoch(config.num_train, one), size)
    losses = data["loss"].transpose("task", "variant", "seed", "step")
    targets = np.array([target_of(config, task) for task in data["task"].values.tolist()])
    reached = _budgets.reached(losses.values, epoch.values[None, :, None], targets[:, None, None])
    asked = xr.DataArray([float(kinds[name][1]) for name in data["variant"].values.tolist()], dims="variant")
    raised = data["raises"].clip(min=0) if "raises" in data else xr.zeros_like(data["test_loss"])
    ends = {
        "steps": xr.full_like(losses.isel(step=0, drop=True), config.steps if config.steps else -1),
        "epochs": xr.full_like(losses.isel(step=0, drop=True), 1) * (epoch * config.epochs if config.epochs else -1),
        "loss": losses.isel(step=0, drop=True).copy(data=reached),
    }
    found = []
    for budget in BUDGETS:
        end = ends[budget].astype(float)
        is_there = (end >= 0) & (data["diverged_at"] < 0)
        counts = spikes.count(losses.where(losses["step"] <= end), **RULE, steps_per_epoch=config.num_train / size)
        at = np.searchsorted(data["probe_step"].values, end.values).clip(0, data.sizes["probe_step"] - 1)
        looks = data[["test_loss", "accuracy", "alignment"]].assign(raised=raised)
        seen = looks.isel(probe_step=end.copy(data=at).astype(int), drop=True)
        one = xr.Dataset(
            {
                "spikes": counts["per_run"],
                "per_step": counts["per_step"],
                "per_epoch": counts["per_epoch"],
                "time": end,
                "test_loss": seen["test_loss"],
                "error": 1 - seen["accuracy"],
                "alignment": seen["alignment"],
            }
        ).where(is_there & (seen["raised"] >= asked))
        found.append(one.drop_vars(["probe_step", "step"], errors="ignore"))
    return xr.concat(found, dim=xr.DataArray(list(BUDGETS), dims="budget", name="budget"))


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on C2.4 and C2.5, and on the references, for every task and budget that was run."""
    config, found = _config(dataset), measures(dataset)
    sizes = {f"b={size}": -math.log2(size) for size in config.batch_sizes}
    raises = {f"b={config.num_train}": 0.0} | {f"{num} raises": float(num) for num in config.catapults}
    budgets = [name for name, size in zip(BUDGETS, (config.steps, config.epochs, 1), strict=True) if size]
    verdicts = []
    for task in config.tasks:
        for budget in budgets:
            here = found.sel(task=task, budget=budget)
            name, words = f"{task}/{budget}", f"({task}, equal {budget})"
            for quantity, what in COUNTS.items():
                statement = f"{what} rise as the batch shrinks {words}"
                verdicts.append(_rises(f"C2.4/{name}/{quantity}", statement, here[quantity], sizes))
            verdicts += _features(f"C2.4/{name}", f"as the batch shrinks {words}", here, sizes)
            if config.catapults and budget != "epochs":  # equal steps are equal epochs here
                verdicts += _features(f"C2.5/{name}", f"with the raises of the rate {words}", here, raises)
        verdicts.append(_rule(dataset, found, task, sizes))
    if "digits" in config.tasks:
        agreement = mean_interval(json.loads(dataset.attrs["reference_agreement"]))
        errors = json.loads(dataset.attrs["reference_error"])
        statement = f"The references of the digits agree (held-out errors {', '.join(f'{e:.3f}' for e in errors)})."
        verdicts.append(
            at_least(
                "R/digits",
                statement=statement,
                source="jaxdyn",
                bound=0.9,
                **dict(zip(NUMBERS, agreement, strict=True)),
            )
        )
    return verdicts


def _features(name: str, words: str, here: Any, along: dict[str, float]) -> list[Verdict]:
    test = np.log(here["test_loss"])
    return [
        _rises(f"{name}/alignment", f"The AGOP alignment rises {words}", here["alignment"], along),
        _rises(f"{name}/test", f"The logarithm of the test loss falls {words}", test, along, is_fall=True),
    ]


def _rises(name: str, statement: str, array: Any, along: dict[str, float], *, is_fall: bool = False) -> Verdict:
    """The mean slope of a quantity; where it is known against several references, the interval covers all of theirs."""
    slopes = slope(array, along)
    many = slopes if slopes.ndim == 2 else slopes[:, None]  # [seed, reference]
    is_sound = np.isfinite(many).all(axis=1)
    missing = f"; {int((~is_sound).sum())} of {len(is_sound)} seeds left out" if not is_sound.all() else ""
    numbers = dict.fromkeys(NUMBERS, np.nan)
    if is_sound.sum() >= 2:
        ends = [mean_interval(column) for column in many[is_sound].T]
        numbers = {
            "estimate": float(np.mean([one.mean for one in ends])),
            "low": min(one.low for one in ends),
            "high": max(one.high for one in ends),
        }
    judge, bound = (at_most, -ABOVE) if is_fall else (at_least, ABOVE)
    return judge(name, statement=f"{statement}{missing}.", source=SOURCE, bound=bound, **numbers)


def slope(array: Any, along: dict[str, float]) -> np.ndarray:
    """Least-squares slopes along some variants, [seed, …]."""
    x = np.array(list(along.values()))
    values = array.sel(variant=list(along)).transpose("variant", "seed", ...).values
    found: np.ndarray = np.tensordot(x - x.mean(), values, axes=1) / np.sum((x - x.mean()) ** 2)
    return found


def _rule(dataset: Any, found: Any, task: str, sizes: dict[str, float]) -> Verdict:
    end = found["time"].sel(task=task, budget="loss", variant=list(sizes), drop=True)
    losses = dataset["loss"].sel(task=task, variant=list(sizes), drop=True)
    counts = spikes.sensitivity(losses.where(losses["step"] <= end), **GRID)
    counts = counts.where(end.notnull()).stack(rule=list(GRID))
    means = [float(np.nanmean(slope(counts.isel(rule=i), sizes))) for i in range(counts.sizes["rule"])]
    least = int(np.argmin(means))
    rule = dict(zip(GRID, counts["rule"].values[least], strict=True))
    words = ", ".join(f"{key} {value:g}" for key, value in rule.items() if len(GRID[key]) > 1)
    statement = f"Spikes a run rise as the batch shrinks whatever the rule ({task}, equal loss; the least: {words})"
    return _rises(f"C2.4/{task}/rule", statement, counts.isel(rule=least, drop=True), sizes)


def summary(dataset: Any) -> list[tuple[str, ...]]:
    """Means over seeds and their 95 % intervals, as rows of strings under a row of headings."""
    from jaxdyn.experiments import _agop_figure

    return _agop_figure.rows(measures(dataset), _config(dataset))


def figure(dataset: Any) -> Any:
    """Two runs with their spikes, subspaces, kernel and alignment on one time axis each, and what batch size and catapults do."""
    from jaxdyn.experiments import _agop_figure

    with figures.style():
        return _agop_figure.draw(dataset.load(), _config(dataset))


def _config(dataset: Any) -> Config:
    return _configuration.restored(dataset, Config)
