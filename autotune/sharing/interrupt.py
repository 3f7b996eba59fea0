"""Ctrl-C that ends the search and not the program: what was found is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Within it, Ctrl-C (or SIGTERM) sets `requested`; inside `breakable()` it also raises KeyboardInterrupt.

    Storage is written outside `breakable`, so that no write is torn. Outside the main thread, where
    Python gives no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._breakable = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._on_signal) for s in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._breakable:
            raise KeyboardInterrupt

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Work that may be cut off anywhere."""
        self._breakable = True
        try:
            yield
        finally:
            self._breakable = False

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Work inside breakable work that must not be cut off; a Ctrl-C takes effect right after it."""
        before, self._breakable = self._breakable, False
        yield
        self._breakable = before
        if before and self.requested:
            raise KeyboardInterrupt

    def again(self) -> None:
        """Forget the first Ctrl-C, so that a second one can be told from it."""
        self.requested = False
