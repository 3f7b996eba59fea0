"""Measurements in the open autotuning results schema T4 1.0.0, which Kernel Tuner and others write.

The schema is `kernel_tuner/schema/T4/1.0.0/results-schema.json` of Kernel Tuner. It has no place for where a
value comes from, but allows further fields: `tilewright` of the document holds the studies, and of a result
the rest of the record, so that a document of ours reads back without loss. `times` are in milliseconds, as
Kernel Tuner's are; `measurements` say their unit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tilewright.autotune.provenance import StudyKey
from tilewright.autotune.store.record import (
    MILLISECONDS,
    Record,
    foreign_key,
    iso_of,
    key_of,
    read,
)
from tilewright.autotune.trials import Stage, State
from tilewright.document import plain
from tilewright.errors import UsageError
from tilewright.evidence import Evidence

VERSION = "1.0.0"
# How far each kind of invalidity lets a config come; a timeout is one of the run.
_STAGES = {
    "constraints": Stage.GATE,
    "compile": Stage.GATE,
    "correctness": Stage.CHECK,
    "runtime": Stage.TIME,
    "timeout": Stage.TIME,
}


def export(records: Sequence[Record]) -> dict[str, Any]:
    """The document of these records; objectives are called `time`, or by the unit of what is no time."""
    studies = {r.key.digest: plain(asdict(r.key)) for r in records}
    versions = {_digest(r.versions): plain(r.versions) for r in records}
    return {
        "schema_version": VERSION,
        "metadata": {"timeunit": "milliseconds"},
        "results": [_result(r) for r in records],
        "tilewright": {"studies": studies, "versions": versions},
    }


def objective(key: StudyKey) -> str:
    """The name of what is minimised: `time`, or the unit of a score."""
    return "time" if key.unit in MILLISECONDS else key.unit


def invalidity(record: Record) -> str:
    """T4's word for what became of a config."""
    if record.state is State.OK:
        return "correct"
    if record.stage is Stage.GATE:
        return "constraints"
    # What left a wrong output keeps the file that replays it; anything else at this stage crashed.
    wrong = record.stage is Stage.CHECK and "failure" in record.details
    return "correctness" if wrong else "runtime"


def _result(record: Record) -> dict[str, Any]:
    name, unit = objective(record.key), record.key.unit
    per = MILLISECONDS.get(unit)
    measurements: list[dict[str, Any]] = []
    if record.value is not None:
        measurements.append({"name": name, "value": record.value, "unit": unit})
    if record.samples:
        measurements.append({"name": "samples", "value": list(record.samples), "unit": unit})
    verdict = invalidity(record)
    return {
        "timestamp": record.when,
        "configuration": dict(record.config),
        "objectives": [name],
        "times": {"runtimes": [s * per for s in record.samples] if per else []},
        "invalidity": verdict,
        "correctness": 0 if verdict == "correctness" else 1,
        "measurements": measurements,
        "tilewright": {
            "study": record.key.digest,
            "versions": _digest(record.versions),
            "stage": str(record.stage),
            "reason": record.reason,
            "evidence": str(record.evidence),
            "details": plain(record.details),
            "number": record.number,
        },
    }


def _digest(versions: Mapping[str, Any]) -> str:
    text = json.dumps(plain(versions), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def parse(content: Mapping[str, Any], name: str) -> list[Record]:
    """The records of a document, ours or another tool's; raises UsageError naming what is wrong.

    What another tool does not tell (family, device, shape) stays empty; its times are taken as published.
    """
    if content.get("schema_version") != VERSION:
        raise UsageError(
            f"{name} has schema_version {content.get('schema_version')!r}; accepted: {VERSION}"
        )
    ours = content.get("tilewright") or {}
    records = []
    for i, result in enumerate(content["results"]):
        try:
            records.append(
                _own(result, ours, name) if "tilewright" in result else _other(result, i, name)
            )
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise UsageError(f"result {i} of {name} cannot be read: {error!r}") from None
    return records


def _own(result: Mapping[str, Any], ours: Mapping[str, Any], name: str) -> Record:
    rest = result["tilewright"]
    values = {m["name"]: m["value"] for m in result["measurements"]}
    key = key_of(ours["studies"][rest["study"]])
    good = result["invalidity"] == "correct"
    content = {
        **rest,
        "key": asdict(key),
        "config": result["configuration"],
        "state": State.OK if good else State.FAILED,
        "value": values.get(objective(key)),
        "samples": values.get("samples", []),
        "versions": ours["versions"][rest["versions"]],
        "when": result["timestamp"],
    }
    return read(content, name)


def _other(result: Mapping[str, Any], number: int, name: str) -> Record:
    objective_name = str((result.get("objectives") or ["time"])[0])
    measured = {m["name"]: m for m in result.get("measurements", [])}
    found = measured.get(objective_name, {})
    unit = str(found.get("unit") or ("ms" if objective_name == "time" else objective_name))
    verdict = result["invalidity"]
    good = verdict == "correct" and isinstance(found.get("value"), int | float)
    runtimes = result["times"].get("runtimes", []) if unit == "ms" else []
    extra = {k: m["value"] for k, m in measured.items() if k != objective_name}
    key = foreign_key(unit=unit, mode=f"T4 {objective_name}", fields=result["configuration"])
    return Record(
        key=key,
        config=dict(result["configuration"]),
        state=State.OK if good else State.FAILED,
        stage=Stage.TIME if good else _STAGES.get(verdict, Stage.TIME),
        evidence=Evidence.PUBLISHED,
        value=float(found["value"]) if good else None,
        reason="" if good else f"no value of {objective_name}" if verdict == "correct" else verdict,
        samples=tuple(map(float, runtimes)) if good else (),
        details=extra if good else {},
        number=number,
        when=iso_of(result.get("timestamp")),
        origin=name,
    )
