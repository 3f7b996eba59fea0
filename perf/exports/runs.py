"""What is exported: one measured side of one row of `bench`, with its samples."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.cases import parse_shape
from tilewright.errors import Unavailable, UsageError
from tilewright.evidence import Evidence
from tilewright.perf import samples as kept
from tilewright.perf.statistics import Samples

SCHEMA = "tilewright/bench/1"


@dataclass(frozen=True, slots=True)
class Run:
    """One timed implementation. `samples` are ns per call in the order taken, each the mean of `batch` calls.

    `who` is the backend, or the peer it was timed beside; `evidence` is `measured` throughout: rows that
    are not have no run.
    """

    row: Mapping[str, Any]
    who: str
    is_peer: bool
    median_us: float
    samples: Samples | None
    batch: int

    @property
    def family(self) -> str:
        return str(self.row["family"])

    @property
    def case(self) -> str:
        """Sizes, flags and memory, as one word after the other."""
        return str(self.row["case"])

    @property
    def sizes(self) -> dict[str, int]:
        return parse_shape(self.case.split(" ", 1)[0])

    @property
    def settings(self) -> str:
        """Flags and memory of the case; empty where it has none."""
        return self.case.split(" ", 1)[1] if " " in self.case else ""

    @property
    def threads(self) -> int:
        return int(self.row["threads"])

    @property
    def name(self) -> str:
        """A name that no other run of a document has: two documents are compared by it."""
        parts = [self.family, self.who, self.row["dtype"], *self.case.split(" ")]
        return "/".join([*map(str, parts), f"{self.threads}t", str(self.row["cache"])])

    @property
    def about(self) -> dict[str, Any]:
        """What a reader must know of the number, for formats with room for it."""
        row = self.row
        return {
            "evidence": row["evidence"],
            "target": row["target"],
            "clock": row.get("clock"),
            "cache": row["cache"],
            "threads": row["threads"],
            "config": row.get("config") if not self.is_peer else None,
            "ceiling_frac": row.get("peer_ceiling_frac" if self.is_peer else "ceiling_frac"),
            "quiet": row.get("quiet"),
            "converged": row.get("converged"),
            "seed": row["seed"],
        }

    def require_samples(self) -> Samples:
        """The samples; raises Unavailable where they are not on this machine."""
        if self.samples is None:
            raise Unavailable(
                f"{self.name} has no samples here (id {self.row.get('samples_id')}); export it on the machine "
                "and with the TILEWRIGHT_DATA it was measured with"
            )
        return self.samples


def read(path: Path) -> dict[str, Any]:
    """A document that `bench --json` wrote; raises UsageError for anything else."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is no JSON document: {error}") from None
    if not isinstance(loaded, dict):
        raise UsageError(
            f"{path} holds a {type(loaded).__name__}, not a document of `tilewright bench --json`"
        )
    return loaded


def runs_of(document: Mapping[str, Any]) -> list[Run]:
    """Every measured side of every timed row. Rows that are modelled, wrong, impossible or untimed have none.

    Raises UsageError for a document of another command, Unavailable where nothing was measured.
    """
    schema = document.get("schema")
    if schema != SCHEMA:
        raise UsageError(f"a document of schema '{schema}' was given; accepted: {SCHEMA}")
    found = []
    for row in document["rows"]:
        if row.get("state") == "timed" and row.get("evidence") == str(Evidence.MEASURED):
            found += _sides(row)
    if not found:
        raise Unavailable(
            f"none of the {len(document['rows'])} rows was measured and right, so there is nothing to export"
        )
    return found


def _sides(row: Mapping[str, Any]) -> list[Run]:
    arrays: dict[str, Samples] = {}
    about: dict[str, Any] = {}
    if row.get("samples_id"):
        try:
            arrays, about = kept.load(str(row["samples_id"]))
        except UsageError:
            arrays = {}
    sides = [
        Run(row, row["backend"], False, row["median_us"], arrays.get("ours"), about.get("batch", 1))
    ]
    if row.get("peer_median_us") is not None:
        theirs = arrays.get("theirs")
        sides.append(
            Run(
                row, row["peer_is"], True, row["peer_median_us"], theirs, about.get("peer_batch", 1)
            )
        )
    return sides


def unique(runs: list[Run]) -> list[Run]:
    """One run a name: a backend timed beside several peers is measured with each, and the first is taken."""
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(run.name, run)
    return list(found.values())


def now() -> str:
    """The time of the export, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
