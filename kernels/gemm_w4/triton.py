"""gemm_w4 in Triton: `rows` weights, one kernel for all precisions, groups and zeros; any strides.

A program makes a tile of C transposed, so that the weights, which are unpacked in registers, are the left
operand and rows of activations the columns of the matrix instruction: a few rows fill it. Codes less their
zero are multiplied, exactly; a step of k lies within one group, and its sum is scaled and added in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
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
from tilewright.kernels.gemm_w4.formats import GROUPS

if TYPE_CHECKING:
    import torch

ZEROS = ("sym", "asym", "min")
GROUP_M = 8
# precision: dtype of a, of bias, of c
PRECISIONS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "fp32": ("fp32", "fp32", "fp32"),
        "bf16": ("bf16", "bf16", "bf16"),
        "fp16": ("fp16", "fp16", "fp16"),
        "int8->fp32": ("int8", "fp32", "fp32"),
        "int8->bf16": ("int8", "fp32", "bf16"),
        "int8->fp16": ("int8", "fp32", "fp16"),
    }
)
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
_GRID = "cdiv(M, {tile_m}) * cdiv(N, {tile_n})"
# With batch_invariant, whatever a table of tuned configs says: what orders the sums of a row.
_INVARIANT = MappingProxyType({"tile_m": 16, "tile_n": 64, "tile_k": 32, "num_warps": 4})

MAGIC = tl.constexpr(0x4B000000)  # as a float 2**23, whose last bit counts ones
MAGIC_VALUE = tl.constexpr(8388608.0)
HIGH = tl.constexpr(-65536)  # the bits of an fp32 that bf16 has


@triton.jit
def unpacked(words, zero, TILE_N: tl.constexpr, TILE_K: tl.constexpr, KIND: tl.constexpr):
    """Codes less their zero, [TILE_N, TILE_K] of KIND, from words [TILE_N, TILE_K / 8] and zeros [TILE_N]."""
    shift = 4 * tl.arange(0, 8)
    codes = (words[:, :, None] >> shift[None, None, :]) & 15
    codes = tl.reshape(codes, (TILE_N, TILE_K))
    if tl.int8 == KIND:
        return (codes - zero[:, None]).to(tl.int8)
    whole = (codes | MAGIC).to(tl.float32, bitcast=True)
    return (whole - (zero.to(tl.float32) + MAGIC_VALUE)[:, None]).to(KIND)


@triton.jit
def product(w, x, SPLIT: tl.constexpr, WIDEN: tl.constexpr):
    """w [TILE_N, TILE_K] @ x [TILE_K, TILE_M] in fp32, or int32 of int8.

    With SPLIT fp32 x is three bf16 parts whose sum it is, so that products on matrix instructions stay exact.
    """
    if SPLIT:
        first = (x.to(tl.int32, bitcast=True) & HIGH).to(tl.float32, bitcast=True)
        rest = x - first
        second = (rest.to(tl.int32, bitcast=True) & HIGH).to(tl.float32, bitcast=True)
        third = rest - second
        if WIDEN == 0:
            first = first.to(tl.bfloat16)
            second = second.to(tl.bfloat16)
            third = third.to(tl.bfloat16)
        part = tl.dot(w, third)
        part = tl.dot(w, second, part)
        return tl.dot(w, first, part)
    elif x.dtype == tl.int8:
        return tl.dot(w, x, out_dtype=tl.int32).to(tl.float32)
    else:
        return tl.dot(w, x, input_precision="ieee")


@triton.jit
def kernel(
    a,
    b,
    scale,
    zero,
    minimum,
    row_scale,
    bias,
    c,
    group,  # 0: 32 k, 1: 64, 2: 128, a multiple of TILE_K
    M,
    N,
    K,
    stride_am,
    stride_ak,
    stride_bn,
    stride_bw,
    stride_scale,
    stride_scale_g,
    stride_zero,
    stride_zero_g,
    stride_minimum,
    stride_minimum_g,
    stride_row_scale,
    stride_bias,
    stride_cm,
    stride_cn,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    GROUP_M: tl.constexpr,
    SPLIT: tl.constexpr,  # multiply fp32 as three parts of bf16
    WIDEN: tl.constexpr,  # keep bf16 operands as fp32, see tilewright.interpret
):
    """C[M,N] = A[M,K] @ W[N,K]^T, strides in elements; absent tensors are None, `bias` may be null."""
    tiles_m = tl.cdiv(M, TILE_M)
    tiles_n = tl.cdiv(N, TILE_N)
    program = tl.program_id(0)
    tile_row, tile_col = tl.swizzle2d(
        program // tiles_n, program % tiles_n, tiles_m, tiles_n, GROUP_M
    )
    row = tile_row * TILE_M + tl.arange(0, TILE_M)
    col = tile_col * TILE_N + tl.arange(0, TILE_N)
    k = tl.arange(0, TILE_K)
    word = tl.arange(0, TILE_K // 8)
    row_ok = row < M
    col_ok = col < N
    # 64-bit offsets: a tensor may hold more than 2**31 elements.
    row64 = row.to(tl.int64)
    col64 = col.to(tl.int64)
    a_tile = a + k.to(tl.int64)[:, None] * stride_ak + row64[None, :] * stride_am
    b_tile = b + col64[:, None] * stride_bn + word.to(tl.int64)[None, :] * stride_bw
    words = tl.cdiv(K, 8)
    depth = tl.full((), TILE_K, tl.int64)

    acc = tl.zeros((TILE_N, TILE_M), dtype=tl.float32)
    middle = tl.full((TILE_N,), 8, tl.int32)
    if minimum is not None:
        middle = tl.zeros((TILE_N,), tl.int32)
    scale_at = scale + col64 * stride_scale
    if zero is not None:
        zero_at = zero + col64 * stride_zero
    if minimum is not None:
        minimum_at = minimum + col64 * stride_minimum
    for start in range(0, K, TILE_K):
        x = tl.load(a_tile, mask=(k < K - start)[:, None] & row_ok[None, :], other=0)
        packed = tl.load(
            b_tile, mask=col_ok[:, None] & (word < words - start // 8)[None, :], other=0
        )
        if WIDEN:
            x = x.to(tl.float32)
        if zero is not None:
            middle = tl.load(zero_at, mask=col_ok, other=0).to(tl.int32) & 15
        if SPLIT and WIDEN == 0:
            w = unpacked(packed, middle, TILE_N, TILE_K, tl.bfloat16)
        else:
            w = unpacked(packed, middle, TILE_N, TILE_K, x.dtype)
        factor = tl.load(scale_at, mask=col_ok, other=0).to(tl.float32)
        acc += factor[:, None] * product(w, x, SPLIT, WIDEN)
        if minimum is not None:
            low = tl.load(minimum_at, mask=col_ok, other=0).to(tl.float32)
            if x.dtype == tl.int8:
                total = tl.sum(x.to(tl.int32), axis=0).to(tl.float32)
            else:
                total = tl.sum(x.to(tl.float32), axis=0)
            acc += low[:, None] * total[None, :]
        a_tile += depth * stride_ak
        b_tile += depth // 8 * stride_bw
        step = (((start + TILE_K) >> (5 + group)) - (start >> (5 + group))).to(tl.int64)
        scale_at += step * stride_scale_g
        if zero is not None:
            zero_at += step * stride_zero_g
        if minimum is not None:
            minimum_at += step * stride_minimum_g

    if row_scale is not None:
        by_row = tl.load(row_scale + row64 * stride_row_scale, mask=row_ok, other=0)
        acc = acc * by_row[None, :]
    if bias is not None:
        # One binary serves both cases: a null bias masks its own load.
        given = bias.to(tl.int64) != 0
        addend = tl.load(bias + col64 * stride_bias, mask=col_ok & given, other=0)
        acc = acc + addend.to(tl.float32)[:, None]
    c_tile = c + col64[:, None] * stride_cn + row64[None, :] * stride_cm
    tl.store(c_tile, acc.to(c.dtype.element_ty), mask=col_ok[:, None] & row_ok[None, :])


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `c[M,N]` in place from `a[M,K]`, `b[N,ceil(K/8)]` int32 and what groups share, [N,G].

    Any strides are taken. Raises Refused for `panel16` and for tiles that are no powers of two or deeper
    than a group.
    """
    a, b, scale, c = require("gemm_w4", tensors, "a", "b", "scale", "c")
    given = {name: tensors.get(name) for name in ("zero", "minimum", "row_scale", "bias")}
    group, extra = _flags(flags)
    if extra and given[extra] is None:
        raise Refused(
            f"triton gemm_w4: zero={flags['zero']} takes a tensor '{extra}', and none is given"
        )
    config = settled(config, flags, _INVARIANT)
    _check_tile(config, group)
    (m, k), n = a.shape, c.shape[1]
    shared = (scale, given["zero"], given["minimum"])
    vectors = (given["row_scale"], given["bias"])
    interpreter.launch(
        kernel,
        Grid(_GRID.format(**config)).evaluate({"M": m, "N": n}),
        (
            *(a, b, *shared, *vectors, c, GROUPS.index(group), m, n, k, *a.stride(), *b.stride()),
            *(stride for one in shared for stride in ((0, 0) if one is None else one.stride())),
            *(0 if one is None else one.stride(0) for one in vectors),
            *c.stride(),
        ),
        _constexprs(config, str(a.dtype) == "torch.float32", interpret),
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
    """What to compile for a target: rows of all matrices contiguous, `bias` nullable.

    `aligned` fixes K, N and strides of rows to 16 bytes of the narrowest operand, which vector and
    asynchronous copies need. For Ascend there is a bias only if flag `bias` says so.
    """
    if precision not in PRECISIONS:
        raise unknown("precision of triton gemm_w4", precision, list(PRECISIONS))
    operand, addend, output = PRECISIONS[precision]
    group, extra = _flags(flags)
    asked, config = config, settled(config, flags, _INVARIANT)
    same = config == settled(config, {"batch_invariant": "yes"}, _INVARIANT)
    _check_tile(config, group)
    on_ascend = target.startswith("ascend:")
    biased = flags.get("bias") == "yes" or not on_ascend
    step = 16 // min(_BYTES[operand], _BYTES[output]) if aligned else 1
    address = 16 if aligned else 1
    types = {
        "a": operand, "b": "int32", "scale": "fp16", "zero": "uint8", "minimum": "fp16",
        "row_scale": "fp32", "bias": addend, "c": output,
    }  # fmt: skip
    absent = {"zero", "minimum"} - {extra}
    absent |= set() if operand == "int8" else {"row_scale"}
    absent |= set() if biased else {"bias"}
    given = [name for name in types if name not in absent]
    args = [
        argument(
            name,
            f"*{types[name]}",
            f"data:{name}",
            address,
            nullable=name == "bias" and not on_ascend,
        )
        for name in given
    ]
    args += [
        argument("group", "int32", "flag:group"),
        argument("M", "int32", "size:c:0"),
        argument("N", "int32", "size:c:1", step),
        argument("K", "int32", "size:a:1", step),
        argument("stride_am", "int64", "stride:a:0", step),
        argument("stride_bn", "int64", "stride:b:0", 4 if aligned else 1),
    ]
    args += [
        argument(f"stride_{name}", "int64", f"stride:{name}:0")
        for name in given
        if name in ("scale", "zero", "minimum")
    ]
    args += [argument("stride_cm", "int64", "stride:c:0", step)]
    unit = ("stride_ak", "stride_bw", "stride_scale_g", "stride_zero_g", "stride_minimum_g",
            "stride_row_scale", "stride_bias", "stride_cn")  # fmt: skip
    fixed: dict[str, Any] = dict.fromkeys(unit, 1) | dict.fromkeys(absent)
    fixed |= {f"stride_{name}": 0 for name in ("zero", "minimum") if name in absent}
    return rows.source(
        *("gemm_w4", kernel, precision, flags, asked, target),
        tuple(args),
        fixed | _constexprs(config, operand == "fp32" and not on_ascend, False),
        _GRID.format(**config),
        tuple(f"{name}:{0 if name in ('row_scale', 'bias') else 1}" for name in given),
        # A step that the least group holds lies within any.
        free=("batch_invariant",) * same + ("group",) * (config["tile_k"] == GROUPS[0]),
    )


def _flags(flags: Mapping[str, str]) -> tuple[int, str]:
    """The size of a group, and the tensor that groups have besides their scale or ""."""
    layout, group, zero = (
        flags.get(name, usual)
        for name, usual in (("b_layout", "rows"), ("group", "32"), ("zero", "sym"))
    )
    if layout == "panel16":
        raise Refused(
            "triton gemm_w4 takes b as rows; panel16 is the packed layout of the host kernel"
        )
    if layout != "rows":
        raise unknown("b_layout", layout, ["rows"])
    if group not in map(str, GROUPS):
        raise unknown("group", group, [str(size) for size in GROUPS])
    if zero not in ZEROS:
        raise unknown("zero", zero, list(ZEROS))
    return int(group), {"sym": "", "asym": "zero", "min": "minimum"}[zero]


def _check_tile(config: Mapping[str, int], group: int) -> None:
    check_power("gemm_w4", config, "tile_m", "tile_n", "tile_k", "num_warps")
    if not 32 <= config["tile_k"] <= group:
        raise Refused(
            f"triton gemm_w4 takes tile_k from 32 to the group of {group}, not {config['tile_k']}"
        )


def _constexprs(config: Mapping[str, int], split: bool, widen: bool) -> dict[str, Any]:
    return {
        **{name.upper(): config[name] for name in ("tile_m", "tile_n", "tile_k")},
        "GROUP_M": GROUP_M,
        "SPLIT": split,
        "WIDEN": widen,
    }
