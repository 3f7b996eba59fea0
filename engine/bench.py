"""This engine beside others: the same model, the same prompts, in turns, in one run.

Every side is asked for one workload at a time and says the seconds; `perf.engine` asks in rounds there and back, so
drift hits all alike, and ratios are taken inside rounds. Sides get token ids and give token ids; no side samples
other than greedily, keeps prefixes or turns tokens into text.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tilewright.engine.loop import Engine
from tilewright.engine.requests import Request, Sampling
from tilewright.engine.roofline import Floor, floor
from tilewright.errors import TilewrightError, unknown
from tilewright.models.hf_export import write_hf
from tilewright.peer_engines.processes import Peer, Wanted, start
from tilewright.perf.engine import Effort, Rounds, log_ratios, measure_rounds
from tilewright.perf.statistics import FEWEST_QUADS, Samples, median_estimate, ratio_estimate
from tilewright.perf.statistics import verdict as judge

if TYPE_CHECKING:
    from tilewright.models.checkpoint import Checkpoint
    from tilewright.perf.ceilings import Ceilings

Tokens = list[list[int]]


class WrongOutput(TilewrightError):
    """A side that is timed does not give the tokens it has to."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Workload:
    """`batch` prompts of `prompt` tokens each. Timed are `steps` decode steps of all of them after their
    first tokens; with 0 steps, the time to the first tokens."""

    name: str
    batch: int
    prompt: int
    steps: int

    @property
    def tokens(self) -> int:
        """Tokens that the timed part computes."""
        return self.batch * (self.steps or self.prompt)

    def prompts(self, ids: Sequence[int]) -> Tokens:
        """Consecutive pieces of a text, from its start again where it ends."""
        length = self.prompt * self.batch
        long = list(ids) * -(-length // len(ids))
        return [long[i : i + self.prompt] for i in range(0, length, self.prompt)]


WORKLOADS = (
    Workload("prefill-128", 1, 128, 0),
    Workload("prefill-512", 1, 512, 0),
    Workload("decode-1", 1, 64, 16),
    Workload("decode-8", 8, 64, 16),
    Workload("decode-16", 16, 64, 16),
)

# What holds every workload: requests at once, tokens of one, tokens a step.
BATCH = max(one.batch for one in WORKLOADS)
CONTEXT = 640
BUDGET = 2048


def workloads(names: Sequence[str]) -> list[Workload]:
    """Those of the names, all of them for none; raises UsageError naming what there is."""
    known = {one.name: one for one in WORKLOADS}
    for name in names:
        if name not in known:
            raise unknown("workload", name, list(known))
    return [known[name] for name in names] or list(WORKLOADS)


class Side(Protocol):
    """One engine with one form of weights and a number of threads."""

    name: str
    weights: str

    def once(self, prompts: Tokens, steps: int) -> tuple[float, Tokens]:
        """Do a workload: the seconds of its timed part, and the tokens of each request, the first among them."""


@dataclass(slots=True)
class Ours:
    """This engine. `native` and `spent` are the seconds of timed parts in C++, and of all."""

    engine: Engine
    weights: str
    threads: int
    name: str = "tilewright"
    native: float = 0.0
    spent: float = 0.0

    def once(self, prompts: Tokens, steps: int) -> tuple[float, Tokens]:
        """See Side."""
        with _on_processors(self.threads):
            return self._once(prompts, steps)

    def _once(self, prompts: Tokens, steps: int) -> tuple[float, Tokens]:
        engine = self.engine
        engine.use(self.threads)
        wanted = Sampling(most=steps + 1, ignore_eos=True)
        before, inside = time.perf_counter(), engine.native_s
        requests = [engine.add(ids, wanted) for ids in prompts]
        while not all(r.answer for r in requests):
            engine.step()
            if failed := [r.error for r in requests if r.state.ended and not r.answer]:
                raise WrongOutput(f"a request failed: {failed[0]}")
        if steps:
            self._same(requests, 1)
            before, inside = time.perf_counter(), engine.native_s
            for _ in range(steps):
                engine.step()
        took = time.perf_counter() - before
        self._same(requests, steps + 1)
        self.native += engine.native_s - inside
        self.spent += took
        return took, [list(r.answer) for r in requests]

    def _same(self, requests: Sequence[Request], count: int) -> None:
        found = [len(r.answer) for r in requests]
        if found != [count] * len(found):
            raise WrongOutput(f"requests have {found} tokens after a step that brings each {count}")


@contextmanager
def _on_processors(count: int) -> Iterator[None]:
    """All threads of this process on the processors that peers with as many threads get."""
    allowed = os.sched_getaffinity(0)

    def allow(processors: Collection[int]) -> None:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it may have ended
                os.sched_setaffinity(int(thread), processors)

    allow(sorted(allowed)[:count])
    try:
        yield
    finally:
        allow(allowed)


@dataclass(slots=True)
class SideTimer:
    """See `perf.timers.Timer`: a workload on a side. What it answers must not change from call to call."""

    side: Side
    work: Workload
    prompts: Tokens
    clock: str = "python"
    tokens: Tokens = field(default_factory=list)

    def once(self) -> None:
        """See Timer."""
        self.sample(1, 1, 0)

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        """See Timer. Every sample is one workload, whatever `batch`."""
        return np.array([self._one() for _ in range(count)]) * 1e9

    def _one(self) -> float:
        seconds, tokens = self.side.once(self.prompts, self.work.steps)
        if [len(own) for own in tokens] != [self.work.steps + 1] * self.work.batch:
            raise WrongOutput(
                f"{self.side.name} answered {self.work.name} with {[len(t) for t in tokens]} tokens"
            )
        if self.side.name == "tilewright" and self.tokens not in ([], tokens):
            raise WrongOutput(f"{self.work.name} gave other tokens when it was run again")
        self.tokens = tokens
        return seconds


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One side's time for a workload, or ours beside a peer's. Times are of a decode step, or of the prefill.

    `ratio` is peer time / our time: above 1 we are faster; `best` marks the fastest peer. `agreement` is the
    share of tokens up to the first that differs from the peer's, which runs other weights: no verdict hangs
    on it. `floor_ms` is the least time that this machine's ceilings allow, `bound_by` what sets it, and
    `floor_frac` the share of it reached; `python_share` is the part of our time outside C++ calls.
    """

    workload: str
    threads: int
    weights: str
    median_ms: float
    ci_low_ms: float
    ci_high_ms: float
    samples: int
    tokens_per_s: float
    floor_ms: float | None = None
    floor_frac: float | None = None
    bound_by: str = ""
    python_share: float | None = None
    peer: str | None = None
    peer_weights: str = ""
    peer_ms: float | None = None
    ratio: float | None = None
    ratio_ci_low: float | None = None
    ratio_ci_high: float | None = None
    verdict: str = ""
    best: bool = False
    agreement: float | None = None
    quiet: bool | None = None
    evidence: str = "measured"
    target: str = "cpu"


def measure(
    ours: Sequence[Ours],
    peers: Sequence[Peer],
    work: Workload,
    ids: Sequence[int],
    seconds: float,
    ceilings: Ceilings | None = None,
) -> list[EngineRow]:
    """Time a workload on all sides in turns; a row for each of ours beside each peer, or alone without peers.

    Eager steps of ours must give the tokens of its replays. Raises WrongOutput, and what a peer says.
    """
    prompts = work.prompts(ids)
    sides: list[Side] = [*ours, *peers]
    timers = [SideTimer(side, work, prompts) for side in sides]
    for one, timer in zip(ours, timers, strict=False):
        graphs, one.engine.graphs = one.engine.graphs, None
        try:
            timer.once()
        finally:
            one.engine.graphs = graphs
        timer.once()  # captures, and compares
        one.native = one.spent = 0.0
    end = time.monotonic() + seconds
    # As many rounds as make an interval, however long they take.
    effort = Effort(seconds=1e6, warmup_s=0.0)
    rounds = measure_rounds(
        timers,
        effort,
        done=lambda _: time.monotonic() >= end,
        fewest=FEWEST_QUADS,
        block_ns=1.0,
        processes=[peer.pid for peer in peers],
    )
    fastest = min(range(len(ours), len(timers)), key=lambda i: _middle(rounds, i), default=-1)
    rows = []
    for i, one in enumerate(ours):
        own = _alone(one, work, rounds, i, ceilings)
        rows += [
            _beside(own, work, rounds, (i, p), timers, p == fastest)
            for p in range(len(ours), len(timers))
        ] or [own]
    return rows


def _middle(rounds: Rounds, side: int) -> float:
    return float(np.median(rounds.samples[side]))


def _alone(
    one: Ours, work: Workload, rounds: Rounds, index: int, ceilings: Ceilings | None
) -> EngineRow:
    each = 1e-6 / max(1, work.steps)  # ms of a step for ns of the whole
    found = median_estimate(rounds.samples[index])
    ms = found.value * each
    least: Floor | None = None
    if ceilings is not None:
        least = floor(
            one.engine, one.weights, work.batch, work.prompt, work.steps, one.threads, ceilings
        )
    return EngineRow(
        workload=work.name,
        threads=one.threads,
        weights=one.weights,
        median_ms=ms,
        ci_low_ms=found.low * each,
        ci_high_ms=found.high * each,
        samples=len(rounds.samples[index]),
        tokens_per_s=work.tokens / (found.value * 1e-9),
        floor_ms=least.ms if least else None,
        floor_frac=least.ms / ms if least else None,
        bound_by=least.bound_by if least else "",
        python_share=1.0 - one.native / one.spent if one.spent else None,
        quiet=rounds.disturbance.quiet,
    )


def _beside(
    own: EngineRow,
    work: Workload,
    rounds: Rounds,
    pair: tuple[int, int],
    timers: Sequence[SideTimer],
    best: bool,
) -> EngineRow:
    i, p = pair
    ratio = ratio_estimate(log_ratios(rounds, p, i))
    return replace(
        own,
        peer=timers[p].side.name,
        peer_weights=timers[p].side.weights,
        peer_ms=_middle(rounds, p) * 1e-6 / max(1, work.steps),
        ratio=ratio.value,
        ratio_ci_low=ratio.low,
        ratio_ci_high=ratio.high,
        verdict=judge(ratio),
        best=best,
        agreement=agreement(timers[i].tokens, timers[p].tokens),
    )


def agreement(ours: Tokens, theirs: Tokens) -> float:
    """The share of tokens before the first that differs, over all requests."""
    same = 0
    for a, b in zip(ours, theirs, strict=True):
        same += next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))
    return same / sum(map(len, ours))


def started(
    wanted: Wanted, checkpoint: Checkpoint, threads: int, batch: int = BATCH, context: int = CONTEXT
) -> Peer:
    """A peer that is running with the model; raises Unavailable with the reason where it cannot."""

    def folder(where: Path) -> object:
        return write_hf(where, checkpoint.config, lambda name: checkpoint.tensor(name).float())

    return start(wanted, checkpoint.path, folder, threads, batch, context)


def compare(
    ours: Callable[[int], Sequence[Ours]],
    peers: Callable[[int], Sequence[Peer]],
    works: Sequence[Workload],
    threads: Sequence[int],
    ids: Sequence[int],
    seconds: float,
    ceilings: Ceilings | None = None,
) -> Iterator[list[EngineRow]]:
    """Rows of each workload with each number of threads; `peers` are started for one number at a time."""
    for count in threads:
        running = peers(count)
        try:
            for work in works:
                yield measure(ours(count), running, work, ids, seconds, ceilings)
        finally:
            for side in running:
                side.close()
