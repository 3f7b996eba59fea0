"""Tuned configs: which bucket a case falls into, and the table that maps buckets to configs.

The bucket function is used by the tuner (to write), by `bench` and `ship` (to read) and by generated
C++ (`Table.rows`), so that what was tuned is what is applied. A table is one JSON file,
`configs/<target>.json`; for `cpu` the measured entries stand under the fingerprint of the processor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilewright.cases import Case
from tilewright.document import write_text
from tilewright.errors import TilewrightError
from tilewright.machine import data_folder, host
from tilewright.registry import Family
from tilewright.space import Config
from tilewright.targets import Target

SCHEMA = "tilewright/configs/1"
# The first size of a case (rows, tokens) is bucketed by powers of two; the others are exact, since
# they are the model's and do not vary from call to call.
Bucket = tuple[int, ...]


def bucket(case: Case) -> Bucket:
    """The bucket of a case: its first size rounded up to a power of two, the other sizes as they are."""
    sizes = list(case.sizes.values())
    if not sizes:
        return ()
    first = sizes[0]
    return (0 if first <= 0 else 1 << (first - 1).bit_length(), *sizes[1:])


@dataclass(frozen=True, slots=True)
class Entry:
    """One tuned config: the bucket and layout it is for, and where it comes from.

    `device` is the key it was read under: the fingerprint of a processor, or an architecture.
    `level` is the CPU level it was tuned at, empty off the CPU.
    """

    bucket: Bucket
    precision: str
    flags: Mapping[str, str]
    config: Config
    provenance: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    level: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "bucket": list(self.bucket),
            "precision": self.precision,
            "flags": dict(self.flags),
            "config": dict(self.config),
            "provenance": dict(self.provenance),
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """The config to use for a case, and why."""

    config: Config
    source: str
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """The tuned entries of one family on one target (and, for cpu, one processor)."""

    family: str
    target: str
    entries: tuple[Entry, ...] = ()

    def exact(self, case: Case) -> Entry | None:
        """The entry of this very bucket, precision and layout."""
        for entry in self.entries:
            if entry.bucket == bucket(case) and self._same_kind(entry, case):
                return entry
        return None

    def nearest(self, case: Case) -> Entry | None:
        """The entry of the same layout whose sizes are closest (in octaves).

        One of the same precision if there is any, else one of the same operands: how a result is
        scaled and stored matters little to a tile.
        """
        like = [e for e in self.entries if self._same_kind(e, case)]
        if not like:
            like = [e for e in self.entries if self._same_operands(e, case)]
        return min(like, key=lambda e: _distance(e.bucket, bucket(case)), default=None)

    @staticmethod
    def _same_kind(entry: Entry, case: Case) -> bool:
        return entry.precision == case.precision and _same_layout(entry, case)

    @staticmethod
    def _same_operands(entry: Entry, case: Case) -> bool:
        operands = (p.partition("->")[0] for p in (entry.precision, case.precision))
        return len(set(operands)) == 1 and _same_layout(entry, case)


def _same_layout(entry: Entry, case: Case) -> bool:
    layouts = {k: v for k, v in case.flags.items() if k.endswith("_layout")}
    return all(entry.flags.get(k) == v for k, v in layouts.items())


def _distance(one: Bucket, other: Bucket) -> float:
    import math

    return sum(abs(math.log2(max(x, 1) / max(y, 1))) for x, y in zip(one, other, strict=True))


def installed_path(family: Family, target: Target) -> Path:
    """The table that belongs to the family's own folder."""
    return family.folder / "configs" / f"{target.file_stem}.json"


def user_path(family: Family, target: Target) -> Path:
    """The table that tuning on this machine writes."""
    return data_folder("configs", family.name, f"{target.file_stem}.json")


def _key(target: Target) -> str:
    return host().fingerprint if target.kind == "cpu" else target.arch


def _usable_devices(
    devices: Mapping[str, Any], target: Target, every_level: bool
) -> dict[str, str]:
    """Key and level of this device; for cpu then of other processors, of the same level or of every one."""
    if not isinstance(devices, Mapping):
        raise TypeError("devices is not an object")
    own = _key(target)
    if target.kind != "cpu":
        return {own: ""} if own in devices else {}
    levels = {
        key: str(devices[key]["level"]) for key in sorted(devices, key=lambda k: (k != own, k))
    }
    return {k: v for k, v in levels.items() if k == own or every_level or v == host().isa}


def read(path: Path, family: Family, target: Target, every_level: bool = False) -> Table:
    """Read a table; an absent file is an empty table; a broken one raises TilewrightError.

    Entries of this processor come first, then those of others with the same instruction level: a
    config tuned on a relative is a better guess than the default. `every_level` reads those of other
    levels too, for a library that chooses at run time.
    """
    if not path.exists():
        return Table(family.name, target.name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        devices = content["devices"]
        rows = [
            {**row, "device": key, "level": level}
            for key, level in _usable_devices(devices, target, every_level).items()
            for row in devices[key]["entries"]
        ]
        entries = tuple(
            Entry(
                tuple(row["bucket"]),
                row["precision"],
                row["flags"],
                Config(row["config"]),
                row["provenance"],
                row["device"],
                row["level"],
            )
            for row in rows
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise TilewrightError(f"{path} is not a table of configs ({SCHEMA}): {error!r}") from None
    return Table(family.name, target.name, entries)


def load(family: Family, target: Target, every_level: bool = False) -> Table:
    """The user's entries before the family's own."""
    mine = read(user_path(family, target), family, target, every_level)
    theirs = read(installed_path(family, target), family, target, every_level)
    return Table(family.name, target.name, mine.entries + theirs.entries)


def store(path: Path, family: Family, target: Target, entry: Entry) -> None:
    """Put one entry into a table file, replacing the one of the same bucket, precision and flags."""
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "family": family.name,
        "target": target.name,
        "devices": {},
    }
    if path.exists():
        read(path, family, target)
        content = json.loads(path.read_text(encoding="utf-8"))
    device = content["devices"].setdefault(_key(target), {"entries": []})
    if target.kind == "cpu":
        device["level"] = host().isa
    row = entry.as_dict()
    kept = [
        r
        for r in device["entries"]
        if any(r[k] != row[k] for k in ("bucket", "precision", "flags"))
    ]
    device["entries"] = sorted(
        [*kept, row], key=lambda r: (r["precision"], str(r["flags"]), r["bucket"])
    )
    write_text(path, json.dumps(content, indent=1) + "\n")


def choose(family: Family, case: Case, target: Target, table: Table | None = None) -> Choice:
    """The config for a case: tuned for its bucket, else the nearest legal tuned one, else the default."""
    table = load(family, target) if table is None else table
    space = family.spec.space_for(target)
    default = family.spec.default_config(target)
    exact = table.exact(case)
    entry = exact or table.nearest(case)
    if entry is None:
        return Choice(default, "default: nothing tuned for this precision and layout")
    reason = space.illegal(family.spec, case, entry.config, target) if space else None
    if reason:
        return Choice(
            default,
            f"default: the tuned config of bucket {entry.bucket} is illegal here ({reason})",
        )
    where = "" if entry.device in ("", _key(target)) else f", on {entry.device}"
    if exact:
        return Choice(entry.config, f"tuned for bucket {entry.bucket}{where}", entry)
    nearest = f"nearest tuned bucket {entry.bucket} to {bucket(case)}{where}"
    return Choice(entry.config, nearest, entry)
