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
from tilewright.errors import Refused
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


def one_ulp_scale(c: torch.Tensor) -> None:
    c.mul_(1.02)


def forget_last_row(c: torch.Tensor) -> None:
    c[-1].fill_(math.nan)


def swap_columns(c: torch.Tensor) -> None:
    c[:, [0, 1]] = c[:, [1, 0]].clone()


def wrong_tail(c: torch.Tensor) -> None:
    c[-1, -1] += c.abs().max()


def shift(c: torch.Tensor) -> None:
    c.copy_(c.roll(1, 0))


@pytest.mark.parametrize("fault", [one_ulp_scale, forget_last_row, swap_columns, wrong_tail, shift])
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
    refused = [r for r in rows if "refuses" in r.reason]
    assert all(r.ok for r in rows if r not in refused)
    assert {(r.backend, r.dtype) for r in refused} <= {
        ("ascendc", "int8->fp32"),
        ("ascendc", "int8->bf16"),
    }
