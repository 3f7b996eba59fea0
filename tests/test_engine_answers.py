"""Answers of real tiny models: the same bits however they are batched, cut, cached, preempted or replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_doubles import TinyCheckpoint, greedy, plain_llama, tiny_engine
from tilewright.engine.loop import Engine
from tilewright.engine.requests import Request, Sampling, State

SHARED = tuple((13 * i + 5) % 128 for i in range(48))
PROMPTS = (
    (3,),
    SHARED,
    SHARED + (9, 8, 7),
    SHARED[:31] + (77,),
    tuple(range(100, 20, -1)),
    (64, 64, 64, 1),
)
MOST = 12
WANTED = (
    Sampling(most=MOST, logprobs=4),
    Sampling(most=MOST, logprobs=4, temperature=0.9, seed=3, top_p=0.95),
)


def bits(request: Request) -> tuple[list[int], list[dict[int, float]]]:
    """An answer with log-probabilities, which show any bit of the logits that moves."""
    return request.answer, request.logprobs


@cache
def alone(kind: str) -> dict[tuple[int, int], tuple[list[int], list[dict[int, float]]]]:
    """Each prompt by itself, nothing shared, cut or replayed."""
    engine = tiny_engine(kind, prefixes=False)
    return {
        (i, j): bits(engine.generate([prompt], wanted)[0])
        for i, prompt in enumerate(PROMPTS)
        for j, wanted in enumerate(WANTED)
    }


def run(engine: Engine, order: list[tuple[int, int]], gap: int = 0) -> list[Request]:
    """Ask in an order, some steps after each other."""
    requests = []
    for i, j in order:
        requests.append(engine.add(PROMPTS[i], WANTED[j]))
        for _ in range(gap):
            engine.step()
    list(engine.run())
    engine.check()
    return requests


ALL = [(i, j) for i in range(len(PROMPTS)) for j in range(len(WANTED))]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    order=st.lists(st.sampled_from(ALL), min_size=1, max_size=7),
    gap=st.integers(0, 3),
    budget=st.integers(1, 200),
    running=st.integers(1, 8),
    chunk=st.sampled_from([0, 1, 7, 16, 50]),
    pages=st.integers(6, 40),
    prefixes=st.booleans(),
    graphs=st.booleans(),
)
def test_bits_do_not_depend_on_how_requests_are_run(
    order: list[tuple[int, int]], gap: int, **choices: int
) -> None:
    engine = tiny_engine(**choices)
    for place, request in zip(order, run(engine, order, gap), strict=True):
        assert bits(request) == alone("llama")[place]


FEATURES: dict[str, tuple[dict[str, object], Callable[[Engine], int]]] = {
    "batching": ({}, lambda e: e.scheduler.counts.mixed),
    "chunks": ({"chunk": 7}, lambda e: e.scheduler.counts.chunks),
    "budget": ({"budget": 9}, lambda e: e.scheduler.counts.chunks),
    "prefixes": ({"running": 2}, lambda e: e.blocks.counts.hit_tokens),
    "eviction": ({"running": 1, "pages": 9}, lambda e: e.blocks.counts.evicted),
    "preemption": ({"pages": 10}, lambda e: e.scheduler.counts.preemptions),
}
REPLAYED: dict[str, tuple[dict[str, object], Callable[[Engine], int]]] = {
    "graphs": ({"graphs": True}, lambda e: e.graphs.counts.replays if e.graphs else 0),
}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mixtral", "qwen3_moe"])
@pytest.mark.parametrize("feature", [*FEATURES, *REPLAYED])
def test_each_feature_on_each_architecture(kind: str, feature: str) -> None:
    """The feature fired, and no bit of any answer shows it."""
    if feature in REPLAYED and kind in ("mixtral", "qwen3_moe"):
        pytest.skip("routing to experts is computed between the calls of a graph")
    choices, counter = (FEATURES | REPLAYED)[feature]
    engine = tiny_engine(kind, **choices)  # type: ignore[arg-type]
    for place, request in zip(ALL, run(engine, ALL, gap=1), strict=True):
        assert bits(request) == alone(kind)[place]
    assert counter(engine) > 0


@pytest.mark.parametrize(
    "backends",
    ["reference", "host,gemm=reference", "host,paged_attention=reference,rope=reference"],
)
def test_other_backends_choose_the_same_tokens(backends: str) -> None:
    engine = tiny_engine(backends=backends)
    request = engine.generate([PROMPTS[2]], Sampling(most=4))[0]
    assert request.answer == alone("llama")[(2, 0)][0][:4]


@pytest.mark.parametrize("kind", ["llama", "llama-tied"])
def test_logits_are_those_of_the_definition(kind: str) -> None:
    """fp32 against fp64: 1e-5 of the norm; greedy answers of the two are one."""
    checkpoint = TinyCheckpoint(kind)
    engine = tiny_engine(kind)
    kept = []
    plain = engine.forward

    def forward(pieces: object) -> torch.Tensor:
        kept.append(plain(pieces).clone())  # type: ignore[arg-type]
        return kept[-1]

    engine.forward = forward  # type: ignore[method-assign]
    request = engine.generate([PROMPTS[4]], Sampling(most=6))[0]
    right = greedy(lambda t: plain_llama(checkpoint, t)[-1], PROMPTS[4], 6, (), 256)
    assert request.answer == right
    rows = plain_llama(checkpoint, request.tokens)[len(PROMPTS[4]) - 1 : -1]
    for found, row in zip(kept, rows, strict=True):
        assert torch.linalg.norm(found[0].double() - row) <= 1e-5 * torch.linalg.norm(row)


def test_an_end_token_ends_and_is_part_of_the_answer() -> None:
    answer = alone("llama")[(0, 0)][0]
    end = answer[3]
    stop = answer.index(end) + 1
    request = tiny_engine(ends=(end,)).generate([PROMPTS[0]], Sampling(most=MOST))[0]
    assert request.state is State.STOPPED and request.answer == answer[:stop]
    request = tiny_engine(ends=(end,)).generate([PROMPTS[0]], Sampling(most=MOST, ignore_eos=True))[
        0
    ]
    assert request.state is State.FULL and request.answer == answer


def test_an_answer_ends_with_the_models_context() -> None:
    engine = tiny_engine(pages=64)
    assert engine.context == engine.model.config.context == 256
    request = engine.generate([[5] * 250], Sampling(most=50))[0]
    assert len(request.tokens) == 256 and request.state is State.FULL


@pytest.mark.parametrize("graphs", [False, True])
def test_cancelling_in_the_middle_leaves_the_others_alone(graphs: bool) -> None:
    engine = tiny_engine(graphs=graphs, chunk=20)
    requests = [engine.add(PROMPTS[i], WANTED[j]) for i, j in ALL]
    for step in range(9):
        engine.step()
        if step % 2:
            engine.cancel(requests[step])
    list(engine.run())
    engine.check()
    for n, (place, request) in enumerate(zip(ALL, requests, strict=True)):
        answer, logprobs = alone("llama")[place]
        if n in (1, 3, 5, 7):
            assert request.state is State.CANCELLED
            assert request.answer == answer[: len(request.answer)] and len(request.answer) < MOST
        else:
            assert bits(request) == (answer, logprobs)


def test_weights_that_hold_nan_or_infinity_are_named_before_anything_runs() -> None:
    from tilewright.engine.build import BadWeights
    from tilewright.engine.session import Choices, open_engine

    for value in (torch.nan, torch.inf):
        checkpoint = TinyCheckpoint()
        checkpoint.changed["layers.1.down"] = checkpoint.tensor("layers.1.down").clone()
        checkpoint.changed["layers.1.down"][3, 5] = value
        with pytest.raises(BadWeights, match="layers.1.down holds 1 values? that"):
            open_engine(checkpoint, Choices(pages=8))


def test_perplexity_leaves_no_wrong_page_in_the_prefix_cache() -> None:
    from tilewright.engine.perplexity import perplexity
    from tilewright.errors import UsageError

    engine = tiny_engine()
    first = bits(engine.generate([PROMPTS[2]], WANTED[0])[0])
    ids = [(i * i + 3 * i) % 128 for i in range(200)]
    found = perplexity(engine, ids, 64)
    assert (found.tokens, found.windows) == (189, 3)
    logs = [
        plain_llama(TinyCheckpoint(), ids[a : a + 64])[:-1].log_softmax(-1)[
            torch.arange(63), torch.tensor(ids[a + 1 : a + 64])
        ]
        for a in (0, 64, 128)
    ]
    assert found.value == pytest.approx(float(torch.cat(logs).mean().neg().exp()), rel=1e-5)
    assert bits(engine.generate([PROMPTS[2]], WANTED[0])[0]) == first
    engine.add(PROMPTS[0])
    with pytest.raises(UsageError, match="an engine that is idle"):
        perplexity(engine, ids, 64)
