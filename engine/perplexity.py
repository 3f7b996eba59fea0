"""Perplexity of a text: how well a model, as the engine runs it, predicts it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from tilewright.engine.batch import alone
from tilewright.engine.loop import Engine
from tilewright.engine.sampling import BadLogits
from tilewright.errors import Unavailable, UsageError


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp of the mean negative log-likelihood, in nats, of `tokens` predicted tokens in `windows`."""

    value: float
    tokens: int
    windows: int


def perplexity(
    engine: Engine,
    ids: Sequence[int],
    window: int = 512,
    most: int = 0,
    step: Callable[[str], object] = lambda _: None,
) -> Perplexity:
    """Non-overlapping windows; positions 1.. of each are predicted, and a last partial window is left out.

    `most` windows at most, 0 for all; after Ctrl-C those that were finished. Raises UsageError for a text shorter than one window, or a window
    that the context or the cache does not hold, or an engine that has requests; BadLogits for NaN.
    """
    if engine.busy:
        raise UsageError("the engine has requests; accepted: an engine that is idle")
    engine.blocks.forget()  # windows lie in the first pages, whatever those held
    if not 2 <= window <= engine.context:
        raise UsageError(f"a window of {window} tokens; accepted: 2 to {engine.context}")
    count = len(ids) // window
    if most:
        count = min(count, most)
    if wrong := [t for t in ids if not 0 <= t < engine.model.config.vocab]:
        raise UsageError(
            f"token {wrong[0]} is not in the vocabulary of {engine.model.config.vocab}"
        )
    if count < 1:
        raise UsageError(f"a text of {len(ids)} tokens has no window of {window}")
    total, done = 0.0, 0
    with suppress(KeyboardInterrupt):
        for i in range(count):
            total += _nll(engine, ids[i * window : (i + 1) * window])
            if math.isnan(total):
                raise BadLogits(f"logits of window {i} hold NaN; weights or a kernel are broken")
            done = i + 1
            step(f"{math.exp(total / (done * (window - 1))):.3f}")
    if not done:
        raise Unavailable("interrupted before the first window was finished")
    tokens = done * (window - 1)
    return Perplexity(math.exp(total / tokens), tokens, done)


def _nll(engine: Engine, ids: Sequence[int]) -> float:
    """Negative log-likelihood, in nats, of all tokens but the first."""
    logits = engine.model.forward(engine.ops, engine.cache, alone(ids)).float()
    wanted = torch.tensor(ids[1:])
    return -float(logits[:-1].log_softmax(-1)[torch.arange(len(ids) - 1), wanted].sum())
