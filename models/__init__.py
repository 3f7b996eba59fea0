"""Readers of real models and real text: GGUF weights, tokenizers, inputs for kernels.

Importing this package loads neither torch nor numpy; names are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import ModelConfig
    from .gguf_reader import GgufFile, TensorInfo
    from .real_inputs import (
        DEFAULT_LAYERS,
        DEMO_PROJECTIONS,
        RealLinear,
        default_linears,
        linear_inputs,
    )
    from .smollm import MODEL_SHA256, smollm2_path
    from .text import default_text
    from .tokenizer import Tokenizer

_HOME = {
    "DEFAULT_LAYERS": "real_inputs",
    "DEMO_PROJECTIONS": "real_inputs",
    "GgufFile": "gguf_reader",
    "MODEL_SHA256": "smollm",
    "ModelConfig": "config",
    "RealLinear": "real_inputs",
    "TensorInfo": "gguf_reader",
    "Tokenizer": "tokenizer",
    "default_linears": "real_inputs",
    "default_text": "text",
    "linear_inputs": "real_inputs",
    "smollm2_path": "smollm",
}

__all__ = [
    "DEFAULT_LAYERS",
    "DEMO_PROJECTIONS",
    "MODEL_SHA256",
    "GgufFile",
    "ModelConfig",
    "RealLinear",
    "TensorInfo",
    "Tokenizer",
    "default_linears",
    "default_text",
    "linear_inputs",
    "smollm2_path",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
