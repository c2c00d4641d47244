"""One section in its own process: `python -m benchmarks.accelerator.section MODULE:FUNCTION SETTING ROWS`.

SETTING is the JSON of a `Setting`; every row is appended to the file ROWS, one line of JSON, as soon as it is known.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Setting:
    """What a section is told.

    Attributes:
        tiny: toy sizes: does it run, not how fast.
        folder: where it may leave files.
        seconds: when it is killed.
        part: which part of the section this process does, of those that the driver was told.
    """

    tiny: bool
    folder: Path
    seconds: float
    part: str = ""


Row = dict[str, Any]


def attempts(work: Mapping[str, Callable[[], Row]]) -> Iterator[Row]:
    """One row for each action, `{"what": name, …}` with the seconds it took; an action that raises gives a row with its error."""
    for what, action in work.items():
        began = time.perf_counter()
        try:
            row = action()
        except Exception as error:
            row = {"ok": False, "error": f"{type(error).__name__}: {str(error)[:400]}"}
        yield {"what": what, **row, "seconds": round(time.perf_counter() - began, 2)}


def main(work: str, request: str, path: str) -> None:
    """Run one section."""
    setting = json.loads(request)
    module, _, function = work.partition(":")
    rows = getattr(importlib.import_module(module), function)(Setting(**setting | {"folder": Path(setting["folder"])}))
    with open(path, "a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, default=float, ensure_ascii=False) + "\n")
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
