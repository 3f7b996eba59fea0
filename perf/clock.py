"""How fast the processor's clock runs right now, and who says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tilewright import native
from tilewright.machine import cpu_flags

_CPUFREQ = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Clock:
    """A way of reading the clock in MHz. `source` is `cpufreq`, `cpuinfo`, `chain` or `none`."""

    source: str
    mhz: Callable[[], float | None]


def _current_cpu() -> int:
    """The processor this thread may run on that stands first: readings are of one core."""
    return min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


def from_cpufreq(folder: Path = _CPUFREQ) -> float | None:
    """What the kernel's frequency driver reports, in MHz; None where there is none (kHz in the file)."""
    try:
        text = (folder / f"cpu{_current_cpu()}" / "cpufreq" / "scaling_cur_freq").read_text()
        return int(text) / 1e3
    except (OSError, ValueError):
        return None


def from_cpuinfo(path: Path = _CPUINFO) -> float | None:
    """The line `cpu MHz` of the first processor; None where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return float(next(v for v in lines if v.startswith("cpu MHz")).split(":")[1])
    except (OSError, StopIteration, IndexError, ValueError):
        return None


def from_chain() -> float | None:
    """Timed chains of dependent multiplications, whose cycles are known; None without the native module."""
    if native.why_missing() is not None:
        return None
    module = native.module()
    return float(module.core_mhz()) if hasattr(module, "core_mhz") else None


def choose(
    flags: frozenset[str] | None = None,
    cpufreq: Callable[[], float | None] = from_cpufreq,
    cpuinfo: Callable[[], float | None] = from_cpuinfo,
    chain: Callable[[], float | None] = from_chain,
) -> Clock:
    """The best way there is: the frequency driver, /proc/cpuinfo, or a chain of known cycles.

    Under a hypervisor /proc/cpuinfo repeats the nominal frequency whatever the core does, so there the
    chain goes first.
    """
    ways = [("cpufreq", cpufreq), ("cpuinfo", cpuinfo), ("chain", chain)]
    if "hypervisor" in (cpu_flags() if flags is None else flags):
        ways = [ways[0], ways[2], ways[1]]
    for source, read in ways:
        if read() is not None:
            return Clock(source, read)
    return Clock("none", lambda: None)


@cache
def clock() -> Clock:
    """That of this machine, found once."""
    return choose()
