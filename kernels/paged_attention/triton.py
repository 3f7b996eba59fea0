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
from tilewright.errors import Refused
from tilewright.kernels._kv.formats import KV, PAGE, RESIDUAL
from tilewright.kernels._triton.flash import split
from tilewright.kernels.paged_attention.triton_checks import check
from tilewright.kernels.paged_attention.triton_kernel import kernel, merge

if TYPE_CHECKING:
    import torch

_GRID = "TQ * HQ // {tile_m} + NS * HKV"
_LANE_BYTES = 32  # of one block of an nz page
# Tensors that the kernel takes dense, in its order.
DENSE = (
    *("k_channel_scale", "k_token_scale", "k_page_scale", "k_page_zero"),
    *("v_channel_scale", "v_token_scale", "v_token_zero", "k_open"),
    *(
        f"{prefix}_{name}"
        for prefix in "kv"
        for name in ("mask", "rank", "pool", "pool_scale", "fmask", "frank", "fpool")
    ),
    "alibi",
)


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
    splits = -(-width // pages) if pages else 1
    constexprs = _constexprs(config, flags, dk, dv, k.element_size()) | {
        "SPLIT_PAGES": pages if splits > 1 else 0,
        "COMPUTE": _compute(str(q.dtype).removeprefix("torch."), interpret),
    }
    partial = None
    if splits > 1:
        partial = torch.empty(splits * tq * hq * (dv + 2), dtype=torch.float32, device=q.device)
    (tiles,) = (Grid(_GRID.format(**config)).evaluate({"TQ": tq, "HQ": hq, "NS": sequences, "HKV": hkv})[:1])
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
                *(partial, o, lse, hq, splits),
                *o.stride()[:2],
                *(lse.stride() if lse is not None else (0, 0)),
            ),
            {"DV": dv, "WIDTH": 1 << (dv - 1).bit_length()},
            {"num_warps": 1, "num_stages": 1},
            interpret=interpret,
        )


def _page_strides(cache: torch.Tensor, nz: bool) -> tuple[int, int, int, int]:
    """Strides of page, token, head and block of lanes, in elements."""
    s = cache.stride()
    return (s[0], s[3], s[1], s[2]) if nz else (s[0], s[1], s[2], 0)


def _compute(name: str, interpret: bool) -> tl.dtype:
    """What dots take: the type of the queries; fp32 where the interpreter would compute bf16 wrongly."""
    kinds = {"float32": tl.float32, "bfloat16": tl.bfloat16, "float16": tl.float16}
    return tl.float32 if interpret and name == "bfloat16" else kinds[name]


def _constexprs(
    config: Mapping[str, int], flags: Mapping[str, str], dk: int, dv: int, lane_bytes: int
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
        "EXTRAS": float(flags.get("softcap", "0")) > 0 or flags.get("alibi") == "yes",
        "FOLD": kv in ("c8s", "c8d") and residual == "none",
        "PRECISION": "ieee",
    }


def _tensor(tensors: Mapping[str, torch.Tensor | None], name: str) -> torch.Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise Refused(f"triton paged_attention needs tensor '{name}'; given: {', '.join(tensors)}")
    return tensor
