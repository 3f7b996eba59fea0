"""What pages save against one contiguous piece of memory a request, by running the real scheduler and pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.engine.blocks import Blocks
from tilewright.engine.requests import Request, Sampling, State
from tilewright.engine.scheduler import Limits, Scheduler
from tilewright.errors import UsageError
from tilewright.kernels._kv.formats import PAGE
from tilewright.pages.lengths import Distribution

# Requests that wait at any time.
_QUEUE = 32


@dataclass(frozen=True, slots=True)
class Paging:
    """Tokens' worth of memory while more requests wait than there are seats: means over steps, and the most pages.

    `reserved` is what contiguous memory for the longest request takes, for as many at once; `held` pages in
    tokens, of which `used` hold some. `saved` = 1 - held / reserved. `at_once` is how many requests run, on
    average, in `pages` that contiguous memory would give to `seats` of them.
    """

    lengths: str
    longest: int
    requests: int
    seats: int
    reserved: int
    held: float
    used: float
    most_pages: int
    saved: float
    pages: int
    at_once: float
    preemptions: int


def paging(
    lengths: Distribution, longest: int, requests: int = 1024, seats: int = 16, seed: int = 0
) -> Paging:
    """Serve requests of drawn lengths, at most `longest` tokens, half of each its prompt; no model computes.

    Once with `seats` seats for how much memory they take, once with as many seats as the memory that
    contiguous requests would take allows. Raises UsageError for fewer requests than seats.
    """
    if not 1 <= seats <= requests:
        raise UsageError(f"{seats} seats for {requests} requests; accepted: 1 to {requests}")
    if longest < 2:
        raise UsageError(f"a longest request of {longest} tokens; accepted: 2 or more")
    drawn = np.minimum(lengths.draw(requests, np.random.default_rng(seed)), longest).tolist()
    pages = seats * -(-longest // PAGE)
    held, used, most, _, _ = _serve(drawn, pages, seats)
    _, _, _, at_once, preemptions = _serve(drawn, pages, requests)
    reserved = pages * PAGE
    return Paging(
        *(lengths.text, longest, requests, seats, reserved, held, used, most),
        *(1 - held / reserved, pages, at_once, preemptions),
    )


def _serve(lengths: list[int], pages: int, seats: int) -> tuple[float, float, int, float, int]:
    """Means of tokens held and used, most pages, mean of requests at once, preemptions, while others wait."""
    blocks = Blocks(pages, prefixes=False)
    scheduler = Scheduler(blocks, Limits(budget=1 << 20, running=seats))
    left, wanted = list(reversed(lengths)), {}
    seen: list[tuple[int, int, int]] = []
    while left:
        while left and len(scheduler.waiting) < _QUEUE:
            request = Request((0,) * -(-left[-1] // 2), Sampling())
            wanted[request.number] = left.pop()
            scheduler.add(request)
        for piece in scheduler.step():
            piece.request.computed += piece.count
            piece.request.tokens += [0] * piece.last
        used = sum(r.computed for r in scheduler.running)
        seen.append((pages - blocks.pool.free_pages, used, len(scheduler.running)))
        for request in [r for r in scheduler.running if r.computed >= wanted[r.number]]:
            scheduler.end(request, State.FULL)
    held, used_mean, at_once = (float(value) for value in np.mean(seen, axis=0))
    most = max(count for count, _, _ in seen)
    return held * PAGE, used_mean, most, at_once, scheduler.counts.preemptions
