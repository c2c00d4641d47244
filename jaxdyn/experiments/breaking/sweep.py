"""Curvature on a ball, or multilinearity, of every network, and the training of some."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.experiments.breaking.networks import DIM, NETWORKS
from jaxdyn.experiments.experiment import by_case


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
    first_seed: int = 0  # seeds are this and those that follow


_FEW = ("wide", "softplus", "bottleneck1", "small", "dominated", "shared", "linear1")

PRESETS = {
    "ci": Config(_FEW, (16, 64, 256), 8, 8, 400, 1.0, 6, 1.0, 20),
    "laptop": Config(tuple(NETWORKS), (32, 64, 128, 256, 512), 8, 16, 1000, 1.0, 12, 1.0, 30),
    "desk": Config(tuple(NETWORKS), (64, 128, 256, 512, 1024), 48, 16, 1000, 1.0, 12, 1.0, 30, first_seed=100),
    "paper": Config(tuple(NETWORKS), (64, 128, 256, 512, 1024, 2048, 4096), 16, 32, 4000, 1.0, 20, 1.0, 60),
}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (network, width, seed, …): `loss` and `change` (relative kernel change) along `step`, and along `start` (one
    record, before training) `ball_curvature` (point: w0, random, end of the ascent), `ball_gradient`, `ball_gap` and
    `multilinear_remainder`, `multilinear_mixed`, `multilinear_beyond`; NaN where a network has no such claim.
    """
    unknown = [name for name in config.networks if name not in NETWORKS]
    if unknown:
        raise ValueError(f"Unknown network {unknown[0]!r}; the names are {', '.join(NETWORKS)}.")
    task = task_of(config)

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

    seeds = config.first_seed + np.arange(config.seeds)
    return one, {"network": list(config.networks)}, {"width": jd.widths(config.widths), "seed": seeds}


narrow = by_case("networks")


def task_of(config: Config) -> Any:
    """Targets 0.5 + 0.4 tanh(x_1 x_2), which every output function here can take."""
    drawn = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=DIM, n=config.num_train)
    return jd.tasks.from_arrays(drawn.x, 0.5 + 0.4 * jnp.tanh(drawn.y))
