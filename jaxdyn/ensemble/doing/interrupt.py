"""A first Ctrl-C, or the SIGTERM of a scheduler that wants its machine back, lets a sweep save what it has.

Inside `postponed` the first such signal is only noted: the sweep looks at `Signals.is_pending` between two pieces, saves a
checkpoint and leaves. A second one acts at once. Only the main thread can listen; elsewhere signals do what they did before.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_KINDS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Which signal came."""

    def __init__(self) -> None:
        self._came: int | None = None

    @property
    def is_pending(self) -> bool:
        """Whether one came."""
        return self._came is not None

    def leave(self) -> None:
        """Do what the signal asks for.

        Raises:
            KeyboardInterrupt: for Ctrl-C.
            SystemExit: for SIGTERM, with the status 143.
        """
        if self._came == signal.SIGINT:
            raise KeyboardInterrupt
        if self._came is not None:
            raise SystemExit(128 + self._came)

    def note(self, number: int, frame: Any) -> None:
        """Note the first, let the second act."""
        if self._came is None:
            self._came = number
            name = signal.Signals(number).name
            print(
                f"{name}: saving a checkpoint at the end of this piece, then leaving; once more leaves at once.",
                file=sys.stderr,
                flush=True,
            )
        else:
            self._came = number
            self.leave()


@contextmanager
def postponed(is_wanted: bool) -> Iterator[Signals]:
    """Note signals instead of dying of them, where that is wanted and possible."""
    found = Signals()
    if not is_wanted or threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {kind: signal.getsignal(kind) for kind in _KINDS}
    try:
        for kind, handler in before.items():
            if handler in (signal.default_int_handler, signal.SIG_DFL):  # a handler of the user's own stays
                signal.signal(kind, found.note)
        yield found
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
