"""Kernel Tuner's cache files: read ours and others', and write one that Kernel Tuner itself can simulate from.

A cache holds one study: `cache["v1,v2,.."]` is a config with `time` in ms, or a word for why it failed. What
the format has no place for stands in `tilewright` at the top, and under names of our own beside the time.
KTT's results are read through the same reader of recorded spaces.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tilewright.autotune.store.record import MILLISECONDS, Record, Scalar, foreign_key, iso_of, read
from tilewright.autotune.store.t4 import objective
from tilewright.autotune.trials import Stage, State
from tilewright.document import plain
from tilewright.errors import UsageError
from tilewright.evidence import Evidence
from tilewright.perf import recorded

# Kernel Tuner's words for a failed config: it knows these only.
_FAILED = {
    Stage.GATE: "InvalidConfig",
    Stage.CHECK: "RuntimeFailedConfig",
    Stage.TIME: "RuntimeFailedConfig",
}
_STAGES = {
    "InvalidConfig": Stage.GATE,
    "CompilationFailedConfig": Stage.GATE,
    "CompilationFailed": Stage.GATE,
    "ValidationFailed": Stage.CHECK,
}
# Times Kernel Tuner wants of every config, in ms; we keep none of them.
_TIMES = ("compile_time", "verification_time", "benchmark_time", "strategy_time", "framework_time")
_OWN = ("value", "samples", "stage", "reason", "details", "number", "versions", "when", "evidence")
_PREFIX = "tilewright_"


def export(records: Sequence[Record]) -> dict[str, Any]:
    """The cache of one study; raises UsageError for records of several, or of different fields."""
    keys = {r.key for r in records}
    if len(keys) != 1:
        raise UsageError(
            f"a Kernel Tuner cache holds one study, not {len(keys)}; name it with --name"
        )
    key = keys.pop()
    names = list(records[0].config)
    if any(list(r.config) != names for r in records):
        raise UsageError(f"the configs of the study do not all have the fields {', '.join(names)}")
    sizes = list(records[0].sizes.values())
    return {
        "device_name": key.device,
        "kernel_name": key.family,
        "problem_size": sizes,
        "tune_params_keys": names,
        "tune_params": {n: _values(r.config[n] for r in records) for n in names},
        "objective": objective(key),
        "tilewright": {"key": asdict(key)},
        "cache": {_name(r.config): _entry(r) for r in records},
    }


def text(content: Mapping[str, Any]) -> str:
    """A closed cache file: Kernel Tuner looks at its last characters."""
    return json.dumps(content, indent="")


def _name(config: Mapping[str, Scalar]) -> str:
    return ",".join(str(v) for v in config.values())


def _values(found: Any) -> list[Scalar]:
    values = list(dict.fromkeys(found))
    return sorted(values) if all(isinstance(v, int | float) for v in values) else values


def _entry(record: Record) -> dict[str, Any]:
    """One config: its parameters, Kernel Tuner's fields, and the rest of the record under our names."""
    name = objective(record.key)
    per = MILLISECONDS.get(record.key.unit, 1.0)
    good = record.value is not None
    row: dict[str, Any] = {
        **record.config,
        name: record.value * per if record.value is not None else _FAILED[record.stage],
        **dict.fromkeys(_TIMES, 0),
        "timestamp": record.when,
    }
    if good and record.samples:
        row["times"] = [s * per for s in record.samples]
    content = record.as_dict()
    # As text: Kernel Tuner takes a value that it can print, not a mapping.
    return row | {
        f"{_PREFIX}record": json.dumps({n: content[n] for n in _OWN}, separators=(",", ":"))
    }


def parse(content: Mapping[str, Any], name: str) -> list[Record]:
    """The records of a cache or of KTT's results; raises UsageError naming what is wrong."""
    if isinstance(ours := content.get("tilewright"), Mapping) and "cache" in content:
        return [
            _own(row, content["tune_params_keys"], ours, name) for row in content["cache"].values()
        ]
    found = recorded.parse(name, dict(content))
    version = content.get("Metadata", {}) if "Results" in content else {}
    tool = "ktt" if "Results" in content else "kernel_tuner"
    repeats = [[float(t) for t in row if math.isfinite(t)] for row in found.repeats_ms]
    most = max(map(len, repeats), default=0)
    mode = f"{tool}, mean of {most}" if most else tool
    key = foreign_key(
        family=found.kernel,
        backend=tool,
        device=found.device,
        shape=_shape(content.get("problem_size")),
        unit="ms",
        mode=mode,
        fields=found.fields,
    )
    stamps = _stamps(content)
    records = []
    for row, (time, reason) in enumerate(zip(found.times_ms, found.reasons, strict=True)):
        good = bool(math.isfinite(time))
        config = found.config(row)
        facts = {k: float(v[row]) for k, v in found.facts.items() if math.isfinite(v[row])}
        records.append(
            Record(
                key=key,
                config=config,
                state=State.OK if good else State.FAILED,
                stage=Stage.TIME if good else _STAGES.get(reason, Stage.TIME),
                evidence=Evidence.PUBLISHED,
                value=float(time) if good else None,
                reason=reason,
                samples=tuple(repeats[row]),
                details=facts,
                versions=plain(version),
                number=row,
                when=stamps.get(_name(config), ""),
                origin=name,
            )
        )
    return records


def _own(
    row: Mapping[str, Any], names: Sequence[str], ours: Mapping[str, Any], name: str
) -> Record:
    try:
        rest = json.loads(row[f"{_PREFIX}record"])
        config = {n: row[n] for n in names}
        state = State.FAILED if rest["value"] is None else State.OK
        return read({**rest, "key": ours["key"], "config": config, "state": state}, name)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"a config of {name} cannot be read: {error!r}") from None


def _stamps(content: Mapping[str, Any]) -> dict[str, str]:
    """When each config of a cache was measured, by its name in the cache."""
    rows = content.get("cache") or {}
    return {k: iso_of(row["timestamp"]) for k, row in rows.items() if row.get("timestamp")}


def _shape(problem: object) -> str:
    """Kernel Tuner's problem size as sizes x, y, z; empty where it is computed by a function."""
    sizes = [problem] if isinstance(problem, int) else problem
    if not isinstance(sizes, list) or not all(isinstance(s, int) for s in sizes):
        return ""
    return ",".join(f"{name}={size}" for name, size in zip("xyz", sizes, strict=False))
