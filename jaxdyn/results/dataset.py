"""From recorded values and axes to a labelled dataset: the only home of dimension names.

Dimensions are `(*loop axes, *vmap axes, record times, *probe dimensions)`. A probe names its own dimensions (`dims`);
one that does not gets `name_0, name_1, …`. A dimension whose length differs from that of an earlier variable carries
its variable's name as a suffix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxdyn.dynamics import Training, Trajectory, Variable, init, variables

DIVERGED_AT = "diverged_at"
DONE = "done"
STOPPED_AT = "stopped_at"


@dataclass(frozen=True, eq=False)
class Field:
    """One variable of a dataset before it is filled.

    Attributes:
        dims: dimension names.
        shape: lengths.
        dtype: numpy dtype on disk.
        fill: the value where nothing was computed yet.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any


@dataclass(frozen=True, eq=False)
class Template:
    """A dataset before it is filled.

    Attributes:
        axes: the axes of the sweep.
        blocks: how many indices of an axis are written together; one where an axis is absent.
        fields: the variables.
        coordinates: the labels of the dimensions that have some.
    """

    axes: tuple[str, ...]
    blocks: Mapping[str, int]
    fields: Mapping[str, Field]
    coordinates: Mapping[str, np.ndarray]


def template(
    axes: Mapping[str, np.ndarray],
    records: Sequence[tuple[str, np.ndarray, Mapping[str, Variable]]],
    *,
    blocks: Mapping[str, int] | None = None,
    can_stop: bool = False,
) -> Template:
    """Lay out the dataset of a sweep.

    Args:
        axes: `{name: labels}`, loop axes first.
        records: for each record, its time dimension, its times, and what it yields.
        blocks: how many indices of a vmap axis are written together; loop axes are written one by one.
        can_stop: whether runs may end early, at a step that `stopped_at` tells.

    Raises:
        ValueError: where two names collide, or two schedules share a time dimension.
    """
    lead, lengths = tuple(axes), tuple(len(labels) for labels in axes.values())
    sizes = dict(zip(lead, lengths, strict=True))
    coordinates = {name: np.asarray(labels) for name, labels in axes.items()}
    for dim, times, _ in records:
        if dim in axes:
            raise ValueError(
                f"The time dimension `{dim}` is also an axis of the sweep; name it with `jd.record(…, dim=…)`."
            )
        if dim in coordinates and not np.array_equal(coordinates[dim], times):
            raise ValueError(
                f"Two records with different schedules share the dimension `{dim}`; give one of them a name of its own with "
                "`jd.record(…, dim=…)`."
            )
        coordinates[dim] = times
        sizes[dim] = len(times)
    fields: dict[str, Field] = {}
    for dim, times, yields in records:
        for name, variable in yields.items():
            if name in coordinates or name in (DIVERGED_AT, DONE, STOPPED_AT):
                raise ValueError(
                    f"The variable `{name}` has the name of an axis or of a variable jaxdyn adds; rename it."
                )
            own = _dims(name, variable, sizes)
            sizes.update(zip(own, variable.shape, strict=True))
            dtype = _storable(variable.dtype)
            if name in fields and fields[name].shape[len(lead) :] != (len(times), *variable.shape):
                raise ValueError(
                    f"The variable `{name}` has shape {variable.shape} in one cell of the sweep and another one elsewhere; give "
                    "it another name there, or sweep that axis in a call of its own."
                )
            fields[name] = Field((*lead, dim, *own), (*lengths, len(times), *variable.shape), dtype, _fill(dtype))
    fields[DIVERGED_AT] = Field(lead, lengths, np.dtype(np.int32), np.int32(-1))
    if can_stop:
        fields[STOPPED_AT] = Field(lead, lengths, np.dtype(np.int32), np.int32(-1))
    fields[DONE] = Field(lead, lengths, np.dtype(bool), False)
    return Template(lead, dict(blocks or {}), fields, coordinates)


def dataset(training: Training, trajectory: Trajectory) -> Any:
    """The trajectory of one run as an `xarray.Dataset` with dimensions `(record times, *probe dimensions)`.

    Args:
        training: what was run.
        trajectory: what `train(training)` returned.
    """
    import xarray as xr

    records = [
        (record.dim, np.asarray(record.at.times(training.steps)), yields)
        for record, yields in zip(training.records, variables(training, init(training)), strict=True)
    ]
    layout = template({}, records)
    values = {**trajectory.values, DIVERGED_AT: trajectory.diverged_at, DONE: True}
    data = {name: (field.dims, np.asarray(values[name]).astype(field.dtype)) for name, field in layout.fields.items()}
    return xr.Dataset(data, layout.coordinates)


def _dims(name: str, variable: Variable, sizes: Mapping[str, int]) -> tuple[str, ...]:
    given = getattr(variable.probe, "dims", None)
    if isinstance(given, Mapping):
        given = given.get(variable.part)
    if given is None:
        given = tuple(f"{name}_{i}" for i in range(len(variable.shape)))
    if len(given) != len(variable.shape):
        raise ValueError(
            f"Probe `{name}` names the dimensions {tuple(given)}, but its value has shape {variable.shape}; name one "
            "dimension an axis."
        )
    return tuple(
        dim if sizes.get(dim, size) == size else f"{dim}_{name}"
        for dim, size in zip(given, variable.shape, strict=True)
    )


def _storable(dtype: Any) -> np.dtype[Any]:
    """The numpy type a JAX type is stored as: bfloat16 and other small floats become float32."""
    plain = np.dtype(dtype)
    return plain if plain.kind in "biufc" else np.dtype(np.float32)


def _fill(dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "fc":
        return dtype.type(np.nan)
    return False if dtype.kind == "b" else dtype.type(-1 if dtype.kind == "i" else 0)
