"""Run an experiment until its claims are decided: seeds double from look to look, and the verdicts stay honest under the repeated looks.

The looks are fixed beforehand (`analysis.looks.plan`): the seeds of the configuration, twice, four times, … as many. Every interval of look
k has the level 1 − alpha_k, and a claim that is supported or not supported at a look keeps that verdict; from the second look on only
the cases that open claims need are computed, where the experiment can tell (`Experiment.narrow`). A claim whose estimate has no
interval (a worst member, an identity) speaks of the runs made: it is judged again on all of them at every look and keeps nothing open.

The forecast of the seeds that an open claim needs takes the estimate as it stands and an interval whose ends come closer like 1/√seeds,
at the critical value of the last look. It is no promise: near the bound it is large and uncertain, and where brackets of a grid are what
is wide, more seeds do not help.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxdyn.analysis.claims import Claim, Verdict
    from jaxdyn.analysis.looks import Plan
else:  # nothing heavy until a run
    Claim = Verdict = Plan = Any

HOPELESS = 10.0
"""A claim that would take more than so many times the budget is given up."""


@dataclass(frozen=True)
class Look:
    """What was known at a look.

    Attributes:
        number: the look, from 1.
        plan: all looks.
        seeds: members that were judged.
        seconds: since the beginning.
        decided: claims decided so far, with their cases.
        needed: what is still open, with the seeds it is forecast to need: infinite where no number is enough, NaN where the estimate
            is none.
        hours: what those would take beyond the seeds at hand.
        hopeless: of the open, those beyond ten times the budget.
        ending: why the run ends here; empty where it goes on.
    """

    number: int
    plan: Plan
    seeds: int
    seconds: float
    decided: tuple[str, ...]
    needed: Mapping[str, float]
    hours: Mapping[str, float]
    hopeless: tuple[str, ...]
    ending: str

    def __str__(self) -> str:
        alpha = self.plan.nominal[self.number - 1]
        lines = [
            f"look {self.number} of {len(self.plan.sizes)}: {self.seeds} seeds, {self.seconds:.0f} s, nominal error {alpha:.2g}; "
            f"{len(self.decided)} decided, {len(self.needed)} open"
        ]
        for id, seeds in self.needed.items():
            if math.isnan(seeds):
                words = "its estimate or interval is not a number, which seeds alone may not mend"
            elif math.isinf(seeds):
                words = "the estimate lies on the bound or the interval is endless: no number of seeds is forecast"
            else:
                beyond = f", more than {HOPELESS:g} times the budget" if id in self.hopeless else ""
                words = f"needs about {_round(seeds)} seeds, {self.hours[id]:.2g} h more{beyond}"
            lines.append(f"  open {id}: {words}")
        return "\n".join([*lines, *([f"ends: {self.ending}"] if self.ending else [])])


@dataclass(frozen=True)
class Decided:
    """What `decide` found.

    Attributes:
        dataset: of the last look at every case; what later looks added for open claims alone is in the store.
        verdicts: of every claim and case; the note says at which look it fell.
        looks: all that were taken.
    """

    dataset: Any
    verdicts: list[Verdict]
    looks: tuple[Look, ...]


def decide(
    experiment: Any,
    config: Any,
    *,
    hours: float,
    store: Any = None,
    looks: int = 4,
    spending: str = "obrien-fleming",
    field: str = "seeds",
    progress: Any = None,
    report: Callable[[Look], None] = print,
    clock: Callable[[], float] = time.monotonic,
) -> Decided:
    """Add seeds until every claim is decided, the looks are over, or the budget is.

    Args:
        experiment: an `Experiment`.
        config: its configuration; its seeds are those of the first look.
        hours: budget. The first look is taken in any case; a further one where its forecast fits, by the seconds a seed of the dearest
            look so far, or of the last one where it had fewer cases: what a store held already counts as nothing until a look computes.
        store: path of a zarr store that grows; without one, every look computes all of its seeds again.
        looks: how many there are at most; the seeds double from one to the next.
        spending: how the error of 5 % is spent over the looks, as in `analysis.looks.plan`.
        field: the field of the configuration that holds the number of seeds.
        progress: see `jd.sweep`.
        report: called with every look.
        clock: seconds.

    Returns:
        The dataset, the verdicts and the looks.

    Raises:
        ValueError: for a configuration without seeds, a budget that is not positive, or fewer than one look.
    """
    import numpy as np

    from jaxdyn.analysis import levels
    from jaxdyn.analysis.claims import judge
    from jaxdyn.analysis.looks import plan

    first = getattr(config, field, None)
    if not isinstance(first, int):
        raise ValueError(
            f"The configuration of {experiment.name!r} has no number of seeds in a field `{field}`, so that none can be added; "
            f"its fields are {', '.join(one.name for one in dataclasses.fields(config))}."
        )
    if not hours > 0:
        raise ValueError(f"`hours` is the budget, above 0, but is {hours}.")
    if looks < 1:
        raise ValueError(f"`looks` is at least 1, but is {looks}.")
    planned = plan([first * 2**k for k in range(looks)], spending=spending)
    latest: dict[str, Verdict] = {}
    kept: dict[str, Verdict] = {}
    taken: list[Look] = []
    whole, last = None, config
    needed: dict[str, float] = {}
    began, before, cost = clock(), 0, 0.0  # cost: seconds a seed
    while True:
        number = len(taken) + 1
        seeds, alpha = planned.sizes[number - 1], planned.nominal[number - 1]
        part = experiment.narrow(last, needed) if taken and experiment.narrow else last
        here = dataclasses.replace(part, **{field: seeds})
        started = clock()
        dataset = experiment.run(here, store=store, progress=progress)
        with levels.significance(alpha), np.errstate(over="ignore"):  # the end of a wide interval of logarithms
            found = judge(experiment.intervals(here, dataset.load()), experiment.claims)
        now = clock()
        measured = (now - started) / (seeds - before if store is not None else seeds)
        cost, last = max(cost, measured) if part == last else measured, part
        whole = dataset if part == config else whole
        latest |= {one.id: kept.get(one.id) or _noted(one, planned, number) for one in found}
        verdicts = list(latest.values())
        kept |= {one.id: one for one in verdicts if _is_settled(one)}
        needed = {one.id: _needed(one, experiment.claims, planned, number) for one in verdicts if _is_open(one)}
        price = {id: _hours(num, cost, seeds if store is not None else 0) for id, num in needed.items()}
        hopeless = tuple(id for id, price_ in price.items() if HOPELESS * hours < price_)
        look = Look(number, planned, seeds, now - began, tuple(kept), needed, price, hopeless, "")
        if number < looks:
            following = planned.sizes[number]
            seconds = cost * (following - seeds if store is not None else following)
            ending = _ending(look, seconds, 3600 * hours)
        else:
            ending = "every claim is decided" if not needed else f"this was the last of the {looks} looks planned"
        taken.append(dataclasses.replace(look, ending=ending))
        report(taken[-1])
        if ending:
            return Decided(whole, verdicts, tuple(taken))
        before = seeds


def _ending(look: Look, following: float, budget: float) -> str:
    """Why a run ends before its last look; empty where it goes on."""
    if not look.needed:
        return "every claim is decided"
    if len(look.hopeless) == len(look.needed):
        return f"what is open needs more than {HOPELESS:g} times the budget"
    if look.seconds + following > budget:
        return f"the next look would take {following:.0f} s, and {max(budget - look.seconds, 0):.0f} s of the budget are left"
    return ""


def _hours(needed: float, cost: float, done: int) -> float:
    return cost * max(needed - done, 0.0) / 3600 if math.isfinite(needed) else needed


def _is_open(one: Verdict) -> bool:
    return one.verdict == "inconclusive"


def _is_settled(one: Verdict) -> bool:
    return not _is_open(one) and one.low < one.high  # an exact number is judged anew at every look


def _noted(one: Verdict, planned: Plan, number: int) -> Verdict:
    """With the look in the note, and the level of its interval."""
    alpha, b = planned.nominal[number - 1], planned.critical[number - 1]
    what = "decided at" if _is_settled(one) else "open at" if _is_open(one) else "no interval, as of"
    level = f"interval of level 1 − {alpha:.2g} (|Z| ≥ {b:.3g}, {planned.spending} spending of {planned.alpha:g})"
    note = f"{what} look {number} of {len(planned.sizes)}, {planned.sizes[number - 1]} seeds; {level}"
    return dataclasses.replace(one, note="; ".join(filter(None, (one.note, note))))


def _needed(one: Verdict, claims: tuple[Claim, ...], planned: Plan, number: int) -> float:
    """The seeds at which the interval about the same estimate, its ends closer like 1/√seeds, would decide."""
    from scipy.stats import t

    from jaxdyn.analysis.claims import find

    claim = find(one.id, claims)
    assert claim is not None
    if any(map(math.isnan, (one.estimate, one.low, one.high))):
        return math.nan
    (least, most), value = claim.criterion.ends, one.estimate
    below, above = value - one.low, one.high - value  # reach of the interval
    if least <= value <= most:
        ratios = [
            (reach, room) for reach, room in ((above, most - value), (below, value - least)) if math.isfinite(room)
        ]
    else:
        ratios = [(above, least - value) if value < least else (below, value - most)]
    if any(room <= 0 or not math.isfinite(reach) for reach, room in ratios):
        return math.inf
    seeds = planned.sizes[number - 1]
    shrunk = planned.critical[-1] / float(t.isf(planned.nominal[number - 1] / 2, seeds - 1))
    return seeds * max((reach * shrunk / room) ** 2 for reach, room in ratios)


def _round(seeds: float) -> str:
    """Two digits are all that a forecast has."""
    digits = max(0, math.floor(math.log10(max(seeds, 1))) - 1)
    return f"{math.ceil(seeds / 10**digits) * 10**digits:,}".replace(",", " ")
