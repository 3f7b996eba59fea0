"""What can be timed: prepared native calls (clock read in C++) and Python callables, warm or cold."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tilewright.perf.statistics import Samples

_FALLBACK_LAST_LEVEL = 32 << 20


class Timer(Protocol):
    """Takes samples of one call. `clock` names who reads the time."""

    clock: str

    def once(self) -> None:
        """One call, untimed."""

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        """`count` samples in ns per call, each the mean of `batch` consecutive calls.

        With `flush_bytes` that much other memory is rewritten before each sample, which evicts caches.
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
        room = np.zeros(flush_bytes // 8, dtype=np.int64) if flush_bytes else None
        call, now = self._call, self._now
        out = np.empty(count, dtype=np.float64)
        result = None
        repeats = range(batch)
        for i in range(count):
            if room is not None:
                room += 1
            start = now()
            for _ in repeats:
                result = call()
            out[i] = (now() - start) / batch
        self.result = result
        return out


def timer_of(launch: Any, through_python: bool = False) -> Timer:
    """A timer for a Launch: native where it can be, unless asked to go through Python like a peer does."""
    if launch.native is None:
        return CallTimer(launch.run)
    return CallTimer(launch.native.run) if through_python else NativeTimer(launch.native)


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collection while samples are taken."""
    enabled = gc.isenabled()
    gc.collect()
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


def last_level_bytes() -> int:
    """Size of the largest cache of this machine, 32 MiB where it is not published."""
    sizes = [size for _, size in cache_sizes()]
    return max(sizes, default=_FALLBACK_LAST_LEVEL)


def flush_size() -> int:
    """Bytes to rewrite so that operands leave every cache."""
    return 2 * last_level_bytes()


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
