"""Stages that look at this machine and at the library's file without running it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .elf import Elf, ElfError, dotted, numbers, read_elf

Result = tuple[str, str]
# Worst first; each with what /proc/cpuinfo must list. The library asks the processor itself.
_AVX2 = frozenset({"avx2", "fma", "f16c"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS: dict[str, frozenset[str]] = {
    "scalar": frozenset(),
    "avx2": _AVX2,
    "avx2vnni": _AVX2 | {"avx_vnni"},
    "avx512": _AVX512 | {"avx512_vnni", "avx512_bf16"},
    "amx": _AVX512 | {"avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"},
}
ISA_VARIABLE = "TILEWRIGHT_ISA"
# Torch's C functions, and C++ names (functions, type information) of its three namespaces.
_OF_TORCH = re.compile(r"aoti_torch_|torch_|_Z(?:T[A-Z])?N?K?[RO]?(?:3c10|2at|5torch)")
_RUNTIME = "libstdc++.so.6"


def stages(
    root: Path, manifest: dict[str, Any], assume_torch: str | None, assume_level: str | None
) -> Iterator[tuple[str, Result]]:
    """Yield (stage, (state, sentence))."""
    needs = manifest["needs"]
    yield "platform", platform_stage(needs)
    yield "torch", torch_stage(needs, assume_torch)
    yield "cpu", cpu_stage(needs, manifest["cpu_levels"], assume_level)
    yield "abi", abi_stage(root / manifest["library"]["path"], manifest["library"])


def platform_stage(needs: dict[str, Any]) -> Result:
    system, machine = platform.system(), platform.machine()
    if (system, machine) != (needs["system"], needs["machine"]):
        return "failed", (
            f"The library is for {needs['system']} on {needs['machine']}; this is {system} on {machine}."
        )
    python = platform.python_version()
    if numbers(python) < numbers(needs["python"]):
        return "failed", f"Python {python} is too old: {needs['python']} or later is needed."
    libc = glibc()
    if libc is None:
        return (
            "failed",
            f"The library needs glibc {needs['glibc']} or later; this system's libc is not glibc.",
        )
    if numbers(libc) < numbers(needs["glibc"]):
        return "failed", f"glibc {libc} is too old: {needs['glibc']} or later is needed."
    return "passed", (
        f"{system} {machine}, glibc {libc} (needs {needs['glibc']}), Python {python} "
        f"(needs {needs['python']})."
    )


def glibc() -> str | None:
    """The version of glibc, or None for another libc."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError, AttributeError):
        return None
    return version if name == "glibc" and version else None


def torch_stage(needs: dict[str, Any], assumed: str | None) -> Result:
    try:
        version = assumed or importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return (
            "undecided",
            f"torch is not installed for {sys.executable}; {needs['torch']} or later is needed.",
        )
    pretended = " (assumed)" if assumed else ""
    if numbers(version) < numbers(needs["torch"]):
        return "failed", (
            f"torch {version}{pretended} is too old: the library uses torch's stable ABI of "
            f"{needs['torch']}, so torch {needs['torch']} or later is needed."
        )
    return "passed", (
        f"torch {version}{pretended} has the stable ABI of {needs['torch']} that the library uses."
    )


def cpu_levels() -> list[str]:
    """Levels that this processor can run, worst first."""
    flags: set[str] = set()
    try:
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("flags"):
                flags = set(line.partition(":")[2].split())
                break
    except OSError:
        pass
    return [level for level, wanted in LEVELS.items() if wanted <= flags]


def cpu_stage(needs: dict[str, Any], compiled: list[str], assumed: str | None) -> Result:
    available = cpu_levels()
    if assumed is not None:
        names = list(LEVELS)
        if assumed != "none" and assumed not in names:
            return "failed", f"'{assumed}' is no CPU level; accepted: none, {', '.join(names)}."
        available = names[: names.index(assumed) + 1] if assumed != "none" else []
    needed = needs["cpu_level"]
    unknown = next((level for level in (needed, *compiled) if level not in LEVELS), None)
    if unknown is not None:
        return (
            "failed",
            f"The manifest names CPU level '{unknown}'; accepted: {', '.join(LEVELS)}.",
        )
    has = ", ".join(available) or "none"
    if needed not in available:
        return "failed", (
            f"This CPU lacks the level the bundle needs: '{needed}' ({', '.join(sorted(LEVELS[needed]))}); "
            f"levels it has: {has}."
        )
    usable = [level for level in available if level in compiled]
    if not usable:
        return "failed", (
            f"Of the compiled levels ({', '.join(compiled) or 'none'}) this CPU has none; it has: {has}."
        )
    forced = os.environ.get(ISA_VARIABLE)
    if forced and forced not in usable:
        return "failed", (
            f"{ISA_VARIABLE}={forced} asks for a level that cannot run here; accepted: {', '.join(usable)}."
        )
    chosen = f"{forced} is forced by {ISA_VARIABLE}" if forced else f"{usable[-1]} will be used"
    return "passed", (
        f"This CPU has the needed level '{needed}': {len(usable)} of the {len(compiled)} compiled levels "
        f"({', '.join(compiled)}) can run, {chosen}."
    )


def abi_stage(library: Path, facts: dict[str, Any]) -> Result:
    try:
        elf = read_elf(library)
    except ElfError as error:
        return "failed", f"{library.name} is not a library this system can load: {error}."
    limits = {name: dotted(version) for name, version in sorted(elf.versions.items())}
    if limits != facts["symbol_versions"] or list(elf.needed) != facts["needed"]:
        return (
            "failed",
            f"{library.name} asks for other libraries or versions than the manifest says.",
        )
    folder = _torch_libraries()
    if folder is None:
        return (
            "undecided",
            "torch's own libraries cannot be found, so its symbols cannot be compared.",
        )
    try:
        offered = _offered(elf, folder)
        problem, runtime = _compare_runtime(elf, offered, folder)
    except (ElfError, OSError) as error:
        return "undecided", f"This system's own libraries cannot be read: {error}."
    wanted = [name for name in elf.undefined if _OF_TORCH.match(name)]
    absent = [name for name in wanted if name not in offered]
    if absent:
        return "failed", (
            f"{len(absent)} of the {len(wanted)} torch functions the library calls are not in this torch, "
            f"the first: {absent[0]}."
        )
    if problem:
        return "failed", problem
    return "passed", (
        f"{len(wanted)} torch functions are called and all are in this torch; linked to "
        f"{', '.join(elf.needed)}, at most {', '.join(f'{k} {v}' for k, v in limits.items())}{runtime}."
    )


def _offered(elf: Elf, folder: Path) -> set[str]:
    """What torch's libraries export that the library is linked to, and those that they are linked to."""
    offered: set[str] = set()
    todo, done = list(elf.needed), set[str]()
    while todo:
        name = todo.pop()
        if name in done or name == _RUNTIME or not (folder / name).is_file():
            continue
        done.add(name)
        found = read_elf(folder / name)
        offered.update(found.exported)
        todo += found.needed
    return offered


def _compare_runtime(elf: Elf, offered: set[str], folder: Path) -> tuple[str, str]:
    """(what is wrong or "", what to say of the C++ runtime): versions first, then names without one."""
    if _RUNTIME not in elf.needed:
        return "", ""
    path = runtime_library(folder)
    if path is None:
        return "", f"; {_RUNTIME} was not found, so it is left to loading whether it is new enough"
    runtime = read_elf(path)
    asked = {k: v for k, v in sorted(elf.versions.items()) if k in ("GLIBCXX", "CXXABI")}
    for prefix, version in asked.items():
        have = runtime.defined.get(prefix, ())
        if have < version:
            offers = f"at most {prefix}_{dotted(have)}" if have else f"no {prefix}"
            return (
                f"{path} is too old: the library needs {prefix}_{dotted(version)}, it has {offers}."
            ), ""
    known = offered.union(runtime.exported)
    absent = [n for n in elf.undefined if n.startswith("_Z") and n not in known]
    if absent:
        return f"{absent[0]} is neither in this torch nor in {path}, and the library calls it.", ""
    have_text = ", ".join(f"{k} {dotted(runtime.defined[k])}" for k in asked)
    return "", f"; {path} offers {have_text}"


def runtime_library(folder: Path) -> Path | None:
    """The C++ runtime that a library loaded into this Python gets: beside torch, else the loader's choice."""
    if (folder / _RUNTIME).is_file():
        return folder / _RUNTIME
    try:
        ctypes.CDLL(_RUNTIME)
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    paths = (line.split(maxsplit=5)[-1] for line in maps.splitlines())
    return next((Path(p) for p in paths if Path(p).name.startswith(_RUNTIME)), None)


def _torch_libraries() -> Path | None:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "lib"
    return folder if folder.is_dir() else None
