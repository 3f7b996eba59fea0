"""Static scales of keys and values: the largest magnitude of each channel over a text, kept beside the model's cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tilewright.dtypes import from_torch
from tilewright.engine.batch import Batch, alone
from tilewright.engine.build import FORMATS, build
from tilewright.engine.kept import Kept
from tilewright.engine.kv_cache import KvCache, Scales
from tilewright.engine.ops import Backends, Ops
from tilewright.engine.transformer import Transformer
from tilewright.kernels._kv.formats import PAGE
from tilewright.models.checkpoint import Checkpoint
from tilewright.models.text import default_text
from tilewright.models.tokenizer import Tokenizer

TOKENS, WINDOW = 2048, 512


class _Watched(KvCache):
    """Floats, whose magnitudes are kept."""

    most: Scales

    def write(self, ops: Ops, layer: int, k: Tensor, v: Tensor, batch: Batch) -> None:
        for whole, x in zip(self.most, (k, v), strict=True):
            whole[layer] = torch.maximum(whole[layer], x.float().abs().amax(0))
        super().write(ops, layer, k, v, batch)


def static_scales(
    checkpoint: Checkpoint, model: Transformer, ops: Ops, form: str, tokenizer: Tokenizer | None
) -> Scales:
    """Scales of keys and of values [layers,HKV,D] fp32: amax / 127 over 2048 tokens, as `model` computes them.

    `form` is that of its weights. Without a tokenizer the text is of seeded random tokens. What was found
    before for the same files is read again; a text is computed on the host, whatever the backends of `ops`.
    """
    config, dtype = model.config, from_torch(model.dtype).name
    ids = _text(tokenizer, config.vocab)
    kept = Kept(checkpoint.files(), form, dtype, WINDOW, ids, folder="kv-scales", smallest=0)

    def make() -> dict[str, Tensor]:
        host, own = Ops(Backends.parse("host"), ops.threads), model
        if ops.backends != host.backends:
            own = build(checkpoint, host, form if form in FORMATS else dtype, dtype)
        return dict(zip("kv", scales(own, host, ids), strict=True))

    found = kept.parts("scales", make)
    kept.save()
    return found["k"], found["v"]


def scales(model: Transformer, ops: Ops, ids: Sequence[int]) -> Scales:
    """amax / 127 of each channel of keys and values over windows of `ids`; 1 for a channel of zeros."""
    config = model.config
    window = min(WINDOW, config.context)
    cache = _Watched(config, -(-window // PAGE), model.dtype)
    shape = (config.layers, config.kv_heads, config.head_dim)
    cache.most = torch.zeros(shape), torch.zeros(shape)
    for at in range(0, len(ids), window):
        batch = alone(ids[at : at + window])
        model.decode(ops, cache, batch, model.embed(batch.tokens))
    k, v = (torch.where(most > 0, most / 127, 1.0) for most in cache.most)
    return k, v


def _text(tokenizer: Tokenizer | None, vocab: int) -> list[int]:
    if tokenizer is None:
        generator = torch.Generator().manual_seed(0)
        return [int(t) for t in torch.randint(vocab, (TOKENS,), generator=generator)]
    return list(tokenizer.encode(default_text()[: 16 * TOKENS])[:TOKENS])
