"""The spikes of every traced descent, the event study of the rare ones, and forced descents at equal training loss."""

from typing import Any

import numpy as np

from jaxdyn.analysis import estimates
from jaxdyn.analysis import spikes as detector
from jaxdyn.experiments.spikes import events
from jaxdyn.experiments.spikes.probes import SUBSPACES
from jaxdyn.experiments.spikes.sweep import Config, traced

SMALL = 5
"""The subspace of the claims."""

RULE: dict[str, Any] = {"factor": 2.0, "window": 30, "floor": 1e-3, "rearm": 1.1}
"""What a spike is."""

GRID: dict[str, Any] = {"factor": [1.5, 2.0, 4.0], "window": [15, 30, 60], "floor": [1e-3], "rearm": [1.1]}
"""The rules that the counts are held against."""


def intervals(config: Config, dataset: Any) -> dict[str, Any]:
    """Estimates of all claims."""
    measured: dict[str, Any] = {}
    for descent in traced(config):
        measured |= _spikes(config, dataset, descent)
    for size in config.batch_sizes:
        measured |= _events(dataset, size)
    return measured | _forced(config, dataset)


def _spikes(config: Config, dataset: Any, descent: str) -> dict[str, Any]:
    """C2.1, C2.1b, and C2.3 or C2.2c, of one descent."""
    rows = annotated(dataset, descent)
    share, growth, change = (
        by_seed(config, values, rows)
        for values in (
            rows["share"].sel(subspace=SMALL),
            np.log(rows["growth"].clip(1e-12)),
            np.log(rows["curvature_after"] / rows["curvature_before"]),
        )
    )
    spikes = f"{rows.sizes['spike']} spikes"
    off = float(dataset["kernel_residual"].where(dataset["diverged_at"] < 0).sel(descent=descent).max())
    falls = "C2.2c" if descent.startswith("b=") else "C2.3"
    return {
        f"C2.1/{descent}": estimates.estimate(
            estimates.mean(share), f"{spikes}; residual of P≤{SMALL} at most {off:.1g} λ_1"
        ),
        f"C2.1b/{descent}": estimates.estimate(estimates.geometric_mean(np.exp(growth)), spikes),
        f"{falls}/{descent}": estimates.estimate(estimates.mean(change), spikes),
    }


def _events(dataset: Any, size: int) -> dict[str, Any]:
    """C2.2 of one batch size."""
    found, case = events.of(dataset, size), f"b={size}"
    effect, placebo = events.excess(found)
    by_chance = estimates.mean(placebo)
    jumps = f"{int(events.is_jump(found).sum())} jumps in {int(np.isfinite(found.ratio).sum())} steps"
    return {
        f"C2.2/{case}": estimates.estimate(estimates.mean(effect), jumps),
        f"C2.2/placebo/{case}": estimates.estimate(
            estimates.mean(effect - placebo),
            f"the placebo's is {by_chance.value:.2g} [{by_chance.low:.2g}, {by_chance.high:.2g}]",
        ),
        f"C2.2/dose/{case}": estimates.mean(events.slope(found, found.growth)),
        f"C2.2/batch/{case}": estimates.mean(events.slope(found, found.batch)),
        f"C2.2/share/{case}": estimates.mean(events.share(found)),
        f"C2.2/events/{case}": float(events.curve(found).number.min()),
    }


def _forced(config: Config, dataset: Any) -> dict[str, Any]:
    """C2.3b and C2.5: what each raise adds."""
    found = matched(config, dataset)
    most = dataset["curvatures"].sel(descent=f"forced {config.raises}").isel(end=0).transpose("seed", "raise").values
    measured: dict[str, Any] = {}
    for num in range(1, config.raises + 1):
        more, fewer = f"forced {num}", f"forced {num - 1}"
        if num > 1:
            measured[f"C2.3b/{num}"] = estimates.mean(np.log(most[:, num - 1] / most[:, num - 2]))
        added = {
            "alignment": found["alignment"].sel(descent=more) - found["alignment"].sel(descent=fewer),
            "test": np.log(found["test"].sel(descent=more) / found["test"].sel(descent=fewer)),
        }
        measured |= {f"C2.5/{name}/{num}": estimates.mean(values.values) for name, values in added.items()}
        measured[f"C2.5/catapult/{num}"] = estimates.geometric_mean(heights(dataset, num))
    return measured


def heights(dataset: Any, num: int) -> np.ndarray:
    """The largest training loss from the last of `num` raises on, over the loss there, [seed]; NaN for a run without so many."""
    here = dataset.sel(descent=f"forced {num}")
    here = here.where(here["diverged_at"] < 0)
    is_raised = here["raises"] >= num
    since = here["look"].where(is_raised).min("look")
    loss = here["loss"].where(here["step"] >= since)
    at = here["loss"].where(here["step"] == since).max("step")
    found: np.ndarray = (loss.max("step") / at).values
    return found


def matched(config: Config, dataset: Any) -> Any:
    """Test loss and alignment of forced descents where their training loss comes down to `target`.

    That is between the first look with a training loss of at most `target`, all raises having taken place, after the last look with one
    above `level`, and the look before; both numbers are interpolated between the two along the log of the training loss.

    Returns:
        An `xarray.Dataset` with dims (descent, seed): `test`, `alignment`, `steps` (of the look); NaN for a run that does not get there.
    """
    import xarray as xr

    names = [f"forced {num}" for num in range(config.raises + 1)]
    here = dataset.sel(descent=names)
    here = here.where(here["diverged_at"] < 0)
    asked = xr.DataArray(np.arange(len(names)), dims="descent")
    train = here["train"].transpose("descent", "seed", "look").values.astype(float)
    position = np.arange(train.shape[-1])
    last = np.where(train > config.level, position, -1).max(axis=-1, keepdims=True)
    is_there = (train <= config.target) & (position > last)
    is_there &= (here["raises"] >= asked).transpose("descent", "seed", "look").values
    at = is_there.argmax(axis=-1)
    before = np.maximum(at - 1, 0)

    def look(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, where[..., None], axis=-1)[..., 0]

    high, low = np.log(look(train, before)), np.log(look(train, at))
    weight = np.divide(high - np.log(config.target), high - low, out=np.ones_like(high), where=high > low).clip(0, 1)
    weight = np.where(is_there.any(axis=-1), weight, np.nan)
    found = {"steps": here["look"].values[at] + 0 * weight}
    for name in ("test", "alignment"):
        values = here[name].transpose("descent", "seed", "look").values.astype(float)
        found[name] = (1 - weight) * look(values, before) + weight * look(values, at)
    dims = ("descent", "seed")
    return xr.Dataset({name: (dims, values) for name, values in found.items()}, {name: here[name] for name in dims})


def summary(config: Config, dataset: Any) -> list[tuple[str, ...]]:
    """Spikes under the rules of `GRID` and the share of each subspace in the peaks, as rows of strings under a row of headings."""
    rules = [(factor, window) for factor in GRID["factor"] for window in GRID["window"]]
    rows: list[tuple[str, ...]] = [
        ("descent", *(f"P≤{s} of the peak" for s in SUBSPACES), *(f"spikes ×{f:g}, {w}" for f, w in rules))
    ]
    for descent in traced(config):
        found = annotated(dataset, descent)
        shares = [by_seed(config, found["share"].sel(subspace=s), found) for s in SUBSPACES]
        cells = [f"{np.nanmean(one):.3f}" if np.isfinite(one).any() else "-" for one in shares]
        counts = detector.sensitivity(dataset["loss"].sel(descent=descent, drop=True), **GRID)
        means = counts.mean("seed").isel(floor=0, rearm=0)
        cells += [f"{float(means.sel(factor=f, window=w)):.2g}" for f, w in rules]
        rows.append((descent, *cells))
    return rows


def annotated(dataset: Any, descent: str) -> Any:
    """The spikes of a traced descent, a row each; see `analysis.spikes.annotate`.

    Returns:
        Its dataset, and beside it `growth` of the complement and `share` [subspace, spike] of the peak in every subspace.
    """
    import xarray as xr

    here = dataset.sel(descent=descent)
    here = here.where(here["diverged_at"] < 0)
    whole = here["loss"]
    shares, found, growth = [], None, None
    for position, num in enumerate(SUBSPACES):
        top = here["kernel_top"].isel(subspace=position, drop=True)
        rest = (whole - top).clip(min=0)
        found = detector.annotate(
            whole, **RULE, top=_apart(top), rest=_apart(rest), curvature=_apart(here["kernel_norm"])
        )
        shares.append(found["top_share"].values)
        if num == SMALL:
            beside = detector.annotate(whole, **RULE, curvature=_apart(rest))
            growth = (1 - found["top_share"]) * found["peak"] / beside["curvature_before"]
    assert found is not None
    return found.assign(
        growth=growth, share=xr.DataArray(np.array(shares), dims=("subspace", "spike"), coords={"subspace": list(SUBSPACES)})
    )  # fmt: skip


def by_seed(config: Config, values: Any, rows: Any) -> np.ndarray:
    """The mean over the spikes of each seed, NaN left out; NaN for a seed without, [seed]."""
    num, numbers = config.seeds, np.asarray(values.values, float)
    seed = rows["seed"].values.astype(int) - config.first_seed
    is_there = np.isfinite(numbers)
    total = np.bincount(seed[is_there], minlength=num)
    summed = np.bincount(seed[is_there], numbers[is_there], minlength=num)
    return np.divide(summed, total, out=np.full(num, np.nan), where=total > 0)


def _apart(array: Any) -> Any:
    """Along a time of its own name, as `annotate` wants what is not the loss."""
    return array.rename(step="record")
