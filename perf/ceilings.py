"""Measured limits of this processor, and how near to them a call comes.

Read and write bandwidth are measured as curves over the bytes each thread walks, peaks per operand
type; each is the best of a few short windows, kept per machine and instruction level. A case's
ceiling time is max(operations / peak, bytes / bandwidth at its working set).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tilewright.document import write_text
from tilewright.errors import Unavailable, UsageError
from tilewright.machine import cache_folder, host, usable_cores
from tilewright.perf.machine_state import Watch
from tilewright.perf.timers import cache_sizes, flush_size

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.dtypes import DType
    from tilewright.spec import KernelSpec

SCHEMA = "tilewright/ceilings/1"
KINDS = ("fp32", "bf16", "fp16", "int8")
# A time this far below its ceiling time cannot be: windows of a shared host and prefetching across
# cache levels explain a tenth, not more.
IMPOSSIBLE_MARGIN = 0.15
# Many short windows: on a shared host the best of them falls between the neighbours' turns.
_WINDOW_S = 0.01
_REPEATS = 10
_DRAM_BYTES = 128 << 20
# One pass over this much is longer than a window, and its memory is fetched from the system each time.
_LARGE_BYTES = 8 << 20


class Probe(Protocol):
    """The measuring loops. `bytes_each` is what every thread walks; results are totals over threads."""

    def read_gbps(self, bytes_each: int, threads: int, seconds: float) -> float: ...

    def write_gbps(self, bytes_each: int, threads: int, seconds: float) -> float: ...

    def gops(self, kind: str, threads: int, seconds: float) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Level:
    """A memory level and the bytes (per core for L1 and L2, in all for the last level) it holds."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Ceilings:
    """`read[threads]` and `write[threads]`: curves of (bytes per thread, GB/s in all threads);
    `peak[kind][threads]`: G operations/s. `disturbed` is the share of the machine that others used in
    the quietest measurement that went in; None where the system does not say."""

    machine: str
    levels: tuple[Level, ...]
    read: Mapping[int, tuple[tuple[int, float], ...]]
    write: Mapping[int, tuple[tuple[int, float], ...]]
    peak: Mapping[str, Mapping[int, float]]
    disturbed: float | None = None

    def level_of(self, working_set: float, threads: int) -> str:
        """The smallest level that holds a working set shared out among threads."""
        for level in self.levels:
            shared = level is self.levels[-1] and len(self.levels) > 1
            if working_set / (1 if shared else max(1, threads)) <= level.bytes:
                return level.name
        return "DRAM"

    def bandwidth(self, working_set: float, threads: int, cold: bool = False) -> float:
        """GB/s of reading a working set, interpolated (log-log) on the curve; when cold, from where a flush leaves it."""
        curve = _scaled(self.read, threads)
        if cold:
            held = self._held_after_flush()
            return curve[-1][1] if held is None else _interpolate(curve, held / max(1, threads))
        return _interpolate(curve, working_set / max(1, threads))

    def cold_level(self) -> str:
        """Where operands may lie after a flush: in memory, or in a last level too large to be flushed whole."""
        return "DRAM" if self._held_after_flush() is None else self.levels[-1].name

    def _held_after_flush(self) -> int | None:
        """Bytes a flush rewrites where the last level may hold operands beside them; None where it cannot."""
        if not self.levels:
            return None
        flushed = flush_size([(level.name, level.bytes) for level in self.levels])
        return flushed if flushed < 2 * self.levels[-1].bytes else None

    def level_bandwidth(self, name: str, threads: int, write: bool = False) -> float:
        """GB/s at a footprint that lies well inside a level."""
        return _interpolate(
            _scaled(self.write if write else self.read, threads), self._inside(name, threads)
        )

    def _inside(self, name: str, threads: int) -> float:
        return dict(_footprints(self.levels, threads)).get(name, _DRAM_BYTES)

    def peak_gops(self, kind: str, threads: int) -> float | None:
        """G operations/s for operands of a kind; wide types stand in where a narrow one has no unit of its own."""
        for name in (kind, "fp32"):
            if name in self.peak and any(v > 0 for v in self.peak[name].values()):
                known = self.peak[name]
                if threads in known:
                    return known[threads]
                most = max(known)
                return min(known[min(known)] * threads, known[most])
        return None

    def as_dict(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "levels": [[level.name, level.bytes] for level in self.levels],
            "read": {str(t): [list(p) for p in c] for t, c in self.read.items()},
            "write": {str(t): [list(p) for p in c] for t, c in self.write.items()},
            "peak": {k: {str(t): v for t, v in by.items()} for k, by in self.peak.items()},
            "disturbed": self.disturbed,
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Ceilings:
        """Back from `as_dict`; raises KeyError, TypeError or ValueError for anything else."""

        def curves(found: Mapping[str, Any]) -> dict[int, tuple[tuple[int, float], ...]]:
            return {
                int(t): tuple((int(b), float(g)) for b, g in curve) for t, curve in found.items()
            }

        return Ceilings(
            str(content["machine"]),
            tuple(Level(str(n), int(b)) for n, b in content["levels"]),
            curves(content["read"]),
            curves(content["write"]),
            {k: {int(t): float(v) for t, v in by.items()} for k, by in content["peak"].items()},
            content.get("disturbed"),
        )


Curve = Sequence[tuple[int, float]]


def _scaled(curves: Mapping[int, Curve], threads: int) -> Curve:
    """The curve of a thread count; between measured counts, proportional up to that of all threads."""
    if threads in curves:
        return curves[threads]
    single, most = curves[min(curves)], curves[max(curves)]
    if threads >= max(curves):
        return most
    return [(b, min(g * threads, _interpolate(most, b))) for b, g in single]


def _interpolate(curve: Curve, footprint: float) -> float:
    if footprint <= curve[0][0]:
        return curve[0][1]
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if footprint <= x1:
            part = math.log(footprint / x0) / math.log(x1 / x0)
            return math.exp(math.log(y0) + part * (math.log(y1) - math.log(y0)))
    return curve[-1][1]


def levels() -> tuple[Level, ...]:
    """Caches of this machine; the usual sizes where the system does not publish them."""
    found = cache_sizes() or [("L1", 32 << 10), ("L2", 512 << 10), ("L3", 16 << 20)]
    return tuple(Level(name, size) for name, size in found)


def _footprints(known: Sequence[Level], threads: int) -> list[tuple[str, int]]:
    """Bytes per thread that lie well inside each level, smallest first, DRAM last."""
    points = []
    for i, level in enumerate(known):
        share = threads if i == len(known) - 1 and i > 0 else 1
        points.append((level.name, max(4096, level.bytes // (2 * share))))
    last = known[-1].bytes if known else 0
    points.append(("DRAM", max(_DRAM_BYTES, 4 * last) // threads))
    return points


def _sweep(known: Sequence[Level], threads: int) -> list[int]:
    """Footprints of a curve: inside each level, its whole size, and between levels."""
    inside = [size for _, size in _footprints(known, threads)]
    edges = [2 * size for size in inside[:-1]]
    between = [
        int(math.sqrt(a * b)) // 4096 * 4096
        for a, b in zip(edges, inside[1:], strict=True)
        if b > 2 * a
    ]
    return sorted({max(4096, s) for s in (*inside, *edges, *between)})


def measure(
    probe: Probe,
    known: Sequence[Level] | None = None,
    threads: Sequence[int] | None = None,
    window_s: float = _WINDOW_S,
    repeats: int = _REPEATS,
    report: Callable[[str], None] | None = None,
) -> Ceilings:
    """Measure everything; about 5 s with the defaults on a quiet machine. Each figure is the best of `repeats` windows."""
    known = tuple(known or levels())
    watch = Watch()
    counts = sorted({1, usable_cores()} if threads is None else set(threads))

    def best(call: Callable[[], float | None], footprint: int = 0) -> float:
        times = max(1, repeats // 3) if footprint >= _LARGE_BYTES else repeats
        return max(call() or 0.0 for _ in range(times))

    read: dict[int, tuple[tuple[int, float], ...]] = {}
    write: dict[int, tuple[tuple[int, float], ...]] = {}
    peak: dict[str, dict[int, float]] = {}
    for t in counts:
        if report:
            report(f"ceilings with {t} thread{'s' if t > 1 else ''}")
        read[t] = tuple(
            (s, best(partial(probe.read_gbps, s, t, window_s), s)) for s in _sweep(known, t)
        )
        inside = [size for _, size in _footprints(known, t)]
        write[t] = tuple((s, best(partial(probe.write_gbps, s, t, window_s), s)) for s in inside)
        for kind in KINDS:
            value = best(partial(probe.gops, kind, t, window_s))
            if value > 0:
                by_threads = peak.setdefault(kind, {})
                by_threads[t] = max(value, *by_threads.values(), 0.0)
    return Ceilings(machine_key(), known, read, write, peak, watch.read().taken)


def machine_key() -> str:
    """What ceilings belong to: the processor and the instruction level in use."""
    return host().fingerprint


def cache_path() -> Path:
    """Where the ceilings of this machine are kept."""
    return cache_folder("ceilings", f"{machine_key()}.json")


def load(path: Path | None = None, machine: str | None = None) -> Ceilings | None:
    """The kept ceilings of this machine, or one named; None when there are none or they are of another form."""
    path = path or cache_path()
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = Ceilings.from_dict(content) if content.get("schema") == SCHEMA else None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    return found if found is not None and found.machine == (machine or machine_key()) else None


def best_of(one: Ceilings, other: Ceilings) -> Ceilings:
    """The higher figure of two measurements of the same machine: a ceiling is never lowered by a busy day."""

    def merge(a: Curve, b: Curve) -> tuple[tuple[int, float], ...]:
        if [x for x, _ in a] != [x for x, _ in b]:
            return tuple(b)
        return tuple((x, max(y, z)) for (x, y), (_, z) in zip(a, b, strict=True))

    return Ceilings(
        other.machine,
        other.levels,
        {t: merge(one.read.get(t, ()), c) for t, c in other.read.items()},
        {t: merge(one.write.get(t, ()), c) for t, c in other.write.items()},
        {
            k: {t: max(v, one.peak.get(k, {}).get(t, 0.0)) for t, v in by.items()}
            for k, by in other.peak.items()
        },
        min((d for d in (one.disturbed, other.disturbed) if d is not None), default=None),
    )


def get(refresh: bool = False, report: Callable[[str], None] | None = None) -> Ceilings:
    """Kept ceilings, measured first if need be; raises Unavailable without the native module.

    `refresh` measures again and keeps the best of both.
    """
    known = load()
    if known is not None and not refresh:
        return known
    fresh = measure(native_probe(), report=report)
    merged = best_of(known, fresh) if known is not None else fresh
    write_text(cache_path(), json.dumps(merged.as_dict(), indent=1) + "\n")
    return merged


class _NativeProbe:
    """The loops of the compiled module; they raise for what this level cannot measure."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def read_gbps(self, bytes_each: int, threads: int, seconds: float) -> float:
        return float(self._module.ceiling_read_gbps(bytes_each, threads, seconds))

    def write_gbps(self, bytes_each: int, threads: int, seconds: float) -> float:
        return float(self._module.ceiling_write_gbps(bytes_each, threads, seconds))

    def gops(self, kind: str, threads: int, seconds: float) -> float | None:
        try:
            return float(self._module.ceiling_flops(kind, threads, seconds))
        except (Unavailable, UsageError):
            return None


def native_probe() -> Probe:
    """The compiled measuring loops; raises Unavailable with the reason where there are none."""
    from tilewright import native

    missing = native.why_missing()
    if missing:
        raise Unavailable(f"ceilings need the native module: {missing}")
    module = native.module()
    if not hasattr(module, "ceiling_flops"):
        raise Unavailable("this build of the native module has no ceiling loops; build it again")
    return _NativeProbe(module)


@dataclass(frozen=True, slots=True)
class Bound:
    """The least time a case can take here, in us, and what sets it.

    `disturbed` is the share of the machine that others used when the ceilings were measured.
    """

    us: float
    bound_by: str
    level: str
    gbps: float
    gops: float | None
    disturbed: float = 0.0


def bound(
    spec: KernelSpec, case: Case, ceilings: Ceilings, threads: int, cold: bool = False
) -> Bound:
    """Ceiling time of a case: max(operations / peak, bytes / bandwidth of the level its working set lives in).

    Operations of several element types take their times one after another, each at its own peak.
    """
    moved = spec.bytes_of(case)
    gbps = ceilings.bandwidth(moved, threads, cold)
    gops = _peak(spec.computes_in(case), ceilings, threads)
    memory_us = moved / (gbps * 1e3)
    compute_us = spec.flops_of(case) / (gops * 1e3) if gops else 0.0
    level = ceilings.cold_level() if cold else ceilings.level_of(moved, threads)
    return Bound(
        max(memory_us, compute_us),
        "compute" if compute_us >= memory_us else level,
        level,
        gbps,
        gops,
        ceilings.disturbed or 0.0,
    )


def _peak(shares: Mapping[DType, float], ceilings: Ceilings, threads: int) -> float | None:
    """G operations/s of a mixture of element types; None where one's peak is not known."""
    time = 0.0
    for kind, share in shares.items():
        peak = ceilings.peak_gops(kind.name, threads)
        if not peak:
            return None
        time += share / peak
    return 1.0 / time


def impossible(time_us: float, limit: Bound) -> str | None:
    """Why a time cannot be; None if it can.

    Ceilings measured while others used a share of the machine may be too low by that share, so the
    floor is lowered by it: only what no quiet machine could do either is called impossible.
    """
    floor = (1.0 - IMPOSSIBLE_MARGIN) * (1.0 - limit.disturbed) * limit.us
    if floor <= 0 or time_us >= floor:
        return None
    return (
        f"{time_us:.3g} us is below {floor:.3g} us, the floor that {limit.bound_by} sets on this machine: "
        f"the call cannot have done the work"
    )
