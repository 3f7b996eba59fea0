"""The study of the gate's errors: exact intervals, what is still to run, and a page with no figure of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tilewright.perf.studies.gate_errors import ALARM, SLOW, Setup, plan, read
from tilewright.perf.studies.gate_errors_page import clopper_pearson, page, summarise


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        # By their definition: the tails at both ends are 2.5 %; 1 - 0.025^(1/n) for no hit at all.
        (0, 300, 0.0, 0.012221),
        (1, 300, 0.0000844, 0.0184313),
        (5, 10, 0.187086, 0.812914),
        (10, 10, 0.691503, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_exact_intervals(hits: int, of: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, of) == pytest.approx((low, high), abs=2e-6)


def test_both_kinds_are_spread_over_the_hours_and_nothing_runs_twice() -> None:
    order = list(plan([], 300, 50))
    assert (order.count(ALARM), order.count(SLOW)) == (300, 50)
    assert all(order[i : i + 14].count(SLOW) >= 1 for i in range(0, 336, 14))
    done: list[dict[str, Any]] = [{"kind": kind} for kind in order[:120]]
    assert len(list(plan(done, 300, 50))) == 230
    assert list(plan([{"kind": ALARM}] * 300, 300, 0)) == []


SETUP = Setup("a", "b", "machine", {"threshold": 0.02, "pass_s": 0.1}, ("fp32 M=1",))


def gate(kind: str, verdict: str, ratio: float) -> dict[str, Any]:
    row = {
        "verdict": verdict, "base_us": 100.0, "passes": 5, "log_ratios": [ratio, ratio + 0.001, ratio - 0.001],
        "others_busy": 0.5, "steal": 0.0,
    }  # fmt: skip
    return {
        "setup": SETUP.key(kind), "kind": kind, "verdict": verdict, "seconds": 9.0, "load": 3.0, "at": 1_700_000_000,
        "rows": [row],
    }  # fmt: skip


def test_results_of_another_build_or_policy_are_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "gates.jsonl"
    other = Setup("a", "c", "machine", {"threshold": 0.02, "pass_s": 0.1}, ("fp32 M=1",))
    lines = [gate(ALARM, "same", 0.0), gate(SLOW, "slower", -0.05)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(path, SETUP) == lines
    # Another slower build says nothing about equal ones.
    assert read(path, other) == lines[:1]
    assert read(tmp_path / "none", SETUP) == []


def test_the_page_says_what_was_found() -> None:
    equal = [gate(ALARM, "same", 0.0)] * 299 + [gate(ALARM, "slower", -0.03)]
    slow = [gate(SLOW, "slower", -0.0488)] * 58 + [gate(SLOW, "inconclusive", -0.0488)] * 2
    found = summarise(equal + slow, {"policy": SETUP.policy, "cases": SETUP.cases})
    assert found["within_targets"]
    assert found["alarms"]["hits"] == 1 and found["detected"]["rate"] == pytest.approx(58 / 60)
    text = page(found)
    assert "1 of 300, 95 % interval 0.01 % to 1.84 %" in text
    assert "58 of 60" in text and "0.9524" in text and "reached." in text


@pytest.mark.parametrize(
    ("alarms", "of", "detected", "said"),
    [
        (0, 40, 60, "260 gates of equal builds are still to run"),
        (2, 300, 60, "missed"),
        (0, 300, 50, "missed"),
    ],
)
def test_targets_that_are_not_reached_are_named(
    alarms: int, of: int, detected: int, said: str
) -> None:
    gates = [gate(ALARM, "slower", -0.03)] * alarms + [gate(ALARM, "same", 0.0)] * (of - alarms)
    gates += [gate(SLOW, "slower", -0.05)] * detected
    gates += [gate(SLOW, "inconclusive", -0.05)] * (60 - detected)
    found = summarise(gates, {"policy": SETUP.policy, "cases": SETUP.cases})
    assert not found["within_targets"]
    assert said in page(found)
