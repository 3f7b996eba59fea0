"""Which groups of linears are the most sensitive to int8, by what goes into them over a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tilewright.engine.linear import Linear, Tapped
from tilewright.engine.loop import Engine
from tilewright.engine.perplexity import Perplexity, perplexity
from tilewright.engine.routing import Group
from tilewright.engine.transformer import Feed, Layer
from tilewright.errors import UsageError

_SAMPLE = 1 << 15  # values of an input that quartiles are taken from, a window


class _Inputs:
    """What was seen of the inputs of a linear."""

    def __init__(self) -> None:
        self._most, self._sampled = 0.0, [torch.zeros(0)]
        self._draw = torch.Generator().manual_seed(0)

    def see(self, x: Tensor) -> None:
        """Take an input in."""
        values = x.float().flatten()
        self._most = max(self._most, float(values.abs().max()))
        if len(values) > _SAMPLE:
            values = values[torch.randint(len(values), (_SAMPLE,), generator=self._draw)]
        self._sampled.append(values)

    def score(self) -> float:
        """See SCORE; quartiles are those of a seeded sample."""
        low, high = np.quantile(torch.cat(self._sampled).numpy(), [0.25, 0.75])
        return float(self._most / 127 / max(high - low, 1e-30))


def sensitivity(
    engine: Engine,
    ids: Sequence[int],
    keep: int | None = None,
    window: int = 512,
    windows: int = 4,
    step: Callable[[str], object] = lambda _: None,
) -> tuple[list[Group], Perplexity]:
    """Every group of a model with its score over a text, the most sensitive first; the first `keep` in bf16,
    by default one in eight.

    After Ctrl-C over the windows that were begun; those that were finished are in the perplexity.

    Raises UsageError for a number of groups there are not, and what `perplexity` raises.
    """
    layers, watched = engine.model.layers, dict[tuple[int, str], _Inputs]()

    def watch(layer: int, group: str, linear: Linear) -> Linear:
        watched[layer, group] = _Inputs()
        return Tapped(linear, watched[layer, group].see)

    def seen(i: int, layer: Layer) -> Layer:
        feed = layer.feed
        if isinstance(feed, Feed):
            feed = Feed(watch(i, "gate_up", feed.gate_up), watch(i, "down", feed.down))
        return replace(layer, qkv=watch(i, "qkv", layer.qkv), o=watch(i, "o", layer.o), feed=feed)

    engine.model.layers = tuple(seen(i, layer) for i, layer in enumerate(layers))
    try:
        keep = -(-len(watched) // 8) if keep is None else keep
        if not 0 <= keep <= len(watched):
            raise UsageError(f"{keep} groups in bf16; accepted: 0 to {len(watched)}")
        found = perplexity(engine, ids, window, windows, step)
    finally:
        engine.model.layers = layers
    scores = {key: one.score() for key, one in watched.items()}
    ranked = sorted(scores, key=lambda key: (-scores[key], key))
    return [Group(*key, scores[key], rank < keep) for rank, key in enumerate(ranked)], found
