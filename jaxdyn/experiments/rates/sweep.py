"""Networks, linear and quadratic models at rates on one grid, in units of 1/(c λ_max(K_0))."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd

DIM = 64
"""Input dimension, that of the digits."""

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": jax.nn.relu, "tanh": jnp.tanh, "swish": jax.nn.silu}

EXPANSIONS = {"network": jd.exact, "linear": jd.linear, "quadratic": jd.quadratic}


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    width: int  # hidden width where it is not what varies
    widths: tuple[int, ...]  # of one hidden layer of ReLU, network beside quadratic model
    hidden: tuple[int, ...]  # numbers of hidden layers
    activations: tuple[str, ...]  # beside ReLU, with one and two hidden layers
    data: tuple[str, ...]  # inputs
    momenta: tuple[float, ...]  # of heavy ball
    seeds: int  # number of initialisations
    num_train: int  # training examples
    steps: int  # steps of a run
    per_octave: int  # rates from one ratio to its double
    top: float  # the grid ends below this ratio
    unit_gain: bool = False  # whether layers keep the second moment (`models.unit_gain` of the activation), or g = 1
    first_seed: int = 0  # seeds are this and those that follow


_DATA = ("gaussian", "positive", "digits")
_WIDTHS = (32, 64, 128, 256, 512, 1024)
_SMOOTH = ("tanh", "swish")

PRESETS = {
    "ci": Config(32, (32, 128), (1, 2), (), _DATA[:2], (0.9,), 3, 16, 80, 3, 40.0),
    "laptop": Config(128, _WIDTHS, (1, 2, 3), _SMOOTH, _DATA, (0.5, 0.9), 4, 32, 300, 6, 40.0),
    "desk": Config(
        256, _WIDTHS, (1, 2, 3), _SMOOTH, _DATA, (0.5, 0.9), 12, 32, 300, 6, 40.0, unit_gain=True, first_seed=100
    ),
    "paper": Config(2048, (*_WIDTHS, 2048, 4096, 8192), (1, 2, 3), _SMOOTH, _DATA, (0.5, 0.9), 16, 128, 1000, 12, 40.0),
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


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (case, ratio, seed, …): `loss` along `step`; along `end` (anchor and last step) `loss_test` and `curvature`,
    c λ_max of the current kernel; along `start` `learning_rate`, and `relative_rate` η c λ_max(K_0).
    """
    known, tasks = cases(config), {name: _task(name, config.num_train) for name in config.data}
    loss, c = jd.losses.mse, jd.losses.mse.c(config.num_train, 1)

    def one(case: str, ratio: Any, seed: Any) -> jd.Training:
        here, key = known[case], jax.random.key(seed)
        task = tasks[here.data]
        activation = ACTIVATIONS[here.activation]
        gain = jd.models.unit_gain(activation) if config.unit_gain else 1.0
        model = jd.models.mlp((DIM, *(here.width,) * here.hidden, 1), activation=activation, gain=gain)
        params0 = model.init(key)
        curvature = 2 / jd.theory.critical_learning_rate(model.apply, params0, task, loss=loss)
        learning_rate, optimizer = _optimizer(here.optimizer, ratio, curvature, params0)
        ends = {"loss_test": jd.probes.TestLoss(), "curvature": lambda at: c * jd.probes.NTKNorm(task.x)(at)}
        rates = {"learning_rate": lambda _: learning_rate, "relative_rate": lambda _: learning_rate * curvature}
        records = (
            jd.record(jd.every(1), loss=jd.probes.BatchLoss()),
            jd.record(jd.at([0, config.steps]), dim="end", **ends),
            jd.record(jd.at([0]), dim="start", **rates),
        )
        return jd.Training(
            model, task, optimizer, steps=config.steps, key=key, params0=params0, loss=loss, expand=EXPANSIONS[here.model],
            record=records,
        )  # fmt: skip

    seeds = config.first_seed + np.arange(config.seeds)
    return one, {"case": list(known)}, {"ratio": ratios(config), "seed": seeds}


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
