"""paged_attention in Triton: decode, speculation and chunks over pages of 16 tokens, in every format.

The first kernel takes a tile of rows (queries of one sequence times heads of one kv head) over one split of
`split_pages` pages; the second merges a row's splits by their log-sum-exp. With `split_pages` 0 there is one
split and no second kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import triton.language as tl

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource
from tilewright.errors import Refused, unknown
from tilewright.kernels._kv.formats import KV, PAGE, RESIDUAL
from tilewright.kernels._triton.flash import settled, split
from tilewright.kernels.paged_attention.triton_arguments import DENSE, Arguments
from tilewright.kernels.paged_attention.triton_checks import check
from tilewright.kernels.paged_attention.triton_kernel import kernel, merge

if TYPE_CHECKING:
    import torch

_GRID = "TQ * HQ // {tile_m} + NS * HKV"
_SPLITS = "max(1, cdiv(MP, {split_pages}))"
_MERGE_OPTIONS = MappingProxyType({"num_warps": 1, "num_stages": 1})
_COMPUTE = MappingProxyType({"fp32": tl.float32, "bf16": tl.bfloat16, "fp16": tl.float16})
_BYTES = MappingProxyType({"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "int16": 2})
# Flags that a binary takes as arguments or null tensors, or that change nothing.
_FREE = ("scale", "softcap", "window", "alibi", "lse")
# Under batch_invariant, whatever the config says.
_INVARIANT = MappingProxyType({"tile_m": 16, "tile_n": 32, "split_pages": 32, "num_warps": 4})
# Dims that a binary fixes: those that bundles carry. Any others compile as well.
FIXED_SIZES: tuple[Mapping[str, int], ...] = (MappingProxyType({"DK": 128, "DV": 128}),)
_LANE_BYTES = 32  # of one block of an nz page


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `o`, and `lse` where it is given, in place.

    Channels of q, caches and outputs are contiguous, everything that comes with codes is copied where it is
    not dense. Raises Refused for a tile that is no power of two, and for tensors on the CPU whose tables,
    lengths or ranks lead out of them.
    """
    import torch

    config = settled(config, flags, _INVARIANT)
    q, k, o = (_tensor(tensors, name) for name in ("q", "k_cache", "o"))
    lse = tensors.get("lse")
    latent = flags.get("values") == "latent"
    v = k if latent else _tensor(tensors, "v_cache")
    if not q.is_cuda:
        check(tensors, flags.get("kv") == "kv4")
    for name in ("q", "k_cache", "v_cache", "o"):
        tensor = tensors.get(name)
        if tensor is not None and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise Refused(f"{name} has stride {tensor.stride(-1)} along channels; accepted: 1")
    (tq, hq, dk), dv = q.shape, o.shape[-1]
    table = _tensor(tensors, "block_table")
    sequences, width = table.shape
    nz = flags.get("kv_layout") == "nz"
    hkv = k.shape[1] if nz else k.shape[2]
    pages = config["split_pages"]
    splits = max(1, -(-width // pages)) if pages else 1
    compute = {"torch.bfloat16": "bf16", "torch.float16": "fp16"}.get(str(q.dtype), "fp32")
    constexprs = _constexprs(config, flags, dk, dv, k.element_size(), compute)
    if splits == 1:
        constexprs["SPLIT_PAGES"] = 0
    if interpret and compute == "bf16":
        constexprs["COMPUTE"] = tl.float32  # see tilewright.interpret
    partial = None
    if splits > 1:
        partial = torch.empty(splits * tq * hq * (dv + 2), dtype=torch.float32, device=q.device)
    (tiles,) = Grid(_GRID.format(**config)).evaluate(
        {"TQ": tq, "HQ": hq, "NS": sequences, "HKV": hkv}
    )[:1]
    options = {name: config[name] for name in ("num_warps", "num_stages")}
    interpreter.launch(
        kernel,
        (tiles, splits, 1),
        (
            q,
            *(_tensor(tensors, name).contiguous() for name in ("cu_q", "seq_lens")),
            *(table, k, v),
            *(None if (x := tensors.get(name)) is None else x.contiguous() for name in DENSE),
            *(o, lse, partial),
            *(float(flags.get(name, "0")) for name in ("scale", "softcap")),
            math.ceil(float(flags.get("window", "0"))),
            *(tq, hq, hkv, sequences),
            *q.stride()[:2],
            table.stride(0),
            *_page_strides(k, nz),
            *_page_strides(v, nz),
            *o.stride()[:2],
            *(lse.stride() if lse is not None else (0, 0)),
        ),
        constexprs,
        options,
        interpret=interpret,
    )
    if splits > 1:
        interpreter.launch(
            merge,
            (tq * hq, 1, 1),
            (
                *(partial, o, lse, hq, width),
                *o.stride()[:2],
                *(lse.stride() if lse is not None else (0, 0)),
            ),
            _merge_constexprs(dv, pages),
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
    sizes: Mapping[str, int] = FIXED_SIZES[0],
) -> AotSource:
    """What to compile for a target: channels contiguous, what comes with codes dense, `lse` nullable.

    A binary takes any scale, window, cap and slopes. `aligned` fixes addresses and strides of q, caches and o
    to multiples of 16 bytes.
    """
    asked, config = config, settled(config, flags, _INVARIANT)
    same = config == settled(config, {"batch_invariant": "yes"}, _INVARIANT)
    # Configs of the Ascend road have tiles only.
    config = {"tile_m": 16, "tile_n": 32, "split_pages": 0, **config}
    compute, _, code = precision.partition("-")
    if compute not in _COMPUTE or code not in ("", *KV[1:]):
        raise unknown("precision of triton paged_attention", precision, list(_COMPUTE))
    flags = {**flags, "kv": code or "float"}
    stored = {"": compute, "kv4": "int16"}.get(code, "int8")
    constexprs = _constexprs(config, flags, sizes["DK"], sizes["DV"], _BYTES[stored], compute)
    if target.startswith("cuda:"):
        constexprs["PRECISION"] = "tf32x3"
    layout = Arguments(compute, stored, flags, aligned)
    args = layout.kernel(config["split_pages"] > 0)
    given = {a.name for a in args}
    absent = [name for name in ("v_cache", "partial", *DENSE) if name not in given]
    constexprs |= dict.fromkeys(absent) | dict.fromkeys(set(layout.unused()) - given, 0)
    common: dict[str, Any] = {
        "family": "paged_attention",
        "precision": precision,
        "flags": flags,
        "config": dict(asked),
        "target": target,
        "sizes": dict(sizes),
        "free": (*_FREE, *(("batch_invariant",) * same)),
    }
    on_ascend = target.startswith("ascend:")
    options = {} if on_ascend else {n: config[n] for n in ("num_warps", "num_stages")}
    splits = _SPLITS.format(**config) if config["split_pages"] else "1"
    then: tuple[AotSource, ...] = ()
    if config["split_pages"]:
        then = (
            AotSource(
                fn=merge,
                args=layout.merge(),
                constexprs=_merge_constexprs(sizes["DV"], config["split_pages"]),
                options={} if on_ascend else dict(_MERGE_OPTIONS),
                grid=Grid("TQ * HQ"),
                **common,
            ),
        )
    return AotSource(
        fn=kernel,
        args=args,
        constexprs=constexprs,
        options=options,
        grid=Grid(_GRID.format(**config), splits),
        requirements=layout.requirements(given),
        then=then,
        workspace=Grid(f"{splits} * TQ * HQ * {4 * (sizes['DV'] + 2)}") if then else None,
        **common,
    )


def _page_strides(cache: torch.Tensor, nz: bool) -> tuple[int, int, int, int]:
    """Strides of page, token, head and block of lanes, in elements."""
    s = cache.stride()
    return (s[0], s[3], s[1], s[2]) if nz else (s[0], s[1], s[2], 0)


def _merge_constexprs(dv: int, pages: int) -> dict[str, Any]:
    return {"DV": dv, "WIDTH": 1 << max(0, dv - 1).bit_length(), "SPLIT_PAGES": pages}


def _constexprs(
    config: Mapping[str, int],
    flags: Mapping[str, str],
    dk: int,
    dv: int,
    lane_bytes: int,
    compute: str,
) -> dict[str, Any]:
    for name in ("tile_m", "tile_n"):
        if config[name] < 16 or config[name] & (config[name] - 1):
            raise Refused(
                f"triton paged_attention takes powers of two from 16 for {name}, not {config[name]}"
            )
    if config["split_pages"] * PAGE % config["tile_n"]:
        raise Refused(
            f"split_pages={config['split_pages']} is {config['split_pages'] * PAGE} tokens, which tiles of "
            f"tile_n={config['tile_n']} do not fill"
        )
    kv, residual = flags.get("kv", "float"), flags.get("residual", "none")
    (k_head, k_tail), (v_head, v_tail) = split(dk), split(dv)
    return {
        "DK": dk,
        "DV": dv,
        "TILE_M": config["tile_m"],
        "TILE_N": config["tile_n"],
        "K_HEAD": k_head,
        "K_TAIL": k_tail,
        "V_HEAD": v_head,
        "V_TAIL": v_tail,
        "KV": KV.index(kv),
        "RESIDUAL": RESIDUAL.index(residual),
        "C0": _LANE_BYTES // lane_bytes if flags.get("kv_layout") == "nz" else 0,
        "LATENT": flags.get("values") == "latent",
        # A weight times the scale of a token could be below what fp16 holds.
        "FOLD": residual == "none" and (kv == "c8s" or (kv == "c8d" and compute != "fp16")),
        "SPLIT_PAGES": config["split_pages"],
        "COMPUTE": _COMPUTE[compute],
        "PRECISION": "ieee",
    }


def _tensor(tensors: Mapping[str, torch.Tensor | None], name: str) -> torch.Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise Refused(f"triton paged_attention needs tensor '{name}'; given: {', '.join(tensors)}")
    return tensor
