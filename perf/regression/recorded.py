"""gate --base FILE: what is measured now against the JSON of an earlier `tilewright bench`.

Two runs of the same code differ by more than their own intervals say: the machine was in another state. So the
interval of a ratio holds, besides both sides' own, the spread that runs of one code were seen to have
(`BETWEEN_RUNS`), and mostly only large differences are told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tilewright.errors import UsageError
from tilewright.evidence import Evidence
from tilewright.machine import host
from tilewright.perf import ceilings
from tilewright.perf.bench import Ceiling, Plan, rows
from tilewright.perf.regression.decide import INCONCLUSIVE, Policy
from tilewright.perf.regression.gate import UNAVAILABLE, GateRow
from tilewright.perf.regression.session import Benchmark
from tilewright.perf.rows import BenchRow
from tilewright.perf.statistics import Estimate, verdict

SCHEMA = "tilewright/bench/1"
# Standard deviation of log time between runs of the same code on a machine that others use: between gates of the error
# study it was 2 to 6 %, by benchmark.
BETWEEN_RUNS = 0.05
_Z = 1.959964


@dataclass(frozen=True, slots=True)
class Recording:
    """Timed rows of a bench document by what they are about, and where they were made."""

    rows: Mapping[tuple[str, str, str, int], Mapping[str, Any]]
    host: Mapping[str, Any]
    made: str


def read(path: Path) -> Recording:
    """A recording; raises UsageError for a file that is no document of `tilewright bench` or holds no times."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise UsageError(
                f"{path} is a {content['schema']}; gate takes {SCHEMA}, from `tilewright bench --json`"
            )
        found = {
            (str(r["family"]), str(r["dtype"]), str(r["case"]), int(r["threads"])): r
            for r in content["rows"]
            if r["state"] == "timed"
            and r["backend"] == "host"
            and r["cache"] == "warm"
            and r["peer"] is None
        }
        machine, made = content["host"], str(content["version"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        raise UsageError(f"{path} is not the JSON of `tilewright bench`") from None
    if not found:
        raise UsageError(f"{path} holds no timed rows of the host backend on warm caches")
    return Recording(found, machine, made)


def compare(
    recording: Recording, benchmarks: Sequence[Benchmark], policy: Policy
) -> Iterator[GateRow]:
    """Measure each benchmark as bench does and hold it against its recorded row."""
    elsewhere = recording.host.get("fingerprint") != host().fingerprint
    for bench in benchmarks:
        base = recording.rows.get(
            (bench.family.name, bench.case.precision, str(bench.case), bench.threads)
        )
        empty = GateRow(
            bench.family.name, "host", "cpu", str(bench.case), bench.case.precision, bench.threads, UNAVAILABLE
        )  # fmt: skip
        if base is None:
            yield replace(empty, reason="the recording has no timed row of this benchmark")
        elif elsewhere:
            words = f"recorded on {recording.host.get('cpu')}, another machine: its times say nothing about this one"
            yield replace(empty, reason=words)
        else:
            yield _row(empty, bench, base, policy)


def _row(empty: GateRow, bench: Benchmark, base: Mapping[str, Any], policy: Policy) -> GateRow:
    plan = Plan(
        [bench.family], ["host"], dtypes=[bench.case.precision], threads=[bench.threads], cases=[bench.case],
        seed=bench.seed,
    )  # fmt: skip
    now = next(rows(plan, Ceiling(ceilings.load(), tried=True)))
    if now.median_us is None:
        return replace(empty, verdict=now.state, reason=now.reason)
    estimate = widened(base, now)
    said = verdict(estimate, policy.threshold) if math.isfinite(estimate.width) else INCONCLUSIVE
    return replace(
        empty,
        verdict=said,
        evidence=str(Evidence.MEASURED),
        base_us=float(base["median_us"]),
        new_us=now.median_us,
        ratio=estimate.value,
        ci=(estimate.low, estimate.high),
        config=now.config,
        base_config=base["config"],
        rel_err=now.rel_err,
        tolerance=now.tolerance,
        clock=now.clock,
        mhz=now.mhz,
        mhz_source=now.mhz_source,
        others_busy=now.others_busy,
        steal=now.steal,
        load=now.load,
        samples_id=now.samples_id,
    )


def widened(base: Mapping[str, Any], now: BenchRow) -> Estimate:
    """Ratio recorded / now with its interval: both medians' own, and the spread of two separate runs."""
    assert now.median_us is not None
    center = math.log(float(base["median_us"]) / now.median_us)
    reaches = [
        _reach(base["median_us"], base["ci_low_us"], base["ci_high_us"]),
        _reach(now.median_us, now.ci_low_us, now.ci_high_us),
        _Z * BETWEEN_RUNS * math.sqrt(2),
    ]
    reach = math.hypot(*reaches)
    if not math.isfinite(reach):
        return Estimate(math.exp(center), 0.0, math.inf)
    return Estimate(math.exp(center), math.exp(center - reach), math.exp(center + reach))


def _reach(value: float, low: float | None, high: float | None) -> float:
    """How far, as a log, an interval reaches from its value; infinite where it is not known."""
    if low is None or high is None or low <= 0:
        return math.inf
    return max(math.log(high / value), math.log(value / low))
