r"""Test loss against learning rate: networks, their linear and their quadratic models from the same initialisation.

One data set a panel for two-layer ReLU networks under full-batch gradient descent, and on one data set the variants `sgd` (as many steps,
batches of 32), `tanh`, `swish`, `three layers` and `convolution` (two-layer, 3 × 3, flat readout). For every rate
η_rel = η c λ_max(K_0), with K_0 the kernel of the member on all training examples, three models run from one initialisation with the same
batches; what counts is the *best* test loss along the run of a fixed number of steps ("fixed compute"), and the test accuracy where it is
reached. Under gradient descent the linear model is not simulated: `theory.linearized` gives its whole run from one eigendecomposition.
The quadratic model of a two-layer ReLU network is the network with frozen gates.

Data: `digits` (3 or 8) always, `polynomial` (y = x_1 x_2, x ~ N(0, I_10)), and `mnist`, `fashion-mnist` and `cifar-2` where their
files are (`experiments/_pictures.py` says where); the others are left out, which the attribute `left_out` and the verdicts say. Data are
fixed: intervals are over initialisations (and batches).

Below 2 a rate is sub-critical, above super-critical. Of each kind the best rate is chosen for a seed by the geometric mean of the *other*
seeds, so that the number of rates tried favours neither. Test losses are compared by geometric means over seeds.

Criteria, fixed before any run, for each panel:

| claim | number | criterion |
|---|---|---|
| C1.7/*/same below critical all have nearly one test loss | network and quadratic over linear, rate of the worst mean | within [0.9, 1.1] |
| C1.7 network and quadratic: the best super-critical test loss is lower | best super-critical over best sub-critical | at most 1 |
| C1.7/*/linear the linear model's is not | the same | at least 1 |
| C6.3 the best test accuracy is reached above critical | network, best super-critical − best sub-critical | at least 0 |

The statements hold the losses themselves, their intervals and rates, and at how many super-critical rates the mean is below the best
sub-critical one. For C6.3 the accuracies are those at the least test loss, and the rates those of the best mean accuracy.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2205.11787, figures 2(b), 4, 9 and 10. Lewkowycz et al., arXiv 2003.02218, figure 3.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures
from jaxdyn.analysis.claims import Verdict, at_least, at_most, measured, within
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments import _configuration, _pictures

VARIANTS = ("sgd", "tanh", "swish", "three layers", "convolution")
MODELS = ("network", "linear", "quadratic")
DATA = (*_pictures.NAMES, "polynomial")
BATCH, DIM = 32, 10
CRITICAL = 2.0

PAPER, CATAPULT = "arXiv 2205.11787, figures 2 and 4", "arXiv 2003.02218, figure 3"


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment.

    Attributes:
        data: some of `digits`, `polynomial`, `mnist`, `fashion-mnist`, `cifar-2`; those whose files are absent are left out.
        studied: the one that the variants run on.
        variants: some of `sgd`, `tanh`, `swish`, `three layers`, `convolution`.
        side: pixels a side, at most; larger pictures are averaged over blocks.
        num_train: training examples.
        num_test: test examples, or as many as there are.
        width: neurons of two-layer networks.
        width_deep: neurons of each hidden layer of three-layer ones.
        channels: of convolutional ones.
        rates: η c λ_max(K_0), below and above 2.
        seeds: number of initialisations.
        steps: of gradient descent, stochastic or not.
        every: steps between two looks at the test set.
    """

    data: tuple[str, ...]
    studied: str
    variants: tuple[str, ...]
    side: int
    num_train: int
    num_test: int
    width: int
    width_deep: int
    channels: int
    rates: tuple[float, ...]
    seeds: int
    steps: int
    every: int


_RATES = (0.5, 1.0, 1.5, 1.9, 2.3, 2.8, 3.3, 3.8, 5.0)
_MANY = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 1.95, 2.2, 2.5, 2.8, 3.1, 3.4, 3.7, 4.0, 5.0, 6.0, 8.0)
_ALL = ("digits", "polynomial", "mnist", "fashion-mnist", "cifar-2")

PRESETS = {
    "ci": Config(("digits",), "digits", ("sgd",), 8, 48, 100, 128, 32, 8, (1.0, 1.9, 2.6, 3.3), 5, 60, 5),
    "laptop": Config(_ALL, "digits", VARIANTS, 14, 128, 200, 512, 128, 32, _RATES, 5, 300, 5),
    "paper": Config(_ALL, "cifar-2", VARIANTS, 32, 256, 2000, 5000, 2048, 1000, _MANY, 5, 5000, 10),
}


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Run the sweep.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (panel, model, rate, seed, …): along `step` `loss`, `test_loss`, `accuracy` of what was simulated; along
        `time` `linear_loss`, `linear_test_loss`, `linear_accuracy`, the same of the linear models that were not; along `start`
        `learning_rate`. `curves` puts them together. The attribute `left_out` names data without files.
    """
    function, loop, vmap = ensemble(config)
    absent = _tasks(config)[1]
    attrs = {**_configuration.attributes("generalization", config), "left_out": json.dumps(absent)}
    return jd.sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs)


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes: what `jd.sweep` and `jd.ensemble.plan` take.

    Raises:
        FileNotFoundError: where no data set is there, or not the one that the variants are studied on.
    """
    tasks, absent = _tasks(config)
    if not tasks or (config.variants and config.studied not in tasks):
        raise FileNotFoundError(absent.get(config.studied, f"`data` is {config.data}, without {config.studied!r}."))
    panels = [*tasks, *(f"{config.studied}, {variant}" for variant in config.variants)]

    def one(panel: str, model: str, rate: Any, seed: Any) -> jd.Training:
        name, _, variant = panel.partition(", ")
        task, key = tasks[name], jax.random.key(seed)
        network = _network(config, name, variant)
        params0 = network.init(key)
        learning_rate = rate / 2 * jd.theory.critical_learning_rate(network.apply, params0, task, loss=jd.losses.mse)
        is_closed = model == "linear" and variant != "sgd"
        start: dict[str, Any] = {"learning_rate": lambda snapshot: learning_rate}
        records = []
        if is_closed:
            times = tuple(int(time) for time in jd.every(config.every).times(config.steps))
            start["linear"] = ClosedForm(learning_rate, times)
        else:
            probes: dict[str, Any] = {"test_loss": jd.probes.TestLoss(), "accuracy": jd.probes.Accuracy()}
            records.append(jd.record(jd.every(config.every), loss=jd.probes.Loss(), **probes))
        return jd.Training(
            network,
            task,
            optax.sgd(learning_rate),
            steps=0 if is_closed else config.steps,
            key=key,
            params0=params0,
            sampler=jd.minibatch(BATCH) if variant == "sgd" else jd.full_batch,
            expand=_expansion(model, variant, task),
            record=(jd.record(jd.at([0]), dim="start", **start), *records),
        )

    loop = {"panel": panels, "model": list(MODELS)}
    return one, loop, {"rate": np.asarray(config.rates), "seed": np.arange(config.seeds)}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ClosedForm:
    """Losses and test accuracy of the linear model along gradient descent, [time]; infinite and NaN where it overflows.

    Attributes:
        learning_rate: η.
        times: completed steps.
    """

    learning_rate: Any
    times: tuple[int, ...] = field(metadata={"static": True})
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("loss", "test_loss", "accuracy"), ("time",))

    def __call__(self, snapshot: Any) -> Any:
        """From one eigendecomposition of the kernel at the anchor."""
        task, apply, params0 = snapshot.task, snapshot.network, snapshot.params0
        linearized, loss = jd.theory.linearized, snapshot.loss
        system = linearized.decompose(jd.geometry.ntk(apply, params0, task.x))
        evolution = linearized.descent(self.learning_rate, np.asarray(self.times))
        f0, f0_test = apply(params0, task.x), apply(params0, task.x_test)
        outputs = linearized.test_outputs(
            system, f0, task.y, evolution, loss=loss, f0_test=f0_test,
            cross=jd.geometry.ntk(apply, params0, task.x_test, task.x),
        )  # fmt: skip
        test_loss = jax.vmap(lambda f: loss(f, task.y_test))(outputs)
        is_right = jnp.sign(outputs) == jnp.sign(task.y_test)[None, :, :]
        is_finite = jnp.isfinite(test_loss)
        return {
            "loss": linearized.train_loss(system, f0, task.y, evolution, loss=loss),
            "test_loss": jnp.where(is_finite, test_loss, jnp.inf),
            "accuracy": jnp.where(is_finite, jnp.mean(is_right, axis=(1, 2)), jnp.nan),
        }


def curves(dataset: Any) -> Any:
    """Every member at its best.

    Returns:
        An `xarray.Dataset` with dims (panel, model, rate, seed): `test_loss` (the least along the run), `accuracy` (there),
        `step` (when), `train_loss` (at the end).
    """
    import xarray as xr

    data, names = dataset.load(), ("loss", "test_loss", "accuracy")
    closed = {name: data[f"linear_{name}"].isel(start=0, drop=True).rename(time="step") for name in names}
    whole = xr.Dataset({name: data[name].fillna(closed[name].assign_coords(step=data["step"])) for name in names})
    losses = whole["test_loss"].where(np.isfinite(whole["test_loss"]), np.inf)
    place = losses.argmin("step")
    best = {
        "test_loss": losses.isel(step=place),
        "accuracy": whole["accuracy"].isel(step=place),
        "when": whole["step"][place],
        "train_loss": whole["loss"].isel(step=-1),
    }
    found = xr.Dataset({name: array.drop_vars("step", errors="ignore") for name, array in best.items()})
    return found.rename(when="step").transpose("panel", "model", "rate", "seed").assign_attrs(data.attrs)


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on C1.7 and C6.3, panel by panel, and on the data that were left out."""
    found = curves(dataset)
    verdicts = [one for panel in found["panel"].values.tolist() for one in _verdicts(panel, found.sel(panel=panel))]
    for name, why in json.loads(dataset.attrs.get("left_out", "{}")).items():
        statement = f"{name} was left out: {why}"
        nothing = {"estimate": np.nan, "low": np.nan, "high": np.nan}
        verdicts.append(at_most(f"C1.7/{name}", statement=statement, source=PAPER, bound=1.0, **nothing))
    return verdicts


def _verdicts(panel: str, here: Any) -> list[Verdict]:
    verdicts = []
    linear = _logs(here, "linear")
    for model in ("network", "quadratic"):
        differences = (_logs(here, model) - linear).sel(rate=_below(here))
        intervals = [
            (_exponential(differences.sel(rate=rate).values), float(rate)) for rate in differences["rate"].values
        ]
        interval, rate = max(intervals, key=lambda one: abs(np.log(one[0]["estimate"])))
        verdicts.append(
            within(
                f"C1.7/{panel}/same/{model}",
                statement=f"Below critical the {model} has nearly the linear model's test loss: ratio ({panel}; η_rel = {rate:g}).",
                source=PAPER, lower=0.9, upper=1.1, **interval,
            )
        )  # fmt: skip
    for model in MODELS:
        logs = _logs(here, model)
        below, above = (_best(logs.sel(rate=rates)) for rates in (_below(here), _above(here)))
        means = logs.mean("seed")
        better = int((means.sel(rate=_above(here)) < means.sel(rate=_below(here)).min()).sum())
        statement = (
            f"{panel}, {model}: best test loss {_text(np.exp, below)} below critical, {_text(np.exp, above)} above "
            f"({better} of {len(_above(here))} rates above are better); ratio."
        )
        judge = at_least if model == "linear" else at_most
        ratio = _exponential(above.values - below.values)
        verdicts.append(judge(f"C1.7/{panel}/{model}", statement=statement, source=PAPER, bound=1.0, **ratio))
    errors = 1.0 - here["accuracy"].sel(model="network").transpose("rate", "seed").astype(float)
    below, above = (_best(errors.sel(rate=rates)) for rates in (_below(here), _above(here)))
    statement = (
        f"{panel}, network: best test accuracy {_text(lambda x: 1 - x, below)} below critical, {_text(lambda x: 1 - x, above)} above; "
        "difference."
    )
    gain = measured(mean_interval(below.values - above.values))
    verdicts.append(at_least(f"C6.3/{panel}", statement=statement, source=CATAPULT, bound=0.0, **gain))
    return verdicts


class _Best(NamedTuple):
    """What each seed reaches at the rate that the others choose, [s], and the rate that all together choose."""

    values: Any
    rate: float


def _best(array: Any) -> _Best:
    """Leave-one-out choice of the least mean; `array` is (rate, seed)."""
    values = array.transpose("rate", "seed").values.astype(float)
    values = np.where(np.isfinite(values), values, np.inf)
    others = values.sum(axis=1, keepdims=True) - values
    others = np.where(np.isfinite(others), others, np.inf)
    chosen = values[others.argmin(axis=0), np.arange(values.shape[1])]
    return _Best(chosen, float(array["rate"].values[values.mean(axis=1).argmin()]))


def _text(back: Any, best: _Best) -> str:
    numbers = sorted(float(back(number)) for number in mean_interval(best.values)[1:])
    middle = float(back(mean_interval(best.values)[0]))
    return f"{middle:.3g} [{numbers[0]:.3g}, {numbers[1]:.3g}] at η_rel = {best.rate:g}"


def _exponential(logs: Any) -> dict[str, float]:
    numbers = (float(np.exp(number)) for number in mean_interval(logs))
    return measured(numbers)


def _logs(here: Any, model: str) -> Any:
    return np.log(here["test_loss"].sel(model=model, drop=True).transpose("rate", "seed").astype(float))


def _below(here: Any) -> list[float]:
    return [float(rate) for rate in here["rate"].values if rate < CRITICAL]


def _above(here: Any) -> list[float]:
    return [float(rate) for rate in here["rate"].values if rate > CRITICAL]


def figure(dataset: Any) -> Any:
    """Best test loss and accuracy against the rate, a panel for each setting."""
    with figures.style():
        return _draw(curves(dataset))


def _draw(found: Any) -> Any:
    config = _config(found)
    panels = found["panel"].values.tolist()
    columns = min(5, len(panels))
    page, axes = figures.figure(2 * -(-len(panels) // columns), columns, size=(2.9, 2.3))
    for place in axes.flat:
        place.set_visible(False)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        for offset, name in enumerate(("test_loss", "accuracy")):
            place, here = axes[2 * row + offset, column], found[name].sel(panel=panel)
            place.set_visible(True)
            place.axvline(CRITICAL, color=figures.GREY, ls=(0, (4, 3)), lw=1.0)
            for model, color in zip(MODELS, figures.COLORS, strict=False):
                members = here.sel(model=model).transpose("seed", "rate")
                place.plot(found["rate"], members.values.T, ".", color=color, alpha=0.3, ms=4, mew=0)
                place.plot(found["rate"], members.mean("seed"), color=color, label=model, marker="o", ms=3)
            if name == "test_loss":
                place.set_title(panel)
                place.set_yscale("log")
            place.set_xlabel("η c λ_max(K_0)")
    axes[0, 0].set_ylabel("best test loss")
    axes[1, 0].set_ylabel("test accuracy there")
    axes[1, 0].legend(loc="lower left")  # where no model has failed yet
    page.suptitle(
        f"Best test loss along {config.steps} steps, n = {config.num_train}, means of {config.seeds} seeds; "
        "dashed: critical"
    )
    return page


def _tasks(config: Config) -> tuple[dict[str, Any], dict[str, str]]:
    """The tasks by name, and why others are absent."""
    unknown = [name for name in (*config.data, config.studied) if name not in DATA]
    if unknown:
        raise ValueError(f"There is no data set {unknown[0]!r}; the sets are {', '.join(DATA)}.")
    tasks: dict[str, Any] = {}
    absent: dict[str, str] = {}
    sizes = {"n": config.num_train, "n_test": config.num_test}
    for name in config.data:
        try:
            if name == "polynomial":
                tasks[name] = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=DIM, **sizes)
            else:
                tasks[name] = _pictures.task(name, side=config.side, **sizes)
        except FileNotFoundError as error:
            absent[name] = str(error).replace(f"{Path.cwd()}/", "") + " `data` may be elsewhere: set JAXDYN_DATA."
    return tasks, absent


def _network(config: Config, name: str, variant: str) -> jd.Model:
    shape = (1, 1, DIM) if name == "polynomial" else _pictures.shape(name, config.side)
    dim = int(np.prod(shape))
    if variant == "convolution":
        return jd.models.conv(shape, (config.channels,), 1, activation=jax.nn.relu, pool=jd.models.flatten)
    if variant == "three layers":
        return jd.models.mlp((dim, config.width_deep, config.width_deep, 1), activation=jax.nn.relu)
    if variant in ("tanh", "swish"):
        return jd.models.mlp((dim, config.width, 1), activation=jnp.tanh if variant == "tanh" else jax.nn.swish)
    return jd.models.two_layer_relu(dim, config.width)


def _expansion(model: str, variant: str, task: Any) -> Any:
    if model != "quadratic":
        return jd.linear if model == "linear" else jd.exact
    if variant == "sgd":
        return jd.models.frozen_gates
    return jd.quadratic if variant else jd.models.frozen_gates_on(task.x)


def _config(dataset: Any) -> Config:
    return _configuration.restored(dataset, Config)
