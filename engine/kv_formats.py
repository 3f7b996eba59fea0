"""How keys and values are kept: what tensors a format has, and what they take, from the kernels' own declaration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewright.dtypes import from_torch
from tilewright.engine.memory import huge_pages
from tilewright.errors import UsageError, unknown
from tilewright.kernels._kv.formats import KV, PAGE, PAGE_ALIGN, QUANTISED, RESIDUAL, precision_name
from tilewright.kernels._kv.reference import from_nz
from tilewright.models.config import ModelConfig
from tilewright.registry import family

LAYOUTS = ("nd", "nz")
# What `--kv` takes: floats are kept in the type of the activations.
NAMES = ("fp32", "bf16", *QUANTISED)
# Of the vectors of a page, those with a residual; of static scales as many that clip most stay floats.
SHARE = 0.05
_NOT_KEPT = ("q", "cu_q", "seq_lens", "block_table", "alibi")


@dataclass(frozen=True, slots=True)
class KvFormat:
    """A format of `kernels/_kv/formats.py`: `kv` float, c8s, c8d or kv4; `layout` nd or nz; `residual` none, nested, e3m0."""

    kv: str = "float"
    layout: str = "nd"
    residual: str = "none"

    def __post_init__(self) -> None:
        for what, value, accepted in (
            ("format of keys and values", self.kv, KV),
            ("layout of pages", self.layout, LAYOUTS),
            ("residual", self.residual, RESIDUAL),
        ):
            if value not in accepted:
                raise unknown(what, value, list(accepted))
        if self.kv == "float" and self.residual != "none":
            raise UsageError(
                f"residual={self.residual} with keys and values that are floats; "
                f"accepted: with {', '.join(QUANTISED)}"
            )

    @classmethod
    def named(cls, name: str, layout: str, residual: str, dtype: torch.dtype) -> KvFormat:
        """From what `--kv` takes; empty is the type of the activations, and no other float goes with them.

        Raises UsageError for a format there is none of, or one that the kernels have not for `dtype`.
        """
        own = from_torch(dtype).name
        name = name or own
        if name not in NAMES:
            raise unknown("format of keys and values", name, list(NAMES))
        if name in QUANTISED:
            return cls(name, layout, residual)
        if name != own:
            raise UsageError(
                f"{name} keys and values beside {own} activations; accepted: {own}, "
                f"{', '.join(QUANTISED)}"
            )
        return cls("float", layout, residual)

    @property
    def salt(self) -> bytes:
        """Keeps pages of one format from serving another."""
        return f"{self.kv}/{self.layout}/{self.residual}".encode()

    @property
    def flags(self) -> dict[str, str]:
        """Of calls that read or write pages."""
        return {"kv": self.kv, "kv_layout": self.layout}

    def nd(self, codes: Tensor, width: int) -> Tensor:
        """Pages [P,16,HKV,lanes] of heads of `width` channels, as the reference takes them."""
        lanes = width // 4 if self.kv == "kv4" else width
        return from_nz(codes, lanes) if self.layout == "nz" else codes

    def quotas(self, heads: int) -> tuple[int, int]:
        """Rows of the residual and of the float pool that belong to each page."""
        if self.residual == "none":
            return 0, 0
        count = math.ceil(SHARE * PAGE * heads)
        return count, count if self.kv == "c8s" else 0


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of a cache, in each layer: `by` is P, R or F where it has rows for each page, else empty."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    by: str
    aligned: bool

    @property
    def bytes(self) -> int:
        """Bytes in one layer, with what keeps pages aligned."""
        if not self.shape:
            return self.dtype.itemsize
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        return self.shape[0] * (-(-row // PAGE_ALIGN) * PAGE_ALIGN if self.aligned else row)


def parts_of(
    config: ModelConfig, pages: int, dtype: torch.dtype, form: KvFormat, rows: int
) -> Mapping[str, Part]:
    """Tensors of `pages` pages in a format by name, as `paged_attention` declares them.

    `k_open` and `v_open` [rows,16,HKV,D] are the floats of pages that are not full, where the format needs them.
    Raises UsageError where the format does not go with the model's heads.
    """
    spec, heads, width = family("paged_attention").spec, config.kv_heads, config.head_dim
    residual, floats = form.quotas(heads)
    sizes = {"TQ": 1, "HQ": heads, "HKV": heads, "DK": width, "DV": width, "NS": rows}
    sizes |= {"MP": 1, "P": pages, "R": pages * residual, "F": pages * floats}
    sizes["NS"] = rows = 1 << max(0, rows - 1).bit_length()  # as sizes of captured passes are
    name = precision_name(from_torch(dtype), form.kv)
    case = spec.case(sizes, name, form.flags | {"residual": form.residual})
    found = {}
    for tensor in spec.inputs:
        if tensor.name in _NOT_KEPT or not tensor.present(case):
            continue
        shape, by = spec.shape(tensor, case), str(tensor.dims[0])
        kind = spec.dtype_of(tensor, case).torch()
        found[tensor.name] = Part(shape, kind, by if by in "PRF" else "", bool(tensor.align))
    if form.residual != "none":
        shape = (rows, PAGE, heads, width)
        found |= {f"{side}_open": Part(shape, dtype, "", True) for side in "kv"}
    return found


def lay_out(layers: int, parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """Zeros [layers, *shape] for each part, in one piece of memory, pages where kernels want them to begin."""
    room = {
        name: -(-layers * part.bytes // PAGE_ALIGN) * PAGE_ALIGN for name, part in parts.items()
    }
    memory, at, found = huge_pages(sum(room.values())), 0, {}
    for name, part in parts.items():
        shape, width = (layers, *part.shape), part.dtype.itemsize
        row = part.bytes // max(1, part.shape[0]) // width
        strides = (part.bytes // width, row, *torch.empty(part.shape[1:], device="meta").stride())
        whole = memory[at : at + room[name]].view(part.dtype)
        found[name] = whole.as_strided(shape, strides)
        at += room[name]
    return found


def bytes_of(config: ModelConfig, dtype: torch.dtype, form: KvFormat, rows: int) -> tuple[int, int]:
    """Bytes of one page in all layers, and of what a cache has besides, `rows` requests being computed at once."""
    parts = parts_of(config, 1, dtype, form, rows).values()
    page = sum(part.bytes for part in parts if part.by)
    return page * config.layers, sum(p.bytes for p in parts if not p.by) * config.layers
