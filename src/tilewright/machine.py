"""What this machine is: processor, instruction levels, a fingerprint that keys measured data."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Host:
    """The machine a document was made on. `fingerprint` keys ceilings and tuned cpu configs."""

    cpu: str
    cores: int
    isa: str
    os: str
    python: str
    fingerprint: str


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def usable_cores() -> int:
    """Cores this process may run on."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    )


def cpu_level(flags: frozenset[str]) -> str:
    """The best level of the host kernels for a set of /proc/cpuinfo flags (see kernels/_host/cpu.hpp)."""
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16"} <= flags:
        return "avx512"
    if {"avx2", "fma", "f16c"} <= flags:
        return "avx2vnni" if "avx_vnni" in flags else "avx2"
    return "scalar"


@cache
def host() -> Host:
    """This machine. Cheap: reads /proc/cpuinfo and no library."""
    info = _cpuinfo()
    model = info.get("model name", platform.processor() or platform.machine())
    identity = "/".join(
        info.get(k, "?") for k in ("vendor_id", "cpu family", "model", "model name", "cache size")
    )
    level = cpu_level(frozenset(info.get("flags", "").split()))
    cores = usable_cores()
    digest = hashlib.sha256(f"{identity}/{level}/{cores}".encode()).hexdigest()[:12]
    return Host(
        cpu=model,
        cores=cores,
        isa=os.environ.get("TILEWRIGHT_ISA", level),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=".".join(map(str, sys.version_info[:3])),
        fingerprint=f"{model.lower().replace(' ', '-')[:24].strip('-')}-{level}-{cores}c-{digest}",
    )


def cache_folder(*parts: str) -> Path:
    """A folder of this user for things that can be made again; TILEWRIGHT_CACHE overrides the place."""
    root = os.environ.get("TILEWRIGHT_CACHE")
    base = (
        Path(root)
        if root
        else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tilewright"
    )
    return base.joinpath(*parts)


def data_folder(*parts: str) -> Path:
    """A folder of this user for things worth keeping (studies, tuned configs); TILEWRIGHT_DATA overrides."""
    root = os.environ.get("TILEWRIGHT_DATA")
    base = (
        Path(root)
        if root
        else Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "tilewright"
    )
    return base.joinpath(*parts)
