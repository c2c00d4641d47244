"""Run an ensemble of trainings at once and return one labelled dataset.

    ds = jd.sweep(run, loop={"expand": {"full": jd.exact, "linear": jd.linear}}, vmap={"lr": rates, "seed": jnp.arange(8)})

`run` is the user's own plain function of the axes, returning a `Training`. Each cell (one value of every loop axis and one
bucket of widths) is compiled into two programmes, whatever the members and steps; it is driven in pieces of equal record
counts, so that progress needs nothing inside the compiled code, and written to the store when it is done, whole or not
at all. Running the same sweep on the same store again fills only what is missing; running it with more values on any axis
computes those, and with fewer, reads them.
"""

import hashlib
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import jax
import numpy as np

from jaxdyn.dynamics import Training
from jaxdyn.ensemble.compiling.placement import sound_partitioner
from jaxdyn.ensemble.deciding.axes import Axes, parse
from jaxdyn.ensemble.deciding.cells import Cell, Layout, Plan
from jaxdyn.ensemble.deciding.elements import digest, hold, merged
from jaxdyn.ensemble.deciding.plan import decide
from jaxdyn.ensemble.doing import processes
from jaxdyn.ensemble.doing.checkpoint import Checkpoints
from jaxdyn.ensemble.doing.execution import LAID_OUT, Execution, Stop
from jaxdyn.ensemble.doing.progress import Progress, Silent
from jaxdyn.results import store as stores
from jaxdyn.results.dataset import template
from jaxdyn.results.places import as_path
from jaxdyn.results.provenance import provenance, versions


@sound_partitioner()
def sweep(
    run: Callable[..., Training],
    *,
    loop: Mapping[str, Any] | None = None,
    vmap: Mapping[str, Any] | None = None,
    store: Any = None,
    keep_params: bool = False,
    checkpoint_every: float | int = 60.0,
    memory: float | int | None = None,
    stop: Stop | None = None,
    progress: Progress | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """Run a training for every combination of the axes.

    Args:
        run: function of the axes, by name, returning a `Training`. It is called once a cell, while tracing.
        loop: `{name: values}` or `{name: {label: value}}`: axes that compile anew, because they change shapes or code.
        vmap: `{name: array}`: axes that are traced and batched. Hidden widths go as `jd.widths([...])`.
        store: path of a zarr store that is written as cells finish, and resumed from; or a URL that fsspec knows (`s3://…`). A store
            grows: with more values on any axis only what is missing is computed, and what is finished stays bit for bit. With fewer
            values, or in another order, what is asked for is read. New values lie behind the old ones in the store.
        keep_params: keep the final parameters beside the store; `jd.results.params` reads them.
        checkpoint_every: seconds between two checkpoints inside a cell, at least; a killed sweep loses no more than that and the
            time between two records. Ctrl-C and SIGTERM save one more and lose nothing. Only where `store` is a path. The resumed
            sweep equals the uninterrupted one bit for bit.
        memory: bytes that a device may hold; 70 % of what it has, or of what this machine has free, when None. Members that do not
            fit together run in blocks, one after the other.
        stop: condition under which a cell ends early: given what its members have recorded so far, `{variable: [members, rows, …]}`,
            it returns which of them are done, [members]. It is asked between two pieces, 16 at most in a run; once every member
            is done or has diverged, the cell ends, the records left out are missing (NaN, or -1 for integers), and the
            variable `stopped_at` (which `analysis.phases` takes) tells the step, -1 where a cell ran to its end. Cells whose
            members have all diverged always end.
        progress: who is told how far it is, such as `jd.ensemble.watch()`; nobody when None.
        attrs: attributes added to the dataset.

    Returns:
        An `xarray.Dataset` with dimensions `(*loop, *vmap, step, *probe dimensions)`, the variables of the records,
        `diverged_at` (the step at which a member diverged, or -1) and `done`. Read lazily from `store` where there is one.

    Raises:
        TypeError: where axes and arguments of `run` do not match, or `run` uses a vmapped axis as a fixed value.
        ValueError: for a bad axis, colliding names, a store that belongs to another sweep, or a member that does not fit into memory.
        StoreError: where the store cannot be written; its `dataset` holds everything computed so far.

    Example:
        >>> import jax.numpy as jnp, optax, jaxdyn as jd
        >>> task = jd.tasks.polynomial(jax.random.key(0), degree=1, dim=3, n=8)
        >>> def run(lr, seed):
        ...     model = jd.models.mlp((3, 16, 1), activation=jnp.tanh)
        ...     return jd.Training(model, task, optax.sgd(lr), steps=10, key=jax.random.key(seed),
        ...                        record=jd.record(jd.every(5), loss=jd.probes.Loss()))
        >>> dict(sweep(run, vmap={"lr": jnp.array([0.1, 0.2]), "seed": jnp.arange(3)}).loss.sizes)
        {'lr': 2, 'seed': 3, 'step': 3}
    """
    path = as_path(store)
    if keep_params and path is None:
        raise ValueError("`keep_params=True` keeps the parameters beside a store on disk; give `store=` a path.")
    if not checkpoint_every >= 0:
        raise ValueError(f"`checkpoint_every` is a number of seconds, at least 0, but is {checkpoint_every}.")
    if jax.process_count() > 1 and store is None:
        raise ValueError(
            "Several processes share a sweep through its store; give `store=` a path that all of them see."
        )
    if not processes.is_first():  # the first one decides how the sweep is cut, and the store says so
        processes.wait(LAID_OUT)
    axes = parse(run, loop, vmap)
    told = stores.told(store)
    held = None if told is None else hold(axes, told.axes, Layout.from_json(told.layout), told.finished, store)
    chosen = decide(run, axes, memory, held=held)
    checkpoints = Checkpoints(path, checkpoint_every)

    def lay_out() -> Any:
        found = _lay_out(chosen, store, told, stop, dict(attrs or {}))
        kept = {cut.key for cut in chosen.layout.cuts}
        for cut in () if held is None else held.layout.cuts:
            if cut.key not in kept:  # given up, and what was asked of it cut anew
                checkpoints.clear(cut.key)
        return found

    execution = Execution(chosen, store, lay_out, keep_params, checkpoints, progress or Silent(), stop, told is None)
    found = execution.execute()
    places = dict(zip((axis.name for axis in axes.every), chosen.held.places, strict=True))
    if any(not np.array_equal(places[name], np.arange(found.sizes[name])) for name in places):
        found = found.isel(places)
    return found.assign_attrs(attrs or {})


def _lay_out(chosen: Plan, where: Any, told: stores.Told | None, stop: Stop | None, attrs: Mapping[str, Any]) -> Any:
    """Make the store of a plan, or open it where it is and let it grow by what it lacks."""
    axes = chosen.axes
    records = [record for cell in chosen.cells for record in cell.records]
    blocks = {axis.name: length for axis, length in zip(axes.vmap, chosen.layout.block, strict=True)}
    blocks |= {axes.vmap[i].name: 1 for i in axes.widths}  # buckets of widths lie anywhere along their axis
    own = merged(axes, None if told is None else told.axes)
    # of coordinates; text is as wide as it need be
    kinds = {axis.name: None if axis.labels.dtype.kind == "U" else axis.labels.dtype for axis in axes.every}
    layout = template(
        {axis.name: np.asarray(own[axis.name]["labels"], kinds[axis.name]) for axis in axes.every},
        records,
        blocks=blocks,
        can_stop=stop is not None,
    )
    fingerprint = {
        "axis": own,
        "record": {cell.key: _signature(cell) for cell in chosen.cells},
        "version": versions() | {"float64": str(jax.config.values["jax_enable_x64"])},
        **({} if stop is None else {"stop": _code(stop)}),
    }
    if where is None:
        import zarr

        where = zarr.storage.MemoryStore()
    is_all = all(len(places) == length for places, length in zip(chosen.held.places, chosen.held.shape, strict=True))
    described = _describe(chosen)
    if told is None:
        return stores.create_or_open(where, layout, fingerprint, {**described, **provenance(), **attrs})
    grown = {"layout": described["layout"], **({**described, **attrs} if is_all else {})}
    return stores.create_or_open(where, layout, fingerprint, grown)


def _signature(cell: Cell) -> dict[str, Any]:
    """What is recorded when, in plain words: part of the store's fingerprint."""
    training = {"training": {"steps": cell.steps, "loss": cell.loss, "precision": cell.precision}}
    return training | {
        dim: {
            "times": f"{len(times)} from {times[0]} to {times[-1]}",
            "exact times": digest(times),
            "variables": {name: f"{one.dtype}{list(one.shape)}" for name, one in yields.items()},
        }
        for dim, times, yields in cell.records
    }


def _describe(chosen: Plan) -> dict[str, Any]:
    axes: Axes = chosen.axes
    return {
        "cells": [cell.name for cell in chosen.cells],
        "members_at_a_time": [cell.placement.chunk for cell in chosen.cells],
        "devices_used": max(len(cell.placement.devices) for cell in chosen.cells),
        "layout": chosen.layout.to_json(),
        "loop_axes": [axis.name for axis in axes.loop],
        "vmap_axes": [axis.name for axis in axes.vmap],
        "steps": sorted({cell.steps for cell in chosen.cells}),
        "losses": sorted({cell.loss for cell in chosen.cells}),
        "precision": sorted({cell.precision for cell in chosen.cells}),
    }


def _code(stop: Stop) -> str:
    """A hash of what a condition does, as far as its code tells."""
    code = getattr(stop, "__code__", None)
    if code is None:
        return str(getattr(stop, "__qualname__", type(stop).__qualname__))
    return hashlib.sha256(_told(code)).hexdigest()[:16]


def _told(code: CodeType) -> bytes:
    """Code, constants and names, the same in every process: of code inside its own, not its address; of sets their order."""
    consts = tuple(
        _told(one) if isinstance(one, CodeType) else sorted(map(repr, one)) if isinstance(one, frozenset) else one
        for one in code.co_consts
    )
    return code.co_code + repr((consts, code.co_names)).encode()
