"""The records of a study storage. Nothing is kept twice: a record is a reading of an Optuna trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tilewright.autotune import trials
from tilewright.autotune.provenance import (
    STUDY_EVIDENCE,
    STUDY_KEY,
    STUDY_VERSIONS,
    StudyKey,
)
from tilewright.autotune.store.record import Record, iso, key_of
from tilewright.evidence import Evidence

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, slots=True)
class StudyRecords:
    """The finished configs of one study; `running` counts those that are still being worked on."""

    name: str
    key: StudyKey
    evidence: Evidence
    records: tuple[Record, ...]
    running: int
    origin: str

    @property
    def best(self) -> Record | None:
        """The record of the lowest value, the earlier one of equals; None without a success."""
        good = [r for r in self.records if r.value is not None]
        return min(good, key=lambda r: (r.value or 0.0, r.number), default=None)


def _any(key: StudyKey) -> bool:
    return True


def studies(
    storage: BaseStorage, origin: str, wanted: Callable[[StudyKey], bool] = _any
) -> Iterator[StudyRecords]:
    """Every study of ours in a storage that is `wanted`, by name; those of others are passed over.

    Trials are read for the wanted ones alone.
    """
    for study in sorted(storage.get_all_studies(), key=lambda s: s.study_name):
        attrs = study.user_attrs
        try:
            key, evidence = key_of(attrs[STUDY_KEY]), Evidence(attrs[STUDY_EVIDENCE])
        except (KeyError, TypeError, ValueError):
            continue
        if not wanted(key):
            continue
        found = storage.get_all_trials(study._study_id, deepcopy=False)
        good = [t for t in found if trials.counts(t)]
        done = tuple(r for t in good if (r := _record(t, key, evidence, attrs, origin)))
        yield StudyRecords(study.study_name, key, evidence, done, len(good) - len(done), origin)


def _record(
    trial: FrozenTrial, key: StudyKey, evidence: Evidence, attrs: Mapping[str, Any], origin: str
) -> Record | None:
    """The record of a trial; None while it is unfinished."""
    found = trials.outcome(trial)
    if found is None or not trial.state.is_finished():
        return None
    made_by = trial.user_attrs[trials.RECORD].get(trials.VERSIONS, "")
    return Record(
        key=key,
        config=dict(trial.params),
        state=found.state,
        stage=found.stage,
        evidence=evidence,
        value=found.value,
        reason=found.reason,
        samples=found.samples,
        details=dict(found.details),
        versions=attrs.get(STUDY_VERSIONS + made_by, {}),
        number=trial.number,
        when=iso(trial.datetime_complete),
        origin=origin,
    )
