"""Other implementations of decoding over a paged cache, each as a user would call it.

vLLM's kernel for 16-token pages, and the one it prefers where it may choose the page; SGL's decode
kernel, which takes the tokens of a request from a table of slots; torch's attention, which has no pages
and is given the sequence's keys and values gathered beforehand. Caches are laid out once in `prepare`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.errors import Unavailable
from tilewright.kernels._kv.formats import PAGE
from tilewright.peers import Call, Peer, tried, vllm_ops

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """Every peer; the caller sets torch's threads to `threads` before preparing and calling."""
    return [
        Peer(
            "vllm",
            "vLLM's cpu_attention_with_kv_cache, 16-token pages",
            lambda: _vllm(case, inputs),
        ),
        Peer(
            "vllm-wide-pages",
            "the same on pages of 32 tokens, with the instruction set it then prefers",
            lambda: _vllm(case, inputs, 32),
        ),
        Peer("sgl", "SGL's decode_attention_cpu, in vLLM's wheel", lambda: _sgl(case, inputs)),
        Peer(
            "torch",
            "torch.nn.functional.scaled_dot_product_attention on gathered keys and values",
            lambda: _torch(case, inputs),
        ),
    ]


def _operand(inputs: Inputs, name: str) -> Tensor:
    value = inputs.logical[name]
    if value is None:
        raise Unavailable(f"the case lacks {name}")
    return value


def _plain(who: str, case: Case, *given: str) -> None:
    """Raise Unavailable for the first flag that is not at its plain value and not among `given`."""
    plain = {"values": "separate", "kv": "float", "lse": "no", "alibi": "no", "softcap": "0"}
    for name, value in {**plain, "window": "0"}.items():
        if name not in given and case.flags[name] != value:
            raise Unavailable(f"{who} has no {name}={case.flags[name]}")


def _scale(case: Case) -> float:
    return case.number("scale") or 1.0 / math.sqrt(case.sizes["DK"])


def _tokens(inputs: Inputs, name: str) -> list[Tensor]:
    """The rows [L,HKV,D] of every sequence, in order."""
    cache, table = _operand(inputs, name), _operand(inputs, "block_table")
    lengths = _operand(inputs, "seq_lens").tolist()
    return [
        cache[row[: -(-length // PAGE)].long()].flatten(0, 1)[:length]
        for row, length in zip(table, lengths, strict=True)
    ]


def _vllm(case: Case, inputs: Inputs, page: int = PAGE) -> Call:
    _plain("vLLM", case, "alibi", "softcap", "window")
    s = case.sizes
    ops = vllm_ops()
    wide = page % 32 == 0
    amx = torch.cpu._is_amx_tile_supported() and case.precision == "bf16"
    isa = "vec16" if not wide else "amx" if amx else "vec"
    table, slots = _pages(_operand(inputs, "seq_lens").tolist(), page)
    room = torch.zeros(
        (int(table.max()) + 1, s["HKV"], 2 * page, s["DK"]), dtype=_operand(inputs, "q").dtype
    )
    keys, values = room.chunk(2, dim=2)
    ops.cpu_attn_reshape_and_cache(
        torch.cat(_tokens(inputs, "k_cache")),
        torch.cat(_tokens(inputs, "v_cache")),
        keys,
        values,
        slots,
        isa,
        1.0,
        1.0,
        "auto",
    )
    q, starts, lengths = (_operand(inputs, n) for n in ("q", "cu_q", "seq_lens"))
    window = case.number("window")
    reach = math.ceil(window) if window else -1
    plan = ops.get_scheduler_metadata(
        s["NS"], s["HQ"], s["HKV"], s["DK"], lengths, q.dtype, starts, True, reach, isa, False, None, "auto"
    )  # fmt: skip
    out = torch.empty_like(q)
    alibi = inputs.logical["alibi"]

    def call() -> Tensor:
        ops.cpu_attention_with_kv_cache(
            q, keys, values, out, starts, lengths, _scale(case), True, alibi, reach,
            table, case.number("softcap"), plan, None, None, 1.0, 1.0, "auto",
        )  # fmt: skip
        return out

    return tried(call, "vLLM")


def _pages(lengths: list[int], page: int) -> tuple[Tensor, Tensor]:
    """A table [NS,*] of pages in random order, and the slot of every token of all sequences."""
    counts = [-(-n // page) for n in lengths]
    order = torch.randperm(max(sum(counts), 1), generator=torch.Generator().manual_seed(0))
    table = torch.zeros((len(lengths), max(counts + [1])), dtype=torch.int32)
    slots, taken = [], 0
    for i, count in enumerate(counts):
        own = order[taken : taken + count]
        taken += count
        table[i, :count] = own.to(torch.int32)
        all_slots = (own[:, None] * page + torch.arange(page)).flatten()
        slots.append(all_slots[: lengths[i]])
    return table, torch.cat(slots) if slots else torch.zeros(0, dtype=torch.int64)


def _sgl(case: Case, inputs: Inputs) -> Call:
    _plain("SGL", case, "softcap")
    s = case.sizes
    if s["TQ"] != s["NS"]:
        raise Unavailable("SGL decodes one query of a sequence")
    k, v = torch.cat(_tokens(inputs, "k_cache")), torch.cat(_tokens(inputs, "v_cache"))
    lengths = _operand(inputs, "seq_lens").to(torch.int64)
    if int(lengths.min()) == 0:
        raise Unavailable("SGL takes no empty sequence")
    # Tokens lie in pages of 16 in random order, as ours do.
    table, slots = _pages(lengths.tolist(), PAGE)
    rows = (int(table.max()) + 1) * PAGE
    keys, values = (x.new_zeros((rows, *x.shape[1:])) for x in (k, v))
    keys[slots], values[slots] = k, v
    requests = torch.zeros((s["NS"], int(lengths.max())), dtype=torch.int32)
    ends = lengths.cumsum(0).tolist()
    for i, end in enumerate(ends):
        begin = end - int(lengths[i])
        requests[i, : end - begin] = slots[begin:end].to(torch.int32)
    q = _operand(inputs, "q")
    out = torch.empty_like(q)
    splits = 8
    logits = torch.empty((s["NS"], s["HQ"], splits, s["DV"] + 1), dtype=torch.float32)
    index = torch.arange(s["NS"], dtype=torch.int64)
    # The newest token stands in the cache already; the kernel writes it once more.
    last = torch.tensor([end - 1 for end in ends])
    new_k, new_v, place = k[last].contiguous(), v[last].contiguous(), slots[last].to(torch.int64)
    ops = vllm_ops()

    def call() -> Tensor:
        ops.decode_attention_cpu(
            q, keys, values, out, new_k, new_v, place, logits, requests, index, lengths,
            _scale(case), case.number("softcap"), False, -1, None, None,
        )  # fmt: skip
        return out

    return tried(call, "SGL")


def _torch(case: Case, inputs: Inputs) -> Call:
    _plain("torch", case)
    s = case.sizes
    if s["TQ"] != s["NS"] or s["NS"] != 1:
        raise Unavailable("torch's attention has no lengths: it is given one query of one sequence")
    q = _operand(inputs, "q").transpose(0, 1)[None]
    k, v = (_tokens(inputs, n)[0].transpose(0, 1)[None] for n in ("k_cache", "v_cache"))
    attend = torch.nn.functional.scaled_dot_product_attention
    scale, shared = _scale(case), s["HQ"] != s["HKV"]
    return tried(
        lambda: attend(q, k, v, scale=scale, enable_gqa=shared)[0].transpose(0, 1), "torch"
    )
