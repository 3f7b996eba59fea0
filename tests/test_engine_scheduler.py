"""The engine's loop, scheduler and pages as one state machine, around a model whose output says what it read."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine_doubles import END, VOCAB, beam_search, fake_engine, greedy, pure
from tilewright.engine.beams import BeamGroup
from tilewright.engine.loop import Engine
from tilewright.engine.requests import Request, Sampling, State
from tilewright.engine.scheduler import Limits, Piece
from tilewright.errors import UsageError
from tilewright.kernels._kv.formats import PAGE

# Prompts of two families that share long beginnings, and of lengths at every edge of a page.
FAMILIES = ([(7 * i + 3) % VOCAB for i in range(90)], [(5 * i + 1) % VOCAB for i in range(90)])
PROMPTS = st.builds(
    lambda family, length, tail: tuple((FAMILIES[family][:length] + tail)[:90]),
    st.integers(0, 1),
    st.one_of(st.integers(0, 70), st.sampled_from([15, 16, 17, 31, 32, 33, 48])),
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=20),
)


def followed(engine: Engine) -> list[list[Piece]]:
    """The pieces of every step from now on."""
    steps: list[list[Piece]] = []
    plain = engine.scheduler.step

    def step() -> list[Piece]:
        waits = {r.number: (r.priority, r.idle) for r in engine.scheduler.requests}
        pieces = plain()
        _judge(engine, pieces, waits)
        steps.append(pieces)
        return pieces

    engine.scheduler.step = step  # type: ignore[method-assign]
    return steps


def _judge(engine: Engine, pieces: list[Piece], waits: dict[int, tuple[int, bool]]) -> None:
    """What must hold of the pieces of a step, whatever came before."""
    limits = engine.scheduler.limits
    assert pieces or not waits, "requests, and a step that does nothing"
    assert sum(p.count for p in pieces) <= limits.budget
    assert len({p.request.number for p in pieces}) == len(pieces)
    for piece in pieces:
        assert 1 <= piece.count <= (limits.chunk or limits.budget)
        assert piece.start == piece.request.computed
        assert piece.request.state is State.RUNNING
        assert len(piece.request.pages) * PAGE >= piece.start + piece.count
    beams = sum(r.bound for r in engine.scheduler.running)
    assert len(engine.scheduler.running) - beams <= limits.running
    for handle in itertools.chain.from_iterable(p.request.pages[p.start // PAGE :] for p in pieces):
        assert engine.blocks.pool.references(handle) == 1, "a page that others read is written"
    if not beams and pieces:
        served = {p.request.number for p in pieces}
        last = max(p.request.priority for p in pieces)
        left = [n for n, (priority, _) in waits.items() if priority < last and n not in served]
        assert not left, "a less urgent request was served before a more urgent one"


class EngineMachine(RuleBasedStateMachine):
    """Every answer is the one that the model gives with nothing shared, cut or preempted."""

    @initialize(
        pages=st.integers(3, 16),
        budget=st.integers(1, 40),
        running=st.integers(1, 6),
        chunk=st.sampled_from([0, 1, 5, 16, 17]),
        prefixes=st.booleans(),
        first=st.lists(st.tuples(PROMPTS, st.integers(4, 30)), min_size=2, max_size=5),
    )
    def start(
        self,
        pages: int,
        budget: int,
        running: int,
        chunk: int,
        prefixes: bool,
        first: list[tuple[tuple[int, ...], int]],
    ) -> None:
        self.engine = fake_engine(pages, Limits(budget, running, chunk), prefixes)
        self.steps = followed(self.engine)
        self.requests: list[Request] = []
        self.searches: list[tuple[BeamGroup, tuple[int, ...], int]] = []
        self.got: Counter[int] = Counter()
        self.cancelled: set[int] = set()
        for prompt, most in first:
            self.add(prompt, most, 0)

    @rule(prompt=PROMPTS, most=st.integers(1, 30), priority=st.integers(-1, 1))
    def ask(self, prompt: tuple[int, ...], most: int, priority: int) -> None:
        self.add(prompt, most, priority)

    def add(self, prompt: tuple[int, ...], most: int, priority: int) -> None:
        if len(prompt) >= self.engine.context:
            with pytest.raises(UsageError, match=f"fewer than {self.engine.context}"):
                self.engine.add(prompt, Sampling(most=most), priority=priority)
            return
        self.requests.append(self.engine.add(prompt, Sampling(most=most), priority=priority))

    @rule(prompt=PROMPTS, width=st.integers(1, 5), most=st.integers(1, 8))
    def search(self, prompt: tuple[int, ...], width: int, most: int) -> None:
        if len(prompt) < self.engine.context:
            group = self.engine.beams(prompt, width, most)
            self.searches.append((group, prompt, min(most, self.engine.context - len(prompt))))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.requests:
            return
        request = data.draw(st.sampled_from(self.requests))
        if not request.state.ended:
            self.cancelled.add(request.number)
        before = request.state
        self.engine.cancel(request)
        assert request.state is (before if before.ended else State.CANCELLED)
        assert not request.pages

    @rule(data=st.data())
    def cancel_search(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(self.searches))[0] if self.searches else None
        if group and not group.over:
            self.engine.cancel(data.draw(st.sampled_from(group.members)))
            assert group.over
            assert not any(r.group is group for r in self.engine.scheduler.requests)
            self.searches = [s for s in self.searches if s[0] is not group]

    @rule(times=st.integers(1, 12))
    def step(self, times: int) -> None:
        self._steps(times)

    def _steps(self, times: int) -> None:
        for _ in range(times):
            for happened in self.engine.step():
                assert happened.token is not None
                self.got[happened.request.number] += 1

    @rule()
    def forget(self) -> None:
        self.engine.blocks.forget()
        assert self.engine.blocks.cached == 0

    @invariant()
    def no_page_is_lost_or_owned_twice(self) -> None:
        if hasattr(self, "engine"):
            self.engine.check()

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        # Every step computes a token at least, and the most urgent request is never set back.
        for _ in range(60_000):
            if not self.engine.busy:
                break
            self._steps(1)
        assert not self.engine.busy, "requests that never end"
        self.engine.check()
        context = self.engine.context
        for request in self.requests:
            most = request.sampling.most
            right = greedy(pure, request.prompt, most, [END], context)
            assert request.answer == right[: len(request.answer)]
            assert self.got[request.number] == len(request.answer)
            if request.number not in self.cancelled:
                assert request.answer == right
                assert request.state is (State.STOPPED if right[-1] == END else State.FULL)
        for group, prompt, most in self.searches:
            right_beams = beam_search(pure, prompt, group.width, most, [END], dtype=torch.float32)
            assert [e.answer for e in group.ended] == [answer for answer, _ in right_beams]
        self.engine.blocks.forget()
        assert self.engine.blocks.pool.free_pages == self.engine.blocks.pages
        for name in ("preemptions", "chunks", "mixed"):
            event(f"{name}: {getattr(self.engine.scheduler.counts, name) > 0}")
        for name in ("hit_tokens", "evicted", "copied"):
            event(f"{name}: {getattr(self.engine.blocks.counts, name) > 0}")


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


LENGTHS = (3, 40, 17, 64, 33, 5)


@pytest.mark.parametrize(
    ("limits", "pages", "counter"),
    [
        (Limits(8, 6, 0), 40, "chunks"),
        (Limits(64, 6, 7), 40, "chunks"),
        (Limits(64, 6, 7), 40, "mixed"),
        (Limits(512, 6), 9, "preemptions"),
        (Limits(1, 1), 6, "chunks"),
    ],
)
def test_limits_show_in_a_counter_and_not_in_an_answer(
    limits: Limits, pages: int, counter: str
) -> None:
    engine = fake_engine(pages, limits)
    prompts = [FAMILIES[0][i : i + n] for i, n in enumerate(LENGTHS)]
    followed(engine)
    for prompt, request in zip(
        prompts, engine.generate(prompts, Sampling(most=20, ignore_eos=True)), strict=True
    ):
        assert request.answer == greedy(pure, prompt, 20, [], engine.context)
    assert getattr(engine.scheduler.counts, counter) > 0


def test_a_prefix_is_computed_once_and_a_hit_is_counted_once() -> None:
    engine = fake_engine(12, Limits(16, 4))
    first = engine.generate([FAMILIES[0][:50]], Sampling(most=1))[0]
    assert engine.blocks.counts.hit_tokens == 0
    computed = engine.scheduler.counts.tokens
    again = engine.generate([FAMILIES[0][:50]], Sampling(most=1))[0]
    assert again.answer == first.answer
    assert engine.blocks.counts.hit_tokens == 48
    assert engine.scheduler.counts.tokens - computed == 2


def test_a_request_that_waits_for_pages_counts_no_hits() -> None:
    engine = fake_engine(6, Limits(512, 4))
    engine.generate([FAMILIES[0][:33]], Sampling(most=1))
    before = engine.blocks.counts.hit_tokens
    long = engine.add(FAMILIES[1][:80], Sampling(most=8, ignore_eos=True))
    engine.step()
    waits = engine.add(FAMILIES[0][:40], Sampling(most=2, ignore_eos=True))
    for _ in range(4):
        engine.step()
        assert waits.state is State.WAITING and not waits.pages
    assert engine.blocks.counts.hit_tokens == before
    for _ in engine.run():
        pass
    assert long.answer == greedy(pure, long.prompt, 8, [], 96)
    assert waits.answer == greedy(pure, waits.prompt, 2, [], 96)


def test_a_collision_of_hashes_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages have one key: tokens decide."""
    from tilewright.engine import blocks

    monkeypatch.setattr(blocks, "chain", lambda parent, tokens: b"same")
    engine = fake_engine(20, Limits())
    prompts = [FAMILIES[0][:40], FAMILIES[1][:40], FAMILIES[0][:40]]
    for prompt in prompts:
        request = engine.generate([prompt], Sampling(most=6, ignore_eos=True))[0]
        assert request.answer == greedy(pure, prompt, 6, [], 96)
    assert engine.blocks.counts.hit_tokens == PAGE  # the first page of the third, and no more


def test_salts_keep_prefixes_apart() -> None:
    engine = fake_engine(20, Limits())
    for salt, hits in ((b"a", 0), (b"b", 0), (b"a", 32)):
        before = engine.blocks.counts.hit_tokens
        engine.add(FAMILIES[0][:40], Sampling(most=1), salt=salt)
        for _ in engine.run():
            pass
        assert engine.blocks.counts.hit_tokens - before == hits


@pytest.mark.parametrize("routed", [False, True])
def test_no_salt_is_taken_for_another_with_a_path(routed: bool) -> None:
    """A path stands in a page's key too: a salt of another length must not look like both."""
    engine = fake_engine(20, Limits())
    prompt, wanted = FAMILIES[0][:40], Sampling(most=1)
    first = engine.add(prompt, wanted, salt=b"s" if routed else b"s" + b"\1" * PAGE)
    second = Request(tuple(prompt), wanted, salt=b"s" + b"\1" * PAGE if routed else b"s")
    for request in (first, second):
        if request.salt == b"s":
            request.turns, request.slot = [0], 0
    for _ in engine.run():
        pass
    assert engine.blocks.claim(second) == 0


def test_a_more_urgent_request_takes_the_seat_and_the_pages() -> None:
    engine = fake_engine(6, Limits(512, 1))
    late = engine.add(FAMILIES[0][:60], Sampling(most=20, ignore_eos=True), priority=1)
    engine.step()
    assert late.state is State.RUNNING
    urgent = engine.add(FAMILIES[1][:60], Sampling(most=20, ignore_eos=True), priority=0)
    engine.step()
    assert (urgent.state, late.state, late.preemptions) == (State.RUNNING, State.WAITING, 1)
    for _ in engine.run():
        if not urgent.state.ended:
            assert len(late.answer) == 1
    for request in (late, urgent):
        assert request.answer == greedy(pure, request.prompt, 20, [], 96)


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(2, 8),
    budget=st.integers(1, 6),
    pages=st.integers(3, 7),
    running=st.integers(1, 3),
    prompt=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=40),
)
def test_a_search_whose_beams_do_not_fit_together_ends_and_is_right(
    width: int, budget: int, pages: int, running: int, prompt: list[int]
) -> None:
    """Fewer tokens a step, seats and pages than beams: they are computed one after the other."""
    engine = fake_engine(pages, Limits(budget, running))
    assume(len(prompt) + 6 < engine.context)
    followed(engine)
    group = engine.beams(prompt, width, 6)
    other = engine.add(prompt[::-1], Sampling(most=4, ignore_eos=True))
    for _ in range(20_000):
        if not engine.busy:
            break
        engine.step()
    engine.check()
    assert group.over and group.steps > 1
    right = beam_search(pure, prompt, width, 6, [END], dtype=torch.float32)
    assert [e.answer for e in group.ended] == [answer for answer, _ in right]
    assert other.answer == greedy(pure, other.prompt, 4, [], engine.context)


def test_searches_larger_than_the_cache_preempt_their_own_beams() -> None:
    engine = fake_engine(4, Limits(64, 2))
    prompt = FAMILIES[0][:30]
    group = engine.beams(prompt, 6, 8)
    for _ in engine.run():
        pass
    assert engine.scheduler.counts.preemptions > 0
    assert engine.blocks.counts.copied > 0
    assert [e.answer for e in group.ended] == [
        a for a, _ in beam_search(pure, prompt, 6, 8, [END], dtype=torch.float32)
    ]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"budget": 0}, "budget=0; accepted: 1 or more"),
        ({"running": -1}, "running=-1; accepted: 1 or more"),
        ({"chunk": -1}, "chunk=-1; accepted: 0 or more"),
    ],
)
def test_limits_that_nothing_could_run_in_are_refused(
    values: dict[str, int], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        Limits(**values)


def test_prompts_that_can_never_be_answered_are_refused() -> None:
    engine = fake_engine(2, Limits())
    for prompt, sentence in (
        ([], "a prompt has no tokens"),
        ([1] * 32, "a prompt of 32 tokens; accepted: fewer than 32"),
        ([1, VOCAB], f"token {VOCAB} is not in the vocabulary of {VOCAB}"),
        ([-1], "token -1 is not in the vocabulary"),
    ):
        with pytest.raises(UsageError, match=sentence):
            engine.add(prompt)
    assert not engine.busy


def test_an_answer_ends_where_the_context_does() -> None:
    engine = fake_engine(2, Limits())
    prompt = FAMILIES[0][:31]
    request = engine.generate([prompt], Sampling(most=50, ignore_eos=True))[0]
    assert len(request.tokens) == 32 and request.state is State.FULL
    group = engine.beams(FAMILIES[0][:30], 3, 50)
    for _ in engine.run():
        pass
    assert max(len(e.answer) for e in group.ended) == 2
