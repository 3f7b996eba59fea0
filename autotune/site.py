"""Where a process stands among those that share its study and its device: turns, the device, beats.

On one machine these are file locks, which die with their holder. A storage that other machines reach has a
queue of tickets in it as well: for asking, which must be exclusive among all of them, and for the device,
which containers of one machine may share without sharing a file system.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from tilewright.autotune.liveness import PACE, Heart, Lookout, Pace
from tilewright.autotune.locks import calm, held, lock_path, turnstile
from tilewright.autotune.tickets import Queue
from tilewright.autotune.trials import machine

if TYPE_CHECKING:
    from tilewright.autotune.storage import Place


class Site:
    """What a process needs to share a study. `quiet_device` names what must not be disturbed while timing."""

    def __init__(self, place: Place, study: str, quiet_device: str, pace: Pace = PACE) -> None:
        self.lookout = Lookout(pace.dead_s)
        self._file = lock_path("measure", quiet_device)
        # A beat is a write: not while something is timed here, if that can be helped.
        self.heart = Heart(place.storage, lambda: calm(self._file, pace.dead_s / 3), pace.beat_s)
        self._turn = place.lock_file
        self._asking: Queue | None = None
        self._measuring: Queue | None = None
        if self._turn is None:
            self._asking = self._queue(place, f"ask {study}")
            self._measuring = self._queue(place, f"measure {machine()} {quiet_device}")

    def _queue(self, place: Place, name: str) -> Queue:
        return Queue(place.storage, name, self.heart, self.lookout)

    def turn(self) -> AbstractContextManager[object]:
        """Alone in claiming and asking, among all that work on the storage."""
        if self._asking is not None:
            return self._asking.held()
        return held(self._turn) if self._turn is not None else nullcontext()

    @contextmanager
    def device(self, shared: bool = False) -> Iterator[None]:
        """The device, alone to time on it or with others that would disturb who times."""
        with ExitStack() as stack:
            stack.enter_context(turnstile(self._file, shared))
            if self._measuring is not None:
                stack.enter_context(self._measuring.held(shared))
            yield
