"""Datasets on disk: one zarr group a sweep, readable by `xarray.open_zarr` at any moment.

A cell of a sweep is one region. Its values are written first, then its place in the `done` mask, then its own commit
record `cells/<key>` with the hashes of what was computed; a cell without a commit record is computed again. Every file
is written beside its place and renamed, and every chunk carries a checksum.

A store belongs to one sweep: its fingerprint holds the axes, the records, the versions and, cell by cell, the hashes of
the programmes and of the arrays that went into them. A difference is refused, and named.
"""

import json
import math
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxdyn.results.dataset import DONE, Field, Template

_CHUNK = 4e6  # bytes of a chunk, at most

StoreLike = Any
"""A path, or a zarr store object."""


class StoreError(OSError):
    """A store could not be written. `dataset` holds everything that was computed, so that nothing is lost.

    Attributes:
        dataset: the results so far, in memory.
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

        with _quiet():
            zarr.open_group(self._group.store, mode="r+", use_consolidated=True).attrs.update(attrs)
            self._group = zarr.open_group(self._group.store, mode="r+", use_consolidated=False)

    def committed(self, key: str) -> dict[str, str] | None:
        """The hashes of a finished cell, or None where it is not finished."""
        path = f"cells/{key}"
        return dict(self._group[path].attrs) if path in self._group else None

    def write(self, key: str, index: tuple[Any, ...], values: Mapping[str, Any], commit: Mapping[str, str]) -> None:
        """Write the region of one cell, whole or not at all.

        Args:
            key: the cell.
            index: one integer, slice or index array for each axis.
            values: `{variable: array}`, shaped like the region.
            commit: hashes of what was computed.
        """
        for name, value in values.items():
            self._group[name].set_orthogonal_selection(index, np.asarray(value)) if index else self._fill(name, value)
        done = np.ones(np.shape(self._group[DONE].get_orthogonal_selection(index)) if index else (), bool)
        self._group[DONE].set_orthogonal_selection(index, done) if index else self._fill(DONE, done)
        self._group.require_group("cells").create_group(key, attributes=dict(commit), overwrite=True)

    def _fill(self, name: str, value: Any) -> None:
        self._group[name][...] = np.asarray(value)


def create_or_open(
    where: StoreLike, template: Template, fingerprint: Mapping[str, Any], attrs: Mapping[str, Any]
) -> Store:
    """Make a new store, or open one that belongs to the same sweep.

    Args:
        where: a path or a zarr store object.
        template: the layout of the dataset.
        fingerprint: what identifies the sweep, `{part: hash or value}`.
        attrs: attributes of a new dataset.

    Raises:
        ValueError: where the store belongs to another sweep (the part that differs is named), or is no store.
    """
    import zarr

    if isinstance(where, (str, Path)) and Path(where).exists():
        return _open(Path(where), fingerprint)
    with _quiet():
        group = zarr.create_group(where, overwrite=False)
        for name, labels in template.coordinates.items():
            _create(group, name, (name,), labels.shape, labels.dtype, None, labels.shape)[...] = labels
        for name, field in template.fields.items():
            _create(group, name, field.dims, field.shape, field.dtype, field.fill, _chunks(field, template))
        for folder in ("cells", "params", "checkpoints"):
            group.create_group(folder)
        group.attrs.update({**attrs, "fingerprint": dict(fingerprint)})
        zarr.consolidate_metadata(group.store, zarr_format=3)
        return Store(zarr.open_group(group.store, mode="r+", use_consolidated=False), where)


def open(where: StoreLike) -> Any:
    """The dataset of a store, lazily loaded; may be called while the sweep is running (`done` tells what is there).

    Args:
        where: a path or a zarr store object.

    Returns:
        An `xarray.Dataset`.

    Raises:
        ValueError: for a path that holds no store.
    """
    import xarray as xr

    if isinstance(where, (str, Path)) and not (Path(where) / "zarr.json").exists():
        raise ValueError(
            f"There is no jaxdyn store at {str(where)!r}; `jd.sweep(…, store=…)` or `jaxdyn run` makes one."
        )
    with _quiet():
        dataset = xr.open_zarr(where, chunks=None, consolidated=False, zarr_format=3)
    dataset.attrs.pop("fingerprint", None)
    return dataset


def layout(where: StoreLike) -> dict[str, Any] | None:
    """How the sweep of a store is cut, or None where there is no store yet."""
    import zarr

    if not isinstance(where, (str, Path)) or not (Path(where) / "zarr.json").exists():
        return None
    with _quiet():
        found = dict(zarr.open_group(where, mode="r", use_consolidated=False).attrs).get("layout")
    return dict(found) if isinstance(found, Mapping) else None


@contextmanager
def exclusive(where: StoreLike) -> Iterator[None]:
    """Hold a store on disk for one run; the system lets go of it when the process ends, however it ends.

    Args:
        where: a path; other stores cannot be held.

    Raises:
        ValueError: where another run holds it; the run is named.
    """
    held = None
    if isinstance(where, (str, Path)) and sys.platform != "win32":
        import fcntl

        try:
            held = (Path(where) / "checkpoints" / "lock").open("a+")
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.truncate(0)
            held.write(f"process {os.getpid()} on {socket.gethostname()}")
            held.flush()
        except BlockingIOError as error:
            assert held is not None
            with held:
                held.seek(0)
                raise ValueError(
                    f"The store {str(where)!r} is being written by another run ({held.read()}). Wait for it, or choose another "
                    "path for `store=`."
                ) from error
        except OSError:  # read-only, or a file system without locks: whoever writes will be told
            pass
    try:
        yield
    finally:
        if held is not None:
            held.close()


def _open(path: Path, fingerprint: Mapping[str, Any]) -> Store:
    import zarr

    if not (path / "zarr.json").exists():
        raise ValueError(f"{str(path)!r} exists but is no jaxdyn store; choose another path for `store=`.")
    with _quiet():
        group = zarr.open_group(path, mode="r+", use_consolidated=False)
    found = dict(group.attrs).get("fingerprint")
    if found is None:
        raise ValueError(f"{str(path)!r} is a zarr group, but no jaxdyn store; choose another path for `store=`.")
    differing = _difference(found, json.loads(json.dumps(fingerprint)))
    if differing:
        raise ValueError(
            f"The store {str(path)!r} belongs to another sweep: {differing}. Choose another path for `store=`, or delete it."
        )
    return Store(group, path)


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


def _chunks(field: Field, template: Template) -> tuple[int, ...]:
    """Chunks that never cross a block: the axes of a block are joined, last first, up to a few megabytes."""
    chunks = [1 if dim in template.axes else length for dim, length in zip(field.dims, field.shape, strict=True)]
    for position in reversed(range(len(chunks))):
        block = min(template.blocks.get(field.dims[position], 1), field.shape[position])
        if field.dims[position] in template.axes and block > 1:
            room = max(1, int(_CHUNK / max(math.prod(chunks) * field.dtype.itemsize, 1)))
            chunks[position] = _part(block, field.shape[position], room)
    return tuple(chunks)


def _part(block: int, length: int, most: int) -> int:
    """The length of a chunk, at most `most`: anything where one block is the whole axis, else a divisor of the block."""
    if block <= most:
        return block
    if block == length:
        return -(-length // -(-length // most))
    return max(divisor for divisor in range(1, most + 1) if block % divisor == 0)


def _create(group: Any, name: str, dims: Any, shape: Any, dtype: Any, fill: Any, chunks: Any) -> Any:
    from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

    if np.dtype(dtype).kind in "US":
        return group.create_array(
            name, shape=shape, dtype=dtype, chunks=tuple(max(1, c) for c in chunks), dimension_names=dims
        )
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=tuple(max(1, c) for c in chunks),
        fill_value=fill,
        dimension_names=dims,
        serializer=BytesCodec(),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide zarr's remarks about parts of format 3 that are not final (string types)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Zarr V3|zarr format 3|Zarr format 3).*")
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield
