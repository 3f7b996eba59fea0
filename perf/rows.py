"""The rows of `tilewright bench`: one class, and the ways to fill it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tilewright.evidence import Evidence
from tilewright.numerics import Comparison
from tilewright.perf import samples as kept
from tilewright.perf.engine import Measurement, Pair
from tilewright.perf.machine_state import READING_COLUMNS
from tilewright.perf.statistics import verdict as judge

if TYPE_CHECKING:
    from tilewright.backends import Backend, Launch
    from tilewright.cases import Case
    from tilewright.inputs import Inputs
    from tilewright.peers import Peer
    from tilewright.perf.ceilings import Bound
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.targets import Target


@dataclass(frozen=True, slots=True)
class Subject:
    """What a row is about."""

    family: Family
    backend: Backend
    target: Target
    precision: str
    case: Case | None
    config: Config
    config_source: str
    seed: int
    threads: int
    cold: bool

    @property
    def who(self) -> str:
        return f"{self.family.name} on {self.backend.name} ({self.precision}, {self.case})"

    def prepare(self, inputs: Inputs) -> Launch:
        assert self.case is not None
        return self.backend.prepare(
            self.family, self.case, inputs, self.config, self.target, self.threads
        )


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One line of a benchmark. Times in us; `ratio` is peer time / our time: above 1 we are faster.

    `state` is timed, impossible (below the physical floor), wrong (the check failed or the kernel cheated, so no time) or
    unavailable; `reason` explains the last three. `evidence` is how the time was obtained, None without
    one. `clock` is native (read in C++ around the kernel), python (each call made from Python, as in
    pairs, where a peer can be called no other way), events (a GPU's own, named by `device`; `threads` is 0 there) or queued (the same, of calls that cannot
    be captured as graphs). `mhz` is the lowest and the highest clock read meanwhile and
    `mhz_source` who said so (perf/clock.py); `rule` is what was to stop the timing. A peer with a small `peer_ceiling_frac` is a weak
    one: a ratio to it says little.
    """

    family: str
    backend: str
    target: str
    case: str
    dtype: str
    config: Any
    config_source: str
    ok: bool
    rel_err: float | None
    max_abs_err: float | None
    tolerance: float | None
    seed: int
    threads: int
    state: str
    reason: str
    evidence: str | None
    cache: str
    clock: str | None = None
    median_us: float | None = None
    ci_low_us: float | None = None
    ci_high_us: float | None = None
    samples: int = 0
    converged: bool | None = None
    gflops: float | None = None
    gbps: float | None = None
    ceiling_frac: float | None = None
    ceiling_us: float | None = None
    bound_by: str | None = None
    flops: float | None = None
    bytes: float | None = None
    peer: str | None = None
    peer_is: str | None = None
    peer_note: str | None = None
    peer_median_us: float | None = None
    peer_ci_low_us: float | None = None
    peer_ci_high_us: float | None = None
    peer_ceiling_frac: float | None = None
    ratio: float | None = None
    ratio_ci_low: float | None = None
    ratio_ci_high: float | None = None
    verdict: str | None = None
    others_busy: float | None = None
    steal: float | None = None
    load: float | None = None
    quiet: bool | None = None
    mhz: tuple[float, float] | None = None
    mhz_source: str | None = None
    rule: str | None = None
    samples_id: str | None = None
    device: str | None = None


def _base(subject: Subject, checked: Comparison | None, state: str, reason: str) -> dict[str, Any]:
    return {
        "family": subject.family.name,
        "backend": subject.backend.name,
        "target": subject.target.name,
        "case": "" if subject.case is None else str(subject.case),
        "dtype": subject.precision,
        "config": subject.config,
        "config_source": subject.config_source,
        "ok": checked is not None and checked.ok and state == "timed",
        "rel_err": checked.rel_err if checked else None,
        "max_abs_err": checked.max_abs_err if checked else None,
        "tolerance": checked.tolerance if checked else None,
        "seed": subject.seed,
        "threads": subject.threads,
        "state": state,
        "reason": reason,
        "evidence": str(Evidence.MEASURED) if state in ("timed", "impossible") else None,
        "cache": "cold" if subject.cold else "warm",
    }


def unavailable_row(
    subject: Subject, reason: str, peer: str | None = None, peer_is: str | None = None
) -> BenchRow:
    """A row for what cannot be timed here, with the reason."""
    return BenchRow(**_base(subject, None, "unavailable", reason), peer=peer, peer_is=peer_is)


def wrong_row(
    subject: Subject, reason: str, peer: str | None = None, peer_is: str | None = None
) -> BenchRow:
    """A row for what is not timed because its output is wrong."""
    return BenchRow(**_base(subject, None, "wrong", reason), peer=peer, peer_is=peer_is)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _timing(subject: Subject, m: Measurement, limit: Bound | None) -> dict[str, Any]:
    assert subject.case is not None
    spec = subject.family.spec
    us = m.median.value / 1e3
    flops, moved = spec.flops_of(subject.case), spec.bytes_of(subject.case)
    return {
        "clock": m.clock,
        "device": _device(m),
        "median_us": us,
        "ci_low_us": _finite(m.median.low / 1e3),
        "ci_high_us": _finite(m.median.high / 1e3),
        "samples": len(m.samples),
        "converged": m.converged,
        "flops": flops,
        "bytes": moved,
        "gflops": flops / us / 1e3 if us else None,
        "gbps": moved / us / 1e3 if us else None,
        "ceiling_us": limit.us if limit else None,
        "ceiling_frac": limit.us / us if limit and us else None,
        "bound_by": limit.bound_by if limit else None,
        "others_busy": m.disturbance.others,
        "steal": m.disturbance.steal,
        "load": m.disturbance.load,
        "quiet": m.disturbance.quiet,
        **_clock_read(m),
        "rule": m.rule,
    }


_OF_GPUS = ("events", "queued")


def _device(m: Measurement) -> str | None:
    if m.clock not in _OF_GPUS:
        return None
    from tilewright.perf.device.queue import queue

    return queue().facts.name


def _clock_read(m: Measurement) -> dict[str, Any]:
    """The clock of what the call ran on: of a GPU after the timing, where its driver says it."""
    if m.clock not in _OF_GPUS:
        return {"mhz": m.disturbance.mhz(), "mhz_source": m.disturbance.clock_source}
    from tilewright.perf.device.queue import clock_mhz

    mhz = clock_mhz()
    return {
        "mhz": None if mhz is None else (mhz, mhz),
        "mhz_source": "none" if mhz is None else "nvml",
    }


def _about(subject: Subject, batch: int) -> dict[str, Any]:
    return {
        "family": subject.family.name,
        "backend": subject.backend.name,
        "target": subject.target.name,
        "dtype": subject.precision,
        "case": str(subject.case),
        "config": dict(subject.config),
        "threads": subject.threads,
        "cache": "cold" if subject.cold else "warm",
        "unit": "ns per call",
        "batch": batch,
        "seed": subject.seed,
        "machine_columns": READING_COLUMNS,
    }


def plain_row(
    subject: Subject,
    m: Measurement,
    checked: Comparison,
    limit: Bound | None,
    impossible: str | None,
) -> BenchRow:
    """The row of a call timed on its own."""
    state = "impossible" if impossible else "timed"
    return BenchRow(
        **_base(subject, checked, state, impossible or ""),
        **_timing(subject, m, limit),
        verdict="impossible" if impossible else None,
        samples_id=kept.save(
            {"ours": m.samples, "machine": m.disturbance.table()}, _about(subject, m.batch)
        ),
    )


def paired_row(
    subject: Subject,
    pair: Pair,
    checked: Comparison,
    limit: Bound | None,
    impossible: str | None,
    wanted: str,
    peer: Peer,
    note: str,
) -> BenchRow:
    """The row of a call timed in pairs with a peer."""
    state = "impossible" if impossible else "timed"
    arrays = {
        "ours": pair.ours.samples,
        "theirs": pair.theirs.samples,
        "log_ratio": pair.log_ratios,
        "machine": pair.ours.disturbance.table(),
    }
    about = {**_about(subject, pair.ours.batch), "peer": peer.name, "peer_batch": pair.theirs.batch}
    return BenchRow(
        **_base(subject, checked, state, impossible or ""),
        **_timing(subject, pair.ours, limit),
        peer=wanted,
        peer_is=peer.name,
        peer_note=f"{peer.summary}{'; ' + note if note else ''}",
        peer_median_us=pair.theirs.median.value / 1e3,
        peer_ci_low_us=_finite(pair.theirs.median.low / 1e3),
        peer_ci_high_us=_finite(pair.theirs.median.high / 1e3),
        peer_ceiling_frac=limit.us * 1e3 / pair.theirs.median.value if limit else None,
        ratio=pair.ratio.value,
        ratio_ci_low=_finite(pair.ratio.low),
        ratio_ci_high=_finite(pair.ratio.high),
        verdict="impossible" if impossible else judge(pair.ratio),
        samples_id=kept.save(arrays, about),
    )
