"""Descents on y = x_1 x_2: above the critical rate, with forced catapults, with batches, and where few of these are super-critical."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.experiments.spikes.probes import BatchStep, Curvatures, Kernel

CALIBRATION = 256
"""Batches at w_0 on which the rate of the rare descents is calibrated."""


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    batch_sizes: tuple[int, ...]  # of stochastic descent
    seeds: int  # number of data sets, initialisations and streams of minibatches
    width: int  # hidden units
    dim: int  # d, of the descents whose kernel is followed or forced
    num_train: int  # their n; as many test examples
    steps: int  # their steps
    many_dim: int  # d, of the rare descents
    many: int  # their n
    many_steps: int  # their steps
    raises: int  # the most that are forced
    high: float = 1.5  # η of the catapult, in units of the critical rate
    low: float = 0.9  # the same, of the forced descents before a raise
    jump: float = 1.2  # the rate after a raise, in units of the critical rate of that moment
    level: float = 0.2  # the loss below which the rate is raised; the target has variance 1
    patience: int = 60  # steps after which a raise ends
    target: float = 0.02  # the training loss at which forced descents are compared
    share: float = 0.05  # quantile of the batches' critical rates at the start
    margin: float = 0.89  # the rate of the rare descents in units of it
    every: int = 2  # steps between two looks at test loss and alignment
    first_seed: int = 0  # seeds are this and those that follow


PRESETS = {
    "ci": Config((16,), 8, 128, 8, 64, 200, 12, 128, 1000, 2),
    "laptop": Config((32, 64), 16, 256, 20, 256, 600, 50, 1000, 2000, 3, first_seed=50),
    "desk": Config((32, 64), 48, 512, 20, 256, 800, 50, 1000, 4000, 3, first_seed=100),
    "paper": Config((16, 32, 64, 128), 32, 2048, 30, 512, 2000, 100, 4000, 10000, 4, first_seed=200),
}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (descent, seed, …). Along `step` (all of them) `loss`, and of the traced descents `kernel_top` [subspace],
    `kernel_norm` (λ_max(K)) and `kernel_residual`. Along `event` (all steps of the rare descents) `training`, the loss of the training
    set, `batch_ratio` (ρ of the batch that enters next) and `batch_growth` (of its loss in that step, a logarithm). Along `look`, of the
    forced ones, `train`, `test`, `alignment` and `raises` so far; along `end` their `curvatures` [raise]. Along `start` `learning_rate`
    and `relative_rate` (η c λ_max(K_0)).
    """
    made, watched = descents(config), traced(config)
    models = {
        dim: jd.models.mlp((dim, config.width, 1), activation=jax.nn.relu) for dim in (config.dim, config.many_dim)
    }

    def one(descent: str, seed: Any) -> jd.Training:
        key, (kind, number) = jax.random.key(seed), made[descent]
        is_rare = kind == "rare"
        dim, n = (config.many_dim, config.many) if is_rare else (config.dim, config.num_train)
        task = jd.tasks.polynomial(jax.random.fold_in(key, 1), degree=2, dim=dim, n=n, n_test=0 if is_rare else n)
        model = models[dim]
        params0 = model.init(key)
        sampler = jd.minibatch(number) if kind in ("batch", "rare") else jd.full_batch
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
        relative = {"catapult": config.high, "forced": config.low, "batch": 1.0}
        rate = _calibrated(config, model, params0, task, sampler, key) if is_rare else relative[kind] * critical
        optimizer: Any = optax.sgd(rate)
        if kind == "forced" and number:
            optimizer = jd.dynamics.catapults(
                rate, apply=model.apply, x=task.x, loss=jd.losses.mse, ratio=config.jump, level=config.level, num=number,
                patience=config.patience,
            )  # fmt: skip
        start = {"learning_rate": lambda _: rate, "relative_rate": lambda _: 2 * rate / critical}
        records = [jd.record(jd.at([0]), dim="start", **start)]
        if is_rare:
            step = {"training": jd.probes.Loss(), "batch": BatchStep(rate)}
            records.append(jd.record(jd.every(1), dim="event", **step))
        else:
            kernel: dict[str, Any] = {"kernel": Kernel()} if descent in watched else {}
            records.append(jd.record(jd.every(1), loss=jd.probes.Loss(), **kernel))
        if kind == "forced":
            truth = jd.geometry.agop(task.target, task.x_test)
            looks = {
                "train": jd.probes.Loss(),
                "test": jd.probes.TestLoss(),
                "alignment": jd.probes.AGOPAlignment(task.x_test, to=truth),
                "raises": lambda snapshot: snapshot.optimizer_state.num_raised if number else jnp.zeros((), jnp.int32),
            }
            records.append(jd.record(jd.every(config.every), dim="look", **looks))
            if number:
                records.append(jd.record(jd.at([config.steps]), dim="end", curvatures=Curvatures(config.raises)))
        return jd.Training(
            model, task, optimizer, steps=config.many_steps if is_rare else config.steps, key=key, params0=params0, sampler=sampler,
            record=tuple(records),
        )  # fmt: skip

    return one, {"descent": list(made)}, {"seed": config.first_seed + np.arange(config.seeds)}


def descents(config: Config) -> dict[str, tuple[str, int]]:
    """`{name: (kind, number of raises or batch size)}`."""
    return (
        {"catapult": ("catapult", 0)}
        | {f"forced {num}": ("forced", num) for num in range(config.raises + 1)}
        | {f"b={size}": ("batch", size) for size in config.batch_sizes}
        | {f"rare b={size}": ("rare", size) for size in config.batch_sizes}
    )


def traced(config: Config) -> list[str]:
    """The descents whose kernel is followed."""
    return ["catapult", f"forced {config.raises}", *(f"b={size}" for size in config.batch_sizes)]


def _calibrated(config: Config, model: jd.Model, params0: Any, task: Any, sampler: Any, key: Any) -> Any:
    """The rate of a rare descent: `margin` times a quantile of the critical rates of batches at the start."""
    key = jd.dynamics.batch_key(key)

    def critical(step: Any) -> Any:
        return jd.theory.batch_critical_learning_rate(
            model.apply, params0, task, loss=jd.losses.mse, sampler=sampler, key=key, step=step
        )

    return config.margin * jnp.quantile(jax.lax.map(critical, jnp.arange(CALIBRATION)), config.share)
