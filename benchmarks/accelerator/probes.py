"""What do probes cost beside the training that they look at?"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from benchmarks.accelerator.section import Row, Setting, attempts
from benchmarks.ensemble.programmes import Sweep, in_turn, ratio

GOAL = {"NTKNorm, every ten steps": 1.2}


def costs(setting: Setting) -> Iterator[Row]:
    """Seconds of a sweep with one probe over those of the sweep without; the losses at the end agree."""
    n, width, members, steps, rounds = (16, 8, 2, 20, 1) if setting.tiny else (256, 256, 8, 200, 5)
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=64, n=n)
    model = jd.models.mlp((64, width, width, 1), activation=jnp.tanh)

    def sweep(*records: Any) -> Sweep:
        end = jd.record(jd.at([steps]), dim="end", final=jd.probes.Loss())

        def run(seed: Any) -> jd.Training:
            record = (end, *records)
            return jd.Training(model, task, optax.sgd(0.1), steps=steps, key=jax.random.key(seed), record=record)

        return Sweep(run, {"seed": np.arange(members)})

    probes = {
        "Loss, every step": jd.record(jd.every(1), probe=jd.probes.Loss()),
        "NTKNorm, every ten steps": jd.record(jd.every(10), probe=jd.probes.NTKNorm(task.x)),
        "Sharpness, every ten steps": jd.record(jd.every(10), probe=jd.probes.Sharpness()),
        "HessianSpectrum(4), every ten steps": jd.record(jd.every(10), probe=jd.probes.HessianSpectrum(4)),
    }
    if setting.tiny:
        del probes["Sharpness, every ten steps"]  # the spectrum runs the same code
    without = sweep()
    expected = without()["final"]

    def cost(name: str, record: Any) -> Row:
        beside = sweep(record)
        (setting.folder / f"probes-{name.split(',')[0]}.hlo").write_text(beside.programme.compiled[1].as_text())
        np.testing.assert_allclose(beside()["final"], expected, rtol=1e-3)
        times = in_turn({"with": beside, "without": without}, {}, rounds)
        found = {"with / without": ratio(times, "with", "without"), "ms without": 1e3 * min(times["without"])}
        return found | {
            "compile s": beside.compile_seconds,
            "times": times,
            **({"goal": GOAL[name]} if name in GOAL else {}),
        }

    yield from attempts({name: partial(cost, name, record) for name, record in probes.items()})
