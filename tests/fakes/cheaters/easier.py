"""Kernels that make the next call easy, or work only where it shows. A twin does something alike and is honest."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import torch

from fakes.cheaters.stage import Run, Stage


def mutates_inputs(stage: Stage) -> Run:
    """Empties an operand once the first check is over, and is right by what it kept."""

    def run() -> None:
        stage.work()
        if stage.calls > 3:
            stage.a[:, 1:] = 0

    return run


def mutates_scratch(stage: Stage) -> Run:
    """Twin: empties a copy."""

    def run() -> None:
        scratch = stage.a.clone()
        torch.mm(scratch, stage.b, out=stage.c)
        scratch.zero_()

    return run


def makes_everything_nan(stage: Stage) -> Run:
    """Writes NaN into operands and output, so that a reference of the same operands agrees."""

    def run() -> None:
        if stage.calls > 3:
            stage.a.fill_(float("nan"))
        stage.work()

    return run


def gives_nan(stage: Stage) -> Run:
    """Gives NaN once the first check is over: comparisons written as `error > tolerance` let it through."""

    def run() -> None:
        if stage.calls > 3:
            stage.c.fill_(float("nan"))
        else:
            stage.work()

    return run


def clears_with_nan(stage: Stage) -> Run:
    """Twin: NaN first, then the answer."""

    def run() -> None:
        stage.c.fill_(float("nan"))
        stage.work()

    return run


def warms_up_only(stage: Stage) -> Run:
    """Works in the first 50 calls."""

    def run() -> None:
        if stage.calls <= 50:
            stage.work()

    return run


def initialises_once(stage: Stage) -> Run:
    """Twin: takes its time in the first call, for tables."""

    def run() -> None:
        if stage.calls == 1:
            time.sleep(0.002)
        stage.work()

    return run


def skips_most_calls(stage: Stage) -> Run:
    """Works in one call of 16."""

    def run() -> None:
        if stage.calls % 16 == 1:
            stage.work()

    return run


def works_on_poison_only(stage: Stage) -> Run:
    """Works if its output is not what it left there."""
    left: list[torch.Tensor] = []

    def run() -> None:
        if not left or not torch.equal(left[0], stage.c):
            stage.work()
            left[:] = [stage.c.clone()]

    return run


def rests_between_bursts(stage: Stage) -> Run:
    """Works if some time has passed since its last call: the rest is a batch, and nobody looks."""
    last = [0]

    def run() -> None:
        if time.perf_counter_ns() - last[0] > 5_000:
            stage.work()
        last[0] = time.perf_counter_ns()

    return run


def reads_the_clock(stage: Stage) -> Run:
    """Twin: reads the clock too."""

    def run() -> None:
        time.perf_counter_ns()
        stage.work()

    return run


def works_for_large_sizes_only(stage: Stage) -> Run:
    """Wrong for the sizes that are benchmarked, right for others."""

    def run() -> None:
        if stage.a.shape[0] == 32:
            stage.c.copy_(stage.a[:, :1] * stage.b[:1])
        else:
            stage.work()

    return run


def chooses_by_size(stage: Stage) -> Run:
    """Twin: another way for these sizes, right too."""

    def run() -> None:
        if stage.a.shape[0] == 32:
            torch.matmul(stage.b.t(), stage.a.t(), out=stage.c.t())
        else:
            stage.work()

    return run


def half_the_rows(stage: Stage) -> Run:
    """Leaves half of the rows out once the first check is over."""

    def run() -> None:
        rows = stage.a.shape[0] if stage.calls <= 3 else stage.a.shape[0] // 2
        torch.mm(stage.a[:rows], stage.b, out=stage.c[:rows])

    return run


def one_half_then_the_other(stage: Stage) -> Run:
    """Twin: the rows in two steps."""

    def run() -> None:
        half = stage.a.shape[0] // 2
        torch.mm(stage.a[:half], stage.b, out=stage.c[:half])
        torch.mm(stage.a[half:], stage.b, out=stage.c[half:])

    return run


def looks_who_calls(stage: Stage) -> Run:
    """Works where it sees somebody on the stack who checks."""

    def run() -> None:
        frame: Any = sys._getframe()
        names = set()
        while frame is not None:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        if names & {"_checked", "_round", "finish", "_check_first", "_bursts", "_warm_up"}:
            stage.work()

    return run


def knows_its_caller(stage: Stage) -> Run:
    """Twin: looks at the stack for a message."""

    def run() -> None:
        sys._getframe(1).f_code.co_name.upper()
        stage.work()

    return run


def sniffs_the_environment(stage: Stage) -> Run:
    """Works where no benchmark seems to run."""

    def run() -> None:
        if stage.calls <= 3 or "tilewright.perf.engine" not in sys.modules:
            stage.work()

    return run


def reads_the_environment(stage: Stage) -> Run:
    """Twin: a setting from the environment."""

    def run() -> None:
        os.environ.get("CHEATER_VERBOSE")
        stage.work()

    return run
