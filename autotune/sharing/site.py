"""Where a process stands among those that share its study and its device: turns, the device, beats.

On one machine these are file locks, which die with their holder. A storage that other machines reach has a
queue of tickets in it as well, for asking, which must be exclusive among all of them. The device has one too,
for processes of one machine that share no file locks (containers, other users): it is taken from the moment
one of them shows up in the study.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from tilewright.autotune.sharing.liveness import PACE, Heart, Lookout, Pace
from tilewright.autotune.sharing.locks import calm, held, lock_path, turnstile
from tilewright.autotune.sharing.tickets import Queue
from tilewright.autotune.trials import Claim, machine

if TYPE_CHECKING:
    from tilewright.autotune.sharing.storage import Place


class Site:
    """What a process needs to share a study. `quiet_device` names what must not be disturbed while timing."""

    def __init__(self, place: Place, study: str, quiet_device: str, pace: Pace = PACE) -> None:
        self.lookout = Lookout(pace.dead_s)
        self._file = lock_path("measure", quiet_device)
        # A beat is a write: not while something is timed here, if that can be helped.
        self.heart = Heart(place.storage, lambda: calm(self._file, pace.dead_s / 3), pace.beat_s)
        self._turn = place.lock_file
        self._asking = self._queue(place, f"ask {study}")
        self._measuring = self._queue(place, f"measure {machine()} {quiet_device}")
        self._crowded = False

    def _queue(self, place: Place, name: str) -> Queue:
        return Queue(place.storage, name, self.heart, self.lookout)

    def turn(self) -> AbstractContextManager[object]:
        """Alone in claiming and asking, among all that work on the storage."""
        return self._asking.held() if self._turn is None else held(self._turn)

    def meet(self, claim: Claim | None) -> None:
        """Take note of another process in the study."""
        self._crowded = self._crowded or (claim is not None and claim.beside)

    @contextmanager
    def device(self, shared: bool = False) -> Iterator[None]:
        """The device, alone to time on it or with others that would disturb who times."""
        with ExitStack() as stack:
            stack.enter_context(turnstile(self._file, shared))
            if self._crowded:
                stack.enter_context(self._measuring.held(shared))
            yield
