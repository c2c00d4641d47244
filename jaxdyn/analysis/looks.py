r"""Group-sequential looks: intervals that stay honest when growing data are judged several times.

Data that are judged at K looks, each at 95 %, and that stop where a verdict falls, err more often than 5 %. Here the number of looks
and the information fractions t_1 < … < t_K = 1 (seeds over the seeds of the last look) are fixed beforehand, and the error alpha is
spent over them by a function of t (Lan and DeMets):

| spending | two-sided error spent up to t |
|---|---|
| `obrien-fleming` | 4 − 4 Φ(z_{alpha/4}/√t): hardly anything early, the last look near alpha |
| `pocock` | alpha · log(1 + (e − 1) t): about alike at all looks |

The critical value b_k makes |Z| pass b_k for the first time at look k with the probability spent there, Z_k = B(t_k)/√t_k, B Brownian
motion: the mean of independent members up to there, over its standard error. The density of B inside the bounds goes from look to
look by numerical integration (Armitage, McPherson and Rowe). With Student's t, or any other interval, look k takes the nominal
level 1 − alpha_k, alpha_k = 2 − 2 Φ(b_k) (the significance-level approach of Jennison and Turnbull, section 3.8).

The intervals of all looks hold the true number at once with probability 1 − alpha, per claim: whatever verdict falls at whatever
look, and also where a run ends early because nothing is left to decide or time is out. The verdicts of an experiment are not corrected
for their number. Measured at 8, 16, 32 and 64 members, share of ensembles in which the interval of some look misses:

| numbers | Student's t, `obrien-fleming` / `pocock` | `scaling.mean_interval`, likewise |
|---|---|---|
| normal | 5.2 / 5.1 % | 4.9 / 5.6 % |
| log-normal, σ = 0.5 | 6.3 / 8.9 % | 6.3 / 7.7 % |
| log-normal, σ = 1 | 11.8 / 21.0 % | 9.0 / 12.4 % |

(40 000 and 1000 ensembles, Monte-Carlo error 0.1 and 0.7 %). Early looks at strong skewness are what errs: logarithms first.

References:
    K. Lan, D. DeMets, Biometrika 70, 1983. C. Jennison, B. Turnbull, "Group Sequential Methods", 2000, chapters 3, 7, 19.
    P. O'Brien, T. Fleming, Biometrics 35, 1979. S. Pocock, Biometrika 64, 1977.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxdyn.analysis.levels import ALPHA

FAR = 9.0
"""Standard deviations beyond which the density of B is nothing."""

NODES = 12
"""Gauss-Legendre nodes of the density for each standard deviation of a step that half of its range has; twice as many change nothing."""


@dataclass(frozen=True)
class Plan:
    """The looks, made by `plan`.

    Attributes:
        sizes: members at each look.
        spending: how the error is spent.
        alpha: two-sided error of all looks together.
        spent: error spent up to each look.
        critical: the critical values b_k of |Z|.
        nominal: the alpha_k of each look: take its intervals within `levels.significance(alpha_k)`.
    """

    sizes: tuple[int, ...]
    spending: str
    alpha: float
    spent: tuple[float, ...]
    critical: tuple[float, ...]
    nominal: tuple[float, ...]

    def __str__(self) -> str:
        rows = ", ".join(f"{size}: {alpha:.2g}" for size, alpha in zip(self.sizes, self.nominal, strict=True))
        return f"{len(self.sizes)} looks, {self.spending} spending of {self.alpha:g}; seeds: nominal error {rows}"


def plan(sizes: Sequence[int], *, alpha: float = ALPHA, spending: str = "obrien-fleming") -> Plan:
    """Looks at growing data, with the level of each.

    Args:
        sizes: members at each look, growing.
        alpha: two-sided error of all looks together.
        spending: `obrien-fleming` or `pocock`.

    Raises:
        ValueError: for sizes that do not grow, an alpha outside (0, 1), or another spending function.

    Example:
        >>> [round(number, 4) for number in plan([8, 16, 32, 64]).nominal]
        [0.0, 0.0, 0.003, 0.049]
        >>> print(plan([8, 16, 32, 64], spending="pocock"))
        4 looks, pocock spending of 0.05; seeds: nominal error 8: 0.0097, 16: 0.011, 32: 0.017, 64: 0.026
    """
    counts = tuple(int(size) for size in sizes)
    if not counts or counts[0] < 2 or any(b <= a for a, b in itertools.pairwise(counts)):
        raise ValueError(f"`sizes` are the members at each look, at least 2 and growing, but are {list(sizes)}.")
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` is the error of all looks together, between 0 and 1, but is {alpha}.")
    return _planned(counts, alpha, spending)


@functools.cache
def _planned(counts: tuple[int, ...], alpha: float, spending: str) -> Plan:
    from scipy.special import ndtr

    fractions = np.array(counts) / counts[-1]
    spent = _spending(spending)(fractions, alpha)
    critical = boundary(fractions, spent)
    nominal = tuple(float(2 * ndtr(-b)) for b in critical)
    return Plan(counts, spending, alpha, tuple(map(float, spent)), critical, nominal)


def boundary(fractions: Any, spent: Any) -> tuple[float, ...]:
    """The critical values of |Z| that spend a given error.

    Args:
        fractions: information fractions t_k, growing, [k].
        spent: two-sided error spent up to each, growing, [k].

    Returns:
        b_k, [k].
    """
    from scipy.optimize import brentq

    found = []
    inside = _Inside(0.0, np.zeros(1), np.ones(1))
    for now, part in zip(np.asarray(fractions, float), np.diff(spent, prepend=0.0), strict=True):

        def excess(b: float, now: float = now, part: float = part, inside: _Inside = inside) -> float:
            return math.log(max(inside.leaving(now, b), 1e-300)) - math.log(part)

        found.append(float(brentq(excess, 0.0, 37.0, xtol=1e-10)))
        inside = inside.staying(now, found[-1])
    return tuple(found)


def crossing(fractions: Any, critical: Any) -> np.ndarray:
    """Probabilities that |Z| passes its critical value for the first time at each look, [k].

    Args:
        fractions: information fractions t_k, growing; only their ratios matter, [k].
        critical: b_k, [k].

    Example:
        >>> bool(abs(crossing([0.2, 0.4, 0.6, 0.8, 1.0], [2.413] * 5).sum() - 0.05) < 1e-4)  # Pocock's constant for 5 looks
        True
    """
    found = []
    inside = _Inside(0.0, np.zeros(1), np.ones(1))
    for now, b in zip(np.asarray(fractions, float), critical, strict=True):
        found.append(inside.leaving(now, b))
        inside = inside.staying(now, b)
    return np.array(found)


class _Inside(NamedTuple):
    """The density of B at a time, without what left the bounds at a look: its nodes, and its values times their weights."""

    time: float
    nodes: np.ndarray
    density: np.ndarray

    def leaving(self, now: float, b: float) -> float:
        """The probability to stay inside up to here and to be outside ±b √now then."""
        from scipy.special import ndtr

        step, end = math.sqrt(now - self.time), b * math.sqrt(now)
        return float(np.sum(self.density * (ndtr((self.nodes - end) / step) + ndtr(-(self.nodes + end) / step))))

    def staying(self, now: float, b: float) -> "_Inside":
        """The density inside ±b √now then."""
        step, end = math.sqrt(now - self.time), min(b, FAR) * math.sqrt(now)
        nodes, weights = _legendre(max(4 * NODES, math.ceil(NODES * end / step)))
        kernel = np.exp(-0.5 * ((end * nodes[:, None] - self.nodes) / step) ** 2) / (step * math.sqrt(2 * math.pi))
        return _Inside(now, end * nodes, end * weights * np.sum(kernel * self.density, axis=1))


_legendre = functools.cache(np.polynomial.legendre.leggauss)


def _spending(name: str) -> Callable[[np.ndarray, float], np.ndarray]:
    from scipy.special import ndtr, ndtri

    functions: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
        "obrien-fleming": lambda t, alpha: 4 * ndtr(ndtri(alpha / 4) / np.sqrt(t)),
        "pocock": lambda t, alpha: alpha * np.log1p((np.e - 1) * t),
    }
    if name not in functions:
        raise ValueError(f"`spending` is {' or '.join(functions)}, but is {name!r}.")
    return functions[name]
