"""gemm in Triton: one kernel for all precisions, both layouts of B, any strides, any M, N, K >= 0.

Each program makes one `TILE_M x TILE_N` tile of C, walking K in steps of `TILE_K`; the compiler
keeps `num_stages` of those steps in flight. Programs are numbered so that `GROUP_M` rows of tiles
share their columns of B in the L2 cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, Requirement, argument
from tilewright.errors import Refused, unknown

if TYPE_CHECKING:
    import torch

SCALES = {"none": 0, "row_col": 1, "col": 2}
LAYOUTS = ("KN", "NK")
GROUP_M = 8  # where a target's space has no group_m
# precision: dtype of a and b, of bias, of c
PRECISIONS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "fp32": ("fp32", "fp32", "fp32"),
        "bf16": ("bf16", "bf16", "bf16"),
        "fp16": ("fp16", "fp16", "fp16"),
        "int8->int32": ("int8", "int32", "int32"),
        "int8->fp32": ("int8", "fp32", "fp32"),
        "int8->bf16": ("int8", "fp32", "bf16"),
        "int8->fp16": ("int8", "fp32", "fp16"),
    }
)
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "int32": 4}
_GRID = "cdiv(M, {tile_m}) * cdiv(N, {tile_n})"


@triton.jit
def kernel(
    a,
    b,
    bias,
    row_scale,
    col_scale,
    c,
    M,
    N,
    K,
    stride_am,
    stride_ak,
    stride_bk,
    stride_bn,
    stride_bias,
    stride_row_scale,
    stride_col_scale,
    stride_cm,
    stride_cn,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    ACCUMULATE: tl.constexpr,  # tl.float32, or tl.int32 for int8 operands
    SCALE: tl.constexpr,  # 0 none, 1 per row and column, 2 per column
    WIDEN: tl.constexpr,  # cast operands to fp32 after the load, see tilewright.interpret
):
    """C[M,N] = (A[M,K] @ B[K,N]) * scales + bias; strides in elements, `bias` may be null."""
    tiles_m = tl.cdiv(M, TILE_M)
    tiles_n = tl.cdiv(N, TILE_N)
    program = tl.program_id(0)
    tile_row, tile_col = tl.swizzle2d(
        program // tiles_n, program % tiles_n, tiles_m, tiles_n, GROUP_M
    )

    rows = tile_row * TILE_M + tl.arange(0, TILE_M)
    cols = tile_col * TILE_N + tl.arange(0, TILE_N)
    ks = tl.arange(0, TILE_K)
    row_ok = rows < M
    col_ok = cols < N
    # 64-bit offsets: a tensor may hold more than 2**31 elements.
    rows64 = rows.to(tl.int64)
    cols64 = cols.to(tl.int64)
    ks64 = ks.to(tl.int64)
    a_tile = a + rows64[:, None] * stride_am + ks64[None, :] * stride_ak
    b_tile = b + ks64[:, None] * stride_bk + cols64[None, :] * stride_bn

    acc = tl.zeros((TILE_M, TILE_N), dtype=ACCUMULATE)
    for k in range(0, K, TILE_K):
        k_ok = ks < K - k
        x = tl.load(a_tile, mask=row_ok[:, None] & k_ok[None, :], other=0)
        y = tl.load(b_tile, mask=k_ok[:, None] & col_ok[None, :], other=0)
        if WIDEN:
            x = x.to(tl.float32)
            y = y.to(tl.float32)
        acc = tl.dot(x, y, acc, input_precision="ieee", out_dtype=ACCUMULATE)
        a_tile += TILE_K * stride_ak
        b_tile += TILE_K * stride_bk

    if SCALE != 0:
        result = acc.to(tl.float32)
        if SCALE == 1:
            by_row = tl.load(row_scale + rows64 * stride_row_scale, mask=row_ok, other=0)
            result = result * by_row[:, None]
        by_col = tl.load(col_scale + cols64 * stride_col_scale, mask=col_ok, other=0)
        result = result * by_col[None, :]
    else:
        result = acc
    if bias is not None:
        # One binary serves both cases: a null bias masks its own load.
        given = bias.to(tl.int64) != 0
        addend = tl.load(bias + cols64 * stride_bias, mask=col_ok & given, other=0)
        result = result + addend.to(result.dtype)[None, :]
    c_tile = c + rows64[:, None] * stride_cm + cols64[None, :] * stride_cn
    tl.store(c_tile, result.to(c.dtype.element_ty), mask=row_ok[:, None] & col_ok[None, :])


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `c` in place from `a[M,K]`, `b` and whichever of bias and scales is given.

    Flag `b_layout` says whether `b` is [K,N] or [N,K]. Any strides are taken. Raises
    Refused for `panel16` and for a tile the operands' width forbids.
    """
    a, b, c = (_tensor(tensors, name) for name in ("a", "b", "c"))
    bias, row_scale, col_scale = (tensors.get(name) for name in ("bias", "row_scale", "col_scale"))
    layout = _layout(flags)
    int8 = a.element_size() == 1
    _check_tile(config, int8)
    (m, k), n = a.shape, c.shape[1]
    stride_bk, stride_bn = (
        (b.stride(0), b.stride(1)) if layout == "KN" else (b.stride(1), b.stride(0))
    )
    scale = "none" if col_scale is None else "col" if row_scale is None else "row_col"
    vectors = [v.stride(0) if v is not None else 0 for v in (bias, row_scale, col_scale)]
    interpreter.launch(
        kernel,
        Grid(_GRID.format(**config)).evaluate({"M": m, "N": n}),
        (
            a,
            b,
            bias,
            row_scale,
            col_scale,
            c,
            m,
            n,
            k,
            *a.stride(),
            stride_bk,
            stride_bn,
            *vectors,
            *c.stride(),
        ),
        _constexprs(config, int8, scale, widen=interpret and str(a.dtype) == "torch.bfloat16"),
        {name: config[name] for name in ("num_warps", "num_stages")},
        interpret=interpret,
    )


def aot(
    precision: str,
    flags: Mapping[str, str],
    config: Mapping[str, int],
    target: str,
    *,
    aligned: bool = True,
) -> AotSource:
    """What to compile for a target: rows of A, B and C contiguous, `bias` nullable.

    `aligned` fixes K, N and the row strides to multiples of 16 bytes of the narrowest operand,
    which vector and asynchronous copies need; without it any K, N and row stride are taken. For
    Ascend there is a bias only if flag `bias` says so: a masked one would take the vector cores.
    """
    if precision not in PRECISIONS:
        raise unknown("precision of triton gemm", precision, list(PRECISIONS))
    operand, addend, output = PRECISIONS[precision]
    layout = _layout(flags)
    int8 = operand == "int8"
    _check_tile(config, int8)
    scale = "none"
    if int8 and output != "int32":
        scale = flags.get("scale", "row_col")
        if scale not in ("row_col", "col"):
            raise unknown(f"scale of {precision}", scale, ["row_col", "col"])
    step = 16 // min(_BYTES[operand], _BYTES[output]) if aligned else 1
    address = 16 if aligned else 1
    vectors = {"none": (), "col": ("col_scale",), "row_col": ("row_scale", "col_scale")}[scale]
    on_ascend = target.startswith("ascend:")
    biased = flags.get("bias") == "yes" or not on_ascend
    bias = argument("bias", f"*{addend}", "data:bias", address, nullable=not on_ascend)
    row_of_b, unit_of_b = (
        ("stride_bk", "stride_bn") if layout == "KN" else ("stride_bn", "stride_bk")
    )
    args = (
        argument("a", f"*{operand}", "data:a", address),
        argument("b", f"*{operand}", "data:b", address),
        *((bias,) if biased else ()),
        *(argument(name, "*fp32", f"data:{name}", address) for name in vectors),
        argument("c", f"*{output}", "data:c", address),
        argument("M", "int32", "size:c:0"),
        argument("N", "int32", "size:c:1", step),
        argument("K", "int32", "size:a:1", step),
        argument("stride_am", "int64", "stride:a:0", step),
        argument(row_of_b, "int64", "stride:b:0", step),
        argument("stride_cm", "int64", "stride:c:0", step),
    )
    unit = ("stride_ak", unit_of_b, "stride_cn", "stride_bias")
    fixed: dict[str, Any] = dict.fromkeys((*unit, "stride_row_scale", "stride_col_scale"), 1)
    absent = {"row_scale", "col_scale"} - set(vectors) | (set() if biased else {"bias"})
    fixed |= dict.fromkeys(absent)
    given = (*(("bias",) if biased else ()), *vectors)
    contiguous = ("a:1", "b:1", "c:1", *(f"{name}:0" for name in given))
    return AotSource(
        family="gemm",
        fn=kernel,
        precision=precision,
        flags=dict(flags),
        config=dict(config),
        target=target,
        args=tuple(args),
        constexprs=fixed | _constexprs(config, int8, scale, widen=False),
        options={} if on_ascend else {name: config[name] for name in ("num_warps", "num_stages")},
        grid=Grid(_GRID.format(**config)),
        requirements=tuple(Requirement(f"stride:{axis}", "equals", 1) for axis in contiguous),
    )


def _constexprs(
    config: Mapping[str, int], int8: bool, scale: str, *, widen: bool
) -> dict[str, Any]:
    tiles = {name.upper(): config[name] for name in ("tile_m", "tile_n", "tile_k")}
    return {
        **tiles,
        "GROUP_M": config.get("group_m", GROUP_M),
        "ACCUMULATE": tl.int32 if int8 else tl.float32,
        "SCALE": SCALES[scale],
        "WIDEN": widen,
    }


def _tensor(tensors: Mapping[str, torch.Tensor | None], name: str) -> torch.Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise Refused(f"triton gemm needs tensor '{name}'; given: {', '.join(tensors)}")
    return tensor


def _layout(flags: Mapping[str, str]) -> str:
    layout = flags.get("b_layout", "KN")
    if layout == "panel16":
        raise Refused(
            "triton gemm takes b as KN or NK; panel16 is the packed layout of the host kernel"
        )
    if layout not in LAYOUTS:
        raise unknown("b_layout", layout, list(LAYOUTS))
    return layout


def _check_tile(config: Mapping[str, int], int8: bool) -> None:
    for name in ("tile_m", "tile_n", "tile_k", "num_warps"):
        value = config[name] if name != "num_warps" else config.get(name, 1)
        if value < 1 or value & (value - 1):
            raise Refused(f"triton gemm takes powers of two for {name}, not {value}")
    if (least := 32 if int8 else 16) > config["tile_k"]:
        raise Refused(
            f"triton gemm takes tile_k >= {least} for {'int8' if int8 else 'these'} operands, "
            f"not {config['tile_k']}"
        )
