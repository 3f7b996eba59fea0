"""Beam search: several answers of one prompt that share pages, ranked together by `beam_topk`.

The rules are those of transformers' `generate(num_beams=W)`: each step ranks the candidates of all beams
together; those that end are kept aside with their score over length ** penalty; the others go on.
It is over when no running beam can beat the worst of W that ended, or at the most tokens, where the
W best candidates end as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tilewright.engine.blocks import Blocks
from tilewright.engine.ops import Ops
from tilewright.engine.requests import Request, State
from tilewright.errors import UsageError


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer that ended, and what it is ranked by."""

    answer: tuple[int, ...]
    score: float


@dataclass(slots=True, eq=False)
class BeamGroup:
    """W beams of one prompt. `members` are its running requests, one at first, then W.

    `penalty` is the exponent of the length that scores are divided by. `early`: stop as soon as W ended.
    """

    width: int
    penalty: float = 1.0
    early: bool = False
    members: list[Request] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    over: bool = False
    steps: int = 0
    _scores: list[float] = field(default_factory=lambda: [0.0])
    _logits: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 16:
            raise UsageError(f"{self.width} beams; accepted: 1 to 16")
        if not -10.0 <= self.penalty <= 10.0:
            raise UsageError(f"penalty={self.penalty}; accepted: -10.0 to 10.0")

    def take(self, request: Request, logits: Tensor) -> bool:
        """Keep a member's logits [V]; whether those of all members are there now."""
        self._logits[request.number] = logits.to(torch.float32, copy=True)  # steps differ
        return len(self._logits) == len(self.members)

    def has(self, request: Request) -> bool:
        """Whether a member's logits are kept."""
        return request.number in self._logits

    def ranked(self, ops: Ops, ends: frozenset[int]) -> list[tuple[int, int, float]]:
        """The best candidates of all beams: (member, token, score), the best first."""
        logits = torch.stack([self._logits[m.number] for m in self.members])
        self._logits.clear()
        count = min(candidates(self.width, ends), logits.numel())
        beams, tokens, scores = ops.beam_step(logits, torch.tensor([self._scores]), count)
        return list(zip(beams.tolist(), tokens.tolist(), scores.tolist(), strict=True))

    def advance(self, ops: Ops, blocks: Blocks, ends: frozenset[int]) -> None:
        """Choose the next W beams and let them share the pages of those they come from."""
        self.steps += 1
        length = len(self.members[0].answer) + 1
        last = length >= self.members[0].sampling.most
        going: list[tuple[int, int, float]] = []
        for rank, (member, token, score) in enumerate(self.ranked(ops, ends)):
            if token not in ends and not last:
                going.append((member, token, score))
            elif rank < self.width:
                answer = (*self.members[member].answer, token)
                self._end(answer, score / length**self.penalty)
        self._fork(going[: self.width], blocks)
        best = self._scores[0] / length**self.penalty if going else 0.0
        full = len(self.ended) == self.width
        self.over = not going or (full and (self.early or best <= self.ended[-1].score))

    def _fork(self, going: list[tuple[int, int, float]], blocks: Blocks) -> None:
        before = self.members
        self.members, self._scores = [], []
        for member, token, score in going:
            source = before[member]
            beam = Request(source.prompt, source.sampling, source.priority, source.salt)
            beam.arrival = source.arrival
            beam.tokens, beam.group, beam.state = [*source.tokens, token], self, State.RUNNING
            blocks.fork(source, beam)
            self.members.append(beam)
            self._scores.append(score)

    def _end(self, answer: tuple[int, ...], score: float) -> None:
        self.ended.append(Ended(answer, score))
        self.ended.sort(key=lambda e: -e.score)
        del self.ended[self.width :]


def candidates(width: int, ends: frozenset[int]) -> int:
    """Candidates a step ranks: so many that W of them go on even if each beam's best ones end."""
    return max(2, 1 + len(ends)) * width
