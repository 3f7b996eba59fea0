"""The loop of one process: claim a trial, gate, check, value, tell."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from optuna.exceptions import UpdateFinishedTrialError

from tilewright.autotune import provenance, trials
from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.sharing.claiming import Budget, Claims, Idle, Role
from tilewright.autotune.sharing.interrupt import Interruption
from tilewright.autotune.sharing.liveness import PACE, Pace, storage_errors
from tilewright.autotune.sharing.site import Site
from tilewright.autotune.trials import Stage, TrialRow
from tilewright.autotune.valuing.gate import Gate
from tilewright.autotune.valuing.objective import Enter, NoObjective, Objective
from tilewright.autotune.watch import Watch
from tilewright.errors import Unavailable
from tilewright.evidence import Evidence

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from tilewright.autotune.sharing.storage import Place

__all__ = ["Budget", "Role", "Search"]

_POLL_S, _SLOWEST_S = 0.05, 1.0
# Waiting for others is worth a word when it takes this long.
_SAY_AFTER_S = 5.0


class _Prepared(BaseException):
    """Leaves an objective at the point where timing would begin; no error, so nothing catches it as one."""


class Search:
    """One process working on a study of `target`; `role` says which part of the work it does.

    `quiet_device` names what must not be disturbed while timing; `checks_disturb` that checking does.
    """

    def __init__(
        self,
        study: Study,
        pool: Pool,
        target: str,
        objective: Objective,
        budget: Budget,
        quiet_device: str,
        checks_disturb: bool,
        place: Place,
        role: Role = Role.ALL,
        pace: Pace = PACE,
        watch: Watch | None = None,
    ) -> None:
        self.study = study
        self.pool = pool
        self.target = target
        self.objective = objective
        self.budget = budget
        self.place = place
        self.watch = watch or Watch()
        # A model is valued without a device: there is nothing to hand over.
        self.role = role if splits(objective) else Role.ALL
        self.site = Site(place, study.study_name, quiet_device, pace)
        self.claims = Claims(study, pool, budget, self.site, self.role)
        self._checks_disturb = checks_disturb

    def run(
        self, interruption: Interruption, report: Callable[[TrialRow], None] | None = None
    ) -> int:
        """Work until the budget, the pool or the user ends it; returns how many trials it finished.

        Raises Unavailable when the storage is lost; what was finished is in it.
        """
        try:
            self.claims.versions = provenance.keep_versions(self.study, self.objective)
            return self._run(interruption, report)
        except storage_errors() as error:
            if isinstance(error, BrokenPipeError):
                # Whoever read what is reported is gone, not the storage.
                raise
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise Unavailable(
                f"{self.place.shown} was lost: {first}; the same command resumes the study"
            ) from error
        finally:
            self.site.heart.stop()

    def _recall(self) -> None:
        """A gate that earlier processes have relaxed is as relaxed here: a resumed study judges like one that went on."""
        gate = getattr(self.objective, "gate", None)
        if isinstance(gate, Gate):
            known = [trials.outcome(t) for t in self.study.get_trials(deepcopy=False)]
            gate.recall(o for o in known if o is not None)

    def _run(self, interruption: Interruption, report: Callable[[TrialRow], None] | None) -> int:
        self._recall()
        finished = 0
        pause = _Pause()
        while self.budget.time_left() and not interruption.requested:
            trial = self.claims.next()
            if trial is Idle.DONE:
                break
            if isinstance(trial, Idle):
                pause.once(self.role)
                continue
            pause = _Pause()
            try:
                done = self._work(trial, interruption)
            except KeyboardInterrupt:
                self.claims.release(trial)
                break
            finished += done
            if report and done:
                report(self.row(trial.number))
        return finished

    def row(self, number: int) -> TrialRow:
        """The row of one trial."""
        found = [t for t in self.study.get_trials(deepcopy=False) if t.number == number]
        unit, evidence = self.objective.unit, str(self.objective.evidence)
        return trials.rows(found, self.pool, self.target, unit, evidence)[0]

    def _work(self, trial: FrozenTrial, interruption: Interruption) -> bool:
        """Work on a claimed trial; True if that finished it."""
        place = trials.index(trial, self.pool)
        assert place is not None
        try:
            with interruption.breakable():
                found = self.objective.evaluate(
                    self.pool.config(place), self._enter(trial, interruption)
                )
            return self.claims.finish(trial, found)
        except NoObjective:
            self.claims.drop(trial, "nothing values configs here")
            raise
        except _Prepared:
            self.claims.hand_over(trial)
        except UpdateFinishedTrialError:
            # Another process finished it: this one had stalled and was taken for dead.
            self.site.heart.drop(trial._trial_id)
        return False

    def _enter(self, trial: FrozenTrial, interruption: Interruption) -> Enter:
        """Stages as context managers: noted in the study, and with the device where they need it."""

        @contextmanager
        def stage_of(stage: Stage) -> Iterator[None]:
            self.watch.stage(trial.number, stage)
            if stage is Stage.TIME and self.role is Role.PREPARE:
                raise _Prepared
            if stage is not Stage.GATE:
                with interruption.shielded():
                    self.claims.set(trial, trials.STAGE, str(stage))
            with self._device(stage):
                yield

        return stage_of

    def _device(self, stage: Stage) -> AbstractContextManager[None]:
        if stage is Stage.TIME:
            return self.site.device()
        return self.site.device(shared=True) if self._checks_disturb else nullcontext()


class _Pause:
    """Waiting for what other processes do, longer each time, with one word about it."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._pause_s = _POLL_S
        self._said = False

    def once(self, role: Role) -> None:
        time.sleep(self._pause_s)
        self._pause_s = min(_SLOWEST_S, 1.3 * self._pause_s)
        if role is Role.ALL and not self._said and time.monotonic() - self._began > _SAY_AFTER_S:
            self._said = True
            print("waiting for trials that other processes work on", file=sys.stderr, flush=True)


def splits(objective: Objective) -> bool:
    """Whether timing is apart from what comes before it: a model needs no device and no worker of its own."""
    return objective.evidence is Evidence.MEASURED
