"""What Triton kernels over the rows of a matrix share: their arguments and their compiled form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, KernelArg, Requirement, argument
from tilewright.errors import unknown

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def check_precision(family: str, precision: str) -> None:
    """UsageError for what is no float type."""
    if precision not in BYTES:
        raise unknown(f"precision of triton {family}", precision, list(BYTES))


def options(config: Mapping[str, int]) -> dict[str, int]:
    """What the compiler takes of a config."""
    return {name: config[name] for name in ("num_warps", "num_stages") if name in config}


def pointer(name: str, kind: str, aligned: bool) -> KernelArg:
    """The address of a tensor."""
    return argument(name, f"*{kind}", f"data:{name}", 16 if aligned else 1)


def row_stride(name: str, step: int) -> KernelArg:
    """`stride_<name>`: from one row of a tensor to the next, in elements."""
    return argument(f"stride_{name}", "int64", f"stride:{name}:0", step)


def source(
    family: str,
    fn: Any,
    precision: str,
    flags: Mapping[str, str],
    config: Mapping[str, int],
    target: str,
    args: tuple[KernelArg, ...],
    constexprs: Mapping[str, Any],
    grid: str,
    contiguous: tuple[str, ...],
    **more: Any,
) -> AotSource:
    """A binary that takes rows of any stride; `contiguous` names the dims of stride 1, such as `x:1`."""
    compiler = options(config) | dict(more.pop("compiler", {}))
    return AotSource(
        family=family,
        fn=fn,
        precision=precision,
        flags=dict(flags),
        config=dict(config),
        target=target,
        args=args,
        constexprs=dict(constexprs),
        options={} if target.startswith("ascend:") else compiler,
        grid=Grid(grid),
        requirements=tuple(Requirement(f"stride:{one}", "equals", 1) for one in contiguous),
        **more,
    )
