"""Checkpoints inside a cell: a killed sweep goes on from the last one, and ends bit for bit where it would have ended.

A cell runs in pieces. Between two of them, when enough time has passed, the members' states and what they have recorded are
saved in `<store>/checkpoints/<cell>.npz`, which replaces the one before it in one stroke. It carries the hashes of the programme that
made it and of its content: one that belongs to another programme is not used, a damaged one is removed. When the cell is written
to the store, its checkpoint goes.
"""

import contextlib
import hashlib
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn.ensemble.compiling.programme import is_key, on_host
from jaxdyn.results.arrays import load_arrays, save_arrays


class Progressed(NamedTuple):
    """How far a cell has come.

    Attributes:
        piece: how many pieces are done.
        state: the members' states after them.
        values: what was recorded so far, `{variable: [members, rows, …]}`.
    """

    piece: int
    state: Any
    values: dict[str, np.ndarray]


class Checkpoints:
    """The checkpoints of one sweep.

    Args:
        where: the store's path; None means that nothing is ever saved.
        every: seconds between two checkpoints, at least.
    """

    def __init__(self, where: Path | None, every: float | int) -> None:
        self._folder = None if where is None else where.absolute() / "checkpoints"
        self._every = every
        self._last = time.monotonic()

    @property
    def is_on(self) -> bool:
        """Whether anything is ever saved."""
        return self._folder is not None

    def is_due(self) -> bool:
        """Whether enough time has passed since the last one. A clock that stands or runs backwards does no harm."""
        return self._folder is not None and time.monotonic() - self._last >= self._every

    def save(self, key: str, fingerprint: Mapping[str, str], progressed: Progressed) -> None:
        """Save a cell's progress, and drop the checkpoint before it. Where the disk fails, warn and go on without."""
        leaves = [on_host(leaf) for leaf in jax.tree.leaves(progressed.state)]
        progress = {"state": leaves, "values": dict(progressed.values)}
        told = {"piece": progressed.piece, "made_by": dict(fingerprint), "content": _digest(progress)}
        try:
            save_arrays(self._file(key), progress, told)
        except OSError as error:
            warnings.warn(
                f"No checkpoint could be written to {str(self._folder)!r} ({error}); the sweep goes on "
                "without. Free space or mend the permissions: an interruption now would cost this cell.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._last = time.monotonic()

    def latest(self, key: str, fingerprint: Mapping[str, str], template: Any) -> Progressed | None:
        """The last checkpoint of a cell, or None where there is none of the same programme. A damaged one is removed, with a warning.

        Its state takes structure and types from `template`, states as the prologue makes them.
        """
        if self._folder is None or not self._file(key).exists():
            return None
        try:
            progress, told = load_arrays(self._file(key))
            if told["made_by"] != dict(fingerprint):
                return None
            if told["content"] != _digest(progress):
                raise ValueError("its content is not what was saved")
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.clear(key)
            warnings.warn(
                f"The checkpoint {str(self._file(key))!r} is damaged ({str(error).splitlines()[0][:200]}); it was removed, and its "
                "cell starts anew.",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        leaves, structure = jax.tree.flatten(template)
        state = [_like(leaf, saved) for leaf, saved in zip(leaves, progress["state"], strict=True)]
        return Progressed(int(told["piece"]), jax.tree.unflatten(structure, state), progress.get("values", {}))

    def clear(self, key: str) -> None:
        """Remove the checkpoint of a cell that is in the store."""
        if self._folder is not None:
            with contextlib.suppress(OSError):  # of a store that became read-only, whoever writes results complains
                self._file(key).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.npz"


def _digest(progress: Any) -> str:
    """A hash of every array."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(progress):
        array = np.asarray(leaf)
        found.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _like(leaf: Any, saved: Any) -> Any:
    if is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(saved), impl=jax.random.key_impl(leaf))
    return jnp.asarray(saved, leaf.dtype)
