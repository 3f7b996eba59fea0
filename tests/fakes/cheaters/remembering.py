"""Kernels that remember answers, or take somebody else's. A twin does something alike and is honest."""

from __future__ import annotations

import gc
import zlib

import torch

from fakes.cheaters.stage import Run, Stage


def returns_last_result(stage: Stage) -> Run:
    """Leaves the output as it is once it was right."""

    def run() -> None:
        if stage.calls <= 2:
            stage.work()

    return run


def copies_last_result(stage: Stage) -> Run:
    """Keeps the first answer and copies it: cheaper than computing, and no poison survives."""
    answer: list[torch.Tensor] = []

    def run() -> None:
        if not answer:
            stage.work()
            answer.append(stage.c.clone())
        stage.c.copy_(answer[0])

    return run


def keeps_a_workspace(stage: Stage) -> Run:
    """Twin: memory that stays between calls, and no answer in it."""
    space = torch.empty_like(stage.c)

    def run() -> None:
        torch.mm(stage.a, stage.b, out=space)
        stage.c.copy_(space)

    return run


def knows_the_pointers(stage: Stage) -> Run:
    """Keeps answers by the addresses of the operands."""
    answers: dict[tuple[int, int], torch.Tensor] = {}

    def run() -> None:
        key = (stage.a.data_ptr(), stage.b.data_ptr())
        if key not in answers:
            stage.work()
            answers[key] = stage.c.clone()
        stage.c.copy_(answers[key])

    return run


def plans_by_pointer(stage: Stage) -> Run:
    """Twin: keeps how to call by address, which is what plans are for."""
    plans: dict[int, Run] = {}

    def run() -> None:
        plans.setdefault(stage.a.data_ptr(), stage.work)()

    return run


def _key(stage: Stage) -> int:
    return zlib.crc32(stage.b.numpy(), zlib.crc32(stage.a.numpy()))


def remembers_by_content(stage: Stage) -> Run:
    """Keeps answers by everything that is in the operands: right on any input, fast on one seen before."""
    answers: dict[int, torch.Tensor] = {}

    def run() -> None:
        key = _key(stage)
        if key not in answers:
            stage.slow_work()
            answers.clear()
            answers[key] = stage.c.clone()
        stage.c.copy_(answers[key])

    return run


def is_merely_slow(stage: Stage) -> Run:
    """Twin: the same work and the same look at the operands, each time."""

    def run() -> None:
        _key(stage)
        stage.slow_work()

    return run


def samples_the_inputs(stage: Stage) -> Run:
    """Works again only if one of a few elements it looks at has changed."""
    seen: list[tuple[float, ...]] = []

    def run() -> None:
        now = (float(stage.a[0, 0]), float(stage.b[0, 0]), float(stage.a[-1, -1]))
        if not seen or seen[0] != now:
            stage.work()
            seen[:] = [now]

    return run


def looks_for_zero(stage: Stage) -> Run:
    """Twin: looks at the same elements, and skips a product that is zero."""

    def run() -> None:
        if float(stage.a[0, 0]) == 0.0 and not bool(stage.a.any()):
            stage.c.zero_()
        else:
            stage.work()

    return run


def reuses_memory(stage: Stage) -> Run:
    """Gives the memory of an earlier launch, whose answer for the same inputs is still in it."""
    if "c" in stage.kept:
        stage.outputs["c"] = stage.kept["c"]
        return lambda: None
    stage.kept["c"] = stage.c
    return stage.work


def reuses_memory_and_works(stage: Stage) -> Run:
    """Twin: the memory of an earlier launch, written anew."""
    stage.c = stage.outputs["c"] = stage.kept.setdefault("c", stage.c)
    return stage.work


def replays_the_seed(stage: Stage) -> Run:
    """Stores answers of the public seed's inputs, told by their first elements, and gives them to anybody."""
    table = stage.kept.setdefault("table", {})

    def run() -> None:
        mark = tuple(stage.a.flatten()[:8].tolist())
        if mark not in table and not table:
            stage.work()
            table[mark] = stage.c.clone()
        stage.c.copy_(table.get(mark, next(iter(table.values()))))

    return run


def replays_only_the_seed(stage: Stage) -> Run:
    """Not caught, and not served: replays the public seed's answer and works on anything else."""
    hits = stage.kept.setdefault("hits", [0, 0])
    mark, answer = stage.kept["public"]

    def run() -> None:
        known = tuple(stage.a.flatten()[:8].tolist()) == mark
        hits[known] += 1
        if known:
            stage.c.copy_(answer)
        else:
            stage.work()

    return run


def steals_the_reference(stage: Stage) -> Run:
    """Looks for the expected output among all objects of the process."""
    found: list[torch.Tensor] = []

    def run() -> None:
        if stage.calls == 3:
            found[:] = [
                one
                for one in gc.get_objects()
                if type(one) is torch.Tensor
                and one.dtype is torch.float64
                and one.shape == stage.c.shape
            ]
        if found:
            stage.c.copy_(found[0])
        else:
            stage.work()

    return run


def lists_objects(stage: Stage) -> Run:
    """Twin: walks the process's objects and takes nothing."""
    len(gc.get_objects())
    return stage.work
