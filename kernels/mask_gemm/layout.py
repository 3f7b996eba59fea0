"""The numbers of the packed selection that `selection.py` describes, for who imports no torch."""

from __future__ import annotations

BITS = 64  # of a word
GROUP_ROWS = 64
MOST_ROWS = BITS * GROUP_ROWS  # of a step
REQUESTS = BITS
NO_REQUEST = -1
STEP_WORDS = 2  # after those of the layers


def layer_bits(words: int) -> int:
    """The layers that W words have a bit for."""
    return BITS * max(0, words - STEP_WORDS)
