"""The loop of one process: claim a trial, gate, check, value, tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from tilewright.autotune import provenance, trials
from tilewright.autotune.interrupt import Interruption
from tilewright.autotune.locks import held, lock_path
from tilewright.autotune.objective import Enter, NoObjective, Objective
from tilewright.autotune.pool import Pool
from tilewright.autotune.samplers import PoolSampler
from tilewright.autotune.trials import Claim, Outcome, Stage, TrialRow
from tilewright.autotune.watch import Watch

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

# A process of another machine that has held a trial for this long is taken for dead.
_FOREIGN_LIMIT_S = 1800.0
# A trial that a process died of this often is told as failed instead of being retried.
_MOST_DEATHS = 3
# Failures rank behind everything: this many times the slowest value so far, in the study and its views.
_FAILURE_FACTOR = 10.0
_FAILURE_WITHOUT_ANY = 1e6


@dataclass(frozen=True, slots=True)
class Budget:
    """Trials of the study altogether, and the moment (time.time) when to stop; None is no limit."""

    trials: int | None
    until: float | None

    def time_left(self) -> bool:
        return self.until is None or time.time() < self.until


class Search:
    """One process working on a study of `target`. `quiet_device` names what must not be disturbed while timing."""

    def __init__(
        self,
        study: Study,
        pool: Pool,
        target: str,
        objective: Objective,
        budget: Budget,
        quiet_device: str,
        checks_disturb: bool,
        local: bool = True,
        watch: Watch | None = None,
    ) -> None:
        self.study = study
        self.pool = pool
        self.target = target
        self.objective = objective
        self.budget = budget
        self.local = local
        self.watch = watch or Watch()
        self._device = lock_path("measure", quiet_device)
        self._asking = lock_path("ask", study.study_name)
        self._checks_disturb = checks_disturb
        self._mine: set[int] = set()

    def run(
        self, interruption: Interruption, report: Callable[[TrialRow], None] | None = None
    ) -> int:
        """Work until the budget, the pool or the user ends it; returns how many trials it finished."""
        finished = 0
        while self.budget.time_left() and not interruption.requested:
            trial = self._claim()
            if trial is None:
                break
            try:
                self._work(trial, interruption)
            except KeyboardInterrupt:
                self._release(trial)
                break
            finished += 1
            if report:
                report(self.row(trial.number))
        return finished

    def row(self, number: int) -> TrialRow:
        """The row of one trial."""
        found = [t for t in self.study.get_trials(deepcopy=False) if t.number == number]
        unit, evidence = self.objective.unit, str(self.objective.evidence)
        return trials.rows(found, self.pool, self.target, unit, evidence)[0]

    def _claim(self) -> FrozenTrial | None:
        """An orphaned trial or a new one; None when there is nothing left to do."""
        with held(self._asking):
            known = self.study.get_trials(deepcopy=False)
            for trial in known:
                if (
                    trial.state == TrialState.RUNNING
                    and self._orphaned(trial)
                    and self._adopt(trial)
                ):
                    return trial
            known = self.study.get_trials(deepcopy=False)
            taken = sum(trials.counts(t) for t in known)
            if self.budget.trials is not None and taken >= self.budget.trials:
                return None
            return self._ask()

    def _orphaned(self, trial: FrozenTrial) -> bool:
        claim = Claim.of(trial)
        age = (
            (datetime.now() - trial.datetime_start).total_seconds() if trial.datetime_start else 0.0
        )
        if claim is None:
            # Claims are made under the lock we hold; only another machine can be about to make one.
            return self.local or age > 60.0
        if claim.own:
            return trial.number not in self._mine
        if claim.released:
            return True
        return not claim.alive if claim.here else age > _FOREIGN_LIMIT_S

    def _adopt(self, trial: FrozenTrial) -> bool:
        """Take over a trial whose process is gone; False if nothing is left to be done with it."""
        found = trials.outcome(trial)
        claim = Claim.of(trial)
        if trials.index(trial, self.pool) is None or claim is None:
            self._drop(trial, "its process ended before it was complete")
            return False
        if found is not None:
            self._tell(trial, found)
            return False
        stage = Stage(trial.user_attrs.get(trials.STAGE, Stage.GATE))
        deaths = claim.deaths + (0 if claim.own or claim.released else 1)
        if deaths >= _MOST_DEATHS:
            self._finish(
                trial, Outcome.failed(stage, f"the process died in this trial {deaths} times")
            )
            return False
        self._set(trial, trials.CLAIM, Claim.mine(claim.arm, deaths).content())
        self._mine.add(trial.number)
        return True

    def _ask(self) -> FrozenTrial | None:
        sampler = self.study.sampler
        assert isinstance(sampler, PoolSampler)
        while not self._exhausted():
            asked = self.study.ask(self.pool.distributions())
            self._mine.add(asked.number)
            asked.set_user_attr(trials.CLAIM, Claim.mine(sampler.last_arm).content())
            known = self.study.get_trials(deepcopy=False)
            mine = next(t for t in known if t.number == asked.number)
            twins = [
                t
                for t in known
                if t.number != asked.number and trials.counts(t) and t.params == mine.params
            ]
            if not twins:
                return mine
            self._drop(mine, f"trial {twins[0].number} has this config")
        return None

    def _exhausted(self) -> bool:
        known = trials.history(self.study.get_trials(deepcopy=False), self.pool)
        return len(set(known.tried) | set(known.pending)) >= len(self.pool)

    def _work(self, trial: FrozenTrial, interruption: Interruption) -> None:
        place = trials.index(trial, self.pool)
        assert place is not None
        try:
            with interruption.breakable():
                found = self.objective.evaluate(
                    self.pool.config(place), self._enter(trial, interruption)
                )
        except NoObjective:
            self._drop(trial, "nothing values configs here")
            raise
        self._finish(trial, found)

    def _enter(self, trial: FrozenTrial, interruption: Interruption) -> Enter:
        """Stages as context managers: noted in the study, and under the device's lock where they need it."""

        @contextmanager
        def stage_of(stage: Stage) -> Iterator[None]:
            self.watch.stage(trial.number, stage)
            if stage is not Stage.GATE:
                with interruption.shielded():
                    self._set(trial, trials.STAGE, str(stage))
            with ExitStack() as stack:
                for lock in self._locks(stage):
                    stack.enter_context(lock)
                yield

        return stage_of

    def _locks(self, stage: Stage) -> Sequence[AbstractContextManager[None]]:
        if stage is Stage.TIME:
            return (held(self._device),)
        return (held(self._device, shared=True),) if self._checks_disturb else ()

    def _finish(self, trial: FrozenTrial, found: Outcome) -> None:
        """Record, then tell: a process that dies in between leaves a record that is told without measuring."""
        self._set(trial, trials.RECORD, {**found.record(), trials.VERSIONS: self._versions})
        self._tell(trial, found)

    @cached_property
    def _versions(self) -> str:
        """The name of the versions this process measures with, which are kept once with the study."""
        return provenance.keep_versions(self.study, self.objective)

    def _tell(self, trial: FrozenTrial, found: Outcome) -> None:
        value = trials.told(found, self._behind_all(), len(self.study.directions))
        self.study.tell(trial.number, value, skip_if_finished=True)
        self._mine.discard(trial.number)

    def _release(self, trial: FrozenTrial) -> None:
        """An interrupted trial stays unfinished and free for whoever resumes the study."""
        claim = Claim.of(
            next(t for t in self.study.get_trials(deepcopy=False) if t.number == trial.number)
        )
        if claim:
            self._set(trial, trials.CLAIM, replace(claim, started="").content())
        self._mine.discard(trial.number)

    def _drop(self, trial: FrozenTrial, reason: str) -> None:
        self._set(trial, trials.DROPPED, reason)
        self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        self._mine.discard(trial.number)

    def _behind_all(self) -> float:
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        values = [
            o.value for o in map(trials.outcome, done) if o is not None and o.value is not None
        ]
        return _FAILURE_FACTOR * max(values, default=_FAILURE_WITHOUT_ANY / _FAILURE_FACTOR)

    def _set(self, trial: FrozenTrial, name: str, value: object) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, name, value)
