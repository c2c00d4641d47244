"""A graph and an initialisation a seed: linearity at the anchor and in a ball around it, and a short training."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.experiments.dag.networks import DIM, GRAPHS, Linearity, network
from jaxdyn.experiments.experiment import by_case
from jaxdyn.models import graphs

POINTS = ("anchor", "sphere", "ascent")
FUNCTIONS = ("output", "nonlinear output", "pre-activation")
ARCHITECTURES = ("fully connected", "deep", "uniform", "heavy-tailed", "convolution", "fixed budget")


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    widths: tuple[int, ...]  # m
    seeds: int  # number of graphs and initialisations
    architectures: tuple[str, ...]  # some of those in the table
    radius: float  # R
    climb: int  # steps of the ascent
    num_train: int  # examples of the training
    steps: int  # of the training
    first_seed: int = 0  # seeds are this and those that follow


PRESETS = {
    "ci": Config((8, 32, 128), 8, ("uniform",), 1.0, 5, 16, 10),
    "laptop": Config((12, 32, 76, 192), 8, ARCHITECTURES, 1.0, 10, 32, 50),
    "desk": Config((80, 160, 320, 640), 16, ARCHITECTURES, 1.0, 10, 32, 50, first_seed=100),
    "paper": Config((64, 128, 256, 512, 1024, 2048, 4096), 16, ARCHITECTURES[:5], 1.0, 20, 64, 200),
}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes."""
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=DIM, n=config.num_train, n_test=0)
    example = task.x[:1] * jnp.sqrt(DIM) / jnp.linalg.norm(task.x[:1])
    seeds = range(config.first_seed, config.first_seed + config.seeds)

    def one(architecture: str, width: int, seed: Any) -> jd.Training:
        key = jax.random.key(seed)
        masks = None
        if architecture in GRAPHS:
            own = jax.random.fold_in(key, 0x67726170)
            masks = graphs.random_masks(**random_graph(config, architecture, width), key=own)
        model, functions = network(architecture, width, masks)
        params0 = model.init(key)
        rate = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse) / 2
        return jd.Training(
            model,
            task,
            optax.sgd(rate),
            steps=config.steps,
            key=key,
            params0=params0,
            record=(
                jd.record(jd.at([0]), linearity=Linearity(functions, example, key, config.radius, config.climb)),
                jd.record(
                    jd.at([0, config.steps]), dim="time", change=jd.probes.KernelChange(task.x), loss=jd.probes.Loss()
                ),
            ),
        )

    names = [name for name in ARCHITECTURES if name in config.architectures]
    return one, {"architecture": names, "width": list(config.widths)}, {"seed": np.asarray(seeds)}


narrow = by_case(
    "architectures", {"B1": ("fixed budget",), "B2": ("fully connected", "deep"), "C3.4": ("uniform", "heavy-tailed")}
)


def random_graph(config: Config, architecture: str, width: int) -> dict[str, Any]:
    """The sizes and the law of the random graph of a member, as `graphs.random_masks` and `graphs.random_layered` take them."""
    if architecture == "uniform":
        sizes, law = (3 * width,) * 3, graphs.uniform(width)
    elif architecture == "heavy-tailed":
        sizes, law = (int(width**1.25),) * 3, graphs.heavy_tailed(width, power=1.25)
    else:
        most = max(config.widths)
        sizes, law = (2 * most,) * 3, graphs.fixed_mean(max(1, width // 4), mean=most / 4, most=2 * most)
    return {"sizes": (DIM, *sizes, 1), "law": law}
