"""A made-up dataset of the spikes experiment, on which every claim is true or false, and the numbers of the seeds planted in it."""

import dataclasses
import json

import numpy as np
import xarray as xr
from experiments import planting

from jaxdyn.experiments.spikes import probes, sweep

TOY = sweep.Config((4,), 3, 12, 4, 12, 10, 5, 16, 6, 1, first_seed=5)
FAKE = dataclasses.replace(TOY, seeds=5, raises=2, steps=80, many_steps=1000)
SEEDS, START = np.arange(5), np.exp(np.arange(5.0))  # seeds' levels of λ_max are far apart


def planted(size=1.0, sharing=10):
    """A dataset on which every claim is true, or with `size` −1 false, and the numbers of the seeds that are planted in it.

    Each spike of the traced descents peaks at 8 with a rest that is a seed's own, and λ_max changes across it by a seed's own factor. In
    each block of 50 steps `sharing` batches are super-critical, and growth is a line in ρ with a slope of the seed's own.
    """
    is_true = size > 0
    names, step = list(sweep.descents(FAKE)), np.arange(FAKE.steps + 1)
    rests = (0.12 if is_true else 2.0) * np.exp(planting.members(0.0, 5, 0.1))
    falls, gains = (size * planting.members(mean, 5, 0.02) for mean in (-0.2, 0.3))
    slopes = {name: size * planting.members(mean, 5, 0.1) for name, mean in (("training", 2.0), ("batch", 5.0))}
    shape = (len(names), 5)

    loss, rest = np.full((*shape, len(step)), 0.5), np.full((*shape, len(step)), 0.1)
    for start in (20, 50):
        loss[..., start : start + 3] = [5.0, 8.0, 5.0]
        rest[..., start + 1] = rests
    heights = np.exp(planting.members(np.log(30.0 if is_true else 1.5), 5, 0.1))
    loss[names.index("forced 1")] = 0.5
    loss[names.index("forced 1"), :, 4] = 100.0  # before the raise
    loss[names.index("forced 1"), :, 70] = 0.5 * heights
    norm = START[:, None] * np.exp(falls[:, None] * ((step >= 22).astype(float) + (step >= 52)))
    curvatures = START[:, None] * np.exp(np.outer(falls, [0, 1]))

    rng, blocks = np.random.default_rng(0), 20
    is_super = rng.permuted(np.broadcast_to(np.arange(50) < sharing, (5, blocks, 50)), axis=-1)
    ratio = np.where(is_super, 1.05, 0.7) + 0.1 * rng.random(is_super.shape)
    within = ratio - ratio.mean(axis=-1, keepdims=True)
    growth = (slopes["training"][:, None, None] * within).reshape(5, -1)
    drift = 0.3 * rng.normal(size=(5, blocks, 1))
    batch = (slopes["batch"][:, None, None] * within + drift).reshape(5, -1)

    look = step[::2]
    arm = np.array([int(name.split()[1]) if name.startswith("forced") else np.nan for name in names])[:, None, None]
    train = np.exp(-0.1 * look + 0.03 * arm) * np.ones((*shape, 1))
    alignment = SEEDS[:, None] + gains[:, None] * arm + 0.01 * np.log(train)
    test = np.exp(SEEDS[:, None] - gains[:, None] * arm) * np.ones(len(look))
    train[..., 2], alignment[..., 2], test[..., 2] = 0.01, 7.0, 7.0  # down for a moment, before the raises
    raises = np.where(look >= 10, arm, 0 * arm) * np.ones((*shape, 1))

    def rare(values):
        full = np.full((*shape, 1001), np.nan)
        full[names.index("rare b=4")] = values
        return ("descent", "seed", "event"), full

    def along(name, values):
        return ("descent", "seed", name), values

    traced = np.isin(names, sweep.traced(FAKE))[:, None, None]
    parts = np.repeat(np.where(traced, loss - rest, np.nan)[..., None], len(probes.SUBSPACES), axis=-1)
    parts[..., -1] = loss  # in P≤10 lies all
    data = {
        "loss": along("step", loss),
        "kernel_top": (("descent", "seed", "step", "subspace"), parts),
        "kernel_norm": along("step", np.where(traced, norm, np.nan)),
        "kernel_residual": along("step", np.where(traced, 1e-7, np.nan) * np.ones_like(loss)),
        "training": rare(np.exp(np.pad(growth.cumsum(axis=-1), ((0, 0), (1, 0))))),
        "batch_ratio": rare(np.pad(ratio.reshape(5, -1), ((0, 0), (0, 1)), constant_values=2.0)),
        "batch_growth": rare(np.pad(batch, ((0, 0), (0, 1)))),
        "train": along("look", train),
        "alignment": along("look", alignment),
        "test": along("look", test),
        "raises": along("look", raises),
        "curvatures": (("descent", "seed", "end", "raise"), np.broadcast_to(curvatures[None, :, None], (*shape, 1, 2))),
        "diverged_at": (("descent", "seed"), np.full(shape, -1)),
    }
    coords = {"descent": names, "seed": 5 + SEEDS, "step": step, "event": np.arange(1001), "look": look}
    fake = xr.Dataset(data, coords, {"config": json.dumps(dataclasses.asdict(FAKE))})
    numbers = {f"C2.1/{name}": 1 - rests / 8 for name in sweep.traced(FAKE)}
    numbers |= {f"C2.1b/{name}": _geometric(rests / 0.1) for name in sweep.traced(FAKE)}
    numbers |= dict.fromkeys(("C2.3/catapult", "C2.3/forced 2", "C2.2c/b=4", "C2.3b/2"), falls)
    numbers |= {"C2.2/dose/b=4": slopes["training"], "C2.2/batch/b=4": slopes["batch"]}
    numbers |= {"C2.2/share/b=4": sharing / 50, "C2.2/events/b=4": float(5 * blocks * min(sharing, 50 - sharing) // 4)}
    own = counted(growth, ratio.reshape(5, -1))
    numbers |= {
        "C2.2/b=4": own,
        "C2.2/placebo/b=4": own,
    }  # every block has as many of both kinds: shuffled, there is no difference
    for num in (1, 2):
        numbers |= {f"C2.5/alignment/{num}": gains, f"C2.5/test/{num}": -gains}
    numbers |= {"C2.5/catapult/1": _geometric(heights), "C2.5/catapult/2": 16.0}
    return fake, numbers


def _geometric(values):
    return tuple(np.exp(planting.mean_interval(np.log(values))))


def counted(growth, ratio):
    """P(jump | ρ > 1) − P(jump | ρ ≤ 1) by loops, [seed]."""
    found = []
    for one, rho in zip(growth, ratio, strict=True):
        hit = {True: [], False: []}
        for g, r in zip(one, rho, strict=True):
            hit[bool(r > 1)].append(np.exp(g) > 1.1)
        found.append(np.mean(hit[True]) - np.mean(hit[False]))
    return np.array(found)
