"""Memory in huge pages: what is read from end to end every step is read several times faster there."""

from __future__ import annotations

import contextlib
import mmap

import torch
from torch import Tensor

from tilewright.errors import Unavailable

HUGE = 1 << 21


def huge_pages(size: int) -> Tensor:
    """Zeroed memory, uint8 [size], from a multiple of 2 MiB on; in huge pages where the system has them.

    Raises Unavailable for more than the system gives.
    """
    try:
        memory = mmap.mmap(-1, size + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise Unavailable(f"{size / 1e9:.1f} GB of memory cannot be had here: {error}") from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    before = -whole.data_ptr() % HUGE
    return whole[before : before + size]


def placed(memory: Tensor, offset: int, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    """A tensor that lies in `memory` (uint8) from a byte on."""
    size = shape.numel() * dtype.itemsize
    return memory[offset : offset + size].view(dtype).view(shape)
