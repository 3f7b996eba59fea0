"""paged_attention in plain torch and fp64: one sequence and one query after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tilewright.cases import Case
from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels._kv.reference import Stored, decode
from tilewright.kernels._kv.reference import to_nz as to_nz

_PARTS = tuple(f for f in Stored.__dataclass_fields__ if f != "codes")


def paged_attention(
    q: Tensor,
    cu_q: Tensor,
    seq_lens: Tensor,
    block_table: Tensor,
    k_cache: Tensor,
    v_cache: Tensor | None = None,
    k_open: Tensor | None = None,
    alibi: Tensor | None = None,
    *,
    case: Case,
    **formats: Tensor | None,
) -> tuple[Tensor, ...]:
    """o [TQ,HQ,DV] and, with the flag lse, lse [TQ,HQ]: the natural logarithm of the sum of exponentials; fp64.

    Query i of n of a sequence of L tokens stands at position p = L-n+i and sees key j iff
    p - window < j <= p. Its logits are softcap(scale * q.k) + slope * (j - p). With no visible key
    o = 0 and lse = -inf.
    """
    tq, hq, _ = q.shape
    dv = case.sizes["DV"]
    o, lse = q.new_zeros((tq, hq, dv)), q.new_full((tq, hq), -math.inf)
    for i, length in enumerate(seq_lens.tolist()):
        begin, end = int(cu_q[i]), int(cu_q[i + 1])
        if length == 0 or begin == end:
            continue
        own = block_table[i, : -(-length // PAGE)].to(torch.int64)
        open_page = k_open is not None and length % PAGE != 0
        k = _rows(_pages("k_", k_cache, own, formats, case, open_page), length)
        if k_open is not None and length % PAGE:
            k[length - length % PAGE :] = k_open[i, : length % PAGE].to(torch.float64)
        if v_cache is None:
            v = k[..., :dv]
        else:
            v = _rows(_pages("v_", v_cache, own, formats, case), length)
        o[begin:end], lse[begin:end] = attend(q[begin:end], k, v, alibi, case)
    return (o, lse) if case.flags["lse"] == "yes" else (o,)


def attend(
    q: Tensor, k: Tensor, v: Tensor, alibi: Tensor | None, case: Case
) -> tuple[Tensor, Tensor]:
    """One sequence: q [n,HQ,DK] at its end, k [L,HKV,DK], v [L,HKV,DV]; (o, lse)."""
    n, hq, dk = q.shape
    length, heads, _ = k.shape
    scale = case.number("scale") or 1.0 / math.sqrt(dk)
    softcap, window = case.number("softcap"), case.number("window")
    keys = torch.arange(length)
    o, lse = q.new_zeros((n, hq, v.shape[-1])), q.new_full((n, hq), -math.inf)
    for i in range(n):
        position = length - n + i
        first = max(0, math.floor(position - window) + 1) if window else 0
        seen = slice(first, max(first, position + 1))
        for h in range(hq if position >= 0 else 0):
            group = h // (hq // heads)
            logits = scale * (k[seen, group] @ q[i, h])
            if softcap:
                logits = softcap * torch.tanh(logits / softcap)
            if alibi is not None:
                logits = logits + alibi[h] * (keys[seen] - position)
            if logits.numel():
                lse[i, h] = torch.logsumexp(logits, 0)
                o[i, h] = torch.softmax(logits, 0) @ v[seen, group]
    return o, lse


def _pages(
    prefix: str,
    codes: Tensor,
    own: Tensor,
    formats: Mapping[str, Tensor | None],
    case: Case,
    skip_last: bool = False,
) -> Tensor:
    """A sequence's pages [n,16,HKV,D] as they stand for values, in fp64.

    With `skip_last` nothing but codes is looked at in the last one; its values mean nothing.
    """

    def part(name: str) -> Tensor | None:
        value = formats.get(prefix + name)
        shared = name in ("channel_scale", "pool", "pool_scale", "fpool")
        if value is None or shared:
            return value
        value = value[own]
        if skip_last and name in ("mask", "fmask"):
            value[-1] = 0
        return value

    stored = Stored(codes[own], **{name: part(name) for name in _PARTS})
    flags = case.flags
    return decode(stored, flags["kv"], flags["residual"], prefix == "k_").to(torch.float64)


def _rows(pages: Tensor, length: int) -> Tensor:
    """[n,16,HKV,D] to the [L,HKV,D] of them that are tokens."""
    return pages.flatten(0, 1)[:length]
