"""A pytree of arrays in one file: numpy's npz with the tree's structure inside, there whole or not at all.

Orbax, which JAX's users know, cannot save what only one process of several holds: it leaves the writing of numpy arrays to process 0
and refuses arrays on a process's own devices. An npz file needs no other process, carries a checksum for each array, and
is written beside its place and renamed.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_TOLD = "told.json"


def save_arrays(path: Path, tree: Any, told: Mapping[str, Any] | None = None) -> None:
    """Save a pytree.

    Args:
        path: of the file.
        tree: pytree of arrays; random keys must have been turned into their data.
        told: plain data that goes with it.

    Raises:
        OSError: where the disk fails; nothing is left behind then.
    """
    import jax

    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    arrays = [np.asarray(leaf) for _, leaf in leaves]
    head = {
        "paths": [[_step(entry) for entry in where] for where, _ in leaves],
        "dtypes": [str(array.dtype) for array in arrays],
        "shapes": [array.shape for array in arrays],
        "told": dict(told or {}),
    }
    members = {_TOLD: np.frombuffer(json.dumps(head).encode(), np.uint8)}
    members |= {str(number): _plain(array) for number, array in enumerate(arrays)}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            np.savez(file, allow_pickle=False, **members)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load_arrays(path: Path) -> tuple[Any, dict[str, Any]]:
    """What `save_arrays` saved: the tree, as dictionaries and lists of numpy arrays, and the plain data.

    Raises:
        OSError: where the file is not there.
        ValueError: where it is damaged.
    """
    import zipfile
    import zlib

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            head = json.loads(found[_TOLD].tobytes())
            kinds = zip(head["dtypes"], head["shapes"], strict=True)
            arrays = [_restored(found[str(number)], *kind) for number, kind in enumerate(kinds)]
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, ValueError, NotImplementedError) as error:
        raise ValueError(f"The file {str(path)!r} is damaged: {error}") from error
    return _tree([tuple(map(tuple, where)) for where in head["paths"]], arrays), head["told"]


def _step(entry: Any) -> tuple[str, Any]:
    """One step of a path: a position in a list, or a name."""
    if hasattr(entry, "idx"):
        return "position", entry.idx
    return "name", str(getattr(entry, "key", getattr(entry, "name", entry)))


def _tree(paths: list[tuple[Any, ...]], leaves: list[Any]) -> Any:
    """Dictionaries and lists from paths and leaves."""
    if paths == [()]:
        return leaves[0]
    inside: dict[Any, tuple[list[Any], list[Any]]] = {}
    for where, leaf in zip(paths, leaves, strict=True):
        below, held = inside.setdefault(where[0], ([], []))
        below.append(where[1:])
        held.append(leaf)
    built = {step[1]: _tree(*parts) for step, parts in inside.items()}
    return list(built.values()) if any(step[0] == "position" for step in inside) else built


def _plain(array: np.ndarray) -> np.ndarray:
    """Arrays of types that numpy does not know (bfloat16) go as bytes."""
    return array if array.dtype.kind in "biufc" else np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def _restored(array: np.ndarray, dtype: str, shape: Any) -> np.ndarray:
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    return array if array.dtype == kind else np.frombuffer(array.tobytes(), kind).reshape(shape)
