"""Solvable models and the networks they come from on one grid of relative rates."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.experiments.catapult.problems import Along, Case, Constant, problem, rates


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


PRESETS = {
    "ci": Config((128, 512, 2048), (3e-2, 1e-2, 3e-3), 512, 32, 3, 300, 0.25, 0.04, 10),
    "laptop": Config((128, 512, 2048, 8192), (1e-2, 3e-3, 1e-3), 4096, 128, 8, 1000, 0.1, 0.02, 5),
    "paper": Config(
        (128, 512, 2048, 8192, 32768, 131072), (1e-2, 1e-3, 1e-4, 1e-5), 5000, 128, 16, 4000, 0.05, 0.01, 5
    ),
}


def cases(config: Config) -> dict[str, Case]:
    """All cases by label, such as "single network 128"."""
    families = [
        Case(family, width) for family in ("single network", "single quadratic", "uv") for width in config.widths
    ]
    families += [Case(f"clusters {which}", config.class_width) for which in ("network", "quadratic")]
    families += [Case("general", gamma) for gamma in config.gammas]
    return {str(case): case for case in families}


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
        start = {"learning_rate": Constant(rate * unit)}
        setting = {
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
                jd.record(jd.at([0]), dim="start", **start, **setting),
            ),
        )

    return one, {"case": list(known)}, {"rate": rates(config.coarse, config.fine), "seed": np.arange(config.seeds)}
