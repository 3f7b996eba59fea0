"""Kernels that cheat a benchmark, each with an honest twin that does something alike and must pass.

Each is a backend of gemm in fp32. `install` gets a Stage (operands, output, what stays between launches)
and returns the launch's `run`; it may do to this process whatever a kernel's code could.
"""

from __future__ import annotations

import gc

import torch

from fakes.cheaters.easier import (
    chooses_by_size,
    clears_with_nan,
    gives_nan,
    half_the_rows,
    initialises_once,
    knows_its_caller,
    looks_who_calls,
    makes_everything_nan,
    mutates_inputs,
    mutates_scratch,
    one_half_then_the_other,
    reads_the_clock,
    reads_the_environment,
    rests_between_bursts,
    skips_most_calls,
    sniffs_the_environment,
    warms_up_only,
    works_for_large_sizes_only,
    works_on_poison_only,
)
from fakes.cheaters.elsewhere import (
    corrects_later,
    counts_later,
    gives_a_lazy_mapping,
    gives_a_lazy_tensor,
    gives_a_view,
    gives_an_input,
    joins_its_thread,
    makes_garbage,
    works_on_a_thread,
    works_when_collected,
)
from fakes.cheaters.remembering import (
    copies_last_result,
    is_merely_slow,
    keeps_a_workspace,
    knows_the_pointers,
    lists_objects,
    looks_for_zero,
    plans_by_pointer,
    remembers_by_content,
    replays_only_the_seed,
    replays_the_seed,
    returns_last_result,
    reuses_memory,
    reuses_memory_and_works,
    samples_the_inputs,
    steals_the_reference,
)
from fakes.cheaters.stage import Cheater, Install, Run, Stage
from fakes.cheaters.tampering import (
    borrows_threads,
    flushes_denormals,
    listens_to_the_collector,
    lowers_the_precision,
    patches_the_clock,
    patches_the_comparison,
    patches_the_timer,
    patches_the_timers_code,
    patches_torch,
    takes_more_threads,
    wraps_a_clock,
    writes_beyond,
)

__all__ = [
    "CHEATS",
    "STALE",
    "TWINS",
    "Cheater",
    "Install",
    "Run",
    "Stage",
    "repair",
    "reuses_memory",
    "replays_only_the_seed",
]


def repair(cheater: Cheater) -> None:
    """Undo what a cheater did to this process."""
    for owner, name, value in reversed(cheater.kept.get("undo", [])):
        setattr(owner, name, value)
    if "undo_precision" in cheater.kept:
        torch.set_float32_matmul_precision(cheater.kept["undo_precision"])
    torch.set_flush_denormal(False)
    gc.callbacks[:] = [one for one in gc.callbacks if not str(one.__module__).startswith(__name__)]


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
    # Where the product takes both threads, it is seen at work.
    takes_more_threads: "changed the process that times it: torch threads|keeps .* processors busy",
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
