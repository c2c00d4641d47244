"""News in four classes: AG News as hashed counts of words.

References:
    A. Gulli, "AG's corpus of news articles", 2005; X. Zhang, J. Zhao, Y. LeCun, arXiv 1509.01626.
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdyn._typing import Key
from jaxdyn.tasks._checks import count
from jaxdyn.tasks.base import Task
from jaxdyn.tasks.classification import Coding, Scale, from_labels, name_to_number
from jaxdyn.tasks.files import unpacked
from jaxdyn.tasks.sources import Source, find

CLASSES = ("World", "Sports", "Business", "Sci/Tech")  # labels 1 to 4 of the files

AG_NEWS = Source(  # the checksums are those that torchtext documents
    "AG News",
    ("ag_news/train.csv", "ag_news/test.csv"),
    "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/",
    {"train.csv": "b1a00f826fdfbd249f79597b59e1dc12", "test.csv": "d52ea96a97a2d943681189a97654912d"},
    (
        ("ag_news_csv/train.csv", "ag_news_csv/test.csv"),
        ("ag_news/test.csv",),
        ("ag_news.csv",),
        ("ag_news_first3800.csv",),
    ),
)


def ag_news(
    *,
    classes: Sequence[int | str],
    n: int | None = None,
    n_test: int | None = None,
    key: Key | None = None,
    coding: Coding | None = None,
    normalise: Scale = "centred",
    features: int = 1024,
    download: bool = False,
) -> Task:
    """News by title and description: 120 000 to train, 7600 to test, as hashed counts of words.

    Title and description, joined by a space, are turned by scikit-learn's `HashingVectorizer` into `features` numbers: lower-case words
    of two letters or digits and more, without English stop words, are counted at the place of their hash (MurmurHash3) with its sign, and
    the counts of a text are scaled to ‖x‖ = 1. No statistics of the data enter, so that an input does not depend on what else is chosen.
    Then features are scaled by `normalise`.

    The files have rows `"label","title","description"`: `ag_news/train.csv` and `ag_news/test.csv` (`jaxdyn.tasks.sources` says where), or
    one file alone, `ag_news.csv` or `ag_news/test.csv`, of which training and test set are disjoint parts. Of equal texts the first
    counts, and of those that are in both files the one to test on.

    Args:
        classes: classes to learn, at least two, by number (1 to 4) or name (`CLASSES`), in the order of their code.
        n: training texts. Default: all of the training file, three quarters of one file alone.
        n_test: test texts; 0 for none. Default: all that remain.
        key: shuffles the texts before the choice. Default: the order of the files.
        coding: code of the classes, as in `classification`.
        normalise: scale of the inputs, as in `classification`.
        features: length d of one input.
        download: fetch absent files (31 MB) into the user's cache.

    Returns:
        A task with `x` [n, features] and `y` [n, 1] or [n, k].

    Raises:
        FileNotFoundError: when the files are absent; says what to fetch and where to put it.
        ValueError: when a file is truncated, corrupt or of another kind, or the request does not fit the data.
    """
    features = count("features", features)
    files = find(AG_NEWS, download=download)
    texts_test, labels_test = _read(files[1]) if len(files) == 2 else (None, None)
    texts, labels = _read(files[0], texts_test or ())
    choice: Any = {"n": n, "n_test": n_test, "key": key, "coding": coding, "normalise": normalise, "shape": None}
    numbers = name_to_number(classes, CLASSES, first=1)
    if texts_test is not None:
        choice |= {"read_test": _hashed(texts_test, features), "labels_test": labels_test}
    return from_labels(_hashed(texts, features), labels, classes=numbers, **choice)


def _hashed(texts: list[str], features: int) -> Callable[[Any], Any]:
    """The features [n, d] of texts by place."""
    from sklearn.feature_extraction.text import HashingVectorizer  # late: it takes seconds

    vectorizer = HashingVectorizer(n_features=features, stop_words="english", dtype=np.float32)
    return lambda rows: vectorizer.transform([texts[row] for row in rows]).toarray()


def _read(path: Path, others: Sequence[str] = ()) -> tuple[list[str], Any]:
    """Different texts that are not among `others`, and their labels 1 to 4."""
    remedy = f"fetch it from {AG_NEWS.url} again"
    try:
        lines = csv.reader(io.StringIO(unpacked(path, path.read_bytes()).decode(), newline=""), strict=True)
        rows = list(lines)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is truncated, corrupt or no CSV file ({error}); {remedy}.") from error
    for number, row in enumerate(rows, 1):
        if len(row) != 3 or row[0] not in ("1", "2", "3", "4"):
            raise ValueError(
                f"{path} is corrupt or not of AG News: row {number} is {str(row)[:60]}, but a label 1 to 4, a title and a description are "
                f"needed; {remedy}."
            )
    labels: dict[str, int] = {}
    for label, title, description in rows:
        labels.setdefault(f"{title} {description}", int(label))
    known = set(others)
    kept = {text: label for text, label in labels.items() if text not in known}
    if not kept:
        raise ValueError(f"{path} has no texts; {remedy}.")
    return list(kept), np.array(list(kept.values()))
