"""Labelled examples in files: IDX (MNIST and its kin) and `.npz`.

The files are read as they are published, packed or not, and nothing is downloaded: where one is absent, the error says
what to fetch and where to put it. A file that is truncated, corrupt or of another kind is refused by name. Choice,
scale and code of the classes are those of `jaxdyn.tasks.classification`.

An IDX file is: two zero bytes, a byte for the type of the numbers, a byte for the number of axes, the length of each
axis as four bytes, and the numbers, the last axis fastest; all of it big-endian.
"""

import gzip
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdyn._typing import Key
from jaxdyn.tasks.base import Task
from jaxdyn.tasks.classification import Coding, Scale, classification, name_to_number

FilePath = str | os.PathLike[str]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_FASHION_MNIST = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"


def idx(
    images: FilePath,
    labels: FilePath,
    *,
    classes: Sequence[int],
    n: int | None = None,
    n_test: int | None = None,
    key: Key | None = None,
    images_test: FilePath | None = None,
    labels_test: FilePath | None = None,
    coding: Coding | None = None,
    normalise: Scale = "centred",
    shape: Sequence[int] | None = None,
) -> Task:
    """A task from IDX files, packed by gzip or not: MNIST, Fashion-MNIST, EMNIST, KMNIST.

    Args:
        images: file of the images, [N, *d], such as `train-images-idx3-ubyte.gz`.
        labels: file of their labels, [N], such as `train-labels-idx1-ubyte.gz`.
        classes: labels to learn, at least two, in the order of their code.
        n: training images. Default: three quarters of those available, all of them with `images_test`.
        n_test: test images; 0 for none. Default: all that remain.
        key: shuffles the images before the choice. Default: the order of the file.
        images_test: file of separate test images, such as `t10k-images-idx3-ubyte.gz`.
        labels_test: file of their labels.
        coding: code of the classes, as in `classification`.
        normalise: scale of the inputs, as in `classification`.
        shape: shape of one input, (28, 28, 1) for convolutions. Default: flat, (784,).

    Returns:
        A task with `x` [n, d] and `y` ±1 as [n, 1] for two classes, one-hot [n, k] for more.

    Raises:
        FileNotFoundError: when a file is absent; says what to fetch and where to put it.
        ValueError: when a file is truncated, corrupt or no IDX file, or the request does not fit the data.

    Example:
        >>> import pathlib, struct, tempfile
        >>> import numpy as np
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8)
        >>> _ = (folder / "images").write_bytes(struct.pack(">HBBIII", 0, 8, 3, 20, 4, 4) + pixels.tobytes())
        >>> _ = (folder / "labels").write_bytes(struct.pack(">HBBI", 0, 8, 1, 20) + bytes(range(2)) * 10)
        >>> idx(folder / "images", folder / "labels", classes=(0, 1), n=12).x.shape
        (12, 16)
    """
    if (images_test is None) != (labels_test is None):
        raise ValueError(f"images_test={images_test} and labels_test={labels_test}; give both files or neither.")
    x, y = read_idx_pair(images, labels)
    x_test, y_test = (None, None) if images_test is None else read_idx_pair(images_test, labels_test)
    choice: Any = {"n": n, "n_test": n_test, "key": key, "coding": coding, "normalise": normalise, "shape": shape}
    return classification(x, y, classes=classes, x_test=x_test, labels_test=y_test, **choice)


def npz(
    path: FilePath,
    *,
    classes: Sequence[int | str],
    n: int | None = None,
    n_test: int | None = None,
    key: Key | None = None,
    coding: Coding | None = None,
    normalise: Scale = "centred",
    shape: Sequence[int] | None = None,
) -> Task:
    """A task from an `.npz` file of labelled examples.

    The file holds `x` [N, *d] and `y` [N], or `x_train`, `y_train` and, for a separate test set, `x_test`, `y_test` (as
    the `mnist.npz` of Keras does). Labels are integers or strings, [N] or [N, 1]; integers may have names in an array
    `classes`. Real-valued targets need no choice of classes: `from_arrays(**np.load(path))`.

    Args:
        path: the file.
        classes: labels, or names of classes, to learn, at least two, in the order of their code.
        n: training examples. Default: three quarters of those available, all of them where the file has a test set.
        n_test: test examples; 0 for none. Default: all that remain.
        key: shuffles the examples before the choice. Default: the order of the file.
        coding: code of the classes, as in `classification`.
        normalise: scale of the inputs, as in `classification`.
        shape: shape of one input. Default: flat, (d,).

    Returns:
        A task with `x` [n, d] and `y` ±1 as [n, 1] for two classes, one-hot [n, k] for more.

    Raises:
        FileNotFoundError: when the file is absent.
        ValueError: when it is truncated, corrupt, no `.npz` file or lacks an array, or the request does not fit.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "data.npz"
        >>> np.savez(path, x=np.random.default_rng(0).normal(size=(30, 6)), y=np.arange(30) % 2)
        >>> npz(path, classes=(1, 0), n=20).x.shape
        (20, 6)
    """
    arrays = read_npz(Path(path), remedy="`npz` reads a file written by `numpy.savez(path, x=…, y=…)`; put it there.")
    suffix = "_train" if "x_train" in arrays else ""
    for name in (f"x{suffix}", f"y{suffix}"):
        if name not in arrays:
            raise ValueError(
                f"{path} holds the arrays {sorted(arrays)}, but no `{name}`; it needs `x` and `y`, or `x_train` "
                "and `y_train`."
            )
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise ValueError(f"{path} holds one of `x_test` and `y_test` without the other.")
    choice: Any = {"n": n, "n_test": n_test, "key": key, "coding": coding, "normalise": normalise, "shape": shape}
    return classification(
        arrays[f"x{suffix}"],
        _column(arrays[f"y{suffix}"]),
        classes=name_to_number(classes, arrays.get("classes")),
        x_test=arrays.get("x_test"),
        labels_test=_column(arrays["y_test"]) if "y_test" in arrays else None,
        **choice,
    )


def read_npz(path: Path, *, remedy: str) -> dict[str, Any]:
    """All arrays of an `.npz` file; pickled objects are refused."""
    require(path, remedy)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (
        ValueError,
        TypeError,
        OSError,
        EOFError,
        KeyError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"{path} is truncated, corrupt or not an `.npz` file of numbers ({error}); fetch or write it again."
        ) from error


def read_idx(path: Path) -> Any:
    """The array of an IDX file, packed by gzip or not."""
    data = unpacked(path, path.read_bytes())
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or data[3] == 0:
        raise ValueError(
            f"{path} is not an IDX file: it begins with the bytes {data[:4].hex(' ')!r}, where an IDX file has two "
            "zero bytes, a type and a number of axes; fetch it again."
        )
    dtype, num_axes = np.dtype(_IDX_TYPES[data[2]]), data[3]
    begin = 4 + 4 * num_axes
    if len(data) < begin:
        raise ValueError(f"{path} is truncated: it ends within its header; fetch it again.")
    shape = struct.unpack(f">{num_axes}I", data[4:begin])
    expected = begin + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        fault = "truncated" if len(data) < expected else "corrupt"
        raise ValueError(
            f"{path} is {fault}: it has {len(data)} bytes, but its header announces {expected} (shape {shape}); "
            "fetch it again."
        )
    return np.frombuffer(data, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="))


def require(path: Path, remedy: str) -> None:
    """An error with the remedy unless the file is there."""
    if not path.is_file():
        what = "is a directory, not a file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}. {remedy}")


def read_idx_pair(images: FilePath, labels: FilePath | None) -> tuple[Any, Any]:
    """Images and labels that fit each other."""
    image_path, label_path = _present(Path(images)), _present(Path(str(labels)))
    x, y = read_idx(image_path), read_idx(label_path)
    for path, array, is_good, what in (
        (image_path, x, x.ndim >= 2, "images, [n, *d]"),
        (label_path, y, y.ndim == 1 and y.dtype.kind in "iu", "integer labels, [n]"),
    ):
        if not is_good:
            raise ValueError(
                f"{path} holds {array.dtype} numbers of shape {array.shape}, but {what}, are needed; are "
                "the files swapped?"
            )
    if len(x) != len(y):
        raise ValueError(
            f"{image_path} holds {len(x)} images, but {label_path} holds {len(y)} labels; they do not belong together."
        )
    return x, y


def _present(path: Path) -> Path:
    """The file, or the same packed or unpacked."""
    other = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    if not path.is_file() and other.is_file():
        return other
    name = path.name if path.suffix == ".gz" else f"{path.name}.gz"
    is_published = name.startswith(("train-", "t10k-"))
    what = f"`{name}`" if is_published else "`train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz` or the like"
    remedy = (
        f"Fetch {what} from {_MNIST} (MNIST) or {_FASHION_MNIST} (Fashion-MNIST) and put it at {path.absolute()}, "
        "packed or unpacked."
    )
    require(path, remedy)
    return path


def unpacked(path: Path, data: bytes) -> bytes:
    """The bytes, unpacked if they are gzip's."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a truncated or corrupt gzip file ({error}); fetch it again.") from error


def _column(labels: Any) -> Any:
    """Labels [n, 1] as [n]."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
