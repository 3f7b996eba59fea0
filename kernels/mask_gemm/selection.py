"""The packed selection: which layers, groups of tokens and requests run in bf16. The layout stands here only,
its numbers in `layout.py`.

A selection is a vector of int64 words, of which every bit counts, the sign too. Bit i of words is bit i % 64
of word i // 64, bit 0 the lowest.

    words 0 .. W-3   layers: bit l for layer l, 64 (W-2) of them
    word  W-2        groups of tokens: bit g for rows 64 g .. 64 g + 63 of a step, 4096 rows at most
    word  W-1        requests: bit r for the request in slot r, 64 of them

Row m of layer l runs in bf16 iff bit l of the layers, or bit m // 64 of the groups, or bit owner[m] of the
requests is set; owner -1 is no request. Layers stay as they are from step to step, the last two words are a
step's. `selection.hpp` is the same for C++.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from torch import Tensor

from tilewright.errors import UsageError

from .layout import BITS, GROUP_ROWS, MOST_ROWS, REQUESTS, STEP_WORDS, layer_bits
from .layout import NO_REQUEST as NO_REQUEST


@dataclass(frozen=True, slots=True)
class Selected:
    """What a selection holds: layers, groups of tokens and requests, each in ascending order."""

    layers: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    requests: tuple[int, ...] = ()


def words_for(layers: SupportsIndex) -> int:
    """W, the words of a selection over `layers` layers. Raises UsageError for fewer than one."""
    count = _whole(layers)
    if count is None or count < 1:
        raise UsageError(f"a selection over {layers} layers; accepted: 1 or more")
    return -(-count // BITS) + STEP_WORDS


def pack(
    layers: SupportsIndex,
    selected: Iterable[SupportsIndex] = (),
    groups: Iterable[SupportsIndex] = (),
    requests: Iterable[SupportsIndex] = (),
) -> Tensor:
    """A selection [W] int64 over `layers` layers with these layers, groups and requests set.

    Any whole numbers are taken, those of numpy and torch too. Raises UsageError for a layer, group or request that is not there.
    """
    words = torch.zeros(words_for(layers), dtype=torch.int64)
    chosen = _within("layer", selected, operator.index(layers))
    set_bits(words, chosen, groups, requests)
    return words


def unpack(words: Tensor) -> Selected:
    """What is set in a selection [W] int64. Raises UsageError for what is no selection."""
    check(words)
    bits = [_bits(int(word)) for word in words]
    layers = tuple(i * BITS + bit for i, those in enumerate(bits[:-STEP_WORDS]) for bit in those)
    return Selected(layers, bits[-2], bits[-1])


def set_bits(
    words: Tensor,
    layers: Iterable[SupportsIndex] = (),
    groups: Iterable[SupportsIndex] = (),
    requests: Iterable[SupportsIndex] = (),
) -> None:
    """Set layers, groups and requests of a selection [W] int64 in place, others stay.

    Raises UsageError, and sets nothing, for one that has no bit.
    """
    for word, mask in _masks(words, layers, groups, requests).items():
        words[word] = _signed(_unsigned(int(words[word])) | mask)


def clear_bits(
    words: Tensor,
    layers: Iterable[SupportsIndex] = (),
    groups: Iterable[SupportsIndex] = (),
    requests: Iterable[SupportsIndex] = (),
) -> None:
    """Clear layers, groups and requests of a selection [W] int64 in place, others stay.

    Raises UsageError, and clears nothing, for one that has no bit.
    """
    for word, mask in _masks(words, layers, groups, requests).items():
        words[word] = _signed(_unsigned(int(words[word])) & ~mask)


def begin_step(words: Tensor) -> None:
    """Clear the groups and requests of a selection [W] int64 in place; its layers stay."""
    check(words)
    words[-STEP_WORDS:] = 0


def rows_in_bf16(words: Tensor, layer: SupportsIndex, owner: Tensor) -> Tensor:
    """The rule: bool [M], whether a row of `layer` runs in bf16; owner [M] is -1 or a request.

    Raises UsageError for a layer without a bit, more rows than the groups have, or an owner that is none.
    """
    check(words)
    (layer,) = _within("layer", (layer,), layer_bits(len(words)))
    rows = owner.shape[0]
    if rows > MOST_ROWS:
        raise UsageError(f"{rows} rows; accepted: up to {MOST_ROWS}, what {BITS} groups hold")
    wrong = ((owner < NO_REQUEST) | (owner >= REQUESTS)).nonzero()
    if wrong.numel():
        row = int(wrong[0, 0])
        raise UsageError(
            f"owner[{row}] is {int(owner[row])}; accepted: 0 to {REQUESTS - 1}, or {NO_REQUEST} for none"
        )
    picked = unpack(words)
    groups, requests = torch.zeros((2, BITS + 1), dtype=torch.bool)
    groups[list(picked.groups)] = True
    requests[list(picked.requests)] = True  # the last one is that of no request
    on = owner.device
    groups, requests = groups.to(on), requests.to(on)
    found: Tensor = groups[torch.arange(rows, device=on) // GROUP_ROWS] | requests[owner.long()]
    return found | (layer in picked.layers)


def check(words: Tensor) -> None:
    """Raises UsageError for what is no selection: another type or shape, no word of layers."""
    shape = tuple(words.shape)
    if words.dtype is not torch.int64 or len(shape) != 1 or shape[0] <= STEP_WORDS:
        raise UsageError(
            f"a selection of {words.dtype} {list(shape)}; accepted: torch.int64 [W] with W of "
            f"{STEP_WORDS + 1} or more"
        )


def _masks(
    words: Tensor,
    layers: Iterable[SupportsIndex],
    groups: Iterable[SupportsIndex],
    requests: Iterable[SupportsIndex],
) -> dict[int, int]:
    """The bits named, by word."""
    check(words)
    last = len(words) - STEP_WORDS
    named = (
        ("layer", layers, 0, last),
        ("group", groups, last, 1),
        ("request", requests, last + 1, 1),
    )
    masks: dict[int, int] = {}
    for kind, given, first, count in named:
        for index in _within(kind, given, count * BITS):
            word = first + index // BITS
            masks[word] = masks.get(word, 0) | 1 << index % BITS
    return masks


def _within(kind: str, given: Iterable[SupportsIndex], count: int) -> tuple[int, ...]:
    """The numbers given as Python's, which do not overflow."""
    chosen = []
    for one in given:
        index = _whole(one)
        if index is None or not 0 <= index < count:
            raise UsageError(f"{kind} {one}; accepted: 0 to {count - 1}")
        chosen.append(index)
    return tuple(chosen)


def _whole(value: SupportsIndex) -> int | None:
    try:
        return operator.index(value)
    except TypeError:
        return None


def _bits(word: int) -> tuple[int, ...]:
    return tuple(bit for bit in range(BITS) if _unsigned(word) >> bit & 1)


def _unsigned(word: int) -> int:
    return word & (1 << BITS) - 1


def _signed(word: int) -> int:
    return word - (1 << BITS) if word >> BITS - 1 else word
