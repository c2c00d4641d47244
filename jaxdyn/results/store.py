"""Datasets on disk: one zarr group a sweep, readable by `xarray.open_zarr` at any moment.

A cell of a sweep is one region. Its values are written first, then its place in the `done` mask, then its own commit
record `cells/<key>` with the hashes of what was computed; a cell without a commit record is computed again, and so is one
whose chunks are no longer what was written. Every file is written beside its place and renamed, and every chunk carries a checksum.

A store lies at a path, or at a URL that fsspec knows (`s3://…`, `gs://…`, `memory://…`); checkpoints, locks and parameters
need a path.

A store belongs to one sweep: its fingerprint holds the axes, the records, the versions and, cell by cell, the hashes of
the programmes and of the arrays that went into them. A difference is refused, and named. But axes may grow: the attributes are
written first, then the arrays follow, when the store is next opened if need be.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdyn.results.dataset import DONE, Template
from jaxdyn.results.places import StoreLike, exclusive, exists, located, one_at_a_time, quiet
from jaxdyn.results.tiling import around, boxes, chunk_lengths, create_array, extend, misfit

_GROWING = "growing"  # an attribute while the arrays of a store do not have the length of its axes yet
_CONTENT = "content"  # the hash of a cell's values in its commit record
WHOLE = "every_chunk_is_written"  # the attribute of a store in which what was written has chunks, fill values or not


class StoreError(OSError):
    """A store could not be written, or what was written is gone.

    Attributes:
        dataset: the results so far, in memory, where a sweep could not write them; nothing is lost. None where a store
            could not be read.
    """

    dataset: Any = None


class Store:
    """An open store. Made by `create_or_open`."""

    def __init__(self, group: Any, where: StoreLike) -> None:
        self._group = group
        self.where = where

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the dataset."""
        return dict(self._group.attrs)

    def update_attrs(self, **attrs: Any) -> None:
        """Set attributes of the dataset."""
        import zarr

        with quiet():
            zarr.open_group(self._group.store, mode="r+", use_consolidated=True).attrs.update(attrs)
            self._group = zarr.open_group(self._group.store, mode="r+", use_consolidated=False)

    def committed(self, key: str) -> dict[str, str] | None:
        """The hashes of a finished cell, or None where it is not finished."""
        path = f"cells/{key}"
        if path not in self._group:
            return None
        return {name: str(value) for name, value in self._group[path].attrs.items() if name != _CONTENT}

    def is_intact(self, key: str, index: tuple[Any, ...]) -> bool:
        """Whether the values of a finished cell, in its region, are what was written: no chunk torn, flipped or lost."""
        told = dict(self._group[f"cells/{key}"].attrs).get(_CONTENT)
        try:
            found = {name: self._read(name, index) for name in told or {}}
            is_done = np.all(self._read(DONE, index))
        except (OSError, ValueError, RuntimeError):  # a checksum that fails, a chunk cut short
            return False
        return bool(is_done and told == {name: _digest(value) for name, value in found.items()})

    def write(self, key: str, index: tuple[Any, ...], values: Mapping[str, Any], commit: Mapping[str, str]) -> None:
        """Write the region of one cell, whole or not at all.

        Args:
            key: the cell.
            index: one integer, slice or index array for each axis.
            values: `{variable: array}`, shaped like the region.
            commit: hashes of what was computed.
        """
        content = {}
        for name, value in values.items():
            plain = np.asarray(value).astype(self._group[name].dtype)
            self._put(name, index, plain)
            content[name] = _digest(plain)
        for name, array in list(self._group.arrays()):
            is_coordinate = array.metadata.dimension_names == (name,)
            if not is_coordinate and name not in values and name != DONE:  # what this cell does not record
                self._put(name, index, np.asarray(array.fill_value))
        self._put(DONE, index, np.asarray(True))
        self._group.require_group("cells").create_group(key, attributes={**commit, _CONTENT: content}, overwrite=True)

    def _read(self, name: str, index: tuple[Any, ...]) -> Any:
        array = self._group[name]
        return array.get_orthogonal_selection(index) if index else array[...]

    def _put(self, name: str, index: tuple[Any, ...], value: np.ndarray) -> None:
        with _every_chunk():
            array = self._group[name]
        for box, part in boxes(index):
            new = value[part] if value.ndim else value
            whole = around(array, box)
            if whole == box:
                array[box] = new
                continue
            with one_at_a_time(self.where):  # members of other cells lie in these chunks
                try:
                    array[box] = new
                except (ValueError, RuntimeError):  # they are damaged, and their cells will be found to be
                    array[whole] = array.fill_value
                    array[box] = new


class Told(NamedTuple):
    """What a store tells of its sweep.

    Attributes:
        axes: for each axis its labels and a hash of each value, `{name: {"labels": […], "values": […]}}`.
        layout: how it was cut, as plain data.
        finished: keys of the cells that are computed.
    """

    axes: dict[str, Any]
    layout: dict[str, Any]
    finished: frozenset[str]


def create_or_open(
    where: StoreLike, template: Template, fingerprint: Mapping[str, Any], attrs: Mapping[str, Any]
) -> Store:
    """Make a new store, or open one that belongs to the same sweep, and let it grow where axes or records are more than it has.

    Args:
        where: a path, a URL or a zarr store object.
        template: the layout of the dataset.
        fingerprint: what identifies the sweep, `{part: hash or value}`.
        attrs: attributes of a dataset that is new or grows.

    Raises:
        ValueError: where the store belongs to another sweep (the part that differs is named), or is no store.
    """
    import zarr

    if exists(where):
        return _open(where, template, fingerprint, attrs)
    with quiet(), _every_chunk():
        group = zarr.create_group(located(where), overwrite=False)
        for name, labels in template.coordinates.items():
            create_array(group, name, (name,), labels.shape, labels.dtype, None, labels.shape)[...] = labels
        for name, field in template.fields.items():
            create_array(group, name, field.dims, field.shape, field.dtype, field.fill, chunk_lengths(field, template))
        for folder in ("cells", "params", "checkpoints"):
            group.create_group(folder)
        group.attrs.update({**attrs, "fingerprint": dict(fingerprint), WHOLE: True})
        zarr.consolidate_metadata(group.store, zarr_format=3)
        return Store(zarr.open_group(group.store, mode="r+", use_consolidated=False), where)


def open(where: StoreLike) -> Any:
    """The dataset of a store, lazily loaded; may be called while the sweep is running (`done` tells what is there).

    Args:
        where: a path, a URL or a zarr store object.

    Returns:
        An `xarray.Dataset`.

    Raises:
        ValueError: for a path that holds no store.
        StoreError: later, when values are read whose store was deleted or moved, or whose chunks are lost.
    """
    import xarray as xr
    import zarr

    from jaxdyn.results.reading import checked

    if not exists(where, is_store=True):
        raise ValueError(
            f"There is no jaxdyn store at {str(where)!r}; `jd.sweep(…, store=…)` or `jaxdyn run` makes one."
        )
    with quiet():
        group = zarr.open_group(located(where), mode="r", use_consolidated=False)
        store, path = checked(group, where) if DONE in group else group.store, group.path or None
        dataset = xr.open_zarr(store, group=path, chunks=None, consolidated=False, zarr_format=3)
    for name in ("fingerprint", WHOLE, _GROWING):
        dataset.attrs.pop(name, None)
    return dataset


def told(where: StoreLike) -> Told | None:
    """What a store tells of its sweep; None where there is no store yet.

    Raises:
        ValueError: for a store of an earlier jaxdyn.
    """
    import zarr

    if where is None or not exists(where, is_store=True):
        return None
    with quiet():
        group = zarr.open_group(located(where), mode="r", use_consolidated=False)
        attrs = dict(group.attrs)
        if "fingerprint" not in attrs:
            return None
        axes, layout = attrs["fingerprint"].get("axis", {}), attrs.get("layout", {})
        if "cells" not in layout or not all(isinstance(one, Mapping) for one in axes.values()):
            raise ValueError(
                f"The store {str(where)!r} was written by an earlier jaxdyn, and `jd.results.open` still reads it; choose another path for "
                "`store=`."
            )
        finished = frozenset(group["cells"].group_keys()) if "cells" in group else frozenset[str]()
    return Told(axes, layout, finished)


def _open(where: StoreLike, template: Template, fingerprint: Mapping[str, Any], attrs: Mapping[str, Any]) -> Store:
    import zarr

    if not exists(where, is_store=True):
        raise ValueError(f"{str(where)!r} exists but is no jaxdyn store; choose another path for `store=`.")
    with quiet():
        group = zarr.open_group(located(where), mode="r+", use_consolidated=False)
    found = dict(group.attrs).get("fingerprint")
    if found is None:
        raise ValueError(f"{str(where)!r} is a zarr group, but no jaxdyn store; choose another path for `store=`.")
    asked = json.loads(json.dumps(fingerprint))
    records = {key: one for key, one in found["record"].items() if key in asked["record"]}
    known = {key: one for key, one in asked["record"].items() if key in records}
    differing = _difference({**found, "axis": {}, "record": records}, {**asked, "axis": {}, "record": known})
    differing = differing or misfit(group, template)
    if differing:
        raise ValueError(
            f"The store {str(where)!r} belongs to another sweep: {differing}. Ask for what it holds, or choose another path for `store=`."
        )
    grown = {**found, "axis": asked["axis"], "record": {**found["record"], **asked["record"]}}
    is_behind = _GROWING in group.attrs
    if grown == found and not is_behind:
        return Store(group, where)
    with exclusive(where), quiet():
        group = zarr.open_group(group.store, mode="r+", use_consolidated=False)
        if dict(group.attrs)["fingerprint"] != found:
            raise ValueError(f"The store {str(where)!r} was changed by another run just now; run the same sweep again.")
        if grown != found:
            # readers see the old axes until all is done
            old = zarr.open_group(group.store, mode="r+", use_consolidated=True)
            old.attrs.update({**attrs, "fingerprint": grown, _GROWING: True})
        with _every_chunk():
            extend(zarr.open_group(group.store, mode="r+", use_consolidated=False), template)
        zarr.consolidate_metadata(group.store, zarr_format=3)
        del zarr.open_group(group.store, mode="r+", use_consolidated=True).attrs[_GROWING]
        return Store(zarr.open_group(group.store, mode="r+", use_consolidated=False), where)


def _difference(old: Any, new: Any, path: str = "") -> str | None:
    """The first difference between two fingerprints, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            where = f"{path} `{key}`".strip()
            if key not in new:
                return f"{where} was {old[key]!r} and is absent now"
            if key not in old:
                return f"{where} was absent and is {new[key]!r} now"
            found = _difference(old[key], new[key], where)
            if found:
                return found
        return None
    return None if old == new else f"{path} was {old!r} and is {new!r} now"


def _digest(value: Any) -> str:
    """A hash of an array's values; every NaN counts as the same."""
    array = np.ascontiguousarray(value)
    if array.dtype.kind in "fc":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    return hashlib.sha256(f"{array.dtype}{np.shape(value)}".encode() + array.tobytes()).hexdigest()


def _every_chunk() -> Any:
    """A context in which arrays are opened such that chunks of nothing but fill values are written too."""
    import zarr

    return zarr.config.set({"array.write_empty_chunks": True})
