"""Beam search on tiny models, held against a search over every candidate and against all answers there are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache

import pytest
import torch
from torch import Tensor

from engine_doubles import TinyCheckpoint, beam_search, plain_llama, tiny_engine
from tilewright.engine.beams import BeamGroup
from tilewright.engine.loop import Engine
from tilewright.engine.requests import Sampling, State
from tilewright.engine.session import Choices, open_engine
from tilewright.errors import UsageError

PROMPT = (5, 80, 33, 7, 7, 101)
# fp32 against fp64: a score is a sum of at most 8 log-probabilities, each good to about 1e-5.
NEAR = 1e-4


@cache
def checkpoint(vocab: int) -> TinyCheckpoint:
    return TinyCheckpoint(vocab=vocab)


@cache
def last(tokens: tuple[int, ...], vocab: int) -> Tensor:
    return plain_llama(checkpoint(vocab), tokens)[-1]


def oracle(vocab: int = 128) -> Callable[[Sequence[int]], Tensor]:
    """Logits after tokens; what several searches ask is computed once."""
    return lambda tokens: last(tuple(tokens), vocab)


def search(engine: Engine, prompt: Sequence[int], width: int, **more: object) -> BeamGroup:
    group = engine.beams(prompt, width, **more)  # type: ignore[arg-type]
    list(engine.run())
    engine.check()
    assert group.over
    return group


def same(group: BeamGroup, right: list[tuple[tuple[int, ...], float]]) -> None:
    assert [e.answer for e in group.ended] == [answer for answer, _ in right]
    for found, (_, score) in zip(group.ended, right, strict=True):
        assert found.score == pytest.approx(score, abs=NEAR)


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 13, 16])
@pytest.mark.parametrize("ends", [(), (112,), (112, 54)], ids=["no end", "an end", "two ends"])
def test_every_width_against_all_candidates(width: int, ends: tuple[int, ...]) -> None:
    engine = tiny_engine(ends=ends)
    right = beam_search(oracle(), PROMPT, width, 7, ends)
    same(search(engine, PROMPT, width, most=7), right)
    if width > 1:
        assert engine.blocks.counts.copied > 0, "beams shared a page and one of them wrote to it"


def test_some_of_those_searches_end_before_the_last_token() -> None:
    """Else the ends above would prove nothing."""
    answers = [a for w in (2, 5, 16) for a, _ in beam_search(oracle(), PROMPT, w, 7, (112, 54))]
    assert any(len(a) < 7 for a in answers) and any(len(a) == 7 for a in answers)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.5])
@pytest.mark.parametrize("early", [False, True])
def test_length_penalties_and_early_stopping(penalty: float, early: bool) -> None:
    engine = tiny_engine(ends=(112, 54, 102))
    right = beam_search(oracle(), PROMPT, 4, 8, (112, 54, 102), penalty, early)
    same(search(engine, PROMPT, 4, most=8, penalty=penalty, early=early), right)


@pytest.mark.parametrize("ends", [(), (3,)])
def test_a_search_as_wide_as_the_vocabulary_finds_the_best_of_all_answers(
    ends: tuple[int, ...],
) -> None:
    """16 tokens, 16 beams, 2 steps: nothing is ever cut off, so the best 16 of all answers are found."""
    logits = oracle(vocab=16)
    prompt, scores = (1, 9, 4), {}
    first = logits(prompt).log_softmax(-1)
    for a, b in itertools.product(range(16), repeat=2):
        if a in ends:
            scores[(a,)] = float(first[a])
        else:
            scores[(a, b)] = float(first[a] + logits((*prompt, a)).log_softmax(-1)[b]) / 2
    best = sorted(scores.items(), key=lambda item: -item[1])[:16]
    engine = open_engine(
        TinyCheckpoint(vocab=16, ends=ends), Choices(pages=64, threads=1, invariant=True)
    )
    same(search(engine, prompt, 16, most=2), best)


def test_one_beam_is_greedy() -> None:
    engine = tiny_engine()
    request = engine.generate([PROMPT], Sampling(most=12))[0]
    group = search(engine, PROMPT, 1, most=12)
    assert list(group.ended[0].answer) == request.answer


@pytest.mark.parametrize(
    ("choices", "counter"),
    [
        ({"graphs": True}, lambda e: e.graphs.counts.replays),
        ({"budget": 3}, lambda e: e.scheduler.counts.chunks),
        ({"pages": 7}, lambda e: e.scheduler.counts.preemptions),
        ({"running": 1}, lambda e: e.blocks.counts.copied),
        ({"prefixes": False}, lambda e: e.blocks.counts.copied),
        ({"backends": "host,beam_topk=reference"}, lambda e: e.blocks.counts.copied),
    ],
    ids=["graphs", "budget", "pages", "seats", "no prefixes", "reference"],
)
def test_how_a_search_is_run_does_not_show(
    choices: dict[str, object], counter: Callable[[Engine], int]
) -> None:
    """Beside another search and plain requests, bit for bit."""
    base = search(tiny_engine(), PROMPT * 4, 5, most=8)
    engine = tiny_engine(**choices)  # type: ignore[arg-type]
    other = engine.beams(PROMPT[::-1], 3, 6)
    plain = [engine.add(PROMPT[i:], Sampling(most=10)) for i in range(3)]
    group = search(engine, PROMPT * 4, 5, most=8)
    assert [(e.answer, e.score) for e in group.ended] == [(e.answer, e.score) for e in base.ended]
    same(other, beam_search(oracle(), PROMPT[::-1], 3, 6, ()))
    assert all(r.state is State.FULL for r in plain)
    assert counter(engine) > 0


def test_logits_of_a_beam_outlive_the_buffers_of_a_graph() -> None:
    """With one token a step each beam's logits wait while the graph's memory is filled again."""
    right = [(e.answer, e.score) for e in search(tiny_engine(), PROMPT, 4, most=6).ended]
    engine = tiny_engine(graphs=True, budget=1)
    group = search(engine, PROMPT, 4, most=6)
    assert [(e.answer, e.score) for e in group.ended] == right
    assert engine.graphs is not None and engine.graphs.counts.replays > 20


@pytest.mark.parametrize(
    ("width", "sentence"), [(0, "0 beams; accepted: 1 to 16"), (17, "17 beams")]
)
def test_widths_there_are_none_of(width: int, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        tiny_engine().beams(PROMPT, width)


def test_more_candidates_than_the_kernel_ranks_are_refused() -> None:
    engine = tiny_engine(ends=tuple(range(5)))
    with pytest.raises(
        UsageError, match="16 beams rank 96 candidates with 5 end tokens; accepted: up to 10"
    ):
        engine.beams(PROMPT, 16)
    assert not engine.busy
    assert search(engine, PROMPT, 10, most=3).ended
    with pytest.raises(UsageError, match="1 beams rank 101 .* accepted: fewer than 64 end tokens"):
        tiny_engine(ends=tuple(range(100))).beams(PROMPT, 1)


def test_cancelling_one_beam_cancels_the_search() -> None:
    engine = tiny_engine()
    group = engine.beams(PROMPT, 4, 50)
    for _ in range(3):
        engine.step()
    engine.cancel(group.members[2])
    assert group.over and not engine.busy
    assert all(m.state is State.CANCELLED and not m.pages for m in group.members)
    engine.check()


def test_ended_answers_are_whole_and_in_order() -> None:
    ends = (112, 54)
    group = search(tiny_engine(ends=ends), PROMPT, 6, most=9)
    scores = [e.score for e in group.ended]
    assert scores == sorted(scores, reverse=True) and len(set(e.answer for e in group.ended)) == 6
    for ended in group.ended:
        assert not set(ended.answer[:-1]) & set(ends)
        assert ended.answer[-1] in ends or len(ended.answer) == 9
    assert torch.isfinite(torch.tensor(scores)).all()
