"""The largest rate that trains, in units of 1/(c λ_max(K_0)), and how far down in width the quadratic model foretells a network.

Gradient descent on full batches, a grid of rates η = ratio / (c λ_max(K_0)), several initialisations. A rate *holds* when the run stays
finite, its last loss is below its first and its kernel keeps more than 1e-6 of its top eigenvalue; the *maximal* rate lies between the rate
that first fails and the one of the grid before it. What has not come back down by the last step has failed.

Networks in NTK scaling of one to three hidden layers (paper 6's count); inputs of 64 numbers of mean square 1: `gaussian` N(0, 1),
`positive` |N(0, 1)|, both with y the sign of the first number about its median, and `digits` (scikit-learn's 3 and 8). Heavy ball of
momentum β takes η = ratio (1 + β) / (c λ_max), so that a linear model fails at 2 for every β. Adam has no such bound: η = 8 ratio / √(p
λ_max(K_0)/n), about the step whose sign descent moves the outputs by 8 ratio (the 8 was put in after a toy run in which all rates held).

Criteria, fixed before any run. Intervals are 95 % over seeds, their ends widened by the grid.

| claim | criterion and its reason |
|---|---|
| R1 a linear model fails at 2, whatever the momentum | every seed's bracket holds 2: linear algebra |
| R2 the quadratic model of a wide ReLU network fails at 4 | within [3.6, 4.4], widest: paper 1, theorem 5, for one example; here many |
| C6 ReLU networks fail at about 12 | within [8, 16], by depth and data: paper 6, section 2.2 |
| D1 one hidden layer on Gaussian inputs fails by 5 | at most 5: the digest's two small runs |
| D2 one hidden layer on positive inputs trains at 20 | at least 18 (20 less a grid step): the digest's one run |
| D3 two hidden layers train at 12 | at least 10.7 (12 less a grid step), Gaussian: the digest's one run |
| H1 a second hidden layer raises the maximal rate | ratio above 1: D1 against D3 |
| H2 tanh trains at larger rates than ReLU | ratio above 1: a saturated unit loses curvature |
| H3 the maximal rate does not depend on the width | exponent within [-0.1, 0.1]: paper 1's window does not shrink with m |
| H4 positive inputs train at larger rates than Gaussian ones | ratio above 1: one common direction, D2 against D1 |
| H5 at ratio 3 the quadratic model foretells the peak loss and the final curvature | ratio within [0.8, 1.25], widest |
| H5t it foretells the final test loss there | ratio within [0.9, 1.1], widest: paper 1, figure 4 |
| H5s and below critical (first of the grid) | ratio within [0.9, 1.1], widest: paper 1, figure 4 |
| H6 momentum narrows the window: η_max/(1 + β) over gradient descent's | at most 1: velocity outlives the drop of curvature |
| H7 Adam: network and linear model fail alike | ratio within [0.5, 2]: its step is bounded, so there is no catapult |

References:
    Lewkowycz et al., arXiv 2003.02218, section 2.2. Zhu et al., arXiv 2205.11787, sections 3 and 4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures
from jaxdyn.analysis.brackets import geometric_mean
from jaxdyn.analysis.claims import Verdict, at_least, at_most, within
from jaxdyn.analysis.phases import bracket
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments import _configuration

DIM = 64
"""Input dimension, that of the digits."""

DEAD = 1e-6
"""A kernel with less than this part of its first top eigenvalue is dead."""

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": jax.nn.relu, "tanh": jnp.tanh, "swish": jax.nn.silu}

EXPANSIONS = {"network": jd.exact, "linear": jd.linear, "quadratic": jd.quadratic}


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment.

    Attributes:
        width: hidden width where it is not what varies.
        widths: of one hidden layer of ReLU, network beside quadratic model.
        hidden: numbers of hidden layers.
        activations: beside ReLU, with one and two hidden layers.
        data: inputs.
        momenta: of heavy ball.
        seeds: number of initialisations.
        num_train: training examples.
        steps: steps of a run.
        per_octave: rates from one ratio to its double.
        top: the grid ends below this ratio.
    """

    width: int
    widths: tuple[int, ...]
    hidden: tuple[int, ...]
    activations: tuple[str, ...]
    data: tuple[str, ...]
    momenta: tuple[float, ...]
    seeds: int
    num_train: int
    steps: int
    per_octave: int
    top: float


_DATA = ("gaussian", "positive", "digits")
_WIDTHS = (32, 64, 128, 256, 512, 1024)

PRESETS = {
    "ci": Config(32, (32, 128), (1, 2), (), _DATA[:2], (0.9,), 3, 16, 80, 3, 40.0),
    "laptop": Config(128, _WIDTHS, (1, 2, 3), ("tanh", "swish"), _DATA, (0.5, 0.9), 4, 32, 300, 6, 40.0),
    "paper": Config(
        2048, (*_WIDTHS, 2048, 4096, 8192), (1, 2, 3), ("tanh", "swish"), _DATA, (0.5, 0.9), 16, 128, 1000, 12, 40.0
    ),
}


class Case(NamedTuple):
    """One combination that is compiled: `optimizer` is `gd`, `adam` or the momentum of a heavy ball as text."""

    activation: str
    hidden: int
    data: str
    width: int
    optimizer: str = "gd"
    model: str = "network"

    @property
    def name(self) -> str:
        """The label along the axis `case`."""
        return f"{self.activation} {self.hidden} {self.data} {self.width} {self.optimizer} {self.model}"


def cases(config: Config) -> dict[str, Case]:
    """What is compared, by name."""
    base = Case("relu", 1, "gaussian", config.width)
    found = [base._replace(hidden=hidden, data=data) for hidden in config.hidden for data in config.data]
    found += [base._replace(activation=name, hidden=hidden) for name in config.activations for hidden in (1, 2)]
    found += [base._replace(width=width, model=model) for width in config.widths for model in ("network", "quadratic")]
    optimizers = ("gd", *map(str, config.momenta), "adam")
    found += [base._replace(optimizer=name, model=model) for name in optimizers for model in ("network", "linear")]
    return {case.name: case for case in found}


def ratios(config: Config) -> np.ndarray:
    """The grid: 2^((k + ½)/per_octave) from just above 1, so that 2 and 4 lie between two rates."""
    count = int(np.floor(np.log2(config.top) * config.per_octave + 0.5))
    return 2 ** ((np.arange(count) + 0.5) / config.per_octave)


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Run the sweep.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (case, ratio, seed, …): `loss` along `step`; along `end` (anchor and last step) `loss_test` and
        `curvature`, c λ_max of the current kernel; along `start` `learning_rate`, and `relative_rate` η c λ_max(K_0).
    """
    function, loop, vmap = ensemble(config)
    attrs = _configuration.attributes("rates", config)
    return jd.sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs)


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes: what `jd.sweep` and `jd.ensemble.plan` take."""
    known, tasks = cases(config), {name: _task(name, config.num_train) for name in config.data}
    loss, c = jd.losses.mse, jd.losses.mse.c(config.num_train, 1)

    def one(case: str, ratio: Any, seed: Any) -> jd.Training:
        here, key = known[case], jax.random.key(seed)
        task = tasks[here.data]
        model = jd.models.mlp((DIM, *(here.width,) * here.hidden, 1), activation=ACTIVATIONS[here.activation])
        params0 = model.init(key)
        curvature = 2 / jd.theory.critical_learning_rate(model.apply, params0, task, loss=loss)
        learning_rate, optimizer = _optimizer(here.optimizer, ratio, curvature, params0)
        ends = {"loss_test": jd.probes.TestLoss(), "curvature": lambda at: c * jd.probes.NTKNorm(task.x)(at)}
        rates = {"learning_rate": lambda _: learning_rate, "relative_rate": lambda _: learning_rate * curvature}
        losses = jd.record(jd.every(1), loss=jd.probes.BatchLoss())
        records = (
            losses,
            jd.record(jd.at([0, config.steps]), dim="end", **ends),
            jd.record(jd.at([0]), dim="start", **rates),
        )
        return jd.Training(
            model, task, optimizer, steps=config.steps, key=key, params0=params0, loss=loss, expand=EXPANSIONS[here.model],
            record=records,
        )  # fmt: skip

    return one, {"case": list(known)}, {"ratio": ratios(config), "seed": np.arange(config.seeds)}


def _optimizer(name: str, ratio: Any, curvature: Any, params0: Any) -> tuple[Any, Any]:
    """The learning rate and the optimizer; c λ_max/2 = λ_max(K_0)/n for the mean square."""
    if name == "gd":
        rate = ratio / curvature
        return rate, optax.sgd(rate)
    if name == "adam":
        size = sum(leaf.size for leaf in jax.tree.leaves(params0))
        rate = 8 * ratio / jnp.sqrt(size * curvature / 2)
        return rate, optax.adam(rate)
    rate = ratio * (1 + float(name)) / curvature
    return rate, optax.sgd(rate, momentum=float(name))


def _task(name: str, num_train: int) -> Any:
    num_test = 120 if name == "digits" else 256
    if name == "digits":
        return jd.tasks.digits(classes=(3, 8), n=num_train, n_test=num_test)
    x = jax.random.normal(jax.random.key(7), (num_train + num_test, DIM))
    x, median = (jnp.abs(x), 0.6745) if name == "positive" else (x, 0.0)
    y = jnp.where(x[:, :1] > median, 1.0, -1.0)
    return jd.tasks.from_arrays(x[:num_train], y[:num_train], x_test=x[num_train:], y_test=y[num_train:])


def maximal(dataset: Any) -> Any:
    """The bracket of the maximal rate.

    Returns:
        An `xarray.Dataset` with dims (case, seed): `low`, the ratio before the first that fails (0 where the first of the grid fails),
        and `high`, the first that fails (infinity where none does).
    """
    data = dataset.load()
    first, last = data["loss"].isel(step=0, drop=True), data["loss"].isel(step=-1, drop=True)
    left = data["curvature"].isel(end=-1, drop=True) / data["curvature"].isel(end=0, drop=True)
    holds = np.isfinite(last) & (last < first) & (left > DEAD) & (data["diverged_at"] < 0)
    found = bracket(~holds.transpose("case", "seed", "ratio"), dim="ratio")
    return found.low.clip(0).to_dataset(name="low").assign(high=found.high)


def predicted(dataset: Any) -> Any:
    """What the network does over what its quadratic model does, from the same start.

    Returns:
        An `xarray.Dataset` with dims (width, seed): `peak`, `curvature`, `test` at the ratio next to 3, `test_below` at the first.
    """
    import xarray as xr

    config, data, grid = _config(dataset), dataset.load(), dataset["ratio"].values
    window, below = float(grid[np.argmin(np.abs(np.log(grid / 3)))]), float(grid[0])

    def of(model: str) -> Any:
        one = data.sel(case=[Case("relu", 1, "gaussian", width, model=model).name for width in config.widths])
        one = one.assign_coords(case=list(config.widths)).rename(case="width")
        here, last = one.sel(ratio=window, drop=True), one.isel(end=-1, drop=True)
        found = {"peak": here["loss"].max("step"), "test_below": last["loss_test"].sel(ratio=below, drop=True)}
        there = last.sel(ratio=window, drop=True)
        return xr.Dataset(found | {"curvature": there["curvature"], "test": there["loss_test"]})

    return (of("network") / of("quadratic")).transpose("width", "seed")


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on R1 to H7, for the cases that the configuration has."""
    config, found, known = _config(dataset), maximal(dataset), set(dataset["case"].values.tolist())
    base = Case("relu", 1, "gaussian", config.width)
    second, positive, adam = base._replace(hidden=2), base._replace(data="positive"), base._replace(optimizer="adam")
    quadratic = base._replace(width=max(config.widths), model="quadratic")
    judged: list[tuple[Any, str, str, str, dict[str, float], dict[str, float]]] = []
    for name in ("gd", *map(str, config.momenta)):
        one = found.sel(case=base._replace(optimizer=name, model="linear").name)
        share = dict.fromkeys(("estimate", "low", "high"), float(((one["low"] < 2) & (one["high"] > 2)).mean()))
        what = f"A linear model fails at 2 ({name}): share of seeds whose bracket holds it."
        judged.append((at_least, f"R1/{name}", what, "linear algebra", {"bound": 1.0}, share))
    what = f"The quadratic model of a ReLU network of width {quadratic.width} fails at 4."
    judged.append((within, "R2", what, "arXiv 2205.11787, thm 5", {"lower": 3.6, "upper": 4.4}, _of(found, quadratic)))
    for case in (base._replace(hidden=hidden, data=data) for hidden in config.hidden for data in config.data):
        what, bounds = (
            f"ReLU networks fail at about 12 ({case.hidden} hidden, {case.data}).",
            {"lower": 8.0, "upper": 16.0},
        )
        judged.append((within, f"C6/{case.hidden} {case.data}", what, "arXiv 2003.02218", bounds, _of(found, case)))
    more = {"bound": 1.0}
    what, deeper = (
        "Gaussian inputs: one hidden layer of ReLU fails by 5.",
        "Gaussian inputs: two hidden layers train at 12.",
    )
    judged.append((at_most, "D1", what, "digest", {"bound": 5.0}, _of(found, base)))
    judged.append((at_least, "D3", deeper, "digest", {"bound": 10.7}, _of(found, second)))
    what, deeper = (
        "Positive inputs: one hidden layer trains at 20.",
        "A second hidden layer raises the maximal rate (ratio).",
    )
    judged.append((at_least, "D2", what, "digest", {"bound": 18.0}, _of(found, positive)))
    judged.append((at_least, "H1", deeper, "own", more, _over(found, second, base)))
    for relu in (base, second):
        tanh = relu._replace(activation="tanh")
        if tanh.name in known:
            what = f"tanh trains at larger rates than ReLU ({relu.hidden} hidden; ratio)."
            judged.append((at_least, f"H2/{relu.hidden}", what, "own", more, _over(found, tanh, relu)))
    what = "Positive inputs train at larger rates than Gaussian ones (one hidden layer; ratio)."
    judged.append((at_least, "H4", what, "own", more, _over(found, positive, base)))
    for momentum in config.momenta:
        what = f"Momentum {momentum:g} narrows the window: η_max/(1 + β) over that of gradient descent."
        heavy = _over(found, base._replace(optimizer=str(momentum)), base)
        judged.append((at_most, f"H6/{momentum:g}", what, "own", more, heavy))
    what, alike = (
        "With Adam network and linear model fail alike (ratio of maximal rates).",
        {"lower": 0.5, "upper": 2.0},
    )
    judged.append((within, "H7", what, "own", alike, _over(found, adam, adam._replace(model="linear"))))
    verdicts = [
        judge(claim, statement=what, source=source, **bounds, **numbers)
        for judge, claim, what, source, bounds, numbers in judged
    ]
    return [*verdicts, _width(found, config), *_predictions(predicted(dataset))]


def _width(found: Any, config: Config) -> Verdict:
    names = [Case("relu", 1, "gaussian", width).name for width in config.widths]
    middles = np.sqrt(found["low"] * found["high"]).sel(case=names)
    middles = middles.assign_coords(case=list(config.widths)).rename(case="width")
    statement = "The maximal rate of one hidden layer of ReLU does not depend on the width (exponent)."
    numbers = dict.fromkeys(("estimate", "low", "high"), np.nan)
    if len(config.widths) > 2 and bool((np.isfinite(middles) & (middles > 0)).all()):
        fit = power_law(middles, "width", over="seed")
        numbers = {"estimate": fit.exponent, "low": fit.low, "high": fit.high}
    return within("H3", statement=statement, source="own", lower=-0.1, upper=0.1, **numbers)


_PREDICTIONS = {
    "peak": ("H5/peak", "peak loss at ratio 3", 0.8, 1.25),
    "curvature": ("H5/curvature", "final curvature at ratio 3", 0.8, 1.25),
    "test": ("H5t", "final test loss at ratio 3", 0.9, 1.1),
    "test_below": ("H5s", "final test loss below the critical rate", 0.9, 1.1),
}


def _predictions(ratio: Any) -> list[Verdict]:
    verdicts = []
    for name, (claim, what, lower, upper) in _PREDICTIONS.items():
        ends = {int(width): _spread(ratio[name].sel(width=width)) for width in ratio["width"].values}
        good = [width for width, one in ends.items() if lower <= one["low"] and one["high"] <= upper]
        down_to = next((w for w in ends if all(v in good for v in ends if v >= w)), None)
        where = "at no width of the sweep" if down_to is None else f"from width {down_to} on"
        statement = f"The quadratic model foretells the network's {what} (ratio at width {max(ends)}; {where})."
        numbers = ends[max(ends)]
        verdicts.append(within(claim, statement=statement, source="own", lower=lower, upper=upper, **numbers))
    return verdicts


def _spread(values: Any) -> dict[str, float]:
    """Geometric mean over seeds with its interval; NaN where a member is not finite."""
    with np.errstate(all="ignore"):
        return _numbers(mean_interval(np.log(values.values)), np.exp)


def _numbers(found: Any, scale: Callable[[Any], Any] = float) -> dict[str, float]:
    return dict(zip(("estimate", "low", "high"), (float(scale(one)) for one in found), strict=True))


def _of(found: Any, case: Case) -> dict[str, float]:
    """The maximal rate of a case, geometric mean over seeds; its interval holds the brackets."""
    one = found.sel(case=case.name)
    return _numbers(geometric_mean(one["low"], one["high"]))


def _over(found: Any, case: Case, other: Case) -> dict[str, float]:
    """The maximal rate of one case over another's, seed by seed."""
    a, b = found.sel(case=case.name), found.sel(case=other.name)
    with np.errstate(all="ignore"):
        return _numbers(geometric_mean(a["low"] / b["high"], a["high"] / b["low"]))


def figure(dataset: Any) -> Any:
    """Maximal rates of all cases with the lines 2, 4 and 12; network over quadratic model against the width."""
    with figures.style():
        return _draw(dataset)


def _draw(dataset: Any) -> Any:
    config, found, ratio = _config(dataset), maximal(dataset), predicted(dataset)
    names = [name for name in cases(config) if np.isfinite(_of(found, cases(config)[name])["estimate"])]
    page, axes = figures.figure(1, 2, size=(5.6, 0.22 * len(names) + 1.6))
    left, right = axes[0]
    for row, name in enumerate(names):
        one, color = _of(found, cases(config)[name]), figures.COLORS[list(EXPANSIONS).index(cases(config)[name].model)]
        upper = min(one["high"], 2 * config.top)
        left.plot([max(one["low"], 0.5), upper], [row, row], color=color)
        left.plot(one["estimate"], row, ">" if np.isinf(one["high"]) else "o", color=color, ms=4)
    for line in (2.0, 4.0, 12.0):
        left.axvline(line, color="0.7", lw=0.8, zorder=0)
    left.set_xscale("log", base=2)
    left.set_xticks(ticks := [2, 4, 8, 16, 32], [str(tick) for tick in ticks])
    left.set_yticks(range(len(names)), names, fontsize="xx-small")
    left.invert_yaxis()
    left.set_xlabel("maximal rate, ratio to 1/(c λ_max(K_0))")
    for index, (name, (_, what, _, _)) in enumerate(_PREDICTIONS.items()):
        ends = [_spread(ratio[name].sel(width=width)) for width in config.widths]
        middle = np.array([one["estimate"] for one in ends])
        error = np.abs(np.array([[one["low"] for one in ends], [one["high"] for one in ends]]) - middle)
        shift = np.array(config.widths) * 1.04**index
        right.errorbar(shift, middle, error, marker="o", ms=3, label=what, color=figures.COLORS[index])
    right.axhline(1.0, color="0.7", lw=0.8, zorder=0)
    right.set_xscale("log", base=2)
    right.set_xlabel("width")
    right.set_title("network over quadratic model, one hidden layer of ReLU")
    right.legend(loc="lower left")
    figures.leave_room(right, len(_PREDICTIONS))
    page.suptitle(f"{config.num_train} examples, {config.steps} steps, {config.seeds} seeds; > trains beyond the grid")
    return page


def _config(dataset: Any) -> Config:
    return _configuration.restored(dataset, Config)
