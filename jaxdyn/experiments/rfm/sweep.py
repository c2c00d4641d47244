"""Machines and a network on data of their own for every seed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.theory import radial, rfm

DIM, RELEVANT = 20, (0, 1, 5)
"""Input dimension, and the coordinates that the target reads."""

DEVIATION = 0.5
"""Standard deviation of every coordinate."""

MACHINES = {
    "laplace": (radial.laplace(10.0), rfm.unnormalised),
    "gaussian": (radial.gaussian(math.sqrt(DIM) * DEVIATION), rfm.by_max),
}
"""Kernels of the machines, and what their metrics go through."""

KERNELS = tuple(MACHINES)
LAYERS = ("dense_0/weight", "dense_1/weight")


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    num_train: int  # training examples; as many test examples
    seeds: int  # number of data sets and initialisations
    iterations: int  # how often the metric is replaced
    width: int  # of the network's hidden layers
    steps: int  # of SGD
    batch_size: int  # of SGD
    ratio: float  # learning rate in units of the critical one at initialisation


PRESETS = {
    "ci": Config(1000, 4, 5, 128, 1000, 100, 0.5),
    "laptop": Config(4000, 8, 5, 256, 4000, 100, 0.5),
    "paper": Config(20000, 8, 5, 1024, 50000, 128, 0.5),
}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (learner, seed, …). Of the kernels, along `start`: `machine_mse` [iteration] and `machine_metric` [iteration,
    feature, feature_]. Of the network, along `time` (before and after): `loss`, `test`, `agop` [feature, feature_], `ansatz_plain`,
    `ansatz_removed` and `ansatz_before` [layer]; along `rates`: `learning_rate` and `relative_rate`, η c λ_max(K_0).
    """

    def one(learner: str, seed: Any) -> jd.Training:
        key = jax.random.key(seed)
        task = draw(jax.random.fold_in(key, 1), config.num_train)
        if learner in KERNELS:
            nothing = jd.Model(lambda key: jnp.zeros(1), lambda params, x: x[:, :1] * params[None, :])
            machine = jd.record(jd.at([0]), dim="start", machine=Machine(learner, config.iterations))
            return jd.Training(nothing, task, optax.sgd(1.0), steps=0, key=key, record=machine)
        model = jd.models.mlp(
            (DIM, config.width, config.width, 1), activation=jax.nn.relu, scaling=jd.models.maximal_update
        )
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
        rate = config.ratio * critical
        return jd.Training(
            model,
            task,
            optax.sgd(rate),
            steps=config.steps,
            key=key,
            params0=params0,
            sampler=jd.minibatch(config.batch_size),
            record=(
                jd.record(jd.at([0]), dim="rates", learning_rate=lambda _: rate, relative_rate=lambda _: 2 * rate / critical),
                jd.record(
                    jd.at([0, config.steps]), dim="time", loss=jd.probes.Loss(), test=jd.probes.TestLoss(), agop=jd.probes.AGOP(),
                    ansatz=Ansatz(),
                ),
            ),
        )  # fmt: skip

    return one, {"learner": [*KERNELS, "network"]}, {"seed": np.arange(config.seeds)}


def target(x: Any) -> Any:
    """f*(x) = x_0 x_1 1{x_5 > 0}, [n, 1]."""
    first, second, gate = (x[:, i : i + 1] for i in RELEVANT)
    return first * second * (gate > 0)


def draw(key: Any, num: int) -> Any:
    """A task of `num` training and as many test examples."""
    train, test = (DEVIATION * jax.random.normal(jax.random.fold_in(key, i), (num, DIM)) for i in range(2))
    return jd.tasks.from_arrays(train, target(train), x_test=test, target=target)


@dataclass(frozen=True)
class Machine:
    """The recursive feature machine of the snapshot's task: test errors and metrics after 0, …, T iterations."""

    kernel: str
    iterations: int
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "mse": ("iteration",),
        "metric": ("iteration", "feature", "feature_"),
    }

    def __call__(self, snapshot: Any) -> Any:
        """Fit it; the network is not looked at."""
        task = snapshot.task
        kernel, normalise = MACHINES[self.kernel]
        found = rfm.fit(
            task.x, task.y, x_test=task.x_test, y_test=task.y_test, kernel=kernel, ridge=1e-3, iterations=self.iterations,
            normalise=normalise,
        )  # fmt: skip
        return {"mse": found.test_mse, "metric": found.metrics}


@dataclass(frozen=True)
class Ansatz:
    """Correlation of W Wᵀ with G^½ for every layer: of the weights as they are, and of their movement.

    The movement so far is zero at the anchor, so `removed` is not a number there; `before` has the movement with the anchor's AGOP.
    """

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("plain", "removed", "before"), ("layer",))

    def __call__(self, snapshot: Any) -> Any:
        """Both conventions."""
        geometry, params, params0, x = jd.geometry, snapshot.params, snapshot.params0, snapshot.task.x
        found: dict[str, list[Any]] = {"plain": [], "removed": [], "before": []}
        for layer in LAYERS:
            now, then = (
                geometry.matrix_power(geometry.layer_agop(snapshot.apply, at, x, layer=layer), 0.5)
                for at in (params, params0)
            )
            moved = geometry.neural_feature_matrix(params, layer=layer, params0=params0)
            found["plain"].append(geometry.pearson(geometry.neural_feature_matrix(params, layer=layer), now))
            found["removed"].append(geometry.pearson(moved, now))
            found["before"].append(geometry.pearson(moved, then))
        return {name: jnp.stack(values) for name, values in found.items()}
