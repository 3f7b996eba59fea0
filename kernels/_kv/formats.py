"""The formats of a paged KV cache, declared once for every family that reads or writes one.

A page holds PAGE tokens, sequence-major: logical `[P,16,HKV,L]`. L is the number of lanes of a
head: D for floats and int8, D/4 int16 lanes for 4-bit codes.

| kv    | codes                    | one element stands for                                          |
|-------|--------------------------|-----------------------------------------------------------------|
| float | the compute type         | itself                                                          |
| c8s   | int8, -127..127          | s[h,c] * q: one scale per head and channel, fixed beforehand    |
| c8d   | int8, -127..127          | s[t,h] * q: one scale per token and head                        |
| kv4   | 4 bits, 0..15, 4 a lane  | zero + s * q: keys per page, head and channel, values per token |

Arithmetic of an encoder is fp32 with every operation rounded to nearest even and none contracted,
so that codes are the same bits everywhere:

- c8s: r = fl(1/s), q = clamp(rint(fl(x*r)), -127, 127).
- c8d: s = fl(amax * fl(1/127)) over the head's D elements, 1 where that is below 2**-126; then as c8s.
- kv4: over the 16 tokens of a full page (keys, each channel) or the D channels of a token (values):
  zero = fp16(min), s = fp16(fl(fl(max-min) * fl(1/15))), 1 where that is 0; r = fl(1/s),
  q = clamp(rint(fl(fl(x-zero)*r)), 0, 15).
  Keys of a sequence's open page (the last one, when it is partial) stay floats in `k_open`
  `[NS,16,HKV,DK]`; the page's codes, scales and masks of the key are then not read.
- 4 bits: nibble j (bits 4j..4j+3) of lane i is channel j*(D/4) + i.

`residual` adds 4 bits to selected vectors (one token, one head, key or value):

- `mask` `[P,HKV]`: bit t is token t. `rank` `[P,HKV]`: the pool row of the page-head's first vector;
  token t's row is rank + popcount(mask & ((1 << t) - 1)). `pool` `[R,D/4]`: nibbles packed as above.
  rank is 0 where mask is 0.
- nested: the code is rounded once at 16 times the resolution, no scale is stored.
  c8: c = clamp(rint(fl(x * fl(16*r))), -2040, 2039); kv4: c = clamp(rint(fl(fl(x-zero) * fl(16*r))), 0, 247);
  q = floor((c+8)/16) is the base code, n = c - 16q in -8..7 is stored as n & 15. The element stands
  for s*(q + n/16), kv4: zero + s*(q + n/16).
- e3m0: sign and 3 exponent bits of the error that the base code leaves. x^ is the fp32 value of the
  base code (c8: fl(s*q); kv4: fl(zero + s*q), where s*q is exact), e = fl(x - x^), `pool_scale` `[R]` =
  max |e| over the vector, r = fl(1/pool_scale), or 1 where pool_scale is below 2**-126. With t = fl(|e|*r) and
  b its fp32 bits: exponent = clamp(((b + 0x400000) >> 23) - 120, 0, 7), which rounds to the nearest
  power of two, ties up. Bit 3 is the sign of e. The element stands for
  x^ + (-1)**sign * 2**(exponent-7) * pool_scale. There is no code for zero: the smallest is 2**-7.
- float vectors (attention sinks, vectors that a static scale clips): `fmask`, `frank` `[P,HKV]`, `fpool`
  `[F,D]` in the compute type replace the whole vector; its base code is the plain one.
- A token never stands in both masks.

Infinities and NaN have no code: what an encoder stores for a vector that has one is unspecified.
NZ is Ascend's fractal layout: `[P, HKV, cdiv(L,C0), 16, C0]`, C0 = 32 bytes of lanes, zero padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tilewright.cases import Flag
from tilewright.dims import Expr, cdiv, dim
from tilewright.dtypes import FP16, FP32, INT8, INT16, INT32, DType
from tilewright.spec import Layout, Precision, Ref, Tensor

PAGE = 16
PAGE_ALIGN = 512

P, HKV = dim("P"), dim("HKV")
R, F = dim("R"), dim("F")  # rows of the residual pools and of the float pools
PACK, C0 = dim("PACK"), dim("C0")  # by precision: values a lane holds, lanes of 32 bytes

KV_LAYOUT = Flag("kv_layout", ("nd", "nz"), "nd")
KV = ("float", "c8s", "c8d", "kv4")
RESIDUAL = ("none", "nested", "e3m0")
QUANTISED = ("c8s", "c8d", "kv4")

_WITH_RESIDUAL = ("residual", ("nested", "e3m0"))
_CODES = {"c8s": INT8, "c8d": INT8, "kv4": INT16}


def lanes(d: Expr) -> Expr:
    """Lanes of a head with `d` channels under the precision."""
    return d // PACK


def page_layouts(d: Expr) -> dict[str, Layout]:
    """nd and nz of a tensor of pages; `to_nz` must stand in the family's reference.py."""
    return {
        "nd": Layout((P, PAGE, HKV, lanes(d)), blocked=3),
        "nz": Layout((P, HKV, cdiv(lanes(d), C0), PAGE, C0), Ref("reference:to_nz"), blocked=4),
    }


def pages(
    name: str, d: Expr, when: tuple[str, tuple[str, ...]] | None = None, inout: bool = False
) -> Tensor:
    """A cache `[P,16,HKV,lanes(d)]`, nd or nz by the flag `kv_layout`, pages aligned as Ascend needs them."""
    return Tensor(
        name,
        P,
        PAGE,
        HKV,
        lanes(d),
        layouts=page_layouts(d),
        layout_flag="kv_layout",
        when=when,
        inout=inout,
        align=PAGE_ALIGN,
    )


def scales(prefix: str, d: Expr, key: bool, inout: bool = False) -> tuple[Tensor, ...]:
    """What the codes of a key or value cache are read with, under the flag `kv`.

    Static scales are never written: they are inputs even where the rest is `inout`.
    """
    channel = Tensor(f"{prefix}channel_scale", HKV, d, when=("kv", ("c8s",)), init="scale")
    page = (P, HKV, d)
    token = (P, PAGE, HKV)
    if key:
        return (
            channel,
            Tensor(f"{prefix}token_scale", *token, when=("kv", ("c8d",)), inout=inout),
            Tensor(f"{prefix}page_scale", *page, when=("kv", ("kv4",)), inout=inout),
            Tensor(f"{prefix}page_zero", *page, when=("kv", ("kv4",)), inout=inout),
        )
    return (
        channel,
        Tensor(f"{prefix}token_scale", *token, when=("kv", ("c8d", "kv4")), inout=inout),
        Tensor(f"{prefix}token_zero", *token, when=("kv", ("kv4",)), inout=inout),
    )


def residuals(
    prefix: str, d: Expr, inout: bool = False, always: bool = False
) -> tuple[Tensor, ...]:
    """Masks, ranks and pools of a key or value cache, under the flag `residual`.

    `always` is for families without `residual=none`: what both kinds have is never left out.
    """
    by_page = (P, HKV)

    def one(name: str, *size: Expr, only: tuple[str, ...] = ()) -> Tensor:
        values = only or (() if always else ("nested", "e3m0"))
        when = ("residual", values) if values else None
        return Tensor(prefix + name, *size, when=when, inout=inout)

    return (
        one("mask", *by_page),
        one("rank", *by_page),
        one("pool", R, d // 4),
        one("pool_scale", R, only=("e3m0",)),
        one("fmask", *by_page),
        one("frank", *by_page),
        one("fpool", F, d),
    )


def dtypes(prefix: str, compute: DType, kv: str, key: bool) -> dict[str, DType]:
    """Element types of what `scales` and `residuals` declare; the cache's own is `code_dtype`."""
    token = FP16 if kv == "kv4" else FP32
    found = {"channel_scale": FP32, "token_scale": token}
    found |= {"page_scale": FP16, "page_zero": FP16} if key else {"token_zero": FP16}
    found |= {"mask": INT16, "rank": INT32, "pool": INT16, "pool_scale": FP32}
    found |= {"fmask": INT16, "frank": INT32, "fpool": compute}
    return {prefix + name: dtype for name, dtype in found.items()}


def code_dtype(compute: DType, kv: str) -> DType:
    """The element type of a cache."""
    return compute if kv == "float" else _CODES[kv]


def precision_name(compute: DType, kv: str) -> str:
    return compute.name if kv == "float" else f"{compute.name}-{kv}"


def kv_precision(
    compute: DType, kv: str, own: Mapping[str, DType], flags: Mapping[str, tuple[str, ...]]
) -> Precision:
    """The precision of a family whose flag `kv` is fixed to one value by it.

    `own` are the types of the family's tensors; `flags` narrows further ones.
    """
    code = code_dtype(compute, kv)
    return Precision(
        precision_name(compute, kv),
        dtypes=MappingProxyType(dict(own)),
        accumulate=FP32,
        sizes=MappingProxyType({"PACK": 4 if kv == "kv4" else 1, "C0": 32 // code.bytes}),
        flags=MappingProxyType({"kv": (kv,), **flags}),
    )
