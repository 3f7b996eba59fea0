"""Launches from Python as Triton specialises them: what equals 1 becomes a constant, what fits 32 bits has 32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton_ir import narrow_products, ttir

from tilewright import interpret
from tilewright.inputs import draw
from tilewright.kernels.mask_gemm.triton_kernel import group
from tilewright.registry import family
from tilewright.targets import target

GPU = target("cuda:sm_80")


def launches(monkeypatch: pytest.MonkeyPatch, name: str, case: Any, **config: int) -> list[Any]:
    """What a launch over tensors with a gap behind every element hands to Triton."""
    seen: list[Any] = []
    found = family(name)

    def record(kernel: Any, grid: Any, args: Any, constexprs: Any, *_: Any, **__: Any) -> None:
        seen.append((kernel, args, constexprs))

    monkeypatch.setattr(interpret, "launch", record)
    tensors = {n: v for n, v in draw(found, case, 0).physical.items() if v is not None}
    for output in found.spec.outputs:
        kind = getattr(torch, {"bf16": "bfloat16", "fp32": "float32", "int32": "int32"}[
            found.spec.dtype_of(output, case).name
        ])  # fmt: skip
        tensors[output.name] = torch.zeros(found.spec.shape(output, case), dtype=kind)
    wide = {n: gaps(v) for n, v in tensors.items()}
    whole = {**found.spec.default_config(GPU), **config}
    found.module("triton").launch(wide, case.flags, whole, interpret=False)
    return seen


def gaps(tensor: torch.Tensor) -> torch.Tensor:
    shape = tensor.shape
    room = torch.zeros((*shape, 2), dtype=tensor.dtype)
    room[..., 0] = tensor
    return room[..., 0]


@pytest.mark.parametrize("layer", [0, 1, 16, 66])
@pytest.mark.parametrize("rows", [1, 7, 16])
def test_any_layer_compiles(layer: int, rows: int) -> None:
    words, owner = torch.zeros(4, dtype=torch.int64), torch.zeros(rows, dtype=torch.int32)
    order = torch.zeros(rows + 4, dtype=torch.int32)
    args = (words, owner, order, order[:3], rows, 4, layer, 1, 1, 1)
    assert "tt.func public @group" in ttir(group, args, {"BLOCK": 1024, "RESIDENT": True})


@pytest.mark.parametrize(
    ("name", "sizes", "precision", "flags", "config"),
    [
        ("gemm", {"M": 20, "N": 20, "K": 70}, "bf16", {"bias": "yes"}, {}),
        ("gemm", {"M": 20, "N": 20, "K": 70}, "bf16", {"bias": "yes"}, {"split_k": 4}),
        ("gemm", {"M": 20, "N": 20, "K": 70}, "int8->bf16", {"scale": "row_col"}, {}),
        ("gemm_w4", {"M": 20, "N": 20, "K": 128, "G": 2}, "bf16", {"group": "64", "zero": "asym", "bias": "yes"}, {}),
        ("gemm_w4", {"M": 20, "N": 20, "K": 128, "G": 2}, "bf16", {"group": "64", "zero": "min"}, {}),
        ("grouped_gemm", {"E": 3, "T": 20, "N": 20, "K": 70}, "bf16", {"bias": "yes"}, {}),
        ("mask_gemm", {"M": 20, "N": 20, "K": 70, "W": 4}, "bf16", {"bias": "yes"}, {}),
    ],
)  # fmt: skip
def test_strides_are_multiplied_in_64_bits(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    sizes: dict[str, int],
    precision: str,
    flags: dict[str, str],
    config: dict[str, int],
) -> None:
    case = family(name).spec.case(sizes, precision, flags)
    for kernel, args, constexprs in launches(monkeypatch, name, case, **config):
        text = ttir(kernel, args, constexprs)
        assert "stride_" in text.split("\n", 3)[-1]
        assert narrow_products(text, r"stride_\w+") == []
        if config:
            assert narrow_products(text, "M") == []
