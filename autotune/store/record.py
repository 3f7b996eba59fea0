"""One measured config with everything its value depends on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any

from tilewright import tables
from tilewright.autotune.provenance import StudyKey
from tilewright.autotune.trials import Stage, State
from tilewright.cases import Case, parse_shape
from tilewright.document import plain
from tilewright.errors import UsageError
from tilewright.evidence import Evidence

Scalar = int | float | str | bool
# One unit in milliseconds; a unit that is not here is no time.
MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, slots=True)
class Record:
    """What one config gave in one study.

    `key` is the identity of its study (an imported record leaves what its source does not tell empty),
    `versions` the compilers, libraries and drivers the value depends on. `value` and `samples` are in
    `key.unit`, lower is better; a failed config has no value but the stage and reason. `when` is the
    moment it was finished, ISO 8601 in UTC or empty; `origin` where the record was read.
    """

    key: StudyKey
    config: Mapping[str, Scalar]
    state: State
    stage: Stage
    evidence: Evidence
    value: float | None = None
    reason: str = ""
    samples: tuple[float, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0
    when: str = ""
    origin: str = ""

    @property
    def value_ms(self) -> float | None:
        """The value in ms; None for a failure and for what is no time."""
        per = MILLISECONDS.get(self.key.unit)
        return None if per is None or self.value is None else self.value * per

    @property
    def sizes(self) -> dict[str, int]:
        return dict(sizes_of(self.key.shape))

    @property
    def bucket(self) -> tables.Bucket:
        """The bucket of shapes that a tuned table would file it under."""
        return _bucket(self.key.shape, self.key.precision, self.key.memory)

    def as_dict(self) -> dict[str, Any]:
        """As JSON types; `read` takes it back."""
        content: dict[str, Any] = plain(asdict(self))
        return {**content, "bucket": list(self.bucket)}

    @property
    def digest(self) -> str:
        """Identifies the measurement, wherever it was read: the same one imported twice is one."""
        content = {k: v for k, v in self.as_dict().items() if k != "origin"}
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@cache
def sizes_of(shape: str) -> Mapping[str, int]:
    """The sizes of a shape's text by name, read once."""
    return parse_shape(shape)


@cache
def _bucket(shape: str, precision: str, memory: str) -> tables.Bucket:
    return tables.bucket(Case.make(sizes_of(shape), precision, {}, memory or "dense"))


def read(content: Mapping[str, Any], origin: str | None = None) -> Record:
    """What `as_dict` wrote; raises UsageError naming what is missing or wrong."""
    try:
        value = content["value"]
        if value is not None and not math.isfinite(value):
            raise ValueError(f"value {value}")
        record = Record(
            key=key_of(content["key"]),
            config={str(k): _scalar(v) for k, v in content["config"].items()},
            state=State(content["state"]),
            stage=Stage(content["stage"]),
            evidence=Evidence(content["evidence"]),
            value=None if value is None else float(value),
            reason=str(content["reason"]),
            samples=tuple(map(float, content["samples"])),
            details=dict(content["details"]),
            versions=dict(content["versions"]),
            number=int(content["number"]),
            when=str(content["when"]),
            origin=str(content["origin"]) if origin is None else origin,
        )
        if (record.state is State.OK) != (record.value is not None):
            raise ValueError(f"state {record.state} with value {value}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"not a record of a measurement: {type(error).__name__} {error}") from None
    return record


def key_of(content: Mapping[str, Any]) -> StudyKey:
    """A study's identity from JSON; raises KeyError or TypeError for a field that lacks or has a wrong type."""
    given = {f.name: content[f.name] for f in fields(StudyKey)}
    for name, value in given.items():
        if not isinstance(value, int if name == "threads" else str):
            raise TypeError(f"{name}={value!r}")
    parse_shape(given["shape"])
    return StudyKey(**given)


def _scalar(value: object) -> Scalar:
    if not isinstance(value, int | float | str):
        raise TypeError(f"config value {value!r}")
    return value


def iso(moment: datetime | None) -> str:
    """A moment as Optuna keeps it (naive, local) in UTC with seconds; empty for None."""
    return "" if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


def iso_of(text: object) -> str:
    """Somebody else's time stamp in the same form, as it is where it has no zone; empty if it is none."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return ""
    return (moment.astimezone(UTC) if moment.tzinfo else moment).isoformat(timespec="seconds")


def foreign_key(
    *,
    family: str = "",
    backend: str = "",
    target: str = "",
    device: str = "",
    shape: str = "",
    precision: str = "",
    flags: str = "",
    unit: str,
    mode: str,
    fields: Mapping[str, Any],
) -> StudyKey:
    """The identity of a study of another tool: what it does not tell is empty. Its space is known by its fields."""
    space = hashlib.sha256(json.dumps(sorted(fields)).encode()).hexdigest()[:16]
    return StudyKey(
        family=family,
        backend=backend,
        target=target,
        device=device,
        shape=shape,
        precision=precision,
        flags=flags,
        memory="dense",
        threads=0,
        source_hash="",
        space_hash=space,
        mode=mode,
        unit=unit,
    )
