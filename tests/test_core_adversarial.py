"""Adversarial draws: right kernels pass them under the same tolerance, and planted wrong ones do not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autotune_doubles import Misbehaving, gemm_case, small_family
from tilewright import adversarial
from tilewright.autotune.trials import Stage
from tilewright.autotune.valuing.checked import Checker
from tilewright.autotune.valuing.measured import MeasuredTime
from tilewright.backends.base import Backend, Launch
from tilewright.backends.host import Host
from tilewright.cases import Case
from tilewright.inputs import Inputs, empty_outputs
from tilewright.registry import Family, family
from tilewright.space import Config
from tilewright.spec import Ref
from tilewright.targets import CPU, Target, target

GEMM = family("gemm")
NAMES = ("wide", "cancel", "needle", "ends")
SIZES = {"M": 33, "N": 17, "K": 129}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))


def cases(precision: str) -> list[Case]:
    own = GEMM.spec.precision(precision)
    found = {
        str(c): c
        for c in GEMM.spec.check_cases(own, "host")
        if 0 < GEMM.spec.flops_of(c) <= 7e5 and not Host().refuses(GEMM, c, DEFAULT, CPU)
    }
    return list(found.values())


DEFAULT = GEMM.spec.default_config(CPU)


@pytest.mark.parametrize("precision", [p.name for p in GEMM.spec.precisions])
def test_right_kernels_pass_every_draw_of_every_precision(precision: str) -> None:
    seen = 0
    for case in cases(precision):
        checker = Checker(GEMM, case, CPU, Host(), 3)
        assert tuple(name for name, _, _ in checker.hard) == NAMES
        _, failure = checker.run(DEFAULT)
        assert failure is None, (case, failure)
        seen += 1
    assert seen >= 3


def test_the_twin_passes_them_too() -> None:
    where = target("ascend:910b1")
    from tilewright.backends.ascendc import AscendC

    for precision in ("fp16", "bf16", "fp32"):
        case = GEMM.spec.case({"M": 17, "N": 33, "K": 65}, precision)
        if AscendC().refuses(GEMM, case, GEMM.spec.default_config(where), where):
            continue
        _, failure = Checker(GEMM, case, where, AscendC(), 1).run(GEMM.spec.default_config(where))
        assert failure is None, (precision, failure)


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_finite_repeatable_and_what_they_say(name: str) -> None:
    for precision in GEMM.spec.precisions:
        case = GEMM.spec.case(SIZES, precision.name)
        one = adversarial.draw_adversarial(GEMM, case, name, 5)
        two = adversarial.draw_adversarial(GEMM, case, name, 5)
        a = one.logical["a"]
        assert a is not None and not one.drawn
        assert torch.equal(a, two.logical["a"])  # type: ignore[arg-type]
        assert torch.isfinite(a.double()).all()
        wide = a.double()
        if name == "needle":
            assert ((wide != 0).sum(dim=1) == 1).all()
            assert wide[0, -1] == 1 and wide[1, 0] == 1
        if name == "cancel":
            left = (wide @ one.logical["b"].double()).abs().max()  # type: ignore[union-attr]
            assert wide.abs().max() == 64 and left < 64 * 8
        if name == "ends" and precision.name == "int8->int32":
            assert {float(v) for v in wide.unique()} >= {-128.0, 127.0}


class Planted(Misbehaving):
    """Computes gemm from operands that a config of `stages` 1 has tampered with."""

    def __init__(self, tamper: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.tamper = tamper

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
    ) -> Launch:
        outputs = empty_outputs(family, case)
        a, b = (inputs.logical[n] for n in "ab")
        assert a is not None and b is not None

        def run() -> None:
            left = self.tamper(a) if config["stages"] == 1 else a
            outputs["c"].copy_((left.double() @ b.double()).to(outputs["c"].dtype))

        return Launch(run, outputs)


def clamped(a: torch.Tensor) -> torch.Tensor:
    """As a kernel that saturates early: no normal draw comes near."""
    return a.clamp(-8, 8)


def flushed(a: torch.Tensor) -> torch.Tensor:
    """As a kernel that takes the exact zero for a padding mark and drops the row's last term with it."""
    out = a.clone()
    out[(a == 0).any(dim=1), -1] = 0
    return out


def repeated(a: torch.Tensor) -> torch.Tensor:
    """As a kernel that overflows an intermediate in half precision."""
    return a.to(torch.float16).to(a.dtype) if a.abs().max() > 1000 else a


@pytest.mark.parametrize("tamper", [clamped, flushed, repeated])
def test_a_planted_kernel_that_random_inputs_pass_is_caught(
    tmp_path: Path, tamper: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    found = small_family(tmp_path)
    backend: Backend = Planted(tamper)
    objective = MeasuredTime(found, gemm_case(), CPU, backend)
    wrong, right = (Config(tile_m=32, tile_n=32, tile_k=32, stages=s) for s in (1, 2))
    _, lenient = objective.checker.run(wrong, hard=False)
    assert lenient is None, "the random draw was to let it pass"
    outcome = objective.evaluate(wrong, lambda stage: nullcontext())
    assert outcome.stage is Stage.CHECK
    assert "right on normal inputs and wrong on" in outcome.reason
    assert Path(outcome.details["failure"]).is_file()
    assert objective.evaluate(right, lambda stage: nullcontext()).value


def test_a_family_with_rules_of_its_own_for_inputs_has_none() -> None:
    spec = replace(GEMM.spec, make_inputs=Ref("reference:reference"))
    other = Family(spec, GEMM.folder, GEMM.package, str(GEMM.folder))
    assert adversarial.names(other, gemm_case()) == ()
    assert adversarial.names(GEMM, gemm_case()) == NAMES
