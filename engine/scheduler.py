"""What the next step computes: every request's computed tokens catch up with its known ones.

There is no prefill and no decode: a request that is one token behind gets that one, a long prompt gets
as many as the budget leaves. When pages run out, the least urgent of the running requests is preempted: its
pages go back and it is computed again later.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.engine.blocks import Blocks
from tilewright.engine.requests import Request, State
from tilewright.errors import UsageError


@dataclass(frozen=True, slots=True)
class Limits:
    """`budget` tokens a step, `running` requests at once, `chunk` tokens of one request a step (0: the budget).

    The beams of a search that has begun count as running, but none of them waits for a seat.
    """

    budget: int = 512
    running: int = 16
    chunk: int = 0

    def __post_init__(self) -> None:
        for name in ("budget", "running"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}; accepted: 1 or more")
        if self.chunk < 0:
            raise UsageError(f"chunk={self.chunk}; accepted: 0 or more")


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens [start, start + count) of a request, to be computed in this step."""

    request: Request
    start: int
    count: int

    @property
    def last(self) -> bool:
        """Whether the request has caught up after this."""
        return self.start + self.count == len(self.request.tokens)


@dataclass(slots=True)
class Counts:
    """What the scheduler did since the start; `shared`: steps of several requests."""

    steps: int = 0
    tokens: int = 0
    chunks: int = 0
    preemptions: int = 0
    mixed: int = 0
    shared: int = 0


class Scheduler:
    """Holds the requests that have not ended."""

    def __init__(self, blocks: Blocks, limits: Limits) -> None:
        self.blocks, self.limits, self.counts = blocks, limits, Counts()
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        # Pages (from, to) whose contents are copied before the step is computed.
        self.copies: list[tuple[int, int]] = []

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)

    def end(self, request: Request, state: State) -> None:
        """Take a request out, whatever it was doing; its pages go back."""
        for queue in (self.waiting, self.running):
            if request in queue:
                queue.remove(request)
        self.blocks.release(request)
        request.state = state

    @property
    def requests(self) -> list[Request]:
        """All of them, running ones first."""
        return [*self.running, *self.waiting]

    def step(self) -> list[Piece]:
        """The pieces of the next step, at most one a request; none only if there are no requests.

        Within a priority those that run go before those that wait, and each by arrival. A more
        urgent request takes pages and seats from less urgent ones.
        """
        pieces: list[Piece] = []
        self.copies = []
        budget, full = self.limits.budget, False
        for request in sorted(self.requests, key=_urgency):
            if not budget:
                break
            if request.idle:
                continue
            waits = request.state is State.WAITING
            if waits and (full or request not in self.waiting or not self._seat(request, pieces)):
                full = True
                continue
            if not waits and request not in self.running:
                continue
            piece = self._piece(request, budget, pieces)
            if piece is None:
                full = True  # who waits behind this one must not take the pages it lacks
                continue
            if waits:
                self._start(request)
            pieces.append(piece)
            budget -= piece.count
        self._count(pieces)
        return pieces

    def _piece(self, request: Request, budget: int, pieces: list[Piece]) -> Piece | None:
        """The request's next tokens with pages for them; None, and it waits without pages, if there are none."""
        fresh = not request.pages
        if fresh:
            self.blocks.claim(request)
        count = min(request.behind, budget, self.limits.chunk or budget)
        while not self._pages(request, count):
            victim = self._victim(request, pieces)
            if victim is None:
                if request.state is State.RUNNING:
                    self.preempt(request)
                else:
                    self.blocks.release(request)
                return None
            self.preempt(victim)
        if fresh:
            self.blocks.count(request)
        return Piece(request, request.computed, count)

    def _pages(self, request: Request, count: int) -> bool:
        """Pages for the next `count` tokens that nobody else reads; False where they do not suffice."""
        if not self.blocks.grow(request, request.computed + count):
            return False
        copies = self.blocks.own(request, request.computed)
        if copies is None:
            return False
        self.copies += copies
        return True

    def _seat(self, request: Request, pieces: list[Piece]) -> bool:
        """Whether the request may start: a seat is free, or one of lower priority is made free."""
        if len(self.running) < self.limits.running:
            return True
        behind = [
            r
            for r in self._behind(request, pieces)
            if r.priority > request.priority and not r.bound
        ]
        if not behind:
            return False
        self.preempt(max(behind, key=_urgency))
        return True

    def _victim(self, request: Request, pieces: list[Piece]) -> Request | None:
        """The running request that goes last and has pages, behind this one and not yet in the step."""
        behind = [r for r in self._behind(request, pieces) if r.pages]
        return max(behind, key=_urgency, default=None)

    def _behind(self, request: Request, pieces: list[Piece]) -> list[Request]:
        taken = {piece.request.number for piece in pieces}
        here = _urgency(request)
        return [
            r
            for r in self.running
            # A beam that has its logits waits for this one anyway.
            if (_urgency(r) > here or (r.idle and r.group is request.group))
            and r.number not in taken
        ]

    def _start(self, request: Request) -> None:
        self.waiting.remove(request)
        self.running.append(request)
        request.state = State.RUNNING

    def preempt(self, request: Request) -> None:
        """Take a running request's pages and seat; it is computed again later."""
        self.blocks.release(request)
        request.preemptions += 1
        self.counts.preemptions += 1
        if not request.bound:
            self.running.remove(request)
            request.state = State.WAITING
            self.add(request)

    def _count(self, pieces: list[Piece]) -> None:
        self.counts.steps += bool(pieces)
        self.counts.tokens += sum(piece.count for piece in pieces)
        self.counts.shared += len(pieces) > 1
        self.counts.chunks += sum(not piece.last for piece in pieces)
        kinds = {piece.count == 1 for piece in pieces}
        self.counts.mixed += len(kinds) == 2


def _urgency(request: Request) -> tuple[int, bool, int, int]:
    waits = request.state is State.WAITING
    return (request.priority, waits, request.arrival, request.number)
