"""The largest learning rate at which an ensemble trains, by bisection, all members at once and compiled once.

For each member the rates of a grid, in units of 1/(c λ_max(K_0)), are tried upwards until one fails; the bracket between it and
the last one that held is then halved until it is narrow. This refines the *first* failing rate of the grid: which rates
train need not be an interval, nor does a finer grid have to find the same edge. A quadratic model fails at 4, a linear one at 2.

A rate *holds* when the run did not diverge, its last loss is below `final_below` times its first, and its kernel is not dead (at
most `dead_below` of its largest eigenvalue left: a ReLU network whose neurons are all off has a constant loss that may well lie
below its first). A run too short to come back down counts as failing, so `steps` is part of what is measured.

References:
    Lewkowycz et al., arXiv 2003.02218, section 2.2 (η_max ≈ 12/λ_0 for ReLU networks). Zhu et al., arXiv 2205.11787, section 2.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn import dynamics, theory
from jaxdyn.dynamics import Training
from jaxdyn.ensemble.compiling import hoist
from jaxdyn.ensemble.compiling.blame import blaming
from jaxdyn.ensemble.compiling.programme import call_run
from jaxdyn.ensemble.deciding.axes import Axes, loop_indices, parse
from jaxdyn.results.provenance import provenance

if TYPE_CHECKING:
    from xarray import Dataset
else:
    Dataset = Any

GRID = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0)
"""The relative rates η c λ_max(K_0) that are tried upwards; denser where quadratic models fail."""

FAILURES = ("none", "diverged", "dead", "loss")
"""Why the upper end of a bracket fails; `none` where the whole grid held."""


class _Bracket(NamedTuple):
    """Where the search of one member stands: relative rates, why `high` fails, the next of the grid, the curvature at `low`."""

    low: Any
    high: Any
    failure: Any
    position: Any
    kept: Any
    runs: Any


def maximal_learning_rate(
    run: Callable[..., Training],
    *,
    vmap: Mapping[str, Any],
    loop: Mapping[str, Any] | None = None,
    grid: Sequence[float | int] = GRID,
    tolerance: float | int = 0.02,
    final_below: float | int = 1.0,
    dead_below: float | int = 1e-6,
    batch_size: int | None = None,
) -> Dataset:
    """Search for the largest learning rate that trains, for every combination of the axes.

    Args:
        run: function of the rate `lr` and of the axes, by name, returning a `Training`; called once a combination of loop axes,
            while tracing. Its records are ignored. Its anchor must not depend on `lr`.
        vmap: `{name: array}`: axes that are traced and batched, hidden widths as `jd.widths([...])`.
        loop: `{name: values}` or `{name: {label: value}}`: axes that compile anew.
        grid: relative rates η c λ_max(K_0), sorted, that are tried upwards. λ_max is that of the trained function at its
            anchor, by `theory.curvature`.
        tolerance: a bracket is halved until high/low ≤ 1 + `tolerance`.
        final_below: the last loss on all training examples must be below this multiple of the first.
        dead_below: the last curvature must be above this fraction of the first, and be found where it takes Lanczos.
        batch_size: members that run together; all when None.

    Returns:
        An `xarray.Dataset` with dimensions `(*loop, *vmap)`: `relative_low` and `relative_high`, the largest rate that held and
        the smallest above it that failed, in units of 1/(cλ_max) (0 where the first of the grid failed already and the
        bisection found nothing down to `tolerance` of it; infinity where all held); `low` and `high`, the same as learning
        rates; `curvature`, c λ_max(K_0); `final_curvature`, the curvature at the end of the run at `low`; `failure`, why `high`
        fails, one of `FAILURES`; `runs`, how many were made. Criteria are in the attributes.

    Raises:
        TypeError: where `run` does not take `lr`, or axes and arguments do not match.
        ValueError: for no vmapped axis, an unsorted grid, or criteria out of range.

    Example:
        >>> import optax, jaxdyn as jd
        >>> task = jd.tasks.from_arrays(jnp.ones((1, 1)), jnp.zeros((1, 1)))
        >>> def run(lr, seed):  # a linear model: 2 is maximal
        ...     return jd.Training(jd.models.mlp((1, 1), activation=jnp.tanh), task, optax.sgd(lr), steps=50,
        ...                        key=jax.random.key(seed))
        >>> found = maximal_learning_rate(run, vmap={"seed": np.arange(2)}, grid=(1, 1.5, 2.5), tolerance=0.01)
        >>> bool((found.relative_low <= 2).all() and (found.relative_high >= 2).all())
        True
    """
    rates = _check(grid, tolerance, final_below, dead_below)
    if not vmap:
        raise ValueError("The search is mapped over `vmap=` axes, of which there is none; give at least the seed.")
    names = {*vmap, *(loop or {})}
    axes = parse(_without_rate(run, names), loop, vmap)
    arguments, _ = axes.members([np.arange(len(axis)) for axis in axes.vmap])
    criteria = {"tolerance": tolerance, "final_below": final_below, "dead_below": dead_below}
    blocks = [
        _search(run, axes.loop_values(index), arguments, rates, batch_size, **criteria) for index in loop_indices(axes)
    ]
    return _label(axes, blocks, {"grid": rates.tolist(), **criteria, **provenance()})


def _search(
    run: Callable[..., Training],
    fixed: Mapping[str, Any],
    arguments: Mapping[str, Any],
    grid: np.ndarray,
    batch_size: int | None,
    *,
    tolerance: float | int,
    final_below: float | int,
    dead_below: float | int,
) -> dict[str, np.ndarray]:
    """The search of one cell: traced once, whatever the members and rates; what `run` closes over are arguments."""
    leaves, structure = jax.tree.flatten({name: jax.tree.map(jnp.asarray, value) for name, value in arguments.items()})
    first = jax.tree.unflatten(structure, [leaf[0] for leaf in leaves])

    def member(values: Mapping[str, Any]) -> Any:
        def training(lr: Any) -> Training:
            return dynamics.anchored(replace(call_run(run, fixed, {**values, "lr": lr}), record=()))

        def curvature_at(one: Training, params: Any) -> Any:
            apply = one.expand(one.model.apply, one.params0)
            with jax.default_matmul_precision(one.precision):
                loss = one.loss(apply(params, one.task.x), one.task.y)
            return theory.curvature(apply, params, one.task, loss=one.loss), loss

        start = training(jnp.zeros(()))
        scale, first = curvature_at(start, start.params0)

        def outcome(relative: Any) -> Any:
            one = training(relative / scale)
            found = dynamics.train(one)
            curvature, last = curvature_at(one, found.final.params)
            has_diverged = (found.diverged_at >= 0) | ~jnp.isfinite(last)
            is_dead = ~(curvature > dead_below * scale)
            is_high = ~(last < final_below * first)
            return jnp.where(has_diverged, 1, jnp.where(is_dead, 2, jnp.where(is_high, 3, 0))), curvature

        return _bisect(outcome, jnp.asarray(grid, scale.dtype), tolerance), scale

    with blaming(member, first):
        traced, result = jax.make_jaxpr(member, return_shape=True)(first)
    closed = hoist.hoist(traced)
    flat_member, outputs = hoist.call(closed), jax.tree.structure(result)

    def every(consts: Any, leaves: Any) -> Any:
        return jax.lax.map(lambda own: flat_member(consts, own), leaves, batch_size=batch_size or len(leaves[0]))

    results = jax.jit(every)(list(closed.consts), leaves)
    bracket, scale = jax.tree.unflatten(outputs, [np.asarray(result) for result in results])
    return {
        "relative_low": bracket.low,
        "relative_high": bracket.high,
        "low": bracket.low / scale,
        "high": bracket.high / scale,
        "curvature": scale,
        "final_curvature": bracket.kept,
        "failure": np.asarray(FAILURES)[bracket.failure],
        "runs": bracket.runs,
    }


def _bisect(outcome: Callable[[Any], Any], grid: Any, tolerance: float | int) -> Any:
    """The bracket around the first failing rate of a grid; `outcome` gives (0 or the reason of a failure, a value to keep)."""
    count = len(grid)
    none = jnp.zeros((), jnp.int32)
    empty = jnp.full((), jnp.nan, grid.dtype)
    start = _Bracket(jnp.zeros((), grid.dtype), jnp.full((), jnp.inf, grid.dtype), none, none, empty, none)

    def is_open(state: Any) -> Any:
        is_climbing = jnp.isinf(state.high) & (state.position < count)
        floor = jnp.maximum(state.low, tolerance * grid[0])  # where nothing holds, down to a fraction of the grid
        return is_climbing | (jnp.isfinite(state.high) & (state.high > (1 + tolerance) * floor))

    def go_on(state: Any) -> Any:
        is_climbing = jnp.isinf(state.high)
        rate = jnp.where(is_climbing, grid[jnp.minimum(state.position, count - 1)], (state.low + state.high) / 2)
        reason, value = outcome(rate)
        holds = reason == 0
        return _Bracket(
            low=jnp.where(holds, rate, state.low),
            high=jnp.where(holds, state.high, rate),
            failure=jnp.where(holds, state.failure, reason).astype(jnp.int32),
            position=state.position + is_climbing.astype(jnp.int32),
            kept=jnp.where(holds, value, state.kept).astype(grid.dtype),
            runs=state.runs + 1,
        )

    return jax.lax.while_loop(is_open, go_on, start)


def _without_rate(run: Callable[..., Training], names: set[str]) -> Callable[..., Any]:
    """`run` as the axes see it, for its signature alone: the rate is no axis."""
    if "lr" in names:
        raise TypeError("`lr` is what is searched for, so it cannot be an axis.")

    def without_rate(**values: Any) -> Any:
        return run(**values)

    parameters = inspect.signature(run).parameters
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if "lr" not in parameters and not is_open:
        raise TypeError(f"`run` takes the learning rate as `lr`, but its arguments are {sorted(parameters)}.")
    kept = [parameter for name, parameter in parameters.items() if name != "lr"]
    without_rate.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    return without_rate


def _check(
    grid: Sequence[float | int], tolerance: float | int, final_below: Any, dead_below: float | int
) -> np.ndarray:
    rates = np.asarray(grid, float)
    if rates.ndim != 1 or rates.size == 0 or not (np.diff(rates) > 0).all() or rates[0] <= 0:
        raise ValueError(f"`grid` is a list of positive relative rates in order, but is {rates.tolist()}.")
    if not tolerance > 0:
        raise ValueError(f"`tolerance` is a positive ratio such as 0.02, but is {tolerance}.")
    if not (final_below > 0 and dead_below >= 0):
        raise ValueError(
            f"`final_below` is positive and `dead_below` at least 0, but they are {final_below} and {dead_below}."
        )
    return rates


def _label(axes: Axes, blocks: list[dict[str, np.ndarray]], attrs: Mapping[str, Any]) -> Any:
    import xarray as xr

    dims = tuple(axis.name for axis in axes.every)
    data = {name: (dims, np.stack([block[name] for block in blocks]).reshape(axes.shape)) for name in blocks[0]}
    return xr.Dataset(data, {axis.name: axis.labels for axis in axes.every}, dict(attrs))
