"""Decode steps captured once for each size of batch, and replayed by one call with no Python in between.

Capturing runs the forward pass on fixed buffers and keeps the calls it makes. A step of n requests that
are each one token behind takes the smallest captured size that holds it; what is left over are rows
of nobody, whose keys and values go nowhere.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.engine.batch import Batch
from tilewright.engine.calls import Between, Call, HostRunner
from tilewright.engine.kv_cache import KvCache
from tilewright.engine.ops import Ops
from tilewright.engine.transformer import Transformer
from tilewright.errors import Unavailable, unknown
from tilewright.kernels._kv.formats import PAGE

if TYPE_CHECKING:
    from tilewright._C import Plan, Prepared

SIZES = (1, 2, 4, 8, 16, 32, 64)


class Graph(ABC):
    """A sequence of device work on fixed memory, captured once; `native_ns` were spent in its calls on the host."""

    native_ns = 0

    @abstractmethod
    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        """Keep what `work` does on the device; its result is memory that each replay fills."""

    @abstractmethod
    def replay(self) -> None:
        """Do it again, on what the memory holds now."""


class HostGraph(Graph):
    """Calls of host kernels behind each other in C++; what is `Between` them parts it."""

    def __init__(self, host: HostRunner) -> None:
        self._host = host
        self._alive: list[Call | Between] = []

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        """See Graph. Kept are calls of the host's kernels, and what torch does through `Ops.between`."""
        from tilewright import native

        recorded: list[tuple[Prepared | Between, Call | Between]] = []
        self._host.recording = recorded
        try:
            result = work()
        finally:
            self._host.recording = None
        self._alive = [call for _, call in recorded]
        self._parts: list[Plan | Between] = []
        for _, run in groupby(recorded, key=lambda one: isinstance(one[0], Between)):
            steps = [step for step, _ in run]
            parts = [step for step in steps if isinstance(step, Between)]
            self._parts += parts or [native.module().Plan(steps)]
        return result

    def replay(self) -> None:
        """See Graph."""
        for part in self._parts:
            if isinstance(part, Between):
                part.run()
                continue
            started = time.perf_counter_ns()
            part.run()
            self.native_ns += time.perf_counter_ns() - started

    def profile(self) -> list[tuple[str, int]]:
        """Replay, timing each call: its family and ns."""
        taken = [ns for part in self._parts for ns in part.profile()]
        return list(zip((c.family for c in self._alive), taken, strict=True))


# The class of graphs in torch's module of a device; torch_npu follows torch.cuda name by name.
_DEVICE_GRAPHS = {"cuda": "CUDAGraph", "npu": "NPUGraph"}


class DeviceGraph(Graph):
    """A CUDA or NPU graph through torch: `torch.cuda.CUDAGraph`, `torch_npu.npu.NPUGraph`."""

    def __init__(self, device: str) -> None:
        """Raises UsageError for a device that torch has no graphs of, Unavailable where there is none."""
        if device not in _DEVICE_GRAPHS:
            raise unknown("device of graphs", device, ["cpu", *_DEVICE_GRAPHS])
        module = getattr(torch, device, None)
        if module is None or not module.is_available():
            raise Unavailable(f"graphs of {device} need such a device; here there are those of cpu")
        self._module, self._graph = module, getattr(module, _DEVICE_GRAPHS[device])()

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        """See Graph. `work` runs once before, on a stream of its own: what libraries set up is not kept."""
        side = self._module.Stream()
        side.wait_stream(self._module.current_stream())
        with self._module.stream(side):
            work()
        self._module.current_stream().wait_stream(side)
        with self._module.graph(self._graph):
            return work()

    def replay(self) -> None:
        """See Graph."""
        self._graph.replay()


def new_graph(device: str, ops: Ops) -> Graph:
    """An empty graph: of host kernels for cpu, else of the device."""
    return HostGraph(ops.host) if device == "cpu" else DeviceGraph(device)


@dataclass(slots=True)
class GraphCounts:
    """Steps that were replayed, and graphs that were captured; ns that replays spent in C++."""

    replays: int = 0
    captures: int = 0
    native_ns: int = field(default=0, compare=False)


class Graphs:
    """Captured decode steps of one model on one cache."""

    def __init__(
        self, model: Transformer, ops: Ops, cache: KvCache, context: int, device: str = "cpu"
    ) -> None:
        """Raises UsageError where an op runs on a backend whose calls cannot be kept."""
        new_graph(device, ops)
        self.model, self.ops, self.cache, self._device = model, ops, cache, device
        self.counts = GraphCounts()
        self._pages = -(-context // PAGE)
        self._captured: dict[int, _Captured] = {}
        self._moved = 0

    def forget(self) -> None:
        """Capture anew from now on."""
        self._captured.clear()

    def fits(self, batch: Batch) -> bool:
        """Whether a batch is a decode step that some size holds: one wanted token a request."""
        count = batch.seq_lens.shape[0]
        return batch.tokens.shape[0] == count == batch.rows.shape[0] <= SIZES[-1]

    def forward(self, batch: Batch) -> Tensor:
        """Logits [R,vocab] of a batch that fits; they stand until the next call."""
        count = batch.tokens.shape[0]
        size = next(s for s in SIZES if s >= count)
        self.cache.reserve(size)
        if self._moved != self.cache.moved:
            self._captured.clear()
            self._moved = self.cache.moved
        if size not in self._captured:
            self._captured[size] = self._capture(size)
            self.counts.captures += 1
        captured = self._captured[size]
        captured.load(self.model.embed(batch.tokens), batch)
        self.cache.begin(batch)
        before = captured.graph.native_ns
        captured.graph.replay()
        self.counts.native_ns += captured.graph.native_ns - before
        self.cache.settle(self.ops)
        self.counts.replays += 1
        return captured.logits[:count]

    def _capture(self, size: int) -> _Captured:
        batch = _nobody(size, self._pages)
        x = torch.zeros(size, self.model.config.hidden, dtype=self.model.dtype)
        graph = new_graph(self._device, self.ops)
        logits = graph.capture(
            lambda: self.model.head(self.ops, self.model.decode(self.ops, self.cache, batch, x))
        )
        return _Captured(graph, batch, x, logits)


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: Graph
    batch: Batch
    x: Tensor
    logits: Tensor

    def load(self, x: Tensor, batch: Batch) -> None:
        """Put a step into the fixed buffers; the rest of them belongs to nobody."""
        count, pages = batch.block_table.shape
        own = self.batch
        self.x[:count] = x
        own.positions[:count], own.positions[count:] = batch.positions, 0
        own.slots[:count], own.slots[count:] = batch.slots, -1
        own.owner[:count], own.owner[count:] = batch.owner, -1
        own.seq_lens[:count], own.seq_lens[count:] = batch.seq_lens, 1
        own.block_table[:count, :pages] = batch.block_table
        own.block_table[count:] = 0


def _nobody(size: int, pages: int) -> Batch:
    """Rows of nobody: they read the first token of page 0 and write nothing."""
    zeros = torch.zeros(size, dtype=torch.int32)
    return Batch(
        tokens=zeros.clone(),
        positions=zeros.clone(),
        slots=zeros - 1,
        owner=zeros - 1,
        cu_q=torch.arange(size + 1, dtype=torch.int32),
        seq_lens=zeros + 1,
        block_table=torch.zeros(size, pages, dtype=torch.int32),
        rows=torch.arange(size),
    )
