"""What there is to read: the studies of storages and the imported ones, as one list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tilewright.autotune.provenance import StudyKey
from tilewright.autotune.sharing.storage import Place, open_url
from tilewright.autotune.store import measurements, reading
from tilewright.autotune.store.donors import related_backend
from tilewright.autotune.store.reading import StudyRecords
from tilewright.autotune.store.record import Record
from tilewright.machine import data_folder

IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Studies with their records; `damaged` counts lines of the imports file that could not be read."""

    studies: tuple[StudyRecords, ...]
    damaged: int = 0

    @property
    def records(self) -> tuple[Record, ...]:
        """All of them in their order; a measurement that was exported and imported again is one."""
        found: dict[str, Record] = {}
        for record in (r for s in self.studies for r in s.records):
            found.setdefault(record.digest, record)
        return tuple(found.values())

    def select(self, family: str = "", target: str = "", name: str = "") -> Catalogue:
        """Those of a family, on a target, whose name (or that of their file) contains a text."""
        kept = [
            s
            for s in self.studies
            if family in ("", s.key.family)
            and target in ("", s.key.target)
            and (name in s.name or name in s.origin)
        ]
        return Catalogue(tuple(kept), self.damaged)


def catalogue(url: str | None, path: Path | None = None) -> Catalogue:
    """The studies of one storage, or of all of this user's journals, and the imported ones.

    Raises UsageError for what is no storage, Unavailable where it cannot be reached.
    """
    found: list[StudyRecords] = []
    for one in [url] if url is not None else own_journals():
        place = open_url(one)
        found += reading.studies(place.storage, place.shown)
    kept = measurements.load(path)
    return Catalogue(tuple(found) + tuple(_groups(kept.records)), kept.damaged)


def related(place: Place, key: StudyKey, path: Path | None = None) -> tuple[Record, ...]:
    """Records that may be donors for a study: of its family, in its own storage and among the imports.

    Where the storage is one of the journals that `tune` keeps by itself, the family's other journals (of other
    targets) are read too.
    """

    def same(one: StudyKey) -> bool:
        return one != key and related_backend(one, key) and one.family == key.family

    places = [place]
    if place.url in own_journals():
        names = [u for u in own_journals() if Path(u).name.startswith(f"{key.family}-")]
        places += [open_url(u) for u in names if u != place.url]
    own = [
        r
        for one in places
        for s in reading.studies(one.storage, one.shown, same)
        for r in s.records
    ]
    return (*own, *(r for r in measurements.load(path).records if same(r.key)))


def own_journals() -> list[str]:
    """The journals that `tune` keeps studies in by default."""
    return [f"journal:{p}" for p in sorted(data_folder("studies").glob("*.journal"))]


def _groups(records: Sequence[Record]) -> Iterator[StudyRecords]:
    """Imported records by what they were measured for and the file they came from."""
    groups: dict[tuple[object, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.key, record.origin), []).append(record)
    for (_, origin), found in groups.items():
        key = found[0].key
        yield StudyRecords(
            key.name, key, found[0].evidence, tuple(found), 0, f"{IMPORTED}: {origin}"
        )
