"""One execution of a plan: cells compiled ahead, driven in pieces, checkpointed, and written when they are done."""

import importlib
import itertools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxdyn.ensemble.compiling.programme import Programme, trim
from jaxdyn.ensemble.deciding.cells import Cell, Plan
from jaxdyn.ensemble.deciding.memory import text
from jaxdyn.ensemble.doing import processes
from jaxdyn.ensemble.doing.ahead import Ahead
from jaxdyn.ensemble.doing.checkpoint import Checkpoints, Progressed
from jaxdyn.ensemble.doing.interrupt import Signals, postponed
from jaxdyn.ensemble.doing.progress import Progress, glance
from jaxdyn.ensemble.doing.trimming import trimmed
from jaxdyn.results import store as stores
from jaxdyn.results.dataset import DIVERGED_AT, DONE, STOPPED_AT
from jaxdyn.results.params import save_params
from jaxdyn.results.places import as_path, exclusive

LAID_OUT = "jaxdyn: the store is laid out"
"""Where the other processes wait for the first one."""

Stop = Callable[[Mapping[str, np.ndarray]], Any]
"""A condition on what the members of a cell have recorded, `{variable: [members, rows, …]} -> [members]`, true where one is done."""


@dataclass(eq=False)
class Execution:
    """What an execution needs, and what it has spent.

    Attributes:
        plan: the cells.
        where: where the store lies, as the user gave it; None for one in memory.
        lay_out: makes or opens the store.
        keep_params: whether final parameters are kept.
        checkpoints: the checkpoints inside cells.
        progress: who is told.
        stop: condition under which a cell ends early, or None.
        is_new: whether there was no store before.
        store: the open store.
        seconds: spent running.
    """

    plan: Plan
    where: Any
    lay_out: Callable[[], Any]
    keep_params: bool
    checkpoints: Checkpoints
    progress: Progress
    stop: Stop | None
    is_new: bool
    store: Any = None
    seconds: float = 0.0

    def execute(self) -> Any:
        """Compute what is missing of this process's share, and return the dataset."""
        cells = processes.share(self.plan.cells, jax.process_count())[jax.process_index()]
        with Ahead(self.plan) as ahead:
            if self.is_new:  # XLA compiles in its threads while this one makes the store
                ahead.begin(cells)
            self.guard(lambda: setattr(self, "store", self.lay_out()))
            importlib.import_module("xarray")  # a second, here beside the first compilation rather than at the end
            if processes.is_first():
                with exclusive(self.store.where):
                    processes.wait(LAID_OUT)
                    self.fill(cells, ahead)
                    processes.wait("jaxdyn: every cell is done")
            else:
                self.fill(cells, ahead)
                processes.wait("jaxdyn: every cell is done")
        found = stores.open(self.store.where)
        return found if self.where is not None else found.load()

    def fill(self, cells: Sequence[Cell], ahead: Ahead) -> None:
        """Compute what is missing of these cells, one by one."""
        self.progress.start(len(cells), float(sum(cell.num_members * cell.steps for cell in cells)))
        try:
            missing = self.missing(cells)
            ahead.begin(missing)
            with postponed(self.checkpoints.is_on) as signals:
                for number, cell in enumerate(missing):
                    self.progress.cell(cell.name, cell.num_members)
                    self.cell(cell, ahead, signals)
                    signals.leave()
                    if cell.group not in {other.group for other in missing[number + 1 :]}:
                        self.plan.release(cell)
        finally:
            self.progress.stop()
        if processes.is_first():
            before = self.store.attrs
            spent = {f"seconds_{name}": value for name, value in {**ahead.seconds, "running": self.seconds}.items()}
            total = {name: round(before.get(name, 0.0) + value, 3) for name, value in spent.items()}
            self.guard(lambda: self.store.update_attrs(**total))

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """The cells that are not in the store yet."""
        found: list[Cell] = []
        for cell, following in itertools.zip_longest(cells, cells[1:]):
            if not self.is_there(cell):
                found.append(cell)
            is_last = following is None or following.group != cell.group
            if is_last and cell.group not in {other.group for other in found}:
                self.plan.release(cell)
        return found

    def is_there(self, cell: Cell) -> bool:
        """Whether a cell is in the store, whole, and belongs to this sweep."""
        committed = self.store.committed(cell.key)
        if committed is None:
            return False
        self.compare(cell, committed, self.plan.programme(cell).fingerprint)
        if not self.store.is_intact(cell.key, cell.cut.index):
            if cell.num_members < cell.cut.num_members:
                raise ValueError(
                    f"The cell {cell.name or cell.key!r} of the store {str(self.where)!r} is damaged, and holds members beside those "
                    "asked for. Ask for all values that the store holds: the cell is then computed again."
                )
            warnings.warn(
                f"The cell {cell.name or cell.key!r} of the store {str(self.where)!r} is damaged: what is on disk is not what was "
                "written. It is computed again.",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        self.checkpoints.clear(cell.key)
        self.progress.cell(cell.name, cell.num_members)
        self.progress.advance(float(cell.num_members * cell.steps), None)
        return True

    def cell(self, cell: Cell, ahead: Ahead, signals: Signals) -> None:
        """Compute one cell and write it."""
        programme = ahead.take(cell)
        fingerprint = programme.fingerprint if self.where is not None else {}
        needed = programme.memory()
        if needed > self.plan.budget:
            raise MemoryError(
                f"The cell {cell.name or cell.key} needs {text(needed)} on each device, and the budget is {text(self.plan.budget)}; "
                "raise `memory=`, or give the probes a `batch_size`."
            )
        began = time.monotonic()
        self.progress.begin()
        values, state = self.run(cell, programme, fingerprint, signals)
        self.seconds += time.monotonic() - began
        shaped = {name: value.reshape((*cell.shape, *value.shape[1:])) for name, value in values.items()}
        self.guard(lambda: self.write(cell, shaped, state, fingerprint), (cell, shaped))
        self.checkpoints.clear(cell.key)

    def run(
        self, cell: Cell, programme: Programme, fingerprint: Mapping[str, str], signals: Signals
    ) -> tuple[dict[str, np.ndarray], Any]:
        """Drive one cell through its pieces, from its last checkpoint where there is one."""
        state, carried = programme.start(cell.arguments)
        count = cell.num_members
        first, taken, reached = 0, dict[str, list[np.ndarray]](), 0
        saved = self.checkpoints.latest(cell.key, fingerprint, state)
        if saved is not None:
            first, state = saved.piece, programme.lay(saved.state)
            taken = {name: [value] for name, value in saved.values.items()}
            reached = self.reach(cell, programme, state, taken, 0, first)
        done = first
        while done < len(programme.pieces) and not (done and self.is_over(cell, state, taken)):
            times = programme.pieces[done]
            state, values = programme.go_on(carried, state, times)
            for position, yields in enumerate(programme.variables):
                rows = times.rows(position)
                for name in yields:
                    taken.setdefault(name, []).append(np.asarray(values[name])[:count, rows])
            done += 1
            reached = self.reach(cell, programme, state, taken, reached, done)
            if done < len(programme.pieces) and (signals.is_pending or self.checkpoints.is_due()):
                self.checkpoints.save(cell.key, fingerprint, Progressed(done, trim(state, count), _joined(taken)))
                signals.leave()
        if done < len(programme.pieces):
            self.progress.advance(float((cell.steps - reached) * count), None)
        ends = {DIVERGED_AT: np.asarray(state.diverged_at)[:count]}
        if self.stop is not None:
            ends[STOPPED_AT] = np.full(count, reached if done < len(programme.pieces) else -1, np.int32)
        return {**_filled(_joined(taken), programme, cell), **ends}, state

    def reach(
        self,
        cell: Cell,
        programme: Programme,
        state: Any,
        taken: Mapping[str, list[np.ndarray]],
        before: int,
        done: int,
    ) -> int:
        """Tell how far the members are after so many pieces, and how they are doing."""
        step = int(programme.pieces[done - 1].stop[-1])
        diverged_at = np.asarray(state.diverged_at)[: cell.num_members]
        self.progress.advance(float((step - before) * cell.num_members), glance(diverged_at, taken))
        return step

    def is_over(self, cell: Cell, state: Any, taken: Mapping[str, list[np.ndarray]]) -> bool:
        """Whether every member has diverged or meets the condition."""
        is_done = np.asarray(state.diverged_at)[: cell.num_members] >= 0
        if self.stop is not None and not is_done.all():
            met = np.asarray(self.stop(_joined(taken)), bool)
            if met.shape != is_done.shape:
                raise ValueError(
                    f"`stop` returns one truth value a member, {is_done.shape}, but returned an array of shape {met.shape}."
                )
            is_done = is_done | met
        return bool(is_done.all())

    def write(self, cell: Cell, values: Mapping[str, np.ndarray], state: Any, fingerprint: Mapping[str, str]) -> None:
        """Write a finished cell."""
        path = as_path(self.where)
        if self.keep_params and path is not None:
            for key, index, tree in trimmed(self.plan, cell, trim(state, cell.num_members).params):
                save_params(path, key, index, tree)
        self.store.write(cell.key, cell.cut.index, values, fingerprint)

    def compare(self, cell: Cell, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Refuse a cell that another programme, or other data, computed."""
        named = {"programme": "the programme itself", "arrays": "the arrays that `run` closes over (task, anchor, …)"}
        for part, words in named.items():
            if old.get(part) != new.get(part):
                raise ValueError(
                    f"The store {str(self.where)!r} belongs to another sweep: {words} of the cell {cell.name or cell.key} "
                    "changed since it was computed. Ask with what computed it, or choose another path for `store=`."
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
            sizes = zip(self.plan.held.shape, cell.cut.index, strict=True)
            where = np.ix_(*(np.atleast_1d(np.arange(n)[i]) for n, i in sizes))
            for name, value in {**values, DONE: np.ones(cell.shape, bool)}.items():
                held = found[name].values
                held[where] = value.reshape(held[where].shape)
                found[name] = (found[name].dims, held)
        return found


def _joined(taken: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(parts, axis=1) for name, parts in taken.items()}


def _filled(taken: Mapping[str, np.ndarray], programme: Programme, cell: Cell) -> dict[str, np.ndarray]:
    """What was recorded, with the records that an early end left out as missing values."""
    found = {}
    for (_, times, _), yields in zip(cell.records, programme.variables, strict=True):
        for name in yields:
            value = taken[name]
            missing = len(times) - value.shape[1]
            fill = np.nan if value.dtype.kind in "fc" else -1 if value.dtype.kind == "i" else 0
            rest = np.full((value.shape[0], missing, *value.shape[2:]), fill, value.dtype)
            found[name] = np.concatenate([value, rest], axis=1) if missing else value
    return found
