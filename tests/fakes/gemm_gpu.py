"""What each gemm binary must receive, told by the Triton kernel's own parameters and by what they mean.

Nothing here is read from a dispatch row: rows are what is tested.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tilewright.aot.compile import CompiledKernel, compile_config
from tilewright.kernels.gemm import triton as module
from tilewright.kernels.gemm.spec import SPEC
from tilewright.space import Config
from tilewright.targets import Target
from tilewright.targets import target as target_named

# Whole 16-byte rows of every dtype, and rows of none. Row pitches are larger, each by its own amount.
SIZES = {True: {"M": 100, "N": 160, "K": 320}, False: {"M": 97, "N": 161, "K": 323}}
PITCH = {True: {"a": 16, "b": 32, "c": 48}, False: {"a": 1, "b": 3, "c": 5}}


@dataclass(frozen=True, slots=True)
class Expected:
    """A call, the kernel compiled for just its case, and what that kernel must be started with."""

    call: Mapping[str, Any]
    kernel: CompiledKernel
    grid: list[int]
    block: list[int]
    parameters: list[str]


def every_launch(target: str, precisions: tuple[str, ...] = ()) -> Iterator[Expected]:
    """Each precision, combination of flags and alignment that triton serves."""
    where = target_named(target)
    config = SPEC.default_config(where)
    for precision in SPEC.precisions:
        if precisions and precision.name not in precisions:
            continue
        for flags in SPEC.flag_combinations(precision, "triton"):
            for aligned in (True, False):
                yield _expected(where, config, precision.name, flags, aligned)


def _expected(
    where: Target, config: Config, precision: str, flags: Mapping[str, str], aligned: bool
) -> Expected:
    kernel = compile_config(module, precision, flags, config, where.name, aligned=aligned)
    assert kernel.ok, kernel.error
    sizes = SIZES[aligned]
    case = SPEC.case(sizes, precision, flags)
    tensors: dict[str, dict[str, Any] | None] = {}
    for number, tensor in enumerate(SPEC.tensors):
        if not tensor.present(case):
            tensors[tensor.name] = None
            continue
        shape = [sizes[str(size)] for size in tensor.layout(case).shape]
        pitch = shape[-1] + PITCH[aligned].get(tensor.name, 0)
        tensors[tensor.name] = {
            "data": 0x7F0000000000 + 0x1000000 * number,
            "dtype": SPEC.dtype_of(tensor, case).code,
            "shape": shape,
            "stride": [pitch, 1] if len(shape) == 2 else [1],
        }
    values = _values(tensors, sizes, flags["b_layout"])
    call = {
        "family": "gemm",
        "tensors": list(tensors.values()),
        "attrs": {f.name: f.values.index(flags[f.name]) for f in SPEC.flags},
        "entry": where.kind,
        "stream": 0x7000,
    }
    tiles = -(-sizes["M"] // config["tile_m"]) * -(-sizes["N"] // config["tile_n"])
    threads = config["num_warps"] * (32 if where.kind == "cuda" else 64)
    return Expected(call, kernel, [tiles, 1, 1], [threads, 1, 1], _packed(values, flags["scale"]))


def _values(
    tensors: Mapping[str, dict[str, Any] | None], sizes: Mapping[str, int], layout: str
) -> dict[str, int]:
    """Every run-time parameter by name: an address, an extent, or a stride in elements along a dim."""
    pitch = {n: t["stride"][0] for n, t in tensors.items() if t is not None}
    # B is stored [K, N], or [N, K].
    along_k, along_n = (pitch["b"], 1) if layout == "KN" else (1, pitch["b"])
    return {
        **{name: t["data"] if t else 0 for name, t in tensors.items()},
        **sizes,
        "stride_am": pitch["a"],
        "stride_ak": 1,
        "stride_bk": along_k,
        "stride_bn": along_n,
        "stride_bias": 1,
        "stride_row_scale": 1,
        "stride_col_scale": 1,
        "stride_cm": pitch["c"],
        "stride_cn": 1,
    }


def _packed(values: Mapping[str, int], scale: str) -> list[str]:
    """In the order of the kernel's parameters: what is fixed when compiling has none, two come behind."""
    scales = {"none": (), "col": ("col_scale",), "row_col": ("row_scale", "col_scale")}[scale]
    packed = []
    for parameter in module.kernel.params:
        name = parameter.name
        unused = name in ("row_scale", "col_scale", "partial") and name not in scales
        if parameter.is_constexpr or unused or (name.startswith("stride") and values[name] == 1):
            continue
        width = 4 if name in ("M", "N", "K") else 8
        packed.append(struct.pack("<q", values[name])[:width].hex())
    return [*packed, "00" * 8, "00" * 8]
