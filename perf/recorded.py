"""Tuning spaces that others measured to the last config: Kernel Tuner caches and KTT results, read as one thing.

Formats: Kernel Tuner's cache file (`cache: {"v1,v2": {param: value, time, times}}`, a failed config carries a
word in place of `time`) and KTT's JSON output (`Results: [{Configuration, ComputationResults, Status}]`),
either of them gzip'd.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import UsageError

Scalar = int | float | str | bool
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Where simulated tunings are read off, in unique configs tried.
MARKS = (25, 50, 100, 200)
ACCEPTED = "a Kernel Tuner cache or KTT results, as .json or .json.gz"
# What KTT records of a binary, under the names that a static gate knows.
_KTT_FACTS = {
    "RegistersCount": "regs",
    "LocalMemorySize": "shared_bytes",
    "PrivateMemorySize": "spill_bytes",
    "ConstantMemorySize": "constant_bytes",
    "MaxWorkGroupSize": "most_threads",
}
_KTT_UNITS = {"Nanoseconds": 1e-6, "Microseconds": 1e-3, "Milliseconds": 1.0, "Seconds": 1e3}


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded space: one row per legal config, in the order of the file.

    `fields` maps each parameter to the values that occur, numbers in increasing order; `ordinals[row, field]`
    are places in them. `times_ms` is infinite where the config failed, with the word for it in `reasons`.
    `repeats_ms[row, repeat]` are the single measurements, NaN where there are fewer. `facts` holds static
    facts of the binaries by name, NaN for those that were not built.
    """

    name: str
    kernel: str
    device: str
    problem: str
    fields: Mapping[str, tuple[Scalar, ...]]
    ordinals: Indices
    times_ms: Floats
    reasons: tuple[str, ...]
    repeats_ms: Floats
    facts: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times_ms)

    @property
    def optimum_ms(self) -> float:
        """The fastest time of the space."""
        return float(self.times_ms.min())

    def config(self, row: int) -> dict[str, Scalar]:
        """The parameters of a row by name."""
        return {
            name: values[place]
            for (name, values), place in zip(self.fields.items(), self.ordinals[row], strict=True)
        }


@dataclass(slots=True)
class _Entry:
    config: dict[str, Scalar]
    time_ms: float
    reason: str = ""
    repeats_ms: Sequence[float] = ()
    facts: dict[str, float] = field(default_factory=dict)


def read(path: Path) -> Recording:
    """Read a recording; raises UsageError naming the file and what is wrong with it."""
    try:
        raw = path.read_bytes()
        content = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except (EOFError, ValueError, gzip.BadGzipFile) as error:
        raise UsageError(f"{path} is no JSON ({error}); accepted: {ACCEPTED}") from None
    return parse(path.name, content)


def parse(name: str, content: object) -> Recording:
    """A recording from its JSON; raises UsageError when it is none or has no config that worked."""
    if isinstance(content, dict) and isinstance(content.get("cache"), dict):
        entries = list(_kernel_tuner(name, content))
        about = (content.get("kernel_name"), content.get("device_name"))
        problem = content.get("problem_size")
    elif isinstance(content, dict) and isinstance(content.get("Results"), list):
        entries = list(_ktt(name, content))
        kernels = {str(r.get("KernelName")) for r in content["Results"]}
        about = ("+".join(sorted(kernels)), content.get("Metadata", {}).get("Device"))
        problem = None
    else:
        raise UsageError(f"{name} is no recorded space; accepted: {ACCEPTED}")
    entries = list({tuple(e.config.items()): e for e in entries}.values())
    if not any(math.isfinite(e.time_ms) for e in entries):
        raise UsageError(f"{name} has no config that worked")
    return _recording(name, str(about[0]), str(about[1]), str(problem or ""), entries)


def _kernel_tuner(name: str, content: Mapping[str, Any]) -> Iterator[_Entry]:
    keys = content.get("tune_params_keys")
    rows = content["cache"].values()
    if not isinstance(keys, list) or any(
        not isinstance(r, dict) or not set(keys) <= set(r) for r in rows
    ):
        raise UsageError(f"{name} lacks tune_params_keys, or a config lacks one of them")
    for row in rows:
        config = {key: _scalar(row[key]) for key in keys}
        time, error = row.get("time"), row.get("__error__")
        if error is None and isinstance(time, int | float) and 0 < time < 1e30:
            yield _Entry(config, float(time), "", [float(t) for t in row.get("times") or ()])
        else:
            yield _Entry(config, math.inf, str(error or time))


def _ktt(name: str, content: Mapping[str, Any]) -> Iterator[_Entry]:
    to_ms = _KTT_UNITS.get(content.get("Metadata", {}).get("TimeUnit", "Microseconds"))
    if to_ms is None:
        raise UsageError(f"{name} has an unknown TimeUnit; accepted: {', '.join(_KTT_UNITS)}")
    for row in content["Results"]:
        config = {p["Name"]: _scalar(p["Value"]) for p in row["Configuration"]}
        ran = row.get("ComputationResults") or []
        if row.get("Status") != "Ok" or not row.get("TotalDuration"):
            yield _Entry(config, math.inf, str(row.get("Status")))
            continue
        facts: dict[str, float] = {}
        for part in ran:
            for theirs, ours in _KTT_FACTS.items():
                if theirs in part.get("CompilationData", {}):
                    facts[ours] = max(facts.get(ours, 0.0), float(part["CompilationData"][theirs]))
            threads = math.prod(int(v) for v in part.get("LocalSize", {}).values())
            facts["threads"] = max(facts.get("threads", 0.0), float(threads))
        yield _Entry(config, row["TotalDuration"] * to_ms, "", (), facts)


def _scalar(value: object) -> Scalar:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | float | str) else json.dumps(value)


def _recording(
    name: str, kernel: str, device: str, problem: str, entries: Sequence[_Entry]
) -> Recording:
    names = list(entries[0].config)
    fields = {n: _ordered({e.config[n]: None for e in entries}) for n in names}
    place = {n: {v: i for i, v in enumerate(values)} for n, values in fields.items()}
    ordinals = np.array([[place[n][e.config[n]] for n in names] for e in entries], dtype=np.int64)
    repeats = np.full((len(entries), max(len(e.repeats_ms) for e in entries)), np.nan)
    for row, entry in enumerate(entries):
        repeats[row, : len(entry.repeats_ms)] = entry.repeats_ms
    known = {fact for e in entries for fact in e.facts}
    return Recording(
        name, kernel, device, problem, fields, ordinals,
        np.array([e.time_ms for e in entries]),
        tuple(e.reason for e in entries),
        repeats,
        {k: np.array([e.facts.get(k, math.nan) for e in entries]) for k in sorted(known)},
    )  # fmt: skip


def _ordered(values: Mapping[Scalar, None]) -> tuple[Scalar, ...]:
    """Numbers by size, anything else in the order in which it occurs."""
    if all(isinstance(v, int | float) for v in values):
        return tuple(sorted(values, key=float))
    return tuple(values)
