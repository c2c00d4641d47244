"""What breaks the transition to linearity: nonlinear outputs, bottlenecks, dominant or shared sub-models; and multilinearity.

The networks of `NETWORKS` have hidden width (or channels, or members) m and inputs x ~ N(0, I_16). On the ball of radius R around their
initialisation w0:

* `probes.BallCurvature`: ‖H_f‖ at two inputs, the largest of three points: w0, a random point of the sphere, and where an ascent of
  |f − f_lin| ends. The ascent goes where |f| is of order one and φ''(f) ≠ 0: tanh has φ''(0) = 0, and at w0 its curvature may seem to fall.
* `probes.Multilinearity`, for linear networks cut at their bottlenecks: the largest second-order remainder within the blocks, mixed
  difference of all blocks, and |f − f_multilinear|, each at the end of an ascent of its own.

Those of C4.1 and C4.2 also learn n targets 0.5 + 0.4 tanh(x_1 x_2), which every output function here can take, by gradient descent at
η = `rate` / (c λ_max(K_0)).

Criteria, fixed before any run; all but C4.2l are on the 95 % interval of the exponent in m:

| claim | networks | criterion |
|---|---|---|
| C4.1 | linear output: fully connected, convolutional | kernel change along training: below -0.4 |
| C4.1h | | ‖H‖: below -0.3 |
| C4.2 | nonlinear output; bottleneck of fixed width | kernel change: above -0.2 |
| C4.2h | | ‖H‖: above -0.2 |
| C4.2l | | loss at the end over loss at the start, geometric mean over seeds, at the worst width: below 0.01 |
| C4.3 | assemblies of neurons, of small networks, of assemblies | ‖H‖: below -0.3 |
| C4.3g | | ‖∇f‖ at w0: above -0.1 |
| C4.4 | assembly with a dominant member | ‖H‖: above -0.2 |
| C4.5 | assembly of shared members | ‖H‖: above -0.2 |
| M1 | linear networks with no, 1 (also deeper) and 2 bottlenecks | remainder within a block: below -0.4 |
| M2 | those with bottlenecks | mixed difference: above -0.2 |
| M3 | all linear networks | abs(f − f_multilinear): below -0.4 |

The theory says Õ(m^(-1/2)) with powers of log m. The largest of m independent blocks, max_i |v_i| ‖H_{g_i}‖, grows like √(log m) or faster,
which adds 0.1 to 0.2 to the exponents of ‖H‖ at these widths: hence -0.3 there, and -0.4 elsewhere, as in `width`.

References:
    Liu, Zhu, Belkin, arXiv 2010.01092 (C4.1, C4.2), 2203.05104 (C4.3 to C4.5), 2206.15058 (M1 to M3).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures
from jaxdyn.analysis.claims import Verdict, at_least, at_most
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments import _configuration

DIM = 16
"""Dimension of the inputs; 4 × 4 pixels for the convolutional network."""


@dataclass(frozen=True)
class Network:
    """One network of the table above."""

    build: Callable[[Any], jd.Model]  # the model of a width
    claim: str  # `C4.1` … `C4.5` or `M`
    title: str  # what it is, for figures and statements
    blocks: tuple[Any, ...] = ()  # of parameters, where multilinearity is asked for

    @property
    def is_trained(self) -> bool:
        """Whether its claims are about training."""
        return self.claim in ("C4.1", "C4.2")


def _mlp(*hidden: int | None, activation: Any = jnp.tanh, output: Any = None) -> Callable[[Any], jd.Model]:
    """A fully connected network; None stands for the width."""
    options = {} if output is None else {"output": output}

    def build(width: Any) -> jd.Model:
        sizes = [width if size is None else size for size in hidden]
        return jd.models.mlp((DIM, *sizes, 1), activation=activation, **options)

    return build


def _conv(width: Any) -> jd.Model:
    return jd.models.conv((4, 4, 1), (width,), 1, activation=jnp.tanh, pool=jd.models.flatten)


def _neuron() -> jd.Model:
    return jd.models.mlp((DIM, 1), activation=jnp.tanh, output=jnp.tanh)


def _small() -> jd.Model:
    return jd.models.mlp((DIM, 4, 1), activation=jnp.tanh)


def _branch() -> jd.Model:
    return jd.models.assembly(_neuron(), 4, output=jnp.sin)


def _assembly(sub: Callable[[], jd.Model], **options: Any) -> Callable[[Any], jd.Model]:
    return lambda num: jd.models.assembly(sub(), num, weights=jd.models.signs, **options)


def _halves(*layers: int) -> tuple[list[str], ...]:
    """Blocks of consecutive layers, so many each."""
    starts = np.concatenate([[0], np.cumsum(layers)])
    return tuple([f"dense_{i}" for i in range(a, b)] for a, b in itertools.pairwise(starts.tolist()))


NETWORKS = {
    "wide": Network(_mlp(None, None), "C4.1", "two hidden layers"),
    "conv": Network(_conv, "C4.1", "convolutional"),
    "softplus": Network(_mlp(None, None, output=jax.nn.softplus), "C4.2", "softplus output"),
    "swish": Network(_mlp(None, None, output=jax.nn.swish), "C4.2", "swish output"),
    "tanh": Network(_mlp(None, None, output=jnp.tanh), "C4.2", "tanh output"),
    "bottleneck1": Network(_mlp(None, 1, None), "C4.2", "bottleneck of 1"),
    "bottleneck3": Network(_mlp(None, 3, None), "C4.2", "bottleneck of 3"),
    "neurons": Network(_assembly(_neuron), "C4.3", "assembly of neurons"),
    "small": Network(_assembly(_small), "C4.3", "assembly of small networks"),
    "recursive": Network(_assembly(_branch), "C4.3", "assembly of assemblies of neurons"),
    "dominated": Network(_assembly(_small, shares=jd.models.dominated(1.0)), "C4.4", "assembly with a dominant member"),
    "shared": Network(_assembly(_small, members=jd.models.shared), "C4.5", "assembly of one shared member"),
    "linear0": Network(_mlp(None, None, activation=jax.nn.identity), "M", "linear, no bottleneck", _halves(3)),
    "linear1": Network(_mlp(None, 1, None, activation=jax.nn.identity), "M", "linear, one bottleneck", _halves(2, 2)),
    "linear1deep": Network(
        _mlp(None, None, 1, None, None, activation=jax.nn.identity), "M", "linear, deeper, one bottleneck", _halves(3, 3)
    ),
    "linear2": Network(
        _mlp(None, 1, None, 1, None, activation=jax.nn.identity), "M", "linear, two bottlenecks", _halves(2, 2, 2)
    ),
}  # fmt: skip
"""The networks by name."""


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    networks: tuple[str, ...]  # names out of `NETWORKS`
    widths: tuple[int, ...]  # m
    seeds: int  # number of initialisations
    num_train: int  # training inputs
    steps: int  # steps of gradient descent
    rate: float  # learning rate times c λ_max(K_0); below 2 is sub-critical
    num_records: int  # record times, logarithmically spaced
    radius: float  # R, Euclidean, in all parameters
    ascent: int  # steps of each ascent in the ball


_FEW = ("wide", "softplus", "bottleneck1", "small", "dominated", "shared", "linear1")

PRESETS = {
    "ci": Config(_FEW, (16, 64, 256), 8, 8, 400, 1.0, 6, 1.0, 20),
    "laptop": Config(tuple(NETWORKS), (32, 64, 128, 256, 512), 8, 16, 1000, 1.0, 12, 1.0, 30),
    "paper": Config(tuple(NETWORKS), (64, 128, 256, 512, 1024, 2048, 4096), 16, 32, 4000, 1.0, 20, 1.0, 60),
}


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Run the sweep.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (network, width, seed, …): `loss` and `change` (relative kernel change) along `step`, and along `start` (one
        record, before training) `ball_curvature` (point: w0, random, end of the ascent), `ball_gradient`, `ball_gap` and
        `multilinear_remainder`, `multilinear_mixed`, `multilinear_beyond`; NaN where a network has no such claim.
    """
    function, loop, vmap = ensemble(config)
    attrs = _configuration.attributes("breaking", config)
    return jd.sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs)


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes: what `jd.sweep` and `jd.ensemble.plan` take."""
    unknown = [name for name in config.networks if name not in NETWORKS]
    if unknown:
        raise ValueError(f"Unknown network {unknown[0]!r}; the names are {', '.join(NETWORKS)}.")
    task = _task(config)

    def one(network: str, width: Any, seed: Any) -> jd.Training:
        chosen, key = NETWORKS[network], jax.random.key(seed)
        model = chosen.build(width)
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
        look = (task.x[:2], jax.random.fold_in(key, 0x62616C6C), config.radius, config.ascent)
        if chosen.blocks:
            before = jd.record(jd.at([0]), dim="start", multilinear=jd.probes.Multilinearity(*look, chosen.blocks))
        else:
            before = jd.record(jd.at([0]), dim="start", ball=jd.probes.BallCurvature(*look))
        along = jd.record(
            jd.log_spaced(config.num_records), loss=jd.probes.Loss(), change=jd.probes.KernelChange(task.x)
        )
        return jd.Training(
            model,
            task,
            optax.sgd(config.rate / 2 * critical),
            steps=config.steps if chosen.is_trained else 0,
            key=key,
            params0=params0,
            record=(before, along) if chosen.is_trained else before,
        )

    return one, {"network": list(config.networks)}, {"width": jd.widths(config.widths), "seed": np.arange(config.seeds)}


def measures(dataset: Any) -> Any:
    """One number a member, as far as the networks at hand have it.

    Returns:
        An `xarray.Dataset` with dims (network, width, seed): `change` (largest relative kernel change), `loss` (end over start),
        `curvature`, `gradient`, `gap`, `remainder`, `mixed`, `beyond`.
    """
    import xarray as xr

    start = dataset.isel(start=0, drop=True)
    found = {str(name).split("_")[-1]: start[name] for name in start if str(name).startswith(("ball_", "multilinear_"))}
    if "curvature" in found:
        found["curvature"] = found["curvature"].max("point").mean(["example", "output"])
        found["gradient"] = found["gradient"].mean(["example", "output"])
    if "loss" in dataset:
        found["change"] = dataset["change"].max("step")
        found["loss"] = dataset["loss"].isel(step=-1, drop=True) / dataset["loss"].isel(step=0, drop=True)
    return xr.Dataset(found).load()


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on C4.1 to C4.5 and M1 to M3, one for each network they are about."""
    found = measures(dataset)
    return [verdict for name in dataset["network"].values.tolist() for verdict in _claims_of(name, found)]


_SOURCES = {"C4.1": "2010.01092", "C4.2": "2010.01092", "M": "2206.15058"}  # others 2203.05104


def _claims_of(name: str, found: Any) -> list[Verdict]:
    network, here = NETWORKS[name], found.sel(network=name)
    source = f"arXiv {_SOURCES.get(network.claim, '2203.05104')}"

    def exponent(suffix: str, variable: str, statement: str, judge: Any, bound: float) -> Verdict:
        fit = _fit(here[variable])
        numbers = {"estimate": fit.exponent, "low": fit.low, "high": fit.high}
        claim = f"{network.claim}{suffix}/{name}"
        return judge(claim, statement=f"{statement} ({network.title}).", source=source, bound=bound, **numbers)

    falls = ("curvature", "The Hessian norm on the ball falls like m^(-1/2)", at_most, -0.3)
    stays = ("curvature", "The Hessian norm on the ball does not fall with m", at_least, -0.2)
    if network.claim == "C4.1":
        change = ("change", "The kernel change along training falls like m^(-1/2) or faster", at_most, -0.4)
        return [exponent("", *change), exponent("h", *falls)]
    if network.claim == "C4.2":
        change = ("change", "The kernel change along training does not fall with m", at_least, -0.2)
        return [exponent("", *change), exponent("h", *stays), _trained(name, here, source)]
    if network.claim == "C4.3":
        gradient = ("gradient", "The gradient's norm does not fall with m", at_least, -0.1)
        return [exponent("", *falls), exponent("g", *gradient)]
    if network.claim in ("C4.4", "C4.5"):
        return [exponent("", *stays)]
    remainder = exponent(
        "1", "remainder", "The second-order remainder within a block of weights vanishes", at_most, -0.4
    )
    beyond = exponent("3", "beyond", "The function on the ball becomes linear in each block of weights", at_most, -0.4)
    if len(network.blocks) == 1:
        return [remainder, beyond]
    what = f"The mixed difference of the {len(network.blocks)} blocks does not vanish"
    return [remainder, exponent("2", "mixed", what, at_least, -0.2), beyond]


def _trained(name: str, here: Any, source: str) -> Verdict:
    """The loss at the end over that at the start, its geometric mean over seeds at the width where the interval reaches highest."""
    logs = np.log(here["loss"])
    worst = max(
        (mean_interval(logs.sel(width=width).values) for width in here["width"].values), key=lambda one: one.high
    )
    estimate, low, high = (float(np.exp(number)) for number in worst)
    statement = f"Gradient descent reaches a small loss all the same ({NETWORKS[name].title}, worst width)."
    return at_most(
        f"C4.2l/{name}", statement=statement, source=source, estimate=estimate, low=low, high=high, bound=0.01
    )


def figure(dataset: Any) -> Any:
    """Hessian norms and kernel changes against the width, and the multilinearity of linear networks, with the -1/2 line."""
    with figures.style():
        return _draw(dataset)


def _draw(dataset: Any) -> Any:
    found, names = measures(dataset), dataset["network"].values.tolist()
    config = _configuration.restored(dataset, Config)

    def of(*claims: str) -> list[str]:
        return [name for name in names if NETWORKS[name].claim in claims]

    bottlenecks = [name for name in of("M") if len(NETWORKS[name].blocks) > 1]
    panels = [
        ("kernel change max‖K_t − K_0‖/‖K_0‖", "change", of("C4.1", "C4.2")),
        ("‖H‖ on the ball: outputs, bottlenecks", "curvature", of("C4.1", "C4.2")),
        ("‖H‖ on the ball: assemblies", "curvature", of("C4.3", "C4.4", "C4.5")),
        ("second-order remainder within a block", "remainder", of("M")),
        ("mixed difference of all blocks", "mixed", bottlenecks),
        ("|f − f_multilinear| on the ball", "beyond", of("M")),
    ]
    page, axes = figures.figure(2, 3, size=(4.4, 3.6))
    for place, (title, variable, members) in zip(axes.flat, panels, strict=True):
        for name in members:
            array = found[variable].sel(network=name, drop=True)
            figures.power_law(place, array, "width", over="seed", fit=_fit(array), label=NETWORKS[name].title)
        place.set_title(title)
        figures.leave_room(place, len(members) + 1)
    page.suptitle(
        f"n = {config.num_train}, {config.steps} steps at η c λ_max(K_0) = {config.rate:g}, ball of radius "
        f"{config.radius:g}, {config.seeds} seeds"
    )
    return page


def _fit(array: Any) -> Any:
    return power_law(array.transpose("width", "seed").astype(float), "width", over="seed")


def _task(config: Config) -> Any:
    drawn = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=DIM, n=config.num_train)
    return jd.tasks.from_arrays(drawn.x, 0.5 + 0.4 * jnp.tanh(drawn.y))
