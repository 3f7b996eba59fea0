"""One call of a host kernel over rows, for tests: tensors by name, outputs prefilled with what is no result."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

import torch

from tilewright import native
from tilewright.backends.host import view
from tilewright.registry import family

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def call(
    name: str,
    tensors: Mapping[str, torch.Tensor],
    flags: Mapping[str, str] | None = None,
    threads: int = 1,
    config: Mapping[str, int] | None = None,
) -> None:
    """Run `tw_host_<name>`; flags that are not given have their defaults."""
    spec = family(name).spec
    attributes = dict(config or {})
    for flag in spec.flags:
        value = (flags or {}).get(flag.name, flag.default)
        attributes[flag.name] = (
            struct.unpack("<q", struct.pack("<d", float(value)))[0]
            if flag.numeric
            else flag.values.index(value)
        )
    views = [view(n, t) for n, t in tensors.items()]
    address = native.host_function(family(name))
    native.module().prepare(address, views, attributes, threads).run()


def unwritten(like: torch.Tensor) -> torch.Tensor:
    """Memory of the same shape and type that no result looks like."""
    return torch.full_like(like, math.nan if like.is_floating_point() else -128)


def spread(x: torch.Tensor, every: int = 3) -> torch.Tensor:
    """The same values with gaps between columns and rows, of NaN or the lowest code."""
    wide = unwritten(x.new_empty((x.shape[0] * 2, x.shape[1] * every)))
    wide[::2, ::every] = x
    return wide[::2, ::every]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = {4: torch.int32, 2: torch.int16, 1: torch.int8}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.view(bits), b.view(bits))
