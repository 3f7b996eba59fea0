"""Ways to cheat a benchmark, through the real `bench`: each is caught in words, and its honest twin passes.

See docs/cheats.md for the table.
"""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import cheaters
from fakes.cheaters import CHEATS, STALE, TWINS, Cheater, Install
from fakes.perf import no_ceilings, timed_with
from tilewright import native
from tilewright.inputs import draw, empty_outputs, from_logical, reference_outputs
from tilewright.numerics import Tolerance, compare
from tilewright.perf.bench import Plan, rows
from tilewright.perf.engine import Effort
from tilewright.perf.gate import Expected
from tilewright.perf.rows import BenchRow
from tilewright.perf.watch import Cheated, timer
from tilewright.perf.watch.memory import LiveInputs, bits
from tilewright.perf.watch.precision import lower_than_declared
from tilewright.perf.watch.scene import Scene
from tilewright.perf.watch.timer import WatchedTimer
from tilewright.registry import Family, families, family

pytestmark = pytest.mark.alone

SHAPE = {"M": 32, "N": 96, "K": 64}
EFFORT = Effort(width=0.5, seconds=0.1, fewest=3, warmup_s=0.005)


@pytest.fixture(scope="module", autouse=True)
def a_small_heap() -> Iterator[None]:
    """Each timing collects garbage first; what was there before these tests need not be looked at each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def bench(monkeypatch: pytest.MonkeyPatch, backend: Cheater) -> BenchRow:
    plan = Plan([family("gemm")], sizes=SHAPE, dtypes=["fp32"], threads=[1], effort=EFFORT)
    try:
        (row,) = timed_with(monkeypatch, backend, plan, no_ceilings())
    finally:
        cheaters.repair(backend)
    return row


@pytest.mark.parametrize("install", CHEATS, ids=lambda one: one.__name__)
def test_a_cheat_is_caught_and_named(monkeypatch: pytest.MonkeyPatch, install: Install) -> None:
    row = bench(monkeypatch, Cheater(install))
    assert (row.state, row.ok, row.median_us) == ("wrong", False, None)
    assert re.search(CHEATS[install], row.reason), row.reason


@pytest.mark.parametrize("install", TWINS, ids=lambda one: one.__name__)
def test_an_honest_twin_is_timed(monkeypatch: pytest.MonkeyPatch, install: Install) -> None:
    row = bench(monkeypatch, Cheater(install))
    assert (row.state, row.ok) == ("timed", True), row.reason
    assert row.median_us is not None and row.median_us > 0


def test_memory_of_an_earlier_launch_holds_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reused memory: the first launch works, the second gives what the first has left."""
    backend = Cheater(cheaters.reuses_memory)
    assert bench(monkeypatch, backend).state == "timed"
    row = bench(monkeypatch, backend)
    assert row.state == "wrong" and "is wrong, so it is not timed" in row.reason


def test_a_kernel_that_stores_the_public_answer_and_works_otherwise_gains_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seed replay with a way out: it passes, since no sample is on the public seed's inputs."""
    case = family("gemm").spec.case(SHAPE, "fp32")
    inputs = draw(family("gemm"), case, 0)
    a, b = inputs.logical["a"], inputs.logical["b"]
    assert a is not None and b is not None
    backend = Cheater(cheaters.replays_only_the_seed)
    backend.kept["public"] = (tuple(a.flatten()[:8].tolist()), a @ b)
    row = bench(monkeypatch, backend)
    worked, replayed = backend.kept["hits"]
    assert row.state == "timed", row.reason
    assert replayed == 1 and worked > row.samples


def sloppy(bound: float) -> Family:
    """gemm under a tolerance that lets a lower precision pass."""
    found = family("gemm")
    spec = replace(found.spec, tolerance=Tolerance(lambda spec, case: bound, "sloppy"))
    return replace(found, spec=spec)


def in_precision(dtype: torch.dtype | None) -> Install:
    """fp32 as it is declared (None), or by way of a lower type."""

    def install(stage: cheaters.Stage) -> cheaters.Run:
        def run() -> None:
            if dtype is None:
                stage.work()
            else:
                a, b = (v.to(dtype).to(torch.float32) for v in (stage.a, stage.b))
                torch.mm(a, b, out=stage.c)

        return run

    return install


@pytest.mark.parametrize(
    ("dtype", "named"),
    [
        (torch.bfloat16, "declares fp32 and has the error of bf16 inputs"),
        (torch.float16, "declares fp32 and has the error of fp16 or tf32 inputs"),
        (torch.float8_e4m3fn, "declares fp32 and has the error of fp8 inputs"),
        (None, ""),
    ],
    ids=str,
)
def test_a_lower_precision_is_caught_within_a_sloppy_tolerance(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype | None, named: str
) -> None:
    plan = Plan([sloppy(0.2)], sizes=SHAPE, dtypes=["fp32"], threads=[1], effort=EFFORT)
    (row,) = timed_with(monkeypatch, Cheater(in_precision(dtype)), plan, no_ceilings())
    assert named in row.reason
    assert row.state == ("wrong" if dtype else "timed"), row.reason


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8->fp16", "int8->int32"])
def test_honest_kernels_are_not_taken_for_a_lower_precision(precision: str) -> None:
    """The outputs of every precision of gemm, rounded once, under their own error model."""
    gemm = family("gemm")
    case = gemm.spec.case({"M": 16, "N": 64, "K": 256}, precision)
    inputs = draw(gemm, case, 3)
    want = reference_outputs(gemm, case, inputs)
    out = gemm.spec.dtype_of(gemm.spec.outputs[0], case)
    error = compare(want["c"].to(out.torch()), want["c"], 1.0).rel_err
    assert lower_than_declared(gemm, case, inputs, error, want) is None


class Machine:
    """A timer and clocks of a script: what the timer says, the system says, and processor time, of a call in ns."""

    clock = "python"

    def __init__(self, said: float, wall: float, cpu: float) -> None:
        self.said, self.wall, self.cpu = said, wall, cpu
        self.spent = 0.0

    def once(self) -> None:
        self.spent += 1

    def sample(self, count: int, batch: int, flush_bytes: int) -> Any:
        self.spent += count * batch
        return np.full(count, self.said)


@pytest.mark.parametrize(
    ("said", "wall", "cpu", "caught"),
    [
        (1e6, 1.02e6, 1e6, None),
        (1e5, 1e6, 1e6, "tampered with"),
        (2e6, 1e6, 1e6, "tampered with"),
        (1e6, 1e6, 1.9e6, "keeps 1.9 processors busy where its row says 1 threads"),
        (1e6, 1e6, 0.2e6, None),
    ],
)
def test_clocks_that_disagree_are_said(
    monkeypatch: pytest.MonkeyPatch, said: float, wall: float, cpu: float, caught: str | None
) -> None:
    machine = Machine(said, wall, cpu)
    monkeypatch.setattr(timer, "wall_ns", lambda: machine.spent * wall)
    monkeypatch.setattr(timer, "cpu_ns", lambda: machine.spent * cpu)
    monkeypatch.setattr(timer, "settle", lambda: None)
    # So long that no moment of the watch falls between two readings of the false clock.
    watched = WatchedTimer(machine, scene_of_gemm(), lambda *_: [], "a kernel", 1, 1e9)
    watched.sample(3, 1, 0)
    watched._read_clocks()
    if caught is None:
        watched._compare_clocks()
    else:
        with pytest.raises(Cheated, match=caught):
            watched._compare_clocks()


def scene_of_gemm() -> Scene:
    gemm = family("gemm")
    case = gemm.spec.case({"M": 4, "N": 8, "K": 8}, "fp32")
    live = LiveInputs(gemm, case, draw(gemm, case, 0))
    bases = live.make_base(draw(gemm, case, 1)), live.make_base(draw(gemm, case, 2), patches=0)
    scene = Scene(live, empty_outputs(gemm, case), bases)
    scene.begin()
    return scene


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    precision=st.sampled_from(["fp32", "bf16", "fp16", "int8->int32", "int8->bf16"]),
    layout=st.sampled_from(["KN", "NK", "panel16"]),
    memory=st.sampled_from(["dense", "padded"]),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 80)),
    steps=st.integers(0, 40),
    by_store=st.booleans(),
)
def test_changed_inputs_are_what_the_reference_gets(
    precision: str,
    layout: str,
    memory: str,
    sizes: tuple[int, int, int],
    steps: int,
    by_store: bool,
) -> None:
    """Whatever was changed, in any layout: physical memory is the laid-out logical inputs of that state."""
    gemm = family("gemm")
    named = dict(zip("MNK", sizes, strict=True))
    case = gemm.spec.case(named, precision, {"b_layout": layout}, memory)
    live = LiveInputs(gemm, case, draw(gemm, case, 0))
    base = live.make_base(draw(gemm, case, 1))
    live.set(base)
    if by_store:
        for stores in live.stores(steps):
            for address, value, width in stores:
                ctypes.memmove(address, value.to_bytes(width, "little"), width)
    else:
        for _ in range(steps):
            live.change()
    assert live.disturbed() is None
    wanted = from_logical(gemm, case, base.logical(live.mask).logical)
    for name, value in wanted.physical.items():
        got = live.live.physical[name]
        if value is None or got is None:
            assert value is None and got is None
        else:
            assert np.array_equal(bits(value), bits(got)), name


@pytest.mark.parametrize(
    "precision", ["fp32", "bf16", "fp16", "int8->int32", "int8->bf16", "int8->fp16"]
)
@pytest.mark.parametrize("sizes", [(1, 576, 1536), (256, 576, 576)], ids=str)
def test_a_stale_answer_shows_after_one_change(precision: str, sizes: tuple[int, int, int]) -> None:
    """One patch alters the right answer beyond the tolerance: else an answer from before would pass."""
    gemm = family("gemm")
    case = gemm.spec.case(dict(zip("MNK", sizes, strict=True)), precision)
    live = LiveInputs(gemm, case, draw(gemm, case, 0))
    base = live.make_base(draw(gemm, case, 1))
    live.set(base)
    before = reference_outputs(gemm, case, base.logical(0))["c"]
    live.change()
    after = reference_outputs(gemm, case, base.logical(live.mask))
    out = gemm.spec.dtype_of(gemm.spec.outputs[0], case).torch()
    expected = Expected(after, gemm.spec.tolerance.of(gemm.spec, case))
    assert not expected.judge({"c": before.to(out)}).ok


# The order of the enumeration in host.cpp, with what each is caught with; None is honest.
NATIVE = {
    "honest": None,
    "first calls": STALE,
    "pointers": STALE,
    "burst": STALE,
    "beyond": "wrote outside of its output 'y'",
    "inputs": "changed its input 'x'",
    "memo": "it remembers answers",
    "unpoisoned": STALE,
    "every other": STALE,
    "joined": None,
    "scratch": None,
}


@pytest.fixture(scope="module")
def native_cheats() -> Iterator[Family]:
    folder = Path(__file__).parent / "cheats" / "cheat_scale"
    if native.why_missing():
        pytest.skip(str(native.why_missing()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILEWRIGHT_FAMILIES", str(folder))
        families.cache_clear()
        yield family("cheat_scale")
    families.cache_clear()


@pytest.mark.parametrize("way", NATIVE)
def test_native_cheats_are_caught_and_honest_calls_timed(native_cheats: Family, way: str) -> None:
    """From compiled code, timed in C++: nothing of ours is on the stack, and the calls of a batch are 2 us long."""
    slow = 64 if way in ("memo", "honest") else 1
    plan = Plan(
        [native_cheats],
        backends=["host"],
        sizes={"R": 16, "C": 64},
        threads=[1],
        config={"cheat": list(NATIVE).index(way), "slow": slow},
        effort=EFFORT,
    )
    (row,) = rows(plan, no_ceilings())
    caught = NATIVE[way]
    if caught is None:
        assert (row.state, row.clock) == ("timed", "native"), row.reason
    else:
        assert row.state == "wrong" and re.search(caught, row.reason), row.reason


def test_the_page_names_every_cheat() -> None:
    page = (Path(__file__).parent.parent / "docs" / "cheats.md").read_text(encoding="utf-8")
    missing = [one.__name__ for one in CHEATS if f"`{one.__name__}`" not in page]
    missing += [way for way, caught in NATIVE.items() if caught and f"native `{way}`" not in page]
    assert not missing
