r"""Spikes of the training loss as catapults: where they live, what precedes them, and what they do to the kernel.

Networks in NTK scaling (ReLU, one output) learn two classes of scikit-learn's digits with the loss (1/n) Σ (f − y)². With the
critical rate 2/(c λ_max(K_0)) of each member, there are these ways down:

| descent | what it is |
|---|---|
| catapult | gradient descent at `high` times the critical rate |
| raised | gradient descent at `rate` times it, raised to `jump` times that of the moment when the loss is down (`dynamics.catapults`) |
| b=… | minibatches, at `rate` times it |

At every step: the loss, its parts in the span of the s leading eigenvectors of the *current* kernel, s in `SUBSPACES`, λ_max(K_t), and
the critical rate of the batch that enters next. A spike is what `spikes.find` finds with `RULE` on the loss of the whole training set.

Criteria, fixed before any run. A seed's number is the mean over its spikes; intervals are over seeds, those without a spike left out.

| claim | criterion |
|---|---|
| C2.1 share of P_{≤5} in the peak of a spike | interval at least 0.9 |
| C2.1b growth of P_{>5} from the record before a spike to its peak, geometric mean | interval at most 2, the factor of `RULE` |
| C2.2 probability that the loss grows by a tenth, on super-critical steps minus on others (b=…, loss above the floor) | interval above 0 |
| C2.2b share of super-critical batches from before a spike to its peak, minus their share in the run | interval above 0 |
| C2.2c change of log λ_max(K) across a spike (b=…) | interval below 0 |
| C2.3 change of log λ_max(K) across a spike (gradient descent) | interval below 0 |
| C2.3b log of λ_max(K) at a raise over that at the raise before | interval below 0 |

Above and below 0 mean by 1e-6. C2.2 tells little where nearly all batches are super-critical: the statement names their share. After a toy
run (24 images) in which more than half of the batches of 8 were, and before any other, the laptop preset took batches of 64 in place of 16.

References:
    Zhu, Liu, Radhakrishnan, Belkin, arXiv 2306.04815. Its numbers could not be read; rule, rates and sizes are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures
from jaxdyn.analysis import spikes as detector
from jaxdyn.analysis.claims import Verdict, at_least, at_most, measured
from jaxdyn.analysis.scaling import mean_interval
from jaxdyn.experiments import _configuration
from jaxdyn.geometry import subspace

SUBSPACES = (1, 2, 5, 10)
"""Numbers of leading eigenvectors; claims are about the third."""

SMALL = 5

RULE: dict[str, Any] = {"factor": 2.0, "window": 30, "floor": 0.02, "rearm": 1.1}
"""What a spike is."""

GRID: dict[str, Any] = {"factor": [1.5, 2.0, 4.0], "window": [15, 30, 60], "floor": [0.02], "rearm": [1.1]}
"""The rules that the counts are held against."""

NETWORKS = ("fully connected", "convolutional", "wide ResNet", "ViT")
GROWTH, ABOVE = 1.1, 1e-6
SOURCE = "arXiv 2306.04815"


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment.

    Attributes:
        networks: some of `NETWORKS`.
        batch_sizes: of stochastic descent.
        seeds: number of initialisations and streams of minibatches.
        num_train: training images.
        width: hidden units; eight times the channels, and a quarter of the tokens' MLP.
        rate: in units of the critical rate.
        high: the same, of the descent with one catapult.
        jump: the rate after a raise, in units of the critical rate of that moment.
        level: the loss below which the rate is raised.
        raises: how often.
        steps: of every descent.
    """

    networks: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    seeds: int
    num_train: int
    width: int
    rate: float
    high: float
    jump: float
    level: float
    raises: int
    steps: int


PRESETS = {
    "ci": Config(("fully connected",), (8,), 8, 32, 128, 0.9, 1.5, 1.4, 0.2, 2, 120),
    "laptop": Config(("fully connected", "convolutional"), (8, 32, 64), 8, 128, 256, 0.9, 1.5, 1.4, 0.2, 3, 400),
    "paper": Config(NETWORKS, (8, 16, 32, 64), 16, 256, 2048, 0.9, 1.5, 1.4, 0.2, 4, 2000),
}


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Run the sweep.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (network, descent, seed, …): along `step` (all of them) `loss`, `kernel_top` [subspace], `kernel_norm`
        (λ_max(K)), and `critical_rate` (of the batch) and, where it changes, `rate`; along `start` `learning_rate` and `relative_rate` (η
        c λ_max(K_0)); along `end`, of raised descents, `curvatures` [raise].
    """
    function, loop, vmap = ensemble(config)
    attrs = _configuration.attributes("spikes", config)
    return jd.sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs)


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes: what `jd.sweep` and `jd.ensemble.plan` take."""
    task = jd.tasks.digits(classes=(3, 8), n=config.num_train, n_test=0, shape=(8, 8, 1))

    def one(network: str, descent: str, seed: Any) -> jd.Training:
        key, model = jax.random.key(seed), model_of(config, network)
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
        learning_rate = (config.high if descent == "catapult" else config.rate) * critical
        optimizer: Any = optax.sgd(learning_rate)
        start = {
            "learning_rate": lambda snapshot: learning_rate,
            "relative_rate": lambda snapshot: 2 * learning_rate / critical,
        }
        records = [jd.record(jd.at([0]), dim="start", **start)]
        always: dict[str, Any] = {"loss": jd.probes.Loss(), "kernel": Kernel()}
        if descent == "raised":
            optimizer = jd.dynamics.catapults(
                learning_rate, apply=model.apply, x=task.x, loss=jd.losses.mse, ratio=config.jump, level=config.level, num=config.raises
            )  # fmt: skip
            always["rate"] = lambda snapshot: snapshot.optimizer_state.rate
            records.append(jd.record(jd.at([config.steps]), dim="end", curvatures=Curvatures()))
        elif descent != "catapult":
            always["critical_rate"] = jd.probes.BatchCriticalRate()
        records.append(jd.record(jd.every(1), **always))
        size = descents(config)[descent]
        return jd.Training(
            model,
            task,
            optimizer,
            steps=config.steps,
            key=key,
            params0=params0,
            sampler=jd.full_batch if size == config.num_train else jd.minibatch(size),
            record=tuple(records),
        )

    loop = {"network": list(config.networks), "descent": list(descents(config))}
    return one, loop, {"seed": np.arange(config.seeds)}


def descents(config: Config) -> dict[str, int]:
    """`{name: batch size}`."""
    n = config.num_train
    return {"catapult": n, "raised": n} | {f"b={size}": size for size in config.batch_sizes}


def model_of(config: Config, network: str) -> jd.Model:
    """One of the networks."""
    shape, channels, relu = (8, 8, 1), max(2, config.width // 8), jax.nn.relu
    if network == "fully connected":
        return jd.models.mlp((64, config.width, config.width, 1), activation=relu)
    if network == "convolutional":
        return jd.models.conv(shape, (channels, channels), 1, activation=relu, pool=jd.models.flatten)
    if network == "wide ResNet":
        norm = jd.models.group_norm(1)
        return jd.models.wide_resnet(shape, 1, widen=max(1, channels // 16), normalise=norm, channels=min(16, channels))
    if network == "ViT":
        return jd.models.vit(shape, 1, patch=2, width=4 * channels, heads=4, depth=4)
    raise ValueError(f"`networks` are some of {', '.join(NETWORKS)}, but one is {network!r}.")


@dataclass(frozen=True)
class Kernel:
    """The loss in the leading eigenspaces of the current kernel, `_top` [subspace], and λ_max of the kernel, `_norm`."""

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {"top": ("subspace",), "norm": ()}

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """One decomposition serves all subspaces."""
        x, y = snapshot.task.x, snapshot.task.y
        kernel = jd.geometry.ntk_blocks(snapshot.apply, snapshot.params, x)[:, :, 0, 0]
        residual = (snapshot.apply(snapshot.params, x) - y)[:, 0]
        vectors = subspace.eigenspace(kernel, max(SUBSPACES))
        parts = jnp.cumsum((vectors.T @ residual) ** 2) * (jd.losses.mse.c(len(x), 1) / 2)
        leading = vectors[:, 0]
        return {"top": parts[np.array(SUBSPACES) - 1], "norm": leading @ (kernel @ leading)}


@dataclass(frozen=True)
class Curvatures:
    """λ_max(K) at each raise of the rate, [raise]."""

    dims: ClassVar[tuple[str, ...]] = ("raise",)

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """As the schedule measured it."""
        return snapshot.optimizer_state.curvatures


def annotated(dataset: Any, network: str, descent: str) -> Any:
    """The spikes of one descent of one network, a row each; see `analysis.spikes.annotate`.

    Returns:
        Its dataset, and beside it `growth` of the complement and `share` [subspace, spike] of the peak in every subspace.
    """
    import xarray as xr

    here = dataset.sel(network=network, descent=descent)
    here = here.where(here["diverged_at"] < 0)
    whole = here["loss"]
    more: dict[str, Any] = {}
    if "critical_rate" in here and bool(here["critical_rate"].notnull().any()):
        rate = here["learning_rate"].isel(start=0, drop=True)
        more = {"learning_rate": rate, "critical_rate": here["critical_rate"].drop_vars("step").rename(step="record")}
    shares, found = [], None
    for position in range(len(SUBSPACES)):
        top = here["kernel_top"].isel(subspace=position, drop=True)
        rest = (whole - top).clip(min=0)
        found = detector.annotate(
            whole, **RULE, top=_apart(top), rest=_apart(rest), curvature=_apart(here["kernel_norm"]), **more
        )
        shares.append(found["top_share"].values)
        if SUBSPACES[position] == SMALL:
            beside = detector.annotate(whole, **RULE, curvature=_apart(rest))
            growth = (1 - found["top_share"]) * found["peak"] / beside["curvature_before"]
    assert found is not None
    return found.assign(
        growth=growth, share=xr.DataArray(np.array(shares), dims=("subspace", "spike"), coords={"subspace": list(SUBSPACES)})
    )  # fmt: skip


def _apart(array: Any) -> Any:
    """Along a time of its own name, as `annotate` wants what is not the loss."""
    return array.rename(step="record")


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on C2.1 to C2.3 for every network and descent."""
    config, data = _config(dataset), dataset.load()
    verdicts = []
    for network in config.networks:
        for descent in descents(config):
            name, words = f"{network}/{descent}", f"({network}, {descent})"
            rows, num = annotated(data, network, descent), config.seeds
            share = _by_seed(rows["share"].sel(subspace=SMALL), rows, num)
            verdicts.append(
                _judge(at_least, f"C2.1/{name}", f"The peak of a spike lies in P≤{SMALL} {words}", share, 0.9)
            )
            growth = _by_seed(np.log(rows["growth"].clip(1e-12)), rows, num)
            verdicts.append(
                _judge(at_most, f"C2.1b/{name}", f"P>{SMALL} does not grow in a spike {words}", growth, RULE["factor"], np.exp)
            )  # fmt: skip
            change = _by_seed(np.log(rows["curvature_after"] / rows["curvature_before"]), rows, num)
            claim = "C2.3" if descent in ("catapult", "raised") else "C2.2c"
            verdicts.append(
                _judge(at_most, f"{claim}/{name}", f"log λ_max(K) falls across a spike {words}", change, -ABOVE)
            )
            if descent == "raised":
                curvatures = (
                    data["curvatures"].sel(network=network, descent=descent).isel(end=0).values
                )  # [seed, raise]
                for i in range(1, config.raises):
                    ratio = np.log(curvatures[:, i] / curvatures[:, i - 1])
                    statement = f"λ_max(K) at raise {i + 1} is below that at raise {i} {words}"
                    verdicts.append(_judge(at_most, f"C2.3b/{name}/{i + 1}", statement, ratio, -ABOVE))
            elif descent != "catapult":
                verdicts += _super_critical(data.sel(network=network, descent=descent), rows, name, words, num)
    return sorted(verdicts, key=lambda verdict: verdict.id)


def _super_critical(here: Any, rows: Any, name: str, words: str, num: int) -> list[Verdict]:
    """What super-critical batches do, step by step and before spikes."""
    loss = here["loss"].transpose("seed", "step").values
    rate = here["learning_rate"].isel(start=0).values[:, None]
    is_super = (rate > here["critical_rate"].transpose("seed", "step").values)[:, :-1]
    is_seen = loss[:, :-1] > RULE["floor"]
    is_jump = loss[:, 1:] > GROWTH * loss[:, :-1]

    def probability(event: np.ndarray, among: np.ndarray) -> np.ndarray:
        total = among.sum(axis=1)
        return np.divide((event & among).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)

    base = probability(is_super, is_seen)
    excess = probability(is_jump, is_seen & is_super) - probability(is_jump, is_seen & ~is_super)
    before = _by_seed(rows["super_critical_share"], rows, num) - base
    share = f"{np.nanmean(base):.1%} of the steps"
    return [
        _judge(at_least, f"C2.2/{name}", f"The loss jumps more often on super-critical batches, {share} {words}", excess, ABOVE),
        _judge(at_least, f"C2.2b/{name}", f"Super-critical batches are more frequent before a peak, {share} {words}", before, ABOVE),
    ]  # fmt: skip


def _by_seed(values: Any, rows: Any, num: int) -> np.ndarray:
    """The mean over the spikes of each seed, NaN left out; NaN for a seed without."""
    numbers, seed = np.asarray(values.values, float), rows["seed"].values.astype(int)
    is_there = np.isfinite(numbers)
    total = np.bincount(seed[is_there], minlength=num)
    summed = np.bincount(seed[is_there], numbers[is_there], minlength=num)
    return np.divide(summed, total, out=np.full(num, np.nan), where=total > 0)


def _judge(judge: Any, name: str, statement: str, sample: np.ndarray, bound: float, scale: Any = float) -> Verdict:
    numbers = sample[np.isfinite(sample)]
    ends = tuple(float(scale(end)) for end in mean_interval(numbers)) if len(numbers) >= 2 else (np.nan,) * 3
    few = "" if len(numbers) == len(sample) else f"; {len(sample) - len(numbers)} of {len(sample)} seeds left out"
    return judge(
        name,
        statement=f"{statement}{few}.",
        source=SOURCE,
        bound=bound,
        **measured(ends),
    )


def summary(dataset: Any) -> list[tuple[str, ...]]:
    """Counts under the rules of `GRID` and the share of each subspace in the peaks, as rows of strings under a row of headings."""
    config, data = _config(dataset), dataset.load()
    rules = [(factor, window) for factor in GRID["factor"] for window in GRID["window"]]
    heading = (
        "network",
        "descent",
        *(f"P≤{s} of the peak" for s in SUBSPACES),
        *(f"spikes ×{f:g}, {w}" for f, w in rules),
    )
    rows: list[tuple[str, ...]] = [heading]
    for network in config.networks:
        for descent in descents(config):
            found = annotated(data, network, descent)
            shares = [_by_seed(found["share"].sel(subspace=s), found, config.seeds) for s in SUBSPACES]
            cells = [f"{np.nanmean(one):.3f}" if np.isfinite(one).any() else "-" for one in shares]
            counts = detector.sensitivity(data["loss"].sel(network=network, descent=descent, drop=True), **GRID)
            means = counts.mean("seed").isel(floor=0, rearm=0)
            cells += [f"{float(means.sel(factor=f, window=w)):.2g}" for f, w in rules]
            rows.append((network, descent, *cells))
    return rows


def figure(dataset: Any) -> Any:
    """One run of each descent of each network: the loss with its spikes, its parts, λ_max(K), and where batches were super-critical."""
    with figures.style():
        return _draw(dataset.load())


def _draw(data: Any) -> Any:
    config = _config(data)
    shown = ["catapult", "raised", f"b={config.batch_sizes[0]}", f"b={config.batch_sizes[-1]}"]
    shown = list(dict.fromkeys(shown))
    page, axes = figures.figure(2 * len(config.networks), len(shown), size=(3.5, 2.2))
    colors = figures.COLORS
    for row, network in enumerate(config.networks):
        for column, descent in enumerate(shown):
            here = data.sel(network=network, descent=descent).isel(seed=0)
            upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
            step, loss = here["step"].values, here["loss"].values
            top = here["kernel_top"].isel(subspace=SUBSPACES.index(SMALL)).values
            starts = detector.find(here["loss"], **RULE).values
            upper.plot(step, loss, color=colors[6], lw=0.9, label="loss")
            upper.plot(step, top, color=colors[0], lw=0.8, label=f"in P≤{SMALL}")
            upper.plot(step, np.clip(loss - top, 1e-12, None), color=colors[2], lw=0.8, label=f"in P>{SMALL}")
            upper.plot(step[starts], loss[starts], "v", color=colors[1], ms=4, mew=0, label="a spike starts")
            upper.set_yscale("log")
            upper.set_ylim(bottom=max(1e-6, float(np.nanmin(loss)) / 10))
            upper.set_title(f"{network}, {descent}")
            lower.plot(step, here["kernel_norm"].values, color=colors[3], lw=0.9)
            lower.set_title("λ_max(K)")
            if "critical_rate" in here and bool(here["critical_rate"].notnull().any()):
                is_super = here["learning_rate"].isel(start=0).values > here["critical_rate"].values
                where = np.full(int(is_super.sum()), lower.get_ylim()[0])
                lower.plot(step[is_super], where, "|", color=colors[1], ms=5, label="super-critical batch")
                lower.legend(loc="best")
            lower.set_xlabel("step")
    axes[0, 0].legend(loc="best")
    page.suptitle(f"Spikes: digits 3 and 8, n = {config.num_train}, one of {config.seeds} seeds")
    return page


def _config(dataset: Any) -> Config:
    return _configuration.restored(dataset, Config)
