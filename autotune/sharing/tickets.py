"""A lock between machines that needs nothing but the study storage: tickets in the order of their numbers.

Whoever wants the lock draws a ticket, a trial of a study kept for that. A storage numbers trials one by one
and never twice, so the lowest unfinished ticket holds the lock, and a ticket's number says who came after
whom. A holder that is dead is finished by whoever waits behind it. Any storage of Optuna will do: a
database, a gRPC proxy before one, a journal.

What that guarantees: never two holders while each is alive and stalls for less than the time after which it
is called dead (`liveness.PACE`); waiters are served in their order, and none waits for a dead one for longer.
A holder that stalled for longer may meet another; what it writes under the lock must bear that (see
`claiming`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from tilewright.autotune.trials import CLAIM, Claim

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from tilewright.autotune.sharing.liveness import Heart, Lookout

# The study that holds the tickets of all locks of a storage.
STUDY = "tilewright queues"
QUEUE, SHARED = "queue", "shared"
_POLL_S, _SLOWEST_S = 0.02, 0.5


class Queue:
    """One lock by name, alone or with other sharers; sharers do not pass those who wait for it alone."""

    def __init__(self, storage: BaseStorage, name: str, heart: Heart, lookout: Lookout) -> None:
        self._storage = storage
        self._name = name
        self._heart = heart
        self._lookout = lookout
        self._study: int | None = None

    @contextmanager
    def held(self, shared: bool = False) -> Iterator[int]:
        """Hold the lock; gives the ticket's trial id."""
        ticket = self._wait(shared)
        try:
            yield ticket
        finally:
            self._end(ticket)

    def holds(self, ticket: int) -> bool:
        """Whether a ticket still counts: not if its process stalled for so long that it was called dead."""
        return not self._storage.get_trial(ticket).state.is_finished()

    def _wait(self, shared: bool) -> int:
        while True:
            ticket = self._draw(shared)
            try:
                if self._served(ticket, shared):
                    return ticket
            except BaseException:
                self._end(ticket)
                raise
            self._heart.drop(ticket)

    def _draw(self, shared: bool) -> int:
        attributes = {CLAIM: Claim.mine("").content(), QUEUE: self._name, SHARED: shared}
        ticket = self._storage.create_new_trial(
            self._study_id(), create_trial(state=TrialState.RUNNING, user_attrs=attributes)
        )
        self._heart.hold(ticket)
        return ticket

    def _served(self, ticket: int, shared: bool) -> bool:
        """Wait until nobody is ahead; False if the ticket was taken away."""
        pause = _POLL_S
        while True:
            waiting = [t for t in self._tickets() if t.user_attrs.get(QUEUE) == self._name]
            own = next((t for t in waiting if t._trial_id == ticket), None)
            if own is None:
                return False
            ahead = [t for t in waiting if t.number < own.number]
            ahead = [t for t in ahead if not (shared and t.user_attrs.get(SHARED))]
            if not ahead:
                return True
            dead = [t for t in ahead if self._lookout.dead(t)]
            for gone in dead:
                self._end(gone._trial_id)
            if not dead:
                time.sleep(pause)
                pause = min(_SLOWEST_S, 1.5 * pause)

    def _tickets(self) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self._storage.get_all_trials(
            self._study_id(), deepcopy=False, states=(TrialState.RUNNING,)
        )
        return found

    def _end(self, ticket: int) -> None:
        self._heart.drop(ticket)
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(ticket, TrialState.FAIL)

    def _study_id(self) -> int:
        if self._study is None:
            with suppress(DuplicatedStudyError):
                self._storage.create_new_study([StudyDirection.MINIMIZE], STUDY)
            self._study = self._storage.get_study_id_from_name(STUDY)
        return self._study
