"""Solvable models and networks at relative rates around 2 and 4."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.experiments.catapult.probes import Along, Constant
from jaxdyn.experiments.catapult.problems import Case, problem

BEYOND = (4.5, 5.0, 6.0, 8.0, 12.0, 20.0)
"""Relative rates at which only networks may train."""


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    widths: tuple[int, ...]  # m of one example and of `uv`, in order
    gammas: tuple[float, ...]  # γ of the general quadratic model, the smallest last
    class_width: int  # m of the two clusters
    num_train: int  # examples of the two clusters
    seeds: int  # number of initialisations
    steps: int  # steps of gradient descent
    coarse: float  # spacing of the relative rates
    fine: float  # relative spacing around 2 and 4; half of `coarse` is used from 2 to 3.5
    every: int  # steps between two looks at the kernel
    first_seed: int = 0  # seeds are this and those that follow


PRESETS = {
    "ci": Config((128, 512, 2048), (3e-2, 1e-2, 3e-3), 512, 32, 3, 300, 0.25, 0.04, 10),
    "laptop": Config((128, 512, 2048, 8192), (1e-2, 3e-3, 1e-3), 4096, 128, 8, 1000, 0.1, 0.02, 5),
    "desk": Config((128, 512, 2048, 8192), (1e-2, 3e-3, 1e-3), 4096, 128, 32, 1000, 0.1, 0.02, 5, first_seed=100),
    "paper": Config(
        (128, 512, 2048, 8192, 32768, 131072), (1e-2, 1e-3, 1e-4, 1e-5), 5000, 128, 16, 4000, 0.05, 0.01, 5
    ),
}


def cases(config: Config) -> dict[str, Case]:
    """All cases by label, such as "single network 128"; the largest of a family comes last."""
    families = [
        Case(family, width) for family in ("single network", "single quadratic", "uv") for width in config.widths
    ]
    families += [Case(f"clusters {which}", config.class_width) for which in ("network", "quadratic")]
    families += [Case("general", gamma) for gamma in config.gammas]
    return {str(case): case for case in families}


def largest(config: Config) -> dict[str, str]:
    """The label of the largest case of every family."""
    return {case.family: label for label, case in cases(config).items()}


def rates(coarse: float, fine: float) -> np.ndarray:
    """The relative rates, sorted: spaced by `coarse`, by half of it from 2 to 3.5, relatively by `fine` around 2 and 4, which are none."""
    offsets = 1 + fine * (np.arange(6) - 2.5)
    around = np.concatenate([2 * offsets, 4 * offsets])
    plain = np.concatenate([np.arange(0.5, 4.4, coarse), np.arange(2.0, 3.5, coarse / 2)])
    is_near = (np.abs(plain[:, None] / around[None, :] - 1) < 0.3 * fine).any(axis=1)
    is_edge = (np.abs(plain[:, None] / np.array([2.0, 4.0])[None, :] - 1) < fine).any(axis=1)
    return np.unique(np.round(np.concatenate([plain[~is_near & ~is_edge], around, BEYOND]), 4))


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (case, rate, seed, …), `rate` the relative ones: along `step` (all of them) `loss`; along `probe_step`
    `state_output` ⟨f, p_i⟩ and `state_kernel` p_iᵀKp_i [direction]; along `start` `learning_rate` (absolute), `coupling` and `target`
    [direction], which `theory.catapult.example_map` takes.
    """
    known = cases(config)

    def one(case: str, rate: Any, seed: Any) -> jd.Training:
        key = jax.random.key(seed)
        found = problem(known[case], config.num_train, key)
        params0 = found.model.init(key)
        unit = jd.theory.critical_learning_rate(found.model.apply, params0, found.task, loss=found.loss) / 2
        start = {
            "learning_rate": Constant(rate * unit),
            "coupling": Constant(found.coupling, ("direction",)),
            "target": Constant(found.target, ("direction",)),
        }
        return jd.Training(
            found.model,
            found.task,
            optax.sgd(rate * unit),
            steps=config.steps,
            key=key,
            params0=params0,
            loss=found.loss,
            expand=found.expand,
            record=(
                jd.record(jd.every(1), loss=jd.probes.Loss()),
                jd.record(jd.every(config.every), dim="probe_step", state=Along(found.directions)),
                jd.record(jd.at([0]), dim="start", **start),
            ),
        )

    seeds = config.first_seed + np.arange(config.seeds)
    return one, {"case": list(known)}, {"rate": rates(config.coarse, config.fine), "seed": seeds}
