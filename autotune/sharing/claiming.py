"""Who works on which trial: new ones are asked for, those of the dead are taken over, each by one process.

Everything here happens in a turn (`Site.turn`), one process at a time. Should a process stall for so long in
its turn that another is let in, this still holds: a trial that was dropped or finished cannot be written
any more, a result is told only by the process that the trial's claim names, and of two trials with one
config the later is dropped. So at worst a config is measured twice; it counts once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from tilewright.autotune import trials
from tilewright.autotune.sampling.samplers import PoolSampler
from tilewright.autotune.trials import Claim, Outcome, Stage

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from tilewright.autotune.sampling.pool import Pool
    from tilewright.autotune.sharing.site import Site
    from tilewright.space import Config

# Where Optuna keeps the params of a trial that was enqueued, and how such a one is told in its claim.
_ENQUEUED = "fixed_params"
_GUESS = "guess"
# A trial that a process died of this often is told as failed instead of being retried.
_MOST_DEATHS = 3
# Failures rank behind everything: this many times the slowest value so far, in the study and its views.
_FAILURE_FACTOR = 10.0
_FAILURE_WITHOUT_ANY = 1e6
# Configs that wait to be timed, at most: the search learns nothing from them until they are.
BACKLOG = 4


class Role(StrEnum):
    """What a process does: everything, all that comes before timing, or the timing."""

    ALL = "all"
    PREPARE = "prepare"
    MEASURE = "measure"


class Idle(Enum):
    """Why there is nothing to work on: what others do may still leave something, or all is done."""

    LATER = "later"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Budget:
    """Trials of the study altogether, and the moment (time.time) when to stop; None is no limit."""

    trials: int | None
    until: float | None

    def time_left(self) -> bool:
        return self.until is None or time.time() < self.until


def _ready(trial: FrozenTrial) -> bool:
    """Whether all that is left of a trial is to time it."""
    claim = Claim.of(trial)
    return claim is not None and claim.ready


class Claims:
    """The trials of one process. `versions` names what its values are made with, in its records."""

    def __init__(self, study: Study, pool: Pool, budget: Budget, site: Site, role: Role) -> None:
        self.study = study
        self.pool = pool
        self.budget = budget
        self.site = site
        self.role = role
        self.versions = ""
        self._mine: set[int] = set()
        self._met = 0

    def next(self) -> FrozenTrial | Idle:
        """A trial to work on: one that was left, else a new one."""
        idle = self._idle()
        if idle is not None:
            return idle
        with self.site.turn():
            for trial in self._running():
                if self._mine_to_take(trial) and self._orphaned(trial) and self._adopt(trial):
                    return next(t for t in self._running() if t.number == trial.number)
            if self._asks():
                asked = self._ask()
                if asked is not None:
                    return asked
        return self._idle() or Idle.LATER

    def _idle(self) -> Idle | None:
        """Why there is nothing to take; None if there may be: whoever only waits takes no turn from others."""
        running = self._running()
        if any(self._mine_to_take(t) and self._orphaned(t) for t in running) or self._asks(running):
            return None
        waits = any(self._mine_to_take(t) for t in running)
        if self.role is not Role.ALL and self._wanted():
            waits = True
        return Idle.LATER if waits else Idle.DONE

    def _asks(self, running: Sequence[FrozenTrial] | None = None) -> bool:
        """Whether this process is to ask for a new trial now."""
        if self.role is Role.MEASURE:
            return False
        if self.role is Role.PREPARE:
            ready = sum(_ready(t) for t in (self._running() if running is None else running))
            if ready >= BACKLOG:
                return False
        return self._wanted()

    def _mine_to_take(self, trial: FrozenTrial) -> bool:
        """Whether a running trial, were it left by its process, would be work for this one."""
        return not (self.role is Role.PREPARE and _ready(trial))

    def _running(self) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self.study.get_trials(
            deepcopy=False, states=(TrialState.RUNNING,)
        )
        for trial in found:
            self.site.meet(Claim.of(trial))
        return found

    def _orphaned(self, trial: FrozenTrial) -> bool:
        claim = Claim.of(trial)
        if claim is None:
            # Claims are made in a turn: in one of our own, whoever was to make this one is gone.
            return True
        if claim.own and not claim.released:
            return trial.number not in self._mine
        return self.site.lookout.dead(trial)

    def _adopt(self, trial: FrozenTrial) -> bool:
        """Take over a trial whose process is gone; False if nothing is left to be done with it."""
        found = trials.outcome(trial)
        claim = Claim.of(trial)
        if claim is None and (guess := self._guess(trial)) is not None:
            self._complete(trial, guess)
            self._hold(trial, Claim.mine(_GUESS))
            return True
        if trials.index(trial, self.pool) is None or claim is None:
            self.drop(trial, "its process ended before it was complete")
            return False
        if found is not None:
            self._tell(trial, found)
            return False
        deaths = claim.deaths + (0 if claim.own or claim.released else 1)
        if deaths >= _MOST_DEATHS:
            stage = Stage(trial.user_attrs.get(trials.STAGE, Stage.GATE))
            reason = f"the process died in this trial {deaths} times"
            self._record(trial, Outcome.failed(stage, reason))
            return False
        self._hold(trial, Claim.mine(claim.arm, deaths))
        return True

    def _guess(self, trial: FrozenTrial) -> Config | None:
        """The config that a trial was put into the study's queue with; None for one that was asked for."""
        given = trial.system_attrs.get(_ENQUEUED)
        place = None if given is None else self.pool.index(given)
        return None if place is None else self.pool.config(place)

    def _complete(self, trial: FrozenTrial, config: Config) -> None:
        """Write the params that a process which died while taking a guess did not come to write."""
        for name, distribution in self.pool.distributions().items():
            if name not in trial.params:
                inner = distribution.to_internal_repr(config[name])
                self.study._storage.set_trial_param(trial._trial_id, name, inner, distribution)

    def _wanted(self) -> bool:
        """Whether the study is to have more trials than it has."""
        known = self.study.get_trials(deepcopy=False)
        for trial in known[self._met :]:
            self.site.meet(Claim.of(trial))
        self._met = len(known)
        taken = sum(trials.counts(t) for t in known)
        if self.budget.trials is not None and taken >= self.budget.trials:
            return False
        if taken < len(self.pool):
            return True
        past = trials.history(known, self.pool)
        return len(set(past.tried) | set(past.pending)) < len(self.pool)

    def _ask(self) -> FrozenTrial | None:
        sampler = self.study.sampler
        assert isinstance(sampler, PoolSampler)
        while self._wanted():
            asked = self.study.ask(self.pool.distributions())
            self._mine.add(asked.number)
            known = self.study.get_trials(deepcopy=False)
            mine = next(t for t in known if t.number == asked.number)
            guess = self._guess(mine) is not None
            self.set(
                mine, trials.CLAIM, Claim.mine(_GUESS if guess else sampler.last_arm).content()
            )
            twins = [
                t
                for t in known
                if t.number != asked.number and trials.counts(t) and t.params == mine.params
            ]
            if not twins:
                self.site.heart.hold(mine._trial_id)
                return mine
            self.drop(mine, f"trial {twins[0].number} has this config")
        return None

    def hand_over(self, trial: FrozenTrial) -> None:
        """Leave a checked trial to whoever times."""
        self._let_go(trial, ready=True)

    def release(self, trial: FrozenTrial) -> None:
        """An interrupted trial stays unfinished and free for whoever resumes the study."""
        self._let_go(trial, ready=False)

    def _let_go(self, trial: FrozenTrial, ready: bool) -> None:
        claim = self._own_claim(trial)
        if claim is not None:
            self.set(trial, trials.CLAIM, replace(claim, started="", ready=ready).content())
        self._forget(trial)

    def finish(self, trial: FrozenTrial, found: Outcome) -> bool:
        """Record and tell; False if the trial was taken from this process, which had stalled for too long."""
        if self._own_claim(trial) is None:
            self._forget(trial)
            return False
        self._record(trial, found)
        return True

    def _record(self, trial: FrozenTrial, found: Outcome) -> None:
        """Record, then tell: a process that dies in between leaves a record that is told without measuring."""
        self.set(trial, trials.RECORD, {**found.record(), trials.VERSIONS: self.versions})
        self._tell(trial, found)

    def _own_claim(self, trial: FrozenTrial) -> Claim | None:
        """The claim as the storage has it now, if it is this process's."""
        now = next((t for t in self._running() if t.number == trial.number), None)
        claim = Claim.of(now) if now is not None else None
        return claim if claim is not None and claim.own else None

    def _tell(self, trial: FrozenTrial, found: Outcome) -> None:
        value = trials.told(found, self._behind_all(), len(self.study.directions))
        self.study.tell(trial.number, value, skip_if_finished=True)
        self._forget(trial)

    def drop(self, trial: FrozenTrial, reason: str) -> None:
        """Take a trial out of the study: it was never complete, or has the config of another."""
        with suppress(UpdateFinishedTrialError):
            self.set(trial, trials.DROPPED, reason)
        self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        self._forget(trial)

    def _behind_all(self) -> float:
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        values = [
            o.value for o in map(trials.outcome, done) if o is not None and o.value is not None
        ]
        return _FAILURE_FACTOR * max(values, default=_FAILURE_WITHOUT_ANY / _FAILURE_FACTOR)

    def _hold(self, trial: FrozenTrial, claim: Claim) -> None:
        self.set(trial, trials.CLAIM, claim.content())
        self._mine.add(trial.number)
        self.site.heart.hold(trial._trial_id)

    def _forget(self, trial: FrozenTrial) -> None:
        self._mine.discard(trial.number)
        self.site.heart.drop(trial._trial_id)

    def set(self, trial: FrozenTrial, name: str, value: object) -> None:
        """Write an attribute of a running trial."""
        self.study._storage.set_trial_user_attr(trial._trial_id, name, value)
