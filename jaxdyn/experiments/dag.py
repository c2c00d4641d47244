r"""Transition to linearity on directed acyclic graphs: Hessian norms against the smallest in-degree m.

Networks with one output on d = 16 inputs, tanh, NTK scaling; m runs over a factor of 16 or more, and every seed has its own graph:

| architecture | what it is, m = width |
|---|---|
| fully connected | three hidden layers of m |
| deep | five hidden layers of m |
| uniform | three hidden layers of 3m, in-degrees uniform on [m, 3m], parents from all earlier hidden layers |
| heavy-tailed | three hidden layers of m^1.25, in-degrees Pareto (tail 1) from m to m^1.25, parents likewise |
| convolution | two 3 × 3 convolutions with m channels on 4 × 4 pixels, global average: shared weights |
| fixed budget | three hidden layers of M = 2 max(width); power law of in-degrees from m/4 to M with mean M/8, by its tail |

Three functions of each network at one example: the output f, the output behind a softplus (whose second derivative vanishes nowhere; f is
of order 1), and the pre-activation of one neuron of the last hidden layer. Three points: w0, a random point of the sphere
‖w − w0‖ = R, and where projected ascent of |f − f_lin| in that ball ended. Then gradient descent on 32 examples, at half the critical
rate.

Criteria, fixed before any run; "falls like m^(-1/2)" means that the 95 % interval of the exponent over seeds lies within [-0.6, -0.4]
(the theorem is asymptotic; smaller widths give shallower fits), "does not depend on m" within [-0.1, 0.1]:

| claim | criterion |
|---|---|
| C3.1 ‖H_f‖ at w0, on the sphere, at the ascent's end | falls like m^(-1/2) |
| C3.2 ‖∇f‖ at w0 | does not depend on m |
| C3.3 sup of abs(f − f_lin) met in the ball | falls like m^(-1/2) |
| C3.4 ‖H_f‖ of heavy-tailed graphs over that of uniform ones | does not depend on m |
| C3.5 ‖H‖ of a pre-activation | falls like m^(-1/2) |
| C3.6 ‖H‖ behind a nonlinear output | does not depend on m |
| B1/min at a fixed budget of edges ‖H_f‖ follows the smallest in-degree | falls like m^(-1/2) |
| B1/mean it follows the mean in-degree, which is fixed | does not depend on m |
| B2 ‖H_f‖ of five hidden layers over that of three | interval of the geometric mean above 1 |
| B3 kernel change along training, on graphs too | interval of the exponent below -0.4 |

B1 to B3 are ours. At most one of the two B1 claims can be supported.

References:
    Zhu, Liu, Belkin, arXiv 2205.11786, Thms 3.6 and 3.8, Cor. 3.7, Prop. 4.4.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdyn as jd
from jaxdyn.analysis import figures
from jaxdyn.analysis.claims import Verdict, at_least, at_most, within
from jaxdyn.analysis.scaling import mean_interval, power_law
from jaxdyn.experiments import _configuration
from jaxdyn.models import graphs

DIM, SIDE = 16, 4
POINTS = ("anchor", "sphere", "ascent")
FUNCTIONS = ("output", "nonlinear output", "pre-activation")
GRAPHS = ("uniform", "heavy-tailed", "fixed budget")
ARCHITECTURES = ("fully connected", "deep", "uniform", "heavy-tailed", "convolution", "fixed budget")


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    widths: tuple[int, ...]  # m
    seeds: int  # number of graphs and initialisations
    architectures: tuple[str, ...]  # some of those in the table
    radius: float  # R
    climb: int  # steps of the ascent
    num_train: int  # examples of the training
    steps: int  # of the training


PRESETS = {
    "ci": Config((8, 32, 128), 8, ("uniform",), 1.0, 5, 16, 10),
    "laptop": Config((12, 32, 76, 192), 8, ARCHITECTURES, 1.0, 10, 32, 50),
    "paper": Config((64, 128, 256, 512, 1024, 2048, 4096), 16, ARCHITECTURES[:5], 1.0, 20, 64, 200),
}


def run(config: Config, store: Any = None, progress: Any = None) -> Any:
    """Run the sweep.

    Args:
        config: sizes.
        store: path of a zarr store, or None.
        progress: see `jd.sweep`.

    Returns:
        A dataset with dims (architecture, width, seed, …): `linearity_norm` [step, point, function] (NaN where the Hessian norm did not
        converge, or there is no such function), `linearity_gradient` [step, function], `linearity_gap` [step], and on training times
        `change` and `loss`.
    """
    function, loop, vmap = ensemble(config)
    attrs = _configuration.attributes("dag", config)
    return jd.sweep(function, loop=loop, vmap=vmap, store=store, progress=progress, attrs=attrs)


def ensemble(config: Config) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The function of the axes, its loop axes and its vmap axes."""
    task = jd.tasks.polynomial(jax.random.key(0), degree=2, dim=DIM, n=config.num_train, n_test=0)
    example = task.x[:1] * jnp.sqrt(DIM) / jnp.linalg.norm(task.x[:1])
    drawn: dict[tuple[str, int], Any] = {}

    def one(architecture: str, width: int, seed: Any) -> jd.Training:
        cell = (architecture, width)
        if architecture in GRAPHS and cell not in drawn:
            drawn.clear()
            drawn[cell] = graphs.stack([random_graph(config, architecture, width, s) for s in range(config.seeds)])
        masks = jax.tree.map(lambda mask: jnp.asarray(mask)[seed], drawn.get(cell))
        model, functions = _network(architecture, width, masks)
        key = jax.random.key(seed)
        params0 = model.init(key)
        rate = jd.theory.critical_learning_rate(model.apply, params0, task, loss=jd.losses.mse) / 2
        return jd.Training(
            model,
            task,
            optax.sgd(rate),
            steps=config.steps,
            key=key,
            params0=params0,
            record=(
                jd.record(jd.at([0]), linearity=Linearity(functions, example, key, config.radius, config.climb)),
                jd.record(
                    jd.at([0, config.steps]), dim="time", change=jd.probes.KernelChange(task.x), loss=jd.probes.Loss()
                ),
            ),
        )

    names = [name for name in ARCHITECTURES if name in config.architectures]
    return one, {"architecture": names, "width": list(config.widths)}, {"seed": np.arange(config.seeds)}


def random_graph(config: Config, architecture: str, width: int, seed: int) -> graphs.Graph:
    """The graph of one member."""
    if architecture == "uniform":
        sizes, law = (3 * width,) * 3, graphs.uniform(width)
    elif architecture == "heavy-tailed":
        sizes, law = (int(width**1.25),) * 3, graphs.heavy_tailed(width, power=1.25)
    else:
        most = max(config.widths)
        sizes, law = (2 * most,) * 3, graphs.fixed_mean(max(1, width // 4), mean=most / 4, most=2 * most)
    return graphs.random_layered((DIM, *sizes, 1), law=law, seed=seed)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Linearity:
    """How linear some functions of a network are around the anchor."""

    functions: Callable[[Any, Any], Any] = dataclasses.field(
        metadata={"static": True}
    )  # `(params, x) -> [n, 3]`, the `FUNCTIONS`
    x: Any  # one example [1, d]
    key: Any  # random key
    radius: float  # R
    steps: int = dataclasses.field(metadata={"static": True})  # of the ascent of |f − f_lin|

    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "norm": ("point", "function"),
        "gradient": ("function",),
        "gap": (),
    }

    def __call__(self, snapshot: Any) -> Any:
        """Norms at the three points, gradients at the first, and the largest |f − f_lin|."""
        anchor, ball = snapshot.params, jd.geometry.ball
        is_live = jax.tree.map(lambda w: w != 0, anchor)

        def output(params: Any) -> Any:
            return self.functions(params, self.x)[0, 0]

        start, slopes = output(anchor), jax.jacrev(lambda params: self.functions(params, self.x)[0])(anchor)

        def gap(params: Any) -> Any:
            moved = jax.tree.map(lambda slope, w, w0: jnp.vdot(slope[0], w - w0), slopes, params, anchor)
            return jnp.abs(output(params) - start - jax.tree.reduce(jnp.add, moved))

        first, second, third = jax.random.split(self.key, 3)
        climbed, largest = ball.ascend(gap, anchor, key=first, radius=self.radius, steps=self.steps, where=is_live)
        sphere = ball.random_point(second, anchor, radius=self.radius, where=is_live)
        points = jax.tree.map(lambda *leaves: jnp.stack(leaves), anchor, sphere, climbed)
        norms = jax.lax.map(
            lambda params: jd.geometry.function_hessian_norm(self.functions, params, self.x, key=third)[0], points
        )
        lengths = jnp.sqrt(sum(jnp.sum(leaf.reshape(3, -1) ** 2, axis=1) for leaf in jax.tree.leaves(slopes)))
        is_there = lengths > 0
        return {
            "norm": jnp.where(is_there[None, :], norms, jnp.nan),
            "gradient": jnp.where(is_there, lengths, jnp.nan),
            "gap": largest,
        }


def claims(dataset: Any) -> list[Verdict]:
    """Verdicts on C3.1 to C3.6 and B1 to B3 for the architectures that were run."""
    found = dataset.load()
    names = found["architecture"].values.tolist()
    verdicts = []
    for name in names:
        here = found.sel(architecture=name)
        norm = here["linearity_norm"].isel(step=0)
        if name == "fixed budget":
            at_anchor = norm.isel(point=0, function=0)
            statement = "At a fixed budget of edges ‖H_f(w0)‖ follows the {} in-degree, so {} along the smallest."
            verdicts += [
                _falls("B1/min", statement.format("smallest", "it falls"), "jaxdyn", at_anchor),
                _flat("B1/mean", statement.format("mean", "it is constant"), "jaxdyn", at_anchor),
            ]
            continue
        verdicts += [
            _falls(f"C3.1/{name}/{point}", f"‖H_f‖ falls like m^(-1/2) at the {point} ({name}).", "Thm 3.6", norm.isel(point=i, function=0))
            for i, point in enumerate(POINTS)
        ]  # fmt: skip
        gradient = here["linearity_gradient"].isel(step=0, function=0)
        verdicts.append(_flat(f"C3.2/{name}", f"‖∇f(w0)‖ does not depend on m ({name}).", "Prop. 4.4", gradient))
        gap = here["linearity_gap"].isel(step=0)
        verdicts.append(
            _falls(f"C3.3/{name}", f"sup |f − f_lin| met in the ball falls like m^(-1/2) ({name}).", "Cor. 3.7", gap)
        )
        if name != "convolution":
            inner = norm.isel(point=0, function=2)
            verdicts.append(
                _falls(f"C3.5/{name}", f"‖H‖ of a pre-activation falls like m^(-1/2) ({name}).", "Thm 3.8", inner)
            )
        behind = norm.isel(point=0, function=1)
        verdicts.append(
            _flat(f"C3.6/{name}", f"‖H‖ behind a softplus output does not depend on m ({name}).", "section 3", behind)
        )
        verdicts.append(_change(name, here["change"].isel(time=-1)))
    if {"uniform", "heavy-tailed"} <= set(names):
        ratio = _ratio(found, "heavy-tailed", "uniform")
        verdicts.append(
            _flat("C3.4", "‖H_f‖ of heavy-tailed over uniform graphs does not depend on m.", "section 3", ratio)
        )
    if {"deep", "fully connected"} <= set(names):
        verdicts.append(_deeper(_ratio(found, "deep", "fully connected")))
    return sorted(verdicts, key=lambda verdict: verdict.id)


def figure(dataset: Any) -> Any:
    """Exponents with the line of slope -1/2, in-degree laws against Hessian norms, and a graph."""
    with figures.style():
        return _draw(dataset.load())


def _draw(found: Any) -> Any:
    config = _config(found)
    names = [name for name in found["architecture"].values.tolist() if name != "fixed budget"]
    page, axes = figures.figure(2, 3, size=(3.8, 3.0))
    norm = found["linearity_norm"].isel(step=0)

    def panel(place: Any, title: str, arrays: Mapping[str, Any], reference: float | None = -0.5) -> None:
        for label, array in arrays.items():
            whole = array.transpose("width", "seed")
            figures.power_law(place, whole, "width", over="seed", fit=_fit(whole), label=label, reference=reference)
        figures.leave_room(place, len(arrays) + 1)
        place.set_title(title)
        place.set_xlabel("smallest in-degree m")

    flat = axes.flat
    panel(flat[0], "‖H_f(w0)‖", {name: norm.sel(architecture=name).isel(point=0, function=0) for name in names})
    shown = "uniform" if "uniform" in names else names[0]
    here = found.sel(architecture=shown)
    points = {point: norm.sel(architecture=shown).isel(point=i, function=0) for i, point in enumerate(POINTS)}
    gap = {f"sup |f − f_lin|, R = {config.radius:g}": here["linearity_gap"].isel(step=0)}
    panel(flat[1], f"{shown}: ‖H_f‖ in the ball", points | gap)
    others = {name: norm.sel(architecture=shown).isel(point=0, function=i) for i, name in enumerate(FUNCTIONS) if i}
    gradient = {"‖∇f‖": here["linearity_gradient"].isel(step=0, function=0)}
    panel(flat[2], f"{shown}: what falls and what does not", others | gradient)
    change = {name: found["change"].sel(architecture=name).isel(time=-1) for name in names}
    panel(flat[3], f"kernel change after {config.steps} steps", change)
    if "fixed budget" in found["architecture"].values.tolist():
        array = norm.sel(architecture="fixed budget").isel(point=0, function=0)
        array = array.assign_coords(width=[max(1, width // 4) for width in config.widths])
        panel(flat[4], f"mean in-degree {max(config.widths) / 4:g}: ‖H_f(w0)‖", {"fixed budget": array})
    else:
        flat[4].set_visible(False)
    smallest = next((name for name in GRAPHS if name in names), None)
    if smallest is not None:
        figures.vertices(flat[5], random_graph(config, smallest, min(config.widths), 0), max_edges=800)
    page.suptitle(f"Transition to linearity on graphs: tanh, d = {DIM}, {config.seeds} seeds")
    return page


def _network(architecture: str, width: int, masks: Any) -> tuple[jd.Model, Any]:
    """The model, and the three functions of it."""
    last = jax.nn.softplus
    if architecture == "convolution":
        model = jd.models.conv((SIDE, SIDE, 1), (width, width), 1, activation=jnp.tanh, pool=jd.models.global_average)
        pre = None
    elif architecture in GRAPHS:
        model = jd.models.masked_dag(masks, activation=jnp.tanh)
        inner = graphs.Masks((*masks.sizes[:-2], 1), masks.reads[:-1], (*masks.masks[:-2], masks.masks[-2][:, :1]))
        pre = _inner(jd.models.masked_dag(inner, activation=jnp.tanh), "layer_", len(masks.sizes) - 2)
    else:
        hidden = 3 if architecture == "fully connected" else 5
        model = jd.models.mlp((DIM, *(width,) * hidden, 1), activation=jnp.tanh)
        inner_model = jd.models.mlp((DIM, *(width,) * (hidden - 1), 1), activation=jnp.tanh)
        pre = _inner(inner_model, "dense_", hidden - 1)

    def functions(params: Any, x: Any) -> Any:
        f = model.apply(params, x)
        return jnp.concatenate([f, last(f), jnp.zeros_like(f) if pre is None else pre(params, x)], axis=1)

    return model, functions


def _inner(model: jd.Model, prefix: str, last: int) -> Any:
    """The pre-activation of the first neuron of the last hidden layer, whose leaf is number `last`."""

    def pre(params: Any, x: Any) -> Any:
        kept = {name: leaf for name, leaf in params.items() if int(name.removeprefix(prefix)) <= last}
        name = f"{prefix}{last}"
        return model.apply(kept | {name: {"weight": params[name]["weight"][:, :1]}}, x)

    return pre


def _fit(array: Any) -> Any:
    return power_law(array.transpose("width", "seed").astype(float), "width", over="seed")


def _range(statement: str, fit: Any) -> str:
    excluded = f", {fit.fitted.num_excluded} seeds left out" if fit.fitted.num_excluded else ""
    return f"{statement[:-1]}, m = {fit.fitted.low:g} to {fit.fitted.high:g}{excluded}."


def _falls(name: str, statement: str, source: str, array: Any) -> Verdict:
    return _between(name, statement, source, array, (-0.6, -0.4))


def _flat(name: str, statement: str, source: str, array: Any) -> Verdict:
    return _between(name, statement, source, array, (-0.1, 0.1))


def _between(name: str, statement: str, source: str, array: Any, bounds: tuple[float, float]) -> Verdict:
    fit, low, high = _fit(array), *bounds
    return within(
        name, statement=_range(statement, fit), source=source if source == "jaxdyn" else f"arXiv 2205.11786, {source}",
        lower=low, upper=high, estimate=fit.exponent, low=fit.low, high=fit.high,
    )  # fmt: skip


def _change(name: str, array: Any) -> Verdict:
    fit = _fit(array)
    statement = _range(f"The kernel change along training falls like m^(-1/2) or faster ({name}).", fit)
    return at_most(
        f"B3/{name}",
        statement=statement,
        source="jaxdyn",
        bound=-0.4,
        estimate=fit.exponent,
        low=fit.low,
        high=fit.high,
    )


def _ratio(found: Any, over: str, under: str) -> Any:
    norm = found["linearity_norm"].isel(step=0, point=0, function=0)
    return norm.sel(architecture=over, drop=True) / norm.sel(architecture=under, drop=True)


def _deeper(ratio: Any) -> Verdict:
    logs = np.log(ratio).mean("width").values
    mean, low, high = (float(np.exp(number)) for number in mean_interval(logs))
    return at_least(
        "B2",
        statement="‖H_f(w0)‖ of five hidden layers is larger than that of three (ratio, geometric mean over widths).",
        source="jaxdyn",
        estimate=mean,
        low=low,
        high=high,
        bound=1.0,
    )


def _config(dataset: Any) -> Config:
    return _configuration.restored(dataset, Config)
