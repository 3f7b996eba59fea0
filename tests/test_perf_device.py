"""Timing on a GPU, by a GPU that is not one: what is measured, what is caught. No GPU is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fakes.device import NAME, FakeGpu, FakeQueue, Work
from fakes.perf import fake_ceilings
from tilewright.autotune.valuing.measured import MeasuredTime
from tilewright.cli.main import main
from tilewright.errors import Unavailable
from tilewright.perf import bench
from tilewright.perf.bench import Ceiling, Plan, rows
from tilewright.perf.device import ceilings as device_ceilings
from tilewright.perf.device import queue as queues
from tilewright.perf.device import timer as timers
from tilewright.perf.device.timer import DeviceTimer
from tilewright.perf.engine import Effort, Turns, measure
from tilewright.perf.timers import timer_of
from tilewright.registry import family
from tilewright.targets import target

SM_90 = target("cuda:sm_90")
QUICK = Effort(seconds=0.3, warmup_s=0.01)


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    """A machine with a GPU: one that computes on the processor and has a clock of its own."""
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    made = FakeGpu(FakeQueue())
    monkeypatch.setattr(torch.Tensor, "cuda", torch.Tensor.clone)
    for module in (queues, timers):
        monkeypatch.setattr(module, "queue", lambda: made.queue)
    monkeypatch.setattr(torch.cuda, "clock_rate", lambda: 1755)
    monkeypatch.setattr(device_ceilings, "get", lambda refresh=False: fake_ceilings(1e6))
    monkeypatch.setattr(bench, "backend_named", lambda name: made)
    yield made


def plan(**changes: Any) -> Plan:
    known: dict[str, Any] = {
        "families": [family("gemm")],
        "backends": ["triton"],
        "targets": ["cuda:sm_90"],
        "dtypes": ["fp32"],
        "sizes": {"M": 4, "N": 16, "K": 16},
        "effort": QUICK,
    }
    return Plan(**{**known, **changes})


@given(
    call_ns=st.floats(1e3, 1e7),
    batch=st.integers(1, 50),
    count=st.integers(1, 5),
    captures=st.booleans(),
    flush=st.sampled_from([0, 1 << 21]),
)
def test_a_sample_is_the_calls_and_nothing_else(
    call_ns: float, batch: int, count: int, captures: bool, flush: int
) -> None:
    queue = FakeQueue(captures)

    def call() -> str:
        queue.ns += call_ns
        return "result"

    timer = DeviceTimer(call, queue)
    found = timer.sample(count, batch, flush)
    assert found == pytest.approx(np.full(count, call_ns), rel=1e-6)
    assert timer.result == "result" and timer.clock == ("events" if captures else "queued")
    assert queue.replays == ([batch] * count if captures else [])
    assert queue.flushed == ([flush] * count if flush else [])
    # Kept busy while a sample is queued; longer where each call is queued from Python.
    assert len(queue.held) == count and min(queue.held) >= 40e3


def test_a_cold_measurement_flushes_what_the_gpu_has_and_not_the_processor() -> None:
    queue = FakeQueue()

    def call() -> None:
        queue.ns += 3e5

    timer = DeviceTimer(call, queue)
    result = measure(timer, QUICK, cold=True)
    assert result.median.value == pytest.approx(3e5) and result.clock == "events"
    assert set(queue.flushed) == {2 * queue.facts.l2_bytes}
    queue.flushed.clear()
    turns = Turns([timer, DeviceTimer(call, queue)], QUICK, cold=True)
    assert turns.round() == pytest.approx(np.log([3e5, 3e5]))
    assert set(queue.flushed) == {2 * queue.facts.l2_bytes}


def test_a_row_names_the_gpu_and_its_clock(gpu: FakeGpu) -> None:
    (row,) = rows(plan())
    assert (row.state, row.evidence, row.clock) == ("timed", "measured", "events"), row.reason
    assert (row.device, row.threads, row.mhz, row.mhz_source) == (NAME, 0, (1755.0, 1755.0), "nvml")
    assert row.median_us == pytest.approx(5.0) and row.ok and row.ceiling_us is not None


def test_a_time_below_the_ceiling_of_the_gpu_is_impossible(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def slow(refresh: bool = False) -> Any:
        asked.append(refresh)
        return fake_ceilings(1e-3)

    monkeypatch.setattr(device_ceilings, "get", slow)
    (row,) = rows(plan(), Ceiling(tried=True, reason="the processor's are not asked for"))
    assert row.state == "impossible" and "below" in row.reason
    assert asked == [False, True], "looked again before saying so"


def test_the_command_says_why_a_gpu_has_no_ceilings(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(refresh: bool = False) -> Any:
        raise Unavailable("the ceilings of it cannot be measured: out of memory")

    monkeypatch.setattr(device_ceilings, "get", none)
    command = "bench gemm --backend triton --target cuda:sm_90 --dtype fp32 --shape M=4,N=16,K=16"
    assert main([*command.split(), "--seconds", "0.3"]) == 0
    assert "no ceilings: the ceilings of it cannot be measured: out of memory" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("against", ["torch", "b_layout=KN"])
def test_a_peer_is_timed_by_the_same_events(gpu: FakeGpu, against: str) -> None:
    gpu.call_ns, gpu.queue.launch_ns = 2_000_000.0, 1_000_000.0
    (row,) = rows(plan(against=[against]))
    assert row.state == "timed", row.reason
    assert row.clock == "events" and row.peer_median_us is not None
    # torch's call does not move this clock; a launch of our own does.
    assert row.peer_median_us == pytest.approx(1000.0 if against == "torch" else 3000.0)


def test_a_peer_that_breaks_on_a_gpu_is_a_row_with_its_reason(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*args: Any) -> None:
        raise RuntimeError("Expected all tensors to be on the same device\nand more")

    monkeypatch.setattr(torch.nn.functional, "linear", breaks)
    monkeypatch.setattr("tilewright.kernels.gemm.peers.tried", lambda call: call)
    (row,) = rows(plan(against=["torch"]))
    assert row.state == "unavailable"
    assert row.reason == "torch fails here: Expected all tensors to be on the same device"


Reads = Mapping[str, torch.Tensor | None]
Writes = Mapping[str, torch.Tensor]


def answers_once(work: Work) -> Work:
    """Computes for the first inputs, then gives that answer again."""
    kept: dict[str, torch.Tensor] = {}

    def cheat(reads: Reads, writes: Writes) -> None:
        if not kept:
            work(reads, writes)
            kept.update({k: v.clone() for k, v in writes.items()})
        for name, value in kept.items():
            writes[name].copy_(value)

    return cheat


def stops_writing(work: Work) -> Work:
    """Right for a while, then does nothing."""
    calls = iter(range(10**9))

    def cheat(reads: Reads, writes: Writes) -> None:
        if next(calls) < 2:
            work(reads, writes)

    return cheat


def changes_an_input(work: Work) -> Work:
    """Leaves something else in the memory it reads."""

    def cheat(reads: Reads, writes: Writes) -> None:
        work(reads, writes)
        value = reads["a"]
        assert value is not None
        value[0, 0] += 1

    return cheat


@pytest.mark.parametrize("cheat", [answers_once, stops_writing, changes_an_input])
@pytest.mark.parametrize("against", [(), ("torch",)])
def test_a_kernel_that_cheats_gets_no_time(gpu: FakeGpu, cheat: Any, against: Any) -> None:
    gpu.spoil = cheat
    (row,) = rows(plan(against=against))
    assert row.state == "wrong" and row.median_us is None
    expected = "changed its input 'a'" if cheat is changes_an_input else "while it was timed"
    assert expected in row.reason


def test_a_kernel_that_replaces_the_timer_gets_no_time(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swaps(work: Work) -> Work:
        def cheat(reads: Reads, writes: Writes) -> None:
            work(reads, writes)
            monkeypatch.setattr(DeviceTimer, "once", lambda self: None)

        return cheat

    gpu.spoil = swaps
    (row,) = rows(plan())
    assert row.state == "wrong" and "DeviceTimer.once was replaced" in row.reason


def test_what_is_changed_in_place_is_judged_by_a_call_of_its_own(gpu: FakeGpu) -> None:
    """A page that closes is coded from rows that the call itself overwrites."""
    kv_write = family("kv_write")
    precision = kv_write.spec.precision("fp32-kv4")
    cases = [
        case
        for case in kv_write.spec.check_cases(precision, "host")
        if case.memory == "dense" and 0 not in case.sizes.values()
    ]
    found = list(
        rows(plan(families=[kv_write], dtypes=[precision.name], sizes=None, cases=cases[:3]))
    )
    assert len(found) == 3
    for row in found:
        assert row.state == "timed", row.reason


def test_tuning_times_by_the_same_events(gpu: FakeGpu) -> None:
    gemm = family("gemm")
    case = gemm.spec.case({"M": 4, "N": 16, "K": 16}, "fp32", {})
    launch = MeasuredTime(gemm, case, SM_90, gpu).checker.run(gemm.spec.default_config(SM_90))[0]
    timer = timer_of(launch)
    assert isinstance(timer, DeviceTimer)
    assert timer.sample(3, 4, 0) == pytest.approx(np.full(3, 5_000.0))


def test_a_config_is_valued_by_those_events(gpu: FakeGpu) -> None:
    pytest.importorskip("triton", reason="the gate looks at the compiled binary")
    gemm = family("gemm")
    case = gemm.spec.case({"M": 4, "N": 16, "K": 16}, "fp32", {})
    outcome = MeasuredTime(gemm, case, SM_90, gpu).evaluate(
        gemm.spec.default_config(SM_90), lambda stage: nullcontext()
    )
    assert outcome.value == pytest.approx(5.0), outcome
    assert outcome.details["clock"] == "events"
