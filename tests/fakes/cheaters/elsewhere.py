"""Kernels that work on another thread, later, or when somebody looks. A twin does something alike and is honest."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import torch

from fakes.cheaters.stage import Run, Stage


def works_on_a_thread(stage: Stage) -> Run:
    """Returns while a thread has yet to write."""

    def run() -> None:
        if stage.calls <= 3:
            stage.work()
            return

        def later() -> None:
            time.sleep(0.002)
            stage.work()

        threading.Thread(target=later, daemon=True).start()

    return run


def joins_its_thread(stage: Stage) -> Run:
    """Twin: a thread that has written when the call returns."""

    def run() -> None:
        thread = threading.Thread(target=stage.work)
        thread.start()
        thread.join()

    return run


def corrects_later(stage: Stage) -> Run:
    """Writes half of the answer at once and the rest a millisecond after it has returned."""

    def run() -> None:
        half = stage.a.shape[0] // 2
        torch.mm(stage.a[:half], stage.b, out=stage.c[:half])
        if stage.calls <= 3:
            stage.work()
        else:
            timer = threading.Timer(0.001, stage.work)
            timer.daemon = True
            timer.start()

    return run


def counts_later(stage: Stage) -> Run:
    """Twin: a thread that goes on after the call, and leaves the output alone."""

    def run() -> None:
        stage.work()
        timer = threading.Timer(0.001, lambda: None)
        timer.daemon = True
        timer.start()

    return run


class _Cycle:
    """Works when the garbage collector finds it."""

    def __init__(self, work: Run) -> None:
        self.itself, self.work = self, work

    def __del__(self) -> None:
        self.work()


def works_when_collected(stage: Stage) -> Run:
    """Leaves the work to the garbage collector, which does not run while samples are taken."""

    def run() -> None:
        if stage.calls <= 3:
            stage.work()
        else:
            _Cycle(stage.work)

    return run


def makes_garbage(stage: Stage) -> Run:
    """Twin: leaves a cycle for the collector."""

    def run() -> None:
        stage.work()
        _Cycle(lambda: None)

    return run


class _Lazy(torch.Tensor):
    """A tensor that is computed when somebody looks at it."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for one in args:
            if isinstance(one, _Lazy) and "work" in one.__dict__:
                one.__dict__.pop("work")()
        return super().__torch_function__(func, types, args, kwargs or {})


def gives_a_lazy_tensor(stage: Stage) -> Run:
    """Its output is a subclass that computes when it is compared."""
    lazy = stage.c.as_subclass(_Lazy)
    stage.outputs["c"] = lazy

    def run() -> None:
        lazy.__dict__["work"] = stage.work

    return run


def gives_a_view(stage: Stage) -> Run:
    """Twin: its output is a view of larger memory."""
    room = torch.empty(2, *stage.c.shape)
    stage.c = stage.outputs["c"] = room[1]
    return stage.work


class _LazyDict(dict[str, torch.Tensor]):
    def __init__(self, items: Mapping[str, torch.Tensor], work: Run) -> None:
        super().__init__(items)
        self.work = work

    def __getitem__(self, name: str) -> torch.Tensor:
        self.work()
        return super().__getitem__(name)

    def values(self) -> Any:
        self.work()
        return super().values()


def gives_a_lazy_mapping(stage: Stage) -> Run:
    """Computes when somebody asks for its outputs."""
    stage.outputs = _LazyDict(stage.outputs, stage.work)
    return lambda: None


def gives_an_input(stage: Stage) -> Run:
    """Puts its output where an operand is."""
    stage.outputs["c"] = stage.c = stage.b.flatten()[: stage.c.numel()].view(stage.c.shape)
    return stage.work
