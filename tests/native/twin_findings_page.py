"""Writes docs/twin_findings.md from the corpus: every kind of finding, shown by a fault that makes it.

``python tests/native/twin_findings_page.py`` writes it; a test says when it is out of date.
"""

from __future__ import annotations

import textwrap

import twin_build
import twin_corpus
from twin_build import runner
from twin_corpus import Mutant
from twin_corpus_cases import case

PAGE = twin_build.ROOT / "docs" / "twin_findings.md"

# Kind: the mutant that shows it, what it means, how to mend it.
KINDS = {
    "race": (
        "vector_add__no_mte2_v",
        "Two accesses to the same bytes, one of them a write, that nothing orders. That the values came"
        " out right this time means nothing.",
        "Write the flag or barrier that the message names, after the earlier access and before the later.",
    ),
    "deadlock": (
        "vector_add__never_primed_in",
        "Pipes or cores that wait for each other in a circle, or for a core that has ended.",
        "Set the flag that the circle lacks: often one before the loop, which says that a buffer is free.",
    ),
    "unpaired-flag": (
        "vector_add__left_raised",
        "A WaitFlag without a SetFlag, which hangs, or a SetFlag that nobody waits for, which the next"
        " kernel on the core finds raised.",
        "Pair them, in every iteration and after the last.",
    ),
    "repeated-flag": (
        "vector_add__no_wait_mte2_v",
        "SetFlag of an event id that is still set: undefined, and often a hang.",
        "Wait for the flag in between, or use another event id.",
    ),
    "reserved-flag": (
        "vector_add__reserved_id",
        "An id that the system uses itself: 6 and 7 between pipes; between cores 11 to 14 where SyncAll is"
        " called.",
        "Take 0 to 5 between pipes, 0 to 10 between cores.",
    ),
    "flag-range": (
        "vector_add__id_out_of_range",
        "An event id that does not exist, or no free one left.",
        "Take 0 to 5; release what AllocEventID gave.",
    ),
    "illegal-event": (
        "vector_add__event_of_a_cube_core",
        "A HardEvent between pipes that this kind of core does not have.",
        "Order the pipes that take part; on a vector core V, MTE2, MTE3 and S.",
    ),
    "cross-flag": (
        "mixed_workspace__one_core_forgets",
        "A flag between cores that is lost: nobody waits for it, not all cores of its mode set it, or its"
        " counter passes 15.",
        "Set and wait equally often on all cores that the mode names, and hand buffers back.",
    ),
    "wrong-core": (
        "mixed_workspace__mode_of_vector_cores",
        "What only a cube core has, on a vector core, or the reverse.",
        "Put it under ASCEND_IS_AIC or ASCEND_IS_AIV.",
    ),
    "queue": (
        "vector_add_queue__never_freed",
        "AllocTensor, EnQue, DeQue and FreeTensor of a queue that do not balance. The first mistake with"
        " a queue is reported, what follows from it is not.",
        "Each tensor goes round once: allocate, enqueue, dequeue, free.",
    ),
    "use-after-free": (
        "vector_add_queue__freed_before_use",
        "A queue's buffer is used after FreeTensor, when the other pipe may already be writing to it.",
        "Free it after the last use.",
    ),
    "out-of-bounds": (
        "vector_add__gm_overrun",
        "Bytes outside the buffer that the tensor was cut from, or outside the argument that a"
        " GlobalTensor was set to.",
        "Mind tails, and the units of lengths and strides.",
    ),
    "misaligned": (
        "softmax__misaligned_spread",
        "An address that the memory or the instruction does not take.",
        "UB and L1 want 32 bytes, L0A and L0B 512, L0C 64, and 1024 as the result of Mmad.",
    ),
    "capacity": (
        "vector_add_queue__capacity",
        "Buffers that together do not fit their memory.",
        "Smaller tiles, fewer buffers, or one buffer for what is never alive at the same time.",
    ),
    "uninitialized-read": (
        "softmax__never_spread",
        "On-chip memory is read that nothing has written since the kernel began.",
        "Fill it first, or compute on fewer elements.",
    ),
    "stale-cache": (
        "scalar_header__not_cleaned",
        "Global memory is read that the scalar unit of a core has written (SetValue), and what it wrote may"
        " still be in that core's data cache, past which other pipes and other cores read.",
        "DataCacheCleanAndInvalid after the last SetValue of a line of 64 bytes, before the flag or the"
        " meeting that the reader waits for.",
    ),
    "short-row": (
        "padded_rows__not_padded",
        "DataCopyPad puts rows of less than 32 bytes into a block of 32 each, with nothing in particular"
        " behind them, and they are read as if they lay densely or as if the rest were zero.",
        "Pad (isPad, rightPadding), or compute on the lanes that hold something.",
    ),
    "illegal-parameter": (
        "softmax__mask_too_wide",
        "A count, repeat, stride, mask, size, mode or type beyond what is documented for 2201.",
        "The message says what is allowed.",
    ),
    "illegal-memory": (
        "gemm_bias_scale__bias_from_l1",
        "An operand in a memory that the instruction cannot reach.",
        "Move it there first.",
    ),
    "assertion": (
        "lookup__asserted",
        "assert in the kernel failed; the core stops there.",
        "It is the kernel's own rule.",
    ),
    "fault": (
        "lookup__wild_pointer",
        "The kernel's own C++ crashed after the API call on that line.",
        "Look for a division by zero or a wild pointer behind that call.",
    ),
}

LIMITS = (
    "Global memory that nobody wrote: arguments count as written when the kernel starts.",
    "The scalar unit's data cache, where it reads: a GetValue may give what a line of 64 bytes held when it was"
    " first read, unless DataCacheCleanAndInvalid comes before. On the twin it reads memory as it is. Nor is it"
    " found that two cores write different bytes of one line, of which the later one wins.",
    "A wrong address inside the right buffer, or a wrong value: only the comparison with a reference"
    " shows it. Two static tensors that overlap are reported where their accesses race, not as such.",
    "Copies to L1, L0 and UB, and Mmad, of bytes of which only some were written: they take whole blocks,"
    " and what fills the rest is not held against them. A copy to global memory may carry up to 31 such"
    " bytes.",
    "What DataCopyPad leaves behind rows of more than 32 bytes that are not padded: it counts as written.",
    "Unit flags beyond a tile that is kept for ever: a Fixpipe that takes less than Mmad made, for one.",
    "Branches that this run did not take: control flow that depends on data is checked along one path.",
    "What follows from a fault already reported: after a missing flag, queue or wait the run goes on as if"
    " it had been right, so that one mistake makes one finding. Mend it and run again.",
    "What CANN's compiler makes of the source, and silicon: there was none.",
)


def finding_of(symbol: str, kind: str) -> runner.Finding:
    """The first finding of ``kind`` that a mutant of the corpus makes."""
    kernel, _, name = symbol.partition("__")
    mutant = next(m for m in twin_corpus.mutants(kernel) if m.name == name)
    arguments, _ = case(kernel).arguments()
    result = runner.run(
        twin_build.twin(),
        mutant.symbol,
        case(kernel).blocks,
        arguments,
        threads=1,
        kernel_library=twin_corpus.libraries()[mutant.symbol],
    )
    return next(f for f in result.findings if f.kind == kind)


def _line(mutant: Mutant, number: int) -> str:
    return mutant.lines()[number - 1].partition("  //")[0].strip()


def _example(symbol: str, kind: str) -> str:
    kernel, _, name = symbol.partition("__")
    mutant = next(m for m in twin_corpus.mutants(kernel) if m.name == name)
    finding = finding_of(symbol, kind)
    text = textwrap.fill(str(finding), 118, break_long_words=False, break_on_hyphens=False)
    shown = f"{text}\n    {_line(mutant, finding.line)}"
    if finding.other_file == mutant.file and finding.other_line != finding.line:
        shown += f"\n{finding.other_file}:{finding.other_line}: the earlier one\n"
        shown += f"    {_line(mutant, finding.other_line)}"
    return shown


def page() -> str:
    """The text of docs/twin_findings.md."""
    faults = sum(len(twin_corpus.mutants(k)) for k in twin_corpus.kernels())
    out = [
        "# What the twin finds",
        "",
        f"Made from the corpus in `tests/corpus`: {len(twin_corpus.kernels())} kernels of which nothing is"
        f" reported, and {faults} faults planted into them,",
        "each of which is reported as what it is, at its line, in every schedule. This page is written by"
        " `tests/native/twin_findings_page.py`.",
        "",
        "| kind | what it means | how to mend it |",
        "|---|---|---|",
    ]
    out += [f"| [{k}](#{k}) | {means} | {mend} |" for k, (_, means, mend) in KINDS.items()]
    out += ["", "## What it does not see", ""]
    out += [f"- {limit}" for limit in LIMITS]
    out += ["", "## Examples", ""]
    for kind, (symbol, _, _) in KINDS.items():
        kernel, _, name = symbol.partition("__")
        told = name.replace("_", " ")
        out += [f"### {kind}", "", f"`tests/corpus/{kernel}.cpp`, {told}:", ""]
        out += ["```", _example(symbol, kind), "```", ""]
    return "\n".join(out).rstrip() + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
