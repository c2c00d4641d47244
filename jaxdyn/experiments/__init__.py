"""Published phenomena, a folder each, on the public API alone.

| module of a folder | what it holds |
|---|---|
| `__init__.py` | the phenomenon in words: networks, data, method, references; its first line is the title |
| `claims.py` | `CLAIMS`, data, written before the first run; loads no JAX |
| `sweep.py` | `Config`, `PRESETS` and `ensemble(config)`, what `jd.sweep` takes |
| `measure.py` | `intervals(config, dataset)`, the estimate of every claim: a pure function of the dataset |
| `figure.py` | `draw(config, dataset)` |

`load("width")` puts them together; `names()` are the folders there are; `decide` adds seeds until every claim is decided, to the cases
that open claims need (`by_case`).
"""

import importlib
from typing import Any

from jaxdyn.experiments.experiment import Experiment, by_case, claims, docstring, load, names
from jaxdyn.experiments.sequential import Decided, Look, decide

__all__ = ["Decided", "Experiment", "Look", "by_case", "claims", "decide", "docstring", "load", "names"]


def __getattr__(name: str) -> Any:
    if name in names():
        load(name)  # so that the modules of the folder are there too
        return importlib.import_module(f"jaxdyn.experiments.{name}")
    raise AttributeError(f"module 'jaxdyn.experiments' has no attribute {name!r}")
