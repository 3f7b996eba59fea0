"""What this machine is: processor, instruction levels, a fingerprint that keys measured data."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Host:
    """The machine a document was made on. `fingerprint` (processor, level in use, cores) keys ceilings
    and tuned cpu configs."""

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


# Forces an instruction level of the host kernels.
ISA_VARIABLE = "TILEWRIGHT_ISA"
_AVX2 = frozenset({"avx2", "fma", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
# Levels of the host kernels (kernels/_host/cpu.hpp), worst first, each with what /proc/cpuinfo must list.
LEVELS: dict[str, frozenset[str]] = {
    "scalar": frozenset(),
    "avx2": _AVX2,
    "avx2vnni": _AVX2 | {"avx_vnni"},
    "avx512": _AVX512 | {"avx512_vnni", "avx512_bf16"},
    "amx": _AVX512 | {"avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"},
}


def cpu_flags() -> frozenset[str]:
    """What the processor says it has; empty where the system does not tell."""
    return frozenset(_cpuinfo().get("flags", "").split())


def _tile_registers_offered() -> bool:
    """Whether the system lends AMX's registers to processes: a sandbox may hide what the processor has."""
    import ctypes

    arch_prctl, get_supported, tile_data = (
        158,
        0x1021,
        18,
    )  # ARCH_GET_XCOMP_SUPP, XFEATURE_XTILEDATA
    mask = ctypes.c_uint64()
    done = ctypes.CDLL(None).syscall(arch_prctl, get_supported, ctypes.byref(mask))
    return done == 0 and bool(mask.value >> tile_data & 1)


def usable_levels(flags: frozenset[str] | None = None) -> list[str]:
    """Levels that a processor with these flags (default: this one, under this system) can run, worst first."""
    has = cpu_flags() if flags is None else flags
    found = [level for level, wanted in LEVELS.items() if wanted <= has]
    if flags is None and found[-1] == "amx" and not _tile_registers_offered():
        found.pop()
    return found


@cache
def host() -> Host:
    """This machine, at the level in use. Cheap: reads /proc/cpuinfo and no library."""
    import hashlib  # see toolchains: loading it takes as long as the rest of a short command

    info = _cpuinfo()
    model = info.get("model name", platform.processor() or platform.machine())
    identity = "/".join(
        info.get(k, "?") for k in ("vendor_id", "cpu family", "model", "model name", "cache size")
    )
    level = os.environ.get(ISA_VARIABLE) or usable_levels()[-1]
    cores = usable_cores()
    digest = hashlib.sha256(f"{identity}/{level}/{cores}".encode()).hexdigest()[:12]
    return Host(
        cpu=model,
        cores=cores,
        isa=level,
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
