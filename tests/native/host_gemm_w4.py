"""gemm_w4 on the host at every level, those that the processor lacks emulated, case by case."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

from native import host_lib
from tilewright import native
from tilewright.backends.host import view
from tilewright.inputs import draw
from tilewright.kernels.gemm_w4.reference import gemm_w4
from tilewright.registry import family

Tensors = dict[str, torch.Tensor]


@cache
def emulated_library() -> ctypes.CDLL:
    units = [*host_lib.units_of("_host", emulate=True), *host_lib.units_of("gemm_w4", emulate=True)]
    name = "libtw-gemm_w4-emulated.so"
    lib = ctypes.CDLL(str(host_lib.build(name, units, ("-shared", "-Wl,--no-undefined"))))
    lib.tw_force_level.argtypes = [ctypes.c_char_p]
    return lib


class Kernel:
    """The function that `multiply` calls."""

    address = 0


def use_native(level: str | None) -> None:
    native.module().force_level(level)
    Kernel.address = native.host_function(family("gemm_w4"))


def use_emulated(level: str) -> None:
    emulated_library().tw_force_level(level.encode())
    function = emulated_library().tw_host_gemm_w4
    Kernel.address = ctypes.cast(function, ctypes.c_void_p).value or 0


def levels(emulated: bool = True) -> Iterator[str]:
    """Sets one level after the other: those this processor has, then those it lacks, emulated."""
    here = native.module().cpu_levels()
    for level in here:
        use_native(level)
        yield level
    for level in host_lib.LEVELS:
        if emulated and level not in here:
            use_emulated(level)
            yield level


def case_of(m: int, n: int, k: int, precision: str, **flags: Any) -> Any:
    group = int(flags.get("group", 32))
    sizes = {"M": m, "N": n, "K": k, "G": -(-k // group)}
    return family("gemm_w4").spec.case(sizes, precision, {n: str(v) for n, v in flags.items()})


def operands(case: Any, seed: int = 0) -> tuple[Tensors, Tensors]:
    """Logical and physical inputs of a case."""
    drawn = draw(family("gemm_w4"), case, seed)
    logical = {n: v for n, v in drawn.logical.items() if v is not None}
    return logical, {n: v for n, v in drawn.physical.items() if v is not None}


def multiply(
    case: Any, given: Tensors, c: torch.Tensor | None = None, threads: int = 1
) -> torch.Tensor:
    """One call of the host kernel."""
    spec = family("gemm_w4").spec
    if c is None:
        dtype = spec.dtype_of(spec.outputs[0], case).torch()
        c = torch.full((given["a"].shape[0], case.sizes["N"]), math.nan, dtype=dtype)
    views = [view(t.name, given[t.name]) for t in spec.inputs if t.name in given]
    attributes = {f.name: f.values.index(case.flags[f.name]) for f in spec.flags}
    native.module().prepare(Kernel.address, [*views, view("c", c)], attributes, threads).run()
    return c


def wanted(case: Any, logical: Tensors) -> torch.Tensor:
    return gemm_w4(**logical, case=case)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.uint8)
