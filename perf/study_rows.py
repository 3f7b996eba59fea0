"""Measured rows of a study on disk: one JSON line each, reused only by what would measure the same thing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from tilewright import tables
from tilewright.cases import Case
from tilewright.document import plain
from tilewright.machine import host
from tilewright.perf.sources import kernel_digest
from tilewright.registry import Family
from tilewright.targets import CPU

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """What is compared: `against` on `cases` with each thread count, `seconds` a row."""

    family: Family
    cases: tuple[Case, ...]
    threads: tuple[int, ...]
    against: str
    seconds: float
    seed: int
    flags: Mapping[str, str]

    @property
    def total(self) -> int:
        return len(self.cases) * len(self.threads)

    @property
    def backend(self) -> str:
        return "host" if self.family.has("host.cpp") else "reference"

    @cached_property
    def kernel(self) -> str:
        """The digest of the kernel as it is built here."""
        return kernel_digest(self.family, self.backend)

    @cached_property
    def torch(self) -> str:
        import torch

        return str(torch.__version__)

    @cached_property
    def _table(self) -> tables.Table:
        return tables.load(self.family, CPU)

    def configs(self, case: Case) -> list[dict[str, int]]:
        """The configs in use for a case, in every layout that a peer may bring it to."""
        spec = self.family.spec
        chosen: dict[str, dict[str, int]] = {}
        for flags in spec.flag_combinations(spec.precision(case.precision), self.backend):
            free = {k: v for k, v in flags.items() if k.endswith("_layout") and k not in self.flags}
            like = spec.case(case.sizes, case.precision, {**case.flags, **free}, case.memory)
            config = tables.choose(self.family, like, CPU, self._table).config
            chosen.setdefault(str(like), dict(config))
        return list(chosen.values())


def key(study: Study, case: Case, threads: int) -> str:
    """Everything a row's numbers depend on: machine, kernel, configs, peer with its version, case, effort."""
    content = {
        "machine": host().fingerprint,
        "family": study.family.name,
        "kernel": study.kernel,
        "configs": study.configs(case),
        "torch": study.torch,
        "against": study.against,
        "case": case.as_dict(),
        "threads": threads,
        "seconds": study.seconds,
        "seed": study.seed,
    }
    return json.dumps(content, sort_keys=True)


def measured(path: Path) -> dict[str, Row]:
    """Timed rows so far, by key; others, and a line cut short by an interruption, are left out."""
    found: dict[str, Row] = {}
    if not path.is_file():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        row = entry["row"]
        if row["state"] == "timed" and "date" in row:
            found[entry["key"]] = row
    return found


def rows(study: Study, path: Path) -> Iterator[tuple[int, Row]]:
    """Measure what is missing and yield every row with its number; each is on disk before it is yielded."""
    from tilewright.perf.bench import Ceiling, Plan
    from tilewright.perf.bench import rows as bench_rows
    from tilewright.perf.engine import Effort

    known = measured(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and not path.read_bytes().endswith(b"\n"):
        # An interruption cut the last line short; what follows must start on its own.
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    ceiling = Ceiling()
    done = 0
    for case in study.cases:
        for threads in study.threads:
            done += 1
            identity = key(study, case, threads)
            if identity not in known:
                plan = Plan(
                    families=[study.family],
                    backends=[study.backend],
                    dtypes=[case.precision],
                    flags=study.flags,
                    threads=[threads],
                    against=[study.against],
                    effort=Effort(seconds=study.seconds),
                    seed=study.seed,
                    cases=[case],
                )
                row = plain(next(iter(bench_rows(plan, ceiling))))
                row["date"] = datetime.now(UTC).strftime("%Y-%m-%d")
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": identity, "row": row}) + "\n")
                known[identity] = row
            yield done, known[identity]


def dates(found: Sequence[Row]) -> str:
    """The day the rows were measured, or the first and the last."""
    days = sorted({str(r["date"]) for r in found})
    return " .. ".join(dict.fromkeys((days[0], days[-1]))) if days else "no day"
