"""What a tuning returns, and how it is written down."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.autotune.choosing.final import Decision, Scored
from tilewright.autotune.provenance import StudyKey
from tilewright.autotune.trials import SPENT, State, TrialRow
from tilewright.autotune.valuing.pareto import front
from tilewright.space import Config


@dataclass(frozen=True, slots=True)
class TuneResult:
    """A finished or interrupted tuning.

    `decision` is None when no trial succeeded. `measured` is how many trials this run valued (0 for a
    study that was complete); `stored` where the winner was written.
    """

    key: StudyKey
    study: str
    storage: str
    sampler: str
    seed: int
    evidence: str
    unit: str
    pool: int
    rows: tuple[TrialRow, ...]
    decision: Decision | None
    measured: int
    seconds: float
    interrupted: bool
    stored: Path | None = None
    objectives: tuple[str, ...] = ("time",)

    @property
    def best(self) -> Scored | None:
        return self.decision.best if self.decision else None

    @property
    def default(self) -> Scored | None:
        return self.decision.default if self.decision else None

    @property
    def gain(self) -> float | None:
        """The default's time over the winner's: 1.2 is a fifth faster. None without both, and for models."""
        return self.decision.gain if self.decision else None

    @property
    def score_ratio(self) -> float | None:
        """The default's score over the winner's where a model gave them: it ranks, it is no speed."""
        return self.decision.score_ratio if self.decision else None

    @property
    def tie_set(self) -> tuple[Config, ...]:
        """Configs that cannot be told from the best, the best first."""
        return self.decision.tie_set if self.decision else ()

    @property
    def spent(self) -> dict[str, float]:
        """Seconds that all trials of the study took by stage, where the objective says so; workers add up."""
        found: dict[str, float] = {}
        for row in self.rows:
            for stage, seconds in row.details.get(SPENT, {}).items():
                found[stage] = round(found.get(stage, 0.0) + seconds, 3)
        return found

    @property
    def pareto(self) -> tuple[TrialRow, ...]:
        """The trials that no other beats in every objective, by the first; empty where there is only one."""
        good = [r for r in self.rows if r.state is State.OK and len(r.values) > 1]
        if not good:
            return ()
        values = np.array([list(r.values.values()) for r in good])
        kept = [r for r, on in zip(good, front(values), strict=True) if on]
        return tuple(sorted(kept, key=lambda r: (r.value, r.number)))

    @property
    def failures(self) -> tuple[TrialRow, ...]:
        return tuple(r for r in self.rows if r.state is State.FAILED)

    def top(self) -> dict[str, Any]:
        """The top-level fields of `tune`'s document, beside `rows`."""
        decided = self.decision
        return {
            "best": self.best,
            "default": self.default,
            "gain": self.gain,
            "score_ratio": self.score_ratio,
            "tie_set": list(self.tie_set),
            "p_best": list(decided.p_best) if decided else [],
            "verdict": decided.verdict if decided else "inconclusive",
            "confirmed": decided.confirmed if decided else False,
            "doubt": decided.reason if decided else "no trial succeeded",
            "rounds": decided.rounds if decided else 0,
            "objectives": list(self.objectives),
            "pareto": [r.number for r in self.pareto],
            "evidence": self.evidence,
            "unit": self.unit,
            "seed": self.seed,
            "sampler": self.sampler,
            "study": self.study,
            "storage": self.storage,
            "key": asdict(self.key),
            "pool": self.pool,
            "measured": self.measured,
            "seconds": round(self.seconds, 3),
            "spent_s": self.spent,
            "interrupted": self.interrupted,
            "stored": self.stored,
        }
