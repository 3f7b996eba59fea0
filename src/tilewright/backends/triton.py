"""The triton backend: interpreted on this machine, compiled ahead of time for GPUs, run where one is;
lowered for Ascend where the ascend-ir toolchain is.

A family's `triton.py` offers `launch(tensors, flags, config, interpret=)` and
`aot(precision, flags, config, target)`; see `tilewright.aot` and `tilewright.interpret`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright import toolchains
from tilewright.backends.base import Backend, Cell, Launch, OnDevice, State
from tilewright.errors import Refused, Unavailable
from tilewright.inputs import Inputs, make_outputs
from tilewright.targets import ALL

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.spec import Precision
    from tilewright.targets import Target

NO_TRITON = "triton is not installed; `pip install triton==3.8.0` brings it"
# The target whose config the interpreter runs: the interpreter itself has no architecture.
INTERPRETED = "cuda:sm_80"
ASCEND_IR = "ascend-ir"
PLANNED = "lowered to planned HIVM for static facts; a binary needs hivmc, which only CANN has"


@cache
def installed() -> bool:
    """Whether triton can be imported (without importing it)."""
    return importlib.util.find_spec("triton") is not None


@cache
def device_present(kind: str) -> bool:
    """Whether the driver of a kind of GPU has a device node here; cheap, loads nothing."""
    nodes = {"cuda": "/dev/nvidia0", "hip": "/dev/kfd"}
    return Path(nodes[kind]).exists() if kind in nodes else False


@cache
def device_arch() -> str | None:
    """The architecture torch sees, such as `sm_90` or `gfx942`; None without a device. Imports torch."""
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    if torch.version.hip:
        return str(properties.gcnArchName).split(":")[0]
    return f"sm_{properties.major}{properties.minor}"


_ASCEND_THERE: list[bool] = []


def ascend_missing() -> str | None:
    """Why nothing can be lowered for Ascend here; None if it can, which is looked up until it is so."""
    if _ASCEND_THERE:
        return None
    missing = toolchains.why_missing(toolchains.toolchain(ASCEND_IR))
    if missing is None:
        _ASCEND_THERE.append(True)
    return missing


def with_gaps(view: torch.Tensor, move: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """A view moved together with the memory between its elements: `.cuda()` alone would make it dense."""
    if view.numel() == 0 or view.is_contiguous():
        return move(view)
    span = 1 + sum((n - 1) * s for n, s in zip(view.shape, view.stride(), strict=True))
    flat = view.as_strided((span,), (1,))
    return move(flat).as_strided(view.shape, view.stride())


class Triton(Backend):
    """`sm_80` cells are interpreted where there is no GPU, the other architectures compile, as Ascend
    does where its toolchain is installed."""

    name = "triton"
    check_flops = 3.0e7

    def targets(self) -> tuple[str, ...]:
        ascend = (name for name, one in ALL.items() if one.kind == "ascend")
        return ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942", *ascend)

    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        if not family.has("triton.py"):
            return self._cell(
                family, target, precision, State.ABSENT, "the family has no triton.py"
            )
        if not installed():
            return self._cell(family, target, precision, State.ABSENT, NO_TRITON)
        if target.kind == "ascend":
            missing = family.spec.unlowered or ascend_missing()
            if missing:
                return self._cell(family, target, precision, State.ABSENT, missing)
            return self._cell(family, target, precision, State.COMPILE, PLANNED)
        if device_present(target.kind) and device_arch() == target.arch:
            return self._cell(family, target, precision, State.RUN)
        found = device_arch() if device_present(target.kind) else None
        here = f"the GPU here is {found}" if found else "no such GPU here"
        if target.name == INTERPRETED:
            reason = f"{here}: interpreted for correctness, compiled for static facts"
            return self._cell(family, target, precision, State.INTERPRET, reason)
        return self._cell(
            family, target, precision, State.COMPILE, f"{here}: compiled for static facts"
        )

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
    ) -> Launch:
        reason = self.refuses(family, case, config, target)
        if reason:
            raise Refused(f"triton refuses {family.name} {case}: {reason}")
        cell = self.cell(family, target, family.spec.precision(case.precision))
        if cell.state is State.COMPILE:
            raise Unavailable(
                f"no {target.name} device here; `tilewright compile {family.name}` gives static facts"
            )
        if cell.state is State.ABSENT:
            raise Unavailable(cell.reason)
        launch = family.module("triton").launch
        outputs = make_outputs(family, case, inputs)
        interpret = cell.state is State.INTERPRET
        if interpret:
            tensors = {**inputs.physical, **outputs}

            def run() -> None:
                launch(tensors, case.flags, config, interpret=True)

            return Launch(run, outputs)
        return self._on_device(launch, case, inputs, outputs, config)

    @staticmethod
    def _on_device(
        launch: Callable[..., None],
        case: Case,
        inputs: Inputs,
        poisoned: Mapping[str, torch.Tensor],
        config: Config,
    ) -> Launch:
        import torch

        outputs = {k: with_gaps(v, torch.Tensor.cuda) for k, v in poisoned.items()}
        given = {
            k: None if v is None else with_gaps(v, torch.Tensor.cuda)
            for k, v in inputs.physical.items()
            if k not in outputs
        }
        tensors = given | outputs

        def enqueue() -> None:
            launch(tensors, case.flags, config, interpret=False)

        def run() -> None:
            enqueue()
            torch.cuda.synchronize()

        return Launch(run, outputs, device=OnDevice(enqueue, given))
