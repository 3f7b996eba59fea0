"""Randomness that a kernel cannot foresee: it has no state that could be found and no seed that is public."""

from __future__ import annotations

import os

# Taken before any kernel is imported, so that replacing os.urandom later changes nothing here.
_bytes = os.urandom


def below(limit: int) -> int:
    """A whole number from 0 to `limit` - 1."""
    return int.from_bytes(_bytes(8), "little") % limit


def fraction() -> float:
    """A number in [0, 1)."""
    return below(1 << 53) / (1 << 53)


def seed() -> int:
    """A seed for a generator, never one that anybody would type."""
    return (1 << 40) + below(1 << 61)
