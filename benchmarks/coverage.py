"""What do the 95 % intervals of `analysis` cover? True numbers are known, ensembles are drawn, and hits are counted.

| interval | the true number | what is drawn |
|---|---|---|
| `scaling.mean_interval` | the mean | a number a seed: of each kind of noise, or an accuracy in steps of 0.005 |
| `scaling.power_law` | the mean exponent | an exponent a seed of each kind, over five widths |
| `scaling.asymptotic_power_law` | -0.5 in y = x^-0.5 (1 + x^-1/2) | noise of 10 % in each value, of each kind |
| `estimates.share` | the probability, 0.9 or 0.99 | successes among the seeds |
| `brackets.geometric_mean` | the geometric mean | a boundary a seed of each kind, known to lie between two rates of a grid, 4 % apart |
| `association.ranking` | Spearman's ρ of the units, -0.89 or -0.48 | as many units as seeds, bivariate normal, little noise between seeds |
| `association.mediation` | the standardised total slope | six units a seed, noise of each kind |

| `looks`, `scaling.mean_interval` at 8, 16, 32 and 64 seeds | the mean, held at *every* look | a number a seed of each kind |

An interval holds the mean of the *distribution*; with 8 log-normal numbers no known one covers 95 %. No timing: NumPy alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.harness import write
from jaxdyn.analysis import association, brackets, estimates, levels, looks
from jaxdyn.analysis.scaling import asymptotic_power_law, mean_interval, power_law

WIDTHS = np.array([64.0, 128.0, 256.0, 512.0, 1024.0])

Draw = Callable[[np.random.Generator, Any], np.ndarray]

NOISE: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "log-normal": lambda rng, shape: (np.exp(rng.normal(size=shape)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e),
    "t, 3 degrees": lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3.0),
}
"""Noise of mean 0 and variance 1."""

STEP, GRID = 0.005, 0.04

LOOKS = (8, 16, 32, 64)


def main(*, quick: bool, path: Path | None) -> None:
    """Count, print the table and write the JSON."""
    rows = []
    several, once = (5, 20) if quick else (1000, 2000)
    cases = [(name, hits, seeds, once) for name, hits in _cases() for seeds in (8, 16)]
    cases += [(name, hits, LOOKS[-1], several) for name, hits in _sequences()]
    for name, hits, seeds, ensembles in cases:
        rng = np.random.default_rng(seeds)
        covered = np.mean([hits(rng, seeds) for _ in range(ensembles)])
        rows.append({"interval": name, "seeds": seeds, "coverage": float(covered), "ensembles": ensembles})
        print(f"{name:45} {seeds:3} seeds  {100 * covered:5.1f} %", flush=True)
    print(write("coverage", rows, path, nominal=0.95))


def _cases() -> list[tuple[str, Callable[[np.random.Generator, int], bool]]]:
    cases: list[tuple[str, Callable[[np.random.Generator, int], bool]]] = []
    for noise, draw in NOISE.items():
        cases.append((f"mean_interval, {noise}", lambda rng, n, d=draw: _holds(mean_interval(d(rng, n)), 0.0)))
    cases.append(("mean_interval, accuracies", lambda rng, n: _holds(mean_interval(_accuracies(rng, n)), 0.9)))
    for noise, draw in NOISE.items():
        cases.append((f"power_law, {noise}", lambda rng, n, d=draw: _exponent(rng, n, d)))
        cases.append((f"asymptotic_power_law, {noise}", lambda rng, n, d=draw: _asymptotic(rng, n, d)))
        cases.append((f"brackets.geometric_mean, {noise}", lambda rng, n, d=draw: _boundary(rng, n, d)))
    for p in (0.9, 0.99):
        cases.append((f"share, p = {p:g}", lambda rng, n, p=p: _holds(estimates.share(rng.uniform(size=n) < p), p)))
    for r in (-0.9, -0.5):
        cases.append((f"ranking, r = {r:g}", lambda rng, n, r=r: _ranking(rng, n, r)))
    for noise, draw in NOISE.items():
        cases.append((f"mediation, {noise}", lambda rng, n, d=draw: _mediation(rng, n, d)))
    return cases


def _sequences() -> list[tuple[str, Callable[[np.random.Generator, int], bool]]]:
    found: list[tuple[str, Callable[[np.random.Generator, int], bool]]] = []
    for spending in ("obrien-fleming", "pocock"):
        plan = looks.plan(LOOKS, spending=spending)
        for noise, draw in NOISE.items():
            found.append((f"looks, {spending}, {noise}", lambda rng, n, d=draw, p=plan: _at_every_look(p, d(rng, n))))
    return found


def _at_every_look(plan: looks.Plan, sample: np.ndarray) -> bool:
    for size, alpha in zip(plan.sizes, plan.nominal, strict=True):
        with levels.significance(alpha):
            if not _holds(mean_interval(sample[:size]), 0.0):
                return False
    return True


def _holds(interval: Any, true: float) -> bool:
    return bool(interval.low <= true <= interval.high)


def _accuracies(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Means of 200 images right with probability 0.9: few different values."""
    return rng.binomial(200, 0.9, size=seeds) * STEP


def _exponent(rng: np.random.Generator, seeds: int, draw: Draw) -> bool:
    exponents = -0.5 + 0.1 * draw(rng, seeds)
    values = WIDTHS[:, None] ** exponents[None, :]
    fit = power_law(
        xr.DataArray(values, dims=("width", "seed"), coords={"width": WIDTHS}), "width", over="seed", num_resamples=4000
    )
    return bool(fit.low <= -0.5 <= fit.high)


def _asymptotic(rng: np.random.Generator, seeds: int, draw: Draw) -> bool:
    law = WIDTHS**-0.5 * (1 + WIDTHS**-0.5)
    values = law[:, None] * np.exp(0.1 * draw(rng, (len(WIDTHS), seeds)))
    array = xr.DataArray(values, dims=("width", "seed"), coords={"width": WIDTHS})
    fit = asymptotic_power_law(array, "width", over="seed", num_resamples=4000)
    return bool(fit.low <= -0.5 <= fit.high)


def _boundary(rng: np.random.Generator, seeds: int, draw: Draw) -> bool:
    logs = np.log(4.0) + 0.1 * draw(rng, seeds)
    start = rng.uniform(0, GRID)  # the grid lies anywhere
    low = start + GRID * np.floor((logs - start) / GRID)
    return _holds(brackets.geometric_mean(np.exp(low), np.exp(low + GRID)), 4.0)


def _ranking(rng: np.random.Generator, seeds: int, r: float) -> bool:
    x = rng.normal(size=seeds)
    y = r * x + np.sqrt(1 - r**2) * rng.normal(size=seeds)
    noisy = [
        xr.DataArray(one[:, None] + 0.1 * rng.normal(size=(seeds, seeds)), dims=("unit", "seed")) for one in (x, y)
    ]
    found = association.ranking(*noisy, "unit", over="seed", num_resamples=1000)
    return _holds(found, 6 / np.pi * np.arcsin(r / 2))


def _mediation(rng: np.random.Generator, seeds: int, draw: Draw) -> bool:
    shape = (seeds, 6)
    s = draw(rng, shape)
    a, b = (0.8 * s + 0.6 * draw(rng, shape) for _ in range(2))
    arrays = [xr.DataArray(one, dims=("seed", "unit")) for one in (b, s, a)]
    found = association.mediation(arrays[0], exposure=arrays[1], mediator=arrays[2], over="seed", num_resamples=1000)
    return _holds(found.total, 0.8)
