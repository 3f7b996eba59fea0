"""Kernels that tamper with the one who measures, or with the process. A twin does something alike and is honest."""

from __future__ import annotations

import gc
import time
from typing import Any

import torch

from fakes.cheaters.stage import Run, Stage


def patches_the_clock(stage: Stage) -> Run:
    """Binds another function to the name of the clock."""
    stage.kept.setdefault("undo", []).append((time, "perf_counter_ns", time.perf_counter_ns))
    real = time.perf_counter_ns
    time.perf_counter_ns = lambda: real() // 10
    return stage.work


def patches_the_timer(stage: Stage) -> Run:
    """Finds the timer among the objects of the process and gives it a slower clock."""
    from tilewright.perf.timers import CallTimer

    real = time.perf_counter_ns

    def run() -> None:
        if stage.calls == 3:
            for one in gc.get_objects():
                if type(one) is CallTimer:
                    one._now = lambda: real() // 10
        stage.work()

    return run


def patches_the_timers_code(stage: Stage) -> Run:
    """Replaces the method that takes samples."""
    from tilewright.perf.timers import CallTimer

    real = CallTimer.sample
    stage.kept.setdefault("undo", []).append((CallTimer, "sample", real))

    def faster(self: Any, count: int, batch: int, flush: int) -> Any:
        return real(self, count, batch, flush) / 10

    CallTimer.sample = faster  # type: ignore[method-assign]
    return stage.work


def patches_the_comparison(stage: Stage) -> Run:
    """Replaces what compares with the reference."""
    from tilewright import numerics

    stage.kept.setdefault("undo", []).append((numerics, "compare", numerics.compare))
    real = numerics.compare
    numerics.compare = lambda out, ref, tolerance: real(ref, ref, tolerance)
    return stage.work


def patches_torch(stage: Stage) -> Run:
    """Replaces torch.empty, so that new memory holds what it likes."""
    stage.kept.setdefault("undo", []).append((torch, "empty", torch.empty))
    real = torch.empty
    torch.empty = lambda *a, **k: real(*a, **k)
    return stage.work


def wraps_a_clock(stage: Stage) -> Run:
    """Twin: a clock of its own under a name of its own."""

    def clock() -> int:
        return time.perf_counter_ns() // 10

    def run() -> None:
        clock()
        stage.work()

    return run


def lowers_the_precision(stage: Stage) -> Run:
    """Lets torch multiply in bf16 from now on."""
    stage.kept.setdefault("undo_precision", torch.get_float32_matmul_precision())
    torch.set_float32_matmul_precision("medium")
    return stage.work


def takes_more_threads(stage: Stage) -> Run:
    """Gives torch more threads than its row says, and leaves it so."""
    torch.set_num_threads(torch.get_num_threads() + 1)
    return stage.work


def borrows_threads(stage: Stage) -> Run:
    """Twin: sets torch's threads for its call and puts them back."""

    def run() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        stage.work()
        torch.set_num_threads(before)

    return run


def flushes_denormals(stage: Stage) -> Run:
    """Changes how this thread computes for everybody after it."""

    def run() -> None:
        torch.set_flush_denormal(True)
        stage.work()

    return run


def listens_to_the_collector(stage: Stage) -> Run:
    """Leaves a callback with the garbage collector."""

    def callback(phase: str, info: Any) -> None:
        pass

    def run() -> None:
        if callback not in gc.callbacks:
            gc.callbacks.append(callback)
        stage.work()

    return run


def writes_beyond(stage: Stage) -> Run:
    """Leaves a note in the memory after its output."""
    flat = torch.tensor([]).set_(stage.c.untyped_storage())
    after = stage.c.storage_offset() + stage.c.numel() + 5

    def run() -> None:
        stage.work()
        flat[after] = float(stage.calls)

    return run
