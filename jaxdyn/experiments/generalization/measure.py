"""The best test loss of every member, and what the best rates below and above the critical one reach."""

import json
from typing import Any, NamedTuple

import numpy as np

from jaxdyn.analysis import estimates
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments.generalization.sweep import CRITICAL, MODELS, Config


def intervals(_: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of C1.7 and C6.3, panel by panel."""
    found = curves(dataset)
    measured: dict[str, Any] = {}
    for panel in found["panel"].values.tolist():
        here = found.sel(panel=panel)
        for model in ("network", "quadratic"):
            differences = (_logs(here, model) - _logs(here, "linear")).sel(rate=_below(here))
            worst = abs(differences.mean("seed")).idxmax("rate").item()
            interval = np.exp(mean_interval(differences.sel(rate=worst).values))
            measured[f"C1.7/{panel}/same/{model}"] = estimates.estimate(interval, f"at η_rel = {worst:g}")
        for model in MODELS:
            below, above, note = _compared(_logs(here, model), np.exp)
            measured[f"C1.7/{panel}/{model}"] = estimates.estimate(np.exp(mean_interval(above - below)), note)
        errors = 1.0 - here["accuracy"].sel(model="network").transpose("rate", "seed").astype(float)
        below, above, note = _compared(errors, lambda error: 1 - error)
        measured[f"C6.3/{panel}"] = estimates.estimate(mean_interval(below - above), note)
    return measured


def summary(_: Config, dataset: Any) -> list[tuple[str, ...]]:
    """Best test losses below and above critical, and the data that were left out, under a row of headings."""
    found = curves(dataset)
    rows = [("panel", "model", "best test loss")]
    for panel in found["panel"].values.tolist():
        rows += [(panel, model, _compared(_logs(found.sel(panel=panel), model), np.exp)[2]) for model in MODELS]
    return rows + [(name, "left out", why) for name, why in json.loads(dataset.attrs.get("left_out", "{}")).items()]


def curves(dataset: Any) -> Any:
    """Every member at its best.

    Returns:
        An `xarray.Dataset` with dims (panel, model, rate, seed): `test_loss` (the least along the run), `accuracy` (there),
        `step` (when), `train_loss` (at the end).
    """
    import xarray as xr

    names = ("loss", "test_loss", "accuracy")
    closed = {name: dataset[f"linear_{name}"].isel(start=0, drop=True).rename(time="step") for name in names}
    whole = xr.Dataset({name: dataset[name].fillna(closed[name].assign_coords(step=dataset["step"])) for name in names})
    losses = whole["test_loss"].where(np.isfinite(whole["test_loss"]), np.inf)
    place = losses.argmin("step")
    best = {
        "test_loss": losses.isel(step=place),
        "accuracy": whole["accuracy"].isel(step=place),
        "when": whole["step"][place],
        "train_loss": whole["loss"].isel(step=-1),
    }
    found = xr.Dataset({name: array.drop_vars("step", errors="ignore") for name, array in best.items()})
    return found.rename(when="step").transpose("panel", "model", "rate", "seed").assign_attrs(dataset.attrs)


class _Best(NamedTuple):
    """What each seed reaches at the rate that the others choose, [s], and the rate that all together choose."""

    values: Any
    rate: float


def _best(array: Any) -> _Best:
    """Leave-one-out choice of the least mean; `array` is (rate, seed)."""
    values = array.transpose("rate", "seed").values.astype(float)
    values = np.where(np.isfinite(values), values, np.inf)
    others = values.sum(axis=1, keepdims=True) - values
    others = np.where(np.isfinite(others), others, np.inf)
    chosen = values[others.argmin(axis=0), np.arange(values.shape[1])]
    return _Best(chosen, float(array["rate"].values[values.mean(axis=1).argmin()]))


def _compared(array: Any, back: Any) -> tuple[Any, Any, str]:
    """What the best rates below and above reach, one number a seed, and both in words, each with its rate; `array` is (rate, seed)."""
    below, above = (_best(array.sel(rate=rates)) for rates in (_below(array), _above(array)))
    means = array.mean("seed")
    better = int((means.sel(rate=_above(array)) < means.sel(rate=_below(array)).min()).sum())
    words = f"{_text(back, below)} below, {_text(back, above)} above; {better} of {len(_above(array))} rates above are better"
    return below.values, above.values, words


def _text(back: Any, best: _Best) -> str:
    middle, *ends = (float(back(number)) for number in mean_interval(best.values))
    return f"{middle:.3g} [{min(ends):.3g}, {max(ends):.3g}] at η_rel = {best.rate:g}"


def _logs(here: Any, model: str) -> Any:
    return np.log(here["test_loss"].sel(model=model, drop=True).transpose("rate", "seed").astype(float))


def _below(here: Any) -> list[float]:
    return [float(rate) for rate in here["rate"].values if rate < CRITICAL]


def _above(here: Any) -> list[float]:
    return [float(rate) for rate in here["rate"].values if rate > CRITICAL]
