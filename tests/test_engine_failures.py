"""What breaks in a step hurts the request it belongs to: not its batch mates, and not the steps after."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from engine_doubles import tiny_engine
from tilewright.engine.loop import Engine
from tilewright.engine.requests import Sampling, State

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
