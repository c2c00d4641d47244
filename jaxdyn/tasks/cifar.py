"""CIFAR-10 as it is published, or a subset of it in an `.npz` file.

The published sets are six files of 10 000 images (five to train, one to test), in the "python" version pickled
dictionaries `{b"data": [N, 3072], b"labels": [N]}`, in the "binary" version records of one byte of label and 3072 of
image. An image is stored channel by channel; here it becomes [32, 32, 3]. The pickles are read by an unpickler that
knows arrays alone, so that a file from the network cannot run code. Choice, scale and code of the classes are those of
`jaxdyn.tasks.classification`.

References:
    A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdyn._typing import Key
from jaxdyn.tasks.base import Task
from jaxdyn.tasks.classification import Coding, Scale, classification, name_to_number
from jaxdyn.tasks.files import FilePath, read_npz, unpacked

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_RECORD = 1 + 3 * 32 * 32  # bytes of one image of the binary version
_URL = "https://www.cs.toronto.edu/~kriz/"
_REMEDY = (
    f"Fetch {_URL}cifar-10-python.tar.gz (md5 c58f30108f718f92721af3b95e74349a) or {_URL}cifar-10-binary.tar.gz (md5 "
    "c32a1d4ab5d03f1284b67883e8d87530) and give its path, packed, or that of the directory it unpacks to."
)


def cifar10(
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
    """A task from CIFAR-10: photographs of 32 × 32 pixels in three colours, with their own test set.

    Args:
        path: the published archive (`cifar-10-python.tar.gz` or `cifar-10-binary.tar.gz`), the directory it unpacks to,
            or an `.npz` file with `x_train` [N, 32, 32, 3], `y_train` [N], `x_test` and `y_test`.
        classes: classes to learn, by number (0 to 9) or name, at least two, in the order of their code. The "CIFAR-2"
            of the literature is ("airplane", "bird").
        n: training images. Default: all.
        n_test: test images, of the published test set; 0 for none. Default: all.
        key: shuffles the images before the choice. Default: the order of the files.
        coding: code of the classes, as in `classification`.
        normalise: scale of the inputs, as in `classification`.
        shape: shape of one input, (32, 32, 3) for convolutions. Default: flat, (3072,), row by row, colours fastest.

    Returns:
        A task with `x` [n, 3072] and `y` ±1 as [n, 1] for two classes, one-hot [n, k] for more.

    Raises:
        FileNotFoundError: when the data or a part of them are absent; says what to fetch and where to put it.
        ValueError: when a file is truncated, corrupt or of another kind, or the request does not fit the data.

    Example:
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "subset.npz"
        >>> pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
        >>> labels = np.arange(40) % 10
        >>> np.savez(path, x_train=pixels, y_train=labels, x_test=pixels[:20], y_test=labels[:20])
        >>> task = cifar10(path, classes=("airplane", "bird"), shape=(32, 32, 3))
        >>> task.x.shape, task.x_test.shape
        ((8, 32, 32, 3), (4, 32, 32, 3))
    """
    path = Path(path)
    x, labels, x_test, labels_test = _read_npz(path) if path.suffix == ".npz" else _read_published(path)
    numbers = name_to_number(classes, CLASSES)
    choice: Any = {"n": n, "n_test": n_test, "key": key, "coding": coding, "normalise": normalise, "shape": shape}
    return classification(x, labels, classes=numbers, x_test=x_test, labels_test=labels_test, **choice)


def _read_npz(path: Path) -> tuple[Any, ...]:
    arrays = read_npz(path, remedy=_REMEDY)
    for split in ("train", "test"):
        x, labels = (arrays.get(f"{name}_{split}") for name in "xy")
        if x is None or labels is None:
            raise ValueError(f"{path} holds the arrays {sorted(arrays)}, but no `x_{split}` or no `y_{split}`.")
        if x.shape != (labels.size, 32, 32, 3) or labels.ndim != 1:
            raise ValueError(
                f"{path} is not CIFAR-10: `x_{split}` has shape {x.shape} and `y_{split}` {labels.shape}, but "
                "(n, 32, 32, 3) and (n,) are needed."
            )
    return tuple(arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))


def _read_published(path: Path) -> tuple[Any, ...]:
    """All six batches of the archive or directory."""
    files = _files_of_archive(path) if path.is_file() else _files_of_directory(path)
    parts = []
    for name, data in files.items():
        x, labels = _binary(name, data) if name.endswith(".bin") else _pickled(name, data)
        if labels.min(initial=0) < 0 or labels.max(initial=0) > 9:
            raise ValueError(f"{name} is corrupt: it has a label outside 0, …, 9; fetch it again.")
        parts.append((x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels))
    sizes = {name: len(labels) for name, (_, labels) in zip(files, parts, strict=True)}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"The batches have different numbers of images, so that one is truncated: {sizes}; fetch them again."
        )
    x, labels = (np.concatenate(column) for column in zip(*parts[:-1], strict=True))
    return x, labels, *parts[-1]


def _files_of_directory(path: Path) -> dict[str, bytes]:
    """The bytes of the six batches by path, pickled or binary."""
    places = (path, path / "cifar-10-batches-py", path / "cifar-10-batches-bin")
    found = {place / (name + end) for place in places for name in _BATCHES for end in ("", ".bin")}
    found = {file for file in found if file.is_file()}
    if not found:
        raise FileNotFoundError(
            f"{path} {'holds no CIFAR-10 batches' if path.is_dir() else 'does not exist'}. {_REMEDY}"
        )
    first = min(found)
    wanted = [first.parent / (name + first.suffix) for name in _BATCHES]
    absent = [file.name for file in wanted if file not in found]
    if absent:
        raise FileNotFoundError(f"{first.parent} lacks {', '.join(absent)}. {_REMEDY}")
    return {str(file): file.read_bytes() for file in wanted}


def _files_of_archive(path: Path) -> dict[str, bytes]:
    """The bytes of the six batches by name in a `.tar` or `.tar.gz` file."""
    data = unpacked(path, path.read_bytes())  # the whole of it, so that gzip's checksum is verified
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            members = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            end = ".bin" if "test_batch.bin" in members else ""
            absent = [name + end for name in _BATCHES if name + end not in members]
            if absent:
                raise ValueError(f"{path} is not the archive of CIFAR-10: it lacks {', '.join(absent)}. {_REMEDY}")
            streams = {f"{path}:{name}{end}": archive.extractfile(members[name + end]) for name in _BATCHES}
            return {name: stream.read() for name, stream in streams.items() if stream is not None}
    except tarfile.TarError as error:
        raise ValueError(f"{path} is truncated, corrupt or no `.tar` archive ({error}). {_REMEDY}") from error


def _binary(name: str, data: bytes) -> tuple[Any, Any]:
    if not data or len(data) % _RECORD:
        raise ValueError(
            f"{name} is truncated or corrupt: it has {len(data)} bytes, no multiple of {_RECORD}; fetch it again."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _pickled(name: str, data: bytes) -> tuple[Any, Any]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{name} is truncated, corrupt or no batch of CIFAR-10 ({error}); fetch it again.") from error
    x, labels = (batch.get(entry) for entry in (b"data", b"labels")) if isinstance(batch, dict) else (None, None)
    if not isinstance(x, np.ndarray) or not isinstance(labels, list) or x.shape != (len(labels), _RECORD - 1):
        raise ValueError(
            f"{name} is no batch of CIFAR-10, which has `data` [n, {_RECORD - 1}] and n `labels`; fetch it again."
        )
    return x, np.asarray(labels, np.int64)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and plain values, and refuses to import anything else."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
        }
        try:
            return known[module.rpartition(".")[2], name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for `{module}.{name}`") from None
