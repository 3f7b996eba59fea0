"""The ways torch multiplies groups of rows on a processor: its grouped product, and one product a group.

Weights are laid out once in `prepare`; what a call repeats, the walk over `ends` included, is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.errors import Unavailable
from tilewright.kernels.grouped_gemm.spec import rows_used
from tilewright.peers import Call, Peer, first_line, tried

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs

Product = Callable[[Tensor], Tensor]

_PREPACKED = MappingProxyType({"b_layout": "panel16"})


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """torch's ways for one case. The caller sets torch's threads to `threads` before preparing and calling."""
    if 0 in case.sizes.values():
        return []
    if case.precision.startswith("int8"):
        return [
            Peer(
                "torch-loop",
                "torch._int_mm a group, weights as [K,N] view of [N,K], then scales",
                lambda: _int8_loop(case, inputs),
            )
        ]
    return [
        Peer("torch", "torch.nn.functional.grouped_mm", lambda: _grouped(case, inputs)),
        Peer(
            "torch-loop",
            "torch.nn.functional.linear a group",
            lambda: _loop(inputs, _linears(inputs)),
        ),
        Peer(
            "torch-mkldnn",
            "torch.ops.mkldnn._linear_pointwise a group, weights reordered once",
            lambda: _loop(inputs, _reordered(case, inputs)),
            _PREPACKED,
        ),
    ]


def _given(inputs: Inputs, name: str) -> Tensor:
    value = inputs.logical.get(name)
    if value is None:
        raise Unavailable(f"the case lacks {name}")
    return value


def _grouped(case: Case, inputs: Inputs) -> Call:
    if rows_used(case.sizes["T"], case.sizes["E"]) != case.sizes["T"]:
        raise Unavailable("torch's grouped product leaves rows of nobody as they are")
    if inputs.logical.get("bias") is not None:
        raise Unavailable("torch's grouped product adds no bias on processors")
    a, ends = _given(inputs, "a").contiguous(), _given(inputs, "ends")
    b = _given(inputs, "b").transpose(1, 2)
    return tried(lambda: torch.nn.functional.grouped_mm(a, b, offs=ends))


def _biases(inputs: Inputs) -> list[Tensor | None]:
    bias, experts = inputs.logical.get("bias"), _given(inputs, "b").shape[0]
    return [None if bias is None else bias[e] for e in range(experts)]


def _linears(inputs: Inputs) -> list[Product]:
    weights = _given(inputs, "b").unbind(0)

    def one(weight: Tensor, bias: Tensor | None) -> Product:
        return lambda x: torch.nn.functional.linear(x, weight, bias)

    return [one(w, bias) for w, bias in zip(weights, _biases(inputs), strict=True)]


def _reordered(case: Case, inputs: Inputs) -> list[Product]:
    linear = torch.ops.mkldnn._linear_pointwise
    rows = -(-case.sizes["T"] // case.sizes["E"])

    def one(weight: Tensor, bias: Tensor | None) -> Product:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        return lambda x: linear(x, packed, bias, "none", [], "")

    weights = _given(inputs, "b").unbind(0)
    try:
        return [one(w, bias) for w, bias in zip(weights, _biases(inputs), strict=True)]
    except RuntimeError as error:
        raise Unavailable(
            f"torch cannot prepack {case.precision} weights here: {first_line(error)}"
        ) from None


def _loop(inputs: Inputs, products: list[Product]) -> Call:
    a, ends = _given(inputs, "a").contiguous(), _given(inputs, "ends")
    c = torch.zeros((a.shape[0], _given(inputs, "b").shape[1]), dtype=a.dtype, device=a.device)

    def call() -> Tensor:
        begin = 0
        for product, end in zip(products, ends.tolist(), strict=True):
            if end > begin:
                c[begin:end] = product(a[begin:end])
            begin = end
        return c

    return tried(call)


def _int8_loop(case: Case, inputs: Inputs) -> Call:
    a, b, ends = (_given(inputs, name) for name in ("a", "b", "ends"))
    a, weights = a.contiguous(), [w.contiguous().t() for w in b.unbind(0)]
    by_row, by_col = inputs.logical.get("row_scale"), inputs.logical.get("col_scale")
    names = {"int8->bf16": torch.bfloat16, "int8->fp16": torch.float16, "int8->fp32": torch.float32}
    biases = _biases(inputs)
    dtype = names.get(case.precision, torch.int32)
    c = torch.zeros((a.shape[0], b.shape[1]), dtype=dtype, device=a.device)

    def call() -> Tensor:
        begin = 0
        for expert, end in enumerate(ends.tolist()):
            if end == begin:
                continue
            part = torch._int_mm(a[begin:end], weights[expert])
            if by_row is not None and by_col is not None:
                part = part.float().mul_(by_row[begin:end, None]).mul_(by_col[expert])
            bias = biases[expert]
            c[begin:end] = part if bias is None else part.add_(bias)
            begin = end
        return c

    return tried(call)
