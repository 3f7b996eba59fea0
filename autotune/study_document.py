"""A stored study as the document that `tune` would write: for reports on studies, ours or anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tilewright.autotune import trials
from tilewright.autotune.provenance import STUDY_EVIDENCE, STUDY_KEY
from tilewright.autotune.sharing.storage import open_url
from tilewright.document import document
from tilewright.errors import UsageError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_DECISION = "decision"


def documents(url: str, name: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Name and document of the named study, or of every study, of a storage that has trials; those that maximise are passed over.

    Raises UsageError for a URL that is none, a name that is not there, or a storage without trials.
    """
    place = open_url(url)
    found = {s.study_name: s for s in place.storage.get_all_studies()}
    if name is not None and name not in found:
        listed = ", ".join(f"'{n}'" for n in sorted(found)[:8]) or "none"
        raise UsageError(f"no study '{name}' in {place.shown}; there: {listed}")
    made = []
    for one in sorted(found) if name is None else [name]:
        study = found[one]
        # Plots are of what is better when smaller: times, cycles, bytes.
        if any(d.name == "MAXIMIZE" for d in study.directions):
            continue
        content = _document(place.storage, study._study_id, one, study.user_attrs)
        if content["rows"]:
            made.append((one, {**content, "storage": place.shown}))
    if not made:
        what = f"study '{name}' in {place.shown}" if name else place.shown
        raise UsageError(f"{what} has nothing to draw: no trial of a study that minimises")
    return made


def _document(
    storage: BaseStorage,
    identifier: int,
    name: str,
    attrs: Mapping[str, Any],
) -> dict[str, Any]:
    unit, evidence = str(attrs.get("unit", "value")), attrs.get(STUDY_EVIDENCE)
    found = storage.get_all_trials(identifier, deepcopy=False)
    labels = storage.get_study_system_attrs(identifier).get("study:metric_names")
    rows = [_row(t, unit, evidence, labels) for t in found if trials.counts(t) and t.params]
    kept = attrs.get(_DECISION)
    decided = kept.get("decision", {}) if isinstance(kept, Mapping) else {}
    best = decided.get("best")
    timed = bool(decided.get("confirmed"))
    return document(
        "tune",
        rows,
        best=best,
        default=decided.get("default"),
        gain=best.get("ratio") if best and timed else None,
        score_ratio=best.get("ratio") if best and decided.get("by_score") else None,
        tie_set=decided.get("tie_set", []),
        verdict=decided.get("verdict", "not given"),
        evidence=evidence,
        unit=unit,
        key=attrs.get(STUDY_KEY),
        study=name,
    )


def _row(trial: FrozenTrial, unit: str, evidence: Any, labels: list[str] | None) -> dict[str, Any]:
    """A trial of ours by its record, anybody's by its state and values."""
    own, claim = trials.outcome(trial), trials.Claim.of(trial)
    row: dict[str, Any] = {"number": trial.number, "config": dict(trial.params), "unit": unit}
    row["arm"] = claim.arm if claim else ""
    if own is not None and trial.state.is_finished():
        values = trials.with_units(own.objectives, unit)
        row |= {"state": own.state, "stage": own.stage, "value": own.value, "reason": own.reason}
        row |= {"values": values} if values else {}
    elif trial.state.name == "COMPLETE" and trial.values:
        told = list(trial.values)
        row |= {"state": "ok", "stage": "", "value": told[0], "reason": ""}
        if len(told) > 1:
            names = labels or [f"objective {i}" for i in range(len(told))]
            row["values"] = dict(zip(names, told, strict=True))
    else:
        over = trial.state.is_finished()
        reason = str(trial.user_attrs.get(trials.DROPPED, trial.state.name.lower()))
        row |= {
            "state": "failed" if over else "running",
            "stage": "",
            "value": None,
            "reason": reason,
        }
    row["evidence"] = evidence if row["value"] is not None else None
    return row
