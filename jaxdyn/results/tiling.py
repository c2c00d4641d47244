"""The arrays of a store: how they are made, cut into chunks, addressed by regions, and made longer."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxdyn.results.dataset import Field, Template

_CHUNK = 4e6  # bytes of a chunk, at most


def extend(group: Any, template: Template) -> None:
    """Make the arrays of a store as long as its axes; arrays it lacks are made, full of missing values."""
    for name, array in list(group.arrays()):
        sizes = {axis: len(template.coordinates[axis]) for axis in template.axes}
        dims = array.metadata.dimension_names
        shape = tuple(sizes.get(dim, length) for dim, length in zip(dims, array.shape, strict=True))
        if name not in template.coordinates and shape != array.shape:
            array.resize(shape)
    for name, field in template.fields.items():
        if name not in group:
            chunks = chunk_lengths(field, template)
            create_array(group, name, field.dims, field.shape, field.dtype, field.fill, chunks)[...] = field.fill
    for name, labels in template.coordinates.items():
        if name not in group or not np.array_equal(group[name][...], labels):
            if name in group:
                del group[name]
            create_array(group, name, (name,), labels.shape, labels.dtype, None, labels.shape)[...] = labels


def misfit(group: Any, template: Template) -> str | None:
    """What keeps the variables of a sweep from going into the arrays of a store, in words."""
    for name, field in template.fields.items():
        own = len(template.axes)
        if name in group and group[name].shape[own:] != field.shape[own:]:
            return f"`{name}` has the shape {list(group[name].shape[own:])} there and {list(field.shape[own:])} here"
    for name, labels in template.coordinates.items():
        if name in group and name not in template.axes and not np.array_equal(group[name][...], labels):
            return f"the times along `{name}` are others"
    return None


def create_array(group: Any, name: str, dims: Any, shape: Any, dtype: Any, fill: Any, chunks: Any) -> Any:
    """An empty array whose chunks carry checksums; of text without."""
    from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

    more: dict[str, Any] = {}
    if np.dtype(dtype).kind not in "US":
        compressors = [ZstdCodec(level=3), Crc32cCodec()]
        more = {"fill_value": fill, "serializer": BytesCodec(), "compressors": compressors}
    chunks = tuple(max(1, c) for c in chunks)
    return group.create_array(name, shape=shape, dtype=dtype, chunks=chunks, dimension_names=dims, **more)


def chunk_lengths(field: Field, template: Template) -> tuple[int, ...]:
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


def boxes(index: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
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


def around(array: Any, box: Any) -> Any:
    """A box of slices, widened to whole chunks."""
    if box is ...:
        return box
    found = []
    for one, chunk, length in zip(box, array.chunks, array.shape, strict=False):
        start, stop = (one, one + 1) if isinstance(one, int) else one.indices(length)[:2]
        wide = slice(start // chunk * chunk, min(-(-stop // chunk) * chunk, length))
        found.append(one if (wide.start, wide.stop) == (start, stop) else wide)
    return tuple(found)
