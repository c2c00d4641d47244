"""Checkpoints inside a cell: a killed sweep goes on from the last one, and ends bit for bit where it would have ended.

A cell runs in pieces. Between two of them, when enough time has passed, the members' states and what they have recorded are
saved with orbax in `<store>/checkpoints/<cell>/<piece>`; orbax writes beside and renames, so a checkpoint is there whole or not at all.
It carries the hashes of the programme that made it and of its content: one that belongs to another programme is not used, a damaged
one is removed. When the cell is written to the store, its checkpoints go.
"""

import hashlib
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdyn.ensemble.programme import is_key
from jaxdyn.results.params import alone


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

    def __init__(self, where: Path | None, every: float) -> None:
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
        import orbax.checkpoint as ocp

        leaves = jax.device_get([_plain(leaf) for leaf in jax.tree.leaves(progressed.state)])
        state = {str(number): np.asarray(leaf) for number, leaf in enumerate(leaves)}
        progress = {"state": state, "values": dict(progressed.values)}
        made_by = {**fingerprint, "content": _digest(progress)}
        try:
            with self._manager(key) as manager:
                manager.save(
                    progressed.piece,
                    args=ocp.args.Composite(
                        progress=ocp.args.StandardSave(progress),
                        fingerprint=ocp.args.JsonSave(made_by),
                    ),
                )
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as a ValueError
            warnings.warn(
                f"No checkpoint could be written to {str(self._folder)!r} ({str(error).splitlines()[0]}); the sweep goes on "
                "without. Free space or mend the permissions: an interruption now would cost this cell.",
                RuntimeWarning,
                stacklevel=2,
            )
        self._last = time.monotonic()

    def latest(self, key: str, fingerprint: Mapping[str, str], template: Any) -> Progressed | None:
        """The last checkpoint of a cell, or None where there is none of the same programme. A damaged one is removed, with a warning.

        Args:
            key: the cell.
            fingerprint: the programme's hashes.
            template: states of the same structure, as the prologue makes them.
        """
        if self._folder is None or not (self._folder / key).is_dir():
            return None
        import orbax.checkpoint as ocp

        try:
            with self._manager(key) as manager:
                piece = manager.latest_step()
                if piece is None:
                    return None
                found = manager.restore(
                    piece,
                    args=ocp.args.Composite(progress=ocp.args.StandardRestore(), fingerprint=ocp.args.JsonRestore()),
                )
            content = found["fingerprint"].pop("content")
            if found["fingerprint"] != dict(fingerprint):
                return None
            if content != _digest(found["progress"]):
                raise ValueError("its content is not what was saved")
            leaves, structure = jax.tree.flatten(template)
            saved = found["progress"]["state"]
            state = [_like(leaf, saved[str(number)]) for number, leaf in enumerate(leaves)]
            values = {name: np.asarray(value) for name, value in found["progress"]["values"].items()}
        except Exception as error:  # orbax and tensorstore raise of many kinds where a file is damaged
            self.clear(key)
            warnings.warn(
                f"The checkpoint {str(self._folder / key)!r} is damaged ({str(error).splitlines()[0][:200]}); it was removed, and its "
                "cell starts anew.",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        return Progressed(int(piece), jax.tree.unflatten(structure, state), values)

    def clear(self, key: str) -> None:
        """Remove the checkpoints of a cell that is in the store."""
        if self._folder is not None:
            shutil.rmtree(self._folder / key, ignore_errors=True)

    @contextmanager
    def _manager(self, key: str) -> Iterator[Any]:
        import orbax.checkpoint as ocp

        assert self._folder is not None
        (self._folder / key).mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, create=False, multiprocessing_options=alone()
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Ss]harding.*")
            with ocp.CheckpointManager(self._folder / key, options=options) as manager:
                yield manager


def _digest(progress: Any) -> str:
    """A hash of every array."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(progress):
        array = np.asarray(leaf)
        found.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _like(leaf: Any, saved: Any) -> Any:
    if is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(saved), impl=jax.random.key_impl(leaf))
    return jnp.asarray(saved, leaf.dtype)
