"""The ways torch multiplies matrices on a processor, each as a user would call it with constant weights.

Weights are laid out once in `prepare`, as an inference team would; what a call repeats is timed.
Whether a way exists on this machine is known only by trying: torch refuses bf16 packing on
processors without AVX-512, and `prepare` passes its sentence on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.cases import SizeGrid, grid
from tilewright.errors import Unavailable
from tilewright.peers import Peer, first_line, tried

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs

Call = Callable[[], Tensor]

_PREPACKED = MappingProxyType({"b_layout": "panel16"})


def comparison(full: bool) -> SizeGrid:
    """The sizes of docs/results.md: decode to prefill rows, hidden sizes of small and middle models."""
    rows = (1, 16, 64, 256, 1024)
    sizes = (576, 1536, 2048, 4096)
    if full:
        return grid(M=rows, N=sizes, K=sizes)
    found = SizeGrid(())
    for n, k in [(s, s) for s in sizes] + [(576, 1536), (1536, 576)]:
        found += grid(M=rows, N=(n,), K=(k,))
    return found


# In that comparison weights are constant, so ours are packed once too.
COMPARISON_FLAGS: Mapping[str, str] = _PREPACKED


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """torch's ways for one case. The caller sets torch's threads to `threads` before preparing and calling."""
    if 0 in case.sizes.values():
        return []
    if not case.precision.startswith("int8"):
        return [
            Peer("torch", "torch.nn.functional.linear", lambda: _linear(inputs)),
            Peer(
                "torch-mkldnn",
                "torch.ops.mkldnn._linear_pointwise, weights reordered once",
                lambda: _mkldnn(case, inputs),
                _PREPACKED,
            ),
        ]
    found = [
        Peer(
            "torch",
            "torch._int_mm, weights as [K,N] view of [N,K], then scales",
            lambda: _scaled(case, inputs, _int_mm),
        ),
        Peer(
            "torch-fp32",
            "operands as fp32 (weights once), exact while partial sums stay below 2**24",
            lambda: _scaled(case, inputs, _int_as_fp32),
            _PREPACKED,
        ),
    ]
    if case.flags["scale"] == "col" and case.precision in ("int8->fp32", "int8->bf16"):
        found.append(
            Peer(
                "torch-qlinear",
                "torch.ops.onednn.qlinear_pointwise, weights prepacked, per-channel scales",
                lambda: _qlinear(case, inputs),
                _PREPACKED,
            )
        )
    return found


def _present(value: Tensor | None) -> Tensor:
    if value is None:
        raise Unavailable("the case lacks an operand")
    return value


def _weight(inputs: Inputs) -> Tensor:
    """b as [N,K], the layout of torch's Linear."""
    return _present(inputs.logical["b"]).t().contiguous()


def _linear(inputs: Inputs) -> Call:
    a, weight, bias = _present(inputs.physical["a"]), _weight(inputs), inputs.physical["bias"]
    return tried(lambda: torch.nn.functional.linear(a, weight, bias))


def _mkldnn(case: Case, inputs: Inputs) -> Call:
    a, bias = _present(inputs.physical["a"]).contiguous(), inputs.physical["bias"]
    rows = case.sizes["M"]
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(_weight(inputs), rows)
    except RuntimeError as error:
        raise Unavailable(
            f"torch cannot prepack {case.precision} weights here: {first_line(error)}"
        ) from None
    linear = torch.ops.mkldnn._linear_pointwise
    return tried(lambda: linear(a, packed, bias, "none", [], ""))


def _int_mm(a: Tensor, weight: Tensor) -> Call:
    b = weight.t()
    return lambda: torch._int_mm(a, b)


def _int_as_fp32(a: Tensor, weight: Tensor) -> Call:
    """Where torch has no int8 instructions its fp32 product is the faster way."""
    wide = weight.to(torch.float32)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(wide, a.shape[0])
    except RuntimeError as error:
        raise Unavailable(f"torch cannot prepack fp32 weights here: {first_line(error)}") from None
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda: linear(a.to(torch.float32), packed, None, "none", [], "")


def _scaled(case: Case, inputs: Inputs, product: Callable[[Tensor, Tensor], Call]) -> Call:
    """The product of int8 operands, then what the precision asks for."""
    multiply = product(_present(inputs.physical["a"]).contiguous(), _weight(inputs))
    bias = inputs.physical["bias"]
    by_row, by_col = inputs.physical["row_scale"], inputs.physical["col_scale"]
    if by_col is None:
        if bias is None:
            return tried(lambda: multiply().to(torch.int32))
        return tried(lambda: multiply().to(torch.int32).add_(bias))
    names = {"int8->bf16": torch.bfloat16, "int8->fp16": torch.float16}
    out = names.get(case.precision, torch.float32)
    rows = None if by_row is None else by_row[:, None]

    def call() -> Tensor:
        c = multiply().to(torch.float32)
        if rows is not None:
            c.mul_(rows)
        c.mul_(by_col)
        if bias is not None:
            c.add_(bias)
        return c.to(out)

    return tried(call)


def _qlinear(case: Case, inputs: Inputs) -> Call:
    a, scale = _present(inputs.physical["a"]).contiguous(), _present(inputs.physical["col_scale"])
    bias = inputs.physical["bias"]
    out = torch.float32 if case.precision == "int8->fp32" else torch.bfloat16
    try:
        packed = torch.ops.onednn.qlinear_prepack(_weight(inputs), None)
    except RuntimeError as error:
        raise Unavailable(f"torch cannot prepack int8 weights here: {first_line(error)}") from None
    zeros = torch.zeros(case.sizes["N"], dtype=torch.int32)
    linear = torch.ops.onednn.qlinear_pointwise
    return tried(lambda: linear(a, 1.0, 0, packed, scale, zeros, bias, 1.0, 0, out, "none", [], ""))
