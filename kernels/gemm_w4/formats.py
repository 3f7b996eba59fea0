"""How 4-bit weights lie in memory, stated once: both layouts of codes, and of what a group shares.

Logically b is [N,K], one code 0..15 an element, and `scale`, `zero` and `minimum` are [N,G], one element a
group of consecutive k. Nothing here depends on the processor, so weights packed once serve every machine.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PANEL = 16  # columns of C (rows of the weights) a panel holds
WORD = 8  # codes an int32 holds
BLOCK = 32  # k a panel is padded to
GROUPS = (32, 64, 128)  # accepted sizes of a group
SYM_ZERO = 8  # the code that means 0 in symmetric weights


def _words(codes: Tensor, order: tuple[int, ...]) -> Tensor:
    """[..., 8] codes to [...] int32; `order[i]` is the k that nibble i holds, the lowest first."""
    bits = torch.zeros(codes.shape[:-1], dtype=torch.int64)
    for nibble, k in enumerate(order):
        bits |= (codes[..., k].to(torch.int64) & 15) << (4 * nibble)
    return torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32)


def _padded(value: Tensor, rows: int, cols: int) -> Tensor:
    room = torch.zeros((-(-value.shape[0] // rows) * rows, -(-value.shape[1] // cols) * cols))
    room = room.to(value.dtype)
    room[: value.shape[0], : value.shape[1]] = value
    return room


def codes_to_rows(codes: Tensor, sizes: Mapping[str, float]) -> Tensor:
    """[N,K] codes to [N, ceil(K/8)] int32: k = 8 w + i is nibble i of word w, zero padded."""
    room = _padded(codes, 1, WORD)
    return _words(room.view(room.shape[0], room.shape[1] // WORD, WORD), tuple(range(WORD)))


def codes_to_panel16(codes: Tensor, sizes: Mapping[str, float]) -> Tensor:
    """[N,K] codes to [ceil(N/16), ceil(K/32), 4, 16] int32, zero padded.

    A word holds 8 consecutive k of one column: byte j has k = j in its low and k = 4 + j in its high nibble,
    so that one mask, or one shift and a mask, yields four bytes of consecutive k.
    """
    room = _padded(codes, PANEL, BLOCK)
    n, k = room.shape
    order = tuple(half * 4 + byte for byte in range(4) for half in range(2))
    words = _words(room.view(n, k // WORD, WORD), order)
    return words.view(n // PANEL, PANEL, k // BLOCK, BLOCK // WORD).permute(0, 2, 3, 1).contiguous()


def groups_to_panel16(value: Tensor, sizes: Mapping[str, float]) -> Tensor:
    """[N,G] of any type to [ceil(N/16), G, 16], zero padded."""
    room = _padded(value, PANEL, 1)
    n, g = room.shape
    return room.view(n // PANEL, PANEL, g).transpose(1, 2).contiguous()


def from_rows(words: Tensor, k: int) -> Tensor:
    """[N, ceil(K/8)] int32 to [N,K] int32 codes."""
    nibbles = torch.stack([(words >> (4 * i)) & 15 for i in range(WORD)], dim=-1)
    return nibbles.flatten(1)[:, :k].contiguous()
