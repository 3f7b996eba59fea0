"""Encoders and decoders of the formats in `formats.py`, in plain torch: the bits every backend must produce.

Encoders compute in fp32, one rounding an operation. Decoders compute in the type of the scales that
they are given, so that a reference called with fp64 tensors is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tilewright.kernels._kv.formats import PAGE

TINY = 2.0**-126  # the smallest normal fp32: a reciprocal of less overflows
PLAIN, RESIDUAL, FLOAT = 0, 1, 2  # values of a selection


def to_nz(pages: Tensor, sizes: Mapping[str, float]) -> Tensor:
    """[P,16,HKV,L] to [P,HKV,cdiv(L,C0),16,C0], zero padded."""
    c0 = int(sizes["C0"])
    p, tokens, heads, lanes = pages.shape
    blocks = -(-lanes // c0)
    room = torch.zeros((p, tokens, heads, blocks * c0), dtype=pages.dtype)
    room[..., :lanes] = pages
    return room.view(p, tokens, heads, blocks, c0).permute(0, 2, 3, 1, 4).contiguous()


def from_nz(pages: Tensor, lanes: int) -> Tensor:
    """[P,HKV,cdiv(L,C0),16,C0] to [P,16,HKV,L], the padding dropped."""
    p, heads, blocks, tokens, c0 = pages.shape
    flat = pages.permute(0, 3, 1, 2, 4).reshape(p, tokens, heads, blocks * c0)
    return flat[..., :lanes].contiguous()


def pack4(nibbles: Tensor) -> Tensor:
    """[..., D] integers, of which the low 4 bits count, to [..., D/4] int16."""
    d = nibbles.shape[-1]
    four = nibbles.to(torch.int32).bitwise_and(15).reshape(*nibbles.shape[:-1], 4, d // 4)
    bits = sum(four[..., j, :] << (4 * j) for j in range(4))
    return torch.as_tensor(bits).to(torch.int16)


def unpack4(lanes: Tensor, signed: bool = False) -> Tensor:
    """[..., D/4] int16 to [..., D] int32 in 0..15, or -8..7 when signed."""
    bits = lanes.to(torch.int32)
    four = torch.stack([(bits >> (4 * j)) & 15 for j in range(4)], dim=-2).flatten(-2)
    return (four ^ 8) - 8 if signed else four


def reciprocal(scale: Tensor) -> Tensor:
    """fl(1/s) in fp32."""
    return torch.ones((), dtype=torch.float32) / scale.to(torch.float32)


def token_scale8(x: Tensor) -> Tensor:
    """c8d scales of [..., D] floats: [...] fp32."""
    amax = x.to(torch.float32).abs().amax(-1) if x.shape[-1] else x.new_zeros(x.shape[:-1]).float()
    scale = amax * (torch.ones((), dtype=torch.float32) / 127)
    return torch.where(scale < TINY, torch.ones_like(scale), scale)


def range4(x: Tensor, over: int) -> tuple[Tensor, Tensor]:
    """kv4 (scale, zero), both fp16, of floats over dimension `over`."""
    if x.shape[over] == 0:
        shape = x.sum(over).shape
        return torch.ones(shape, dtype=torch.float16), torch.zeros(shape, dtype=torch.float16)
    low, high = x.to(torch.float32).amin(over), x.to(torch.float32).amax(over)
    scale = ((high - low) * (torch.ones((), dtype=torch.float32) / 15)).to(torch.float16)
    return torch.where(scale == 0, torch.ones_like(scale), scale), low.to(torch.float16)


def quantise8(x: Tensor, scale: Tensor) -> Tensor:
    """int8 codes of [..., D] under scales that broadcast against it."""
    return torch.round(x.to(torch.float32) * reciprocal(scale)).clamp(-127, 127).to(torch.int8)


def quantise4(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Codes 0..15 as int32."""
    centred = x.to(torch.float32) - zero.to(torch.float32)
    return torch.round(centred * reciprocal(scale)).clamp(0, 15).to(torch.int32)


def nested8(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """(base code int8, n in -8..7) of the 12-bit code."""
    c = torch.round(x.to(torch.float32) * (16 * reciprocal(scale))).clamp(-2040, 2039)
    return _split(c, torch.int8)


def nested4(x: Tensor, scale: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
    """(base code 0..15, n in -8..7) of the 8-bit code."""
    centred = x.to(torch.float32) - zero.to(torch.float32)
    return _split(torch.round(centred * (16 * reciprocal(scale))).clamp(0, 247), torch.int32)


def _split(c: Tensor, base: torch.dtype) -> tuple[Tensor, Tensor]:
    whole = c.to(torch.int32)
    q = (whole + 8) >> 4
    return q.to(base), whole - 16 * q


def e3m0(error: Tensor) -> tuple[Tensor, Tensor]:
    """(nibbles 0..15, scale [...]) of [..., D] fp32 errors."""
    error = error.to(torch.float32)
    scale = error.abs().amax(-1) if error.shape[-1] else error.new_zeros(error.shape[:-1])
    safe = torch.where(scale < TINY, torch.ones_like(scale), scale)
    bits = (error.abs() * reciprocal(safe)[..., None]).view(torch.int32)
    exponent = (((bits + 0x400000) >> 23) - 120).clamp(0, 7)
    return exponent + torch.where(torch.signbit(error), 8, 0), scale


def e3m0_value(nibbles: Tensor, scale: Tensor) -> Tensor:
    """What nibbles [..., D] under scales [...] stand for, in the type of the scales."""
    magnitude = torch.exp2((nibbles & 7).to(scale.dtype) - 7)
    return torch.where(nibbles >= 8, -magnitude, magnitude) * scale[..., None]


@dataclass(frozen=True, slots=True)
class Stored:
    """Pages of keys or values as they are stored: `codes` [N,16,HKV,L] and what reads them.

    Which of the others are there follows from the format: see `formats.py` for their shapes.
    """

    codes: Tensor
    channel_scale: Tensor | None = None
    token_scale: Tensor | None = None
    token_zero: Tensor | None = None
    page_scale: Tensor | None = None
    page_zero: Tensor | None = None
    mask: Tensor | None = None
    rank: Tensor | None = None
    pool: Tensor | None = None
    pool_scale: Tensor | None = None
    fmask: Tensor | None = None
    frank: Tensor | None = None
    fpool: Tensor | None = None


def _scale_and_zero(stored: Stored, kv: str, key: bool) -> tuple[Tensor, Tensor | None]:
    """Broadcastable against [N,16,HKV,D]."""
    if kv == "c8s":
        return _there(stored.channel_scale)[None, None], None
    if kv == "c8d":
        return _there(stored.token_scale)[..., None], None
    if key:
        return _there(stored.page_scale)[:, None], _there(stored.page_zero)[:, None]
    return _there(stored.token_scale)[..., None], _there(stored.token_zero)[..., None]


def _there(value: Tensor | None) -> Tensor:
    assert value is not None, "the format needs a tensor that was not given"
    return value


def _base(x: Tensor, kv: str, key: bool, channel_scale: Tensor | None) -> Stored:
    """Scales of pages [N,16,HKV,D]; codes are filled in by the caller."""
    if kv == "c8s":
        return Stored(x, channel_scale=channel_scale)
    if kv == "c8d":
        return Stored(x, token_scale=token_scale8(x))
    if key:
        scale, zero = range4(x, over=1)
        return Stored(x, page_scale=scale, page_zero=zero)
    scale, zero = range4(x, over=-1)
    return Stored(x, token_scale=scale, token_zero=zero)


def encode(x: Tensor, kv: str, key: bool, channel_scale: Tensor | None = None) -> Stored:
    """Whole pages of floats [N,16,HKV,D] as base codes; `channel_scale` [HKV,D] for c8s."""
    stored = _base(x, kv, key, channel_scale)
    scale, zero = _scale_and_zero(stored, kv, key)
    codes = quantise8(x, scale) if zero is None else pack4(quantise4(x, scale, zero))
    return replace(stored, codes=codes)


def encode_selected(
    x: Tensor,
    kv: str,
    key: bool,
    residual: str,
    select: Tensor,
    pools: Stored,
    used: tuple[int, int] = (0, 0),
    channel_scale: Tensor | None = None,
) -> tuple[Stored, tuple[int, int]]:
    """Pages [N,16,HKV,D] with residuals where `select` [N,16,HKV] is 1 and floats where it is 2.

    `pools` holds `pool`, `fpool` (and `pool_scale`), of which the first `used` rows are taken. Returns the
    pages with new pools, and the rows used then. Runs are appended in the order of (page, head); the first
    one that ends beyond the pool is left out, and so are all after it.
    """
    plain = encode(x, kv, key, channel_scale)
    scale, zero = _scale_and_zero(plain, kv, key)
    pool, fpool = _there(pools.pool).clone(), _there(pools.fpool).clone()
    mask, rank, rows = _place(select == RESIDUAL, pool.shape[0], used[0])
    fmask, frank, frows = _place(select == FLOAT, fpool.shape[0], used[1])
    codes, pool_scale = plain.codes, pools.pool_scale
    if residual == "nested":
        q, nibbles = nested8(x, scale) if zero is None else nested4(x, scale, zero)
        chosen = (rows >= 0)[..., None]
        codes = torch.where(chosen, q if zero is None else pack4(q), codes)
    else:
        nibbles, error_scale = e3m0(x.to(torch.float32) - _plain_values(plain, kv, key))
        pool_scale = _there(pools.pool_scale).clone()
        pool_scale[rows[rows >= 0]] = error_scale[rows >= 0].to(pool_scale.dtype)
    pool[rows[rows >= 0]] = pack4(nibbles[rows >= 0])
    fpool[frows[frows >= 0]] = x[frows >= 0].to(fpool.dtype)
    stored = replace(
        plain,
        codes=codes,
        mask=mask,
        rank=rank,
        pool=pool,
        pool_scale=pool_scale,
        fmask=fmask,
        frank=frank,
        fpool=fpool,
    )
    return stored, (used[0] + int((rows >= 0).sum()), used[1] + int((frows >= 0).sum()))


def _place(chosen: Tensor, capacity: int, used: int) -> tuple[Tensor, Tensor, Tensor]:
    """(mask, rank) [N,HKV] and the pool row of every token [N,16,HKV], -1 for none."""
    counts = chosen.sum(1)
    rank = torch.zeros(counts.shape, dtype=torch.int32)
    kept = torch.zeros(counts.shape, dtype=torch.bool)
    for n in range(counts.shape[0]):
        for h in range(counts.shape[1]):
            count = int(counts[n, h])
            if count and used + count <= capacity:
                kept[n, h], rank[n, h] = True, used
            used += count
    chosen = chosen & kept[:, None]
    weights = (1 << torch.arange(PAGE, dtype=torch.int32))[None, :, None]
    mask = (chosen * weights).sum(1).to(torch.int16)
    return mask, rank, rows_of(mask, rank)


def rows_of(mask: Tensor, rank: Tensor) -> Tensor:
    """The pool row of every token, [N,16,HKV] int64, -1 where the mask has no bit."""
    shifts = torch.arange(PAGE, dtype=torch.int32)[None, :, None]
    bits = (mask.to(torch.int32)[:, None] >> shifts) & 1
    before = bits.cumsum(1) - bits
    return torch.where(bits == 1, rank[:, None] + before, -1).to(torch.int64)


def _plain_values(stored: Stored, kv: str, key: bool) -> Tensor:
    """fp32 values of the base codes."""
    scale, zero = _scale_and_zero(stored, kv, key)
    if zero is None:
        return scale.to(torch.float32) * stored.codes.to(torch.float32)
    return zero.to(torch.float32) + scale.to(torch.float32) * unpack4(stored.codes).to(
        torch.float32
    )


def decode(stored: Stored, kv: str, residual: str, key: bool) -> Tensor:
    """[N,16,HKV,D] values of stored pages, in the wider of fp32 and the type of the scales."""
    if kv == "float":
        return stored.codes
    scale, zero = _scale_and_zero(stored, kv, key)
    wide = torch.promote_types(scale.dtype, torch.float32)
    scale = scale.to(wide)
    codes = (stored.codes if zero is None else unpack4(stored.codes)).to(wide)
    extra = torch.zeros_like(codes)
    if residual != "none":
        rows = rows_of(_there(stored.mask), _there(stored.rank))
        chosen = rows[rows >= 0]
        nibbles = _there(stored.pool)[chosen]
        if residual == "nested":
            codes[rows >= 0] += unpack4(nibbles, signed=True).to(wide) / 16
        else:
            own = _there(stored.pool_scale).to(wide)[chosen]
            extra[rows >= 0] = e3m0_value(unpack4(nibbles), own)
    values = scale * codes
    if zero is not None:
        values = zero.to(wide) + values
    if residual != "none":
        values = values + extra
        frows = rows_of(_there(stored.fmask), _there(stored.frank))
        values[frows >= 0] = _there(stored.fpool).to(wide)[frows[frows >= 0]]
    return values
