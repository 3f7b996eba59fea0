"""The next token of each request from its logits; one request's draw does not depend on another's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from tilewright.engine.requests import Request
from tilewright.errors import TilewrightError


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token, and the log-probabilities that were asked for (with the token's own among them)."""

    token: int
    logprobs: dict[int, float]


class BadLogits(TilewrightError):
    """Logits of a request choose no token."""


def choose(request: Request, logits: Tensor, best: int) -> Chosen:
    """Sample from logits [V], of which `best` is the first largest, as the request wants it.

    Order: the request's processors, penalties, temperature, top-k, top-p, min-p, as in transformers
    (llama.cpp has the temperature last, vLLM min-p first). Log-probabilities are those before the
    temperature. Where logits are +inf, only those tokens are left. Raises BadLogits where
    processors leave no token.
    """
    wanted = request.sampling
    if request.plain:
        return Chosen(best, {})
    logits = logits.float()
    for process in wanted.processors:
        logits = process(request.tokens, logits)
    logits = penalised(request, logits)
    token = int(logits.argmax())
    largest = float(logits[token])
    if not largest > -torch.inf:  # NaN too
        raise BadLogits(f"no token after its {len(wanted.processors)} processors")
    if largest == torch.inf:
        logits = torch.zeros_like(logits).masked_fill(logits != torch.inf, -torch.inf)
        largest = 0.0
    if wanted.temperature > 0.0:
        token = _draw(request, filtered(request, (logits - largest) / wanted.temperature))
    return Chosen(token, _logprobs(logits, token, wanted.logprobs) if wanted.logprobs else {})


def penalised(request: Request, logits: Tensor) -> Tensor:
    """Logits with repetition, presence and frequency penalties."""
    wanted = request.sampling
    if wanted.repetition == 1.0 and wanted.presence == 0.0 and wanted.frequency == 0.0:
        return logits
    logits = logits.clone()
    if wanted.repetition != 1.0:
        seen = torch.tensor(sorted(set(request.tokens)))
        values = logits[seen]
        logits[seen] = torch.where(
            values > 0, values / wanted.repetition, values * wanted.repetition
        )
    counts = Counter(request.answer)
    if counts:
        ids = torch.tensor(list(counts))
        times = torch.tensor([float(n) for n in counts.values()])
        logits[ids] -= wanted.presence + wanted.frequency * times
    return logits


def filtered(request: Request, logits: Tensor) -> Tensor:
    """Logits with -inf for what top-k, top-p and min-p leave out; ties go to the lower id."""
    wanted = request.sampling
    if wanted.top_k == 0 and wanted.top_p == 1.0 and wanted.min_p == 0.0:
        return logits
    values, ids = logits.sort(descending=True, stable=True)
    probs = values.softmax(0)
    keep = torch.ones_like(values, dtype=torch.bool)
    if wanted.top_k:
        keep[wanted.top_k :] = False
        probs = (probs * keep) / (probs * keep).sum()
    if wanted.top_p < 1.0:
        keep &= probs.cumsum(0) - probs < wanted.top_p
    if wanted.min_p > 0.0:
        keep &= probs >= wanted.min_p * probs[0]
    return torch.full_like(logits, -torch.inf).index_copy(0, ids[keep], values[keep])


def _draw(request: Request, logits: Tensor) -> int:
    """One token with the softmax's probabilities, by the exponential race (Gumbel's trick)."""
    if request.generator is None:
        seed = request.sampling.seed
        request.generator = torch.Generator().manual_seed(request.arrival if seed is None else seed)
    race = torch.empty_like(logits).exponential_(generator=request.generator)
    return int((logits - race.log()).argmax())


def _logprobs(logits: Tensor, token: int, count: int) -> dict[int, float]:
    logs = logits.log_softmax(0)
    ids = logs.topk(min(count, logs.shape[0])).indices.tolist()
    return {i: float(logs[i]) for i in dict.fromkeys([*ids, token])}
