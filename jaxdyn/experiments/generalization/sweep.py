"""Networks, their linear and quadratic models over rates, on every data set that is there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.tasks import pictures

VARIANTS = ("sgd", "tanh", "swish", "three layers", "convolution")
MODELS = ("network", "linear", "quadratic")
DATA = (*pictures.NAMES, "polynomial")
BATCH, DIM = 32, 10
CRITICAL = 2.0


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    # `polynomial` and any of `tasks.pictures` (`mnist`, `fsdd`, `ag_news`, …); those without files are left out
    data: tuple[str, ...]
    studied: str  # the one that the variants run on; the first of `data` where it is not among them
    variants: tuple[str, ...]  # some of `sgd`, `tanh`, `swish`, `three layers`, `convolution`
    side: int  # pixels a side, at most; larger pictures are averaged over blocks
    num_train: int  # training examples
    num_test: int  # test examples, or as many as there are
    width: int  # neurons of two-layer networks
    width_deep: int  # neurons of each hidden layer of three-layer ones
    channels: int  # of convolutional ones
    rates: tuple[float, ...]  # η c λ_max(K_0), below and above 2
    seeds: int  # number of initialisations
    steps: int  # of gradient descent, stochastic or not
    every: int  # steps between two looks at the test set
    first_seed: int = 0  # seeds are this and those that follow


_RATES = (0.5, 1.0, 1.5, 1.9, 2.3, 2.8, 3.3, 3.8, 5.0)
_FINE = (0.5, 1.0, 1.5, 1.9, 2.1, 2.3, 2.5, 2.8, 3.2, 3.8)
_MANY = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 1.95, 2.2, 2.5, 2.8, 3.1, 3.4, 3.7, 4.0, 5.0, 6.0, 8.0)
_ALL = ("digits", "polynomial", "mnist", "fashion-mnist", "cifar-2")

PRESETS = {
    "ci": Config(("digits",), "digits", ("sgd",), 8, 48, 100, 128, 32, 8, (1.0, 1.9, 2.6, 3.3), 5, 60, 5),
    "laptop": Config(_ALL, "digits", VARIANTS, 14, 128, 200, 512, 128, 32, _RATES, 5, 300, 5),
    "desk": Config(_ALL, "digits", VARIANTS, 14, 128, 200, 512, 128, 32, _FINE, 16, 2000, 10, first_seed=100),
    "paper": Config(
        (*_ALL, "svhn", "fsdd", "ag_news"), "cifar-2", VARIANTS, 32, 256, 2000, 5000, 2048, 1000, _MANY, 5, 5000, 10
    ),
}


def options(config: Config) -> dict[str, Any]:
    """Attributes: `data`, what each data set was made into, and `left_out`, those without files."""
    found, left_out = _tasks(config)
    about = {name: pictures.about(name, config.side) for name in found if name != "polynomial"}
    return {"attrs": {"left_out": json.dumps(left_out), "data": json.dumps(about)}}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (panel, model, rate, seed, …): along `step` `loss`, `test_loss`, `accuracy` of what was simulated; along `time`
    `linear_loss`, `linear_test_loss`, `linear_accuracy`, the same of the linear models that were not; along `start` `learning_rate`.
    The attribute `left_out` names data without files.

    Raises:
        FileNotFoundError: where no data set is there, or not the one that the variants are studied on.
    """
    tasks, absent = _tasks(config)
    studied = config.studied if config.studied in config.data else config.data[0]
    if not tasks or (config.variants and studied not in tasks):
        raise FileNotFoundError(absent[studied])
    panels = [*tasks, *(f"{studied}, {variant}" for variant in config.variants)]

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
    return one, loop, {"rate": np.asarray(config.rates), "seed": config.first_seed + np.arange(config.seeds)}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ClosedForm:
    """Losses and test accuracy of the linear model along gradient descent, [time]; infinite and NaN where it overflows."""

    learning_rate: Any  # η
    times: tuple[int, ...] = field(metadata={"static": True})  # completed steps

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
                tasks[name] = pictures.task(name, side=config.side, **sizes)
        except FileNotFoundError as error:
            absent[name] = str(error).replace(f"{Path.cwd()}/", "")
    return tasks, absent


def _network(config: Config, name: str, variant: str) -> jd.Model:
    shape = (1, 1, DIM) if name == "polynomial" else pictures.shape(name, config.side)
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
