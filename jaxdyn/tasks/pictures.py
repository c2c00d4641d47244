"""Two classes of pictures by name: the digits that come with scikit-learn, and published sets where their files are.

| name | classes | files under the folder |
|---|---|---|
| `digits` | 3, 8 | none: scikit-learn has them |
| `mnist` | 3, 8 | `mnist/train-images-idx3-ubyte`, `mnist/train-labels-idx1-ubyte`, `mnist/t10k-…`, packed by gzip or not |
| `fashion-mnist` | pullover (2), coat (4) | `fashion-mnist/…`, of the same names |
| `cifar-2` | airplane, bird | `cifar-10-python.tar.gz`, `cifar-10-binary.tar.gz`, what they unpack to, or `cifar10.npz` |

The folder is `$JAXDYN_DATA`, or `data` below the working directory. Nothing is downloaded: the error of an absent file says what to
fetch and where to put it. Pictures may be made smaller by averaging over square blocks; they are then centred and scaled as
`jaxdyn.tasks.classification` does, to mean ‖x‖²/d = 1 over the training set.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxdyn.tasks.cifar import cifar10
from jaxdyn.tasks.datasets import digits
from jaxdyn.tasks.files import idx

NAMES = ("digits", "mnist", "fashion-mnist", "cifar-2")

_DIGITS = 357  # pictures of a 3 or an 8 in scikit-learn's set
_CIFAR = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "cifar-10-batches-py", "cifar-10-batches-bin")


def folder() -> Path:
    """Where the files are looked for."""
    return Path(os.environ.get("JAXDYN_DATA", "data"))


def shape(name: str, side: int) -> tuple[int, int, int]:
    """Height, width and colours of a picture that is made at most `side` pixels wide."""
    full, colours = {"digits": (8, 1), "cifar-2": (32, 3)}.get(name, (28, 1))
    small = full // _block(full, side)
    return small, small, colours


def task(name: str, *, n: int, n_test: int, side: int) -> Any:
    """The task of one of `NAMES`, with flat inputs.

    Args:
        name: the set.
        n: training pictures, balanced.
        n_test: test pictures, or as many as there are.
        side: pictures are averaged over blocks of the least size that divides them and leaves at most so many pixels a side.

    Raises:
        FileNotFoundError: where the files are absent, with what to fetch.
        ValueError: for an unknown name, or pictures that cannot be made so small.
    """
    if name not in NAMES:
        raise ValueError(f"There is no set of pictures {name!r}; the sets are {', '.join(NAMES)}.")
    if name == "digits":
        found = digits(classes=(3, 8), n=n, n_test=min(n_test, _DIGITS - n))
    elif name == "cifar-2":
        found = _cifar(n, n_test)
    else:
        files = [
            folder() / name / f"{part}-{what}-ubyte"
            for part in ("train", "t10k")
            for what in ("images-idx3", "labels-idx1")
        ]
        classes = (3, 8) if name == "mnist" else (2, 4)
        images, labels, images_test, labels_test = files
        found = idx(
            images, labels, classes=classes, n=n, n_test=n_test, images_test=images_test, labels_test=labels_test
        )
    return _smaller(found, name, side)


def _cifar(n: int, n_test: int) -> Any:
    here = [folder() / file for file in (*_CIFAR, "cifar10.npz") if (folder() / file).exists()]
    path = here[0] if here else folder() / _CIFAR[0]
    return cifar10(path, classes=("airplane", "bird"), n=n, n_test=_at_most(path, n_test))


def _at_most(path: Path, n_test: int) -> int:
    """A subset may hold fewer test pictures than are asked for."""
    if path.suffix != ".npz":
        return n_test
    import numpy as np

    with np.load(path) as arrays:
        labels = arrays["y_test"]
    return min(n_test, 2 * int(min((labels == 0).sum(), (labels == 2).sum())))


def _smaller(found: Any, name: str, side: int) -> Any:
    """Blocks of pixels averaged, the scale restored; means over the training set stay 0."""
    (small, _, colours), full = shape(name, side), shape(name, 1000)[0]
    if small == full:
        return found
    size = full // small

    def averaged(x: Any) -> Any:
        return x.reshape(-1, small, size, small, size, colours).mean(axis=(2, 4)).reshape(len(x), -1)

    x, x_test = averaged(found.x), averaged(found.x_test)
    scale = jnp.sqrt(jnp.mean(x**2))
    return dataclasses.replace(found, x=x / scale, x_test=x_test / scale)


def _block(full: int, side: int) -> int:
    """The least divisor that leaves at most `side` pixels."""
    if side < 1:
        raise ValueError(f"`side` is a number of pixels, at least 1, but is {side}.")
    return next(size for size in range(1, full + 1) if full % size == 0 and full // size <= side)
