"""A timer whose clock is the GPU's: the time between two events around calls that follow one another without gaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.perf.device.queue import Queue, queue, seconds_to_queue
from tilewright.perf.statistics import Samples

# Queueing a replay and two events takes the host less than this.
_HOLD_NS = 40e3
_MOST_HOLD_NS = 5e6
# A memory of 1.5 TB/s rewrites this many bytes in a ns; no more than a guess for planning samples.
_FLUSHED_PER_NS = 1500.0


class DeviceTimer:
    """Times calls on a GPU. `result` is what the last call returned.

    The calls of a sample are one graph where they can be captured: neither Python nor the launch of each call is
    in the time then, only what the GPU does. Before each sample the queue is kept busy, with the flush when
    cold, until the host has queued all of it.
    """

    def __init__(self, call: Callable[[], Any], on: Queue | None = None) -> None:
        self._call, self._on = call, on or queue()
        self.result: Any = None
        self._replays: dict[int, Callable[[], None]] = {}
        self._host_ns = 0.0

    @property
    def clock(self) -> str:
        """`events`, or `queued` where calls cannot be captured and each is queued from Python; known after a sample."""
        return "queued" if self._host_ns else "events"

    @property
    def device(self) -> str:
        """Where the results of calls lie, in torch's words."""
        return self._on.device

    def flushing(self) -> tuple[int, float]:
        """Bytes to rewrite so that operands leave this GPU's caches, and the ns that takes."""
        total = 2 * self._on.facts.l2_bytes
        return total, total / _FLUSHED_PER_NS

    def once(self) -> None:
        """One call, untimed and waited for."""
        self._replay(1)()
        self._on.wait()

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        """See Timer."""
        run, on = self._replay(batch), self._on
        hold = min(_HOLD_NS + self._host_ns * batch, _MOST_HOLD_NS)
        marks = []
        for _ in range(count):
            if flush_bytes:
                on.flush(flush_bytes)
            on.hold(hold)
            start = on.mark()
            run()
            marks.append((start, on.mark()))
        on.wait()
        found: Samples = np.array([on.between_ns(a, b) for a, b in marks]) / batch
        return found

    def _replay(self, batch: int) -> Callable[[], None]:
        if batch not in self._replays:
            kept = None if self._host_ns else self._on.capture(self._call, batch)
            if kept is None:
                self._host_ns = self._host_ns or 1e9 * seconds_to_queue(self._call, self._on)
                kept = self._repeated(batch), None
            else:
                self.result = kept[1]
            self._replays[batch] = kept[0]
        return self._replays[batch]

    def _repeated(self, batch: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(batch):
                self.result = self._call()

        return run
