"""A family's Triton kernel, interpreted: one case checked as `tilewright check` does, or its bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tilewright import check
from tilewright.backends import backend
from tilewright.inputs import Inputs, draw, make_outputs
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

if TYPE_CHECKING:
    import torch

    from tilewright.cases import Case

ON = target("cuda:sm_80")  # the target that is interpreted where there is no GPU


def row(
    name: str,
    sizes: Mapping[str, int],
    precision: str,
    flags: Mapping[str, str],
    *,
    memory: str = "dense",
    config: Mapping[str, int] | None = None,
    seed: int = 0,
    inputs: Inputs | None = None,
) -> check.CheckRow:
    """The verdict on one case; `config` replaces fields of the default one."""
    found = family(name)
    case = found.spec.case(sizes, precision, flags, memory)
    chosen = Config({**found.spec.default_config(ON), **(config or {})})
    return check.run(check.Job(found, backend("triton"), ON, case, chosen, seed), inputs)


def outputs(
    case: Case, name: str, inputs: Inputs, config: Mapping[str, int] | None = None
) -> dict[str, torch.Tensor]:
    """What the kernel writes for these inputs."""
    found = family(name)
    written = make_outputs(found, case, inputs)
    chosen = {**found.spec.default_config(ON), **(config or {})}
    launch = found.module("triton").launch
    launch({**inputs.physical, **written}, case.flags, chosen, interpret=True)
    return dict(written)


__all__ = ["ON", "draw", "outputs", "row"]
