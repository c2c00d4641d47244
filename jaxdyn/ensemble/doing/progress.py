"""What a person sees while a sweep runs: a bar on a terminal, plain lines elsewhere.

A `Progress` is any object with `start(num_cells, work)`, `cell(name, num_members)`, `begin()`, `advance(work, glance)` and
`stop()`; work is counted in member steps, and only the time in which members run enters the rate.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TextIO, runtime_checkable

import numpy as np


class Glance(NamedTuple):
    """How the members of a cell are doing.

    Attributes:
        num_members: how many there are.
        num_diverged: how many have diverged.
        variable: the recorded variable that is looked at: `loss`, or else the first one with a number a record.
        quantiles: its 10 %, 50 % and 90 % quantiles over the members, where it is finite; None where nothing is.
    """

    num_members: int
    num_diverged: int
    variable: str
    quantiles: tuple[float, float, float] | None

    def __str__(self) -> str:
        parts = [f"{self.num_diverged} of {self.num_members} diverged"] if self.num_diverged else []
        if self.quantiles is not None:
            low, middle, high = self.quantiles
            parts.append(f"{self.variable} {middle:.3g} ({low:.3g} to {high:.3g})")
        return ", ".join(parts)


def glance(diverged_at: np.ndarray, taken: Mapping[str, list[np.ndarray]]) -> Glance:
    """Look at members by where they diverged, [members], -1 where they did not, and the parts of their records [members, rows, …]."""
    numbers = {name: parts[-1] for name, parts in taken.items() if parts[-1].ndim == 2 and parts[-1].dtype.kind == "f"}
    name = "loss" if "loss" in numbers else next(iter(numbers), "")
    quantiles = None
    if name and numbers[name].shape[1]:
        last = numbers[name][:, -1]
        finite = last[np.isfinite(last)]
        if finite.size:
            low, middle, high = (float(q) for q in np.quantile(finite, [0.1, 0.5, 0.9]))
            quantiles = (low, middle, high)
    return Glance(len(diverged_at), int((diverged_at >= 0).sum()), name, quantiles)


@runtime_checkable
class Progress(Protocol):
    """Somebody who is told how far a sweep is."""

    def start(self, num_cells: int, work: float) -> None:
        """A sweep begins."""
        ...

    def cell(self, name: str, num_members: int) -> None:
        """A cell comes next; it may have to be compiled first."""
        ...

    def begin(self) -> None:
        """The members of the cell begin to run."""
        ...

    def advance(self, work: float, glance: Glance | None) -> None:
        """That many more member steps are done; the glance tells how the members are doing, None where nothing was computed."""
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

    def begin(self) -> None:
        """Nothing."""

    def advance(self, work: float, glance: Glance | None) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class _Meter:
    """Member steps done, and the rate at which they come while members run."""

    def __init__(self) -> None:
        self.work = self.done = self._computed = self._running = 0.0
        self._last = time.monotonic()

    def begin(self) -> None:
        self._last = time.monotonic()

    def advance(self, work: float, is_computed: bool) -> None:
        now = time.monotonic()
        self.done += work
        if is_computed:  # what a store held already says nothing of the rate
            self._computed += work
            self._running += max(now - self._last, 0.0)
        self._last = now

    @property
    def rate(self) -> float:
        return self._computed / max(self._running, 1e-9)

    @property
    def left(self) -> float:
        """Seconds."""
        return (self.work - self.done) / self.rate if self.rate else float("inf")


class Lines:
    """A plain line now and then: for logs and pipes.

    Args:
        stream: where to write; standard error when None.
        seconds: least time between two lines.
    """

    def __init__(self, stream: TextIO | None = None, seconds: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._seconds = seconds
        self._meter = _Meter()
        self._cell = self._num_cells = 0
        self._name = ""
        self._glance: Glance | None = None
        self._told = time.monotonic()

    def start(self, num_cells: int, work: float) -> None:
        """A sweep of `num_cells` cells begins."""
        self._num_cells, self._meter.work = num_cells, work
        self._told = time.monotonic()

    def cell(self, name: str, num_members: int) -> None:
        """A cell comes next."""
        self._cell += 1
        self._name = f"{name} ({num_members} members)".strip()
        self._glance = None

    def begin(self) -> None:
        """The members of the cell begin to run."""
        self._meter.begin()

    def advance(self, work: float, glance: Glance | None) -> None:
        """That many more member steps are done."""
        self._meter.advance(work, glance is not None)
        self._glance = glance or self._glance
        now = time.monotonic()
        if now - self._told >= self._seconds:
            self._told = now
            self._say()

    def stop(self) -> None:
        """The sweep is over, or has failed."""
        self._say()

    def _say(self) -> None:
        meter = self._meter
        share = meter.done / meter.work if meter.work else 1.0
        left = "" if meter.done >= meter.work or not meter.rate else f", {meter.left:.0f} s left"
        words = f"; {self._glance}" if self._glance and str(self._glance) else ""
        print(
            f"cell {self._cell}/{self._num_cells} {self._name}: {share:.0%}, {meter.rate:,.0f} member steps/s{left}{words}",
            file=self._stream,
            flush=True,
        )


class Bar:
    """A bar with rate, time left, diverged members and loss: for terminals and notebooks."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[glance]}", style="dim"),
            transient=False,
        )
        self._task: Any = None
        self._cell = self._num_cells = 0
        self._meter = _Meter()

    def start(self, num_cells: int, work: float) -> None:
        """A sweep of `num_cells` cells begins."""
        self._num_cells, self._meter.work = num_cells, work
        self._task = self._bar.add_task("compiling", total=work or 1, rate="", glance="")
        self._bar.start()

    def cell(self, name: str, num_members: int) -> None:
        """A cell comes next."""
        self._cell += 1
        self._bar.update(self._task, description=f"cell {self._cell}/{self._num_cells} {name}", glance="compiling")

    def begin(self) -> None:
        """The members of the cell begin to run."""
        self._meter.begin()
        self._bar.update(self._task, glance="")

    def advance(self, work: float, glance: Glance | None) -> None:
        """That many more member steps are done."""
        meter = self._meter
        meter.advance(work, glance is not None)
        rate = f"{meter.rate:,.0f} member steps/s, {meter.left:.0f} s left" if meter.rate else ""
        self._bar.update(self._task, advance=work, rate=rate, glance=str(glance or ""))

    def stop(self) -> None:
        """The sweep is over, or has failed."""
        self._bar.stop()


def watch() -> Progress:
    """A bar on a terminal, plain lines elsewhere."""
    return Bar() if sys.stderr.isatty() else Lines()
