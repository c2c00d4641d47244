"""What a person sees while a sweep runs: a bar on a terminal, plain lines elsewhere.

A `Progress` is any object with `start(num_cells, work)`, `cell(name, num_members)`, `advance(work)` and `stop()`; work is
counted in member steps.
"""

import sys
import time
from typing import Any, Protocol, TextIO, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Somebody who is told how far a sweep is."""

    def start(self, num_cells: int, work: float) -> None:
        """A sweep begins."""
        ...

    def cell(self, name: str, num_members: int) -> None:
        """A cell begins."""
        ...

    def advance(self, work: float) -> None:
        """That many more member steps are done."""
        ...

    def stop(self) -> None:
        """The sweep is over, or has failed."""
        ...


class Silent:
    """Tells nobody."""

    def start(self, num_cells: int, work: float) -> None:
        """Nothing."""

    def cell(self, name: str, num_members: int) -> None:
        """Nothing."""

    def advance(self, work: float) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class Lines:
    """A plain line now and then: for logs and pipes.

    Args:
        stream: where to write; standard error when None.
        seconds: least time between two lines.
    """

    def __init__(self, stream: TextIO | None = None, seconds: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._seconds = seconds
        self._done = self._work = 0.0
        self._cell = self._num_cells = 0
        self._name = ""
        self._began = self._told = time.monotonic()

    def start(self, num_cells: int, work: float) -> None:
        """A sweep of `num_cells` cells begins."""
        self._num_cells, self._work = num_cells, work
        self._began = self._told = time.monotonic()

    def cell(self, name: str, num_members: int) -> None:
        """A cell begins."""
        self._cell += 1
        self._name = f"{name} ({num_members} members)"

    def advance(self, work: float) -> None:
        """That many more member steps are done."""
        self._done += work
        now = time.monotonic()
        if now - self._told >= self._seconds:
            self._told = now
            self._say(now)

    def stop(self) -> None:
        """The sweep is over, or has failed."""
        self._say(time.monotonic())

    def _say(self, now: float) -> None:
        rate = self._done / max(now - self._began, 1e-9)
        left = (self._work - self._done) / rate if rate else float("inf")
        share = self._done / self._work if self._work else 1.0
        print(
            f"cell {self._cell}/{self._num_cells} {self._name}: {share:.0%}, {rate:,.0f} member steps/s, {left:.0f} s left",
            file=self._stream,
            flush=True,
        )


class Bar:
    """A bar with rate and time left: for terminals and notebooks."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            transient=False,
        )
        self._task: Any = None
        self._cell = self._num_cells = 0
        self._began = time.monotonic()
        self._done = 0.0

    def start(self, num_cells: int, work: float) -> None:
        """A sweep of `num_cells` cells begins."""
        self._num_cells, self._began = num_cells, time.monotonic()
        self._task = self._bar.add_task("compiling", total=work or 1, rate="")
        self._bar.start()

    def cell(self, name: str, num_members: int) -> None:
        """A cell begins."""
        self._cell += 1
        self._bar.update(self._task, description=f"cell {self._cell}/{self._num_cells} {name}")

    def advance(self, work: float) -> None:
        """That many more member steps are done."""
        self._done += work
        rate = self._done / max(time.monotonic() - self._began, 1e-9)
        self._bar.update(self._task, advance=work, rate=f"{rate:,.0f} member steps/s")

    def stop(self) -> None:
        """The sweep is over, or has failed."""
        self._bar.stop()


def watch() -> Progress:
    """A bar on a terminal, plain lines elsewhere."""
    return Bar() if sys.stderr.isatty() else Lines()
