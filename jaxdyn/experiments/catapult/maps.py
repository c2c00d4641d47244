"""Runs beside the exact map of one example."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdyn as jd


def error(here: Any, *, steps: int, c: float) -> float:
    """The largest error of the exact map of one example, over the largest value of the run, at all records of all runs.

    Args:
        here: the dataset of one case.
        steps: of the run.
        c: constant of the loss.
    """
    here = here.transpose("rate", "seed", ...)
    start, first = here.isel(start=0), here.isel(probe_step=0)
    with jax.enable_x64(True):
        lr, coupling, target, output, kernel = (
            jnp.asarray(one.transpose("rate", "seed", ...).values, float)
            for one in (
                start["learning_rate"], start["coupling"], start["target"], first["state_output"], first["state_kernel"],
            )
        )  # fmt: skip
        step = jd.theory.catapult.example_map(lr[:, :, None], coupling=coupling, y=target, c=c)
        state = jd.theory.catapult.Example(output, kernel)
        path = jax.jit(lambda state: jd.theory.catapult.trajectory(step, state, steps=steps))(state)
    errors = []
    for predicted, name in ((path.output, "state_output"), (path.kernel, "state_kernel")):
        expected = np.asarray(predicted)[here["probe_step"].values]  # [t, rate, seed, 2]
        recorded = here[name].transpose("probe_step", "rate", "seed", ...).values
        errors.append(np.max(np.abs(expected - recorded) / np.abs(expected).max(axis=(0, -1), keepdims=True)))
    return float(max(errors))
