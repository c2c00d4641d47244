"""Datasets on disk: one zarr group a sweep, readable by `xarray.open_zarr` at any moment.

A cell of a sweep is one region. Its values are written first, then its place in the `done` mask, then its own commit
record `cells/<key>` with the hashes of what was computed; a cell without a commit record is computed again, and so is one
whose chunks are no longer what was written. Every file is written beside its place and renamed, and every chunk carries a checksum.

A store lies at a path, or at a URL that fsspec knows (`s3://…`, `gs://…`, `memory://…`); checkpoints, locks and parameters
need a path.

A store belongs to one sweep: its fingerprint holds the axes, the records, the versions and, cell by cell, the hashes of
the programmes and of the arrays that went into them. A difference is refused, and named.
"""

import hashlib
import itertools
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
"""A path, a URL that fsspec knows, or a zarr store object."""

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

        with _quiet():
            zarr.open_group(self._group.store, mode="r+", use_consolidated=True).attrs.update(attrs)
            self._group = zarr.open_group(self._group.store, mode="r+", use_consolidated=False)

    def committed(self, key: str) -> dict[str, str] | None:
        """The hashes of a finished cell, or None where it is not finished."""
        path = f"cells/{key}"
        if path not in self._group:
            return None
        return {name: str(value) for name, value in self._group[path].attrs.items() if name != _CONTENT}

    def is_intact(self, key: str, index: tuple[Any, ...]) -> bool:
        """Whether the values of a finished cell are what was written: no chunk torn, flipped or lost.

        Args:
            key: the cell.
            index: its region.
        """
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
            if array.metadata.dimension_names != (name,) and name not in (
                *values,
                DONE,
            ):  # what this cell does not record
                self._put(name, index, np.asarray(array.fill_value))
        self._put(DONE, index, np.asarray(True))
        self._group.require_group("cells").create_group(key, attributes={**commit, _CONTENT: content}, overwrite=True)

    def _read(self, name: str, index: tuple[Any, ...]) -> Any:
        array = self._group[name]
        return array.get_orthogonal_selection(index) if index else array[...]

    def _put(self, name: str, index: tuple[Any, ...], value: np.ndarray) -> None:
        with _every_chunk():
            array = self._group[name]
        for box, part in _boxes(index):
            array[box] = value[part] if value.ndim else value


def create_or_open(
    where: StoreLike, template: Template, fingerprint: Mapping[str, Any], attrs: Mapping[str, Any]
) -> Store:
    """Make a new store, or open one that belongs to the same sweep.

    Args:
        where: a path, a URL or a zarr store object.
        template: the layout of the dataset.
        fingerprint: what identifies the sweep, `{part: hash or value}`.
        attrs: attributes of a new dataset.

    Raises:
        ValueError: where the store belongs to another sweep (the part that differs is named), or is no store.
    """
    import zarr

    if _exists(where):
        return _open(where, fingerprint)
    with _quiet(), _every_chunk():
        group = zarr.create_group(_located(where), overwrite=False)
        for name, labels in template.coordinates.items():
            _create(group, name, (name,), labels.shape, labels.dtype, None, labels.shape)[...] = labels
        for name, field in template.fields.items():
            _create(group, name, field.dims, field.shape, field.dtype, field.fill, _chunks(field, template))
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

    if not _exists(where, is_store=True):
        raise ValueError(
            f"There is no jaxdyn store at {str(where)!r}; `jd.sweep(…, store=…)` or `jaxdyn run` makes one."
        )
    with _quiet():
        group = zarr.open_group(_located(where), mode="r", use_consolidated=False)
        store, path = checked(group, where), group.path or None
        dataset = xr.open_zarr(store, group=path, chunks=None, consolidated=False, zarr_format=3)
    for name in ("fingerprint", WHOLE):
        dataset.attrs.pop(name, None)
    return dataset


def layout(where: StoreLike) -> dict[str, Any] | None:
    """How the sweep of a store is cut, or None where there is no store yet."""
    import zarr

    if where is None or not _exists(where, is_store=True):
        return None
    with _quiet():
        found = dict(zarr.open_group(_located(where), mode="r", use_consolidated=False).attrs).get("layout")
    return dict(found) if isinstance(found, Mapping) else None


def as_path(where: StoreLike) -> Path | None:
    """The path of a store on a file system; None for URLs, zarr stores and None."""
    return Path(where) if isinstance(where, (str, Path)) and not _is_url(where) else None


def _is_url(where: StoreLike) -> bool:
    return isinstance(where, str) and "://" in where


def _located(where: StoreLike) -> Any:
    """What zarr opens."""
    import zarr

    if not _is_url(where):
        return where
    try:
        return zarr.storage.FsspecStore.from_url(where)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"The store {where!r} cannot be reached: {error}. fsspec reads such URLs with a package for each protocol, for "
            "instance `pip install s3fs` for s3:// and `pip install gcsfs` for gs://."
        ) from error


def _exists(where: StoreLike, *, is_store: bool = False) -> bool:
    """Whether something is there; with `is_store`, whether a zarr group is."""
    import zarr

    path = as_path(where)
    if path is not None:
        return (path / "zarr.json").exists() if is_store else path.exists()
    with _quiet():
        try:
            zarr.open_group(_located(where), mode="r", use_consolidated=False)
        except FileNotFoundError:
            return False
    return True


@contextmanager
def exclusive(where: StoreLike) -> Iterator[None]:
    """Hold a store on disk for one run; the system lets go of it when the process ends, however it ends.

    Args:
        where: a path; other stores cannot be held.

    Raises:
        ValueError: where another run holds it; the run is named.
    """
    held = None
    path = as_path(where)
    if path is not None and sys.platform != "win32":
        import fcntl

        try:
            held = (path / "checkpoints" / "lock").open("a+")
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


def _open(where: StoreLike, fingerprint: Mapping[str, Any]) -> Store:
    import zarr

    if not _exists(where, is_store=True):
        raise ValueError(f"{str(where)!r} exists but is no jaxdyn store; choose another path for `store=`.")
    with _quiet():
        group = zarr.open_group(_located(where), mode="r+", use_consolidated=False)
    found = dict(group.attrs).get("fingerprint")
    if found is None:
        raise ValueError(f"{str(where)!r} is a zarr group, but no jaxdyn store; choose another path for `store=`.")
    differing = _difference(found, json.loads(json.dumps(fingerprint)))
    if differing:
        raise ValueError(
            f"The store {str(where)!r} belongs to another sweep: {differing}. Choose another path for `store=`, or delete it."
        )
    return Store(group, where)


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


def _boxes(index: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    """A region as boxes of slices, each with its part of the region's values.

    Zarr overwrites whole chunks unread, damaged or not, but only where it is told of slices.
    """
    if not index:
        yield ..., ...
        return
    runs: list[list[Any]] = []
    parts: list[list[slice]] = []
    for one in index:
        if isinstance(one, slice):
            runs.append([one])
            parts.append([slice(None)])
        elif np.ndim(one) == 0:
            runs.append([int(one)])
        else:
            cuts = np.split(np.arange(len(one)), 1 + np.flatnonzero(np.diff(one) != 1))
            runs.append([slice(int(one[cut[0]]), int(one[cut[-1]]) + 1) for cut in cuts])
            parts.append([slice(int(cut[0]), int(cut[-1]) + 1) for cut in cuts])
    yield from zip(itertools.product(*runs), itertools.product(*parts), strict=True)


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide zarr's remarks about parts of format 3 that are not final (string types)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Zarr V3|zarr format 3|Zarr format 3).*")
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield
