"""Fully connected ReLU networks at relative rates on either side of 2."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd

EARLY = 50
"""As many first steps are looked at one by one."""


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    width: int  # of each of the three hidden layers
    seeds: int  # number of initialisations
    num_train: int  # training images
    num_test: int  # test images
    rates: tuple[float, ...]  # relative rates η λ_0, in order
    steps: int  # of gradient descent
    time: float  # t η λ_0 at the fixed physical time; `time`/`rates` steps must not exceed `steps`
    unit_gain: bool = False  # whether layers keep the second moment: g = √2 for ReLU, 1 otherwise
    first_seed: int = 0  # seeds are this and those that follow


RATES = (0.25, 0.5, 1.0, 1.5, 2.2, 2.6, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0)

PRESETS = {
    "ci": Config(64, 3, 64, 200, (0.5, 1.0, 1.5, 2.2, 2.6, 3.0, 3.5, 5.0, 8.0, 12.0), 200, 50.0),
    "laptop": Config(256, 8, 128, 500, RATES, 800, 200.0),
    "desk": Config(512, 16, 128, 500, RATES, 800, 200.0, unit_gain=True, first_seed=100),
    "paper": Config(2048, 8, 512, 1000, RATES, 8000, 80.0),
}


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes.

    The dataset has dims (rate, seed, …), `rate` the relative one η λ_0: along `step` (all of them) `loss`; along `probe_step` (the first
    50 steps, every horizon, and the end) `curvature` (λ_max of K, not normalised), `test_loss`, `accuracy`; along `start`
    `learning_rate` (absolute).

    Raises:
        ValueError: where the fixed time does not fit into the steps.
    """
    task, horizons = parity(config), horizon(config)
    if horizons.max() > config.steps:
        raise ValueError(
            f"At η_rel = {config.rates[0]:g} the time {config.time:g} takes {horizons.max()} steps, but `steps` is {config.steps}; "
            "raise it or lower `time`."
        )
    times = sorted({*range(min(EARLY, config.steps) + 1), *horizons.tolist(), config.steps})
    gain = jd.models.unit_gain(jax.nn.relu) if config.unit_gain else 1.0
    model = jd.models.mlp((64, config.width, config.width, config.width, 1), activation=jax.nn.relu, gain=gain)

    def one(rate: Any, seed: Any) -> jd.Training:
        key = jax.random.key(seed)
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.half_mean)
        learning_rate = rate / 2 * critical
        return jd.Training(
            model,
            task,
            optax.sgd(learning_rate),
            steps=config.steps,
            key=key,
            params0=params0,
            loss=jd.losses.half_mean,
            record=(
                jd.record(jd.every(1), loss=jd.probes.Loss()),
                jd.record(
                    jd.at(times), dim="probe_step", curvature=jd.probes.NTKNorm(task.x), test_loss=jd.probes.TestLoss(),
                    accuracy=jd.probes.Accuracy(),
                ),
                jd.record(jd.at([0]), dim="start", learning_rate=lambda _: learning_rate),
            ),
        )  # fmt: skip

    seeds = config.first_seed + np.arange(config.seeds)
    return one, {}, {"rate": np.asarray(config.rates, float), "seed": seeds}


def parity(config: Config) -> Any:
    """All ten digits, y = +1 for the even ones and −1 for the odd ones."""
    drawn = jd.tasks.digits(classes=tuple(range(10)), n=config.num_train, n_test=config.num_test, key=jax.random.key(0))
    signs = jnp.where(jnp.arange(10) % 2 == 0, 1.0, -1.0)[:, None]
    return jd.tasks.from_arrays(drawn.x, drawn.y @ signs, x_test=drawn.x_test, y_test=drawn.y_test @ signs)


def horizon(config: Config) -> np.ndarray:
    """Steps to the fixed physical time, for every rate."""
    return np.maximum(1, np.round(config.time / np.asarray(config.rates, float))).astype(int)
