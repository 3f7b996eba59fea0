"""The benchmark's gate and rows: no time without a right answer, none below the floor, each with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fakes.perf import QUICK, SHAPE, Faulty, fake_ceilings, known, no_ceilings, timed_with
from tilewright import check, native
from tilewright.errors import UsageError
from tilewright.inputs import draw
from tilewright.perf import gate, samples
from tilewright.perf.bench import Plan, places, precisions, rows
from tilewright.registry import Family, family
from tilewright.space import Config
from tilewright.targets import CPU

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gemm() -> Family:
    return family("gemm")


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
    (row,) = timed_with(monkeypatch, Faulty(right), plan, no_ceilings())
    assert row.state == "wrong" and not row.ok
    assert row.median_us is None and row.samples == 0 and row.evidence is None
    assert "not timed" in row.reason if right == 0 else "dropped" in row.reason


def test_a_time_below_the_floor_is_impossible(gemm: Family) -> None:
    slow_machine = known(fake_ceilings(1e-9))
    plan = Plan([gemm], backends=["reference"], sizes=SHAPE, threads=[1], effort=QUICK)
    (row,) = rows(plan, slow_machine)
    assert row.state == "impossible" and row.verdict == "impossible" and not row.ok
    assert "below" in row.reason


def test_what_does_not_run_here_says_why(gemm: Family) -> None:
    plan = Plan([gemm], backends=["triton"], targets=["cuda:sm_90"], sizes=SHAPE, effort=QUICK)
    (row,) = rows(plan, no_ceilings())
    if row.state != "unavailable":
        pytest.skip("a GPU is here")
    assert "only what runs on its hardware is timed" in row.reason
    assert row.evidence is None


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


def test_a_benchmark_and_a_check_compare_under_one_tolerance(gemm: Family) -> None:
    """What a backend's hardware adds counts in both."""
    rough = Faulty(10**9, added=0.125)
    case = gemm.spec.case(SHAPE, "fp32")
    inputs = draw(gemm, case, 0)
    launch = rough.prepare(gemm, case, inputs, Config({}), CPU)
    launch.run()
    job = check.Job(gemm, rough, CPU, case, Config({}), 0)
    verdict = check.compare_outputs(job, inputs, launch.outputs)
    expected = gate.Expected.of(gemm, case, inputs, rough)
    assert expected.tolerance == verdict.tolerance > 0.125
    assert expected.judge(launch.outputs) == verdict


@pytest.mark.parametrize("names", [["int8"], ["int8->fp16", "bf16"]])
def test_precisions_are_selected_as_by_every_command(gemm: Family, names: list[str]) -> None:
    assert precisions(Plan([gemm], dtypes=names), gemm.spec) == gemm.spec.select_precisions(names)
    assert len(precisions(Plan([gemm], dtypes=["int8"]), gemm.spec)) == 4


def test_all_precisions_and_the_default_one(gemm: Family) -> None:
    assert precisions(Plan([gemm], dtypes=["all"]), gemm.spec) == list(gemm.spec.precisions)
    assert precisions(Plan([gemm]), gemm.spec) == [gemm.spec.precision(None)]


@pytest.mark.parametrize(
    ("backends", "targets", "expected"),
    [
        ([], [], [("host", "cpu")]),
        ([], ["cpu"], [("host", "cpu")]),
        ([], ["cuda:sm_90", "cpu"], [("triton", "cuda:sm_90"), ("host", "cpu")]),
        ([], ["ascend:910b1"], [("ascendc", "ascend:910b1")]),
        (["triton"], ["hip:gfx942"], [("triton", "hip:gfx942")]),
        (["host"], ["hip:gfx942"], []),
    ],
)
def test_a_target_without_a_backend_means_the_one_that_addresses_it(
    gemm: Family, backends: list[str], targets: list[str], expected: list[tuple[str, str]]
) -> None:
    found = places(Plan([gemm], backends=backends, targets=targets), gemm)
    assert [(one.name, where.name) for one, where in found] == expected


def test_an_unknown_target_is_wrong_usage(gemm: Family) -> None:
    with pytest.raises(UsageError, match="unknown target 'cuda:sm_9'; accepted: cpu"):
        list(places(Plan([gemm], targets=["cuda:sm_9"]), gemm))
