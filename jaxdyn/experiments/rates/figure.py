"""The figure of the rates experiment."""

from typing import Any

import numpy as np

from jaxdyn.analysis import figures
from jaxdyn.experiments.rates.measure import PREDICTED, largest, maximal, predicted, spread
from jaxdyn.experiments.rates.sweep import EXPANSIONS, Config, cases

WORDS = {
    "peak": "peak loss at ratio 3",
    "curvature": "final curvature at ratio 3",
    "test": "final test loss at ratio 3",
    "test_below": "final test loss below the critical rate",
}


def draw(config: Config, dataset: Any) -> Any:
    """Maximal rates of all cases with the lines 2, 4 and 12; network over quadratic model against the width."""
    found, ratio, known = maximal(dataset), predicted(config, dataset), cases(config)
    rates = {name: one for name, case in known.items() if np.isfinite((one := largest(found, case)).mean)}
    page, axes = figures.figure(1, 2, size=(5.6, 0.22 * len(rates) + 1.6))
    left, right = axes[0]
    for row, (name, one) in enumerate(rates.items()):
        color = figures.COLORS[list(EXPANSIONS).index(known[name].model)]
        left.plot([max(one.low, 0.5), min(one.high, 2 * config.top)], [row, row], color=color)
        left.plot(one.mean, row, ">" if np.isinf(one.high) else "o", color=color, ms=4)
    for line in (2.0, 4.0, 12.0):
        left.axvline(line, color="0.7", lw=0.8, zorder=0)
    left.set_xscale("log", base=2)
    left.set_xticks(ticks := [2, 4, 8, 16, 32], [str(tick) for tick in ticks])
    left.set_yticks(range(len(rates)), list(rates), fontsize="xx-small")
    left.invert_yaxis()
    left.set_xlabel("maximal rate, ratio to 1/(c λ_max(K_0))")
    for index, name in enumerate(PREDICTED.values()):
        middle, low, high = np.array([spread(ratio[name].sel(width=width))[:3] for width in config.widths]).T
        shift, reach = np.array(config.widths) * 1.04**index, [middle - low, high - middle]
        right.errorbar(shift, middle, reach, marker="o", ms=3, label=WORDS[name], color=figures.COLORS[index])
    right.axhline(1.0, color="0.7", lw=0.8, zorder=0)
    right.set_xscale("log", base=2)
    right.set_xlabel("width")
    right.set_title("network over quadratic model, one hidden layer of ReLU")
    right.legend(loc="lower left")
    figures.leave_room(right, len(PREDICTED))
    page.suptitle(f"{config.num_train} examples, {config.steps} steps, {config.seeds} seeds; > trains beyond the grid")
    return page
