"""Coming cells are compiled in background threads while one runs.

Tracing and lowering stay on the caller's thread, because JAX's settings belong to a thread; what XLA does afterwards needs
no Python, so the two programmes of a cell, and those of the next cells, are compiled side by side.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from jaxdyn.ensemble.compiling.placement import num_cores
from jaxdyn.ensemble.compiling.programme import Programme
from jaxdyn.ensemble.deciding.cells import Cell, Plan

_THREADS = 4
_LOOK_AHEAD = 2  # groups whose programmes are held at once, the running one included


class Ahead:
    """Hands out compiled programmes, and begins to compile those that come next. Use as a context.

    Args:
        plan: whose programmes.

    Attributes:
        seconds: spent tracing and lowering in Python, and waiting for XLA.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._waiting: list[Cell] = []
        self._pool = ThreadPoolExecutor(max_workers=min(_THREADS, num_cores()), thread_name_prefix="compile")
        self.seconds = {"tracing": 0.0, "compiling": 0.0}

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self, cells: Iterable[Cell]) -> None:
        """Begin to compile what the first of these cells need; they will be computed, in this order."""
        firsts = {cell.group: cell for cell in reversed(list(cells))}
        self._waiting = list(firsts.values())[::-1]  # the first of each group
        self._look_ahead()

    def take(self, cell: Cell) -> Programme:
        """The programme of a cell, compiled; the next groups have begun to compile when it returns."""
        groups = [one.group for one in self._waiting]
        if cell.group in groups:
            del self._waiting[: groups.index(cell.group)]
            self._look_ahead()
            del self._waiting[0]
        programme = self._plan.programme(cell)
        began = time.monotonic()
        _ = programme.compiled
        self.seconds["compiling"] += time.monotonic() - began
        return programme

    def _look_ahead(self) -> None:
        began = time.monotonic()
        for coming in self._waiting[:_LOOK_AHEAD]:
            self._plan.programme(coming).compile_in(self._pool)
        self.seconds["tracing"] += time.monotonic() - began
