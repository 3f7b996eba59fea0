"""gemm in Triton: all precisions, both layouts of B, any strides, any M, N, K >= 0; see `triton_kernel.py`.

Each program makes one `TILE_M x TILE_N` tile of C, walking K in steps of `TILE_K`; the compiler
keeps `num_stages` of those steps in flight. Programs are numbered so that `GROUP_M` rows of tiles
share their columns of B in the L2 cache. With `split_k` above 1 that many programs share the K of a tile: their
sums go through a workspace and are added in the order of K by a second kernel, so a call gives the same bits always.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import triton.language as tl

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, Requirement, argument
from tilewright.errors import Refused, unknown
from tilewright.kernels._triton.flash import settled
from tilewright.kernels.gemm.triton_kernel import kernel, merge

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
# Under batch_invariant, whatever the config says: the baseline, so that untuned binaries serve both.
INVARIANT: Mapping[str, int] = MappingProxyType(
    {"tile_m": 32, "tile_n": 32, "tile_k": 32, "num_warps": 4, "split_k": 1}
)
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "int32": 4}
_GRID = "cdiv(M, {tile_m}) * cdiv(N, {tile_n})"
_MERGE_TILE = (8, 128)  # of C, a program of the second kernel
_MERGE_GRID = Grid("cdiv(M, 8) * cdiv(N, 128)")
_MERGE_OPTIONS: Mapping[str, int] = MappingProxyType({"num_warps": 4, "num_stages": 1})


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
    config = settled(config, flags, INVARIANT)
    a, b, c = (_tensor(tensors, name) for name in ("a", "b", "c"))
    bias, row_scale, col_scale = (tensors.get(name) for name in ("bias", "row_scale", "col_scale"))
    layout = _layout(flags)
    int8 = a.element_size() == 1
    _check_tile(config, int8)
    split = config.get("split_k", 1)
    (m, k), n = a.shape, c.shape[1]
    stride_bk, stride_bn = (
        (b.stride(0), b.stride(1)) if layout == "KN" else (b.stride(1), b.stride(0))
    )
    scale = "none" if col_scale is None else "col" if row_scale is None else "row_col"
    vectors = [v.stride(0) if v is not None else 0 for v in (bias, row_scale, col_scale)]
    partial = None
    if split > 1:
        import torch

        kind = torch.int32 if int8 else torch.float32
        partial = torch.empty(split * m * n, dtype=kind, device=c.device)
    interpreter.launch(
        kernel,
        Grid(_GRID.format(**config), str(split)).evaluate({"M": m, "N": n}),
        (
            *(a, b, bias, row_scale, col_scale, c, partial, m, n, k),
            *(*a.stride(), stride_bk, stride_bn, *vectors, *c.stride()),
        ),
        _constexprs(config, int8, scale, widen=interpret and str(a.dtype) == "torch.bfloat16"),
        {name: config[name] for name in ("num_warps", "num_stages")},
        interpret=interpret,
    )
    if split > 1:
        interpreter.launch(
            merge,
            _MERGE_GRID.evaluate({"M": m, "N": n}),
            (partial, bias, row_scale, col_scale, c, m, n, *vectors, *c.stride()),
            _merge_constexprs(split, scale),
            _MERGE_OPTIONS,
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
    same = config == settled(config, {"batch_invariant": "yes"}, INVARIANT)
    config = settled(config, flags, INVARIANT)
    operand, addend, output = PRECISIONS[precision]
    layout = _layout(flags)
    int8 = operand == "int8"
    _check_tile(config, int8)
    scale = "none"
    if int8 and output != "int32":
        scale = flags.get("scale", "row_col")
        if scale not in ("row_col", "col"):
            raise unknown(f"scale of {precision}", scale, ["row_col", "col"])
    split = config.get("split_k", 1)
    step = 16 // min(_BYTES[operand], _BYTES[output]) if aligned else 1
    address = 16 if aligned else 1
    vectors = {"none": (), "col": ("col_scale",), "row_col": ("row_scale", "col_scale")}[scale]
    on_ascend = target.startswith("ascend:")
    biased = flags.get("bias") == "yes" or not on_ascend
    bias = argument("bias", f"*{addend}", "data:bias", address, nullable=not on_ascend)
    partial = argument("partial", "*int32" if int8 else "*fp32", "workspace", 16)
    row_of_b, unit_of_b = (
        ("stride_bk", "stride_bn") if layout == "KN" else ("stride_bn", "stride_bk")
    )
    of_result = (
        *((bias,) if biased else ()),
        *(argument(name, "*fp32", f"data:{name}", address) for name in vectors),
        argument("c", f"*{output}", "data:c", address),
    )
    rows, columns = argument("M", "int32", "size:c:0"), argument("N", "int32", "size:c:1", step)
    stride_cm = argument("stride_cm", "int64", "stride:c:0", step)
    args = (
        argument("a", f"*{operand}", "data:a", address),
        argument("b", f"*{operand}", "data:b", address),
        *of_result,
        *((partial,) if split > 1 else ()),
        *(rows, columns, argument("K", "int32", "size:a:1", step)),
        argument("stride_am", "int64", "stride:a:0", step),
        argument(row_of_b, "int64", "stride:b:0", step),
        stride_cm,
    )
    absent = {"row_scale", "col_scale"} - set(vectors) | (set() if biased else {"bias"})
    units = ("stride_cn", "stride_bias", "stride_row_scale", "stride_col_scale")
    finishing: dict[str, Any] = dict.fromkeys(units, 1) | dict.fromkeys(absent)
    fixed = {"stride_ak": 1, unit_of_b: 1, **({} if split > 1 else {"partial": None})}
    given = (*(("bias",) if biased else ()), *vectors)
    contiguous = ("a:1", "b:1", "c:1", *(f"{name}:0" for name in given))
    common: dict[str, Any] = {
        "family": "gemm",
        "precision": precision,
        "flags": dict(flags),
        "config": dict(config),
        "target": target,
        "free": ("batch_invariant",) if same else (),
    }
    second = AotSource(
        fn=merge,
        args=(partial, *of_result, rows, columns, stride_cm),
        constexprs=finishing | _merge_constexprs(split, scale),
        options=_MERGE_OPTIONS,
        grid=_MERGE_GRID,
        **common,
    )
    return AotSource(
        fn=kernel,
        args=args,
        constexprs=fixed | finishing | _constexprs(config, int8, scale, widen=False),
        options={} if on_ascend else {name: config[name] for name in ("num_warps", "num_stages")},
        grid=Grid(_GRID.format(**config), str(split)),
        requirements=tuple(Requirement(f"stride:{axis}", "equals", 1) for axis in contiguous),
        then=(second,) if split > 1 else (),
        workspace=Grid(f"{4 * split} * M * N") if split > 1 else None,
        **common,
    )


def _merge_constexprs(split: int, scale: str) -> dict[str, Any]:
    rows, cols = _MERGE_TILE
    return {"ROWS": rows, "COLS": cols, "SPLIT": split, "SCALE": SCALES[scale]}


def _constexprs(
    config: Mapping[str, int], int8: bool, scale: str, *, widen: bool
) -> dict[str, Any]:
    tiles = {name.upper(): config[name] for name in ("tile_m", "tile_n", "tile_k")}
    return {
        **tiles,
        "GROUP_M": config.get("group_m", GROUP_M),
        "SPLIT": config.get("split_k", 1),
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
    if not 1 <= config.get("split_k", 1) <= 16:
        raise Refused(f"triton gemm takes split_k from 1 to 16, not {config['split_k']}")
    for name in ("tile_m", "tile_n", "tile_k", "num_warps"):
        value = config[name] if name != "num_warps" else config.get(name, 1)
        if value < 1 or value & (value - 1):
            raise Refused(f"triton gemm takes powers of two for {name}, not {value}")
    if (least := 32 if int8 else 16) > config["tile_k"]:
        raise Refused(
            f"triton gemm takes tile_k >= {least} for {'int8' if int8 else 'these'} operands, "
            f"not {config['tile_k']}"
        )
