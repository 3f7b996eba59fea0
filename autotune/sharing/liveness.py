"""Which processes still live, also on other machines: beats, and who judges them.

A process of this machine is looked up by its number. One of another machine writes a counter into each
trial it holds every few seconds; whoever watches calls it dead when the counter has stood still for long
enough by the watcher's own clock, so that no two clocks need to agree.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.exceptions import OptunaError, UpdateFinishedTrialError

from tilewright.autotune.trials import BEAT, Claim

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between beats, and without one after which a process is taken for dead: several are missed then."""

    beat_s: float = 10.0
    dead_s: float = 60.0


PACE = Pace()


def storage_errors() -> tuple[type[Exception], ...]:
    """What a storage raises when it cannot be reached or written; libraries that are not loaded raise nothing."""
    found: list[type[Exception]] = [OptunaError, OSError]
    if "sqlalchemy" in sys.modules:
        from sqlalchemy.exc import SQLAlchemyError

        found.append(SQLAlchemyError)
    if "grpc" in sys.modules:
        from grpc import RpcError

        found.append(RpcError)
    return tuple(found)


class Heart:
    """A thread that beats for the trials this process holds. `calm` is entered around each round of writes."""

    def __init__(
        self,
        storage: BaseStorage,
        calm: Callable[[], AbstractContextManager[object]],
        period_s: float,
    ) -> None:
        self._storage = storage
        self._calm = calm
        self._period_s = period_s
        self._held: set[int] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, trial_id: int) -> None:
        """Beat for this trial from now on."""
        with self._lock:
            self._held.add(trial_id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)
                self._thread.start()

    def drop(self, trial_id: int) -> None:
        """Beat no more for this trial."""
        with self._lock:
            self._held.discard(trial_id)

    def stop(self) -> None:
        """End the thread, given a moment for a write that is under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(self._period_s):
            count += 1
            with self._lock:
                held = sorted(self._held)
            if held:
                with self._calm():
                    for trial_id in held:
                        self._write(trial_id, count)

    def _write(self, trial_id: int, count: int) -> None:
        try:
            self._storage.set_trial_user_attr(trial_id, BEAT, count)
        except UpdateFinishedTrialError:
            self.drop(trial_id)
        except storage_errors():
            # The next beat may get through; if none does, this process is rightly taken for dead.
            return


class Lookout:
    """Tells from here which trials (or tickets) were left by a process that is gone."""

    def __init__(self, dead_s: float) -> None:
        self._dead_s = dead_s
        self._seen: dict[int, tuple[tuple[Claim | None, object], float]] = {}

    def dead(self, trial: FrozenTrial) -> bool:
        """Whether nobody works on a running trial any more."""
        claim = Claim.of(trial)
        if claim is not None and claim.released:
            return True
        if claim is not None and claim.here:
            return not claim.alive
        return self.still(trial) > self._dead_s

    def still(self, trial: FrozenTrial) -> float:
        """Seconds for which claim and beat of a trial have not changed, as seen from here."""
        sign = (Claim.of(trial), trial.user_attrs.get(BEAT))
        before, since = self._seen.get(trial._trial_id, (None, 0.0))
        if before != sign:
            since = time.monotonic()
            self._seen[trial._trial_id] = (sign, since)
        return time.monotonic() - since
