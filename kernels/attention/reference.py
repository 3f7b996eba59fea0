"""attention in plain torch and fp64: slow, obvious, and what every backend is compared with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor | None = None,
    cu_k: Tensor | None = None,
    alibi: Tensor | None = None,
    *,
    case: Case,
) -> Tensor | tuple[Tensor, Tensor]:
    """o[B,SQ,HQ,DV], and lse[B,SQ,HQ] where the case asks for it.

    `cu_q` and `cu_k` [sequences + 1] cut the tokens of the one batch into sequences.
    """
    q, k, v = (x.to(torch.float64) for x in (q, k, v))
    o = q.new_zeros((*q.shape[:3], v.shape[3]))
    lse = q.new_full(q.shape[:3], -math.inf)
    for b, queries, keys in _sequences(q, k, cu_q, cu_k):
        for head in range(q.shape[2]):
            shared = head // (q.shape[2] // k.shape[2])
            slope = 0.0 if alibi is None else float(alibi[head])
            o[b, queries, head], lse[b, queries, head] = _one_head(
                q[b, queries, head], k[b, keys, shared], v[b, keys, shared], slope, case
            )
    return (o, lse) if case.flags["lse"] == "yes" else o


def _sequences(
    q: Tensor, k: Tensor, cu_q: Tensor | None, cu_k: Tensor | None
) -> list[tuple[int, slice, slice]]:
    if cu_q is None or cu_k is None:
        return [(b, slice(0, q.shape[1]), slice(0, k.shape[1])) for b in range(q.shape[0])]
    ends_q, ends_k = cu_q.tolist(), cu_k.tolist()
    return [
        (0, slice(ends_q[i], ends_q[i + 1]), slice(ends_k[i], ends_k[i + 1]))
        for i in range(len(ends_q) - 1)
    ]


def visible(places: Tensor, keys: int, case: Case) -> Tensor:
    """Which of `keys` keys a query at each of `places` [n] sees: [n, keys] of bool."""
    p, j = places[:, None], torch.arange(keys)[None, :]
    causal, window = case.flags["mask"] == "causal", int(case.number("window"))
    seen = j <= p if causal else torch.ones((len(places), keys), dtype=torch.bool)
    if window:
        seen = seen & ((p - j).abs() < window)
    return seen


def _one_head(q: Tensor, k: Tensor, v: Tensor, slope: float, case: Case) -> tuple[Tensor, Tensor]:
    """o[nq,DV] and lse[nq] of one head of one sequence."""
    given, cap = case.number("scale"), case.number("softcap")
    s = (q @ k.t()) * (given if given != 0 else 1.0 / math.sqrt(max(1, q.shape[1])))
    if cap:
        s = cap * torch.tanh(s / cap)
    # The queries are the last of the sequence.
    places = torch.arange(len(q)) + (len(k) - len(q))
    s = s - slope * (places[:, None] - torch.arange(len(k))[None, :]).abs()
    seen = visible(places, len(k), case)
    s = torch.where(seen, s, -math.inf)
    lse = torch.logsumexp(s, dim=1) if len(k) else s.new_full((len(q),), -math.inf)
    # A row that sees no key, or only keys of score -inf, has no weights.
    weights = torch.where(lse[:, None] == -math.inf, 0.0, torch.exp(s - lse[:, None]))
    return _weighted(weights, seen, v), lse


def _weighted(weights: Tensor, seen: Tensor, v: Tensor) -> Tensor:
    """weights[nq,nk] @ v[nk,DV] where what a row does not see has no part in it, NaN and inf included."""
    finite = torch.isfinite(v)
    o = weights @ torch.where(finite, v, 0.0)
    for j in (~finite).any(dim=1).nonzero().flatten().tolist():
        special = torch.where(finite[j], 0.0, v[j])[None, :] * weights[:, j, None]
        o = o + torch.where(seen[:, j, None], special, 0.0)
    return o


def make_inputs(
    spec: KernelSpec, case: Case, generator: torch.Generator
) -> dict[str, Tensor | None]:
    """Normal q, k and v; sequences of random lengths, some empty, some with more queries than keys."""
    sizes = case.sizes
    drawn: dict[str, Tensor | None] = dict.fromkeys(t.name for t in spec.inputs)
    for name, tokens, heads, d in (
        ("q", "SQ", "HQ", "DK"), ("k", "SK", "HKV", "DK"), ("v", "SK", "HKV", "DV"),
    ):  # fmt: skip
        shape = (sizes["B"], sizes[tokens], sizes[heads], sizes[d])
        values = torch.randn(shape, generator=generator, dtype=torch.float32)
        drawn[name] = values.to(spec.precision(case.precision).dtypes[name].torch())
    if case.flags["alibi"] == "yes":
        drawn["alibi"] = torch.rand((sizes["HQ"],), generator=generator, dtype=torch.float32)
    if case.flags["lengths"] == "ragged":
        drawn["cu_q"], drawn["cu_k"] = _cuts(sizes["SQ"], sizes["SK"], sizes["NS1"], generator)
    return drawn


def _cuts(queries: int, keys: int, ends: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cumulative lengths [ends] of queries and of keys.

    Half of the draws give every sequence as many keys as queries and share out the rest as earlier
    keys, as chunked prefill does; the others cut both independently.
    """
    cu_q = _cut(queries, ends, generator)
    together = bool(torch.rand((), generator=generator) < 0.5)
    if together and keys >= queries:
        return cu_q, cu_q + _cut(keys - queries, ends, generator)
    return cu_q, _cut(keys, ends, generator)


def _cut(total: int, ends: int, generator: torch.Generator) -> Tensor:
    inner = torch.randint(0, total + 1, (max(0, ends - 2),), generator=generator).sort().values
    parts = [torch.zeros(1, dtype=torch.int64), inner, torch.full((1,), total)]
    return torch.cat(parts)[:ends].to(torch.int32)
