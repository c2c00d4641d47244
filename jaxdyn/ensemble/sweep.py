"""Run an ensemble of trainings at once and return one labelled dataset.

    ds = jd.sweep(run, loop={"expand": {"full": jd.exact, "linear": jd.linear}}, vmap={"lr": rates, "seed": jnp.arange(8)})

`run` is the user's own plain function of the axes, returning a `Training`. Each cell (one value of every loop axis and one
bucket of widths) is compiled into two programmes, whatever the members and steps; it is driven in pieces of equal record
counts, so that progress needs nothing inside the compiled code, and written to the store when it is done, whole or not
at all. Running the same sweep on the same store again fills only what is missing.
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdyn.dynamics import Training, anchored
from jaxdyn.ensemble.axes import Axes
from jaxdyn.ensemble.checkpoint import Checkpoints, Progressed
from jaxdyn.ensemble.memory import text
from jaxdyn.ensemble.plan import Cell, Layout, Plan, first_member, plan
from jaxdyn.ensemble.programme import Programme, call_run, trim
from jaxdyn.ensemble.progress import Progress, Silent
from jaxdyn.results import store as stores
from jaxdyn.results.dataset import DIVERGED_AT, DONE, template
from jaxdyn.results.params import save_params
from jaxdyn.results.provenance import provenance, versions


def sweep(
    run: Callable[..., Training],
    *,
    loop: Mapping[str, Any] | None = None,
    vmap: Mapping[str, Any] | None = None,
    store: Any = None,
    keep_params: bool = False,
    checkpoint_every: float | int = 60.0,
    memory: float | int | None = None,
    progress: Progress | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """Run a training for every combination of the axes.

    Args:
        run: function of the axes, by name, returning a `Training`. It is called once a cell, while tracing.
        loop: `{name: values}` or `{name: {label: value}}`: axes that compile anew, because they change shapes or code.
        vmap: `{name: array}`: axes that are traced and batched. Hidden widths go as `jd.widths([...])`.
        store: path of a zarr store that is written as cells finish, and resumed from.
        keep_params: keep the final parameters beside the store; `jd.results.params` reads them.
        checkpoint_every: seconds between two checkpoints inside a cell, at least; a killed sweep loses no more than that and the
            time between two records. Only where `store` is a path. The resumed sweep equals the uninterrupted one bit for bit.
        memory: bytes that a device may hold; 70 % of what it has, or of what this machine has free, when None. Members that do not
            fit together run in blocks, one after the other.
        progress: who is told how far it is, such as `jd.ensemble.watch()`; nobody when None.
        attrs: attributes added to the dataset.

    Returns:
        An `xarray.Dataset` with dimensions `(*loop, *vmap, step, *probe dimensions)`, the variables of the records,
        `diverged_at` (the step at which a member diverged, or -1) and `done`. Read lazily from `store` where there is one.

    Raises:
        TypeError: where axes and arguments of `run` do not match, or `run` decides in Python on a traced axis.
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
    if keep_params and not isinstance(store, (str, Path)):
        raise ValueError("`keep_params=True` keeps the parameters beside a store on disk; give `store=` a path.")
    if not checkpoint_every >= 0:
        raise ValueError(f"`checkpoint_every` is a number of seconds, at least 0, but is {checkpoint_every}.")
    kept = stores.layout(store)
    chosen = plan(run, loop=loop, vmap=vmap, memory=memory, layout=None if kept is None else Layout.from_json(kept))
    checkpoints = Checkpoints(Path(store) if isinstance(store, (str, Path)) else None, checkpoint_every)
    return _Sweep(chosen, store, keep_params, checkpoints, progress or Silent(), dict(attrs or {})).execute()


class _Sweep:
    """One execution of a plan: where it writes, whom it tells, what it spent."""

    def __init__(
        self,
        chosen: Plan,
        where: Any,
        keep_params: bool,
        checkpoints: Checkpoints,
        progress: Progress,
        attrs: dict[str, Any],
    ) -> None:
        self.plan = chosen
        self.where = where
        self.keep_params = keep_params
        self.checkpoints = checkpoints
        self.progress = progress
        self.attrs = attrs
        self.seconds = {"compiling": 0.0, "running": 0.0}
        self.store: Any = None

    def execute(self) -> Any:
        self.open()
        with stores.exclusive(self.store.where):
            return self.fill()

    def fill(self) -> Any:
        """Compute what is missing, cell by cell."""
        cells = self.plan.cells
        self.progress.start(len(cells), float(sum(cell.num_members * cell.steps for cell in cells)))
        try:
            for cell, following in itertools.zip_longest(cells, cells[1:]):
                self.progress.cell(cell.name, cell.num_members)
                self.cell(cell)
                if following is None or following.group != cell.group:
                    self.plan.release(cell)
        finally:
            self.progress.stop()
        spent = {f"seconds_{name}": value for name, value in self.seconds.items()}
        before = self.store.attrs
        total = {name: round(before.get(name, 0.0) + value, 3) for name, value in spent.items()}
        self.guard(lambda: self.store.update_attrs(**total))
        found = stores.open(self.store.where)
        return found if self.where is not None else found.load()

    def open(self) -> None:
        """Lay out the dataset, and make or reopen its store."""
        axes = self.plan.axes
        records = [record for cell in self.plan.cells for record in cell.records]
        blocks = {axis.name: length for axis, length in zip(axes.vmap, self.plan.layout.block, strict=True)}
        if axes.width is not None:  # buckets of widths lie anywhere along their axis
            blocks[axes.vmap[axes.width].name] = 1
        layout = template({axis.name: axis.labels for axis in axes.every}, records, blocks=blocks)
        fingerprint = {
            "axis": {axis.name: _digest(axis.labels, axis.values) for axis in axes.every},
            "record": {cell.key: _signature(cell) for cell in self.plan.cells},
            "version": versions() | {"float64": str(jax.config.values["jax_enable_x64"])},
        }
        attributes = {**_describe(self.plan), **provenance(), **self.attrs}
        where = self.where
        if where is None:
            import zarr

            where = zarr.storage.MemoryStore()
        self.guard(lambda: setattr(self, "store", stores.create_or_open(where, layout, fingerprint, attributes)))

    def cell(self, cell: Cell) -> None:
        """Compute one cell and write it, unless it is there already."""
        began = time.monotonic()
        programme = self.plan.programme(cell)
        fingerprint = programme.fingerprint if self.where is not None else {}
        committed = self.store.committed(cell.key)
        if committed is not None:
            self.compare(cell, committed, fingerprint)
            self.checkpoints.clear(cell.key)
            self.progress.advance(float(cell.num_members * cell.steps))
            return
        needed = programme.memory()  # compiles it
        if needed > self.plan.budget:
            raise MemoryError(
                f"The cell {cell.name or cell.key} needs {text(needed)} on each device, and the budget is {text(self.plan.budget)}; "
                "raise `memory=`, or give the probes a `batch_size`."
            )
        compiled = time.monotonic()
        values, state = self.run(cell, programme, fingerprint)
        self.seconds["compiling"] += compiled - began
        self.seconds["running"] += time.monotonic() - compiled
        shaped = {name: value.reshape((*cell.shape, *value.shape[1:])) for name, value in values.items()}
        self.guard(lambda: self.write(cell, shaped, state, fingerprint), (cell, shaped))
        self.checkpoints.clear(cell.key)

    def run(
        self, cell: Cell, programme: Programme, fingerprint: Mapping[str, str]
    ) -> tuple[dict[str, np.ndarray], Any]:
        """Drive one cell through its pieces, from its last checkpoint where there is one."""
        state, carried = programme.start(cell.arguments)
        count = cell.num_members
        first, taken, reached = 0, dict[str, list[np.ndarray]](), 0
        saved = self.checkpoints.latest(cell.key, fingerprint, state)
        if saved is not None:
            first, state = saved.piece, programme.lay(saved.state)
            taken = {name: [value] for name, value in saved.values.items()}
            reached = self.reach(programme, count, 0, first)
        for piece in range(first, len(programme.pieces)):
            times = programme.pieces[piece]
            state, values = programme.go_on(carried, state, times)
            for position, yields in enumerate(programme.variables):
                rows = times.rows(position)
                for name in yields:
                    taken.setdefault(name, []).append(np.asarray(values[name])[:count, rows])
            reached = self.reach(programme, count, reached, piece + 1)
            if self.checkpoints.is_due() and piece + 1 < len(programme.pieces):
                self.checkpoints.save(cell.key, fingerprint, Progressed(piece + 1, trim(state, count), _joined(taken)))
        state = trim(state, count)
        return {**_joined(taken), DIVERGED_AT: np.asarray(state.diverged_at)}, state

    def reach(self, programme: Programme, num_members: int, before: int, num_pieces: int) -> int:
        """Tell how far the members are after so many pieces."""
        step = int(programme.pieces[num_pieces - 1].stop[-1])
        self.progress.advance(float((step - before) * num_members))
        return step

    def write(self, cell: Cell, values: Mapping[str, np.ndarray], state: Any, fingerprint: Mapping[str, str]) -> None:
        if self.keep_params:
            for key, index, tree in _trimmed(self.plan, cell, state.params):
                save_params(Path(self.where), key, index, tree)
        self.store.write(cell.key, self.plan.index(cell), values, fingerprint)

    def compare(self, cell: Cell, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        named = {"programme": "the programme itself", "arrays": "the arrays that `run` closes over (task, anchor, …)"}
        for part, words in named.items():
            if old.get(part) != new.get(part):
                raise ValueError(
                    f"The store {str(self.where)!r} belongs to another sweep: {words} of the cell {cell.name or cell.key} "
                    "changed since it was computed. Choose another path for `store=`, or delete it."
                )

    def guard(self, action: Callable[[], Any], unwritten: tuple[Cell, Mapping[str, np.ndarray]] | None = None) -> None:
        """Do something to the store; where the disk fails, hand out what was computed."""
        try:
            action()
        except OSError as error:
            failure = stores.StoreError(
                f"The store {str(self.where)!r} could not be written: {error}. Cells that were finished are safe; free space (or "
                "mend the permissions) and run the same sweep again, which computes only what is missing. Everything "
                "computed so far, the last cell included, is in this exception's `dataset`."
            )
            failure.dataset = self.rescue(unwritten)
            raise failure from error

    def rescue(self, unwritten: tuple[Cell, Mapping[str, np.ndarray]] | None) -> Any:
        """What is in the store, and the cell that could not be written, in memory."""
        if self.store is None:
            return None
        found = stores.open(self.store.where).load()
        if unwritten is not None:
            cell, values = unwritten
            where = np.ix_(
                *(
                    np.atleast_1d(np.arange(n)[i])
                    for n, i in zip(self.plan.axes.shape, self.plan.index(cell), strict=True)
                )
            )
            for name, value in {**values, DONE: np.ones(cell.shape, bool)}.items():
                held = found[name].values
                held[where] = value.reshape(held[where].shape)
                found[name] = (found[name].dims, held)
        return found


def _joined(taken: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(parts, axis=1) for name, parts in taken.items()}


def _signature(cell: Cell) -> dict[str, Any]:
    """What is recorded when, in plain words: part of the store's fingerprint."""
    return {
        dim: {
            "times": f"{len(times)} from {times[0]} to {times[-1]} ({_digest(times)})",
            "variables": {name: f"{one.dtype}{list(one.shape)}" for name, one in yields.items()},
        }
        for dim, times, yields in cell.records
    }


def _digest(*values: Any) -> str:
    """A short hash of labels and values; functions count by name."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(values, is_leaf=callable):
        if jax.numpy.issubdtype(getattr(leaf, "dtype", np.dtype(object)), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        is_array = isinstance(leaf, (np.ndarray, jax.Array, int, float, bool, str, np.generic))
        found.update(
            repr(np.asarray(leaf).tolist()).encode() if is_array else str(getattr(leaf, "__name__", "")).encode()
        )
    return found.hexdigest()[:16]


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


def _trimmed(chosen: Plan, cell: Cell, params: Any) -> list[tuple[str, dict[str, list[int]], Any]]:
    """Final parameters without padding: one entry a width of the cell, `(key, positions by axis, tree)`."""
    axes = chosen.axes
    index = {axis.name: [i] for axis, i in zip(axes.loop, cell.loop, strict=True)}
    index |= {axis.name: [int(i) for i in pick] for axis, pick in zip(axes.vmap, cell.picks, strict=True)}
    if axes.width is None:
        return [(cell.key, index, params)]
    entries = []
    width = axes.vmap[axes.width]
    for place, position in enumerate(cell.picks[axes.width]):
        shapes = _unpadded(chosen, cell, int(np.asarray(width.values.active)[position]))

        def trim(leaf: Any, shape: Any, place: int = place) -> np.ndarray:
            members = np.asarray(leaf).reshape((*cell.shape, *leaf.shape[1:]))
            members = np.take(members, place, axis=axes.width).reshape(-1, *leaf.shape[1:])
            return members[(slice(None), *(slice(0, length) for length in shape.shape))]

        own = index | {width.name: [int(position)]}
        entries.append((f"{cell.key}-{position}", own, jax.tree.map(trim, params, shapes)))
    return entries


def _unpadded(chosen: Plan, cell: Cell, active: int) -> Any:
    """Shapes of the parameters of the network of one width, without padding."""

    def init(values: Any) -> Any:
        return anchored(call_run(chosen.run, cell.fixed, values)).params0

    return jax.eval_shape(init, first_member(chosen.axes, active))
