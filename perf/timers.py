"""What can be timed: prepared native calls (clock read in C++) and Python callables, warm or cold."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilewright import native
from tilewright.perf.statistics import Samples

_FALLBACK_CACHES = (("L2", 1 << 20), ("L3", 32 << 20))
# A hypervisor may publish a last level of hundreds of MiB that is shared with strangers: more than this is
# not rewritten for it.
_MOST_FOR_LAST_LEVEL = 256 << 20


class Timer(Protocol):
    """Takes samples of one call."""

    @property
    def clock(self) -> str:
        """Who reads the time."""

    def once(self) -> None:
        """One call, untimed."""

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        """`count` samples in ns per call, each the mean of `batch` consecutive calls.

        With `flush_bytes` that much other memory is rewritten before each sample, a share on every core,
        which evicts caches.
        """


class NativeTimer:
    """A prepared native call; nothing but the kernel stands between two readings of the clock."""

    clock = "native"

    def __init__(self, prepared: Any) -> None:
        self._prepared = prepared

    def once(self) -> None:
        self._prepared.run()

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        raw = self._prepared.time(count, flush_bytes=flush_bytes, batch=batch)
        return np.asarray(raw, dtype=np.float64) / batch


class RunTimer(NativeTimer):
    """A prepared native call on the calling thread alone, without the time in which that thread was ready to run but
    others held the processors: on a busy machine that is a property of the scheduler, not of the call.

    Sleeping and waiting for a lock count, being preempted does not. Where the system keeps no
    record of it (`tells` is False), this is the plain clock. `waited_ns` is what was left out so far.
    """

    def __init__(self, prepared: Any) -> None:
        super().__init__(prepared)
        self.tells = hasattr(prepared, "time_and_waits") and bool(prepared.time_and_waits(1)[1])
        self.clock = "run" if self.tells else "native"
        self.waited_ns = 0.0

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        if not self.tells:
            return super().sample(count, batch, flush_bytes)
        took, waited = self._prepared.time_and_waits(count, flush_bytes=flush_bytes, batch=batch)
        self.waited_ns += sum(waited)
        found: Samples = np.subtract(took, waited, dtype=np.float64) / batch
        return found


class CallTimer:
    """A Python callable; each sample includes the cost of calling it. `result` is its last return value."""

    clock = "python"

    def __init__(
        self, call: Callable[[], Any], now: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self._call = call
        self._now = now
        self.result: Any = None

    def once(self) -> None:
        self.result = self._call()

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        call, now = self._call, self._now
        out = np.empty(count, dtype=np.float64)
        result = None
        repeats = range(batch)
        for i in range(count):
            if flush_bytes:
                flush_caches(flush_bytes)
            start = now()
            for _ in repeats:
                result = call()
            out[i] = (now() - start) / batch
        self.result = result
        return out


def timer_of(launch: Any, through_python: bool = False) -> Timer:
    """A timer for a Launch: native where it can be, unless asked to go through Python like a peer does; a GPU's
    own where the call is on one."""
    if launch.device is not None:
        from tilewright.perf.device.timer import DeviceTimer

        return DeviceTimer(launch.device.enqueue)
    if launch.native is None:
        return CallTimer(launch.run)
    return CallTimer(launch.native.run) if through_python else NativeTimer(launch.native)


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collection while samples are taken. What is young is collected first; all of it would take 0.3 s
    with torch loaded, as long as a short timing."""
    enabled = gc.isenabled()
    gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def settle(limit_s: float = 0.02) -> None:
    """Wait until no thread of this process spins.

    OpenMP workers and thread pools spin for a few ms after a parallel region; left alone they would
    slow whoever runs next in an interleaved pair.
    """
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        busy = time.process_time_ns()
        wall = time.perf_counter_ns()
        time.sleep(0.001)
        if time.process_time_ns() - busy < 0.2 * (time.perf_counter_ns() - wall):
            return


def flushing(timer: Timer) -> tuple[int, float]:
    """Bytes to rewrite so that operands of this timer's call leave the caches, and the ns that takes."""
    own: Callable[[], tuple[int, float]] | None = getattr(timer, "flushing", None)
    if own is not None:
        return own()
    total = flush_size()
    return total, total / 8.0


def flush_size(caches: Sequence[tuple[str, int]] = (), cores: int = 0) -> int:
    """Bytes to rewrite, in all, so that operands leave the caches: by default those of this machine.

    Twice the last level, at most 256 MiB, and twice the private caches of every core in any case.
    """
    sizes = [size for _, size in caches or cache_sizes() or _FALLBACK_CACHES]
    private = sizes[-2] if len(sizes) > 1 else 0
    return max(
        min(2 * sizes[-1], _MOST_FOR_LAST_LEVEL), 2 * private * (cores or len(usable_cpus()))
    )


def usable_cpus() -> list[int]:
    """Numbers of the processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def flush_caches(total: int) -> list[int]:
    """Rewrite `total` bytes of other memory, a share on each usable processor; returns the processors.

    Workers of a pool may run on any of them, and each has private caches that only it can evict.
    """
    if native.why_missing() is None:
        found: list[int] = native.module().flush_caches(total)
        return found
    return flush_in_python(total)


def flush_in_python(total: int) -> list[int]:
    """The same where the native module is not built; numpy lets the other threads run meanwhile."""
    cpus = usable_cpus()
    share = max(1, total // (8 * len(cpus)))
    room = _room(share * len(cpus))
    done: list[int] = []

    def rewrite(place: int, cpu: int) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {cpu})
        room[place * share : (place + 1) * share] += 1
        done.append(cpu)

    threads = [Thread(target=rewrite, args=pair) for pair in enumerate(cpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(done)


@lru_cache(maxsize=1)
def _room(elements: int) -> npt.NDArray[np.int64]:
    """Memory that is only there to be rewritten; kept, since fetching it takes longer than rewriting it."""
    return np.zeros(elements, dtype=np.int64)


def cache_sizes() -> list[tuple[str, int]]:
    """Data caches of the first processor, smallest first: `("L1", 32768)`; empty where not published."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind = (index / "type").read_text().strip()
            level = (index / "level").read_text().strip()
            size = (index / "size").read_text().strip()
        except OSError:
            continue
        if kind in ("Data", "Unified") and size[:-1].isdigit():
            unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(size[-1])
            if unit:
                found[f"L{level}"] = int(size[:-1]) * unit
    return sorted(found.items(), key=lambda item: item[1])
