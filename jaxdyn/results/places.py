"""Where stores lie: paths, URLs and zarr stores, and who may write there."""

import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

StoreLike = Any
"""A path, a URL that fsspec knows, or a zarr store object."""


def as_path(where: StoreLike) -> Path | None:
    """The path of a store on a file system; None for URLs, zarr stores and None."""
    return Path(where) if isinstance(where, (str, Path)) and not _is_url(where) else None


def _is_url(where: StoreLike) -> bool:
    return isinstance(where, str) and "://" in where


def located(where: StoreLike) -> Any:
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


def exists(where: StoreLike, *, is_store: bool = False) -> bool:
    """Whether something is there; with `is_store`, whether a zarr group is."""
    import zarr

    path = as_path(where)
    if path is not None:
        return (path / "zarr.json").exists() if is_store else path.exists()
    with quiet():
        try:
            zarr.open_group(located(where), mode="r", use_consolidated=False)
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


@contextmanager
def one_at_a_time(where: StoreLike) -> Iterator[None]:
    """Let one process at a time into chunks that several cells share; only on a file system."""
    path = as_path(where)
    if path is None or sys.platform == "win32":
        yield
        return
    import fcntl

    with (path / "checkpoints" / "writing").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Hide zarr's remarks about parts of format 3 that are not final (string types), and about files that are none of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Zarr V3|zarr format 3|Zarr format 3).*")
        warnings.filterwarnings("ignore", message="Object at .* is not recognized")  # locks and checkpoints
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield
