"""Why gradient descent finds a zero of the loss: PL*, its constant, its rate, its ball.

With L = (c/2) ‖f − y‖², K the tangent kernel, μ = c min_t λ_min(K_t) and β the largest sharpness of a run, gradient descent with
η = `rate` / (c λ_max(K_0)) is held against the convergence theorem (`theory.pl`). Networks with one hidden layer of tanh learn two classes
of scikit-learn's digits, with targets 0.5 ± 0.4 so that a softplus output can take them too; beside them a random quadratic map of 60
parameters onto 8 outputs. μ and β are those of the path: what they make of the theorem is a stricter statement than its own, which takes
the ball.

Criteria, fixed before any run. Numbers without an interval are the worst over seeds, records and widths; records whose loss is below 1e-6
of the initial one do not count, since their residual is rounding in single precision.

| claim | networks | criterion |
|---|---|---|
| C5.0 the hypothesis η β ≤ 1 holds along the path | all trained | worst η β at most 1 |
| C5.1 ‖∇L‖² = c² rᵀ K r | all trained | worst relative difference at most 1e-3 |
| C5.1b ‖∇L‖²/(2L) ≥ c λ_min(K) | all trained | worst (ratio − c λ_min)/(c λ_max) at least -1e-5 |
| C5.2 L_t ≤ (1 − η μ)^t L_0 | all trained | worst log(L_t/L_0) / (t log(1 − η μ)) at least 1 |
| C5.2b the loss gets small | all trained | L_T/L_0 (at least 1e-12), geometric mean over seeds, worst width: 95 % interval below 0.01 |
| C5.3 ‖w_t − w_0‖ ≤ path ≤ R = 2 √(2 β L_0)/μ | all trained | worst path / R at most 1 |
| C5.4 more outputs than parameters: λ_min(K) = 0 | 15 parameters, 24 outputs | worst abs(λ_min)/λ_max at most 1e-5 |
| C5.5 E log κ(K) < 2 log(m/(m − n + 1)) + 5, Gaussian Jacobians | 8 × 8, 8 × 16, 8 × 128 | bound − mean: 95 % interval above 0 |
| C5.6 conditioning survives training the better the wider | tanh | max_t abs(λ_min(K_t)/λ_min(K_0) − 1): exponent below -0.4 |

C5.6 is what the stability bound λ_min(K) ≥ λ_min(K_0) − 2 n R sup‖∇f‖ sup‖H‖ and ‖H‖ = Õ(m^(-1/2)) imply.

References:
    Liu, Zhu, Belkin, arXiv 2003.00307. Zhu, Liu, Belkin, arXiv 2205.11786, section 4.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures
from jaxdyn.analysis.claims import Verdict, at_least, at_most, measured
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments import _configuration

SHAPES = ((8, 8), (8, 16), (8, 128))
"""Equations and parameters of the Gaussian Jacobians."""

FLOOR = 1e-6
"""Losses below this part of the initial one are rounding."""

SOURCE = "arXiv 2003.00307"


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    widths: tuple[int, ...]  # of the tanh networks; the largest is also that of the softplus output
    seeds: int  # number of initialisations
    num_train: int  # training images
    steps: int  # steps of gradient descent
    rate: float  # learning rate times c λ_max(K_0), at most 1 for η ≤ 1/β
    num_sharpness: int  # how many times the sharpness is measured
    draws: int  # Gaussian matrices a seed


PRESETS = {
    "ci": Config((32, 128, 512), 8, 12, 300, 0.5, 5, 50),
    "laptop": Config((64, 128, 256, 512, 1024), 8, 16, 2000, 0.5, 10, 500),
    "paper": Config((64, 256, 1024, 4096, 16384), 16, 32, 20000, 0.5, 20, 5000),
}


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Run the sweep.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (network, seed, …): along `step` (all of them) `loss`, `ratio`, `kernel`, `kernel_largest` (the ends of the
        kernel's spectrum), `identity` (relative difference of ‖∇L‖² and c² rᵀKr), `away`, `path`; along `probe_step`
        `sharpness`; along `start` `anchor`, `anchor_largest` (the ends of the kernel's spectrum at w0), `learning_rate`, and
        `log_condition` of the Gaussian kernels.
    """
    function, loop, vmap = ensemble(config)
    attrs = _configuration.attributes("pl", config)
    return jd.sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs)


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes: what `jd.sweep` and `jd.ensemble.plan` take."""
    digits = _digits(config)
    rng = np.random.default_rng(0)
    crowd = jd.tasks.from_arrays(jnp.asarray(rng.normal(size=(24, 4)), float), jnp.zeros((24, 1)))
    models: dict[str, jd.Model] = {}
    for width in config.widths:
        models[f"tanh{width}"] = jd.models.mlp((64, width, 1), activation=jnp.tanh)
    models["softplus"] = jd.models.mlp((64, max(config.widths), 1), activation=jnp.tanh, output=jax.nn.softplus)
    models["quadratic"] = jd.Model(lambda key: jnp.zeros(60), _quadratic_map)
    models["narrow"] = models["gaussian"] = jd.models.mlp((4, 3, 1), activation=jnp.tanh)

    def one(network: str, seed: Any) -> jd.Training:
        key, model = jax.random.key(seed), models[network]
        task = crowd if network in ("narrow", "gaussian") else digits
        task = _random_map(jax.random.fold_in(key, 1)) if network == "quadratic" else task
        params0 = model.init(key)
        critical = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse)
        learning_rate = config.rate / 2 * critical
        before: dict[str, Any] = {"anchor": jd.probes.Conditioning(), "learning_rate": lambda snapshot: learning_rate}
        if network == "gaussian":
            before = {"log_condition": _LogCondition(jax.random.fold_in(key, 2), config.draws)}
        return jd.Training(
            model,
            task,
            optax.sgd(learning_rate),
            steps=0 if network in ("narrow", "gaussian") else config.steps,
            key=key,
            params0=params0,
            record=(jd.record(jd.at([0]), dim="start", **before), *(_records(config) if _is_trained(network) else ())),
        )

    return one, {"network": list(models)}, {"seed": np.arange(config.seeds)}


def _records(config: Config) -> tuple[jd.dynamics.Record, ...]:
    def identity(snapshot: jd.Snapshot) -> Any:
        task = snapshot.task
        found = jd.theory.pl.gradient(snapshot.apply, snapshot.params, task.x, task.y, loss=snapshot.loss)
        return jnp.abs(found.squared - found.form) / found.squared

    every = jd.record(
        jd.every(1), loss=jd.probes.Loss(), ratio=jd.probes.PLRatio(), kernel=jd.probes.Conditioning(), identity=identity,
        away=jd.probes.Displacement(), path=jd.probes.PathLength(),
    )  # fmt: skip
    seldom = jd.record(
        jd.every(max(1, config.steps // config.num_sharpness)), dim="probe_step", sharpness=jd.probes.Sharpness()
    )
    return every, seldom


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _LogCondition:
    """Means of log κ(K) = 2 log κ(J) over Gaussian J of every one of `SHAPES`, [shape]."""

    key: Any
    draws: int = dataclasses.field(metadata={"static": True})
    dims = ("shape",)

    def __call__(self, snapshot: jd.Snapshot) -> Any:
        """From the singular values of J, which keep their accuracy where those of J Jᵀ lose it."""

        def mean(shape: tuple[int, int], key: Any) -> Any:
            singular = jnp.linalg.svd(jax.random.normal(key, (self.draws, *shape)), compute_uv=False)
            return jnp.mean(2 * jnp.log(singular[:, 0] / singular[:, -1]))

        keys = jax.random.split(self.key, len(SHAPES))
        return jnp.stack([mean(shape, key) for shape, key in zip(SHAPES, keys, strict=True)])


def _quadratic_map(params: Any, x: Any) -> Any:
    """F_i(w) = a_i·w + ½ wᵀA_i w, row i of x holding a_i and A_i."""
    dim = params.shape[0]
    squares = x[:, dim:].reshape(-1, dim, dim)
    return (x[:, :dim] @ params + 0.5 * jnp.einsum("p,npq,q->n", params, squares, params))[:, None]


def _random_map(key: Any, num: int = 8, dim: int = 60, bend: float = 0.1) -> Any:
    """Gaussian a_i, and A_i symmetric with ‖A_i‖ about `bend`; targets of norm about 1."""
    linear, square, target = (jax.random.fold_in(key, i) for i in range(3))
    squares = jax.random.normal(square, (num, dim, dim))
    squares = bend / (2 * np.sqrt(2 * dim)) * (squares + squares.transpose(0, 2, 1))
    x = jnp.concatenate([jax.random.normal(linear, (num, dim)), squares.reshape(num, -1)], axis=1)
    return jd.tasks.from_arrays(x, jax.random.normal(target, (num, 1)) / np.sqrt(num))


def measures(dataset: Any) -> Any:
    """What the claims are about, one number a member, for the trained networks.

    Returns:
        An `xarray.Dataset` with dims (network, seed): `stability` (η β), `identity`, `slack`, `speed`, `reached` (L_T/L_0, at least
        1e-12), `path` (over R), `drop` (max_t |λ_min(K_t)/λ_min(K_0) − 1|).
    """
    import xarray as xr

    config = _config(dataset)
    trained = [name for name in dataset["network"].values.tolist() if _is_trained(name)]
    data = dataset.sel(network=trained).load()
    c = xr.DataArray(
        [jd.losses.mse.c(8 if name == "quadratic" else config.num_train, 1) for name in trained], dims="network"
    )
    eta, loss0, step = data["learning_rate"].isel(start=0), data["loss"].isel(step=0, drop=True), data["step"]
    is_sound = data["loss"] >= FLOOR * loss0
    mu, beta = c * data["kernel"].min("step"), data["sharpness"].max("probe_step")
    radius = jd.theory.pl.radius(loss0, constant=mu, smoothness=beta)
    promised = step * np.log(jd.theory.pl.descent(1, learning_rate=eta, constant=mu))
    speed = np.log((data["loss"] / loss0).where(is_sound & (step > 0))) / promised.where(step > 0)
    slack = ((data["ratio"] - c * data["kernel"]) / (c * data["kernel_largest"])).where(is_sound)
    found = {
        "stability": eta * beta,
        "identity": data["identity"].where(is_sound).max("step"),
        "slack": slack.min("step"),
        "speed": speed.min("step"),
        "reached": (data["loss"].isel(step=-1, drop=True) / loss0).clip(1e-12),  # a loss may be 0 to rounding
        "path": data["path"].isel(step=-1, drop=True) / radius,
        "drop": np.abs(data["kernel"] / data["kernel"].isel(step=0) - 1).max("step"),
    }
    return xr.Dataset(found).drop_vars(["start"], errors="ignore")


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on C5.0 to C5.6."""
    found, config = measures(dataset), _config(dataset)
    groups = {"tanh": [f"tanh{width}" for width in config.widths], "softplus": ["softplus"], "quadratic": ["quadratic"]}
    verdicts = [one for name, members in groups.items() for one in _trained(name, found.sel(network=members))]
    narrow = dataset.sel(network="narrow").isel(start=0)
    singular = float(np.abs(narrow["anchor"] / narrow["anchor_largest"]).max())
    verdicts.append(
        at_most(
            "C5.4", statement="With more outputs than parameters the kernel is singular.", source=SOURCE, bound=1e-5,
            **measured(singular),
        )
    )  # fmt: skip
    conditions = dataset["log_condition"].sel(network="gaussian").isel(start=0)
    for (n, m), sample in zip(SHAPES, conditions.transpose("shape", "seed").values, strict=True):
        spare = mean_interval(jd.theory.pl.gaussian_condition_bound(n, m) - sample.astype(float))
        statement = (
            f"E log κ(K) of a Gaussian {n} × {m} Jacobian is below 2 log(m/(m−n+1)) + 5 (the bound minus the mean)."
        )
        verdicts.append(
            at_least(
                f"C5.5/{n}x{m}",
                statement=statement,
                source=SOURCE,
                bound=0.0,
                estimate=spare.mean,
                low=spare.low,
                high=spare.high,
            )
        )
    fit = power_law(_by_width(found["drop"], config), "width", over="seed")
    statement = "The relative change of λ_min(K) along training falls like m^(-1/2) or faster (tanh networks)."
    numbers = {"estimate": fit.exponent, "low": fit.low, "high": fit.high}
    verdicts.append(at_most("C5.6", statement=statement, source="arXiv 2205.11786, section 4", bound=-0.4, **numbers))
    return verdicts


def _trained(name: str, here: Any) -> list[Verdict]:
    logs = np.log(here["reached"].transpose("network", "seed").values.astype(float))
    worst_end = max((mean_interval(one) for one in logs), key=lambda one: one.high)
    reached = [float(np.exp(end)) for end in worst_end]

    def worst(claim: str, statement: str, number: Any, judge: Any, bound: float) -> Verdict:
        return judge(
            f"{claim}/{name}", statement=f"{statement} ({name}).", source=SOURCE, bound=bound, **measured(number)
        )

    return [
        worst("C5.0", "The learning rate is at most 1/β along the path: η β", _greatest(here["stability"]), at_most, 1.0),
        worst("C5.1", "‖∇L‖² is c² rᵀKr: relative difference", _greatest(here["identity"]), at_most, 1e-3),
        worst("C5.1b", "‖∇L‖²/(2L) ≥ c λ_min(K): slack over c λ_max", -_greatest(-here["slack"]), at_least, -1e-5),
        worst("C5.2", "The loss falls at least as (1 − ημ)^t: its rate over that", -_greatest(-here["speed"]), at_least, 1.0),
        at_most(
            f"C5.2b/{name}", statement=f"The loss gets small: L_T/L_0 ({name}).", source=SOURCE, bound=0.01,
            **measured(reached),
        ),
        worst("C5.3", "The path stays in the ball of radius R: its length over R", _greatest(here["path"]), at_most, 1.0),
    ]  # fmt: skip


def figure(dataset: Any) -> Any:
    """Losses against their guaranteed rates, the PL* ratio against its bound, and the drop of λ_min with the width."""
    with figures.style():
        return _draw(dataset)


def _draw(dataset: Any) -> Any:
    config, found = _config(dataset), measures(dataset)
    data = dataset.sel(network=found["network"].values).load()
    page, axes = figures.figure(1, 3, size=(4.4, 3.6))
    for index, name in enumerate(found["network"].values.tolist()):
        color, one = figures.COLORS[index % len(figures.COLORS)], data.sel(network=name)
        c = jd.losses.mse.c(8 if name == "quadratic" else config.num_train, 1)
        mu = float(np.median(c * one["kernel"].min("step")))
        eta = float(np.median(one["learning_rate"]))
        relative = (one["loss"] / one["loss"].isel(step=0)).median("seed")
        axes[0, 0].plot(one["step"], relative, color=color, label=name)
        axes[0, 0].plot(
            one["step"], jd.theory.pl.descent(one["step"], learning_rate=eta, constant=mu), color=color, ls=":", lw=1.0
        )
        axes[0, 1].plot(one["step"], one["ratio"].where(relative > FLOOR).median("seed"), color=color, label=name)
        axes[0, 1].plot(one["step"], c * one["kernel"].median("seed"), color=color, ls=":", lw=1.0)
    for place, title in zip(
        axes[0], ("L_t/L_0, guaranteed (1 − ημ)^t dotted", "‖∇L‖²/(2L), c λ_min(K) dotted"), strict=False
    ):
        place.set_yscale("log")
        place.set_xlabel("step")
        place.set_title(title)
        place.legend(loc="best")
    axes[0, 0].set_ylim(FLOOR, 2.0)
    drop = _by_width(found["drop"], config)
    figures.power_law(axes[0, 2], drop, "width", over="seed", fit=power_law(drop, "width", over="seed"))
    axes[0, 2].set_title("max_t |λ_min(K_t)/λ_min(K_0) − 1|")
    page.suptitle(
        f"Digits 3 and 8, n = {config.num_train}, η c λ_max(K_0) = {config.rate:g}, medians of {config.seeds} seeds"
    )
    return page


def _by_width(array: Any, config: Config) -> Any:
    """The tanh networks along their width."""
    names = [f"tanh{width}" for width in config.widths]
    chosen = array.sel(network=names).assign_coords(network=list(config.widths)).rename(network="width")
    return chosen.transpose("width", "seed").astype(float)


def _is_trained(network: str) -> bool:
    return network not in ("narrow", "gaussian")


def _greatest(array: Any) -> float:
    """The largest of the members; NaN where one is."""
    return float(np.max(array.values))


def _digits(config: Config) -> Any:
    drawn = jd.tasks.digits(classes=(3, 8), n=config.num_train)
    return jd.tasks.from_arrays(drawn.x, 0.5 + 0.4 * drawn.y)


def _config(dataset: Any) -> Config:
    return _configuration.restored(dataset, Config)
