"""What this machine can do: processor, measured ceilings, devices, toolchains, versions."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright import __version__
from tilewright.errors import TilewrightError, Unavailable
from tilewright.machine import (
    LEVELS,
    cache_folder,
    cpu_flags,
    data_folder,
    host,
    usable_cores,
    usable_levels,
)
from tilewright.perf.machine_state import DISTURBED

if TYPE_CHECKING:
    from tilewright.perf.ceilings import Ceilings


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of doctor. `ok` None means: neither good nor bad, only absent here; `hint` says what would help."""

    name: str
    value: str | float
    unit: str = ""
    ok: bool | None = True
    hint: str = ""
    evidence: str = ""


_VERSIONS = (
    "torch",
    "triton",
    "optuna",
    "numpy",
    "typer",
    "rich",
    "jinja2",
    "pybind11",
    "kernels",
    "safetensors",
)


def findings(
    measure: bool = True, refresh: bool = False, report: Callable[[str], None] | None = None
) -> Iterator[Finding]:
    """Everything, in the order it is shown. Ceilings are kept per machine; `refresh` measures them again."""
    yield from _processor()
    if measure:
        yield from _ceilings(refresh, report)
    yield from _native()
    yield from _tools()
    yield from _devices()
    yield from _ascend()
    yield from _versions()


def _processor() -> Iterator[Finding]:
    here = host()
    yield Finding("cpu", here.cpu)
    yield Finding("cores", usable_cores(), "threads")
    yield Finding("os", here.os)
    yield Finding("fingerprint", here.fingerprint, hint="keys ceilings and tuned cpu configs")
    usable_here = usable_levels()
    yield Finding(
        "isa", here.isa, hint="set by TILEWRIGHT_ISA" if "TILEWRIGHT_ISA" in os.environ else ""
    )
    for level in LEVELS:
        usable = level in usable_here
        yield Finding(
            f"isa {level}",
            "yes" if usable else "no",
            ok=True if usable else None,
            hint=""
            if usable
            else "this processor lacks it; its kernels are compiled but cannot run here",
        )
    if "avx512" not in usable_here and "avx512f" in cpu_flags():
        yield Finding(
            "avx512 parts",
            "avx512f without VNNI and BF16",
            ok=None,
            hint="the avx512 kernels need both",
        )


def _ceilings(refresh: bool, report: Callable[[str], None] | None) -> Iterator[Finding]:
    from tilewright.perf import ceilings

    try:
        found = ceilings.get(refresh, report)
    except Unavailable as error:
        yield Finding("ceilings", "not measured", ok=False, hint=str(error))
        return
    yield from ceiling_findings(found)


def ceiling_findings(found: Ceilings) -> Iterator[Finding]:
    """Bandwidth per cache level, peaks per operand type, for one and all threads."""
    names = [level.name for level in found.levels]
    if found.disturbed is not None and found.disturbed >= DISTURBED:
        yield Finding(
            "ceilings disturbed by",
            round(100 * found.disturbed),
            "%",
            ok=None,
            hint="others used the machine: `tilewright doctor --refresh` when it is quiet keeps the best",
        )
    for level in found.levels:
        shared = level is found.levels[-1] and len(found.levels) > 1
        yield Finding(
            f"{level.name} size",
            level.bytes // 1024,
            "KiB",
            hint="shared" if shared else "per core",
        )
    for threads in sorted(found.read):
        for write in (False, True):
            for name in [*names, "DRAM"]:
                yield Finding(
                    f"{name} {'write' if write else 'read'}, {_threads(threads)}",
                    round(found.level_bandwidth(name, threads, write), 1),
                    "GB/s",
                    evidence="measured",
                )
    for kind, by_threads in found.peak.items():
        for threads, value in sorted(by_threads.items()):
            unit = "GOP/s" if kind == "int8" else "GFLOP/s"
            yield Finding(
                f"{kind} peak, {_threads(threads)}", round(value, 1), unit, evidence="measured"
            )


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _native() -> Iterator[Finding]:
    from tilewright import native

    missing = native.why_missing()
    if missing:
        yield Finding("native module", "absent", ok=False, hint=missing)
    else:
        yield Finding("native module", "present")


def _tools() -> Iterator[Finding]:
    for name, need, hint in (
        ("g++", True, "apt install g++"),
        ("cmake", True, "pip install cmake, or apt install cmake"),
        ("ninja", False, "pip install ninja; make is used without it"),
        ("make", False, "apt install make"),
        ("clang-format", False, "pip install clang-format; only `make lint` needs it"),
        ("git", False, "apt install git"),
    ):
        path = _which(name)
        if path is None:
            yield Finding(name, "absent", ok=False if need else None, hint=hint)
        else:
            yield Finding(name, _version_line(path))
    triton = importlib.util.find_spec("triton")
    if triton is None or not triton.submodule_search_locations:
        yield Finding("triton compiler", "absent", ok=None, hint="pip install triton==3.8.0")
        return
    tools = Path(next(iter(triton.submodule_search_locations))) / "backends" / "nvidia" / "bin"
    for target, tool in (
        ("cuda:sm_80", "ptxas"),
        ("cuda:sm_90", "ptxas"),
        ("cuda:sm_100", "ptxas-blackwell"),
    ):
        there = (tools / tool).is_file()
        yield Finding(
            f"compile {target}",
            "yes" if there else "no",
            ok=there,
            hint="binaries are compiled and read here, and run where the device is"
            if there
            else f"{tools / tool} is missing",
        )
    amd = (tools.parents[1] / "amd").is_dir()
    yield Finding(
        "compile hip:gfx942",
        "yes" if amd else "no",
        ok=amd,
        hint="" if amd else "triton has no amd backend",
    )


def _which(name: str) -> str | None:
    """On PATH, or beside this Python: a virtual environment that is not activated still has its tools."""
    import sys

    beside = Path(sys.executable).parent / name
    return shutil.which(name) or (str(beside) if beside.is_file() else None)


def _version_line(path: str) -> str:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not start: {error}"
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else "no version"


def _devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            kind, arch = "cuda", f"sm_{found.major}{found.minor}"
            if torch.version.hip:
                # `gfx942:sramecc+:xnack-`: the architecture, then features of this device.
                kind, arch = "hip", str(found.gcnArchName).partition(":")[0]
            yield Finding(f"{kind} device {index}", str(found.name), arch)
        return
    for kind, library in (("cuda", "cuda"), ("hip", "amdhip64")):
        driver = find_library(library)
        hint = (
            "a driver is installed, but this torch build is without it"
            if driver
            else "kernels for it are interpreted and compiled here, not run"
        )
        yield Finding(f"{kind} device", "none", ok=None, hint=hint)


def _ascend() -> Iterator[Finding]:
    from tilewright import native

    twin = "twin" in native.library_paths()
    yield Finding(
        "ascend twin",
        "present" if twin else "absent",
        ok=twin,
        hint="AscendC kernels run on a model of the 910B" if twin else "run `make setup`",
    )
    yield from _toolchains()
    home = os.environ.get("ASCEND_HOME_PATH") or os.environ.get("ASCEND_TOOLKIT_HOME")
    cann = home is not None and Path(home).is_dir()
    yield Finding(
        "CANN",
        str(home) if cann else "absent",
        ok=True if cann else None,
        hint=""
        if cann
        else "ASCEND_HOME_PATH is not set to a CANN toolkit; NPU builds are not made here",
    )
    yield _torch_npu(cann)


def _toolchains() -> Iterator[Finding]:
    from tilewright import toolchains

    for one in toolchains.TOOLCHAINS.values():
        missing = toolchains.why_missing(one)
        yield Finding(
            f"{one.name} toolchain",
            "absent" if missing else one.versions,
            ok=None if missing else True,
            hint=f"{missing}; {one.summary}" if missing else one.summary,
        )


def _torch_npu(cann: bool) -> Finding:
    """Looked at on disk first: importing it without CANN can break torch in this process."""
    if importlib.util.find_spec("torch_npu") is None:
        return Finding(
            "torch_npu",
            "absent",
            ok=None,
            hint="pip install torch-npu==2.13.0 on a machine with an NPU",
        )
    version = importlib.metadata.version("torch_npu")
    if not cann or not any(Path("/dev").glob("davinci*")):
        return Finding(
            "torch_npu",
            version,
            ok=None,
            hint="installed, but there is no CANN or no NPU: not imported",
        )
    import sys

    probe = "import torch, torch_npu; print(torch.npu.device_count(), torch.npu.get_device_name(0))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("torch_npu", version, ok=False, hint="did not answer within 60 s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding("torch_npu", version, ok=False, hint=f"fails to import: {last}")
    return Finding("torch_npu", f"{version}: {done.stdout.strip()}")


def _versions() -> Iterator[Finding]:
    yield Finding("tilewright", __version__)
    yield Finding("python", host().python)
    for name in _VERSIONS:
        try:
            yield Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "absent", ok=None, hint=f"pip install {name}")
    yield Finding("cache folder", str(cache_folder()))
    yield Finding("data folder", str(data_folder()))
    from tilewright.registry import families

    try:
        yield Finding("families", ", ".join(families()))
    except TilewrightError as error:
        yield Finding("families", "not readable", ok=False, hint=str(error))
