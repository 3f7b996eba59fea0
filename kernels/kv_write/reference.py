"""kv_write in plain torch, page by page and token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels._kv.reference import (
    pack4,
    quantise4,
    quantise8,
    range4,
    to_nz,
    token_scale8,
)
from tilewright.kernels._kv.slots import draw_slots

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec

__all__ = ["kv_write", "make_inputs", "page_runs", "to_nz"]


def kv_write(
    k: Tensor, v: Tensor, slots: Tensor, *, case: Case, **others: Tensor | None
) -> tuple[Tensor, ...]:
    """The caches, and the scales and open pages of the format, after writing T tokens: see `spec.py`.

    `others` are the remaining tensors of the spec by name. Returns those that are written, in its order.
    """
    given = {name: value for name, value in others.items() if value is not None}
    written = {name: given[name].clone() for name in given if name in _WRITTEN}
    {"float": _floats, "c8s": _static, "c8d": _dynamic, "kv4": _four_bits}[case.flags["kv"]](
        k, v, slots, given, written
    )
    return tuple(written[name] for name in _WRITTEN if name in written)


_WRITTEN = (
    "k_cache",
    "v_cache",
    "k_token_scale",
    "v_token_scale",
    "v_token_zero",
    "k_page_scale",
    "k_page_zero",
    "k_open",
)
_Tensors = dict[str, Tensor]


def _store(written: _Tensors, name: str, slots: Tensor, rows: Tensor) -> None:
    """Rows [T,...] to the tokens of a tensor [P,16,...], where their slot is not -1."""
    there = slots >= 0
    flat = written[name].flatten(0, 1)
    flat[slots[there].long()] = rows[there].to(flat.dtype)
    written[name] = flat.reshape(written[name].shape)


def _floats(k: Tensor, v: Tensor, slots: Tensor, given: _Tensors, written: _Tensors) -> None:
    _store(written, "k_cache", slots, k)
    _store(written, "v_cache", slots, v)


def _static(k: Tensor, v: Tensor, slots: Tensor, given: _Tensors, written: _Tensors) -> None:
    for prefix, x in (("k_", k), ("v_", v)):
        codes = quantise8(x, given[f"{prefix}channel_scale"])
        _store(written, f"{prefix}cache", slots, codes)


def _dynamic(k: Tensor, v: Tensor, slots: Tensor, given: _Tensors, written: _Tensors) -> None:
    for prefix, x in (("k_", k), ("v_", v)):
        scale = token_scale8(x)
        _store(written, f"{prefix}cache", slots, quantise8(x, scale[..., None]))
        _store(written, f"{prefix}token_scale", slots, scale)


def _four_bits(k: Tensor, v: Tensor, slots: Tensor, given: _Tensors, written: _Tensors) -> None:
    if v.shape[-1]:
        scale, zero = range4(v, over=-1)
        codes = quantise4(v, scale[..., None], zero[..., None])
        _store(written, "v_cache", slots, pack4(codes))
        _store(written, "v_token_scale", slots, scale)
        _store(written, "v_token_zero", slots, zero)
    for run in page_runs(slots):
        row = int(given["open_row"][run.token])
        new = k[run.token : run.token + run.count]
        if run.first + run.count < PAGE:
            written["k_open"][row, run.first : run.first + run.count] = new
            continue
        keys = torch.cat((given["k_open"][row, : run.first].to(new.dtype), new))
        scale, zero = range4(keys, over=0)
        written["k_cache"][run.page] = pack4(quantise4(keys, scale, zero))
        written["k_page_scale"][run.page] = scale.to(written["k_page_scale"].dtype)
        written["k_page_zero"][run.page] = zero.to(written["k_page_zero"].dtype)


@dataclass(frozen=True, slots=True)
class Run:
    """`count` neighbouring tokens of a call, from `token` on, for one page's tokens from `first` on."""

    token: int
    page: int
    first: int
    count: int


def page_runs(slots: Tensor) -> list[Run]:
    """Neighbours of a call with ascending slots of one page, each as long as possible."""
    runs: list[Run] = []
    where = slots.tolist()
    at = 0
    while at < len(where):
        slot, count = where[at], 1
        if slot >= 0:
            left = PAGE - slot % PAGE
            while count < left and at + count < len(where) and where[at + count] == slot + count:
                count += 1
            runs.append(Run(at, slot // PAGE, slot % PAGE, count))
        at += count
    return runs


def make_inputs(
    spec: KernelSpec, case: Case, generator: torch.Generator
) -> dict[str, Tensor | None]:
    """Batches of sequences over a cache that is filled already; keys have outlier channels, as real ones do.

    A few rows are constant or zero, where a scale would be 0.
    """
    size, kv = case.sizes, case.flags["kv"]
    rows = size["NS"] if kv == "kv4" else size["T"]
    slots, owner = draw_slots(size["T"], size["P"], rows, generator, shuffle=kv != "kv4")
    drawn: dict[str, Tensor | None] = {"slots": slots}
    for tensor in spec.tensors:
        if tensor.name == "slots":
            continue
        if not tensor.present(case):
            drawn[tensor.name] = None
        elif tensor.name == "open_row":
            drawn[tensor.name] = owner
        else:
            drawn[tensor.name] = _values(spec, tensor.name, case, generator)
    for name in ("k", "v"):
        _make_peculiar(drawn[name], generator)
    return drawn


def _values(spec: KernelSpec, name: str, case: Case, generator: torch.Generator) -> Tensor:
    from tilewright.dims import evaluate

    tensor = next(t for t in spec.tensors if t.name == name)
    sizes = spec.sizes_of(case)
    shape = tuple(int(evaluate(d, sizes)) for d in tensor.dims)
    dtype = spec.dtype_of(tensor, case).torch()
    if not dtype.is_floating_point:
        bits = 8 * dtype.itemsize
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
        return torch.randint(low, high, shape, generator=generator, dtype=torch.int32).to(dtype)
    values = torch.randn(shape, generator=generator)
    return (values.abs() * 0.02 + 0.01 if "scale" in name else values).to(dtype)


def _make_peculiar(x: Tensor | None, generator: torch.Generator) -> None:
    if x is None or x.numel() == 0:
        return
    tokens, _, d = x.shape
    x[..., int(torch.randint(d, (), generator=generator))] *= 12
    for value in (0.0, 1.5):
        x[int(torch.randint(tokens, (), generator=generator)), 0] = value
