"""The logs of the Ascend compilers in words: overflows in bytes, fallbacks, first errors."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tilewright.aot.ascend.hivm import MEMORIES
from tilewright.aot.ascend.session import died

_OVERFLOW = re.compile(r"(\w+) overflow, requires (\d+) bits while (\d+)(?: bits)? available")
_FELL_BACK = re.compile(r"Due to (\w+) overflow, automatically (.*?); compilation then succeeded")
_OPTION = re.compile(r"set ([\w-]+) to (?:false|true)")
_ERROR = re.compile(r"error: (.*)")
# What every run says once it has planned, and what adds nothing to the first error.
_EXPECTED = re.compile(r"hivmc|Failed to run BiSheng")
_STAGES = {
    "triton": "triton-ascend rejects it",
    "adapter": "triton-ascend's adapter rejects it",
    "bishengir": "bishengir-compile rejects it",
}


@dataclass(frozen=True, slots=True)
class Overflow:
    """A memory that does not hold what was planned; `memory` is UB, L1, L0C, ..."""

    memory: str
    needed_bytes: int
    available_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.memory} overflow: {amount(self.needed_bytes)} needed, "
            f"{amount(self.available_bytes)} available"
        )


def amount(size: int) -> str:
    """Bytes for people: `128 KiB`, or `257.5 KiB` where it is no whole number."""
    return f"{size / 1024:.2f}".rstrip("0").rstrip(".") + " KiB"


def overflows(log: str) -> tuple[Overflow, ...]:
    """Every memory that overflowed, once each, in the order of the log."""
    found = {
        space.lower(): Overflow(
            MEMORIES.get(space.lower(), space), -(-int(needed) // 8), int(available) // 8
        )
        for space, needed, available in _OVERFLOW.findall(log)
    }
    return tuple(found.values())


def fallbacks(log: str) -> tuple[str, ...]:
    """Compiler options that were switched before a plan succeeded."""
    return tuple(
        dict.fromkeys(
            option for _, options in _FELL_BACK.findall(log) for option in _OPTION.findall(options)
        )
    )


def fallback_notes(log: str) -> list[str]:
    """The same for people."""
    return [
        f"{MEMORIES.get(space.lower(), space)} overflowed at first; the compiler turned off "
        f"{' and '.join(_OPTION.findall(options))} and then it fitted"
        for space, options in _FELL_BACK.findall(log)
    ]


def sentence(stage: str, log: str, status: int) -> str:
    """Why a stage gave nothing: the overflows in bytes, else a crash, else its first error."""
    found = overflows(log)
    if found:
        return "; ".join(map(str, found))
    if status < 0:
        return f"{_STAGES[stage].removesuffix(' rejects it')} {died(status)}"
    return f"{_STAGES[stage]}: {_first_error(log, status)}"


def _first_error(log: str, status: int) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [match[1].strip() for line in lines if (match := _ERROR.search(line))]
    wanted = [text for text in errors if text and not _EXPECTED.search(text)]
    if wanted:
        return wanted[0][:300]
    # A front-end error is a listing of the source with the reason in its last line.
    others = [line for line in lines if not _EXPECTED.search(line)]
    return others[-1][:300] if others else f"it {died(status)} without a word"
