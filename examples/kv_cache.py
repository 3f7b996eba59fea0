"""A paged KV cache from tokens to attention, with the compiled ops: what an engine does in every step.

    python examples/kv_cache.py

Two sequences of different lengths prefill and then decode a few tokens. Pages come from the lock-free
pool, queries and keys are turned by rope, kv_write puts keys and values into 16-token pages (bf16, int8
with a scale a token, Ascend's fractal layout), paged_attention reads them through block tables. The last
step of each is compared with torch's attention over the whole history.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tilewright.bindings.torch.ops import torch_op
from tilewright.inputs import aligned
from tilewright.kernels.rope.tables import cos_sin
from tilewright.pages import PagePool, page_of
from tilewright.registry import family

HQ, HKV, D, PAGE, PAGES = 6, 2, 64, 16, 32
PROMPTS, STEPS = (37, 20), 5


def cache(kind: str, layout: str) -> Tensor:
    """One layer's keys or values, pages aligned to 512 bytes."""
    dtype = torch.int8 if kind == "c8d" else torch.bfloat16
    c0 = 32 // dtype.itemsize
    shape = (PAGES, PAGE, HKV, D) if layout == "nd" else (PAGES, HKV, D // c0, PAGE, c0)
    return aligned(torch.zeros(shape, dtype=dtype), 512)


class Sequence:
    """Pages of one sequence and, for the comparison, its whole history."""

    def __init__(self, pool: PagePool) -> None:
        self.pool, self.pages, self.length = pool, list[int](), 0
        self.keys = torch.empty((0, HKV, D), dtype=torch.bfloat16)
        self.values = self.keys.clone()

    def slots(self, count: int) -> list[int]:
        """Places of the next `count` tokens; takes pages as they are needed."""
        last = self.length + count
        while len(self.pages) * PAGE < last:
            self.pages.append(page_of(self.pool.alloc()))
        places = range(self.length, last)
        self.length = last
        return [self.pages[i // PAGE] * PAGE + i % PAGE for i in places]


def run(kind: str, layout: str) -> float:
    """Largest difference from torch's attention over the last step."""
    rope, kv_write, attention = (
        torch_op(family(n)) for n in ("rope", "kv_write", "paged_attention")
    )
    draw = torch.Generator().manual_seed(0)
    pool = PagePool(PAGES)
    sequences = [Sequence(pool) for _ in PROMPTS]
    caches = {name: cache(kind, layout) for name in ("k_cache", "v_cache")}
    scales = {
        f"{name}_token_scale": torch.zeros((PAGES, PAGE, HKV)) if kind == "c8d" else None
        for name in ("k", "v")
    }
    table = cos_sin(D, 256)
    worst = 0.0
    for step in range(STEPS):
        counts = PROMPTS if step == 0 else (1,) * len(PROMPTS)
        total = sum(counts)
        q, k, v = (
            torch.randn((total, heads, D), generator=draw).to(torch.bfloat16)
            for heads in (HQ, HKV, HKV)
        )
        places = [range(s.length, s.length + n) for s, n in zip(sequences, counts, strict=True)]
        positions = torch.tensor([p for one in places for p in one], dtype=torch.int32)
        q, k = (rope(x, positions, table) for x in (q, k))
        slots = [slot for s, n in zip(sequences, counts, strict=True) for slot in s.slots(n)]
        kv_write(k, v, torch.tensor(slots, dtype=torch.int32), **caches, **scales, kv_layout=layout)
        width = max(len(s.pages) for s in sequences)
        rows = [s.pages + [0] * (width - len(s.pages)) for s in sequences]
        starts = torch.tensor([0, *torch.tensor(counts).cumsum(0)], dtype=torch.int32)
        out, _ = attention(
            q,
            starts,
            torch.tensor([s.length for s in sequences], dtype=torch.int32),
            torch.tensor(rows, dtype=torch.int32),
            caches["k_cache"],
            v_cache=caches["v_cache"],
            DV=D,
            **scales,
            kv_layout=layout,
        )
        worst = 0.0
        for i, one in enumerate(sequences):
            part = slice(int(starts[i]), int(starts[i + 1]))
            one.keys, one.values = (
                torch.cat([old, new[part]]) for old, new in ((one.keys, k), (one.values, v))
            )
            want = expected(q[part], one.keys, one.values)
            worst = max(worst, float((out[part].float() - want).abs().max()))
    return worst


def expected(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """torch's attention in fp32 of the newest queries over the whole history."""
    newest, whole = q.shape[0], keys.shape[0]
    mask = torch.ones((newest, whole), dtype=torch.bool).tril(whole - newest)
    heads = (x.float().transpose(0, 1)[None] for x in (q, keys, values))
    found = torch.nn.functional.scaled_dot_product_attention(
        *heads, attn_mask=mask, enable_gqa=True
    )
    return found[0].transpose(0, 1)


def main() -> None:
    for kind in ("float", "c8d"):
        for layout in ("nd", "nz"):
            worst = run(kind, layout)
            print(f"{kind:5} {layout}: largest difference from torch {worst:.4f}")
            assert worst < (0.02 if kind == "float" else 0.05), (kind, layout, worst)


if __name__ == "__main__":
    main()
