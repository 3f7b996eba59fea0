"""What a sweep of sizes is asked for and what it finds: the buckets with their regret, as data and as JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.autotune.tables.partition import Regret, Summary
from tilewright.errors import UsageError
from tilewright.space import Config

if TYPE_CHECKING:
    from tilewright.autotune.result import TuneResult
    from tilewright.autotune.valuing.objective import Objective
    from tilewright.backends.base import Backend
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.targets import Target

BUCKETS = 8
# Seconds for the interleaved rounds of all winners on one size, and for the end of each size's own tuning,
# which only names the winner to be timed again.
RETIME_S = 8.0
FINAL_S = 3.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a sweep, in increasing order, and the name of what varies."""

    dim: str
    values: tuple[int, ...]


def parse_sweep(text: str) -> Sizes:
    """`M=1..4096` (both ends and the powers of two between), `M=1,7,64..512`; raises UsageError."""
    dim, _, listed = text.partition("=")
    found: set[int] = set()
    for part in listed.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\.\.(\d+))?\s*", part)
        if not match or not dim.strip().isidentifier():
            raise UsageError(
                f"--sweep '{text}' is not a range of sizes; accepted: NAME=A..B (both ends and the powers of two "
                "between), NAME=A,B,C, or both, such as M=1..4096,96"
            )
        low = int(match[1])
        high = int(match[2] or low)
        if low < 1 or high < low:
            raise UsageError(
                f"'{part}' in --sweep is empty; accepted: 1 or more, the smaller first"
            )
        found |= {low, high}
        found |= {1 << i for i in range(high.bit_length()) if low <= 1 << i <= high}
    return Sizes(dim.strip(), tuple(sorted(found)))


@dataclass(frozen=True, slots=True)
class Request:
    """What to sweep and how: `trials` and `seconds` are those of each size."""

    family: Family
    target: Target
    sizes: Sizes
    tail: dict[str, int]
    precision: str | None = None
    flags: dict[str, str] | None = None
    trials: int | None = None
    seconds: float | None = None
    backend: Backend | str | None = None
    sampler: str = "portfolio"
    storage: str | None = None
    workers: int = 1
    compile_workers: int = 0
    seed: int = 0
    threads: int = 0
    most: int = BUCKETS
    install: bool = False
    store: bool = True
    retime_s: float = RETIME_S
    final_s: float = FINAL_S
    objective: Callable[[Case], Objective] | None = None
    warm_start: bool = True

    def case(self, size: int) -> Case:
        return self.family.spec.case(
            {self.sizes.dim: size, **self.tail}, self.precision, self.flags
        )


@dataclass(frozen=True, slots=True)
class SweptBucket:
    """One bucket of the table: first sizes above `over` up to `upper`, and what its config costs there."""

    over: int
    upper: int
    sizes: tuple[int, ...]
    config: Config
    regrets: tuple[Regret, ...]
    regret: Summary


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A finished or interrupted sweep.

    `values[size, config]` are medians of the rounds that had no part in the choice, in `unit`; `one_config`
    and `default` are the regrets of a table with a single config and of the default. `interrupted` leaves
    no buckets.
    """

    request: Request
    tuned: tuple[TuneResult, ...]
    configs: tuple[Config, ...] = ()
    rounds: tuple[int, ...] = ()
    values: tuple[tuple[float | None, ...], ...] = ()
    buckets: tuple[SweptBucket, ...] = ()
    regret: Summary | None = None
    one_config: Summary | None = None
    default: Summary | None = None
    gain: float | None = None
    interrupted: bool = False
    doubt: str = ""
    stored: Path | None = None

    def top(self) -> dict[str, Any]:
        """The top-level fields of the document; `sweep` holds what is particular to it."""
        first = self.tuned[0] if self.tuned else None
        sizes = self.request.sizes.values
        return {
            "best": None,
            "default": None,
            "gain": self.gain,
            "tie_set": [],
            "evidence": first.evidence if first else None,
            "unit": first.unit if first else None,
            "sampler": self.request.sampler,
            "seed": self.request.seed,
            "key": asdict(first.key) if first else None,
            "pool": max((r.pool for r in self.tuned), default=0),
            "measured": sum(r.measured for r in self.tuned),
            "seconds": round(sum(r.seconds for r in self.tuned), 3),
            "interrupted": self.interrupted,
            "stored": self.stored,
            "doubt": self.doubt,
            "sweep": {
                "dim": self.request.sizes.dim,
                "sizes": list(sizes),
                "shape": self.request.tail,
                "most_buckets": self.request.most,
                "configs": list(self.configs),
                "rounds": list(self.rounds),
                "values": self.values,
                "buckets": [_bucket_row(b) for b in self.buckets],
                "regret": told(self.regret, sizes),
                "one_config": told(self.one_config, sizes),
                "default": told(self.default, sizes),
                "studies": [
                    {"size": s, "study": r.study, "best": r.best, "gain": r.gain}
                    for s, r in zip(sizes, self.tuned, strict=False)
                ],
            },
        }

    def rows(self) -> list[dict[str, Any]]:
        """One row a trial of every size, with the size's shape."""
        from tilewright.document import plain

        return [
            {"shape": self.request.case(size).shape_text, **plain(row)}
            for size, result in zip(self.request.sizes.values, self.tuned, strict=False)
            for row in result.rows
        ]


def _bucket_row(one: SweptBucket) -> dict[str, Any]:
    each = [{"size": s, **asdict(r)} for s, r in zip(one.sizes, one.regrets, strict=True)]
    return {
        "over": one.over,
        "upper": one.upper,
        "config": one.config,
        **told(one.regret, one.sizes),
        "regret": each,
    }


def told(found: Summary | None, sizes: Sequence[int]) -> dict[str, Any]:
    if found is None:
        return {}
    at = None if found.worst_at is None else sizes[found.worst_at]
    return {"mean": found.mean, "worst": found.worst, "worst_at": at, "cannot": found.cannot}
