"""check through its Python interface: a backend that is wrong is caught, whatever way it is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tilewright import check, native, replay
from tilewright.backends import Launch, all_backends, backend
from tilewright.backends.reference import Reference
from tilewright.errors import Refused, UsageError
from tilewright.inputs import draw
from tilewright.registry import family
from tilewright.targets import ALL, target

GEMM = family("gemm")
CPU = target("cpu")


class Spoiled(Reference):
    """The reference with one planted fault."""

    def __init__(self, fault: Callable[[torch.Tensor], None]) -> None:
        self.fault = fault

    def prepare(self, *args, **kwargs) -> Launch:
        sound = super().prepare(*args, **kwargs)

        def run() -> None:
            sound.run()
            self.fault(sound.outputs["c"])

        return Launch(run, sound.outputs)


def two_percent_more(c: torch.Tensor) -> None:
    c.mul_(1.02)


def forget_last_row(c: torch.Tensor) -> None:
    c[-1].fill_(math.nan)


def swap_columns(c: torch.Tensor) -> None:
    c[:, [0, 1]] = c[:, [1, 0]].clone()


def wrong_tail(c: torch.Tensor) -> None:
    c[-1, -1] += c.abs().max()


def shift(c: torch.Tensor) -> None:
    c.copy_(c.roll(1, 0))


@pytest.mark.parametrize(
    "fault", [two_percent_more, forget_last_row, swap_columns, wrong_tail, shift]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8->fp16"])
def test_every_planted_fault_is_caught(fault, precision: str, tmp_path: Path) -> None:
    case = GEMM.spec.case({"M": 33, "N": 65, "K": 17}, precision)
    job = check.Job(GEMM, Spoiled(fault), CPU, case, GEMM.spec.default_config(CPU), seed=3)
    row = check.run(job, failures=tmp_path)
    assert not row.ok
    assert row.replay == f"tilewright check --replay {row.failure}"
    loaded, inputs = replay.load(Path(str(row.failure)))
    assert (loaded.case, loaded.config, loaded.seed) == (case, job.config, 3)
    fresh = draw(GEMM, case, 3)
    assert all(torch.equal(inputs.logical[k], v) for k, v in fresh.logical.items() if v is not None)


def test_seeds_give_other_inputs_and_the_same_ones_again() -> None:
    case = GEMM.spec.case({"M": 5, "N": 6, "K": 7}, "int8->fp32")
    first, again, other = (draw(GEMM, case, seed) for seed in (1, 1, 2))
    for name, value in first.logical.items():
        if value is not None:
            assert torch.equal(value, again.logical[name])
            assert not torch.equal(value, other.logical[name])
            assert (value != 0).any()


def test_a_refusal_is_a_row_with_the_reason() -> None:
    case = GEMM.spec.case({"M": 4, "N": 4, "K": 4}, "fp32", {"b_layout": "panel16"})
    where = target("cuda:sm_80")
    job = check.Job(GEMM, backend("triton"), where, case, GEMM.spec.default_config(where), seed=0)
    row = check.run(job)
    assert not row.ok
    assert "b_layout=panel16 is for host only" in row.reason
    with pytest.raises(Refused, match="panel16"):
        check.launch(job, draw(GEMM, case, 0))


def test_real_layers_pass_in_every_precision() -> None:
    import real_linear

    real_linear.main()


@pytest.mark.parametrize("name", [n for n, t in ALL.items() if t.kind == "ascend"])
def test_the_twin_and_the_limit_table_are_the_same_chip(name: str) -> None:
    from tilewright.ascendc.twin.runner import soc_parameters

    where = target(name)
    twin = soc_parameters(native.library("twin"), where.arch)
    for memory, size in twin["bytes"].items():
        assert where.limit(f"{memory.lower()}_bytes") == size
    assert twin["cube_cores"] == where.limit("aic_cores")
    assert twin["clock_mhz"] == where.limit("mhz")


def test_every_backend_that_can_run_is_checked_on_a_tail_shape() -> None:
    sizes = {"M": 19, "N": 37, "K": 45}
    rows = [
        check.run(job)
        for job in check.jobs([GEMM], targets=("cpu", "cuda:sm_80", "ascend:910b1"), sizes=sizes)
    ]
    assert {r.backend for r in rows} == set(all_backends())
    assert all(r.ok for r in rows)


class Crashing(Reference):
    """A backend whose kernel raises what broken code raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def prepare(self, *args, **kwargs) -> Launch:
        sound = super().prepare(*args, **kwargs)

        def run() -> None:
            raise self.error

        return Launch(run, sound.outputs)


@pytest.mark.parametrize(
    "error", [KeyError("tile"), ZeroDivisionError("division by zero"), AttributeError("no shape")]
)
def test_a_kernel_that_raises_fails_its_case_and_not_the_run(
    error: Exception, tmp_path: Path
) -> None:
    case = GEMM.spec.case({"M": 3, "N": 5, "K": 7})
    config = GEMM.spec.default_config(CPU)
    jobs = [
        check.Job(GEMM, one, CPU, case, config, seed=1) for one in (Crashing(error), Reference())
    ]
    broken, sound = check.run_all(jobs, tmp_path)
    assert sound.ok
    assert not broken.ok and broken.decided
    assert broken.reason == f"{type(error).__name__}: {error}"
    assert replay.load(Path(str(broken.failure)))[0].case == case


@pytest.mark.parametrize("part", ["reference", "inputs"])
def test_a_broken_reference_or_draw_fails_its_case(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given) -> None:
        raise AssertionError("boom")

    case = GEMM.spec.case({"M": 3, "N": 5, "K": 7})
    job = check.Job(GEMM, Reference(), CPU, case, GEMM.spec.default_config(CPU), seed=1)
    names = {"reference": "reference_outputs", "inputs": "draw"}
    monkeypatch.setattr(f"tilewright.check.{names[part]}", broken)
    monkeypatch.setattr(f"tilewright.inputs.{names[part]}", broken)
    row = check.run(job, failures=tmp_path)
    assert (row.ok, row.decided, row.reason) == (False, True, "AssertionError: boom")


def test_a_config_for_some_targets_leaves_the_others_out() -> None:
    sizes = {"M": 4, "N": 4, "K": 4}
    found = list(check.jobs([GEMM], dtypes=("fp32",), sizes=sizes, config={"tile_m": 48}))
    assert {j.target.name for j in found} == {"cpu"}
    with pytest.raises(UsageError, match=r"tile_m '17'.*\(of gemm on cpu\)"):
        list(check.jobs([GEMM], dtypes=("fp32",), sizes=sizes, config={"tile_m": 17}))


def test_the_replay_command_carries_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEWRIGHT_FAMILIES", "/a folder/families")
    monkeypatch.chdir(tmp_path)
    text = replay.command(Path("left here.safetensors"))
    assert text == (
        "TILEWRIGHT_FAMILIES='/a folder/families' "
        f"tilewright check --replay '{tmp_path / 'left here.safetensors'}'"
    )


def test_a_failure_of_another_level_is_not_replayed_at_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    case = GEMM.spec.case({"M": 3, "N": 5, "K": 7})
    job = check.Job(GEMM, Spoiled(shift), CPU, case, GEMM.spec.default_config(CPU), seed=3)
    here = replay.host()
    elsewhere = dataclasses.replace(here, isa="another level")
    monkeypatch.setattr(replay, "host", lambda: elsewhere)
    monkeypatch.setattr(Spoiled, "name", "host")
    row = check.run(job, failures=tmp_path)
    monkeypatch.setattr(replay, "host", lambda: here)
    with pytest.raises(UsageError, match="set TILEWRIGHT_ISA=another level"):
        replay.load(Path(str(row.failure)))


def test_real_inputs_are_kept_and_drawn_ones_are_not_when_large(tmp_path: Path) -> None:
    from safetensors import safe_open

    from tilewright.inputs import from_logical

    case = GEMM.spec.case({"M": 1600, "N": 1, "K": 1600})
    job = check.Job(GEMM, Spoiled(shift), CPU, case, GEMM.spec.default_config(CPU), seed=3)
    inputs = draw(GEMM, case, 3)
    real = from_logical(GEMM, case, inputs.logical)
    for given, kept in ((inputs, False), (real, True)):
        row = check.run(job, given, tmp_path)
        with safe_open(str(row.failure), "pt") as file:
            assert ("input.a" in file.keys()) is kept  # noqa: SIM118
        assert torch.equal(replay.load(Path(str(row.failure)))[1].logical["a"], inputs.logical["a"])


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 16, 2), (1, 9), (0, 4)])
def test_a_view_moves_with_its_gaps(shape: tuple[int, ...]) -> None:
    """What `.cuda()` alone would not do: the moved view has the same strides over other memory."""
    from tilewright.backends.triton import with_gaps
    from tilewright.inputs import padded

    view = padded(torch.randn(shape), blocked=len(shape) - 2)
    moved = with_gaps(view, torch.Tensor.clone)
    assert torch.equal(moved, view)
    assert moved.stride() == view.stride() or view.numel() == 0
    assert moved.data_ptr() != view.data_ptr() or view.numel() == 0
    if view.numel() and not view.is_contiguous():
        room = moved.as_strided((1 + view.stride(0),), (1,))
        assert room.isnan().any(), "the gaps came along"


def test_outputs_on_a_device_are_compared_on_the_cpu() -> None:
    """Without a GPU the meta device shows that the output is moved before it is read."""
    from tilewright.numerics import compare

    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        compare(torch.empty(3, device="meta"), torch.zeros(3, dtype=torch.float64), 0.1)
