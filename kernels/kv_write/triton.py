"""kv_write in Triton: every format and both layouts; see `triton_kernel.py` for how.

Codes are the same bits as elsewhere: products and sums are kept apart, division rounds correctly. What lies on a
device is not looked at before: a slot outside the pages writes nothing there, and tokens of 4 bits must
keep the rules of `spec.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, KernelArg, Requirement, argument
from tilewright.errors import Refused, unknown
from tilewright.kernels._kv.formats import KV, PAGE
from tilewright.kernels._triton.kv import (
    FLAT,
    block_lanes,
    check_power,
    check_slots,
    page_sources,
    page_strides,
    require,
)
from tilewright.kernels.kv_write.triton_kernel import kernel

if TYPE_CHECKING:
    import torch

TILE_T = 16  # where a target's space has no tile_t
BLOCK = 64  # channels, or lanes of four, a step
_COMPUTE = {"fp32": 4, "bf16": 2, "fp16": 2}
_CODE = {"c8s": ("int8", 1), "c8d": ("int8", 1), "kv4": ("int16", 2)}
_GRID = "cdiv(T, {tile_t}) * HKV"
# What is present beside k, v, slots and the caches, in the order of the kernel.
_EXTRA: Mapping[str, tuple[str, ...]] = {
    "float": (),
    "c8s": ("k_channel_scale", "v_channel_scale"),
    "c8d": ("k_token_scale", "v_token_scale"),
    "kv4": (
        "open_row", "v_token_scale", "v_token_zero", "k_page_scale", "k_page_zero", "k_open",
    ),
}  # fmt: skip
_POINTERS = (
    "k", "v", "slots", "k_channel_scale", "v_channel_scale", "open_row", "k_cache", "v_cache",
    "k_token_scale", "v_token_scale", "v_token_zero", "k_page_scale", "k_page_zero", "k_open",
)  # fmt: skip
# Strides of the kernel by tensor, those of its last dim left out where it must be 1.
_STRIDES: Mapping[str, tuple[str, ...]] = {
    "k": ("stride_kt", "stride_kh"),
    "v": ("stride_vt", "stride_vh"),
    "k_channel_scale": ("stride_k_channel",),
    "v_channel_scale": ("stride_v_channel",),
    "k_token_scale": ("stride_ks0", "stride_ks1", "stride_ks2"),
    "v_token_scale": ("stride_vs0", "stride_vs1", "stride_vs2"),
    "v_token_zero": ("stride_vz0", "stride_vz1", "stride_vz2"),
    "k_page_scale": ("stride_ps0", "stride_ps1"),
    "k_page_zero": ("stride_pz0", "stride_pz1"),
    "k_open": ("stride_open0", "stride_open1", "stride_open2"),
}
_UNIT = ("k", "v", "slots", "open_row", "k_channel_scale", "v_channel_scale")
_UNIT_IN_PLACE = ("k_page_scale", "k_page_zero", "k_open")


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Write `k` and `v` into the caches, and what the format keeps beside them, in place.

    Inputs whose channels have gaps are copied. Raises Refused for slots and rows on the CPU that break a rule of
    the spec, and for page scales or open pages whose channels have gaps.
    """
    kv, nz = _format(flags)
    present = ("k", "v", "slots", "k_cache", "v_cache", *_EXTRA[kv])
    given = dict(zip(present, require("kv_write", tensors, *present), strict=True))
    for name in _UNIT:
        if name in given and given[name].stride(-1) != 1:
            given[name] = given[name].contiguous()
    for name in _UNIT_IN_PLACE:
        if name in given and given[name].shape[-1] > 1 and given[name].stride(-1) != 1:
            raise Refused(
                f"triton kv_write: {name} has stride {given[name].stride(-1)} along channels; accepted: 1"
            )
    _check(given, kv, config)
    k, v, k_cache, v_cache = (given[name] for name in ("k", "v", "k_cache", "v_cache"))
    tokens, heads, dk = k.shape
    rows = given["k_open"].shape[0] if "k_open" in given else 0
    strides = dict(zip(_page_names("k"), page_strides(k_cache, nz), strict=True))
    strides |= dict(zip(_page_names("v"), page_strides(v_cache, nz), strict=True))
    for name, those in _STRIDES.items():
        steps = given[name].stride() if name in given else (0,) * len(those)
        strides |= dict(zip(those, steps, strict=False))
    sizes = (tokens, heads, dk, v.shape[2], k_cache.shape[0], rows)
    interpreter.launch(
        kernel,
        Grid(_GRID.format(tile_t=config.get("tile_t", TILE_T))).evaluate(
            {"T": tokens, "HKV": heads}
        ),
        (
            *(given.get(name) for name in _POINTERS),
            *sizes,
            *(strides[name] for name in _stride_names()),
        ),
        _constexprs(kv, nz, config, k_cache.element_size()),
        {name: config[name] for name in ("num_warps", "num_stages")} | dict(FLAT),
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
    """What to compile for a target: channels, lanes, slots and rows contiguous.

    `aligned` fixes channels and strides of rows to multiples of 16 bytes, which vector loads need.
    """
    compute, _, named = precision.partition("-")
    if compute not in _COMPUTE or named not in ("", *_CODE):
        known = [c + (f"-{f}" if f else "") for f in ("", *_CODE) for c in _COMPUTE]
        raise unknown("precision of triton kv_write", precision, known)
    check_power("kv_write", config, "tile_t", "num_warps")
    kv, nz = named or "float", flags.get("kv_layout") == "nz"
    width = _COMPUTE[compute]
    code, code_width = _CODE.get(kv, (compute, width))
    # 4-bit lanes hold four channels: vector loads of them need multiples of 16 bytes of lanes.
    step = (16 // min(width, code_width)) * (4 if kv == "kv4" else 1) if aligned else 1
    address = 16 if aligned else 1
    present = ("k", "v", "slots", "k_cache", "v_cache", *_EXTRA[kv])
    kinds = dict.fromkeys(("k", "v", "k_open"), compute) | dict.fromkeys(
        ("slots", "open_row"), "int32"
    )
    kinds |= dict.fromkeys(("k_cache", "v_cache"), code)
    scale = "fp16" if kv == "kv4" else "fp32"
    pointers = tuple(
        argument(name, f"*{kinds.get(name, scale)}", f"data:{name}", address)
        for name in _POINTERS
        if name in present
    )
    sizes = (
        argument("T", "int32", "size:slots:0"),
        argument("HKV", "int32", "size:k:1"),
        argument("DK", "int32", "size:k:2", step),
        argument("DV", "int32", "size:v:2", step),
        argument("P", "int32", "size:k_cache:0"),
        *((argument("NS", "int32", "size:k_open:0"),) if "k_open" in present else ()),
    )
    strides = _stride_arguments(present, nz, step, 16 // code_width)
    fixed: dict[str, Any] = dict.fromkeys(set(_POINTERS) - set(present))
    named_strides = {arg.name for arg in strides}
    fixed |= {
        name: 1
        if name in ("k_lane", "v_lane") or (name in ("k_block", "v_block") and not nz)
        else 0
        for name in _stride_names()
        if name not in named_strides
    }
    if "k_open" not in present:
        fixed["NS"] = 0
    last = {"k": 2, "v": 2, "slots": 0, "open_row": 0, "k_channel_scale": 1, "v_channel_scale": 1}
    last |= {"k_page_scale": 2, "k_page_zero": 2, "k_open": 3}
    last |= dict.fromkeys(("k_cache", "v_cache"), 4 if nz else 3)
    on_ascend = target.startswith("ascend:")
    options = {name: config[name] for name in ("num_warps", "num_stages") if name in config}
    return AotSource(
        family="kv_write",
        fn=kernel,
        precision=precision,
        flags=dict(flags),
        config=dict(config),
        target=target,
        args=(*pointers, *sizes, *strides),
        constexprs=fixed | _constexprs(kv, nz, config, code_width),
        options={} if on_ascend else options | dict(FLAT),
        grid=Grid(_GRID.format(tile_t=config.get("tile_t", TILE_T))),
        requirements=tuple(
            Requirement(f"stride:{name}:{last[name]}", "equals", 1)
            for name in present
            if name in last
        ),
    )


def _page_names(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_{name}" for name in ("page", "token", "head", "block", "lane"))


def _stride_names() -> tuple[str, ...]:
    """The kernel's stride parameters, in its order."""
    names = list(kernel.arg_names)
    return tuple(names[names.index("stride_kt") : names.index("KV")])


def _stride_arguments(
    present: tuple[str, ...], nz: bool, step: int, lanes: int
) -> tuple[KernelArg, ...]:
    """Run-time strides of the tensors that are there; those of channels must be 1 and are fixed."""
    found = {}
    for name, those in _STRIDES.items():
        if name in present:
            wide = step if name in ("k", "v", "k_open") else 1
            for place, one in enumerate(those):
                found[one] = argument(one, "int64", f"stride:{name}:{place}", wide)
    for prefix in "kv":
        names = _page_names(prefix)[:4] if nz else _page_names(prefix)[:3]
        for one, source in zip(names, page_sources(f"{prefix}_cache", nz), strict=False):
            found[one] = argument(one, "int64", source, lanes if step > 1 else 1)
    return tuple(found[name] for name in _stride_names() if name in found)


def _format(flags: Mapping[str, str]) -> tuple[str, bool]:
    kv = flags.get("kv", "float")
    if kv not in KV:
        raise unknown("kv", kv, list(KV))
    return kv, flags.get("kv_layout") == "nz"


def _constexprs(kv: str, nz: bool, config: Mapping[str, int], code_bytes: int) -> dict[str, Any]:
    return {
        "KV": KV.index(kv),
        "C0": block_lanes(code_bytes, nz),
        "PAGE": PAGE,
        "TILE_T": config.get("tile_t", TILE_T),
        "BLOCK": BLOCK,
    }


def _check(given: Mapping[str, torch.Tensor], kv: str, config: Mapping[str, int]) -> None:
    check_power("kv_write", config, "tile_t", "num_warps")
    slots = given["slots"]
    check_slots("kv_write", slots, given["k_cache"].shape[0], PAGE, distinct=True)
    if kv != "kv4":
        return
    for name in ("k", "v"):
        if given[name].shape[-1] % 4:
            raise Refused(
                f"triton kv_write: {name} has heads of {given[name].shape[-1]} channels; accepted with kv4: "
                "multiples of 4"
            )
    if slots.device.type == "cpu":
        _check_open_pages(slots, given["open_row"], given["k_open"].shape[0])


def _check_open_pages(slots: torch.Tensor, open_row: torch.Tensor, rows: int) -> None:
    """Tokens of a page are neighbours with one row, and a row that is read or written is one page's."""
    from tilewright.kernels.kv_write.reference import page_runs

    pages: set[int] = set()
    used: set[int] = set()
    for run in page_runs(slots):
        its = open_row[run.token : run.token + run.count]
        row = int(its[0])
        where = f"triton kv_write: token {run.token}"
        if run.page in pages:
            raise Refused(
                f"{where} is of page {run.page}, as an earlier one that is no neighbour; accepted: tokens of a page "
                "as neighbours in ascending order"
            )
        if not 0 <= row < rows or bool((its != row).any()):
            raise Refused(
                f"{where}: open_row {its.tolist()}; accepted: one row from 0 to {rows - 1} a page"
            )
        whole = run.count == PAGE
        if not whole and row in used:
            raise Refused(
                f"{where} needs row {row} of k_open, as another page does; accepted: one page a row"
            )
        pages.add(run.page)
        if not whole:
            used.add(row)
