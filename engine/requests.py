"""A request: what is asked for, what is known of its answer, and where it stands."""

from __future__ import annotations

import enum
import itertools
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor

from tilewright.engine.text import TextStream
from tilewright.errors import UsageError
from tilewright.pages import page_of

if TYPE_CHECKING:
    from tilewright.engine.beams import BeamGroup

# Changes the logits [V] of one request, given its tokens so far: constraints, biases.
LogitsProcessor = Callable[[Sequence[int], Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the most likely token; else logits are divided by it.
        top_k: only so many most likely tokens, 0 for all.
        top_p: only the most likely tokens that together reach this probability.
        min_p: only tokens of at least this part of the most likely one's probability.
        presence, frequency: subtracted from logits of tokens of the answer, once and by their count.
        repetition: divides positive logits of tokens seen (prompt included), multiplies negative ones.
        seed: of this request's own random numbers; None takes its place among the engine's arrivals.
        most: tokens of an answer at most.
        stop: texts that end the answer; they are not part of it.
        ignore_eos: go on after an end token.
        logprobs: that many most likely tokens are reported with their log-probabilities.
        processors: applied to the logits in this order, before all else.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence: float = 0.0
    frequency: float = 0.0
    repetition: float = 1.0
    seed: int | None = None
    most: int = 128
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int = 0
    processors: tuple[LogitsProcessor, ...] = ()

    def __post_init__(self) -> None:
        for name in ("top_k", "most", "logprobs"):
            if not isinstance(getattr(self, name), int):
                raise UsageError(f"{name}={getattr(self, name)!r}; accepted: a whole number")
        ranges = {
            "temperature": (self.temperature, 0.0, 100.0),
            "top_p": (self.top_p, 1e-6, 1.0),
            "min_p": (self.min_p, 0.0, 1.0),
            "repetition": (self.repetition, 0.01, 100.0),
            "presence": (self.presence, -10.0, 10.0),
            "frequency": (self.frequency, -10.0, 10.0),
            "top_k": (self.top_k, 0, 1 << 31),
            "most": (self.most, 1, 1 << 31),
            "logprobs": (self.logprobs, 0, 64),
        }
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise UsageError(f"{name}={value}; accepted: {low} to {high}")
        if self.seed is not None and not -(1 << 63) <= self.seed < 1 << 64:
            raise UsageError(f"seed={self.seed}; accepted: -2^63 to 2^64 - 1")
        if isinstance(self.stop, str):
            raise UsageError(f"stop={self.stop!r} is one text; accepted: a tuple of texts")
        if "" in self.stop:
            raise UsageError("an empty stop text would end every answer; leave it out")


class State(enum.Enum):
    """Where a request stands. The last four are ends."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPED = "stop"
    FULL = "length"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self not in (State.WAITING, State.RUNNING)


_numbers = itertools.count()


@dataclass(slots=True, eq=False)
class Request:
    """One request in the engine. `tokens` are known (prompt, then answer), `computed` of them are in the cache,
    and `reached` is the most that ever were: a preemption takes none of these back.

    `pages` are handles of the pool, one for each 16 tokens. Smaller `priority` goes first. `slot` is the
    bit of the selection's request word, -1 for none. `arrival` is its place among those of its engine, which
    beams of a search share. `turns` are positions, ascending, from which on its tokens
    are computed in bf16, in int8 again, in bf16, ... `salt` keeps prefixes apart that other
    weights or formats computed. `text` is the answer so far.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    priority: int = 0
    salt: bytes = b""
    number: int = field(default_factory=lambda: next(_numbers))
    arrival: int = -1
    tokens: list[int] = field(default_factory=list)
    computed: int = 0
    reached: int = 0
    pages: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    state: State = State.WAITING
    slot: int = -1
    text: str = ""
    error: str = ""
    generator: Generator | None = None
    stream: TextStream | None = None
    group: BeamGroup | None = None
    logprobs: list[dict[int, float]] = field(default_factory=list)
    preemptions: int = 0
    turns: list[int] = field(default_factory=list)
    _numbered: tuple[list[int], NDArray[np.int32]] = ([], np.empty(0, np.int32))

    def __post_init__(self) -> None:
        if not self.prompt:
            raise UsageError("a prompt has no tokens; accepted: one or more")
        if self.arrival < 0:
            self.arrival = self.number
        self.tokens = list(self.prompt)

    @property
    def answer(self) -> list[int]:
        """Tokens that were generated."""
        return self.tokens[len(self.prompt) :]

    def owners(self, start: int, end: int) -> list[int]:
        """Who each of the tokens [start, end) belongs to in the selection: `slot` in bf16, else -1."""
        if not self.turns:
            return [-1] * (end - start)
        return [self.slot if bisect(self.turns, at) % 2 else -1 for at in range(start, end)]

    def numbers(self) -> NDArray[np.int32]:
        """Numbers of its pages, kept until they change."""
        if self._numbered[0] != self.pages:
            numbers = np.array([page_of(handle) for handle in self.pages], dtype=np.int32)
            self._numbered = (list(self.pages), numbers)
        return self._numbered[1]

    @property
    def behind(self) -> int:
        """Known tokens that are not in the cache."""
        return len(self.tokens) - self.computed

    @property
    def plain(self) -> bool:
        """Whether its next token is the most likely one, and nothing else is asked of the logits."""
        wanted = self.sampling
        return not (
            wanted.temperature
            or wanted.processors
            or wanted.logprobs
            or wanted.presence
            or wanted.frequency
            or wanted.repetition != 1.0
        )

    @property
    def idle(self) -> bool:
        """Whether it is a beam that has its logits and waits for the others of its search."""
        return self.group is not None and self.group.has(self)

    @property
    def bound(self) -> bool:
        """Whether it is one beam of a search that has begun, and so never leaves its seat."""
        return self.group is not None and self.group.steps > 0
