"""Kernels that others wrote, unmodified, from a checkout of theirs: their code is no part of this repository.

git clone https://github.com/vllm-project/vllm-ascend /somewhere
TILEWRIGHT_VLLM_ASCEND=/somewhere .venv/bin/pytest -m checkout
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tilewright.ascendc import twin

VARIABLE = "TILEWRIGHT_VLLM_ASCEND"
pytestmark = pytest.mark.checkout
DTYPES = {"fp16": (0, torch.float16), "bf16": (1, torch.bfloat16)}


@pytest.fixture(scope="module")
def kernels() -> Path:
    """csrc/kernels of vllm-ascend."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(
            "git clone https://github.com/vllm-project/vllm-ascend DIR, then "
            f"{VARIABLE}=DIR .venv/bin/pytest -m checkout"
        )
    found = Path(folder) / "csrc" / "kernels"
    assert (found / "bgmv_expand.cpp").is_file(), f"{VARIABLE}={folder} has no csrc/kernels"
    return found


def launch(kernels: Path, name: str, *arguments: object) -> twin.TwinResult:
    program = twin.compile(kernels / f"{name}.cpp", entries=[f"{name}_impl"])
    # The scalar unit reads and writes what the vector pipe does: CANN's compiler puts the flags there.
    result, _ = program.run_host(f"{name}_impl", *arguments, auto_sync=True)
    return result


def close(out: torch.Tensor, wanted: torch.Tensor) -> bool:
    error = (out.double() - wanted).norm() / wanted.norm()
    return bool(error < {torch.float16: 2e-3, torch.bfloat16: 1e-2}.get(out.dtype, 1e-5))


# Tokens: the adapter of each, or how many tokens each sequence has and its adapter.
ADAPTERS = torch.tensor([1, -1, 0, 2, 1])
LENGTHS, OF_SEQUENCES = torch.tensor([2, 0, 3]), torch.tensor([2, 1, 0])


def per_token(sequences: bool) -> torch.Tensor:
    return torch.repeat_interleave(OF_SEQUENCES, LENGTHS) if sequences else ADAPTERS


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [8, 16, 32, 64])
@pytest.mark.parametrize("sequences", [False, True], ids=["bgmv", "sgmv"])
def test_expand(kernels: Path, sequences: bool, rank: int, dtype: str) -> None:
    kind, element = DTYPES[dtype]
    generator = torch.Generator().manual_seed(rank)
    tokens, hidden, full, offset = 5, 4096 + 512, 5120, 256
    x = torch.randn(tokens, rank, generator=generator)
    weight = torch.randn(3, hidden, rank, generator=generator).to(element)
    y = torch.randn(tokens, full, generator=generator).to(element)
    out = y.clone()
    where = (OF_SEQUENCES, 3, LENGTHS, 3) if sequences else (ADAPTERS, tokens)
    sizes = (tokens, 2, rank, hidden, offset, full)
    name = "sgmv_expand" if sequences else "bgmv_expand"
    result = launch(kernels, name, kind, None, x, weight, *where, y, out, *sizes)
    assert result.findings == () and result.blocks == 3
    wanted = y.double()
    for token, adapter in enumerate(per_token(sequences).tolist()):
        if adapter >= 0:
            wanted[token, offset : offset + hidden] += weight[adapter].double() @ x[token].double()
    assert close(out, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", [1024, 11776 + 16, 24000], ids=["short", "tile", "long"])
@pytest.mark.parametrize("sequences", [False, True], ids=["bgmv", "sgmv"])
def test_shrink(kernels: Path, sequences: bool, hidden: int, dtype: str) -> None:
    kind, element = DTYPES[dtype]
    generator = torch.Generator().manual_seed(hidden)
    tokens, rank, scale = 5, 8, 0.25
    x = torch.randn(tokens, hidden, generator=generator).to(element)
    weight = torch.randn(3, rank, hidden, generator=generator).to(element)
    y = torch.zeros(tokens, rank)
    where = (OF_SEQUENCES, 3, LENGTHS, 3) if sequences else (ADAPTERS, tokens)
    name = "sgmv_shrink" if sequences else "bgmv_shrink"
    result = launch(kernels, name, kind, None, x, weight, *where, y, tokens, 2, hidden, rank, scale)
    assert result.findings == () and result.blocks == 3
    wanted = torch.zeros(tokens, rank, dtype=torch.float64)
    for token, adapter in enumerate(per_token(sequences).tolist()):
        if adapter >= 0:
            wanted[token] = scale * (weight[adapter].double() @ x[token].double())
    assert close(y, wanted)
