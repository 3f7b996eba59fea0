"""Mixtures of experts and normed heads against plain torch, one token at a time, eager and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from tilewright.engine.experts import Experts, Stacked
from tilewright.engine.linear import Dense
from tilewright.engine.loop import Engine
from tilewright.engine.ops import Backends, Ops
from tilewright.engine.requests import Sampling
from tilewright.engine.session import Choices, open_engine
from tilewright.models.checkpoint import Q4, Checkpoint, open_model, shapes
from tilewright.models.config import ModelConfig
from tilewright.models.errors import UnknownTensor
from tilewright.models.real_inputs import rotary
from tilewright.models.tiny import write_tiny
from tilewright.models.tokenizer import Tokenizer

Get = Callable[[str], Tensor]


def normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def fed(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


def mixed(
    x: Tensor, router: Tensor, experts: Sequence[Sequence[Tensor]], used: int, norm: bool
) -> Tensor:
    """As Mixtral's and Qwen3-MoE's blocks in transformers, token by token."""
    y = torch.zeros_like(x)
    for t, row in enumerate(x):
        rated = (row @ router.T).softmax(0)
        gates, ids = rated.topk(used)
        # Who is chosen among equals is not what is asked here, and fp32 has more of them.
        assume(gates[-1] - rated.sort(descending=True).values[used] > 1e-5)
        if norm:
            gates = gates / gates.sum()
        for gate, e in zip(gates, ids.tolist(), strict=True):
            y[t] += gate * fed(row, *experts[e])
    return y


def forward(config: ModelConfig, get: Get, ids: Sequence[int]) -> Tensor:
    """Logits fp64 [T,vocab] of one sequence, in plain torch."""
    eps, width, count = config.rms_eps, config.head_dim, len(ids)
    x = get("embed")[list(ids)]
    for i in range(config.layers):
        w = {name: f"layers.{i}.{name}" for name in ("attn_norm", "q", "k", "v", "o", "ffn_norm")}
        h = normed(x, get(w["attn_norm"]), eps)
        q, k, v = ((h @ get(w[n]).T).view(count, -1, width).transpose(0, 1) for n in "qkv")
        if config.qk_norm:
            q = normed(q, get(f"layers.{i}.q_norm"), eps)
            k = normed(k, get(f"layers.{i}.k_norm"), eps)
        q, k = rotary(q, config.rope_theta), rotary(k, config.rope_theta)
        group = config.heads // config.kv_heads
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        o = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + o.transpose(0, 1).reshape(count, -1) @ get(w["o"]).T
        h = normed(x, get(w["ffn_norm"]), eps)
        x = x + _block(config, get, f"layers.{i}.", h)
    head = get("embed") if config.tied else get("head")
    return normed(x, get("norm"), eps) @ head.T


def _block(config: ModelConfig, get: Get, at: str, h: Tensor) -> Tensor:
    names = ("gate", "up", "down")
    if not config.experts:
        return fed(h, *(get(at + n) for n in names))
    experts = [[get(f"{at}experts.{e}.{n}") for n in names] for e in range(config.experts)]
    return mixed(h, get(at + "router"), experts, config.experts_used, config.norm_topk)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experts")


@cache
def tiny(folder: Path, kind: str) -> Checkpoint:
    return open_model(write_tiny(folder / kind, kind, seed=5))


def logits_of(
    engine: Engine, prompts: Sequence[list[int]], most: int
) -> list[tuple[list[int], Tensor]]:
    """Each request's tokens and the logits [most,vocab] its answer was chosen from."""
    kept: list[list[Tensor]] = [[] for _ in prompts]

    def keep(to: list[Tensor]) -> Callable[[Sequence[int], Tensor], Tensor]:
        def process(_: Sequence[int], row: Tensor) -> Tensor:
            to.append(row.clone())
            return row

        return process

    asked = [
        engine.add(p, Sampling(most=most, ignore_eos=True, processors=(keep(to),)))
        for p, to in zip(prompts, kept, strict=True)
    ]
    for _ in engine.run():
        pass
    engine.check()
    return [(a.tokens, torch.stack(rows)) for a, rows in zip(asked, kept, strict=True)]


PROMPTS = st.lists(st.lists(st.integers(0, 127), min_size=1, max_size=30), min_size=1, max_size=5)


@settings(max_examples=12, deadline=None)
@given(
    prompts=PROMPTS,
    kind=st.sampled_from(["mixtral", "qwen3_moe", "qwen3"]),
    budget=st.sampled_from([5, 512]),
    graphs=st.booleans(),
)
def test_logits_are_those_of_plain_torch(
    folder: Path, prompts: list[list[int]], kind: str, budget: int, graphs: bool
) -> None:
    checkpoint = tiny(folder, kind)
    engine = open_engine(checkpoint, Choices(form="fp32", budget=budget, graphs=graphs))
    for prompt, (tokens, logits) in zip(prompts, logits_of(engine, prompts, 5), strict=True):
        want = forward(checkpoint.config, lambda n: checkpoint.tensor(n).double(), tokens[:-1])
        want = want[len(prompt) - 1 :]
        assert (logits - want).norm() <= 1e-5 * want.norm()
    if graphs:
        assert engine.graphs is not None and engine.graphs.counts.replays > 0


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_a_replayed_mixture_routes_anew(folder: Path, kind: str) -> None:
    prompts = [[3 * i + 1, 50, i] for i in range(7)]  # 7 of 8 rows, the last one is nobody's

    def run(graphs: bool) -> tuple[Engine, list[tuple[list[int], Tensor]]]:
        choices = Choices(form="fp32", graphs=graphs, invariant=True)
        engine = open_engine(tiny(folder, kind), choices)
        return engine, logits_of(engine, prompts, 12)

    (_, eager), (engine, replayed) = run(False), run(True)
    assert engine.graphs is not None and engine.graphs.counts.replays == 11
    assert engine.graphs.counts.captures == 1
    for (tokens, logits), (same, equal) in zip(eager, replayed, strict=True):
        assert tokens == same and torch.equal(logits, equal)
    assert len({tuple(tokens[3:]) for tokens, _ in eager}) > 1
    (captured,) = engine.graphs._captured.values()  # noqa: SLF001
    families = [name for name, _ in captured.graph.profile()]  # type: ignore[attr-defined]
    assert families.count("torch") == 2 * 2 and families.count("grouped_gemm") == 2 * 2


def test_heads_are_normed_in_two_calls(folder: Path) -> None:
    engine = open_engine(tiny(folder, "qwen3"), Choices(form="fp32"))
    engine.ops.host.recording = recording = []
    logits_of(engine, [[1, 2, 3]], 1)
    # Two layers of two norms of heads and two of rows, and the one before the first.
    assert sum(call.family == "rmsnorm" for _, call in recording) == 2 * 4 + 1


@settings(max_examples=20, deadline=None)
@given(
    tokens=st.integers(1, 40),
    experts=st.integers(1, 9),
    share=st.floats(0, 1),
    norm=st.booleans(),
    lonely=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_a_block_alone(
    tokens: int,
    experts: int,
    share: float,
    norm: bool,
    lonely: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    """Any number of experts and of those used; with `lonely` the first ones take every token."""
    torch.manual_seed(seed)
    used, ops = 1 + int(share * (experts - 1)), Ops(Backends.parse("host"), 1, invariant=True)
    x = torch.randn(tokens, 32).to(dtype)
    router = torch.randn(experts, 32).to(dtype)
    if lonely:
        x[:, 0] = 8.0
        router[:, 0] = torch.arange(experts, 0, -1).to(dtype) * 4
    gate, up = (torch.randn(experts, 24, 32).to(dtype) / 5 for _ in range(2))
    down = torch.randn(experts, 32, 24).to(dtype) / 5
    both = [torch.cat(pair) for pair in zip(gate, up, strict=True)]
    block = Experts(Dense(ops, router), Stacked(ops, both), Stacked(ops, list(down)), used, norm)
    got = block(ops, x).double()
    parts = [[one.double() for one in e] for e in zip(gate, up, down, strict=True)]
    # Ratings as the block has them, in its type: who is chosen among equals is not what is asked here.
    rated = Dense(ops, router)(ops, x).double()
    want = mixed_by(rated, x.double(), parts, used, norm)
    # bf16: gate_up, their product, down, gates, their product and the sum are each rounded once or more.
    bound = 1e-5 if dtype == torch.float32 else 8 * 2**-9
    assert (got - want).norm() <= bound * want.norm()
    alone = torch.cat([block(ops, row[None]) for row in x]).double()
    assert torch.equal(got, alone)


def mixed_by(
    rated: Tensor, x: Tensor, experts: Sequence[Sequence[Tensor]], used: int, norm: bool
) -> Tensor:
    """As `mixed`, from ratings [T,E]; of equal ones the first is taken."""
    y = torch.zeros_like(x)
    for t, row in enumerate(x):
        ids = rated[t].argsort(descending=True, stable=True)[:used].tolist()
        gates = rated[t].softmax(0)[ids]
        for gate, e in zip(gates / gates.sum() if norm else gates, ids, strict=True):
            y[t] += gate * fed(row, *experts[e])
    return y


@dataclass(frozen=True)
class Split:
    """A dense model whose feed-forward blocks are split into experts that all take every token.

    A router of zeros gives each the gate 1/E, exactly for E a power of two; down is E times as large.
    """

    dense: Checkpoint
    experts: int

    @property
    def path(self) -> Path:
        return self.dense.path

    @property
    def config(self) -> ModelConfig:
        ffn = self.dense.config.ffn // self.experts
        return replace(self.dense.config, experts=self.experts, experts_used=self.experts, ffn=ffn)

    def tokenizer(self) -> Tokenizer:
        return self.dense.tokenizer()

    def has(self, name: str) -> bool:
        return name in shapes(self.config)

    def shape(self, name: str) -> tuple[int, ...]:
        return shapes(self.config)[name]

    def files(self) -> tuple[Path, ...]:
        return ()

    def q4(self, name: str) -> Q4 | None:
        return None

    def tensor(self, name: str) -> Tensor:
        if not self.has(name):
            raise UnknownTensor(name)
        if name.endswith(".router"):
            return torch.zeros(self.shape(name))
        at, _, rest = name.partition("experts.")
        if not rest:
            return self.dense.tensor(name)
        e, _, part = rest.partition(".")
        whole, ffn = self.dense.tensor(at + part).float(), self.config.ffn
        own = slice(int(e) * ffn, (int(e) + 1) * ffn)
        return whole[:, own] * self.experts if part == "down" else whole[own]


@pytest.mark.parametrize("experts", [2, 8])
def test_a_split_model_is_the_dense_one(folder: Path, experts: int) -> None:
    dense = tiny(folder, "llama")
    choices = Choices(form="fp32", invariant=True, graphs=True, budget=16)
    prompts = [[(i * k) % 128 for i in range(k)] for k in (3, 21, 40)]
    whole = logits_of(open_engine(dense, choices), prompts, 16)
    engine = open_engine(Split(dense, experts), choices)
    split = logits_of(engine, prompts, 16)
    assert engine.graphs is not None and engine.graphs.counts.replays > 0
    for (tokens, want), (same, got) in zip(whole, split, strict=True):
        assert tokens == same
        assert (got - want).norm() <= 1e-5 * want.norm()


@pytest.mark.parametrize("backend", ["reference", "triton", "ascendc"])
def test_each_backend_groups_alike(backend: str) -> None:
    torch.manual_seed(2)
    x, router = torch.randn(5, 32), torch.randn(4, 32)
    both, down = list(torch.randn(4, 48, 32) / 5), list(torch.randn(4, 32, 24) / 5)

    def run(names: str) -> Tensor:
        ops = Ops(Backends.parse(names), 1, invariant=True)
        made = Stacked(ops, both), Stacked(ops, down)
        return Experts(Dense(ops, router), *made, 2, True)(ops, x)

    want = run("host")
    got = run(f"host,grouped_gemm={backend}")
    assert not torch.equal(got, torch.zeros_like(got))
    assert (got - want).norm() <= 1e-5 * want.norm()
