"""What to look at, and when: snapshots, records and the timetable of a run.

A `Record` is a schedule and the probes taken on it. Several records may run at once; their times are merged into one
`Timetable`, a list of legs: at the start of a leg its probes are taken, then the run goes on to the leg's `stop`.
The timetable is data, not code: it is never batched, so a probe at a cadence is paid only at that cadence, and one
compiled programme serves all pieces of a run that have the same number of legs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxdyn._typing import Apply, Loss, Params
from jaxdyn.dynamics.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a probe may see: the state of one run after `step` completed steps.

    Attributes:
        step: number of completed steps.
        params: parameters.
        params0: the anchor, parameters at step 0.
        task: the task.
        batch: `(x, y)` that enters the next step.
        batch_loss: loss on that batch.
        optimizer_state: state of the optax transformation.
        apply: the function that is trained (expanded, where the training expands).
        network: the function before expansion.
        loss: `(prediction, y) -> scalar`.
    """

    step: Any
    params: Params
    params0: Params
    task: Any
    batch: tuple[Any, Any]
    batch_loss: Any
    optimizer_state: Any
    apply: Apply
    network: Apply
    loss: Loss


@dataclass(frozen=True, eq=False)
class Record:
    """A schedule, the probes taken on it, and the name of its time dimension.

    Attributes:
        at: the schedule.
        probes: `{name: probe}`; a probe is any `Snapshot -> Array`, or dict of arrays, whose keys are put behind the name
            (`name_key`; the key "" is the name itself).
        dim: dimension name of the record times in the dataset.
    """

    at: Schedule
    probes: Mapping[str, Any]
    dim: str = "step"


def record(at: Schedule, /, *, dim: str = "step", **probes: Any) -> Record:
    """Take the named probes on a schedule.

    Args:
        at: `every(k)`, `log_spaced(num)` or `at([...])`.
        dim: name of the time dimension; two records with different schedules need different names.
        **probes: the variables to record, by name.

    Raises:
        TypeError: for a schedule or a probe of another kind.

    Example:
        >>> from jaxdyn.dynamics.schedule import every
        >>> record(every(10), weight=lambda snapshot: snapshot.params).dim
        'step'
    """
    if not hasattr(at, "times"):
        raise TypeError(
            f"A record starts with a schedule, `every(k)`, `log_spaced(num)` or `at([...])`, but got {at!r}."
        )
    for name, probe in probes.items():
        if not callable(probe):
            raise TypeError(
                f"Probe `{name}` is {probe!r}, but a probe is a function of a Snapshot (did you forget `()`?)."
            )
        if isinstance(probe, type):
            raise TypeError(
                f"Probe `{name}` is the class {probe.__name__}; make one of it: `{name}={probe.__name__}()`."
            )
    return Record(at, dict(probes), dim)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Timetable:
    """The legs of a run, or of a piece of it; c legs, one slot array a record.

    Attributes:
        stop: number of completed steps at which each leg ends, [c].
        slots: for each record, where in its buffer the leg's values go, [c]; -1 where the record rests.
        capacity: for each record, the buffer's length; None where the record is taken on every leg (its values are
            then stacked, leg by leg).
        is_unit: no leg is longer than one step and the last one starts at the end, so that probes share their forward pass with the step.
    """

    stop: Int[Any, " c"]
    slots: tuple[Int[Any, " c"], ...]
    capacity: tuple[int | None, ...] = field(metadata={"static": True})
    is_unit: bool = field(metadata={"static": True})

    def rows(self, index: int) -> Int[np.ndarray, " t"]:
        """Which rows of record `index`'s values hold records (on the host)."""
        slots = np.asarray(self.slots[index])
        if self.capacity[index] is None:
            return np.flatnonzero(slots >= 0)
        return slots[slots >= 0]


def timetable(records: Sequence[Record], steps: int) -> Timetable:
    """The whole run as one timetable.

    Args:
        records: the records.
        steps: length of the run.
    """
    times = [np.asarray(one.at.times(steps)) for one in records]
    start = np.unique(np.concatenate([[0], *times])).astype(np.int32)
    stop = np.append(start[1:], steps).astype(np.int32)
    slots = tuple(
        np.where(np.isin(start, one), np.cumsum(np.isin(start, one)) - 1, -1).astype(np.int32) for one in times
    )
    capacity = tuple(None if (slot >= 0).all() else int(slot.max()) + 1 for slot in slots)
    is_unit = bool((stop - start).max(initial=0) <= 1 and start[-1] == steps)
    return Timetable(stop, slots, capacity, is_unit)


def pieces(whole: Timetable, num_legs: int) -> list[Timetable]:
    """Cut a timetable into pieces of `num_legs` legs each, the last one padded with legs that do nothing.

    All pieces have the same static structure, so one compiled programme serves them.
    """
    total = len(whole.stop)
    cuts = range(0, total, num_legs)
    padding = -total % num_legs
    stop = np.append(whole.stop, np.full(padding, whole.stop[-1], np.int32))
    slots = [np.append(slot, np.full(padding, -1, np.int32)) for slot in whole.slots]
    capacity = tuple(
        None if full is None else max(1, *(int((slot[cut : cut + num_legs] >= 0).sum()) for cut in cuts))
        for full, slot in zip(whole.capacity, slots, strict=True)
    )

    def piece(cut: int) -> Timetable:
        own = [slot[cut : cut + num_legs] for slot in slots]
        local = tuple(np.where(slot >= 0, np.cumsum(slot >= 0) - 1, -1).astype(np.int32) for slot in own)
        return Timetable(stop[cut : cut + num_legs], local, capacity, whole.is_unit)

    return [piece(cut) for cut in cuts]
