"""The engine: requests in, tokens out, one step at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tilewright.engine.batch import Batch
from tilewright.engine.beams import BeamGroup, candidates
from tilewright.engine.blocks import Blocks
from tilewright.engine.graphs import Graphs
from tilewright.engine.kv_cache import KvCache
from tilewright.engine.ops import Ops
from tilewright.engine.requests import Request, Sampling, State
from tilewright.engine.routing import Router
from tilewright.engine.sampling import BadLogits, choose
from tilewright.engine.scheduler import Limits, Piece, Scheduler
from tilewright.engine.text import TextStream
from tilewright.engine.transformer import Transformer
from tilewright.errors import Unavailable, UsageError
from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels.beam_topk.spec import MOST
from tilewright.models.tokenizer import Tokenizer
from tilewright.pages import page_of


@dataclass(frozen=True, slots=True)
class Event:
    """What a step brought one request: a token, and the text that is certain now; or its end."""

    request: Request
    token: int | None
    text: str


class Engine:
    """Runs requests on one model. Not for several threads: one caller steps it."""

    def __init__(
        self,
        model: Transformer,
        ops: Ops,
        cache: KvCache,
        tokenizer: Tokenizer | None = None,
        limits: Limits | None = None,
        prefixes: bool = True,
        graphs: bool = False,
        router: Router | None = None,
    ) -> None:
        self.model, self.ops, self.cache, self.tokenizer = model, ops, cache, tokenizer
        self.blocks = Blocks(cache.pages, prefixes)
        self.scheduler = Scheduler(self.blocks, limits or Limits())
        self.context = min(model.config.context, cache.pages * PAGE)
        self.graphs = Graphs(model, ops, cache, self.context) if graphs else None
        self.ends, self.router = frozenset(model.config.ends), router
        self._arrivals = 0
        self._late: list[Event] = []  # of a step that was broken off

    def add(
        self,
        prompt: Sequence[int],
        sampling: Sampling | None = None,
        priority: int = 0,
        salt: bytes = b"",
    ) -> Request:
        """Queue a prompt of token ids. Raises UsageError for one that can never be answered."""
        request = Request(tuple(prompt), sampling or Sampling(), priority, salt)
        request.arrival = self._arrivals
        if len(request.prompt) >= self.context:
            raise UsageError(
                f"a prompt of {len(request.prompt)} tokens; accepted: fewer than {self.context}, "
                f"the least of the model's context {self.model.config.context} and of "
                f"{self.cache.pages} pages of {PAGE}"
            )
        vocab = self.model.config.vocab
        wrong = [
            t for t in request.prompt if not isinstance(t, int | np.integer) or not 0 <= t < vocab
        ]
        if wrong:
            raise UsageError(f"token {wrong[0]!r} is not in the vocabulary of {vocab}")
        if request.sampling.stop and self.tokenizer is None:
            raise UsageError("stop texts need a tokenizer; accepted: a model that has one")
        self._arrivals += 1
        request.salt = self.cache.salt + request.salt
        self.scheduler.add(request)
        return request

    def cancel(self, request: Request) -> None:
        """End a request now, with all beams of its search if it is one; what it has stays."""
        if not request.state.ended:
            self._all(request, State.CANCELLED)

    def route(self, request: Request, bf16: bool = True) -> None:
        """Compute the rest of a request in bf16 where such weights are kept, or in int8 again.

        It takes effect with the next step; nothing is computed again. Raises UsageError where weights have one
        path, and what `Router.send` raises.
        """
        if self.router is None:
            raise UsageError(
                "the weights have one path; accepted: an engine opened with a file of sensitive layers"
            )
        self.router.send(request, bf16)

    @property
    def busy(self) -> bool:
        """Whether any request has not ended, or an event was not told."""
        return bool(self.scheduler.requests or self._late)

    def step(self) -> list[Event]:
        """Compute the next tokens; an event for each request that got one or ended.

        A request whose logits hold NaN, or none of whose tokens is allowed, fails: its `error` says why.
        What a request's processor raises is raised; events of that step come with the next one.
        """
        pieces, events = self.scheduler.step(), self._late
        self._late = []
        if not pieces:
            if self.busy and not events:
                raise Unavailable(
                    f"{self.cache.pages} pages do not hold all beams of a search at once; "
                    "accepted: more pages, or fewer beams"
                )
            return events
        try:
            self.cache.copy(self.scheduler.copies)
            begun = ((r.pages, r.computed) for r in self.scheduler.running if r.computed % PAGE)
            self.cache.keep(page_of(pages[count // PAGE]) for pages, count in begun)
            logits = self.forward(pieces)
        except BaseException:  # pages are half written, and formats with open pages have moved on
            for piece in pieces:
                self.scheduler.preempt(piece.request)
            self._late = events
            raise
        if self.router:
            self.router.tally()
        top = logits.max(dim=1)  # NaN for a row that holds one, else its first largest
        values, ids = top.values.tolist(), top.indices.tolist()
        for piece in pieces:  # all of them before one is drawn from: that may raise
            piece.request.computed += piece.count
            piece.request.reached = max(piece.request.reached, piece.request.computed)
            self.blocks.learn(piece.request)
        wanted = [piece.request for piece in pieces if piece.last]
        for row, request in enumerate(wanted):
            if request.state.ended:
                continue  # a beam of a search that failed in this step
            try:
                if values[row] != values[row]:
                    events.append(self._fail(request, "NaN; weights or a kernel are broken"))
                elif request.group is None:
                    events.append(self._next(request, logits[row], ids[row]))
                elif request.group.take(request, logits[row]):
                    self._advance(request.group)
            except BaseException:  # of a processor, say: the request fails, those behind it wait
                self._all(request, State.FAILED)
                for later in wanted[row + 1 :]:
                    if not later.state.ended:
                        self.scheduler.preempt(later)
                self._late = events
                raise
        return events

    def beams(
        self,
        prompt: Sequence[int],
        width: int,
        most: int = 128,
        penalty: float = 1.0,
        early: bool = False,
    ) -> BeamGroup:
        """Queue a beam search; `group.ended` are its answers, the best first, once it is over.

        Raises UsageError for a width whose candidates the kernel cannot rank.
        """
        group = BeamGroup(width, penalty, early)
        if (count := candidates(width, self.ends)) > MOST:
            fits = MOST // candidates(1, self.ends)
            raise UsageError(
                f"{width} beams rank {count} candidates with {len(self.ends)} end tokens; accepted: "
                + (f"up to {fits} beams" if fits else f"fewer than {MOST} end tokens")
            )
        most = min(most, max(1, self.context - len(prompt)))
        request = self.add(prompt, Sampling(most=most))
        request.group = group
        group.members.append(request)
        return group

    def _advance(self, group: BeamGroup) -> None:
        before, state = list(group.members), State.FAILED
        try:
            group.advance(self.ops, self.blocks, self.ends)
            state = State.STOPPED
        finally:
            for request in before:
                self.scheduler.end(request, state)
        for request in group.members:
            if group.over:
                self.blocks.release(request)
                request.state = State.STOPPED
            else:
                self.scheduler.running.append(request)

    def forward(self, pieces: Sequence[Piece]) -> Tensor:
        """Logits [R,vocab] of the pieces that catch up with their requests; they stand until the next call."""
        batch = batch_of(pieces)
        if self.graphs and self.graphs.fits(batch):
            return self.graphs.forward(batch)
        return self.model.forward(self.ops, self.cache, batch)

    def use(self, threads: int) -> None:
        """Run host kernels on so many threads from now on, 0 for all; graphs are captured again."""
        if threads != self.ops.host.threads:
            self.ops.host.threads = self.ops.threads = threads
            if self.graphs:
                self.graphs.forget()

    @property
    def native_s(self) -> float:
        """Seconds spent in host kernels since the start; the rest of a step is Python and torch."""
        replays = self.graphs.counts.native_ns if self.graphs else 0
        return (self.ops.host.native_ns + replays) / 1e9

    def run(self) -> Iterator[Event]:
        """Step until every request has ended."""
        while self.busy:
            yield from self.step()

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling | None = None
    ) -> list[Request]:
        """Answer prompts together; the requests, ended, in their order."""
        requests: list[Request] = []
        try:
            for prompt in prompts:
                requests.append(self.add(prompt, sampling))
        except BaseException:
            for request in requests:
                self.cancel(request)
            raise
        for _ in self.run():
            pass
        self.check()
        return requests

    def check(self) -> None:
        """Raise TilewrightError unless every page is free, cached or owned by a request."""
        self.blocks.check(self.scheduler.requests)

    def _all(self, request: Request, state: State) -> None:
        """End a request, or the whole search it is a beam of."""
        if request.group is not None:
            request.group.over = True
        for one in request.group.members if request.group else [request]:
            self.scheduler.end(one, state)
            if one.stream:  # what might have become a stop text is none
                one.text += one.stream.flush()

    def _fail(self, request: Request, reason: str) -> Event:
        for one in request.group.members if request.group else [request]:
            one.error = f"logits of request {request.number} hold {reason}"
        given = len(request.text)
        self._all(request, State.FAILED)
        return Event(request, None, request.text[given:])

    def _next(self, request: Request, logits: Tensor, best: int) -> Event:
        try:
            chosen = choose(request, logits, best)
        except BadLogits as error:
            return self._fail(request, str(error))
        wanted, token = request.sampling, chosen.token
        if chosen.logprobs:
            request.logprobs.append(chosen.logprobs)
        request.tokens.append(token)
        if token in self.ends and not wanted.ignore_eos:
            return self._end(request, State.STOPPED, token)
        text, stopped = self._text(request, token)
        if stopped:
            self.scheduler.end(request, State.STOPPED)
        elif (
            len(request.tokens) - len(request.prompt) >= wanted.most
            or len(request.tokens) >= self.context
        ):
            event = self._end(request, State.FULL, token)
            return Event(request, token, text + event.text)
        return Event(request, token, text)

    def _end(self, request: Request, state: State, token: int) -> Event:
        rest = request.stream.flush() if request.stream else ""
        request.text += rest
        self.scheduler.end(request, state)
        return Event(request, token, rest)

    def _text(self, request: Request, token: int) -> tuple[str, bool]:
        """Text that cannot become part of a stop text any more, and whether one was met."""
        if self.tokenizer is None:
            return "", False
        if request.stream is None:
            decode = partial(self.tokenizer.decode, skip_special=True)
            runs = self.tokenizer.byte_runs
            request.stream = TextStream(decode, request.sampling.stop, runs)
        text, stopped = request.stream.push(token)
        request.text += text
        return text, stopped


def batch_of(pieces: Sequence[Piece]) -> Batch:
    """The batch of a step. Wanted rows are the last tokens of pieces that catch up."""
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    owner: list[int] = []
    cu_q, rows = [0], []
    lens = [piece.start + piece.count for piece in pieces]
    table = np.zeros((len(pieces), -(-max(lens) // PAGE)), dtype=np.int32)
    for i, (piece, end) in enumerate(zip(pieces, lens, strict=True)):
        request, start = piece.request, piece.start
        numbers = request.numbers()
        tokens += request.tokens[start:end]
        positions += range(start, end)
        slots += [int(numbers[p // PAGE]) * PAGE + p % PAGE for p in range(start, end)]
        owner += request.owners(start, end)
        cu_q.append(len(tokens))
        used = -(-end // PAGE)
        table[i, :used] = numbers[:used]
        if piece.last:
            rows.append(len(tokens) - 1)
    return Batch(
        _ints(tokens),
        _ints(positions),
        _ints(slots),
        _ints(owner),
        _ints(cu_q),
        _ints(lens),
        torch.from_numpy(table),
        torch.from_numpy(np.array(rows, dtype=np.int64)),
    )


def _ints(values: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int32))
