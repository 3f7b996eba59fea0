"""The choice of a token against oracles written down in numpy, and draws against their distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine_doubles import VOCAB, fake_engine, pure
from tilewright.engine.requests import Request, Sampling, State
from tilewright.engine.sampling import BadLogits, choose, filtered, penalised
from tilewright.engine.scheduler import Limits
from tilewright.errors import UsageError

# Multiples of 1/8: sums and quotients by powers of two are exact, and ties are many.
LOGITS = st.lists(
    st.integers(-80, 80).map(lambda n: n / 8) | st.just(-math.inf), min_size=2, max_size=24
).filter(lambda values: max(values) > -math.inf)


def asked(
    answer: list[int] | None = None, prompt: tuple[int, ...] = (0,), **sampling: Any
) -> Request:
    request = Request(prompt, Sampling(**sampling))
    request.tokens += answer or []
    return request


def chosen(request: Request, logits: list[float]) -> int:
    row = torch.tensor(logits)
    return choose(request, row, int(row.argmax())).token


def softmax(values: np.ndarray) -> np.ndarray:
    e = np.exp(values - values.max())
    return e / e.sum()


def kept(logits: list[float], top_k: int, top_p: float, min_p: float) -> tuple[set[int], float]:
    """Ids that stay, straight from the definitions, and how near the closest decision was."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    order = order[: top_k or None]
    probs = softmax(np.array([logits[i] for i in order], dtype=np.float64))
    stay, before, margin = set(), 0.0, 1.0
    for i, p in zip(order, probs, strict=True):
        margin = min(margin, abs(before - top_p), abs(p - min_p * probs[0]) if min_p < 1 else 1.0)
        if (before < top_p or top_p == 1.0) and p >= min_p * probs[0]:
            stay.add(i)
        before += p
    return stay, margin


@settings(max_examples=300, deadline=None)
@given(LOGITS, st.integers(0, 30), st.floats(0.01, 1.0), st.just(0.0) | st.floats(0.01, 0.99))
def test_filters_keep_what_their_definitions_keep(
    logits: list[float], top_k: int, top_p: float, min_p: float
) -> None:
    stay, margin = kept(logits, top_k, top_p, min_p)
    assume(margin > 1e-5)  # fp32 decides what is nearer as it likes
    found = filtered(asked(top_k=top_k, top_p=top_p, min_p=min_p), torch.tensor(logits))
    inside = {i for i, v in enumerate(found.tolist()) if v > -math.inf}
    assert inside == {i for i in stay if logits[i] > -math.inf}
    assert all(found[i] == logits[i] for i in inside)
    assert inside, "something is always left"


@settings(max_examples=200, deadline=None)
@given(
    LOGITS,
    st.data(),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([-0.5, 0.0, 1.25]),
    st.sampled_from([0.0, 0.25]),
)
def test_penalties_are_those_of_their_formula(
    logits: list[float], data: st.DataObject, repetition: float, presence: float, frequency: float
) -> None:
    ids = st.integers(0, len(logits) - 1)
    prompt = tuple(data.draw(st.lists(ids, min_size=1, max_size=6)))
    answer = data.draw(st.lists(ids, max_size=8))
    wanted = {"repetition": repetition, "presence": presence, "frequency": frequency}
    row = torch.tensor(logits)
    found = penalised(asked(answer, prompt, **wanted), row).tolist()
    for i, value in enumerate(logits):
        if i in prompt or i in answer:
            value = value / repetition if value > 0 else value * repetition
        count = answer.count(i)
        value -= frequency * count + presence * (count > 0)
        assert found[i] == value
    assert row.tolist() == logits, "the caller's logits were changed"


@settings(max_examples=100, deadline=None)
@given(LOGITS)
def test_temperature_0_and_top_1_take_the_first_largest(logits: list[float]) -> None:
    first = logits.index(max(logits))
    assert chosen(asked(), logits) == first
    assert chosen(asked(temperature=1.0, top_k=1), logits) == first
    assert chosen(asked(temperature=3.0, min_p=1.0), [*logits[:first], 99.0]) == first
    assert chosen(asked(logprobs=1), logits) == first


@pytest.mark.parametrize("temperature", [1e-40, 1e-6, 1e-3])
def test_a_temperature_near_0_takes_the_most_likely(temperature: float) -> None:
    logits = [5.0, 80.0, 79.0, -3.0]
    assert {chosen(asked(temperature=temperature, seed=s), logits) for s in range(20)} == {1}


def test_the_plain_choice_and_the_long_way_agree() -> None:
    """A request of whom nothing is asked takes `best` as it is; one that asks for more finds the same."""
    for seed in range(20):
        row = torch.randn(50, generator=torch.Generator().manual_seed(seed))
        plain, long = asked(), asked(logprobs=3)
        assert plain.plain and not long.plain
        assert choose(plain, row, int(row.argmax())).token == choose(long, row, -1).token
    for more in ({"temperature": 0.5}, {"presence": 1.0}, {"frequency": 1.0}, {"repetition": 1.1}):
        assert not asked(**more).plain
    assert not asked(processors=(lambda tokens, logits: logits,)).plain


# Chi-square at 1e-6: one false alarm in a million runs, were the seeds not fixed.
CASES = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 1.0, "min_p": 0.2},
    {"temperature": 1.5, "top_k": 8, "top_p": 0.9, "min_p": 0.05},
]


def chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    """Probability of a larger statistic (Wilson and Hilferty's normal approximation)."""
    assert counts[probs == 0].sum() == 0, "a token that is left out was drawn"
    inside = probs > 0
    expected = probs[inside] * counts.sum()
    statistic = ((counts[inside] - expected) ** 2 / expected).sum()
    free = inside.sum() - 1
    z = ((statistic / free) ** (1 / 3) - (1 - 2 / (9 * free))) / math.sqrt(2 / (9 * free))
    return 0.5 * math.erfc(z / math.sqrt(2))


@pytest.mark.parametrize("wanted", CASES, ids=lambda w: ",".join(w))
def test_draws_have_the_distribution(wanted: dict[str, float]) -> None:
    logits = [2.0, 1.5, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5, -2.0]
    scaled = [v / wanted["temperature"] for v in logits]
    stay, margin = kept(
        scaled, int(wanted.get("top_k", 0)), wanted.get("top_p", 1.0), wanted.get("min_p", 0.0)
    )
    assert margin > 1e-4
    probs = np.zeros(len(logits))
    order = sorted(stay)
    probs[order] = softmax(np.array([scaled[i] for i in order]))
    request = asked(seed=7, **wanted)  # type: ignore[arg-type]
    counts = np.bincount([chosen(request, logits) for _ in range(4000)], minlength=len(logits))
    assert chi_square(counts, probs) > 1e-6


def test_the_chi_square_sees_a_wrong_temperature() -> None:
    """The same test on draws at 0.8 held against 1.0: a test that could not fail would pass."""
    logits = [2.0, 1.0, 0.0, -1.0]
    request = asked(seed=7, temperature=0.8)
    counts = np.bincount([chosen(request, logits) for _ in range(4000)], minlength=4)
    assert chi_square(counts, softmax(np.array(logits))) < 1e-6


def test_first_draws_of_many_seeds_have_the_distribution() -> None:
    """Seeds 0, 1, 2, ... are not alike."""
    logits = [1.0, 0.5, 0.0, -0.5, -1.0]
    counts = np.bincount(
        [chosen(asked(seed=s, temperature=1.0), logits) for s in range(3000)], minlength=5
    )
    assert chi_square(counts, softmax(np.array(logits))) > 1e-6


@settings(max_examples=100, deadline=None)
@given(LOGITS, st.integers(0, 8), st.sampled_from([0.0, 1.0]))
def test_logprobs_are_the_log_softmax(logits: list[float], count: int, temperature: float) -> None:
    request = asked(logprobs=count, temperature=temperature, seed=1)
    row = torch.tensor(logits)
    found = choose(request, row, int(row.argmax()))
    if not count:
        assert found.logprobs == {}
        return
    right = np.log(softmax(np.array(logits, dtype=np.float64)) + 1e-300)
    assert found.token in found.logprobs
    for i, value in found.logprobs.items():
        assert value == pytest.approx(right[i], abs=1e-5) or logits[i] == -math.inf
    listed = list(found.logprobs)[: min(count, len(logits))]
    assert (
        sorted((logits[i] for i in listed), reverse=True)
        == sorted(logits, reverse=True)[: len(listed)]
    )
    assert len(found.logprobs) <= count + 1


def answers(limits: Limits, samplings: list[Sampling], pages: int = 60) -> list[list[int]]:
    engine = fake_engine(pages, limits)
    requests = [engine.add([3, 1 + i, 4] * (1 + 5 * i), s) for i, s in enumerate(samplings)]
    for _ in engine.run():
        pass
    if pages < 20:
        assert engine.scheduler.counts.preemptions > 0
    return [r.answer for r in requests]


def test_seeded_draws_depend_on_nothing_but_the_seed() -> None:
    """Not on batch mates, chunks or preemption, in the middle of which the stream of numbers stands still."""
    samplings = [Sampling(temperature=1.0, seed=s, most=15, ignore_eos=True) for s in (5, 5, 6, 7)]
    base = answers(Limits(512, 8), samplings)
    assert (
        base == answers(Limits(5, 2, 3), samplings) == answers(Limits(512, 8), samplings, pages=6)
    )
    assert base != answers(Limits(512, 8), [Sampling(temperature=1.0, seed=9, most=15)] * 4)


def test_processors_come_first_and_see_all_tokens() -> None:
    seen: list[list[int]] = []

    def only_even(tokens: Any, logits: torch.Tensor) -> torch.Tensor:
        seen.append(list(tokens))
        return logits.masked_fill(torch.arange(VOCAB) % 2 == 1, -math.inf)

    engine = fake_engine(20, Limits())
    request = engine.generate(
        [[1, 2, 3]], Sampling(most=8, processors=(only_even,), ignore_eos=True)
    )[0]
    tokens = [1, 2, 3]
    for token in request.answer:
        row = pure(tokens)
        assert token == max(range(0, VOCAB, 2), key=lambda t, row=row: float(row[t]))  # type: ignore[misc]
        tokens.append(token)
    assert seen == [tokens[:n] for n in range(3, 11)]


def test_a_request_that_no_token_is_left_for_fails_alone() -> None:
    def nothing(tokens: Any, logits: torch.Tensor) -> torch.Tensor:
        return torch.full_like(logits, -math.inf)

    engine = fake_engine(20, Limits())
    broken = engine.add([1, 2], Sampling(processors=(nothing,), temperature=1.0))
    other = engine.add([3, 4], Sampling(most=4, ignore_eos=True))
    list(engine.run())
    assert broken.state is State.FAILED and "no token after its 1 processors" in broken.error
    assert len(other.answer) == 4 and other.state is State.FULL and not other.error
    engine.check()
    with pytest.raises(BadLogits):
        choose(broken, torch.zeros(VOCAB), 0)


def test_nan_fails_the_request_that_has_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fake_engine(40, Limits())
    plain = engine.model.forward

    def forward(ops: Any, cache: Any, batch: Any) -> torch.Tensor:
        logits = plain(ops, cache, batch)
        logits[:, 5] = torch.where(batch.tokens[batch.rows] == 13, torch.nan, logits[:, 5])
        return logits

    monkeypatch.setattr(engine.model, "forward", forward)
    broken = engine.add([1, 13], Sampling(temperature=1.0))
    search = engine.beams([2, 13], 3, 5)
    other = engine.add([3, 4], Sampling(most=1))
    events = list(engine.run())
    assert broken.state is State.FAILED
    assert (
        broken.error
        == f"logits of request {broken.number} hold NaN; weights or a kernel are broken"
    )
    assert search.over and not search.ended and "NaN" in search.members[0].error
    assert len(other.answer) == 1 and not other.error
    assert sorted(e.token is None for e in events) == [False, True, True]
    engine.check()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"temperature": -0.1}, "temperature=-0.1; accepted: 0.0 to 100.0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"top_p": 0.0}, "top_p=0.0; accepted: 1e-06 to 1.0"),
        ({"min_p": 1.5}, "min_p=1.5"),
        ({"top_k": -1}, "top_k=-1"),
        ({"most": 0}, "most=0; accepted: 1 to"),
        ({"seed": 1 << 64}, "seed=18446744073709551616; accepted"),
        ({"seed": -(1 << 63) - 1}, "seed=-9223372036854775809; accepted"),
        ({"stop": ("x", "")}, "an empty stop text would end every answer"),
        ({"repetition": 0.0}, "repetition=0.0"),
        ({"logprobs": 65}, "logprobs=65"),
    ],
)
def test_values_out_of_range_are_refused_in_a_sentence(values: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Sampling(**values)


@pytest.mark.parametrize("seed", [0, -1, -(1 << 63), (1 << 64) - 1])
def test_every_accepted_seed_draws(seed: int) -> None:
    assert chosen(asked(seed=seed, temperature=1.0), [0.0, 0.0]) in (0, 1)


@pytest.mark.parametrize(
    "filters", [{}, {"top_p": 0.9}, {"min_p": 0.1}, {"top_k": 5}, {"temperature": 0.0}]
)
def test_infinite_logits_leave_their_tokens_only(filters: dict[str, Any]) -> None:
    def force(tokens: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(0, torch.tensor([7, 9]), math.inf)

    wanted = {"temperature": 1.0, **filters}
    sampling = Sampling(most=40, ignore_eos=True, processors=(force,), logprobs=2, **wanted)
    request = fake_engine(20, Limits()).generate([[1, 2]], sampling)[0]
    assert set(request.answer) == ({7} if not wanted["temperature"] else {7, 9})
    for found in request.logprobs:
        assert found == {7: pytest.approx(math.log(0.5)), 9: pytest.approx(math.log(0.5))}
