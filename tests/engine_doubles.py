"""Engines for tests: seeded tiny models in memory, a model whose every output says what it read, and plain oracles."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tilewright.engine.batch import Batch
from tilewright.engine.loop import Engine
from tilewright.engine.scheduler import Limits
from tilewright.engine.session import Choices, open_engine
from tilewright.kernels._kv.formats import PAGE
from tilewright.models.checkpoint import Q4, shapes
from tilewright.models.config import ModelConfig
from tilewright.models.errors import MissingTokenizer, UnknownTensor
from tilewright.models.tiny import TINY, tiny_tensor


class TinyCheckpoint:
    """A tiny model that lies in no file; `changed` tensors replace its own."""

    def __init__(self, kind: str = "llama", seed: int = 0, **config: Any) -> None:
        self.config: ModelConfig = dataclasses.replace(TINY[kind], **config)
        self.path, self._seed = Path(f"tiny-{kind}"), seed
        self.changed: dict[str, Tensor] = {}

    def tokenizer(self) -> Any:
        raise MissingTokenizer(self.path)

    def has(self, name: str) -> bool:
        return name in shapes(self.config)

    def shape(self, name: str) -> tuple[int, ...]:
        return shapes(self.config)[name]

    def tensor(self, name: str) -> Tensor:
        if not self.has(name):
            raise UnknownTensor(name, shapes(self.config), self.path.name)
        if name not in self.changed:
            self.changed[name] = tiny_tensor(self.config, name, self._seed)
        return self.changed[name]

    def files(self) -> tuple[Path, ...]:
        return ()

    def q4(self, name: str) -> Q4 | None:
        return None


def tiny_engine(
    kind: str = "llama", seed: int = 0, ends: tuple[int, ...] = (), **choices: Any
) -> Engine:
    """An engine on a tiny model, fp32, one thread, whose bits do not depend on batch mates unless asked."""
    wanted = {"invariant": True, "threads": 1, "pages": 64, **choices}
    return open_engine(TinyCheckpoint(kind, seed, ends=ends), Choices(**wanted))


VOCAB, END = 24, 0


@dataclasses.dataclass
class FakeConfig:
    """What the engine asks of a model's config."""

    context: int = 96
    vocab: int = VOCAB
    ends: tuple[int, ...] = (END,)


def link(before: int, token: int) -> int:
    """What the fake model keeps for a token after a prefix: it depends on every token up to it."""
    return (before * 6364136223846793005 + token * 1442695040888963407 + 1) % (1 << 61)


@lru_cache(50_000)
def spread(links: tuple[int, ...]) -> Tensor:
    """Logits [VOCAB] that depend on all that was kept."""
    seed = hash(links) & ((1 << 62) - 1)
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 3


def pure(tokens: Sequence[int]) -> Tensor:
    """The fake model's logits after `tokens`, with no pages anywhere."""
    links, last = [], 0
    for token in tokens:
        last = link(last, token)
        links.append(last)
    return spread(tuple(links))


class FakeCache:
    """Pages of links."""

    salt = b""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.links = [-1] * (pages * PAGE)
        self.copied = 0

    def keep(self, pages: Iterable[int]) -> None:
        list(pages)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        before = list(self.links)
        for source, target in pairs:
            self.copied += 1
            start, end = source * PAGE, (source + 1) * PAGE
            self.links[target * PAGE : (target + 1) * PAGE] = before[start:end]


class FakeModel:
    """Reads and writes pages as a batch says, so that its logits are right only if every page is."""

    def __init__(self, config: FakeConfig | None = None) -> None:
        self.config = config or FakeConfig()
        self.batches: list[Batch] = []

    def forward(self, ops: object, cache: FakeCache, batch: Batch) -> Tensor:
        self.batches.append(batch)
        tokens, positions, slots = (
            batch.tokens.tolist(),
            batch.positions.tolist(),
            batch.slots.tolist(),
        )
        cu_q, lens, table = batch.cu_q.tolist(), batch.seq_lens.tolist(), batch.block_table.tolist()
        written = [s for s in slots if s >= 0]
        assert len(set(written)) == len(written) == len(tokens), "one slot is written twice"
        read: set[int] = set()
        found: dict[int, Tensor] = {}
        for i, length in enumerate(lens):
            places = [table[i][p // PAGE] * PAGE + p % PAGE for p in range(length)]
            assert positions[cu_q[i] : cu_q[i + 1]] == list(
                range(length - (cu_q[i + 1] - cu_q[i]), length)
            )
            for row in range(cu_q[i], cu_q[i + 1]):
                at = positions[row]
                assert slots[row] == places[at]
                before = cache.links[places[at - 1]] if at else 0
                cache.links[places[at]] = link(before, tokens[row])
                found[row] = torch.empty(0)
            read |= set(places[: positions[cu_q[i]]])
            found[cu_q[i + 1] - 1] = spread(tuple([cache.links[p] for p in places]))
        assert not read & set(written), "a slot that is read as known before is written"
        rows = batch.rows.tolist()
        return torch.stack([found[r] for r in rows]) if rows else torch.empty(0, VOCAB)


class FakeOps:
    """Beam steps by torch."""

    def beam_step(self, logits: Tensor, scores: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        total = (logits.log_softmax(-1) + scores[0][:, None]).flatten()
        best = total.sort(descending=True, stable=True)
        ids = best.indices[:k]
        return ids // logits.shape[1], ids % logits.shape[1], best.values[:k]


def fake_engine(pages: int, limits: Limits, prefixes: bool = True, context: int = 96) -> Engine:
    """The real engine around the fake model."""
    model: Any = FakeModel(FakeConfig(context))
    ops: Any = FakeOps()
    cache: Any = FakeCache(pages)
    return Engine(model, ops, cache, None, limits, prefixes)


def greedy(
    logits_of: Any, prompt: Sequence[int], most: int, ends: Sequence[int], context: int
) -> list[int]:
    """The answer that always takes the first largest logit."""
    tokens = list(prompt)
    while len(tokens) < context and len(tokens) - len(prompt) < most:
        tokens.append(int(logits_of(tokens).argmax()))
        if tokens[-1] in ends:
            break
    return tokens[len(prompt) :]


def beam_search(
    logits_of: Any,
    prompt: Sequence[int],
    width: int,
    most: int,
    ends: Sequence[int],
    penalty: float = 1.0,
    early: bool = False,
    dtype: torch.dtype = torch.float64,
) -> list[tuple[tuple[int, ...], float]]:
    """Beam search as transformers has it, over all candidates of all beams, nothing shared or cut off.

    In fp32 its scores have the bits of FakeOps, so that near ties are ranked alike.
    """
    running: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    ended: list[tuple[tuple[int, ...], float]] = []
    for length in range(1, most + 1):
        found = []
        for answer, score in running:
            logs = logits_of([*prompt, *answer]).to(dtype).log_softmax(-1)
            scores = (logs + torch.tensor(score, dtype=dtype)).tolist()
            found += [((*answer, t), total) for t, total in enumerate(scores)]
        found.sort(key=lambda f: -f[1])
        closed = [f[0][-1] in ends or length == most for f in found]
        fresh = [
            (f[0], f[1] / length**penalty)
            for f, c in list(zip(found, closed, strict=True))[:width]
            if c
        ]
        ended = sorted(ended + fresh, key=lambda e: -e[1])[:width]
        running = [f for f, c in zip(found, closed, strict=True) if not c][:width]
        if not running or (
            len(ended) == width and (early or running[0][1] / length**penalty <= ended[-1][1])
        ):
            break
    return ended


def plain_llama(checkpoint: TinyCheckpoint, tokens: Sequence[int]) -> Tensor:
    """Logits [T,vocab] in fp64 of a Llama, written down straight from its definition."""
    c = checkpoint.config
    half, count = c.head_dim // 2, len(tokens)

    def weight(name: str) -> Tensor:
        return checkpoint.tensor(name).double()

    def norm(x: Tensor, name: str) -> Tensor:
        return x * (x.pow(2).mean(-1, keepdim=True) + c.rms_eps).rsqrt() * weight(name)

    def heads(x: Tensor, name: str, number: int) -> Tensor:
        return (x @ weight(name).t()).view(count, number, c.head_dim).transpose(0, 1)

    powers = c.rope_theta ** (-torch.arange(half).double() / half)
    angles = torch.arange(count).double()[:, None] * powers

    def turn(x: Tensor) -> Tensor:
        a, b = x[..., :half], x[..., half:]
        return torch.cat(
            (a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), -1
        )

    x = weight("embed")[list(tokens)]
    for i in range(c.layers):
        at = f"layers.{i}."
        y = norm(x, at + "attn_norm")
        q = turn(heads(y, at + "q", c.heads))
        k, v = turn(heads(y, at + "k", c.kv_heads)), heads(y, at + "v", c.kv_heads)
        k, v = (t.repeat_interleave(c.heads // c.kv_heads, 0) for t in (k, v))
        scores = q @ k.transpose(1, 2) / c.head_dim**0.5
        scores += torch.full((count, count), -torch.inf).double().triu(1)
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(count, -1)
        x = x + mixed @ weight(at + "o").t()
        y = norm(x, at + "ffn_norm")
        gate = y @ weight(at + "gate").t()
        x = x + (gate * gate.sigmoid() * (y @ weight(at + "up").t())) @ weight(at + "down").t()
    return norm(x, "norm") @ weight("embed" if c.tied else "head").t()
