"""Reading a store lazily: what should be there and is not is an error, never a missing value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from jaxdyn.results.dataset import DONE
from jaxdyn.results.store import WHOLE, StoreError


@dataclass(frozen=True)
class _Layout:
    """Where a store lies, and how it is cut.

    Attributes:
        where: name of the store in messages.
        path: path of the group within the zarr store.
        done: the mask of finished members, an asynchronous zarr array.
        chunks: the chunk lengths of the arrays that hold values of members.
        coordinates: the arrays that are whole from the start.
    """

    where: str
    path: str
    done: Any
    chunks: Mapping[str, tuple[int, ...]]
    coordinates: frozenset[str]


class CheckedStore(zarr.storage.WrapperStore[Any]):  # type: ignore[misc]
    """A zarr store whose absent chunks are missing values only where the members are not finished."""

    def __init__(self, store: Any, layout: _Layout) -> None:
        super().__init__(store)
        self._layout = layout

    def _with_store(self, store: Any) -> "CheckedStore":
        return CheckedStore(store, self._layout)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """The bytes at a key; None where there are none and need be none.

        Raises:
            StoreError: where the store, or the chunk of a finished member, is gone.
        """
        found = await self._store.get(key, prototype, byte_range)
        chunk = self._chunk(key)
        if found is not None or chunk is None:
            return found
        if not await self._store.exists(f"{self._layout.path}/zarr.json".lstrip("/")):
            raise StoreError(
                f"The store {self._layout.where!r} is gone: it was deleted or moved after its dataset was opened. Open it where it "
                "lies now with `jd.results.open(path)`, or run the sweep again; `dataset.load()` keeps a dataset in memory."
            )
        name, place = chunk
        if not await self._is_finished(name, place):
            return None
        found = await self._store.get(key, prototype, byte_range)  # it may have been written since
        if found is None:
            raise StoreError(
                f"The store {self._layout.where!r} is damaged: the chunk {key!r} of `{name}` is gone, although it was written. Put the "
                "file back, or run the same sweep again with this `store=`, which computes damaged cells again."
            )
        return found

    def _chunk(self, key: str) -> tuple[str, list[int]] | None:
        """The array and the place of a chunk, from its key."""
        name, *rest = key.removeprefix(f"{self._layout.path}/").split("/")
        return (name, [int(i) for i in rest[1:]]) if rest[:1] == ["c"] else None

    async def _is_finished(self, name: str, place: list[int]) -> bool:
        """Whether a chunk holds values of a finished member."""
        if name in self._layout.coordinates:
            return True
        if name not in self._layout.chunks:
            return False
        pairs = zip(place, self._layout.chunks[name], strict=True)
        region = tuple(slice(i * length, (i + 1) * length) for i, length in pairs)[: self._layout.done.ndim]
        return bool(np.any(await self._layout.done.getitem(region or ...)))


def checked(group: Any, where: Any) -> CheckedStore:
    """The store of an open zarr group, guarded against files that vanish; `where` is what messages call it."""
    arrays = dict(group.arrays()) if dict(group.attrs).get(WHOLE) else {}
    coordinates = frozenset(name for name, array in arrays.items() if array.metadata.dimension_names == (name,))
    chunks = {name: array.chunks for name, array in arrays.items() if name not in coordinates}
    return CheckedStore(group.store, _Layout(str(where), group.path, group[DONE].async_array, chunks, coordinates))
