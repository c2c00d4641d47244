"""Row (h): cost against members, width, steps and virtual devices, drawn; compilation apart, the least of three rounds."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ensemble.child import ask

FULL = {
    "members": [(64, r, 100) for r in (1, 2, 4, 8, 16, 32, 64)],
    "width": [(m, 8, 20) for m in (32, 64, 128, 256, 512, 1024)],
    "steps": [(64, 16, s) for s in (20, 50, 100, 200, 500)],
}
DEVICES = (1, 2, 4, 8)


def row(figure: Path) -> dict[str, Any]:
    """Measure and draw."""
    found: dict[str, Any] = {"row": "scaling"}
    for position, (name, sizes) in enumerate(FULL.items()):
        values = [size[("width", "members", "steps").index(name)] for size in sizes]
        found[name] = {"values": values, "seconds": ask("scaling", sizes=sizes, rounds=3)["seconds"], "panel": position}
    sizes = [(64, 64, 100)]
    seconds = [
        ask("scaling", devices=num, environment={"NPROC": "8"}, sizes=sizes, rounds=3)["seconds"][0] for num in DEVICES
    ]
    found["devices"] = {"values": list(DEVICES), "seconds": seconds, "panel": 3}
    for name in ("members", "steps"):  # the last doubling or so: 1 is linear
        values, seconds = found[name]["values"][-2:], found[name]["seconds"][-2:]
        found[f"{name}_exponent_at_the_end"] = float(np.log(seconds[1] / seconds[0]) / np.log(values[1] / values[0]))
    draw(found, figure)
    return found


def draw(found: dict[str, Any], figure: Path) -> None:
    """Four panels, both axes logarithmic."""
    import matplotlib as mpl
    import matplotlib.ticker

    mpl.use("agg")
    import matplotlib.pyplot as plt

    names = ("members", "width", "steps", "devices")
    labels = ("members (m = 64)", "width (8 members)", "steps (m = 64, 16 members)", "virtual CPU devices (2 cores)")
    canvas, axes = plt.subplots(1, 4, figsize=(14, 3.2), layout="constrained")
    for axis, name, label in zip(axes, names, labels, strict=True):
        values, seconds = np.asarray(found[name]["values"]), np.asarray(found[name]["seconds"])
        axis.loglog(values, seconds, "o-")
        if name in ("members", "steps"):
            axis.loglog(values, seconds[-1] * values / values[-1], ":", color="grey", label="linear")
            axis.legend(frameon=False)
        axis.set(xlabel=label, ylabel="seconds" if name == "members" else "")
        axis.set_xticks(values, labels=[str(value) for value in values])
        axis.set_xticks([], minor=True)
        axis.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        axis.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    canvas.savefig(figure, dpi=120)
    plt.close(canvas)
