"""Tuned configs: which bucket a case falls into, and the table that maps buckets to configs.

What was tuned is what is applied: `buckets` holds the one bucket function, used here to write and to
read, and what `rows` says is what generated C++ is given. A table is one JSON file,
`configs/<target>.json`; for `cpu` the measured entries stand under the fingerprint of the processor.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilewright.buckets import Bucket, Span, bucket, octaves
from tilewright.cases import Case
from tilewright.document import write_text
from tilewright.errors import TilewrightError
from tilewright.machine import data_folder, host
from tilewright.registry import Family
from tilewright.space import Config
from tilewright.targets import Target

__all__ = ["Bucket", "Choice", "Entry", "Table", "bucket", "choose", "load", "read", "store"]
SCHEMA = "tilewright/configs/1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tuned config: the bucket and layout it is for, and where it comes from.

    The first size of `bucket` is the upper end of a range: that of a power of two, or of the sizes above
    `over` where a sweep has set the ends. `device` is the key it was read under: the fingerprint of a processor, or an architecture.
    `level` is the CPU level it was tuned at, empty off the CPU.
    """

    bucket: Bucket
    precision: str
    flags: Mapping[str, str]
    config: Config
    provenance: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    level: str = ""
    over: int | None = None

    @property
    def span(self) -> Span:
        """The first sizes it is for."""
        return Span.of(self.bucket[0] if self.bucket else 0, self.over)

    def as_dict(self) -> dict[str, Any]:
        explicit = {} if self.over is None else {"over": self.over}
        return {
            "bucket": list(self.bucket),
            **explicit,
            "precision": self.precision,
            "flags": dict(self.flags),
            "config": dict(self.config),
            "provenance": dict(self.provenance),
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """The config to use for a case, and why. `passed` are nearer entries that are illegal here, with the reason."""

    config: Config
    source: str
    entry: Entry | None = None
    passed: tuple[tuple[Entry, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """The tuned entries of one family on one target (and, for cpu, one processor)."""

    family: str
    target: str
    entries: tuple[Entry, ...] = ()

    def exact(self, case: Case) -> Entry | None:
        """The entry of this very precision and layout whose bucket holds the case."""
        found = next(iter(self.candidates(case)), None)
        return found if found and holds(found, case) else None

    def nearest(self, case: Case) -> Entry | None:
        """The entry of the same layout whose sizes are closest."""
        return next(iter(self.candidates(case)), None)

    def candidates(self, case: Case) -> Iterator[Entry]:
        """Every entry that may serve a case, the best first: `choice.cpp` tries them in this order.

        Those of the same precision, nearest bucket first (in octaves, earlier entries first among equals);
        then those of the same operands: how a result is scaled and stored matters little to a tile.
        """
        alike = [e for e in self.entries if _same_layout(e, case)]
        same = [e for e in alike if e.precision == case.precision]
        others = [e for e in alike if e.precision != case.precision]
        kin = [e for e in others if operands(e.precision) == operands(case.precision)]
        for group in (same, kin):
            yield from sorted(group, key=lambda e: distance(e, case))


def operands(precision: str) -> str:
    """What a precision reads: `int8` for `int8->bf16`."""
    return precision.partition("->")[0]


def holds(entry: Entry, case: Case) -> bool:
    """Whether an entry was tuned for this precision and for a bucket that the case is in."""
    return entry.precision == case.precision and distance(entry, case) == 0


def distance(entry: Entry, case: Case) -> int:
    """How far a case is from an entry's bucket, in steps of `buckets.OCTAVE`; 0 inside."""
    sizes = tuple(case.sizes.values())
    if not sizes:
        return 0
    rest = zip(sizes[1:], entry.bucket[1:], strict=True)
    return entry.span.distance(sizes[0]) + sum(octaves(size, tuned) for size, tuned in rest)


def _same_layout(entry: Entry, case: Case) -> bool:
    """Whether an entry is for as many sizes and these layouts; one that names no layout fits none."""
    layouts = {k: v for k, v in case.flags.items() if k.endswith("_layout")}
    return len(entry.bucket) == len(case.sizes) and all(
        entry.flags.get(k) == v for k, v in layouts.items()
    )


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
    # A table may be older than a field of the space: that one is then as in the default.
    newer = dict(family.spec.default_config(target))
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
                Config({**newer, **row["config"]}),
                row["provenance"],
                row["device"],
                row["level"],
                _lower_end(row),
            )
            for row in rows
        )
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise TilewrightError(f"{path} is not a table of configs ({SCHEMA}): {error!r}") from None
    return Table(family.name, target.name, _specific_first(entries))


def _lower_end(row: Mapping[str, Any]) -> int | None:
    """The explicit lower end of a row's range; raises TypeError where the two ends make no range."""
    over = row.get("over")
    if over is not None and not (isinstance(over, int) and -1 <= over < row["bucket"][0]):
        raise TypeError(f"over={over!r} and bucket={row['bucket']} are no range")
    return over


def _specific_first(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Devices in their order; of one device the narrower range first, so that it wins where two overlap."""
    order: dict[str, int] = {}
    return tuple(
        sorted(entries, key=lambda e: (order.setdefault(e.device, len(order)), e.span.width))
    )


def load(family: Family, target: Target, every_level: bool = False) -> Table:
    """The user's entries before the family's own."""
    mine = read(user_path(family, target), family, target, every_level)
    theirs = read(installed_path(family, target), family, target, every_level)
    return Table(family.name, target.name, mine.entries + theirs.entries)


def store(path: Path, family: Family, target: Target, entry: Entry) -> None:
    """Put one entry into a table file, replacing the one of the same bucket, precision and flags."""
    _put(path, family, target, [entry], lambda row: _range(row) == (entry.over, *entry.bucket))


def store_sweep(path: Path, family: Family, target: Target, entries: Sequence[Entry]) -> None:
    """Put the buckets of one sweep into a table file; what they cover of the same kind is replaced."""
    low, high = min(e.span.over for e in entries), max(e.span.upper for e in entries)
    rest = list(entries[0].bucket[1:])

    def covered(row: Mapping[str, Any]) -> bool:
        its = Span.of(row["bucket"][0], row.get("over"))
        return row["bucket"][1:] == rest and its.upper > low and its.over < high

    _put(path, family, target, entries, covered)


def _range(row: Mapping[str, Any]) -> tuple[int | None, ...]:
    return (row.get("over"), *row["bucket"])


def _put(
    path: Path,
    family: Family,
    target: Target,
    entries: Sequence[Entry],
    replaces: Callable[[Mapping[str, Any]], bool],
) -> None:
    """Write entries of one precision and one set of flags; old ones of that kind go where `replaces` says."""
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
    new = [e.as_dict() for e in entries]
    kind = (new[0]["precision"], new[0]["flags"])
    kept = [r for r in device["entries"] if (r["precision"], r["flags"]) != kind or not replaces(r)]
    device["entries"] = sorted(
        [*kept, *new], key=lambda r: (r["precision"], str(r["flags"]), r["bucket"])
    )
    write_text(path, json.dumps(content, indent=1) + "\n")


def choose(family: Family, case: Case, target: Target, table: Table | None = None) -> Choice:
    """The config for a case: tuned for its bucket, else the nearest legal tuned one, else what the sizes suggest."""
    table = load(family, target) if table is None else table
    space = family.spec.space_for(target)
    passed: list[tuple[Entry, str]] = []
    for entry in table.candidates(case):
        reason = space.illegal(family.spec, case, entry.config, target) if space else None
        if reason:
            passed.append((entry, reason))
            continue
        source = f"{_why(entry, case)}{_where(entry, target)}{_skipped(passed)}"
        return Choice(entry.config, source, entry, tuple(passed))
    config = family.spec.config_for(case, target)
    kind = "default" if config == family.spec.default_config(target) else "tiling"
    why = "nothing tuned is legal here" if passed else "nothing tuned for this precision and layout"
    return Choice(config, f"{kind}: {why}{_skipped(passed)}", None, tuple(passed))


def _why(entry: Entry, case: Case) -> str:
    if holds(entry, case):
        return f"tuned for bucket {entry.bucket}{_ends(entry)}"
    relative = f", tuned in {entry.precision}" if entry.precision != case.precision else ""
    return f"nearest tuned bucket {entry.bucket}{_ends(entry)} to {tuple(case.sizes.values())}{relative}"


def _ends(entry: Entry) -> str:
    return "" if entry.over is None else f" of {entry.span}"


def _where(entry: Entry, target: Target) -> str:
    return "" if entry.device in ("", _key(target)) else f", on {entry.device}"


def _skipped(passed: Sequence[tuple[Entry, str]]) -> str:
    said = [f"the config of bucket {e.bucket} is illegal here ({why})" for e, why in passed[:3]]
    more = [f"{len(passed) - 3} more are too"] if len(passed) > 3 else []
    return f"; {', '.join([*said, *more])}" if said else ""
