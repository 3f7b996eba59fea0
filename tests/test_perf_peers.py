"""Peers: found, checked, timed beside us; a peer that goes wrong is its own fault and not ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fakes.perf import QUICK, SHAPE, FakePeer, Faulty, no_ceilings, timed_with
from tilewright import replay, tables
from tilewright.backends import all_backends
from tilewright.cases import Case
from tilewright.errors import Unavailable, UsageError
from tilewright.inputs import Inputs, draw
from tilewright.perf import gate, peers, samples
from tilewright.perf.bench import Plan, rows
from tilewright.perf.timers import CallTimer
from tilewright.registry import Family, family
from tilewright.targets import CPU

pytestmark = pytest.mark.alone

REFERENCE = all_backends()["reference"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gemm() -> Family:
    return family("gemm")


def test_peers_are_checked_and_timed_beside_us(gemm: Family) -> None:
    plan = Plan(
        [gemm],
        backends=["reference"],
        sizes=SHAPE,
        threads=[1],
        against=["torch", "torch-best"],
        effort=QUICK,
    )
    found = list(rows(plan, no_ceilings()))
    assert [r.peer for r in found] == ["torch", "torch-best"]
    assert all(r.verdict in ("faster", "slower", "same", "inconclusive") for r in found)
    for row in found:
        assert (
            row.peer_median_us is not None and row.median_us is not None and row.ratio is not None
        )
        assert row.clock == "python"
        assert row.peer_is in ("torch", "torch-mkldnn")
        arrays, _ = samples.load(str(row.samples_id))
        assert set(arrays) == {"ours", "theirs", "log_ratio", "machine"}


def test_a_prepacked_peer_meets_our_prepacked_layout_unless_fixed(gemm: Family) -> None:
    plan = Plan(
        [gemm],
        backends=["reference"],
        sizes=SHAPE,
        threads=[1],
        against=["torch-mkldnn"],
        effort=QUICK,
    )
    (row,) = rows(plan, no_ceilings())
    if row.state == "unavailable":
        pytest.skip(row.reason)
    assert "b_layout=panel16" in row.case
    (fixed,) = rows(replace(plan, flags={"b_layout": "KN"}), no_ceilings())
    assert "b_layout=KN" in fixed.case


def test_a_peer_that_is_wrong_is_not_timed(gemm: Family) -> None:
    case = gemm.spec.case(SHAPE, "fp32")
    inputs = draw(gemm, case, 0)
    expected = gate.Expected.of(gemm, case, inputs, REFERENCE)

    class Wrong:
        name = "wrong"
        summary = "zeros"
        flags: Mapping[str, str] = {}

        def prepare(self) -> Any:
            return lambda: torch.zeros(8, 48)

    with pytest.raises(Unavailable, match="is wrong here"):
        peers.resolve("wrong", gemm, [Wrong()], expected)
    with pytest.raises(Unavailable, match="no peer of gemm can be timed"):
        peers.resolve(peers.BEST, gemm, [Wrong()], expected)


def test_an_unknown_peer_is_wrong_usage(gemm: Family) -> None:
    plan = Plan([gemm], backends=["reference"], sizes=SHAPE, against=["torhc"], effort=QUICK)
    with pytest.raises(UsageError, match=r"torhc.*accepted: torch"):
        list(rows(plan, no_ceilings()))


@pytest.mark.parametrize(
    "precision", ["fp32", "bf16", "fp16", "int8->int32", "int8->fp32", "int8->bf16", "int8->fp16"]
)
def test_the_peers_of_gemm_agree_with_its_reference(gemm: Family, precision: str) -> None:
    flags = {"bias": "yes"}
    case = gemm.spec.case(SHAPE, precision, flags)
    inputs = draw(gemm, case, 1)
    expected = gate.Expected.of(gemm, case, inputs, REFERENCE)
    found = {p.name: p for p in peers.find(gemm, case, inputs, 1)}
    for name in ("torch", "torch-fp32"):
        if name in found:
            timer = CallTimer(found[name].prepare())
            timer.once()
            assert expected.judge_result(timer.result).ok, name


def beside(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let a fake be the only peer there is."""

    def find(family: Family, case: Case, inputs: Inputs, threads: int) -> list[FakePeer]:
        return [FakePeer(family, case, inputs, **changes)]

    monkeypatch.setattr(peers, "find", find)


def test_a_wrong_call_beside_a_peer_is_reported_as_it_was_called(
    gemm: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer brings us to its layout: the row, the config and the replay are those of that layout."""
    beside(monkeypatch, flags={"b_layout": "panel16"})
    asked: list[str] = []

    def choose(family: Family, case: Case, target: object, table: object = None) -> tables.Choice:
        asked.append(case.flags["b_layout"])
        number = 16 if case.flags["b_layout"] == "panel16" else 48
        config = {**gemm.spec.default_config(CPU), "tile_m": number}
        return tables.Choice(type(gemm.spec.default_config(CPU))(config), "for this test")

    monkeypatch.setattr(tables, "choose", choose)
    plan = Plan([gemm], sizes=SHAPE, threads=[1], against=["other"], effort=QUICK, seed=11)
    (row,) = timed_with(monkeypatch, Faulty(0), plan, no_ceilings())
    assert (row.state, row.peer, row.peer_is) == ("wrong", "other", "other")
    assert "panel16" in asked and row.config["tile_m"] == 16
    assert "b_layout=panel16" in row.case and "not timed" in row.reason
    path = Path(row.reason.split("--replay ")[1])
    monkeypatch.setattr("tilewright.backends.backend", lambda name: Faulty(0))
    job, inputs = replay.load(path)
    assert job.case.flags["b_layout"] == "panel16" and job.config["tile_m"] == 16
    assert inputs.physical["b"] is not None and inputs.physical["b"].dim() == 4


def test_a_peer_that_is_wrong_after_timing_leaves_us_blameless(
    gemm: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside(monkeypatch, right=1)
    plan = Plan(
        [gemm],
        backends=["reference"],
        sizes=SHAPE,
        threads=[1],
        against=["other", "torch-best"],
        effort=QUICK,
    )
    named, best = rows(plan, no_ceilings())
    assert (named.state, named.peer, named.peer_is) == ("unavailable", "other", "other")
    assert "other was right before timing and wrong after it" in named.reason
    assert named.median_us is None and named.evidence is None and named.ratio is None
    assert (best.state, best.peer) == ("unavailable", "torch-best")


def test_a_right_peer_gives_a_ratio(gemm: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    beside(monkeypatch)
    plan = Plan([gemm], sizes=SHAPE, threads=[1], against=["other"], effort=QUICK)
    (row,) = timed_with(monkeypatch, Faulty(10**9), plan, no_ceilings())
    assert row.state == "timed" and row.ratio is not None and row.evidence == "measured"
