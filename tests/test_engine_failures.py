"""What breaks in a step hurts the request it belongs to: not its batch mates, and not the steps after."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine_doubles import tiny_engine
from tilewright.engine.beams import BeamGroup
from tilewright.engine.loop import Engine
from tilewright.engine.perplexity import perplexity
from tilewright.engine.requests import Sampling, State
from tilewright.errors import Unavailable, UsageError

MOST = Sampling(most=12, ignore_eos=True)


def alone(prompt: list[int], **choices: object) -> list[int]:
    return tiny_engine(**choices).generate([prompt], MOST)[0].answer


def spoil(engine: Engine, row: int, step: int) -> None:
    """Put NaN into a row of a step's logits."""
    forward, steps = engine.forward, iter(range(1 << 30))

    def spoilt(pieces: object) -> Tensor:
        logits = forward(pieces).clone()  # type: ignore[arg-type]
        if next(steps) == step:
            logits[row] = torch.nan
        return logits

    engine.forward = spoilt  # type: ignore[method-assign]


@pytest.mark.parametrize("row", [0, 1, 2])
def test_nan_in_a_beam_ends_its_search_and_nothing_else(row: int) -> None:
    prompt = [3, 1, 4, 1, 5]
    engine = tiny_engine(pages=64)
    group = engine.beams([2, 7, 1, 8], 3, 20)
    other = engine.add(prompt, MOST)
    spoil(engine, row, 4)
    for _ in engine.run():
        pass
    assert group.over and all(m.state is State.FAILED and m.error for m in group.members)
    assert other.answer == alone(prompt)
    engine.check()


def test_a_cache_that_no_memory_holds_is_one_sentence() -> None:
    with pytest.raises(Unavailable, match=r"[0-9.]+ GB of memory cannot be had here"):
        tiny_engine(pages=1 << 40)


def test_a_processor_that_raises_fails_its_request_alone() -> None:
    calls = iter(range(1 << 30))

    def broken(tokens: object, logits: Tensor) -> Tensor:
        if next(calls) == 2:
            raise ValueError("no such rule")
        return logits

    engine = tiny_engine()
    first, second = [5, 9, 2], [6, 5, 3, 5]
    a = engine.add(first, MOST)
    b = engine.add([1, 2, 3], dataclasses.replace(MOST, processors=(broken,)))
    c = engine.add(second, MOST)
    with pytest.raises(ValueError, match="no such rule"):
        for _ in engine.run():
            pass
    assert b.state is State.FAILED
    for _ in engine.run():
        pass
    assert a.answer == alone(first) and len(b.answer) == 2
    assert c.answer == alone(second)
    engine.check()


@pytest.mark.parametrize("kv", ["", "c8d", "kv4"])
@pytest.mark.parametrize("at", [0, 1, 10, 11])
def test_a_step_that_broke_is_computed_again(kv: str, at: int) -> None:
    """Around the step that fills a page, too (the fifth token of the answer is the 17th)."""
    prompt = [3, 1, 4, 1, 5]
    engine = tiny_engine(kv=kv)
    write, calls = engine.cache.write, iter(range(1 << 30))

    def broken(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        if next(calls) == 2 * at + 1:  # in the second layer
            raise RuntimeError("interrupted")

    engine.cache.write = broken  # type: ignore[method-assign]
    request, broke = engine.add(prompt, MOST), 0
    while engine.busy:
        try:
            engine.step()
        except RuntimeError:
            broke += 1
    assert broke == 1 and request.preemptions == 1
    # What 4-bit pages store depends on which tokens are written together.
    assert kv == "kv4" or request.answer == alone(prompt, kv=kv)
    assert len(request.answer) == MOST.most
    engine.check()


def test_events_before_a_processor_that_raises_come_with_the_next_step() -> None:
    def broken(tokens: list[int], logits: Tensor) -> Tensor:
        if len(tokens) == 5:
            raise ValueError("no such rule")
        return logits

    engine = tiny_engine()
    before = engine.add([5, 9, 2], MOST)
    engine.add([1, 2, 3], dataclasses.replace(MOST, processors=(broken,)))
    told = []
    while engine.busy:
        try:
            told += [e.token for e in engine.step() if e.request is before]
        except ValueError:
            continue
    assert told == before.answer == alone([5, 9, 2])


def test_the_last_event_is_told_even_if_nobody_is_left() -> None:
    def broken(tokens: object, logits: Tensor) -> Tensor:
        raise ValueError("no such rule")

    engine = tiny_engine()
    short = engine.add([5, 9, 2], Sampling(most=1, ignore_eos=True))
    engine.add([1, 2, 3], dataclasses.replace(MOST, processors=(broken,)))
    with pytest.raises(ValueError, match="no such rule"):
        engine.step()
    assert engine.busy and short.state is State.FULL
    assert [(e.request, e.token) for e in engine.step()] == [(short, short.answer[0])]
    assert not engine.busy and engine.step() == []


@pytest.mark.parametrize("at", range(4))
def test_a_copy_of_pages_that_breaks_is_made_again(at: int) -> None:
    def answers(engine: Engine) -> list[tuple[tuple[int, ...], float]]:
        group = engine.beams([2, 7, 1, 8], 3, 20)
        while engine.busy:
            try:
                engine.step()
            except KeyboardInterrupt:
                continue
        engine.check()
        return [(e.answer, e.score) for e in group.ended]

    engine = tiny_engine()
    copy, calls = engine.cache.copy, iter(range(1 << 30))
    broken = []

    def breaks(pairs: list[tuple[int, int]]) -> None:
        if pairs and next(calls) == at:
            broken.append(pairs)
            raise KeyboardInterrupt
        copy(pairs)

    engine.cache.copy = breaks  # type: ignore[assignment,method-assign]
    assert answers(engine) == answers(tiny_engine())
    assert broken


@pytest.mark.parametrize("place", ["ranked", "fork"])
def test_a_search_that_breaks_takes_all_its_beams_with_it(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = [3, 1, 4, 1, 5]
    engine = tiny_engine()
    group = engine.beams([2, 7, 1, 8], 3, 20)
    other = engine.add(prompt, MOST)
    for _ in range(4):
        engine.step()
    beams = list(group.members)

    def breaks(*_: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        if place == "ranked":
            patch.setattr(BeamGroup, "ranked", breaks)
        else:  # when the new beams are there
            fork = BeamGroup._fork
            patch.setattr(BeamGroup, "_fork", lambda *a: (fork(*a), breaks()))
        with pytest.raises(RuntimeError, match="broken"):
            while True:
                engine.step()
    for _ in engine.run():
        pass
    assert all(m.state is State.FAILED for m in (*beams, *group.members))
    assert other.answer == alone(prompt)
    engine.check()
    assert engine.blocks.pool.free_pages + engine.blocks.cached == engine.blocks.pages


@pytest.mark.parametrize("penalty", [float("nan"), float("inf"), 1000.0, -10.5])
def test_a_penalty_beyond_all_bounds_is_refused(penalty: float) -> None:
    with pytest.raises(UsageError, match=r"penalty=.*accepted: -10.0 to 10.0"):
        tiny_engine().beams([1, 2], 2, penalty=penalty)


def test_prompts_of_which_one_is_bad_leave_nothing_behind() -> None:
    engine = tiny_engine()
    with pytest.raises(UsageError, match="no tokens"):
        engine.generate([[1, 2], []])
    assert not engine.busy
    engine.check()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda e: e.add([1, 2], Sampling(stop=("a",))), "stop texts need a tokenizer"),
        (lambda e: e.add([1, 2], Sampling(stop="abc")), "stop='abc' is one text"),
        (lambda e: e.add([1, 1.5]), "token 1.5 is not in the vocabulary"),
        (lambda e: e.add("abc"), "token 'a' is not in the vocabulary"),
        (lambda e: e.add([1], Sampling(most=2.5)), "most=2.5; accepted: a whole number"),
        (lambda e: e.add([1], Sampling(top_k=2.5)), "top_k=2.5; accepted: a whole number"),
        (lambda e: perplexity(e, [1, 2, 99999, 3], 2), "token 99999 is not in the vocabulary"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    make: Callable[[Engine], object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        make(tiny_engine())
