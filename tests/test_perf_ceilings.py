"""Ceilings of the machine: how they are measured and kept, what bounds a case, what no machine can do."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.perf import LEVELS, QUICK, SHAPE, FakeProbe, fake_ceilings
from tilewright import native
from tilewright.dtypes import BF16, INT8
from tilewright.perf import ceilings
from tilewright.perf.bench import Ceiling, Plan, rows
from tilewright.registry import Family, family

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gemm() -> Family:
    return family("gemm")


def test_ceilings_are_measured_again_before_a_time_is_called_impossible(
    gemm: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceilings, "get", lambda refresh=False, report=None: fake_ceilings(1e6))
    stale = Ceiling(fake_ceilings(1e-9), tried=True)
    plan = Plan([gemm], backends=["reference"], sizes=SHAPE, threads=[1], effort=QUICK)
    (row,) = rows(plan, stale)
    assert row.state == "timed"


def test_bound_takes_the_larger_of_work_and_traffic(gemm: Family) -> None:
    found = fake_ceilings()
    spec = gemm.spec
    big = spec.case({"M": 1024, "N": 1024, "K": 1024}, "fp32")
    assert ceilings.bound(spec, big, found, 1).bound_by == "compute"
    assert ceilings.bound(spec, big, found, 1).us == pytest.approx(2 * 1024**3 / 100e3)
    thin = spec.case({"M": 1, "N": 256, "K": 512}, "fp32")
    limit = ceilings.bound(spec, thin, found, 1)
    assert limit.bound_by == "L2"
    cold = ceilings.bound(spec, thin, found, 1, cold=True)
    assert (cold.bound_by, cold.gbps) == ("DRAM", 30)
    assert cold.us > limit.us
    empty = spec.case({"M": 0, "N": 4, "K": 4}, "fp32")
    assert ceilings.impossible(0.0, ceilings.Bound(0.0, "L1", "L1", 1, None)) is None
    assert ceilings.bound(spec, empty, found, 1).us >= 0


def test_a_case_is_held_to_the_peak_of_what_it_computes_in() -> None:
    """int8 attention may beat the bf16 peak: it does not compute in the type of its inputs."""
    spec = family("attention").spec
    sizes = dict(
        zip(
            ["B", "SQ", "SK", "HQ", "HKV", "DK", "DV", "NS1"],
            (1, 512, 512, 4, 4, 64, 64, 2),
            strict=True,
        )
    )
    plain, codes = (spec.case(sizes, "bf16", {"compute": c}) for c in ("float", "int8"))
    assert (spec.computes_in(plain), spec.computes_in(codes)) == ({BF16: 1.0}, {INT8: 1.0})
    found = fake_ceilings()
    slow, fast = (ceilings.bound(spec, c, found, 1).us for c in (plain, codes))
    assert found.peak_gops("int8", 1) != found.peak_gops("bf16", 1)
    assert slow / fast == pytest.approx(found.peak_gops("int8", 1) / found.peak_gops("bf16", 1))


def test_rows_of_two_types_are_held_to_both_peaks_and_to_what_they_read() -> None:
    spec = family("mask_gemm").spec
    found = fake_ceilings()

    def us(layer: int, rows: int = 4096, **flags: str) -> float:
        sizes = {"M": rows, "N": 64, "K": 64, "W": 4}
        case = spec.case(sizes, "bf16", {"layer": str(layer), **flags})
        limit = ceilings.bound(spec, case, found, 1)
        assert limit.bound_by == "compute"
        return limit.us

    whole, nothing, eighth, chance = (us(layer) for layer in (1, 2, 0, 3))
    assert whole / nothing == pytest.approx(found.peak_gops("int8", 1) / found.peak_gops("bf16", 1))
    assert eighth == pytest.approx(whole / 8 + nothing * 7 / 8) and chance == nothing
    assert us(1, resident="no", missing="keep_int8") == us(0, resident="no") == nothing
    moved = [
        spec.bytes_of(spec.case({"M": m, "N": 10, "K": 100, "W": 4}, "bf16", {"layer": layer}))
        for m, layer in ((80, "2"), (80, "1"), (80, "0"), (7, "0"))
    ]
    rest = 80 * 4 + 24 + 2 * 80 * 10 + 12
    int8, bf16 = 90 * 104, 90 * 200
    assert moved[:2] == [rest + int8, rest + bf16]
    assert moved[2] == rest + 80 * 104 + 20 * 200
    assert moved[3] == 7 * 4 + 24 + 2 * 7 * 10 + 12 + 17 * 104


def test_a_floor_from_a_busy_machine_accuses_nobody_by_its_error() -> None:
    quiet = ceilings.Bound(100.0, "DRAM", "DRAM", 10.0, None)
    busy = replace(quiet, disturbed=0.8)
    assert ceilings.impossible(50.0, quiet)
    assert ceilings.impossible(50.0, busy) is None
    assert ceilings.impossible(10.0, busy)


def test_ceilings_survive_the_disk_and_keep_the_best(tmp_path: Path) -> None:
    slow, fast = fake_ceilings(1.0), fake_ceilings(2.0)
    path = tmp_path / "c.json"
    path.write_text(json.dumps(fast.as_dict()))
    again = ceilings.load(path)
    assert again == fast
    best = ceilings.best_of(slow, fast)
    assert best.peak_gops("fp32", 1) == 200
    assert ceilings.best_of(fast, slow).peak_gops("fp32", 1) == 200
    path.write_text("{")
    assert ceilings.load(path) is None


def test_threads_between_the_measured_ones_scale() -> None:
    found = ceilings.measure(FakeProbe(), LEVELS, (1, 8), window_s=0.0, repeats=1)
    assert found.peak_gops("fp32", 4) == 400
    assert found.bandwidth(4 * 16 << 10, 4) == pytest.approx(1600)
    assert found.peak_gops("fp16", 1) == 100
    assert found.level_of(20 << 10, 1) == "L1"
    assert found.level_of(20 << 20, 8) == "L3"
    assert found.level_of(1 << 30, 8) == "DRAM"


def test_ceilings_of_this_machine_are_plausible() -> None:
    if native.why_missing() or not hasattr(native.module(), "ceiling_flops"):
        pytest.skip("no native ceiling loops in this build")
    found = ceilings.measure(ceilings.native_probe(), threads=(1,), window_s=0.01, repeats=3)
    first = found.levels[0].name
    assert found.level_bandwidth(first, 1) >= found.level_bandwidth("DRAM", 1) > 0.5
    assert (found.peak_gops("fp32", 1) or 0) > 0.5
    assert all(math.isfinite(v) for by in found.peak.values() for v in by.values())


def test_a_last_level_too_large_to_flush_bounds_a_cold_call_by_itself(gemm: Family) -> None:
    large = (*LEVELS[:2], ceilings.Level("L3", 480 << 20))
    found = ceilings.measure(FakeProbe(), large, (1,), window_s=0.0, repeats=1)
    thin = gemm.spec.case({"M": 1, "N": 256, "K": 512}, "fp32")
    limit = ceilings.bound(gemm.spec, thin, replace(found, read={1: CURVE}), 1, cold=True)
    # 256 MiB are rewritten: operands may lie in the rest of this cache, so memory is no floor.
    assert limit.bound_by == "L3" and limit.gbps == pytest.approx(60)
    whole = replace(found, levels=LEVELS, read={1: CURVE})
    assert ceilings.bound(gemm.spec, thin, whole, 1, cold=True).gbps == 10


CURVE = ((16 << 10, 400.0), (128 << 20, 60.0), (256 << 20, 60.0), (1 << 30, 10.0))
