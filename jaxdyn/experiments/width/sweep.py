"""Networks of several widths and depths, their linear and quadratic models, and the infinite-width kernel they share a rate with."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.experiments.experiment import by_case
from jaxdyn.models.width import Width


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    widths: tuple[int, ...]  # hidden widths
    seeds: int  # number of initialisations
    depths: tuple[int, ...]  # numbers of hidden layers
    classes: tuple[int, int]  # the two digits to tell apart
    num_train: int  # training images
    num_test: int  # test images
    steps: int  # steps of gradient descent
    rate: float  # learning rate times c λ_max(K_∞); below 2 is sub-critical
    num_records: int  # record times, logarithmically spaced


PRESETS = {
    "ci": Config((16, 32, 64, 128, 256), 8, (2,), (3, 8), 64, 64, 100, 1.0, 6),
    "laptop": Config((32, 64, 128, 256, 512), 8, (2, 3), (3, 8), 128, 128, 120, 1.0, 12),
    "paper": Config((64, 128, 256, 512, 1024, 2048, 4096, 8192), 16, (2, 3), (3, 8), 256, 100, 1000, 1.0, 20),
}

EXPANSIONS = {"full": jd.exact, "linear": jd.linear, "quadratic": jd.quadratic}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (depth, expand, width, seed, step, …) and variables `loss`, `outputs` (training images), `outputs_test`, and for
    the networks alone `change`, `distance`, `curvature`.
    """
    data = task(config)
    kernels = {depth: network(depth, 1).kernel(data.x).ntk for depth in config.depths}
    rates = {depth: learning_rate(config, kernels[depth]) for depth in config.depths}

    def one(depth: int, expand: Any, width: Any, seed: Any) -> jd.Training:
        probes: dict[str, Any] = {
            "loss": jd.probes.Loss(),
            "outputs": jd.probes.Outputs(),
            "outputs_test": jd.probes.Outputs(data.x_test),
        }
        if expand is jd.exact:
            probes["change"] = jd.probes.KernelChange(data.x)
            probes["distance"] = jd.probes.KernelDistance(data.x, to=kernels[depth])
            probes["curvature"] = jd.probes.NTKNorm(data.x)
        return jd.Training(
            network(depth, width),
            data,
            optax.sgd(rates[depth]),
            steps=config.steps,
            key=jax.random.key(seed),
            expand=expand,
            record=jd.record(jd.log_spaced(config.num_records), **probes),
        )

    loop = {"depth": list(config.depths), "expand": EXPANSIONS}
    return one, loop, {"width": jd.widths(config.widths), "seed": np.arange(config.seeds)}


narrow = by_case("depths")


def task(config: Config) -> jd.Task:
    """Two classes of digits."""
    return jd.tasks.digits(classes=config.classes, n=config.num_train, n_test=config.num_test)


def network(depth: int, width: int | Width) -> jd.Model:
    """A tanh network of so many hidden layers."""
    return jd.models.mlp((64, *(width,) * depth, 1), activation=jnp.tanh)


def learning_rate(config: Config, kernel: Any) -> float:
    """η with η c λ_max(K_∞) = `rate`."""
    n = kernel.shape[0]
    return config.rate / (jd.losses.mse.c(n, 1) * float(jnp.linalg.eigvalsh(kernel)[-1]))
