"""Residuals of pages that are full: which vectors get them, and where their rows lie.

Each page has the same number of rows in a pool, at its own number: nothing is ever given out or taken back.
The vectors of a page that err most get them. With static scales those that are clipped most stay floats.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tilewright.dtypes import from_torch
from tilewright.engine.kv_formats import KvFormat
from tilewright.engine.ops import Ops
from tilewright.kernels._kv.formats import precision_name
from tilewright.kernels._kv.reference import FLOAT, RESIDUAL
from tilewright.kernels.kv_residual.select import relative_error

_OF_CALL = ("codes", "token_scale", "token_zero", "page_scale", "page_zero")
_OF_PAGE = ("mask", "rank", "fmask", "frank")
_POOLS = (("rank", "mask", ("pool", "pool_scale")), ("frank", "fmask", ("fpool",)))


def selection(x: Tensor, form: KvFormat, key: bool, scale: Tensor | None) -> Tensor:
    """A selection uint8 [N,16,HKV] of pages x [N,16,HKV,D], with the format's quotas exactly taken in each."""
    residual, floats = form.quotas(x.shape[2])
    chosen = torch.zeros(x.shape[:-1], dtype=torch.uint8).flatten(1)
    error = relative_error(x, form.kv, key, scale).flatten(1)
    if floats and scale is not None:
        beyond = (x.float().abs() / scale).amax(-1).flatten(1)
        most = beyond.topk(floats, dim=1).indices
        chosen.scatter_(1, most, FLOAT)
        error.scatter_(1, most, -1.0)
    chosen.scatter_(1, error.topk(residual, dim=1).indices, RESIDUAL)
    return chosen.view(x.shape[:-1])


def encode(
    ops: Ops, form: KvFormat, cache: Mapping[str, Tensor], x: Tensor, pages: Tensor, key: bool
) -> None:
    """Pages x [N,16,HKV,D] anew into those numbered `pages` [N] int32, with residuals.

    `cache` are the tensors of one layer's keys or values, by their names in `kv_residual`.
    """
    n, _, heads, width = x.shape
    quotas = form.quotas(heads)
    scale = cache.get("channel_scale")
    kv = form.kv if form.kv != "kv4" else "kv4_key" if key else "kv4_value"
    out = {name: cache[name] for name in (*_OF_CALL, *_OF_PAGE) if name in cache}
    # The call gives out rows one after the other; a page's own ones may be anywhere.
    pools = {
        name: cache[name].new_zeros((n * rows, *cache[name].shape[1:]))
        for rows, (_, _, names) in zip(quotas, _POOLS, strict=True)
        for name in names
        if name in cache
    }
    ops.call(
        "kv_residual",
        precision_name(from_torch(x.dtype), form.kv),
        {"kv": kv, "residual": form.residual, "kv_layout": form.layout},
        {"N": n, "HKV": heads, "D": width, "P": cache["mask"].shape[0]}
        | {"R": n * quotas[0], "F": n * quotas[1]},
        {"x": x, "page_ids": pages, "select": selection(x, form, key, scale)}
        | {"channel_scale": scale, "used_before": torch.zeros(2, dtype=torch.int32)},
        {**out, **pools, "used_after": torch.zeros(2, dtype=torch.int32)},
        {"codes": form.nd(cache["codes"], width)}
        if ops.backends.of("kv_residual") == "reference"
        else {},
    )
    own = pages.long()
    for rows, (rank, mask, names) in zip(quotas, _POOLS, strict=True):
        moved = (own - torch.arange(n))[:, None] * rows
        cache[rank][own] += torch.where(cache[mask][own] != 0, moved, 0).int()
        for name in names:
            if name in cache and rows:
                rest = pools[name].shape[1:]
                cache[name].view(-1, rows, *rest)[own] = pools[name].view(n, rows, *rest)


def clear(cache: Mapping[str, Tensor], pages: tuple[int, ...]) -> None:
    """Pages that are begun anew have no residuals, in every layer of `cache` [layers,P,...]."""
    for name, whole in cache.items():
        if name.endswith("mask"):
            whole[:, list(pages)] = 0
