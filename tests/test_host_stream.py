"""Outputs too large for the second cache go past it: the same bits as those of a few rows."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping

import pytest
import torch
from row_calls import KINDS, call, same_bits

from tilewright import native

SECOND = subprocess.run(["getconf", "LEVEL2_CACHE_SIZE"], capture_output=True, text=True).stdout
CACHE = max(1 << 20, int(SECOND.strip() or 0))


@pytest.fixture(autouse=True)
def automatic_level() -> Iterator[None]:
    yield
    native.module().force_level(None)


def outputs(name: str, x: torch.Tensor, y: torch.Tensor, threads: int = 1) -> torch.Tensor:
    tensors: Mapping[str, torch.Tensor] = {"gate_up" if name == "silu_mul" else "x": x, "y": y}
    if name == "rmsnorm":
        weight = torch.linspace(-2, 2, x.shape[1]).to(x.dtype)
        tensors = {"x": x, "weight": weight, "y": y}
    call(name, tensors, threads=threads)
    return y


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", ["rmsnorm", "silu_mul", "hadamard"])
def test_rows_past_the_caches_are_those_of_small_calls(name: str, kind: str) -> None:
    size = KINDS[kind].itemsize
    width = 1024
    rows = 4 * CACHE // (width * size) + 70
    x = torch.randn((512, width * (2 if name == "silu_mul" else 1)))
    x = x.to(KINDS[kind]).repeat(rows // 512 + 1, 1)[:rows]
    some = slice(rows - 40, rows)
    for level in native.module().cpu_levels():
        native.module().force_level(level)
        want = outputs(name, x[some], torch.zeros((40, width), dtype=x.dtype))
        # Rows on lines go past the caches, those beside lines do not.
        memory = torch.zeros((rows + 1) * width, dtype=x.dtype)
        shift = -memory.data_ptr() % 64 // size
        for start in (shift, shift + 1):
            y = memory[start : start + rows * width].view(rows, width)
            assert same_bits(outputs(name, x, y, threads=2)[some], want), (level, start)
