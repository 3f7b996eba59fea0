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
        ends: tokens that end an answer.
        qkv_bias: queries, keys and values have a bias (Qwen2).
        qk_norm: queries and keys are normed head by head (Qwen3).
        experts, experts_used: of a mixture of experts, and those each token takes; 0 for none.
            `ffn` is then the width of one expert.
        norm_topk: the gates of the experts taken add up to 1.
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
    ends: tuple[int, ...] = ()
    qkv_bias: bool = False
    qk_norm: bool = False
    experts: int = 0
    experts_used: int = 0
    norm_topk: bool = True

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
        experts = _count(metadata, f"{arch}.expert_count", 0)
        ffn = _count(metadata, f"{arch}.feed_forward_length")
        if experts:
            ffn = _count(metadata, f"{arch}.expert_feed_forward_length", ffn)
        config = cls(
            name=_text(metadata, "general.name", arch),
            architecture=arch,
            layers=_count(metadata, f"{arch}.block_count"),
            hidden=hidden,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=_count(metadata, f"{arch}.attention.key_length", hidden // heads),
            ffn=ffn,
            rope_theta=_real(metadata, f"{arch}.rope.freq_base", 10000.0),
            rms_eps=_real(metadata, f"{arch}.attention.layer_norm_rms_epsilon"),
            vocab=_count({f"{arch}.vocab_size": vocab}, f"{arch}.vocab_size"),
            context=_count(metadata, f"{arch}.context_length"),
            tied=tied,
            ends=_ends(metadata),
            qkv_bias=arch.startswith("qwen2"),
            qk_norm=arch.startswith("qwen3"),
            experts=experts,
            experts_used=_count(metadata, f"{arch}.expert_used_count", 0),
        )
        return _checked(config)

    @classmethod
    def from_hf(cls, metadata: Mapping[str, object], name: str) -> ModelConfig:
        """Read a Hugging Face config.json.

        Raises:
            MissingMetadata: a needed key is absent or has another type, the model type is none of
                `HF_TYPES`, or its config asks for what is not built (sliding windows, scaled
                rotary angles, other activations).
        """
        kind = _text(metadata, "model_type")
        if kind not in HF_TYPES:
            raise MissingMetadata("model_type", f"= {kind!r}; accepted: {', '.join(HF_TYPES)}")
        _refuse_variants(metadata)
        hidden, heads = (_count(metadata, key) for key in ("hidden_size", "num_attention_heads"))
        experts = _count(metadata, "num_local_experts", _count(metadata, "num_experts", 0))
        ffn = "moe_intermediate_size" if experts and kind != "mixtral" else "intermediate_size"
        config = cls(
            name=name,
            architecture=kind,
            layers=_count(metadata, "num_hidden_layers"),
            hidden=hidden,
            heads=heads,
            kv_heads=_count(metadata, "num_key_value_heads", heads),
            head_dim=_count(metadata, "head_dim", hidden // max(heads, 1)),
            ffn=_count(metadata, ffn),
            rope_theta=_rope_theta(metadata),
            rms_eps=_real(metadata, "rms_norm_eps", 1e-6),
            vocab=_count(metadata, "vocab_size"),
            context=_count(metadata, "max_position_embeddings"),
            tied=bool(metadata.get("tie_word_embeddings", False)),
            ends=_hf_ends(metadata),
            qkv_bias=kind == "qwen2",
            qk_norm=kind.startswith("qwen3"),
            experts=experts,
            experts_used=_count(metadata, "num_experts_per_tok", 0) if experts else 0,
            norm_topk=kind == "mixtral" or bool(metadata.get("norm_topk_prob", False)),
        )
        return _checked(config)


HF_TYPES = ("llama", "qwen2", "qwen3", "mixtral", "qwen3_moe")
GGUF_ARCHITECTURES = ("llama", "qwen2", "qwen3", "qwen3moe")
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "sliding_window": (None,),
    "mlp_bias": (False, None),
    "attention_bias": (False, None),  # Qwen2's is no choice of its config
    "decoder_sparse_step": (1,),
    "mlp_only_layers": ([], None),
}


def accept_gguf(metadata: Mapping[str, object]) -> None:
    """Raise MissingMetadata for a GGUF file whose architecture, or a variant of it, the engine lacks."""
    arch = _text(metadata, "general.architecture")
    if arch not in GGUF_ARCHITECTURES:
        raise MissingMetadata(
            "general.architecture", f"= {arch!r}; accepted: {', '.join(GGUF_ARCHITECTURES)}"
        )
    for key, accepted in (("rope.scaling.type", "none"), ("attention.sliding_window", 0)):
        value = metadata.get(f"{arch}.{key}", accepted)
        if value != accepted:
            raise MissingMetadata(f"{arch}.{key}", f"= {value!r}; accepted: {accepted!r}")


def _checked(config: ModelConfig) -> ModelConfig:
    """Raises MissingMetadata for sizes that make no model."""
    for key in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "context"):
        if getattr(config, key) < 1:
            raise MissingMetadata(key, f"= {getattr(config, key)}; accepted: 1 or more")
    for key, real in (("rope_theta", config.rope_theta), ("rms_eps", config.rms_eps)):
        if not 0 < real < float("inf"):
            raise MissingMetadata(key, f"= {real}; accepted: a positive number")
    if config.heads % config.kv_heads:
        raise MissingMetadata(
            "heads", f"= {config.heads} is no multiple of the {config.kv_heads} of keys and values"
        )
    if config.head_dim % 2:
        raise MissingMetadata("head_dim", f"= {config.head_dim}; rotary angles need an even one")
    if config.experts and not 1 <= config.experts_used <= config.experts:
        raise MissingMetadata(
            "experts used", f"= {config.experts_used}; accepted: 1 to {config.experts}"
        )
    return config


def _refuse_variants(metadata: Mapping[str, object]) -> None:
    for key, accepted in _PLAIN.items():
        value = metadata.get(key, accepted[0])
        if value not in accepted and not (
            key == "sliding_window" and metadata.get("use_sliding_window") is False
        ):
            raise MissingMetadata(key, f"= {value!r}; accepted: {', '.join(map(repr, accepted))}")


def _rope_theta(metadata: Mapping[str, object]) -> float:
    """`rope_theta`, which newer files keep in `rope_parameters`; scaled angles are refused."""
    for key in ("rope_parameters", "rope_scaling"):
        nested = metadata.get(key)
        if isinstance(nested, dict):
            kind = nested.get("rope_type", nested.get("type", "default"))
            if kind != "default":
                raise MissingMetadata(key, f"has the type {kind!r}; accepted: 'default'")
            if "rope_theta" in nested:
                return _real(nested, "rope_theta")
    return _real(metadata, "rope_theta", 10000.0)


def _hf_ends(metadata: Mapping[str, object]) -> tuple[int, ...]:
    found = metadata.get("eos_token_id")
    values = found if isinstance(found, list) else [found]
    return tuple(value for value in values if isinstance(value, int))


def _ends(metadata: Mapping[str, object]) -> tuple[int, ...]:
    found = (metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom"))
    return tuple(dict.fromkeys(value for value in found if isinstance(value, int)))


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
