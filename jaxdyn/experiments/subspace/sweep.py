"""Two-layer ReLU networks and their quadratic models at super-critical rates, the kernel decomposed at every step."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.tasks import pictures

NETWORKS = ("dense", "convolution")
MODELS = ("network", "quadratic")


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    data: str  # one of `tasks.pictures`; all but `digits` need files, which are looked for as `tasks.sources` says
    side: int  # pixels a side, at most; larger pictures are averaged over blocks
    num_train: int  # training pictures n
    width: int  # hidden neurons of the fully connected network
    channels: int  # of the convolutional one
    rates: tuple[float, ...]  # η c λ_1(K_0)
    seeds: int  # number of initialisations
    steps: int  # steps of gradient descent
    first_seed: int = 0  # seeds are this and those that follow


PRESETS = {
    "ci": Config("digits", 8, 32, 256, 16, (2.4, 3.0), 5, 30),
    "laptop": Config("digits", 8, 128, 1024, 128, (2.4, 3.0, 3.6), 8, 60),
    "desk": Config("digits", 8, 128, 1024, 128, (2.4, 3.0, 3.6), 32, 60, first_seed=100),
    "paper": Config("cifar-2", 32, 128, 2048, 1024, (2.2, 2.6, 3.0, 3.4, 3.8), 10, 500),
}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (network, model, rate, seed, …): along `step` (all of them) `loss`, and by `probes.TopDirection`
    `top_eigenvalue` and `top_loss` [mode], `top_output_correction` and `top_kernel_decrease`; along `start` `learning_rate`.
    """
    task = pictures.task(config.data, n=config.num_train, n_test=0, side=config.side)
    c = jd.losses.mse.c(config.num_train, 1)
    shape = pictures.shape(config.data, config.side)
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
                jd.record(jd.every(1), loss=jd.probes.Loss(), top=jd.probes.TopDirection(learning_rate * c)),
                jd.record(jd.at([0]), dim="start", learning_rate=lambda _: learning_rate),
            ),
        )

    loop = {"network": list(NETWORKS), "model": list(MODELS)}
    return one, loop, {"rate": np.asarray(config.rates), "seed": config.first_seed + np.arange(config.seeds)}
