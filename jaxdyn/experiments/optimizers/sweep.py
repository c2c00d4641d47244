"""Eight optimizers over grids of rates, with the alignment of their networks along the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd

OPTIMIZERS: Mapping[str, tuple[Callable[[Any], Any], float]] = {
    "sgd": (optax.sgd, 3.0),
    "momentum": (lambda rate: optax.sgd(rate, momentum=0.9), 1.0),
    "rmsprop": (optax.rmsprop, 0.1),
    "adagrad": (optax.adagrad, 1.0),
    "adadelta": (optax.adadelta, 10.0),
    "adam": (optax.adam, 0.1),
    "lion": (lambda rate: optax.lion(rate, weight_decay=0.0), 0.03),
    "muon": (optax.contrib.muon, 1.0),
}
"""The optimizers, and the largest rates of their grids: of the first two in units of the critical rate."""

IN_CRITICAL_UNITS = ("sgd", "momentum")
NUM_REFERENCES, NUM_POINTS = 3, 256
"""Reference networks of the digits, and the test images at which their AGOP and those of the runs are taken."""


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    optimizers: tuple[str, ...]  # names in `OPTIMIZERS`
    dim: int  # d; of the digits 64
    num_train: int  # n; as many test examples, of the digits all that remain
    width: int  # m
    seeds: int  # number of data sets and initialisations
    batch_size: int  # of every optimizer
    steps: int  # of every optimizer
    num_rates: int  # length of the grids
    num_records: int  # how often losses and alignment are recorded
    level: float  # training loss of the second budget; the target has variance 1 (0.9 the digits, summed over outputs)
    task: str = "polynomial"  # `polynomial` or `digits`


PRESETS = {
    "ci": Config(("sgd", "momentum", "adagrad", "adam", "lion"), 10, 200, 64, 4, 20, 600, 3, 16, 0.02),
    "laptop": Config(tuple(OPTIMIZERS), 50, 1000, 512, 8, 32, 2000, 4, 30, 0.01),
    "paper": Config(tuple(OPTIMIZERS), 100, 2000, 4096, 16, 32, 20000, 6, 60, 0.001),
}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (optimizer, scale, seed, step): `loss` (on the training set), `test`, `alignment`; along `start`, `learning_rate`
    and `relative_rate`, η c λ_max(K_0), which says something about stability for `sgd` alone.
    """
    model, pose, points = problem(config)

    def one(optimizer: str, scale: Any, seed: Any) -> jd.Training:
        key = jax.random.key(seed)
        task, truth = pose(jax.random.fold_in(key, 1))
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
        make, largest = OPTIMIZERS[optimizer]
        rate = scale * largest * (critical if optimizer in IN_CRITICAL_UNITS else jnp.ones_like(critical))
        return jd.Training(
            model,
            task,
            make(rate),
            steps=config.steps,
            key=key,
            params0=params0,
            sampler=jd.minibatch(config.batch_size),
            record=(
                jd.record(jd.at([0]), dim="start", learning_rate=lambda _: rate, relative_rate=lambda _: 2 * rate / critical),
                jd.record(
                    jd.log_spaced(config.num_records), loss=jd.probes.Loss(), test=jd.probes.TestLoss(),
                    alignment=jd.probes.AGOPAlignment(task.x_test[:points], to=truth),
                ),
            ),
        )  # fmt: skip

    scales = 10.0 ** (-0.5 * np.arange(config.num_rates))
    return one, {"optimizer": list(config.optimizers)}, {"scale": scales, "seed": np.arange(config.seeds)}


def problem(config: Config) -> tuple[jd.Model, Callable[[Any], tuple[Any, Any]], int]:
    """The network, a function from a key to the task and the AGOP that runs are compared with, and at how many test inputs that is taken.

    Raises:
        ValueError: for a task of another name.
    """
    if config.task == "polynomial":
        model = jd.models.mlp((config.dim, config.width, 1), activation=jax.nn.relu)

        def drawn(key: Any) -> tuple[Any, Any]:
            task = jd.tasks.polynomial(key, degree=2, dim=config.dim, n=config.num_train, n_test=config.num_train)
            return task, jd.geometry.agop(task.target, task.x_test)

        return model, drawn, config.num_train
    if config.task != "digits":
        raise ValueError(f"`task` is `polynomial` or `digits`, but is {config.task!r}.")
    model = jd.models.mlp((64, config.width, 10), activation=jax.nn.relu)
    task = jd.tasks.digits(classes=range(10), n=config.num_train)
    truth = reference(model, task, config).mean(axis=0)
    return model, lambda _: (task, truth), NUM_POINTS


def reference(model: jd.Model, task: Any, config: Config) -> Any:
    """AGOPs of `NUM_REFERENCES` networks trained by momentum on all images, test images included, [r, d, d]."""
    whole = jd.tasks.from_arrays(jnp.concatenate([task.x, task.x_test]), jnp.concatenate([task.y, task.y_test]))

    def one(number: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(number), 2)
        params0 = model.init(key)
        rate = 0.3 * jd.theory.critical_learning_rate(model.apply, params0, whole, loss=jd.losses.mse)
        run = jd.Training(
            model, whole, optax.sgd(rate, momentum=0.9), steps=config.steps, key=key, params0=params0,
            sampler=jd.minibatch(config.batch_size),
        )  # fmt: skip
        params = jd.train(run).final.params
        return jd.geometry.agop(lambda x: model.apply(params, x), task.x_test[:NUM_POINTS])

    return jax.jit(lambda: jax.lax.map(one, jnp.arange(NUM_REFERENCES)))()
