"""What residuals buy on the keys and values of a real model: errors, signal to noise, bytes.

    python examples/kv_residual.py                     # SmolLM2-135M on 512 tokens of text
    python examples/kv_residual.py --synthetic         # normal vectors with outlier channels, no model
    python examples/kv_residual.py --share 0.05        # residuals for the 5 % of vectors that err most

For each format and both codes of residuals: the mean relative error of a vector as it is, with residuals on
the selected share, and with residuals on all; the signal-to-noise ratio of the residual code itself
(how much smaller than the error it is given it leaves it); and the bytes added, counted from the tensors.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from tilewright.kernels._kv.reference import Stored, decode, encode_selected
from tilewright.kernels.kv_residual.select import (
    by_budget,
    clipped,
    keep_float,
    overhead,
    relative_error,
)

PAGE = 16
FORMATS = (("c8s", False), ("c8d", False), ("kv4", True), ("kv4", False))


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys or values of some layers as pages [N,16,HKV,64], and static scales [HKV,64] of other tokens."""

    name: str
    pages: torch.Tensor
    channel_scale: torch.Tensor


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    plain: float
    selected: float
    all_: float
    snr_db: float
    added: float


def main() -> None:
    """Print the table for every tensor, format and residual code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--synthetic", action="store_true", help="no model: normal vectors")
    parser.add_argument("--tokens", type=int, default=512, help="a multiple of 16")
    parser.add_argument("--share", type=float, default=0.05, help="of vectors that get a residual")
    asked = parser.parse_args()
    caches = synthetic(asked.tokens) if asked.synthetic else smollm2(asked.tokens)
    print("tensor format  residual |  plain error  share fixed  all fixed |  SNR dB | bytes added")
    for cache in caches:
        for kv, key in FORMATS:
            if kv == "kv4" and key != cache.name.startswith("K"):
                continue
            for residual in ("nested", "e3m0"):
                row = measure(cache, kv, key, residual, asked.share)
                print(
                    f"{cache.name:6s} {kv:7s} {residual:8s} | {row.plain:11.5f} {row.selected:12.5f} "
                    f"{row.all_:10.5f} | {row.snr_db:7.1f} | {100 * row.added:5.2f} %"
                )


def measure(cache: Cache, kv: str, key: bool, residual: str, share: float) -> Row:
    """Quantise with residuals on a share of vectors and on all of them."""
    x = cache.pages
    scale = cache.channel_scale if kv == "c8s" else None
    error = relative_error(x, kv, key, scale)
    select = by_budget(error, round(share * error.numel()))
    everything = torch.ones_like(select)
    if scale is not None:
        beyond = clipped(x, scale)
        select, everything = keep_float(select, beyond), keep_float(everything, beyond)
    stored, used = store(x, kv, key, residual, select, scale)
    fixed = relative_norm(x, decode(stored, kv, residual, key))
    whole, _ = store(x, kv, key, residual, everything, scale)
    repaired = decode(whole, kv, residual, key).double()
    reached = everything == 1
    without = decode(
        store(x, kv, key, residual, 0 * everything, scale)[0], kv, "none", key
    ).double()
    given, left = (x.double() - without)[reached], (x.double() - repaired)[reached]
    names = {f: getattr(stored, f) for f in Stored.__dataclass_fields__ if f != "channel_scale"}
    return Row(
        plain=float(error.mean()),
        selected=float(fixed.mean()),
        all_=float(relative_norm(x, repaired).mean()),
        snr_db=20 * float(torch.log10(given.norm() / left.norm())),
        added=overhead(names, used).relative,
    )


def store(
    x: torch.Tensor,
    kv: str,
    key: bool,
    residual: str,
    select: torch.Tensor,
    scale: torch.Tensor | None,
) -> tuple[Stored, tuple[int, int]]:
    """Pages in pools that hold whatever is selected."""
    d = x.shape[-1]
    rows, floats = int((select == 1).sum()), int((select == 2).sum())
    pools = Stored(
        torch.empty(0),
        pool=torch.zeros((rows, d // 4), dtype=torch.int16),
        pool_scale=torch.zeros(rows),
        fpool=torch.zeros((floats, d), dtype=torch.bfloat16),
    )
    stored, used = encode_selected(x, kv, key, residual, select, pools, channel_scale=scale)
    return (stored if residual == "e3m0" else replace(stored, pool_scale=None)), used


def relative_norm(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x.double() - y.double()).norm(dim=-1) / x.double().norm(dim=-1).clamp_min(1e-300)


def synthetic(tokens: int) -> Iterator[Cache]:
    """Normal vectors; keys have a few channels ten times as large, values none."""
    generator = torch.Generator().manual_seed(0)
    for name in ("K", "V"):
        x = torch.randn((2 * tokens, 3, 64), generator=generator)
        if name == "K":
            x[..., ::21] *= 10
        yield paged(name, x[:tokens], x[tokens:])


def paged(name: str, x: torch.Tensor, calibration: torch.Tensor) -> Cache:
    """Tokens [T,HKV,64] as pages of bf16, with the static scales that other tokens give."""
    pages = x.to(torch.bfloat16).view(-1, PAGE, *x.shape[1:])
    return Cache(name, pages, calibration.abs().amax(0) / 127)


def smollm2(tokens: int) -> Iterator[Cache]:
    """Keys (after RoPE) and values of every layer on the text; static scales from the text that follows it."""
    from tilewright.models.real_inputs import text_ids
    from tilewright.models.smollm import open_smollm2

    file = open_smollm2()
    ids = text_ids()
    here = keys_and_values(file, list(ids[:tokens]))
    there = keys_and_values(file, list(ids[tokens : 3 * tokens]))
    for name, index in (("K", 0), ("V", 1)):
        # Layers stand side by side as heads: each has scales of its own.
        yield paged(name, torch.cat(here[index], 1), torch.cat(there[index], 1))


def keys_and_values(file: object, ids: list[int]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """[T,3,64] of each of the 30 layers of the fp32 model."""
    from torch.nn.functional import scaled_dot_product_attention, silu

    from tilewright.models.gguf_reader import GgufFile
    from tilewright.models.real_inputs import rotary

    assert isinstance(file, GgufFile)
    config = file.config

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        weight = file.tensor(name)
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + config.rms_eps) * weight

    x = file.tensor("token_embd.weight")[ids]
    found: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for layer in range(config.layers):
        block = f"blk.{layer}"

        def linear(h: torch.Tensor, name: str, block: str = block) -> torch.Tensor:
            return h @ file.tensor(f"{block}.{name}.weight").T

        h = norm(x, f"{block}.attn_norm.weight")
        q, k, v = (
            linear(h, f"attn_{n}").view(len(ids), count, config.head_dim).transpose(0, 1)
            for n, count in (("q", config.heads), ("k", config.kv_heads), ("v", config.kv_heads))
        )
        q, k = rotary(q, config.rope_theta), rotary(k, config.rope_theta)
        found[0].append(k.transpose(0, 1))
        found[1].append(v.transpose(0, 1))
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + linear(mixed.transpose(0, 1).reshape(len(ids), -1), "attn_output")
        h = norm(x, f"{block}.ffn_norm.weight")
        x = x + linear(silu(linear(h, "ffn_gate")) * linear(h, "ffn_up"), "ffn_down")
    return found


if __name__ == "__main__":
    main()
