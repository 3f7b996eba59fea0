"""grouped_gemm in Triton: each program makes one tile of C, whose group it finds by itself from `ends`.

As many programs start as the rows could need however they are grouped; the surplus ends at once. On a device nobody
looks at `ends` before: whatever stands there, no memory outside the tensors is touched, and rows of nobody
come out as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, argument
from tilewright.errors import Refused, unknown
from tilewright.kernels._triton import rows
from tilewright.kernels._triton.flash import settled
from tilewright.kernels._triton.kv import check_power, require
from tilewright.kernels._triton.product import sum_products
from tilewright.kernels.gemm.triton import INVARIANT, PRECISIONS

if TYPE_CHECKING:
    import torch

GROUP_M = 8  # row tiles that share their columns of B in the L2 cache
EXPERTS = 128  # whose ends are looked at in one step
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "int32": 4}
_GRID = "(cdiv(T, {tile_m}) + min(E, T)) * cdiv(N, {tile_n})"


@triton.jit
def find_rows(ends, T, E, tile, stride_ends, TILE_M: tl.constexpr, EXPERTS: tl.constexpr):
    """The expert of a row tile, its first row and where its group ends.

    Tiles are counted group by group, rows of nobody last, whose expert is -1; a tile too many has first row T.
    """
    before = 0
    expert = 0
    first = 0
    end = 0
    last = 0
    found = 0
    for start in range(0, E, EXPERTS):
        e = start + tl.arange(0, EXPERTS)
        high = tl.load(ends + e.to(tl.int64) * stride_ends, mask=e < E, other=0)
        low = tl.load(ends + (e - 1).to(tl.int64) * stride_ends, mask=(e < E) & (e > 0), other=0)
        high = tl.minimum(tl.maximum(high, 0), T)
        low = tl.minimum(tl.maximum(low, 0), T)
        count = tl.where(high > low, (high - low + TILE_M - 1) // TILE_M, 0)
        upto = before + tl.cumsum(count, 0)
        mine = (tile < upto) & (tile >= upto - count)
        expert += tl.sum(tl.where(mine, e, 0), 0)
        first += tl.sum(tl.where(mine, low + (tile - (upto - count)) * TILE_M, 0), 0)
        end += tl.sum(tl.where(mine, high, 0), 0)
        found += tl.sum(mine.to(tl.int32), 0)
        before += tl.sum(count, 0)
        last = tl.maximum(last, tl.max(high, 0))
    rest = tl.minimum(last + (tile - before) * TILE_M, T)
    return (
        tl.where(found > 0, expert, -1),
        tl.where(found > 0, first, rest),
        tl.where(found > 0, end, T),
    )


@triton.jit
def kernel(
    a,
    b,
    ends,
    bias,
    row_scale,
    col_scale,
    c,
    T,
    E,
    N,
    K,
    stride_am,
    stride_ak,
    stride_be,
    stride_bn,
    stride_bk,
    stride_ends,
    stride_bias_e,
    stride_bias_n,
    stride_row_scale,
    stride_scale_e,
    stride_scale_n,
    stride_cm,
    stride_cn,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    EXPERTS: tl.constexpr,
    ACCUMULATE: tl.constexpr,
    SCALED: tl.constexpr,  # per row and column
    WIDEN: tl.constexpr,
):
    """C[T,N] = (A[T,K] @ B[expert][N,K]^T) * scales + bias[expert]; strides in elements, `bias` may be null."""
    tiles_m = tl.cdiv(T, TILE_M) + tl.minimum(E, T)
    tiles_n = tl.cdiv(N, TILE_N)
    program = tl.program_id(0)
    tile_row, tile_col = tl.swizzle2d(
        program // tiles_n, program % tiles_n, tiles_m, tiles_n, GROUP_M
    )
    expert, first, end = find_rows(ends, T, E, tile_row, stride_ends, TILE_M, EXPERTS)
    if first < end:
        owned = expert >= 0
        e64 = tl.maximum(expert, 0).to(tl.int64)
        rows = first + tl.arange(0, TILE_M)
        cols = tile_col * TILE_N + tl.arange(0, TILE_N)
        row_ok = rows < end
        col_ok = cols < N
        # 64-bit offsets: a tensor may hold more than 2**31 elements.
        rows64 = rows.to(tl.int64)
        cols64 = cols.to(tl.int64)
        ks64 = tl.arange(0, TILE_K).to(tl.int64)
        a_tile = a + rows64[:, None] * stride_am + ks64[None, :] * stride_ak
        b_tile = b + e64 * stride_be + cols64[None, :] * stride_bn + ks64[:, None] * stride_bk

        depth = tl.where(owned, K, 0)
        acc = sum_products(
            a_tile, b_tile, row_ok, col_ok, 0, depth, stride_ak, stride_bk,
            TILE_M, TILE_N, TILE_K, ACCUMULATE, WIDEN,
        )  # fmt: skip
        if SCALED:
            by_row = tl.load(row_scale + rows64 * stride_row_scale, mask=row_ok & owned, other=0)
            scales = col_scale + e64 * stride_scale_e + cols64 * stride_scale_n
            by_col = tl.load(scales, mask=col_ok & owned, other=0)
            result = acc.to(tl.float32) * by_row[:, None] * by_col[None, :]
        else:
            result = acc
        if bias is not None:
            # One binary serves both cases: a null bias masks its own load.
            given = owned & (bias.to(tl.int64) != 0)
            addends = bias + e64 * stride_bias_e + cols64 * stride_bias_n
            addend = tl.load(addends, mask=col_ok & given, other=0)
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
    """Compute `c` in place from `a[T,K]`, `b[E,N,K]`, `ends[E]` and whichever of bias and scales is given.

    Any strides are taken. Raises Refused for `panel16`, for a tile the operands' width forbids, and for `ends` on the
    CPU that fall or go beyond T; on a device they are not looked at.
    """
    config = settled(config, flags, INVARIANT)
    a, b, ends, c = require("grouped_gemm", tensors, "a", "b", "ends", "c")
    bias, row_scale, col_scale = (tensors.get(name) for name in ("bias", "row_scale", "col_scale"))
    _check_layout(flags)
    int8 = a.element_size() == 1
    _check_tile(config, int8)
    _check_ends(ends, a.shape[0])
    (t, k), n, experts = a.shape, c.shape[1], ends.shape[0]
    scaled = row_scale is not None
    by_expert = [v.stride() if v is not None else (0, 0) for v in (bias, col_scale)]
    interpreter.launch(
        kernel,
        Grid(_GRID.format(**config)).evaluate({"T": t, "E": experts, "N": n}),
        (
            *(a, b, ends, bias, row_scale, col_scale, c, t, experts, n, k),
            *(*a.stride(), *b.stride(), ends.stride(0), *by_expert[0]),
            *(row_scale.stride(0) if row_scale is not None else 0, *by_expert[1], *c.stride()),
        ),
        _constexprs(config, int8, scaled, widen=interpret and str(a.dtype) == "torch.bfloat16"),
        rows.options(config),
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
    """What to compile for a target: every tensor contiguous along its last dim, `bias` nullable.

    `aligned` fixes K, N and the strides of rows and of experts to multiples of 16 bytes of the narrowest operand,
    which vector and asynchronous copies need. For Ascend there is a bias only if flag `bias` says so: a masked
    one would take the vector cores.
    """
    if precision not in PRECISIONS:
        raise unknown("precision of triton grouped_gemm", precision, list(PRECISIONS))
    same = config == settled(config, {"batch_invariant": "yes"}, INVARIANT)
    config = settled(config, flags, INVARIANT)
    operand, addend, output = PRECISIONS[precision]
    _check_layout(flags)
    int8 = operand == "int8"
    _check_tile(config, int8)
    scaled = int8 and output != "int32"
    step = 16 // min(_BYTES[operand], _BYTES[output]) if aligned else 1
    address = 16 if aligned else 1
    on_ascend = target.startswith("ascend:")
    biased = flags.get("bias") == "yes" or not on_ascend
    kinds = {"a": operand, "b": operand, "ends": "int32"}
    kinds |= {"bias": addend} if biased else {}
    kinds |= {"row_scale": "fp32", "col_scale": "fp32"} if scaled else {}
    kinds["c"] = output
    pointers = (
        argument(
            *(name, f"*{kind}", f"data:{name}", address if name in "abc" else 1),
            nullable=name == "bias" and not on_ascend,
        )
        for name, kind in kinds.items()
    )
    strides = (
        argument("stride_am", "int64", "stride:a:0", step),
        argument("stride_be", "int64", "stride:b:0", step),
        argument("stride_bn", "int64", "stride:b:1", step),
        *((argument("stride_bias_e", "int64", "stride:bias:0"),) if biased else ()),
        *((argument("stride_scale_e", "int64", "stride:col_scale:0"),) if scaled else ()),
        argument("stride_cm", "int64", "stride:c:0", step),
    )
    sizes = (
        argument("T", "int32", "size:c:0"),
        argument("E", "int32", "size:ends:0"),
        argument("N", "int32", "size:c:1", step),
        argument("K", "int32", "size:a:1", step),
    )
    unit = ("ak", "bk", "ends", "bias_n", "row_scale", "scale_n", "cn")
    fixed: dict[str, Any] = {f"stride_{name}": 1 for name in unit}
    if not biased:
        fixed |= {"bias": None, "stride_bias_e": 0}
    if not scaled:
        fixed |= {"row_scale": None, "col_scale": None, "stride_scale_e": 0}
    last = {"b": 2, "ends": 0, "row_scale": 0}
    return rows.source(
        *("grouped_gemm", kernel, precision, flags, config, target),
        (*pointers, *sizes, *strides),
        fixed | _constexprs(config, int8, scaled, widen=False),
        _GRID.format(**config),
        tuple(f"{name}:{last.get(name, 1)}" for name in kinds),
        free=("batch_invariant",) if same else (),
    )


def _constexprs(
    config: Mapping[str, int], int8: bool, scaled: bool, *, widen: bool
) -> dict[str, Any]:
    return {
        **{name.upper(): config[name] for name in ("tile_m", "tile_n", "tile_k")},
        "GROUP_M": config.get("group_m", GROUP_M),
        "EXPERTS": EXPERTS,
        "ACCUMULATE": tl.int32 if int8 else tl.float32,
        "SCALED": scaled,
        "WIDEN": widen,
    }


def _check_layout(flags: Mapping[str, str]) -> None:
    layout = flags.get("b_layout", "NK")
    if layout == "panel16":
        raise Refused(
            "triton grouped_gemm takes b as NK; panel16 is the packed layout of the host kernel"
        )
    if layout != "NK":
        raise unknown("b_layout", layout, ["NK"])


def _check_tile(config: Mapping[str, int], int8: bool) -> None:
    check_power("grouped_gemm", config, "tile_m", "tile_n", "tile_k", "num_warps")
    if (least := 32 if int8 else 16) > config["tile_k"]:
        raise Refused(
            f"triton grouped_gemm takes tile_k >= {least} for {'int8' if int8 else 'these'} operands, "
            f"not {config['tile_k']}"
        )


def _check_ends(ends: torch.Tensor, rows_of_a: int) -> None:
    if ends.device.type != "cpu":
        return
    begin = 0
    for expert, end in enumerate(ends.tolist()):
        if not begin <= end <= rows_of_a:
            raise Refused(
                f"triton grouped_gemm: ends[{expert}] is {end}; accepted: {begin} to {rows_of_a}, never falling "
                "and at most the rows of a"
            )
        begin = end
