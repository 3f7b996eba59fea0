"""mask_gemm in Triton: a first kernel groups the rows by path, the second takes tiles of rows of one path.

What lies on a device is looked at only where the policy for missing weights is `error`; there an owner that is
no request selects nothing. A binary cannot look, and is refused with that policy unless weights are resident; nor does it
refuse a layer without a bit or rows beyond the groups, which select nothing, and it rounds a layer up to a whole number.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, KernelArg, Requirement, argument
from tilewright.dims import evaluate
from tilewright.errors import Refused, UsageError, unknown
from tilewright.kernels._triton.flash import settled
from tilewright.kernels.mask_gemm.spec import SPEC
from tilewright.kernels.mask_gemm.triton_kernel import HEADER, group, kernel

if TYPE_CHECKING:
    import torch

GROUP_M = 8  # rows of tiles that share their columns of b in the second level of cache
_BLOCK = 1024  # rows grouped at a time
_GROUP_OPTIONS = MappingProxyType({"num_warps": 4, "num_stages": 1})
_REQUIRED = ("a8", "row_scale", "b8", "col_scale", "selection", "owner", "c", "counts")
_PRODUCT = ("a8", "row_scale", "b8", "col_scale", "a", "b16", "bias", "c")
_PRECISION = SPEC.precision("bf16")
# Strides of the product's tensors, in the order of its parameters; those of unit dims come last.
_STRIDES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "a8": ("stride_a8m", "stride_a8k"),
        "row_scale": ("stride_row_scale",),
        "b8": ("stride_b8n", "stride_b8k"),
        "col_scale": ("stride_col_scale",),
        "a": ("stride_am", "stride_ak"),
        "b16": ("stride_b16n", "stride_b16k"),
        "bias": ("stride_bias",),
        "c": ("stride_cm", "stride_cn"),
    }
)
# Under batch_invariant, whatever the config says.
_INVARIANT = MappingProxyType({"tile_m": 32, "tile_n": 32, "tile_k": 32, "num_warps": 4})


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `c` and `counts` in place; any strides.

    Raises Refused for panel16, for a tile that no dot takes, for what `selection.rows_in_bf16` refuses where
    it is looked at, and for a selected row whose weights are missing under the policy `error`.
    """
    import torch

    config = settled(config, flags, _INVARIANT)
    _check_tile(config)
    _layout(flags)
    given = {name: _tensor(tensors, name) for name in _REQUIRED}
    resident = flags.get("resident", "yes") == "yes"
    operands = {name: tensors.get(name) for name in _PRODUCT}
    if resident:
        operands |= {name: _tensor(tensors, name) for name in ("a", "b16")}
    _check_sizes(given | {n: t for n, t in operands.items() if t is not None}, flags)
    _check_rows(given, flags, resident)
    c = given["c"]
    (m, n), k = c.shape, given["a8"].shape[1]
    order = torch.empty(m + HEADER.value, dtype=torch.int32, device=c.device)
    selection, owner, counts = (given[name] for name in ("selection", "owner", "counts"))
    vectors = (selection.stride(0), owner.stride(0), counts.stride(0))
    interpreter.launch(
        group,
        (1, 1, 1),
        (selection, owner, order, counts, m, selection.shape[0], _layer(flags), *vectors),
        {"BLOCK": _BLOCK, "RESIDENT": resident},
        _GROUP_OPTIONS,
        interpret=interpret,
    )
    strides: list[int] = []
    for name, those in _STRIDES.items():
        tensor = operands[name]
        strides += [0] * len(those) if tensor is None else tensor.stride()
    interpreter.launch(
        kernel,
        Grid(_grid(config, resident)).evaluate({"M": m, "N": n}),
        (order, *operands.values(), m, n, k, *strides),
        _constexprs(config, resident, widen=interpret),
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
    """What to compile for a target: rows of operands and of c contiguous, scales and owners dense, `bias` nullable.

    `aligned` fixes addresses, K, N and strides of rows to multiples of 16 bytes. For Ascend there is a
    bias only if flag `bias` says so. Raises Refused for weights that are not resident under the policy
    `error`: a binary cannot look at the selection before it runs.
    """
    if precision != _PRECISION.name:
        raise unknown("precision of triton mask_gemm", precision, [_PRECISION.name])
    _layout(flags)
    resident = flags.get("resident", "yes") == "yes"
    if not resident and flags.get("missing", "error") == "error":
        raise Refused(
            "a binary of mask_gemm cannot look for selected rows before it runs; accepted without resident "
            "weights: missing=keep_int8"
        )
    asked, config = config, settled(config, flags, _INVARIANT)
    same = config == settled(config, {"batch_invariant": "yes"}, _INVARIANT)
    _check_tile(config)
    on_ascend = target.startswith("ascend:")
    biased = flags.get("bias") == "yes" or not on_ascend
    absent = [*(() if resident else ("a", "b16")), *(() if biased else ("bias",))]
    common: dict[str, Any] = {
        "family": "mask_gemm",
        "precision": precision,
        "flags": dict(flags),
        "config": dict(asked),
        "target": target,
        "free": (
            "layer",
            *(("missing",) if resident else ()),
            *(("bias",) if not on_ascend else ()),
            *(("batch_invariant",) if same else ()),
        ),
    }
    given = [name for name in _PRODUCT if name not in absent]
    fixed: dict[str, Any] = dict.fromkeys(absent)
    for name, those in _STRIDES.items():
        fixed |= dict.fromkeys(those[:-1], 0) if name in absent else {}
        fixed[those[-1]] = 1
    options = {name: config[name] for name in ("num_warps", "num_stages") if name in config}
    multiply = AotSource(
        fn=kernel,
        args=_arguments(given, aligned, nullable=not on_ascend),
        constexprs=fixed | _constexprs(config, resident, widen=False),
        options={} if on_ascend else options,
        grid=Grid(_grid(config, resident)),
        **common,
    )
    unit = [f"{name}:{len(_STRIDES[name]) - 1}" for name in given]
    return AotSource(
        fn=group,
        args=_group_arguments(),
        constexprs={
            "BLOCK": _BLOCK,
            "RESIDENT": resident,
            "stride_word": 1,
            "stride_owner": 1,
            "stride_count": 1,
        },
        options={} if on_ascend else dict(_GROUP_OPTIONS),
        grid=Grid("1"),
        requirements=tuple(
            Requirement(f"stride:{axis}", "equals", 1)
            for axis in (*unit, "selection:0", "owner:0", "counts:0")
        ),
        then=(multiply,),
        workspace=Grid(f"4 * (M + {HEADER.value})"),
        **common,
    )


def _group_arguments() -> tuple[KernelArg, ...]:
    return (
        _pointer("selection"),
        _pointer("owner"),
        argument("order", "*int32", "workspace", 16),
        _pointer("counts"),
        argument("M", "int32", "size:c:0"),
        argument("W", "int32", "size:selection:0"),
        argument("layer", "int32", "number:layer"),
    )


def _pointer(name: str) -> KernelArg:
    dtype = _PRECISION.dtypes[name]
    return argument(name, f"*{dtype.name}", f"data:{name}", dtype.bytes)


def _arguments(given: list[str], aligned: bool, nullable: bool) -> tuple[KernelArg, ...]:
    """Those of the product; its narrowest operand decides how K divides, c how N does."""
    address = 16 if aligned else 1
    steps = {"a8": 16, "b8": 16, "a": 8, "b16": 8, "c": 8} if aligned else {}
    pointers = [
        argument(
            name,
            f"*{_PRECISION.dtypes[name].name}",
            f"data:{name}",
            address,
            nullable=nullable and name == "bias",
        )
        for name in given
    ]
    rows = [name for name in given if len(_STRIDES[name]) == 2]
    return (
        argument("order", "*int32", "workspace", 16),
        *pointers,
        argument("M", "int32", "size:c:0"),
        argument("N", "int32", "size:c:1", steps.get("c", 1)),
        argument("K", "int32", "size:a8:1", steps.get("a8", 1)),
        *(
            argument(_STRIDES[name][0], "int64", f"stride:{name}:0", steps.get(name, 1))
            for name in rows
        ),
    )


def _grid(config: Mapping[str, int], resident: bool) -> str:
    """With two paths there may be a tile more than rows fill."""
    tiles = f"cdiv(M, {config['tile_m']})"
    both = f"(min(1, M) + {tiles})" if resident else tiles
    return f"{both} * cdiv(N, {config['tile_n']})"


def _constexprs(config: Mapping[str, int], resident: bool, *, widen: bool) -> dict[str, Any]:
    tiles = {name.upper(): config[name] for name in ("tile_m", "tile_n", "tile_k")}
    return {**tiles, "GROUP_M": GROUP_M, "RESIDENT": resident, "WIDEN": widen}


def _check_sizes(given: Mapping[str, torch.Tensor], flags: Mapping[str, str]) -> None:
    """Shapes, types and the layer against the spec, wherever tensors are."""
    sizes = {
        "M": given["c"].shape[0],
        "N": given["c"].shape[-1],
        "K": given["a8"].shape[-1],
        "W": given["selection"].shape[0],
    }
    if reason := SPEC.why_invalid(sizes, _PRECISION.name, flags):
        raise Refused(f"triton mask_gemm: {reason}")
    for tensor in SPEC.tensors:
        if tensor.name not in given:
            continue
        shape = [evaluate(size, sizes) for size in tensor.dims]
        have = list(given[tensor.name].shape)
        if have != shape:
            raise Refused(f"triton mask_gemm: {tensor.name} is {have}; accepted: {shape}")
        dtype = str(given[tensor.name].dtype).removeprefix("torch.")
        wanted = _PRECISION.dtypes[tensor.name].torch_name
        if dtype != wanted:
            raise Refused(f"triton mask_gemm: {tensor.name} is {dtype}; accepted: {wanted}")


def _check_rows(
    given: Mapping[str, torch.Tensor], flags: Mapping[str, str], resident: bool
) -> None:
    """Selection and owners where they are on the CPU, and anywhere under a policy that depends on them."""
    from tilewright.kernels.mask_gemm.selection import rows_in_bf16

    error = not resident and flags.get("missing", "error") == "error"
    if given["owner"].is_cuda and not error:
        return
    try:
        selected = rows_in_bf16(given["selection"].cpu(), _layer(flags), given["owner"].cpu())
    except UsageError as refused:
        raise Refused(f"triton mask_gemm: {refused}") from None
    if error and bool(selected.any()):
        row = int(selected.nonzero()[0, 0])
        raise Refused(
            f"row {row} of layer {_layer(flags)} is selected for bf16, and its weights are not resident; "
            "accepted: rows that are not selected, or missing=keep_int8"
        )


def _layer(flags: Mapping[str, str]) -> int:
    return int(float(flags.get("layer", "0")))


def _layout(flags: Mapping[str, str]) -> None:
    layout = flags.get("b_layout", "NK")
    if layout == "panel16":
        raise Refused(
            "triton mask_gemm takes weights as NK; panel16 is the packed layout of the host kernel"
        )
    if layout != "NK":
        raise unknown("b_layout", layout, ["NK"])


def _check_tile(config: Mapping[str, int]) -> None:
    for name, least in (("tile_m", 1), ("tile_n", 1), ("tile_k", 32), ("num_warps", 1)):
        value = config.get(name, least)
        if value < least or value & (value - 1):
            raise Refused(
                f"triton mask_gemm takes powers of two from {least} for {name}, not {value}"
            )


def _tensor(tensors: Mapping[str, torch.Tensor | None], name: str) -> torch.Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise Refused(f"triton mask_gemm needs tensor '{name}'; given: {', '.join(tensors)}")
    return tensor
