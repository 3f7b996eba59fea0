"""The static gate: drops what cannot be good, keeps all of the best, never the default, and knows when to relax."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_doubles import Misbehaving, gemm_case
from tilewright.autotune.trials import Outcome, Stage
from tilewright.autotune.valuing.gate import MOST_LOST, Facts, Gate, facts_of, sift
from tilewright.autotune.valuing.measured import MeasuredTime
from tilewright.autotune.valuing.static_score import StaticScore
from tilewright.backends.base import Launch
from tilewright.backends.triton import Triton
from tilewright.cases import Case
from tilewright.inputs import Inputs
from tilewright.perf.recorded import Recording, read
from tilewright.registry import Family, family
from tilewright.space import Config
from tilewright.targets import chip, target

SPACES = Path(__file__).parent / "data" / "spaces"
FINE = Facts(regs=64, spill_bytes=0, shared_bytes=1024, threads=128, occupancy=0.5)
SPILLS = Facts(regs=255, spill_bytes=16, shared_bytes=1024, threads=128, occupancy=0.5)
THIN = Facts(regs=64, spill_bytes=0, shared_bytes=90_000, threads=64, occupancy=0.1)


@pytest.fixture(scope="module")
def recorded() -> Recording:
    return read(SPACES / "ktt-convolution-RTX3090.json.gz")


def test_the_gate_drops_a_sixth_of_a_recorded_space_and_none_of_the_best(
    recorded: Recording,
) -> None:
    worked = np.isfinite(recorded.times_ms)
    facts = list(facts_of(recorded))
    assert all(f is not None for f, ok in zip(facts, worked, strict=True) if ok)
    passes = np.array(sift(facts).passes)
    assert np.mean(~passes[worked]) >= 0.15
    best = np.argsort(recorded.times_ms)[: math.ceil(0.01 * worked.sum())]
    assert passes[best].all()


def test_occupancy_of_a_recording_follows_from_the_published_limits(recorded: Recording) -> None:
    """48 warps, 65,536 registers, 100 KiB of shared memory: 4 blocks of 256 threads with 64 registers are 32 warps."""
    limits = chip(recorded.device)
    assert limits and limits.arch == "sm_86"
    assert Facts.of_launch(limits, 64, 0, 1024, 256).occupancy == pytest.approx(32 / 48)
    assert Facts.of_launch(limits, 32, 0, 49 * 1024, 128).occupancy == pytest.approx(8 / 48)
    assert "registers per block" in Facts.of_launch(limits, 128, 0, 0, 1024).error


@pytest.mark.parametrize(
    ("device", "arch"),
    [
        ("NVIDIA GeForce RTX 2080 Ti", "sm_75"),
        ("NVIDIA RTX A4000", "sm_86"),
        ("NVIDIA A100-PCIE-40GB", "sm_80"),
        ("Tesla V100-SXM2-16GB", "sm_70"),
        ("GeForce GTX 1070", "sm_61"),
        ("AMD Radeon PRO W6600", None),
    ],
)
def test_chips_are_known_by_name(device: str, arch: str | None) -> None:
    found = chip(device)
    assert (found.arch if found else None) == arch


def test_a_recording_without_facts_passes_whole() -> None:
    space = read(SPACES / "convolution-A100.json.gz")
    assert all(sift(list(facts_of(space))).passes)


def test_on_a_chip_whose_limits_are_not_known_spills_still_count(recorded: Recording) -> None:
    facts = list(facts_of(replace(recorded, device="A Chip of Tomorrow")))
    assert all(f is None or f.occupancy is None for f in facts)
    dropped = [r for r in sift(facts).reasons if r]
    assert len(dropped) == 596 and all("spill" in r for r in dropped)


def test_what_cannot_run_never_passes_not_even_the_default() -> None:
    where = target("ascend:910b1")
    full = Facts.of_twin({"UB": where.limit("ub_bytes") + 1, "L1": 10}, where)
    default = Config(tile_m=16)
    gate = Gate(where, default)
    assert "ub_bytes" in gate.judge(default, full)
    assert "no such register" in gate.judge(default, Facts(error="no such register"))
    assert gate.judge(default, Facts.of_twin({"UB": 100}, where)) == ""


def test_the_default_is_never_dropped_for_being_unpromising() -> None:
    default, other = Config(tile_m=16), Config(tile_m=32)
    gate = Gate(None, default)
    assert gate.judge(default, SPILLS) == ""
    assert "spill" in gate.judge(other, SPILLS)
    assert "occupancy 0.10" in gate.judge(other, THIN)
    assert gate.judge(other, FINE) == ""
    # Nor is what untuned calls get.
    both = Gate(None, default, other)
    assert both.judge(default, SPILLS) == both.judge(other, SPILLS) == ""
    assert "spill" in both.judge(Config(tile_m=64), SPILLS)


def test_where_the_clock_decides_only_what_cannot_run_is_dropped() -> None:
    """On an H100 the rules dropped 34 of 36 configs of attention, for 8 bytes of spill some of them."""
    gate = Gate(None, None, timed=True)
    for place in range(30):
        assert gate.judge({"tile_m": place}, (SPILLS, THIN)[place % 2]) == ""
    assert "no such register" in gate.judge({}, Facts(error="no such register"))
    assert gate.remark == ""


def test_a_rule_that_would_lose_most_of_a_space_relaxes_with_a_remark() -> None:
    thin = sift([THIN] * 8 + [FINE] * 2)
    assert all(thin.passes) and "occupancy" in thin.remark
    mixed = sift([THIN] * 7 + [SPILLS] + [FINE] * 2)
    assert [bool(r) for r in mixed.reasons] == [False] * 7 + [True] + [False] * 2
    assert "spill" in sift([SPILLS] * 9 + [FINE]).remark
    assert sift([THIN] * 2 + [FINE] * 8).remark == ""
    gate = Gate(None, None)
    dropped = [bool(gate.judge({"tile_m": i}, THIN)) for i in range(30)]
    assert all(dropped[:9]) and not any(dropped[9:]) and gate.remark


_FACTS = st.builds(
    Facts,
    spill_bytes=st.sampled_from([0, 0, 0, 8]),
    occupancy=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    error=st.sampled_from(["", "", "", "it would fail at launch"]),
)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.none() | _FACTS, min_size=1, max_size=60), st.data())
def test_of_what_can_run_at_least_two_fifths_pass_and_the_default_always(
    facts: list[Facts | None], data: st.DataObject
) -> None:
    default = data.draw(st.integers(0, len(facts) - 1))
    found = sift(facts, default)
    able = [p for f, p in zip(facts, found.passes, strict=True) if f is None or not f.error]
    assert sum(able) >= (1 - MOST_LOST) * len(able) - 1e-9
    for place, fact in enumerate(facts):
        if fact is not None and fact.error:
            assert found.reasons[place] == fact.error
        elif fact is None or place == default:
            assert found.passes[place]


def test_planned_hivm_gives_its_peaks_and_what_did_not_fit() -> None:
    from tilewright.aot.ascend import LoweredKernel

    def lowered(**fields: object) -> LoweredKernel:
        base = {"family": "gemm", "target": "ascend:910b1", "precision": "fp16", "flags": {}}
        return LoweredKernel(**base, config={}, **fields)  # type: ignore[arg-type]

    gate = Gate(target("ascend:910b1"), None)
    fits = Facts.of_plan(lowered(ok=True, ub_bytes=0, l1_bytes=4096, l0c_bytes=2048))
    assert fits.details() == {"ub_bytes": 0, "l1_bytes": 4096, "l0c_bytes": 2048}
    assert gate.judge({}, fits) == ""
    assert "cbuf overflow" in gate.judge(
        {}, Facts.of_plan(lowered(ok=False, error="cbuf overflow"))
    )


@pytest.fixture
def spilling(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A config whose binary, a real one for sm_80, is said to spill; every other compiles as it does."""
    pytest.importorskip("triton", reason="binaries come from Triton's compiler")
    from tilewright import aot

    compiled = aot.compile_config
    default = family("gemm").spec.default_config(target("cuda:sm_80"))
    marked = Config({**default, "num_warps": 2})

    def compile_config(module: Any, *args: Any, **options: Any) -> aot.CompiledKernel:
        found = compiled(module, *args, **options)
        return replace(found, spill_bytes=64) if args[2] == marked else found

    monkeypatch.setattr(aot, "compile_config", compile_config)
    return marked


def test_a_gpu_that_is_present_is_gated_by_the_binary_it_will_run(spilling: Config) -> None:
    class Present(Misbehaving):
        name = "triton"

        def prepare(
            self, family: Family, case: Case, inputs: Inputs, config: Config, *rest: Any
        ) -> Launch:  # type: ignore[override]
            return super().prepare(family, case, inputs, Config({**config, "stages": 1}), *rest)

    gemm, where = family("gemm"), target("cuda:sm_80")
    objective = MeasuredTime(gemm, gemm_case(), where, Present())
    # A spill goes to the clock, with what is known; what the GPU cannot hold goes nowhere.
    found = objective.evaluate(spilling, lambda stage: nullcontext())
    assert found.value and found.details["spill_bytes"] == 64, found
    large = {"tile_m": 128, "tile_n": 256, "tile_k": 128, "num_stages": 5}
    huge = Config({**gemm.spec.default_config(where), **large})
    lost = objective.evaluate(huge, lambda stage: nullcontext())
    assert lost.stage is Stage.GATE and "shared" in lost.reason, lost
    good = objective.evaluate(gemm.spec.default_config(where), lambda stage: nullcontext())
    assert good.value and good.details["regs"] > 0 and good.details["size_bytes"] > 1000
    assert objective.sizes(("time", "size"))["size"] == "compiled"


def test_the_static_score_is_gated_by_the_same_rule(spilling: Config) -> None:
    gemm, where = family("gemm"), target("cuda:sm_80")
    objective = StaticScore(gemm, gemm_case(), where, Triton())
    found = objective.evaluate(spilling, lambda stage: nullcontext())
    assert found.stage is Stage.GATE and "64 bytes of registers spill" in found.reason
    good = objective.evaluate(gemm.spec.default_config(where), lambda stage: nullcontext())
    assert good.value and good.details["memory_bytes"] == good.details["shared_bytes"]


@given(
    st.lists(
        st.sampled_from([FINE, SPILLS, THIN, replace(FINE, peaks={"ub_bytes": 8})]), max_size=40
    ),
    st.data(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_gate_that_recalls_judges_like_the_one_that_went_on(
    seen: list[Facts], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(seen)))
    went_on, first, resumed = Gate(None, None), Gate(None, None), Gate(None, None)
    expected = [went_on.judge(None, f) for f in seen]
    kept = []
    for facts in seen[:cut]:
        reason = first.judge(None, facts)
        kept.append(
            Outcome.failed(Stage.GATE, reason, **facts.details())
            if reason
            else Outcome.ok(1.0, **facts.details(), binary_bytes=7)
        )
    resumed.recall(kept)
    assert [resumed.judge(None, f) for f in seen[cut:]] == expected[cut:]
    assert resumed.rule == went_on.rule
