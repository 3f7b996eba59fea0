"""Slot lists for checks and benchmarks: where a batch of tokens goes in a paged cache.

A slot is `page * PAGE + token`; -1 means that a token is skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PAGE = 16
# Batches above this are whole prompts, as a prefill writes them; below, everything that may occur is mixed.
PROMPTS_ONLY = 512


def draw_slots(
    tokens: int, pages: int, rows: int, generator: torch.Generator, shuffle: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """`tokens` slots, none twice, as a batch of sequences leaves them, and the sequence of each token.

    Tokens of a page are neighbours in ascending order: prompts over several pages, sequences that go
    on in a half-filled page, single decoded tokens, and skipped ones. There are at most `rows`
    sequences, each numbered in [0, rows); what has no page or sequence left is skipped. No sequence
    both goes on in a page that it fills and leaves another one partly filled. Batches above
    PROMPTS_ONLY tokens are prompts alone; smaller ones may be shuffled (with `shuffle`), so that
    the rule of neighbours does not hold.
    """
    import torch

    def below(n: int) -> int:
        return int(torch.randint(max(1, n), (), generator=generator))

    free = torch.randperm(pages, generator=generator).tolist()
    names = torch.randperm(rows, generator=generator).tolist()
    slots = [-1] * tokens
    owner = [-1] * tokens
    at = 0
    while at < tokens and free and names:
        kind = 2 if tokens > PROMPTS_ONLY else below(4)
        if kind == 3:
            at += 1
            continue
        first, count = _one_sequence(kind, tokens - at, len(free), below)
        name = names.pop()
        for position in range(first, first + count):
            if position == first or position % PAGE == 0:
                page = free.pop()
            slots[at] = page * PAGE + position % PAGE
            owner[at] = name
            at += 1
    order = torch.arange(tokens)
    if shuffle and tokens <= PROMPTS_ONLY and below(3) == 0:
        order = torch.randperm(tokens, generator=generator)
    return (
        torch.tensor(slots, dtype=torch.int32)[order],
        torch.tensor(owner, dtype=torch.int32)[order],
    )


def _one_sequence(kind: int, tokens: int, pages: int, below: _Below) -> tuple[int, int]:
    """Position in the first page, and number of tokens: one token (0), going on (1) or a prompt (2)."""
    if kind == 0:
        return below(PAGE), 1
    if kind == 1:
        first = 1 + below(PAGE - 1)
        count = PAGE - first + PAGE * below(min(pages, 3))
        if count > tokens:
            # Up to the end of a page, or inside the first one.
            whole = (first + tokens) // PAGE * PAGE - first
            count = whole if whole > 0 else tokens
        return first, count
    longest = min(tokens, pages * PAGE)
    return 0, longest - below(min(longest, 256 if tokens > PROMPTS_ONLY else longest))


if TYPE_CHECKING:
    from collections.abc import Callable

    _Below = Callable[[int], int]
