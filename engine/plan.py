"""What a model costs in memory: weights, KV of a page, and how many tokens fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tilewright.engine.build import FORMATS, OWN
from tilewright.engine.kv_formats import NAMES, KvFormat, bytes_of
from tilewright.errors import unknown
from tilewright.kernels._kv.formats import PAGE, QUANTISED, RESIDUAL
from tilewright.models.checkpoint import shapes
from tilewright.models.config import ModelConfig

# Bytes of a weight of a linear [N,K]: with a scale a row (w8a8), with two fp16 a group of 32 (q4_1, w4a8).
_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "w8a8": 1.0, "q4_1": 0.5 + 4 / 32}
_WEIGHT["w4a8"] = _WEIGHT["q4_1"]
LINEAR = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one way to run a model, and the tokens that fit beside the weights.

    `page` is of all layers; `besides` is what a cache has that does not grow with its pages.
    """

    form: str
    kv: str
    residual: str
    weights: int
    page: int
    besides: int
    tokens: int


def plans(
    config: ModelConfig, budget: int, codes: bool = True, halves: bool = False
) -> list[Memory]:
    """Every format of weights with every one of keys and values that it goes with.

    `codes`: the file has 4-bit codes; `halves`: and its output projection 8-bit ones.
    """
    return [
        memory(config, form, kv, budget, residual, halves=halves)
        for form in FORMATS
        if codes or form not in OWN
        for residual in RESIDUAL
        for kv in NAMES
        if (kv in QUANTISED or residual == "none") and {form, kv} != {"fp32", "bf16"}
    ]


def memory(
    config: ModelConfig,
    form: str,
    kv: str,
    budget: int,
    residual: str = "none",
    running: int = 16,
    halves: bool = False,
) -> Memory:
    """The memory of weights in `form` and nd pages in `kv`, of `budget` bytes; evidence: counted, not measured.

    `running` requests at once. Floats of keys and values are the type of activations. Raises UsageError
    for a format there is none of.
    """
    if form not in FORMATS:
        raise unknown("format of weights", form, list(FORMATS))
    if kv not in NAMES:
        raise unknown("format of keys and values", kv, list(NAMES))
    own = kv if kv in ("fp32", "bf16") else "fp32" if form in ("fp32", "q4_1") else "bf16"
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[own]
    plain = dtype.itemsize
    weights = 0.0
    for name, shape in shapes(config).items():
        if name == "head":
            continue
        linear = name.rpartition(".")[2] in LINEAR and "experts" not in name
        weights += math.prod(shape) * (_WEIGHT[form] if linear else plain)
        if linear and form == "w8a8":
            weights += 4 * shape[0]
    # The output projection is laid out for its kernel, beside the embedding where they are one.
    each = 1.0 if form == "w8a8" else 2 * _WEIGHT[form] if halves and form in OWN else plain
    weights += config.vocab * config.hidden * each
    format_of = KvFormat.named(kv, "nd", residual, dtype)
    page, besides = bytes_of(config, dtype, format_of, running)
    left = max(0, budget - int(weights) - besides)
    return Memory(form, kv, residual, int(weights), page, besides, left // page * PAGE)
