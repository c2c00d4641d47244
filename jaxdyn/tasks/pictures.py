"""Two classes of published data by name, as pictures that can be made smaller.

| name | classes | one example |
|---|---|---|
| `digits` | 3, 8 | 8 × 8 grey; scikit-learn has them |
| `mnist` | 3, 8 | 28 × 28 grey |
| `fashion-mnist` | pullover (2), coat (4) | 28 × 28 grey |
| `kmnist` | o (0), ki (1) | 28 × 28 grey |
| `cifar-2` | airplane, bird | 32 × 32 in three colours |
| `svhn` | 0, 2 | 32 × 32 in three colours |
| `fsdd` | 1, 3 | 64 frames × 32 bands of a log-mel spectrogram |
| `ag_news` | World, Business | 1024 hashed words, in no order: 1 × 1 in 1024 colours |

All but the first need files: `jaxdyn.tasks.sources` says where, for `cifar-2` what `jaxdyn.tasks.cifar10` reads. Nothing is downloaded:
the error of absent files says what to fetch and where to put it. Pictures may be made smaller by averaging over blocks; they are
centred and scaled as `jaxdyn.tasks.classification` does by default, to mean ‖x‖²/d = 1 over the training set.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxdyn.tasks import speech
from jaxdyn.tasks.cifar import cifar10
from jaxdyn.tasks.datasets import digits
from jaxdyn.tasks.news import ag_news
from jaxdyn.tasks.published import fashion_mnist, kmnist, mnist, svhn
from jaxdyn.tasks.sources import places

CLASSES: dict[str, tuple[Any, Any]] = {
    "digits": (3, 8),
    "mnist": (3, 8),
    "fashion-mnist": (2, 4),
    "kmnist": (0, 1),
    "cifar-2": ("airplane", "bird"),
    "svhn": (0, 2),
    "fsdd": (1, 3),
    "ag_news": ("World", "Business"),
}
NAMES = tuple(CLASSES)

_SHAPES = {
    "digits": (8, 8, 1),
    "cifar-2": (32, 32, 3),
    "svhn": (32, 32, 3),
    "fsdd": (speech.FRAMES, speech.BANDS, 1),
    "ag_news": (1, 1, 1024),
}
_CIFAR = (
    *("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "cifar-10-batches-py", "cifar-10-batches-bin"),
    *("cifar10.npz", "cifar10_subset.npz"),
)


def shape(name: str, side: int) -> tuple[int, int, int]:
    """Height, width and colours of a picture that is made at most `side` pixels high and wide."""
    height, width, colours = _SHAPES.get(name, (28, 28, 1))
    return height // _block(height, side), width // _block(width, side), colours


def about(name: str, side: int) -> dict[str, Any]:
    """What a data set was made into, for attributes: classes, code, scale and shape."""
    return {"classes": CLASSES[name], "coding": "sign", "normalise": "centred", "shape": shape(name, side)}


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
    choice: dict[str, Any] = {"classes": CLASSES[name], "n": n, "n_test": None if n_test else 0}
    if name == "cifar-2":
        found = cifar10(_cifar(), **choice)
    else:
        read: dict[str, Any] = {"fashion-mnist": fashion_mnist, "fsdd": speech.fsdd, "ag_news": ag_news}
        read |= {"digits": digits, "mnist": mnist, "kmnist": kmnist, "svhn": svhn}
        found = read[name](**choice)
    if n_test:
        found = dataclasses.replace(found, x_test=found.x_test[:n_test], y_test=found.y_test[:n_test])
    return _smaller(found, name, side)


def _cifar() -> Path:
    """The first place that has a form of CIFAR-10; where it should be if there is none."""
    return next(
        (path for folder in places() for file in _CIFAR if (path := folder / file).exists()), places()[0] / _CIFAR[0]
    )


def _smaller(found: Any, name: str, side: int) -> Any:
    """Blocks of pixels averaged, the scale restored; means over the training set stay 0."""
    (small, narrow, colours), full = shape(name, side), _SHAPES.get(name, (28, 28, 1))
    if (small, narrow, colours) == full:
        return found

    def averaged(x: Any) -> Any:
        blocks = x.reshape(-1, small, full[0] // small, narrow, full[1] // narrow, colours)
        return blocks.mean(axis=(2, 4)).reshape(len(x), -1)

    x = averaged(found.x)
    x_test = None if found.x_test is None else averaged(found.x_test)
    scale = jnp.sqrt(jnp.mean(x**2))
    return dataclasses.replace(found, x=x / scale, x_test=None if x_test is None else x_test / scale)


def _block(full: int, side: int) -> int:
    """The least divisor that leaves at most `side` pixels."""
    if side < 1:
        raise ValueError(f"`side` is a number of pixels, at least 1, but is {side}.")
    return next(size for size in range(1, full + 1) if full % size == 0 and full // size <= side)
