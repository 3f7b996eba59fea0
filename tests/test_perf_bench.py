"""Gate, ceilings, peers and rows: no time without a right answer, none below the floor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tilewright import native
from tilewright.backends import Backend, Cell, Launch, State, all_backends
from tilewright.cases import Case
from tilewright.errors import CheckFailed, Unavailable, UsageError
from tilewright.inputs import Inputs, draw
from tilewright.perf import ceilings, gate, peers, samples
from tilewright.perf.bench import Ceiling, Plan, rows
from tilewright.perf.engine import Effort
from tilewright.perf.timers import CallTimer
from tilewright.registry import Family, family
from tilewright.space import Config
from tilewright.spec import Precision
from tilewright.targets import CPU, Target

QUICK = Effort(width=0.5, seconds=0.08, fewest=3, warmup_s=0.005)
SHAPE = {"M": 8, "N": 48, "K": 32}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gemm() -> Family:
    return family("gemm")


def case_of(found: Family, precision: str = "fp32") -> Case:
    return found.spec.case(SHAPE, precision)


class FakeProbe:
    """A machine of round numbers: bandwidth falls with the footprint, peaks grow with threads."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def read_gbps(self, bytes_each: int, threads: int, seconds: float) -> float:
        level = 400 if bytes_each <= 64 << 10 else 200 if bytes_each <= 1 << 20 else 100
        return self.scale * threads * (30 if bytes_each > 24 << 20 else level)

    def write_gbps(self, bytes_each: int, threads: int, seconds: float) -> float:
        return self.read_gbps(bytes_each, threads, seconds) / 2

    def gops(self, kind: str, threads: int, seconds: float) -> float | None:
        return {"fp32": 100.0, "bf16": 200.0, "int8": 400.0}.get(
            kind, 0.0
        ) * threads * self.scale or None


LEVELS = tuple(
    ceilings.Level(n, s) for n, s in (("L1", 32 << 10), ("L2", 1 << 20), ("L3", 32 << 20))
)


def fake_ceilings(scale: float = 1.0) -> ceilings.Ceilings:
    return ceilings.measure(FakeProbe(scale), LEVELS, (1, 2), window_s=0.0, repeats=1)


def known(found: ceilings.Ceilings) -> Ceiling:
    return Ceiling(found, tried=True, refreshed=True)


class Faulty(Backend):
    """The right answer for some calls, then another: `right` calls are right."""

    name = "faulty"

    def __init__(self, right: int, work: bool = True) -> None:
        self.right = right
        self.work = work

    def targets(self) -> tuple[str, ...]:
        return ("cpu",)

    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        return Cell(family.name, self.name, target.name, precision.name, State.RUN)

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
    ) -> Launch:
        inner = all_backends()["reference"].prepare(family, case, inputs, config, target, threads)
        calls = 0

        def run() -> None:
            nonlocal calls
            calls += 1
            inner.run()
            if calls > self.right:
                next(iter(inner.outputs.values())).view(-1)[3] += 100

        return Launch(run, inner.outputs)


def timed_with(
    monkeypatch: pytest.MonkeyPatch, gemm: Family, backend: Backend, plan: Plan, ceiling: Ceiling
) -> Any:
    table = {**all_backends(), backend.name: backend}
    monkeypatch.setattr("tilewright.perf.bench.backend_named", lambda name: table[name])
    return list(rows(replace(plan, backends=[backend.name]), ceiling))


def no_ceilings() -> Ceiling:
    return Ceiling(tried=True, reason="none in this test")


def test_a_right_call_gets_a_row_with_every_field(gemm: Family) -> None:
    plan = Plan([gemm], backends=["reference"], sizes=SHAPE, threads=[1], effort=QUICK, seed=5)
    (row,) = rows(plan, known(fake_ceilings()))
    assert row.ok and row.state == "timed" and row.evidence == "measured"
    assert row.ci_low_us is not None and row.median_us is not None and row.ci_high_us is not None
    assert row.ci_low_us <= row.median_us <= row.ci_high_us
    assert row.gflops == pytest.approx(2 * 8 * 48 * 32 / row.median_us / 1e3)
    assert row.ceiling_frac is not None and 0 < row.ceiling_frac < 1
    assert (row.seed, row.threads, row.cache, row.peer, row.verdict) == (5, 1, "warm", None, None)
    assert row.tolerance is not None and row.rel_err is not None and row.rel_err <= row.tolerance
    arrays, about = samples.load(str(row.samples_id))
    assert len(arrays["ours"]) == row.samples
    assert about["unit"] == "ns per call"
    assert float(torch.tensor(arrays["ours"]).median()) / 1e3 == pytest.approx(
        row.median_us, rel=0.2
    )


@pytest.mark.parametrize("right", [0, 1, 2])
def test_wrong_output_gets_no_time(
    gemm: Family, monkeypatch: pytest.MonkeyPatch, right: int
) -> None:
    plan = Plan([gemm], sizes=SHAPE, threads=[1], effort=QUICK)
    (row,) = timed_with(monkeypatch, gemm, Faulty(right), plan, no_ceilings())
    assert row.state == "wrong" and not row.ok
    assert row.median_us is None and row.samples == 0
    assert "not timed" in row.reason if right == 0 else "dropped" in row.reason


def test_an_output_that_timing_never_wrote_is_caught(gemm: Family) -> None:
    case = case_of(gemm)
    inputs = draw(gemm, case, 0)
    launch = all_backends()["reference"].prepare(gemm, case, inputs, Config({}), CPU)
    expected = gate.Expected.of(gemm, case, inputs)
    with pytest.raises(CheckFailed, match="dropped"):
        gate.timed(
            expected,
            launch.outputs,
            launch.run,
            lambda: 1,
            "a kernel that skips its work when timed",
        )


def test_a_time_below_the_floor_is_impossible(gemm: Family) -> None:
    slow_machine = known(fake_ceilings(1e-9))
    plan = Plan([gemm], backends=["reference"], sizes=SHAPE, threads=[1], effort=QUICK)
    (row,) = rows(plan, slow_machine)
    assert row.state == "impossible" and row.verdict == "impossible" and not row.ok
    assert "below" in row.reason


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
        assert set(arrays) == {"ours", "theirs", "log_ratio"}


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
    case = case_of(gemm)
    inputs = draw(gemm, case, 0)
    expected = gate.Expected.of(gemm, case, inputs)

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
    expected = gate.Expected.of(gemm, case, inputs)
    found = {p.name: p for p in peers.find(gemm, case, inputs, 1)}
    for name in ("torch", "torch-fp32"):
        if name in found:
            timer = CallTimer(found[name].prepare())
            timer.once()
            assert expected.judge_result(timer.result).ok, name


def test_what_does_not_run_here_says_why(gemm: Family) -> None:
    plan = Plan([gemm], backends=["triton"], targets=["cuda:sm_90"], sizes=SHAPE, effort=QUICK)
    (row,) = rows(plan, no_ceilings())
    if row.state != "unavailable":
        pytest.skip("a GPU is here")
    assert "only what runs on its hardware is timed" in row.reason


def test_threads_beyond_the_machine_are_refused(gemm: Family) -> None:
    with pytest.raises(UsageError, match="10000 threads"):
        Plan([gemm], threads=[10_000])


def test_host_is_timed_natively_where_it_is_built(gemm: Family) -> None:
    if native.why_missing():
        pytest.skip(str(native.why_missing()))
    for cold in (False, True):
        plan = Plan([gemm], backends=["host"], sizes=SHAPE, threads=[1], cold=cold, effort=QUICK)
        (row,) = rows(plan, no_ceilings())
        assert (row.state, row.clock, row.cache) == (
            "timed",
            "native",
            "cold" if cold else "warm",
        ), row.reason


def test_samples_are_found_by_id_only() -> None:
    with pytest.raises(UsageError, match="no samples with id"):
        samples.load("nothing")


ROW_FIELDS = {
    "family",
    "backend",
    "target",
    "case",
    "dtype",
    "config",
    "ok",
    "rel_err",
    "max_abs_err",
    "tolerance",
    "seed",
    "threads",
    "median_us",
    "ci_low_us",
    "ci_high_us",
    "samples",
    "gflops",
    "gbps",
    "ceiling_frac",
    "evidence",
    "cache",
    "peer",
    "ratio",
    "ratio_ci_low",
    "ratio_ci_high",
    "verdict",
}


def test_the_command_writes_the_fields_others_rely_on(tmp_path: Path) -> None:
    from tilewright.cli.main import main

    ceilings.write_text(ceilings.cache_path(), json.dumps(fake_ceilings(1e3).as_dict()))
    out = tmp_path / "b.json"
    chosen = [
        "bench",
        "gemm",
        "--backend",
        "reference",
        "--shape",
        "M=4,N=8,K=16",
        "--seconds",
        "0.05",
    ]
    assert main([*chosen, "--against", "torch", "--threads", "1", "--json", str(out)]) in (0, 1)
    (row,) = json.loads(out.read_text())["rows"]
    assert set(row) >= ROW_FIELDS
    assert row["evidence"] == "measured"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--against", "torhc"], 2),
        (["--threads", "two"], 2),
        (["--dtype", "fp64"], 2),
        (["--flags", "b_layout=ZZ"], 2),
        (["--backend", "triton", "--target", "cuda:sm_100"], 3),
    ],
)
def test_exit_codes(options: list[str], code: int) -> None:
    from tilewright.cli.main import main

    assert main(["bench", "gemm", "--shape", "M=4,N=8,K=16", "--seconds", "0.05", *options]) == code
