"""A machine whose clock only calls advance: noise, drift, bursts, neighbours that come and go, withheld time."""

from __future__ import annotations

import math

import numpy as np

from tilewright.perf.statistics import Samples


class Machine:
    """`noise` is of each sample (one-sided), `drift` a slow wave, `trend` a share per second that calls get slower,
    `hiccups` the chance of a sample 20 times as long, `shared` the slowdown while a neighbour is on the
    core's other thread (it comes and goes every few milliseconds), `steal` the chance of losing 4 ms.
    """

    def __init__(
        self,
        seed: int,
        noise: float = 0.01,
        drift: float = 0.0,
        hiccups: float = 0.0,
        shared: float = 0.0,
        steal: float = 0.0,
        trend: float = 0.0,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.ns = 0.0
        self.noise, self.drift, self.hiccups = noise, drift, hiccups
        self.shared, self.steal, self.trend = shared, steal, trend
        self._neighbour, self._until = False, 0.0

    def now(self) -> float:
        return self.ns / 1e9

    def timer(self, call_ns: float) -> FakeTimer:
        return FakeTimer(self, call_ns)

    def factor(self) -> float:
        """How much slower than alone a call is at this moment."""
        while self.ns >= self._until:
            self._neighbour = not self._neighbour
            self._until += self.rng.exponential(5e6)
        slow = 1.0 + self.drift * math.sin(self.ns / 3e8) + self.trend * self.ns / 1e9
        if self.shared and self._neighbour:
            slow *= 1.0 + self.shared
        return slow * (1 + abs(self.rng.normal(0, self.noise)))


class FakeTimer:
    clock = "native"

    def __init__(self, machine: Machine, call_ns: float) -> None:
        self.machine, self.call_ns = machine, call_ns
        self.flushes: list[int] = []
        self.batches: list[int] = []

    def once(self) -> None:
        self.sample(1, 1, 0)

    def sample(self, count: int, batch: int, flush_bytes: int) -> Samples:
        m = self.machine
        out = np.empty(count)
        for i in range(count):
            value = self.call_ns * m.factor()
            if m.rng.random() < m.hiccups:
                value *= 20
            if m.rng.random() < m.steal:
                value += 4e6 / batch
            m.ns += value * batch
            out[i] = value
        self.flushes.append(flush_bytes)
        self.batches.append(batch)
        return out
