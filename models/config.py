"""The shape of a decoder-only model, as its file declares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import MissingMetadata


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of a Llama-style model.

    Attributes:
        name: what the file calls the model.
        architecture: llama.cpp's architecture word, e.g. "llama".
        layers, hidden, ffn, vocab, context: counts and widths, in elements.
        heads, kv_heads, head_dim: query heads, key/value heads, elements per head.
        rope_theta: base of the rotary frequencies.
        rms_eps: added to the mean square inside RMSNorm.
        tied: the output projection is the embedding matrix.
    """

    name: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    rope_theta: float
    rms_eps: float
    vocab: int
    context: int
    tied: bool

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object], *, tied: bool) -> ModelConfig:
        """Read the `general.*` and `<architecture>.*` keys of a GGUF file.

        Raises:
            MissingMetadata: a key without a default is absent or has another type, or the
                heads do not divide the width.
        """
        arch = _text(metadata, "general.architecture")
        hidden = _count(metadata, f"{arch}.embedding_length")
        heads = _count(metadata, f"{arch}.attention.head_count")
        kv_heads = _count(metadata, f"{arch}.attention.head_count_kv", heads)
        if not heads or not kv_heads or hidden % heads or heads % kv_heads:
            key = f"{arch}.attention.head_count"
            raise MissingMetadata(
                key, f"= {heads} (kv {kv_heads}) does not divide the width {hidden} evenly"
            )
        vocab = metadata.get(f"{arch}.vocab_size")
        if vocab is None:
            tokens = metadata.get("tokenizer.ggml.tokens")
            vocab = len(tokens) if isinstance(tokens, list) else None
        return cls(
            name=_text(metadata, "general.name", arch),
            architecture=arch,
            layers=_count(metadata, f"{arch}.block_count"),
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=_count(metadata, f"{arch}.attention.key_length", hidden // heads),
            ffn=_count(metadata, f"{arch}.feed_forward_length"),
            rope_theta=_real(metadata, f"{arch}.rope.freq_base", 10000.0),
            rms_eps=_real(metadata, f"{arch}.attention.layer_norm_rms_epsilon"),
            vocab=_count({f"{arch}.vocab_size": vocab}, f"{arch}.vocab_size"),
            context=_count(metadata, f"{arch}.context_length"),
            tied=tied,
        )


def _get(metadata: Mapping[str, object], key: str, default: object) -> object:
    value = metadata.get(key)
    if value is None:
        value = default
    if value is None:
        raise MissingMetadata(key, "is absent; the model's shape cannot be read without it")
    return value


def _count(metadata: Mapping[str, object], key: str, default: int | None = None) -> int:
    value = _get(metadata, key, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise MissingMetadata(key, f"= {value!r} is not an integer")
    return value


def _real(metadata: Mapping[str, object], key: str, default: float | None = None) -> float:
    value = _get(metadata, key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MissingMetadata(key, f"= {value!r} is not a number")
    return float(value)


def _text(metadata: Mapping[str, object], key: str, default: str | None = None) -> str:
    value = _get(metadata, key, default)
    if not isinstance(value, str):
        raise MissingMetadata(key, f"= {value!r} is not a string")
    return value
