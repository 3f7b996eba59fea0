"""Static metrics of a compiled kernel, from a cubin's resource usage and SASS or AMD assembly."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.errors import Unavailable

if TYPE_CHECKING:
    from tilewright.targets import Target

# Matrix instructions by SASS name: warp (sm_80), warp-group (sm_90), tensor-memory (sm_100).
_SASS_MATRIX = re.compile(r"(?:[HIDQBO]MMA|[HIQ]GMMA|UTC[HIQO]MMA|OMMA)$")
# Copies to shared memory that do not wait: cp.async, bulk and tensor (TMA) transfers.
_SASS_ASYNC = re.compile(r"(?:LDGSTS|UBLKCP|UTMALDG|UTMASTG|UTMAREDG|UTCCP)$")
_SASS_LINE = re.compile(
    r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE
)
_AMD_MATRIX = re.compile(r"^\s+(v_s?mfmac?_\w+)", re.MULTILINE)
_AMD_ASYNC = re.compile(
    r"^\s+((?:global|buffer)_load_lds_\w+|buffer_load_\w+(?=.*\blds\b))", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a binary takes and holds.

    `regs` per thread (AMD: VGPR and AccVGPR of a lane together), `spill_bytes` of stack per thread
    (these kernels have no other stack), `shared_bytes` per block, `tmem_columns` per block
    (sm_100), and how many of each matrix and asynchronous-copy instruction the code contains (not
    executes).
    """

    regs: int
    spill_bytes: int
    shared_bytes: int
    matrix_instructions: Mapping[str, int]
    async_copies: Mapping[str, int]
    tmem_columns: int = 0


def read_metrics(
    target: Target, binary: bytes, assembly: str, shared_bytes: int, tmem_columns: int = 0
) -> Metrics:
    """Metrics of a cubin or an hsaco for `target`.

    `assembly` is AMD's text, unused for cuda; `shared_bytes` is the dynamic shared memory the
    compiler asks for. Raises Unavailable if a tool of the triton wheel is missing or fails.
    """
    if target.kind == "hip":
        return _read_amd(assembly, shared_bytes)
    with tempfile.TemporaryDirectory(prefix="tilewright-aot-") as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(binary)
        usage = _tool("cuobjdump", "--dump-resource-usage", str(cubin))
        sass = _tool("nvdisasm", "-c", str(cubin))
    found = dict(re.findall(r"\b(REG|STACK|SHARED):(\d+)", usage))
    if "REG" not in found:
        raise Unavailable(f"cuobjdump printed no register count: {usage.strip()[:120]}")
    return Metrics(
        regs=int(found["REG"]),
        spill_bytes=int(found.get("STACK", 0)),
        shared_bytes=shared_bytes + _static_shared(int(found.get("SHARED", 0)), target),
        matrix_instructions=count(_SASS_LINE.findall(sass), _SASS_MATRIX),
        async_copies=count(_SASS_LINE.findall(sass), _SASS_ASYNC),
        tmem_columns=tmem_columns,
    )


def count(names: Iterable[str], wanted: re.Pattern[str]) -> dict[str, int]:
    """How often each name that matches occurs, in alphabetical order."""
    return dict(sorted(Counter(name for name in names if wanted.match(name)).items()))


def _static_shared(reported: int, target: Target) -> int:
    # From sm_90 on the report includes what the system keeps for itself per block (seen in cuobjdump's output).
    includes = int(target.arch.removeprefix("sm_")) >= 90
    return max(0, reported - target.limit("shared_reserved")) if includes else reported


def _read_amd(text: str, shared_bytes: int) -> Metrics:
    def field(name: str) -> int:
        found = re.search(rf"^\s*\.{name}:\s*(\d+)", text, re.MULTILINE)
        return int(found.group(1)) if found else 0

    return Metrics(
        # On gfx90a and later .vgpr_count is the unified total, accumulation registers included.
        regs=field("vgpr_count"),
        spill_bytes=field("private_segment_fixed_size"),
        shared_bytes=max(shared_bytes, field("group_segment_fixed_size")),
        matrix_instructions=count(_AMD_MATRIX.findall(text), re.compile("")),
        async_copies=count(_AMD_ASYNC.findall(text), re.compile("")),
    )


def _tool(name: str, *args: str) -> str:
    from triton import knobs

    path = getattr(knobs.nvidia, name).path
    try:
        done = subprocess.run([path, *args], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise Unavailable(
            f"{name} is missing at {path}; the triton wheel carries it, reinstall triton"
        ) from None
    except subprocess.CalledProcessError as error:
        raise Unavailable(
            f"{name} failed on the binary: {(error.stderr or '').strip()[:200]}"
        ) from None
    return done.stdout
