"""What mask_gemm is held against: the two products alone, and torch with rows picked by index."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright import native
from tilewright.backends.host import attributes, view
from tilewright.errors import Unavailable
from tilewright.kernels.mask_gemm.selection import rows_in_bf16
from tilewright.kernels.mask_gemm.spec import layer_of
from tilewright.peers import Peer, tried
from tilewright.registry import family
from tilewright.targets import target

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs

Call = Callable[[], tuple[Tensor, Tensor]]


def peers(case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """`gemm` is both products by themselves, which grouping is measured from."""
    if 0 in case.sizes.values():
        return []
    return [
        Peer(
            "gemm",
            "this repository's gemm, int8->bf16 and bf16, each on the rows of its path, which lie together",
            lambda: _products(case, inputs, threads),
        ),
        Peer(
            "torch",
            "torch._int_mm with scales and torch.nn.functional.linear, rows picked and placed by index",
            lambda: _torch(case, inputs),
        ),
    ]


def _given(inputs: Inputs, name: str) -> Tensor:
    value = inputs.physical[name]
    if value is None:
        raise Unavailable(f"the case lacks {name}")
    return value


def _paths(case: Case, inputs: Inputs) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
    """Indices of the rows in bf16 and in int8, and the counts."""
    words, owner = _given(inputs, "selection"), _given(inputs, "owner")
    selected = rows_in_bf16(words, layer_of(case), owner)
    chosen, kept = int(selected.sum()), 0
    if case.flags["resident"] == "no":
        chosen, kept = 0, chosen
        selected = torch.zeros_like(selected)
    counts = (chosen, len(selected) - chosen, kept)
    return selected.nonzero()[:, 0], (~selected).nonzero()[:, 0], counts


def _products(case: Case, inputs: Inputs, threads: int) -> Call:
    if _given(inputs, "owner").device.type != "cpu":
        raise Unavailable("this repository's gemm is a peer of it on processors only")
    in_bf16, in_int8, counts = _paths(case, inputs)
    c = torch.empty((case.sizes["M"], case.sizes["N"]), dtype=torch.bfloat16)
    known = torch.tensor(counts, dtype=torch.int32)
    count = torch.empty_like(known)
    prepared = []
    for precision, rows in (("int8->bf16", in_int8), ("bf16", in_bf16)):
        if not len(rows):
            continue
        first, end = int(rows[0]), int(rows[-1]) + 1
        if end - first != len(rows):
            raise Unavailable(
                f"the {len(rows)} rows in {precision} lie between rows {first} and {end - 1}: products alone "
                "take rows that lie together, such as those of layer=0"
            )
        prepared.append(_gemm(case, inputs, precision, slice(first, end), c, threads))

    def call() -> tuple[Tensor, Tensor]:
        for run in prepared:
            run()
        count.copy_(known)
        return c, count

    return call


def _gemm(
    case: Case, inputs: Inputs, precision: str, rows: slice, c: Tensor, threads: int
) -> Callable[[], None]:
    """One call of gemm on these rows, with the config that it gets where nothing is tuned."""
    missing = native.why_missing()
    if missing:
        raise Unavailable(missing)
    gemm, int8 = family("gemm"), precision != "bf16"
    flags = {"b_layout": case.flags["b_layout"], "scale": "row_col" if int8 else "none"}
    names = ("a8", "b8") if int8 else ("a", "b16")
    operands = {"a": _given(inputs, names[0])[rows], "b": _given(inputs, names[1]), "c": c[rows]}
    if int8:
        operands["row_scale"] = _given(inputs, "row_scale")[rows]
        operands["col_scale"] = _given(inputs, "col_scale")
    if case.flags["bias"] == "yes":
        if not int8:
            raise Unavailable("gemm in bf16 takes a bias in bf16, not in fp32")
        operands["bias"], flags["bias"] = _given(inputs, "bias"), "yes"
    sizes = {"M": rows.stop - rows.start, **{name: case.sizes[name] for name in ("N", "K")}}
    one = gemm.spec.case(sizes, precision, flags)
    config = gemm.spec.config_for(one, target("cpu"))
    views = [view(t.name, operands.get(t.name)) for t in gemm.spec.tensors]
    made = attributes(gemm.spec, one, config)
    prepared = native.module().prepare(native.host_function(gemm), views, made, threads)

    # The call keeps the operands alive: what is prepared holds bare addresses.
    def run(_alive: dict[str, Tensor] = operands) -> None:
        prepared.run()

    return run


def _torch(case: Case, inputs: Inputs) -> Call:
    in_bf16, in_int8, counts = _paths(case, inputs)
    given = inputs.logical
    a8, b8, by_row, by_col = (given[name] for name in ("a8", "b8", "row_scale", "col_scale"))
    a, b16, bias = (given.get(name) for name in ("a", "b16", "bias"))
    if a8 is None or b8 is None or by_row is None or by_col is None:
        raise Unavailable("the case lacks an operand")

    known = torch.tensor(counts, dtype=torch.int32, device=a8.device)

    def call() -> tuple[Tensor, Tensor]:
        c = torch.empty((case.sizes["M"], case.sizes["N"]), dtype=torch.bfloat16, device=a8.device)
        if len(in_int8):
            total = torch._int_mm(a8[in_int8], b8.t()).float()
            total.mul_(by_row[in_int8, None]).mul_(by_col)
            c[in_int8] = (total if bias is None else total.add_(bias)).bfloat16()
        if len(in_bf16) and a is not None and b16 is not None:
            product = torch.nn.functional.linear(a[in_bf16], b16)
            c[in_bf16] = product if bias is None else (product + bias).bfloat16()
        return c, known.clone()

    return tried(call)
