"""Observations at several batch sizes, and runs in which spikes are taken away or forced."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdyn as jd
from jaxdyn.experiments.mediation.arms import CappedState, Setting, capped, forced, plain, slow


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    dim: int  # d
    num_train: int  # n; as many test examples
    width: int  # m
    seeds: int  # number of data sets and initialisations
    batch_sizes: tuple[int, ...]  # of the observations; `num_train` is added as the last
    capped: tuple[int, ...]  # batch sizes, some of those, that are also run capped and slow
    forced: tuple[int, ...]  # numbers of raises
    ratio: float  # initial rate in units of the critical one
    level: float  # training loss at which runs are judged; the target has variance 1
    steps: int  # of a run that does not reach it
    every: int  # steps between two records of test loss and alignment


PRESETS = {
    "ci": Config(20, 400, 128, 5, (16, 64), (16,), (1,), 0.9, 0.02, 800, 10),
    "laptop": Config(30, 600, 256, 12, (8, 16, 32, 64, 128), (8, 16), (1, 2), 0.9, 0.01, 4000, 10),
    "paper": Config(100, 2000, 4096, 32, (4, 8, 16, 32, 64, 128, 256, 512), (8, 16), (1, 2), 0.9, 0.005, 20000, 20),
}


def arms(config: Config) -> Mapping[str, tuple[int, Callable[[Setting], Any]]]:
    """Batch size and optimizer of every arm."""
    observed = {
        name: (b, plain) for name, b in zip(observations(config), (*config.batch_sizes, config.num_train), strict=True)
    }
    lowered = {f"{make.__name__} b = {b}": (b, make) for b in config.capped for make in (capped, slow)}
    raised = {f"forced {num}": (config.num_train, forced(num)) for num in config.forced}
    return {**observed, **lowered, **raised}


def observations(config: Config) -> list[str]:
    """Names of the arms without an intervention, the whole training set last."""
    return [f"b = {b}" for b in (*config.batch_sizes, config.num_train)]


def options(config: Config) -> dict[str, Any]:
    """An arm ends when all of its seeds have reached the level."""
    return {"stop": lambda values: (np.asarray(values["train"]) <= config.level).any(axis=1)}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (arm, seed, …): `loss` [step] on the training set; `train` (the same), `log_test`, `alignment` and `rate` (mean so
    far where capped, last otherwise) [probe_step]; `learning_rate` and `relative_rate` [start], η c λ_max(K_0).
    """
    model = jd.models.mlp((config.dim, config.width, 1), activation=jax.nn.relu)
    made = arms(config)

    def one(arm: str, seed: Any) -> jd.Training:
        key = jax.random.key(seed)
        task = jd.tasks.polynomial(
            jax.random.fold_in(key, 1), degree=2, dim=config.dim, n=config.num_train, n_test=config.num_train
        )
        truth = jd.geometry.agop(task.target, task.x_test)
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
        rate = config.ratio * critical
        batch_size, make = made[arm]
        sampler = jd.full_batch if batch_size == config.num_train else jd.minibatch(batch_size)
        test = jd.probes.TestLoss()
        return jd.Training(
            model,
            task,
            make(Setting(rate, model, params0, task, sampler, jd.dynamics.batch_key(key))),
            steps=config.steps,
            key=key,
            params0=params0,
            sampler=sampler,
            record=(
                jd.record(jd.at([0]), dim="start", learning_rate=lambda _: rate, relative_rate=lambda _: 2 * rate / critical),
                jd.record(jd.every(1), loss=jd.probes.Loss()),
                jd.record(
                    jd.every(config.every), dim="probe_step", train=jd.probes.Loss(), log_test=lambda snapshot: jnp.log(test(snapshot)),
                    alignment=jd.probes.AGOPAlignment(task.x_test, to=truth), rate=lambda snapshot: _rate(snapshot, rate),
                ),
            ),
        )  # fmt: skip

    return one, {"arm": list(made)}, {"seed": np.arange(config.seeds)}


def _rate(snapshot: Any, rate: Any) -> Any:
    """The mean rate so far of a capped run, the last rate of a forced or slow one, η of any other."""
    state = snapshot.optimizer_state
    if isinstance(state, CappedState):
        return state.total / jnp.maximum(state.count, 1)
    if hasattr(state, "hyperparams"):
        return state.hyperparams["learning_rate"]
    return state.rate if isinstance(state, jd.dynamics.CatapultState) else rate
