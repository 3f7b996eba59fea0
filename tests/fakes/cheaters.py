"""Kernels that cheat a benchmark, each with an honest twin that does something alike and must pass.

Each is a backend of gemm in fp32. `install` gets a Stage (operands, output, what stays between launches)
and returns the launch's `run`; it may do to this process whatever a kernel's code could.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from tilewright.backends import Backend, Cell, Launch, State
from tilewright.cases import Case
from tilewright.inputs import Inputs, empty_outputs
from tilewright.registry import Family
from tilewright.space import Config
from tilewright.spec import Precision
from tilewright.targets import Target


@dataclass
class Stage:
    """What a kernel works on. `run` counts its calls in `calls`; `kept` outlives the launch."""

    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor
    outputs: dict[str, Any]
    kept: dict[Any, Any]
    calls: int = 0

    def work(self) -> None:
        torch.mm(self.a, self.b, out=self.c)

    def slow_work(self) -> None:
        """The same sum in 100 steps: a kernel whose answers are worth remembering."""
        for _ in range(100):
            torch.mm(self.a, self.b, out=self.c)


Run = Callable[[], None]
Install = Callable[[Stage], Run]


@dataclass
class Cheater(Backend):
    """A backend that runs what `install` makes; `undo` repairs the process after it."""

    install: Install
    name: str = "cheater"
    undo: Callable[[], None] = lambda: None
    kept: dict[Any, Any] = field(default_factory=dict)

    def targets(self) -> tuple[str, ...]:
        return ("cpu",)

    def cell(self, family: Family, target: Target, precision: Precision) -> Cell:
        return Cell(family.name, self.name, target.name, precision.name, State.RUN)

    def refuses(self, family: Family, case: Case, config: Config, target: Target) -> str | None:
        return None

    def prepare(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Config,
        target: Target,
        threads: int = 0,
    ) -> Launch:
        outputs: dict[str, Any] = empty_outputs(family, case)
        a, b = inputs.logical["a"], inputs.logical["b"]
        assert a is not None and b is not None
        stage = Stage(a, b, outputs["c"], outputs, self.kept)
        inner = self.install(stage)

        def run() -> None:
            stage.calls += 1
            inner()

        return Launch(run, stage.outputs)


# -- remembering ---------------------------------------------------------------------------------------


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


# -- making the next call easy -------------------------------------------------------------------------


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


# -- working elsewhere or later ------------------------------------------------------------------------


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


# -- tampering with the one who measures ---------------------------------------------------------------


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


def repair(cheater: Cheater) -> None:
    """Undo what a cheater did to this process."""
    for owner, name, value in reversed(cheater.kept.get("undo", [])):
        setattr(owner, name, value)
    if "undo_precision" in cheater.kept:
        torch.set_float32_matmul_precision(cheater.kept["undo_precision"])
    torch.set_flush_denormal(False)
    gc.callbacks[:] = [one for one in gc.callbacks if one.__module__ != __name__]


# An output that is not of the inputs it was called on. Which earlier ones it is of depends on the moment.
STALE = (
    "gave the answer of (earlier inputs|the public seed's inputs)"
    "|left NaN in its output|was right when it was checked first and wrong in"
)
# What is run, and the sentence it is caught with; None: the row is timed.
CHEATS: dict[Install, str] = {
    returns_last_result: STALE,
    copies_last_result: STALE,
    knows_the_pointers: STALE,
    remembers_by_content: "it remembers answers",
    samples_the_inputs: STALE,
    replays_the_seed: "gave the answer of the public seed's inputs",
    steals_the_reference: "gave the answer of the public seed's inputs",
    mutates_inputs: "changed its input 'a'",
    makes_everything_nan: "changed its input 'a'",
    gives_nan: "left NaN in its output",
    warms_up_only: STALE,
    skips_most_calls: STALE,
    works_on_poison_only: STALE,
    rests_between_bursts: f"{STALE}|it remembers answers",
    works_for_large_sizes_only: "is wrong, so it is not timed",
    half_the_rows: STALE,
    looks_who_calls: "in a timed sample",
    sniffs_the_environment: STALE,
    works_on_a_thread: f"after the call had returned|{STALE}",
    corrects_later: f"after the call had returned|{STALE}",
    works_when_collected: f"after the call had returned|{STALE}",
    gives_a_lazy_tensor: "as a _Lazy, not as a plain tensor",
    gives_a_lazy_mapping: "is wrong, so it is not timed",
    gives_an_input: "in the memory of input 'b'",
    patches_the_clock: "time.perf_counter_ns was replaced",
    patches_the_timer: "the timer was tampered with",
    patches_the_timers_code: "tilewright.perf.timers.CallTimer.sample was replaced",
    patches_the_comparison: "tilewright.numerics.compare was replaced",
    patches_torch: "torch.empty was replaced",
    lowers_the_precision: "is wrong, so it is not timed|changed the process that times it: matmul precision",
    takes_more_threads: "changed the process that times it: torch threads",
    flushes_denormals: "changed the process that times it: flushes denormals",
    listens_to_the_collector: "changed the process that times it: collector callbacks",
    writes_beyond: "wrote outside of its output 'c'",
}  # fmt: skip

TWINS: tuple[Install, ...] = (
    keeps_a_workspace,
    plans_by_pointer,
    is_merely_slow,
    looks_for_zero,
    reuses_memory_and_works,
    lists_objects,
    mutates_scratch,
    clears_with_nan,
    initialises_once,
    reads_the_clock,
    chooses_by_size,
    one_half_then_the_other,
    knows_its_caller,
    reads_the_environment,
    joins_its_thread,
    counts_later,
    makes_garbage,
    gives_a_view,
    wraps_a_clock,
    borrows_threads,
)


def all_installs() -> Iterator[Install]:
    """Everything above that is a kernel."""
    yield from CHEATS
    yield from TWINS
