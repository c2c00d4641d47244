"""Spoken digits: the Free Spoken Digit Dataset as log-mel spectrograms of one size.

References:
    Z. Jackson et al., Free Spoken Digit Dataset, doi 10.5281/zenodo.1342401.
"""

import io
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdyn._typing import Key
from jaxdyn.tasks.base import Task
from jaxdyn.tasks.classification import Coding, Scale, from_labels
from jaxdyn.tasks.sources import Source, find

FRAMES, BANDS = 64, 32  # of one input: time by frequency
RATE = 8000  # samples a second

_HOP, _WINDOW = 128, 256  # samples: 16 ms and 32 ms
_TOGETHER = 64  # recordings of one transform: their power stays small
_FLOOR = 1e-6  # added to the power before the logarithm
_NAME = re.compile(r"(\d)_([^_/]+)_(\d+)\.wav$")
_NUM_OFFICIAL = 5  # indices below are the published test set
_URL = "https://github.com/Jakobovski/free-spoken-digit-dataset"
_PLACES = ("fsdd_recordings.zip", "fsdd", "free-spoken-digit-dataset", "recordings")

FSDD = Source("FSDD", ("fsdd/recordings",), _URL, others=tuple((place,) for place in _PLACES))


def fsdd(
    *,
    classes: Sequence[int],
    n: int | None = None,
    n_test: int | None = None,
    key: Key | None = None,
    coding: Coding | None = None,
    normalise: Scale = "centred",
    shape: Sequence[int] | None = None,
    official_test: bool = False,
    download: bool = False,
) -> Task:
    """Spoken digits: 3000 recordings at 8 kHz by six speakers, as log-mel spectrograms of 64 frames × 32 bands.

    A recording is read as numbers in [−1, 1), cut or filled with zeros at its end to 8192 samples (1.024 s), and turned into the power of
    a short-time Fourier transform: frames centred every 128 samples (16 ms) from sample 0, periodic Hann
    windows of 256 samples (32 ms) that are scaled to sum to 1. The power is averaged over 32 triangular bands, equally spaced from 0 to
    4000 Hz on the scale 2595 log₁₀(1 + f/700 Hz) and each normalised to weights of sum 1; the feature is log₁₀(power + 10⁻⁶). Then
    features are scaled by `normalise`.

    The data are the folder `recordings` of the repository, or a `.zip` of it, under one of the names `fsdd/recordings`,
    `fsdd_recordings.zip`, `fsdd`, `free-spoken-digit-dataset`, `recordings` (`jaxdyn.tasks.sources` says where).

    Args:
        classes: digits to learn, at least two, in the order of their code.
        n: training recordings. Default: three quarters of those available, all but the published test set with `official_test`.
        n_test: test recordings, disjoint from the training recordings; 0 for none. Default: all that remain.
        key: shuffles the recordings before the choice. Default: the order of index, digit, speaker.
        coding: code of the classes, as in `classification`.
        normalise: scale of the inputs, as in `classification`.
        shape: shape of one input, (64, 32, 1) for convolutions. Default: flat, (2048,), frame by frame.
        official_test: test on the published test set, the recordings of index 0 to 4 (30 a digit), and train on the others. By default
            both are drawn from all recordings, as the 2000 test examples of arXiv 2205.11787 must have been.
        download: not on offer, since no checksum is published: absent files are an error either way.

    Returns:
        A task with `x` [n, 2048] and `y` [n, 1] or [n, k].

    Raises:
        FileNotFoundError: when the data are absent; says what to fetch and where to put it.
        ValueError: when a recording is truncated, corrupt or of another kind, or the request does not fit the data.
    """
    (path,) = find(FSDD, download=download)
    names, read = _recordings(path)
    found = [(int(match[3]), int(match[1]), name) for name in names if (match := _NAME.search(name))]
    if not found:
        raise ValueError(
            f"{path} has no recordings `{{digit}}_{{speaker}}_{{index}}.wav`; fetch the folder `recordings` of {_URL}."
        )
    found.sort()
    labels = np.array([digit for _, digit, _ in found])
    test = np.array([index < _NUM_OFFICIAL for index, _, _ in found])
    if official_test and (not test.any() or test.all()):
        raise ValueError(
            f"{path} has {int(test.sum())} of {len(found)} recordings of index 0 to 4, the published test set; fetch all of {_URL}, "
            "or leave `official_test` out."
        )

    def reader(places: Any) -> Callable[[Any], Any]:
        def samples(row: Any) -> Any:
            return _samples(found[row][2], read(found[row][2]))

        def features(rows: Any) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # SciPy warns of a file that ends before its announced end
                return log_mel([samples(row) for row in places[rows]])

        return features

    choice: Any = {"n": n, "n_test": n_test, "key": key, "coding": coding, "normalise": normalise, "shape": shape}
    if not official_test:
        return from_labels(reader(np.arange(len(found))), labels, classes=classes, **choice)
    train, held = np.flatnonzero(~test), np.flatnonzero(test)
    separate: Any = {"read_test": reader(held), "labels_test": labels[held]}
    return from_labels(reader(train), labels[train], classes=classes, **separate, **choice)


def log_mel(recordings: Sequence[Any]) -> Any:
    """The log-mel spectrograms [n, 64, 32] of n arrays of samples in [−1, 1), [T], as `fsdd` describes them."""
    from scipy.fft import rfft, rfftfreq
    from scipy.signal.windows import hann

    length, before = FRAMES * _HOP, _WINDOW // 2
    samples = np.zeros((len(recordings), before + length + before - _HOP), np.float32)
    for row, recording in zip(samples, recordings, strict=True):
        kept = recording[:length]
        row[before : before + len(kept)] = kept
    window = hann(_WINDOW, sym=False)
    window = (window / window.sum()).astype(np.float32)
    bands = _bands(rfftfreq(_WINDOW, 1 / RATE)).astype(np.float32)
    features = np.empty((len(samples), FRAMES, BANDS), np.float32)
    for begin in range(0, len(samples), _TOGETHER):
        part = slice(begin, begin + _TOGETHER)
        frames = np.lib.stride_tricks.sliding_window_view(samples[part], _WINDOW, axis=1)[:, ::_HOP]
        spectrum = rfft(frames * window)
        features[part] = np.log10((spectrum.real**2 + spectrum.imag**2) @ bands + np.float32(_FLOOR))
    return features


def _bands(frequencies: Any) -> Any:
    """Weights [f, 32] of the triangular bands."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    f = frequencies[:, None]
    weights = np.maximum(0, np.minimum((f - low) / (middle - low), (high - f) / (high - middle)))
    return weights / weights.sum(axis=0)


def _recordings(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """The names in a folder or archive, and how to read one."""
    if path.is_dir():
        inner = path / "recordings"
        files = (inner if inner.is_dir() else path).glob("*.wav")
        return list(map(str, files)), lambda name: Path(name).read_bytes()
    try:
        archive = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is truncated, corrupt or no `.zip` archive ({error}); fetch it from {_URL} again."
        ) from error

    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        except Exception as error:  # a damaged archive may raise anything
            raise ValueError(f"{path}:{name} is corrupt ({error}); fetch it from {_URL} again.") from error

    return archive.namelist(), read


def _samples(name: str, data: bytes) -> Any:
    """The samples of a WAV file [T], in [−1, 1)."""
    from scipy.io import wavfile

    try:
        rate, samples = wavfile.read(io.BytesIO(data))
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(
            f"{name} is truncated, corrupt or no WAV file ({error}); fetch it from {_URL} again."
        ) from error
    if rate != RATE or samples.dtype != np.int16 or samples.ndim != 1 or not samples.size:
        raise ValueError(
            f"{name} has {samples.dtype} samples of shape {samples.shape} at {rate} Hz, but one channel of 16-bit samples at "
            f"{RATE} Hz is needed; fetch it from {_URL} again."
        )
    return samples.astype(np.float32) / 32768
