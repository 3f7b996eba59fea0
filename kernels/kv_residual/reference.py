"""kv_residual in plain torch: the encoders and decoders of `kernels/_kv/reference.py`, page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.dims import evaluate
from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels._kv.reference import (
    FLOAT,
    RESIDUAL,
    Stored,
    decode,
    encode_selected,
    to_nz,
)

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec

__all__ = ["kv_residual", "make_inputs", "to_nz"]

_BY_PAGE = ("codes", "token_scale", "token_zero", "page_scale", "page_zero")
_MASKS = ("mask", "rank", "fmask", "frank")
_POOLS = ("pool", "pool_scale", "fpool")
# As the spec's outputs stand.
_WRITTEN = (*_BY_PAGE, "mask", "rank", "pool", "pool_scale", "fmask", "frank", "fpool")


def kv_residual(
    page_ids: Tensor,
    x: Tensor | None = None,
    select: Tensor | None = None,
    channel_scale: Tensor | None = None,
    used_before: Tensor | None = None,
    *,
    case: Case,
    **others: Tensor | None,
) -> tuple[Tensor, ...]:
    """Pages after writing x [N,16,HKV,D] and the rows used; or the pages as they are and y, read from them.

    `others` are the tensors of the cache by name. Returns the present outputs in the spec's order.
    """
    cache = {name: others[name] for name in _WRITTEN if others.get(name) is not None}
    there = {name: value for name, value in cache.items() if value is not None}
    kv, key = format_of(case)
    ids = page_ids.long()
    if x is None:
        stored = Stored(
            **{n: v[ids] if n in (*_BY_PAGE, *_MASKS) else v for n, v in there.items()},
            channel_scale=channel_scale,
        )
        return (*there.values(), decode(stored, kv, case.flags["residual"], key))
    assert select is not None and used_before is not None
    stored, used = encode_selected(
        x,
        kv,
        key,
        case.flags["residual"],
        select,
        Stored(there["codes"], **{n: there[n] for n in _POOLS if n in there}),
        (int(used_before[0]), int(used_before[1])),
        channel_scale,
    )
    written = []
    for name, before in there.items():
        new = getattr(stored, name).to(before.dtype)
        if name not in _POOLS:
            new = before.index_copy(0, ids, new)
        written.append(new)
    return (*written, torch.tensor(used, dtype=torch.int32))


def format_of(case: Case) -> tuple[str, bool]:
    """The format's name and whether it is that of keys, as `kernels/_kv/reference.py` takes them."""
    kv = case.flags["kv"]
    return kv.split("_")[0], kv == "kv4_key"


def make_inputs(
    spec: KernelSpec, case: Case, generator: torch.Generator
) -> dict[str, Tensor | None]:
    """Pages over a cache that was written before: outlier channels, sinks, constant vectors, pools that may run out."""
    size = case.sizes
    kv, key = format_of(case)
    heads, d, pages = size["HKV"], size["D"], size["P"]
    dtypes = {t.name: spec.dtype_of(t, case).torch() for t in spec.tensors}
    drawn: dict[str, Tensor | None] = {t.name: None for t in spec.tensors if _given(t.name)}
    scale = torch.rand((heads, d), generator=generator) * 0.02 + 0.01
    old = _pages(pages, heads, d, generator).to(dtypes["x"])
    channel_scale = scale if kv == "c8s" else None
    stored, used = encode_selected(
        old,
        kv,
        key,
        case.flags["residual"],
        _select((pages, PAGE, heads), generator),
        _empty_pools(size["R"], size["F"], d, dtypes["x"], generator),
        channel_scale=channel_scale,
    )
    for tensor in spec.tensors:
        if tensor.name in _WRITTEN and tensor.present(case):
            drawn[tensor.name] = getattr(stored, tensor.name).to(dtypes[tensor.name])
    drawn["channel_scale"] = channel_scale
    drawn["page_ids"] = torch.randperm(pages, generator=generator)[: size["N"]].to(torch.int32)
    if case.flags["direction"] == "write":
        shape = tuple(int(evaluate(n, size)) for n in spec.inputs[0].dims)
        drawn["x"] = _pages(shape[0], heads, d, generator).to(dtypes["x"])
        drawn["select"] = _select(shape[:-1], generator)
        # As if the pages of before were being replaced: room for some of the new ones is left.
        drawn["used_before"] = torch.tensor([used[0] // 2, used[1] // 2], dtype=torch.int32)
    return drawn


def _given(name: str) -> bool:
    return name not in ("used_after", "y")


def _pages(pages: int, heads: int, d: int, generator: torch.Generator) -> Tensor:
    x = torch.randn((pages, PAGE, heads, d), generator=generator)
    if x.numel() == 0:
        return x
    x[..., int(torch.randint(d, (), generator=generator))] *= 12
    for value in (0.0, 1.5):
        page = int(torch.randint(pages, (), generator=generator))
        x[page, int(torch.randint(PAGE, (), generator=generator)), 0] = value
    return x


def _select(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """About one vector in ten with a residual, one in fifty in float."""
    where = torch.rand(shape, generator=generator)
    select = torch.zeros(shape, dtype=torch.uint8)
    select[where < 0.12] = RESIDUAL
    select[where < 0.02] = FLOAT
    return select


def _empty_pools(
    rows: int, frows: int, d: int, dtype: torch.dtype, generator: torch.Generator
) -> Stored:
    pool = torch.randint(-(2**15), 2**15, (rows, d // 4), generator=generator, dtype=torch.int32)
    return Stored(
        torch.empty(0),
        pool=pool.to(torch.int16),
        pool_scale=torch.rand((rows,), generator=generator) * 0.02 + 0.01,
        fpool=torch.randn((frows, d), generator=generator).to(dtype),
    )
