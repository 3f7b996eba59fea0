"""What timing asks of a GPU: marks with times, calls that are replayed without Python, work that fills time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, Protocol

from tilewright.errors import Unavailable

# `zero_` of this much takes as long as the host needs to queue a sample, and leaves nothing in any L2.
_LEAST_FLUSH = 64 << 20
# Clocks of GPUs lie between 1 and 2.6 GHz; a wait that turns out shorter costs accuracy, a longer one only time.
_CYCLES_PER_NS = 2.0


class Facts(NamedTuple):
    """A device as its driver names it, and the bytes of its last cache."""

    name: str
    l2_bytes: int


class Queue(Protocol):
    """The current stream of a device; `device` is torch's word for where its memory is."""

    facts: Facts
    device: str

    def mark(self) -> Any:
        """A point in the queue whose time can be had once it has passed."""

    def between_ns(self, start: Any, end: Any) -> float:
        """ns between two marks that have passed."""

    def wait(self) -> None:
        """Until everything in this queue is done."""

    def hold(self, ns: float) -> None:
        """Keep the queue busy for about that long, so that what is queued next starts without gaps."""

    def flush(self, total: int) -> None:
        """Rewrite that many bytes of other memory."""

    def capture(self, call: Callable[[], Any], calls: int) -> tuple[Callable[[], None], Any] | None:
        """That many calls as one thing to replay, and what the last returned; None for what cannot be kept."""


class TorchQueue:
    """torch's current stream; CUDA and HIP devices go by the same names there."""

    device = "cuda"

    def __init__(self) -> None:
        """Raises Unavailable where torch sees no GPU."""
        import torch

        if not torch.cuda.is_available():
            raise Unavailable("torch sees no GPU here, so there is no queue to time calls in")
        self._torch = torch
        found = torch.cuda.get_device_properties(torch.cuda.current_device())
        self.facts = Facts(str(found.name), int(found.L2_cache_size))
        self._room: Any = None

    def mark(self) -> Any:
        """See Queue."""
        event = self._torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between_ns(self, start: Any, end: Any) -> float:
        """See Queue."""
        return float(start.elapsed_time(end)) * 1e6

    def wait(self) -> None:
        """See Queue. Only of the current stream: work that hides in another one is not waited for."""
        self._torch.cuda.current_stream().synchronize()

    def hold(self, ns: float) -> None:
        """See Queue."""
        self._torch.cuda._sleep(int(ns * _CYCLES_PER_NS))  # type: ignore[no-untyped-call]

    def flush(self, total: int) -> None:
        """See Queue."""
        total = max(total, _LEAST_FLUSH)
        if self._room is None or self._room.numel() < total:
            self._room = self._torch.empty(total, dtype=self._torch.uint8, device="cuda")
        self._room[:total].zero_()

    def capture(self, call: Callable[[], Any], calls: int) -> tuple[Callable[[], None], Any] | None:
        """See Queue. The call is made before on a stream of its own: what is compiled or set up is not kept."""
        cuda = self._torch.cuda
        side, main = cuda.Stream(), cuda.current_stream()
        side.wait_stream(main)
        with cuda.stream(side):
            call()
        main.wait_stream(side)
        graph, result = cuda.CUDAGraph(), None
        try:
            with cuda.graph(graph):
                for _ in range(calls):
                    result = call()
        except RuntimeError:
            # It waits for the device or reads from it, which a graph cannot. torch does not leave its stream then.
            cuda.set_stream(main)
            return None
        return graph.replay, result


def clock_mhz() -> float | None:
    """The clock of the current GPU right now; None where its management library is not there."""
    import torch

    try:
        return float(torch.cuda.clock_rate())
    except Exception:  # noqa: BLE001 - management libraries raise classes of their own
        return None


@cache
def queue() -> Queue:
    """The queue of this process; raises Unavailable where there is no GPU."""
    return TorchQueue()


def seconds_to_queue(call: Callable[[], Any], on: Queue, calls: int = 3) -> float:
    """Seconds the host needs to queue a call, the least of a few."""
    taken = []
    for _ in range(calls):
        on.wait()
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    on.wait()
    return min(taken)
