"""The event study: every step of a rare descent, how super-critical its batch was, and whether the training loss jumped in it.

Everything is computed seed by seed. With J_k jumps, S_k super-critical batches and N_k steps in block k of a run, the *excess* is
P(jump | ρ > 1) − P(jump | ρ ≤ 1); the *placebo* is its mean over all ways of shuffling ρ within the blocks, which is exact without
shuffling: Σ_k J_k S_k / N_k jumps fall on super-critical batches then. Slopes are of least squares on deviations from the block's
means, and need no placebo.
"""

from typing import Any, NamedTuple

import numpy as np

JUMP = 1.1
"""A loss that grows by this factor in a step has jumped."""

BLOCK = 50
"""Steps that are close in time: over fifty λ_max(K) and the loss drift little, and there are super-critical batches among them."""

SEEN = 1e-6
"""Steps from a lower training loss are left out, where float32 rounds."""

BINS = 4
"""Bins of ρ below 1, and as many above."""


class Events(NamedTuple):
    """The steps of the runs of one batch size, NaN where a step does not count.

    Attributes:
        ratio: ρ = η/η_crit(X_b), [seed, step].
        growth: log of the training loss after the step over that before, [seed, step].
        batch: the same of the batch's own loss, [seed, step].
    """

    ratio: np.ndarray
    growth: np.ndarray
    batch: np.ndarray


class Curve(NamedTuple):
    """What follows from a batch, in bins of ρ; rows are seeds.

    Attributes:
        middle: median ρ of each bin, [bin].
        number: steps in it, of all seeds, [bin].
        jumps: share of steps with a jump, [seed, bin].
        placebo: its mean over all shuffles of ρ within blocks, [seed, bin].
        growth: mean log growth of the training loss, [seed, bin].
        batch: of the batch's own, [seed, bin].
    """

    middle: np.ndarray
    number: np.ndarray
    jumps: np.ndarray
    placebo: np.ndarray
    growth: np.ndarray
    batch: np.ndarray


def of(dataset: Any, size: int) -> Events:
    """The events of one batch size; steps of runs that diverged do not count."""
    here = dataset.sel(descent=f"rare b={size}")
    here = here.where(here["diverged_at"] < 0)
    training, ratio, batch = (
        here[name].transpose("seed", "event").values.astype(float)
        for name in ("training", "batch_ratio", "batch_growth")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log(training[:, 1:] / training[:, :-1])
    found = ratio[:, :-1], growth, batch[:, :-1]
    is_seen = (training[:, :-1] > SEEN) & np.all([np.isfinite(one) for one in found], axis=0)
    return Events(*(np.where(is_seen, one, np.nan) for one in found))


def excess(events: Events) -> tuple[np.ndarray, np.ndarray]:
    """P(jump | ρ > 1) − P(jump | ρ ≤ 1) of every seed, and its placebo, each [seed]; NaN for a seed without steps of both kinds."""
    is_seen, jumps = np.isfinite(events.ratio), is_jump(events)
    is_super = events.ratio > 1
    expected = _spread(jumps, is_seen)

    def difference(values: np.ndarray) -> np.ndarray:
        return _mean(values, is_super) - _mean(values, is_seen & ~is_super)

    return difference(jumps), difference(expected)


def slope(events: Events, values: np.ndarray) -> np.ndarray:
    """Least-squares slope of values [seed, step] on ρ within blocks, [seed]."""
    is_seen = np.isfinite(events.ratio)
    x, y = (np.where(is_seen, one - _spread(one, is_seen), 0.0) for one in (events.ratio, values))
    square = (x**2).sum(axis=1)
    return np.divide((x * y).sum(axis=1), square, out=np.full(len(x), np.nan), where=square > 0)


def share(events: Events) -> np.ndarray:
    """Share of super-critical batches, [seed]."""
    return _mean((events.ratio > 1).astype(float), np.isfinite(events.ratio))


def is_jump(events: Events) -> np.ndarray:
    """1 where the training loss jumps in a step, else 0, [seed, step]."""
    return (events.growth > np.log(JUMP)).astype(float)


def curve(events: Events) -> Curve:
    """The dose and the response, in bins with equal numbers of steps on either side of ρ = 1."""
    is_seen = np.isfinite(events.ratio)
    ratios = events.ratio[is_seen]
    sides = [one for one in (ratios[ratios <= 1], ratios[ratios > 1]) if len(one)]
    inner = [np.quantile(one, np.linspace(0, 1, BINS + 1)[1:-1]) for one in sides]
    edges = np.concatenate([inner[0], *([[1.0], inner[1]] if len(sides) == 2 else [])])
    place = np.where(is_seen, np.searchsorted(edges, events.ratio), -1)
    masks = [place == i for i in range(len(edges) + 1)]
    jumps = is_jump(events)
    columns = (jumps, _spread(jumps, is_seen), events.growth, events.batch)
    return Curve(
        np.array([np.median(events.ratio[mask]) if mask.any() else np.nan for mask in masks]),
        np.array([mask.sum() for mask in masks]),
        *(np.stack([_mean(values, mask) for mask in masks], axis=1) for values in columns),
    )


def _spread(values: np.ndarray, is_seen: np.ndarray) -> np.ndarray:
    """At every step the mean of its block, over the steps that count."""
    block = np.arange(values.shape[1]) // BLOCK
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    total = np.add.reduceat(np.where(is_seen, values, 0.0), starts, axis=1)
    number = np.add.reduceat(is_seen.astype(float), starts, axis=1)
    means: np.ndarray = total / np.maximum(number, 1)
    return means[:, block]


def _mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean over the marked steps of each seed, [seed]; NaN where there is none."""
    number = mask.sum(axis=1)
    total = np.where(mask, values, 0.0).sum(axis=1)
    return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)
