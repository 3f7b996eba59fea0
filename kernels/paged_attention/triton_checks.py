"""What a kernel trusts, looked at where the tensors are on the CPU: page tables, lengths, masks and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tilewright.errors import Refused
from tilewright.kernels._kv.formats import PAGE

if TYPE_CHECKING:
    import torch


def check(tensors: Mapping[str, torch.Tensor | None], kv4: bool) -> None:
    """Raise Refused, naming the value, for what would lead a kernel out of its tensors.

    On a GPU nothing is looked at: it would cost a copy and a wait, and the caller's engine made the tables.
    """
    cu_q, lengths, table = (_there(tensors, n) for n in ("cu_q", "seq_lens", "block_table"))
    queries, pages = _there(tensors, "q").shape[0], _there(tensors, "k_cache").shape[0]
    starts, counts = cu_q.tolist(), lengths.tolist()
    if starts[0] != 0 or starts[-1] != queries or starts != sorted(starts):
        raise Refused(f"cu_q is {starts[:8]}; accepted: from 0 to {queries}, never falling")
    most = table.shape[1] * PAGE
    for i, count in enumerate(counts):
        if not 0 <= count <= most:
            raise Refused(
                f"seq_lens[{i}] is {count}; accepted: 0 to {most}, the tokens of a table row"
            )
    used, read = set[int](), set[int]()
    for i, count in enumerate(counts):
        own = table[i, : -(-count // PAGE)].tolist()
        wrong = next((p for p in own if not 0 <= p < pages), None)
        if wrong is not None:
            raise Refused(f"block_table[{i}] names page {wrong}; accepted: 0 to {pages - 1}")
        used.update(own)
        # The codes of the keys of an open page are never read.
        read.update(own[: count // PAGE] if kv4 else own)
    for prefix, own_pages in (("k_", read), ("v_", used)):
        for mask, rank, pool in (("mask", "rank", "pool"), ("fmask", "frank", "fpool")):
            _check_ranks(tensors, (prefix + mask, prefix + rank, prefix + pool), sorted(own_pages))


def _check_ranks(
    tensors: Mapping[str, torch.Tensor | None], names: tuple[str, str, str], pages: list[int]
) -> None:
    mask, rank, pool = (tensors.get(name) for name in names)
    if mask is None or rank is None or pool is None or not pages:
        return
    bits, first = mask[pages].to(dtype=rank.dtype), rank[pages]
    ones = bits & 1
    for token in range(1, PAGE):
        ones = ones + ((bits >> token) & 1)
    wrong = ((ones > 0) & ((first < 0) | (first + ones > pool.shape[0]))).nonzero()
    if wrong.numel():
        page, head = pages[int(wrong[0, 0])], int(wrong[0, 1])
        raise Refused(
            f"{names[1]}[{page},{head}] is {int(rank[page, head])} and {names[0]} has "
            f"{int(ones[wrong[0, 0], head])} bits; accepted: rows of the {pool.shape[0]} of {names[2]}"
        )


def _there(tensors: Mapping[str, torch.Tensor | None], name: str) -> torch.Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise Refused(f"triton paged_attention needs tensor '{name}'; given: {', '.join(tensors)}")
    return tensor
