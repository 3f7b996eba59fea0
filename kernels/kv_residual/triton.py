"""kv_residual in Triton: every format, both residuals and both layouts; see `triton_kernel.py` for how.

Codes are the same bits as elsewhere: products and sums are kept apart, division rounds correctly. What lies on a
device is not looked at before: a page or a pool row that is not there is neither written nor read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, Requirement, argument
from tilewright.errors import Refused, unknown
from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels._triton.kv import (
    FLAT,
    block_lanes,
    check_power,
    first_twice,
    page_sources,
    page_strides,
    require,
)
from tilewright.kernels.kv_residual.triton_kernel import read_kernel, write_kernel

if TYPE_CHECKING:
    import torch

KV = ("c8s", "c8d", "kv4_key", "kv4_value")
BLOCK = 32  # lanes of four channels a step
RUNS = 32  # runs counted a step
_COMPUTE = {"fp32": 4, "bf16": 2, "fp16": 2}
_PAGE_STRIDES = ("stride_page", "stride_token", "stride_head", "stride_block", "stride_lane")
# Stride parameters: the tensor and the dim. The last dim of these tensors is dense unless named here.
_STRIDES: Mapping[str, tuple[str, int]] = {
    **{f"stride_x{d}": ("x", i) for i, d in enumerate("nth")},
    **{f"stride_s{d}": ("select", i) for i, d in enumerate("nth")},
    **{f"stride_y{d}": ("y", i) for i, d in enumerate("nth")},
    "stride_channel": ("channel_scale", 0),
    **{f"stride_ts{i}": ("token_scale", i) for i in range(3)},
    **{f"stride_tz{i}": ("token_zero", i) for i in range(3)},
    **{f"stride_ps{i}": ("page_scale", i) for i in range(2)},
    **{f"stride_pz{i}": ("page_zero", i) for i in range(2)},
    **{f"stride_m{i}": ("mask", i) for i in range(2)},
    **{f"stride_r{i}": ("rank", i) for i in range(2)},
    **{f"stride_fm{i}": ("fmask", i) for i in range(2)},
    **{f"stride_fr{i}": ("frank", i) for i in range(2)},
    "stride_pool": ("pool", 0),
    "stride_scale": ("pool_scale", 0),
    "stride_fpool": ("fpool", 0),
}
_DENSE_LAST = {"x": 3, "y": 3, "page_ids": 0, "used_before": 0, "used_after": 0, "channel_scale": 1}
_DENSE_LAST |= {"page_scale": 2, "page_zero": 2, "pool": 1, "fpool": 1}
_INPUTS = ("x", "page_ids", "select", "channel_scale", "used_before")
_SIZES = ("N", "HKV", "D", "P", "R", "F")


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Write pages of `x`, or read them into `y`, in place.

    Inputs whose channels have gaps are copied. Raises Refused for what lies on the CPU and breaks a rule of the
    spec: pages or ranks out of range, a page twice, a selection that is none; and for gaps between channels
    of what is written.
    """
    write, kv, e3m0, nz = _flags(flags)
    check_power("kv_residual", config, "num_warps")
    present = _present(write, kv, e3m0)
    given = dict(zip(present, require("kv_residual", tensors, *present), strict=True))
    for name, last in _DENSE_LAST.items():
        tensor = given.get(name)
        if tensor is None or tensor.shape[last] <= 1 or tensor.stride(last) == 1:
            continue
        if name not in _INPUTS:
            raise Refused(
                f"triton kv_residual: {name} has stride {tensor.stride(last)} along its last dim; accepted: 1"
            )
        given[name] = tensor.contiguous()
    _check(given, write)
    rows = given["x" if write else "y"]
    sizes = {"N": rows.shape[0], "HKV": rows.shape[2], "D": rows.shape[3]}
    sizes |= {
        "P": given["codes"].shape[0],
        "R": given["pool"].shape[0],
        "F": given["fpool"].shape[0],
    }
    strides = dict(zip(_PAGE_STRIDES, page_strides(given["codes"], nz), strict=True))
    for name, (tensor_name, dim) in _STRIDES.items():
        strides[name] = given[tensor_name].stride(dim) if tensor_name in given else 0
    kernel = write_kernel if write else read_kernel
    constexprs = _constexprs(write, kv, e3m0, nz)
    arguments = {**given, **sizes, **strides}
    names = [name for name in kernel.arg_names if name not in constexprs]
    interpreter.launch(
        kernel,
        Grid(_grid(write)).evaluate(sizes),
        tuple(arguments.get(name) for name in names),
        constexprs,
        {name: config[name] for name in ("num_warps", "num_stages") if name in config} | dict(FLAT),
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
    """What to compile for a target: the last dim of every tensor dense, but that of scales and masks.

    `aligned` fixes channels and strides of rows to multiples of 16 bytes of 4-bit lanes, which vector loads need.
    """
    compute, _, named = precision.partition("-")
    formats = {"c8s": ("c8s",), "c8d": ("c8d",), "kv4": ("kv4_key", "kv4_value")}
    if compute not in _COMPUTE or named not in formats:
        raise unknown(
            "precision of triton kv_residual",
            precision,
            [f"{c}-{f}" for f in formats for c in _COMPUTE],
        )
    chosen = flags.get("kv", formats[named][0])
    write, kv, e3m0, nz = _flags({**flags, "kv": chosen})
    if kv not in formats[named]:
        raise unknown(f"kv of {precision}", kv, list(formats[named]))
    check_power("kv_residual", config, "num_warps")
    width = 2 if named == "kv4" else 1
    kernel = write_kernel if write else read_kernel
    present = _present(write, kv, e3m0)
    constexprs: dict[str, Any] = _constexprs(write, kv, e3m0, nz)
    # Lanes of 4 bits are 16-bit words: D/4 of them in multiples of 16 bytes.
    step, address = (32, 16) if aligned else (1, 1)
    kinds = _kinds(compute, named)
    rows = "x" if write else "y"
    places = {"N": f"size:{rows}:0", "HKV": f"size:{rows}:2", "D": f"size:{rows}:3"}
    places |= {"P": "size:codes:0", "R": "size:pool:0", "F": "size:fpool:0"}
    pages = dict(zip(_PAGE_STRIDES, page_sources("codes", nz), strict=False))
    pages = pages if nz else dict(list(pages.items())[:3])
    args = []
    for name in kernel.arg_names:
        if name in present:
            args.append(argument(name, f"*{kinds[name]}", f"data:{name}", address))
        elif name in _SIZES:
            args.append(argument(name, "int32", places[name], step if name == "D" else 1))
        elif name in pages:
            args.append(argument(name, "int64", pages[name], 16 // width if aligned else 1))
        elif name in _STRIDES and _STRIDES[name][0] in present:
            tensor, dim = _STRIDES[name]
            wide = {"x": step, "y": step, "fpool": step, "pool": step // 4}.get(tensor, 1)
            args.append(argument(name, "int64", f"stride:{tensor}:{dim}", max(1, wide)))
        elif name in _PAGE_STRIDES:
            constexprs[name] = 1
        elif name not in constexprs:
            constexprs[name] = 0 if name.startswith("stride") else None
    dense = _DENSE_LAST | {"codes": 4 if nz else 3}
    on_ascend = target.startswith("ascend:")
    options = {name: config[name] for name in ("num_warps", "num_stages") if name in config}
    return AotSource(
        family="kv_residual",
        fn=kernel,
        precision=precision,
        flags=dict(flags),
        config=dict(config),
        target=target,
        args=tuple(args),
        constexprs=constexprs,
        options={} if on_ascend else options | dict(FLAT),
        grid=Grid(_grid(write)),
        requirements=tuple(
            Requirement(f"stride:{name}:{dense[name]}", "equals", 1)
            for name in present
            if name in dense
        ),
    )


def _flags(flags: Mapping[str, str]) -> tuple[bool, str, bool, bool]:
    """(write, format, e3m0, nz)."""
    found = []
    for name, values in (
        ("direction", ("write", "read")),
        ("kv", KV),
        ("residual", ("nested", "e3m0")),
        ("kv_layout", ("nd", "nz")),
    ):
        value = flags.get(name, values[0])
        if value not in values:
            raise unknown(name, value, list(values))
        found.append(value)
    return found[0] == "write", found[1], found[2] == "e3m0", found[3] == "nz"


def _present(write: bool, kv: str, e3m0: bool) -> tuple[str, ...]:
    """The tensors of a call."""
    scales = {
        "c8s": ("channel_scale",),
        "c8d": ("token_scale",),
        "kv4_key": ("page_scale", "page_zero"),
        "kv4_value": ("token_scale", "token_zero"),
    }[kv]
    own = ("x", "select", "used_before", "used_after") if write else ("y",)
    pools = ("mask", "rank", "pool", "fmask", "frank", "fpool")
    return (*own, "page_ids", "codes", *scales, *pools, *(("pool_scale",) if e3m0 else ()))


def _kinds(compute: str, named: str) -> dict[str, str]:
    """Element types of the tensors."""
    kinds = dict.fromkeys(("x", "y", "fpool"), compute)
    kinds |= {"select": "uint8", "codes": "int16" if named == "kv4" else "int8", "pool": "int16"}
    kinds |= dict.fromkeys(("page_ids", "used_before", "used_after", "rank", "frank"), "int32")
    kinds |= dict.fromkeys(("mask", "fmask"), "int16") | {
        "channel_scale": "fp32",
        "pool_scale": "fp32",
    }
    kinds |= dict.fromkeys(("page_scale", "page_zero", "token_zero"), "fp16")
    kinds["token_scale"] = "fp16" if named == "kv4" else "fp32"
    return kinds


def _grid(write: bool) -> str:
    # A write of no pages still says how many rows are used.
    return "max(N * HKV, 1)" if write else "N * HKV"


def _constexprs(write: bool, kv: str, e3m0: bool, nz: bool) -> dict[str, Any]:
    width = 2 if kv.startswith("kv4") else 1
    found: dict[str, Any] = {"KV": KV.index(kv), "E3M0": e3m0, "C0": block_lanes(width, nz)}
    found |= {"PAGE": PAGE, "BLOCK": BLOCK}
    return found | ({"RUNS": RUNS} if write else {})


def _check(given: Mapping[str, torch.Tensor], write: bool) -> None:
    """What the spec rules out, where it lies on the CPU."""
    ids, codes = given["page_ids"], given["codes"]
    rows = given["x" if write else "y"]
    if rows.shape[-1] % 4:
        raise Refused(
            f"triton kv_residual: heads of {rows.shape[-1]} channels; accepted: multiples of 4"
        )
    if ids.device.type != "cpu":
        return
    pages = codes.shape[0]
    wrong = ((ids < 0) | (ids >= pages)).nonzero().flatten()
    if wrong.numel():
        at = int(wrong[0])
        raise Refused(
            f"triton kv_residual: page_ids[{at}] is {int(ids[at])}; accepted: 0 to {pages - 1}"
        )
    if write:
        _check_write(given)
    else:
        _check_ranks(given, ids.long())


def _check_write(given: Mapping[str, torch.Tensor]) -> None:
    twice = first_twice(given["page_ids"])
    if twice is not None:
        raise Refused(
            f"triton kv_residual: page {twice} stands twice in page_ids; accepted: every page once"
        )
    if bool((given["select"] > 2).any()):
        raise Refused(
            f"triton kv_residual: select holds {int(given['select'].max())}; accepted: 0 (plain), 1 (residual) or "
            "2 (float)"
        )
    for place, pool in enumerate(("pool", "fpool")):
        before, rows = int(given["used_before"][place]), given[pool].shape[0]
        if not 0 <= before <= rows:
            raise Refused(
                f"triton kv_residual: used_before[{place}] is {before}; accepted: 0 to {rows}, the rows of {pool}"
            )


def _check_ranks(given: Mapping[str, torch.Tensor], ids: torch.Tensor) -> None:
    import torch

    bits = [given[name][ids].to(torch.int32) & 0xFFFF for name in ("mask", "fmask")]
    if bool((bits[0] & bits[1]).any()):
        raise Refused(
            "triton kv_residual: a token stands in mask and in fmask; accepted: one of them"
        )
    for mask, rank, pool in ((bits[0], "rank", "pool"), (bits[1], "frank", "fpool")):
        count = ((mask[..., None] >> torch.arange(PAGE)) & 1).sum(-1)
        first, rows = given[rank][ids].long(), given[pool].shape[0]
        wrong = (mask != 0) & ((first < 0) | (first + count > rows))
        if bool(wrong.any()):
            n, h = (int(i) for i in wrong.nonzero()[0])
            raise Refused(
                f"triton kv_residual: {rank} of page {int(ids[n])}, head {h} is {int(first[n, h])} with "
                f"{int(count[n, h])} vectors; accepted: within the {rows} rows of {pool}"
            )
