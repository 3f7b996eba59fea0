"""Measured limits of a GPU: bandwidth over footprints and products per operand type, by torch's own kernels."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from tilewright.document import write_text
from tilewright.errors import Unavailable
from tilewright.machine import cache_folder
from tilewright.perf import ceilings
from tilewright.perf.ceilings import Ceilings, Level
from tilewright.perf.device.queue import Queue, queue
from tilewright.perf.device.timer import DeviceTimer

if TYPE_CHECKING:
    from pathlib import Path

    import torch

_SIDES = (2048, 4096, 8192)
_DRAM_BYTES = 4 << 30
_KINDS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# Rates are of the work alone: calls too short to fill the GPU are repeated within a sample.
_SAMPLE_NS = 200e3


def get(refresh: bool = False) -> Ceilings:
    """Kept ceilings of this GPU, measured first if need be, some seconds; raises Unavailable without a GPU."""
    on = queue()
    path = _path(on)
    known = ceilings.load(path, on.facts.name)
    if known is not None and not refresh:
        return known
    try:
        fresh = measure(on)
    except RuntimeError as error:
        raise Unavailable(f"the ceilings of {on.facts.name} cannot be measured: {error}") from error
    merged = ceilings.best_of(known, fresh) if known is not None else fresh
    write_text(path, json.dumps(merged.as_dict(), indent=1) + "\n")
    return merged


def measure(on: Queue) -> Ceilings:
    """Measure everything. Copies and sums stand for bandwidth, cuBLAS or rocBLAS for peaks.

    Within a cache a short call is mostly its launch, so a footprint is given the best rate of it or any larger one.
    """
    sizes = _footprints(on.facts.l2_bytes)
    read, best = [], 0.0
    for size in reversed(sizes):
        best = max(best, *(size / _fastest_ns(call, on) for call in _walks(size)))
        read.append((size, best))
    curve = tuple(reversed(read))
    peak = {}
    for kind in (*_KINDS, "int8"):
        rates = [2.0 * side**3 / _fastest_ns(_product(kind, side), on) for side in _SIDES]
        peak[kind] = {1: max(rates)}
    level = Level("L2", on.facts.l2_bytes)
    return Ceilings(on.facts.name, (level,), {1: curve}, {1: curve}, peak)


def _path(on: Queue) -> Path:
    return cache_folder("ceilings", f"{re.sub(r'[^A-Za-z0-9]+', '-', on.facts.name)}.json")


def _footprints(l2_bytes: int) -> list[int]:
    """Bytes walked, from a quarter of the cache to memory."""
    inside = [l2_bytes // 4, l2_bytes // 2, l2_bytes]
    return [n // 4096 * 4096 for n in (*inside, 2 * l2_bytes, 8 * l2_bytes, _DRAM_BYTES)]


def _walks(size: int) -> Iterator[Callable[[], Any]]:
    """Reading that many bytes, and reading half of them into the other half."""
    import torch

    whole = torch.ones(size // 4, device="cuda")
    half = whole.numel() // 2
    out = torch.empty((), device="cuda")
    yield partial(torch.sum, whole, 0, out=out)
    yield partial(whole[half : 2 * half].copy_, whole[:half])


def _product(kind: str, side: int) -> Callable[[], torch.Tensor]:
    """A square product of random operands: zeros would run faster than data do."""
    import torch

    if kind == "int8":
        a, b = (torch.randint(-128, 128, (side, side), dtype=torch.int8).cuda() for _ in "ab")
        return partial(torch._int_mm, a, b.t())
    dtype = getattr(torch, _KINDS[kind])
    # Drawn on the processor: a capture that failed before may have left the GPU's generator unusable.
    a, b = (torch.randn(side, side).to(dtype).cuda() for _ in "ab")
    return partial(torch.mm, a, b)


def _fastest_ns(call: Callable[[], Any], on: Queue) -> float:
    """The fastest of some samples, ns per call."""
    timer = DeviceTimer(call, on)
    first = float(timer.sample(2, 1, 0).min())
    batch = max(1, min(100, int(_SAMPLE_NS / first)))
    count = max(3, min(20, int(20e6 / (first * batch))))
    return float(timer.sample(count, batch, 0).min())
