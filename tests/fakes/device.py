"""A GPU whose clock only calls advance, and a backend that runs on it: memory is the processor's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from tilewright.backends.base import Launch, OnDevice, State
from tilewright.backends.triton import Triton
from tilewright.cases import Case
from tilewright.engine.calls import Call, HostRunner
from tilewright.inputs import Inputs, make_outputs
from tilewright.perf.device.queue import Facts
from tilewright.registry import Family
from tilewright.space import Config
from tilewright.targets import Target

Work = Callable[[Mapping[str, torch.Tensor | None], Mapping[str, torch.Tensor]], None]
NAME = "Fake GPU 1"


class FakeQueue:
    """Marks are its clock in ns. `replays` counts graphs that were replayed, by their calls."""

    facts = Facts(NAME, 1 << 20)
    device = "cpu"

    def __init__(self, captures: bool = True) -> None:
        self.ns, self.captures = 0.0, captures
        self.launch_ns = 0.0
        self.held: list[float] = []
        self.flushed: list[int] = []
        self.replays: list[int] = []
        self.waits = 0

    def mark(self) -> float:
        return self.ns

    def between_ns(self, start: float, end: float) -> float:
        return end - start

    def wait(self) -> None:
        self.waits += 1

    def hold(self, ns: float) -> None:
        self.held.append(ns)
        self.ns += ns

    def flush(self, total: int) -> None:
        self.flushed.append(total)
        self.ns += total / 1000

    def capture(self, call: Callable[[], Any], calls: int) -> tuple[Callable[[], None], Any] | None:
        if not self.captures:
            return None
        result = call()

        def replay() -> None:
            self.replays.append(calls)
            self.ns += calls * self.launch_ns
            for _ in range(calls):
                again = call()
                if isinstance(result, torch.Tensor):
                    result.copy_(again)

        return replay, result


class FakeGpu(Triton):
    """`cuda:sm_90` runs here, with the kernels of the processor: `call_ns` each by the queue's clock."""

    def __init__(self, queue: FakeQueue, call_ns: float = 5_000.0) -> None:
        self.queue, self.call_ns = queue, call_ns
        self._host = HostRunner(threads=1)
        self.spoil: Callable[[Work], Work] = lambda work: work

    def cell(self, family: Family, target: Target, precision: Any) -> Any:
        return self._cell(family, target, precision, State.RUN)

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
    ) -> Launch:
        outputs = make_outputs(family, case, inputs)
        given = {
            k: None if v is None else v.clone()
            for k, v in inputs.physical.items()
            if k not in outputs
        }

        def honest(
            reads: Mapping[str, torch.Tensor | None], writes: Mapping[str, torch.Tensor]
        ) -> None:
            self._host.run(Call(family.name, case.precision, case.flags, case.sizes, reads, writes))

        work = self.spoil(honest)

        def enqueue() -> None:
            self.queue.ns += self.call_ns
            work(given, outputs)

        return Launch(enqueue, outputs, device=OnDevice(enqueue, given))
