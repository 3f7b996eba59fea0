"""The page of the gate's error study: figures from its finished gates, nothing typed in."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Gates = Sequence[Mapping[str, Any]]
MOST_ALARMS, OF_RUNS, FEWEST_DETECTED = 1, 300, 0.95


def clopper_pearson(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a probability from `hits` of `of` independent trials (Clopper and Pearson 1934)."""
    if of <= 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _solve(lambda p: 1 - binomial_below(hits - 1, of, p), tail)
    high = 1.0 if hits == of else _solve(lambda p: 1 - binomial_below(hits, of, p), 1 - tail)
    return low, high


def binomial_below(hits: int, of: int, p: float) -> float:
    """P(X <= hits) of `of` trials with probability `p`."""
    if p <= 0 or p >= 1:
        return 1.0 if p <= 0 or hits >= of else 0.0
    logs = [
        math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * math.log(p) + (of - k) * math.log1p(-p)
        for k in range(hits + 1)
    ]  # fmt: skip
    return min(1.0, math.fsum(math.exp(v) for v in logs))


def _solve(rising: Any, target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def _rate(hits: int, of: int) -> dict[str, Any]:
    low, high = clopper_pearson(hits, of)
    return {"hits": hits, "of": of, "rate": hits / of if of else None, "low": low, "high": high}


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    known = [v for v in values if v is not None]
    if not known:
        return None
    low, middle, high = (float(v) for v in np.percentile(known, [5, 50, 95]))
    return {"p5": low, "median": middle, "p95": high}


def summarise(gates: Gates, setup: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure of the page."""
    from tilewright.machine import host

    equal = [g for g in gates if g["kind"] == "alarm"]
    slow = [g for g in gates if g["kind"] == "slow"]
    alarms = _rate(sum(g["verdict"] == "slower" for g in equal), len(equal))
    rows = [row for g in slow for row in g["rows"]]
    detected = _rate(sum(r["verdict"] == "slower" for r in rows), len(rows))
    return {
        "schema": "tilewright/gate_errors/1",
        "machine": {"cpu": host().cpu, "cores": host().cores, "isa": host().isa, "os": host().os},
        "setup": dict(setup),
        "alarms": alarms,
        "alarm_rows": _rate(
            sum(r["verdict"] == "slower" for g in equal for r in g["rows"]),
            sum(len(g["rows"]) for g in equal),
        ),
        "equal_verdicts": _counts(g["verdict"] for g in equal),
        "equal_row_verdicts": _counts(r["verdict"] for g in equal for r in g["rows"]),
        "detected": detected,
        "slow_gates": _rate(sum(g["verdict"] == "slower" for g in slow), len(slow)),
        "slow_row_verdicts": _counts(r["verdict"] for r in rows),
        "seconds": _spread([g["seconds"] for g in equal]),
        "slow_seconds": _spread([g["seconds"] for g in slow]),
        "load": _spread([g["load"] for g in gates]),
        "others_busy": _spread([r["others_busy"] for g in gates for r in g["rows"]]),
        "steal": _spread([r["steal"] for g in gates for r in g["rows"]]),
        "from": min((g["at"] for g in gates), default=None),
        "to": max((g["at"] for g in gates), default=None),
        "benchmarks": [_benchmark(i, name, equal, slow) for i, name in enumerate(setup["cases"])],
        "within_targets": alarms["hits"] <= MOST_ALARMS
        and len(equal) >= OF_RUNS
        and bool(rows)
        and detected["rate"] >= FEWEST_DETECTED,
    }


def _counts(verdicts: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for said in verdicts:
        found[said] = found.get(said, 0) + 1
    return dict(sorted(found.items()))


def _benchmark(index: int, name: str, equal: Gates, slow: Gates) -> dict[str, Any]:
    """One benchmark over all gates: its time, how passes scatter, and the true ratio of the slower build.

    The ratio is of all passes of all gates together, hence far more certain than any verdict that rests on it.
    """
    one, other = ([g["rows"][index] for g in gates] for gates in (equal, slow))
    logs = [v for row in other for v in row["log_ratios"]]
    scatter = [v for row in one for v in row["log_ratios"]]
    true = None
    if len(logs) >= 3:
        from tilewright.perf.statistics import mean_ratio

        estimate = mean_ratio(logs)
        true = {
            "ratio": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "passes": len(logs),
        }
    return {
        "name": name,
        "us": _spread([row["base_us"] for row in one]),
        "scatter": float(np.std(scatter, ddof=1)) if len(scatter) > 1 else None,
        "passes": _spread([row["passes"] for row in one]),
        "alarms": sum(row["verdict"] == "slower" for row in one),
        "inconclusive": sum(row["verdict"] == "inconclusive" for row in one),
        "of": len(one),
        "slow": true,
        "detected": sum(row["verdict"] == "slower" for row in other),
        "slow_of": len(other),
    }


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def _range(spread: Mapping[str, float] | None, factor: float = 1.0, digits: int = 1) -> str:
    if spread is None:
        return "not known"
    low, middle, high = (factor * spread[k] for k in ("p5", "median", "p95"))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _interval(rate: Mapping[str, Any]) -> str:
    return f"{rate['hits']} of {rate['of']}, 95 % interval {_percent(rate['low'])} to {_percent(rate['high'])}"


def page(found: Mapping[str, Any]) -> str:
    """The Markdown page."""
    machine, policy = found["machine"], found["setup"]["policy"]
    days = " to ".join(
        dict.fromkeys(
            time.strftime("%Y-%m-%d", time.gmtime(found[k])) for k in ("from", "to") if found[k]
        )
    )
    lines = [
        "# How often the gate is wrong",
        "",
        "Generated by `python -m tilewright.perf.studies.gate_errors`; the figures are in `gate_errors.json` beside this page.",
        "What the gate does, and what these words mean: [gate.md](gate.md).",
        "",
        f"Measured on {machine['cpu']} ({machine['cores']} cores, {machine['isa']}), {days}, while others used it: median (5 to 95 %) of",
        f"load average {_range(found['load'])}, processor time used by others {_range(found['others_busy'], 100, 0)} %, "
        f"stolen by the hypervisor {_range(found['steal'], 100, 1)} %.",
        "",
        f"A gate here is {len(found['benchmarks'])} benchmarks, threshold {_percent(policy['threshold'], 0)}, passes of {policy['pass_s']} s. "
        f"It took {_range(found['seconds'])} s for equal builds and {_range(found['slow_seconds'])} s for the slower one.",
        "",
        _targets(found),
        "",
        "| question | answer |",
        "|---|---|",
        f"| false alarms: gates of equal builds that said `slower` | {_interval(found['alarms'])} |",
        f"| the same, counted by benchmark | {_interval(found['alarm_rows'])} |",
        f"| detection: benchmarks of the slower build called `slower` (inconclusive is a miss) | {_interval(found['detected'])} |",
        f"| gates of the slower build that said `slower` | {_interval(found['slow_gates'])} |",
        f"| verdicts of gates of equal builds | {_said(found['equal_verdicts'])} |",
        f"| verdicts of their benchmarks | {_said(found['equal_row_verdicts'])} |",
        f"| verdicts of the slower build's benchmarks | {_said(found['slow_row_verdicts'])} |",
        "",
        "The slower build is the same sources with every kernel followed by a wait, on the time-stamp counter, of a twentieth",
        "of what the kernel took. That it is slower by so much is seen in its last but one column: base / slower of all",
        "passes of all gates, which 5 % more makes 0.952.",
        "",
        "| benchmark | us | scatter of passes | passes | false alarms | inconclusive | base / slower | detected |",
        "|---|---|---|---|---|---|---|---|",
        *[_benchmark_line(b) for b in found["benchmarks"]],
        "",
    ]
    return "\n".join(lines)


def _targets(found: Mapping[str, Any]) -> str:
    """Whether what the gate is meant to reach was reached, in this many runs."""
    wanted = f"Meant to be reached: at most {MOST_ALARMS} false alarm in {OF_RUNS} gates, {_percent(FEWEST_DETECTED, 0)} detected"
    if found["within_targets"]:
        return f"{wanted}: reached."
    left = OF_RUNS - found["alarms"]["of"]
    reason = f"{left} gates of equal builds are still to run" if left > 0 else "missed"
    return f"{wanted}: {reason}."


def _said(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {word}" for word, n in counts.items()) or "none"


def _benchmark_line(b: Mapping[str, Any]) -> str:
    slow = b["slow"]
    true = f"{slow['ratio']:.4f} ({slow['low']:.4f} to {slow['high']:.4f})" if slow else "-"
    return (
        f"| {b['name']} | {_range(b['us'])} | {_percent(b['scatter'])} | {_range(b['passes'], 1, 0)} | {b['alarms']} of {b['of']} "
        f"| {b['inconclusive']} of {b['of']} | {true} | {b['detected']} of {b['slow_of']} |"
    )
