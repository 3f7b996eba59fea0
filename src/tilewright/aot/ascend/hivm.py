"""What planned HIVM says: peaks of the on-chip memories, synchronisation, operations by kind.

HIVM is the IR of ascendnpu-ir. After its last pass every buffer has its address, every hardware
flag stands in the code, and operations are calls of library functions whose declarations say which
kind of core they are for. One operation is one line of MLIR's pretty form.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tilewright.errors import BuildFailed

MEMORIES: Mapping[str, str] = MappingProxyType(
    {"ub": "UB", "cbuf": "L1", "cc": "L0C", "ca": "L0A", "cb": "L0B"}
)
"""Address spaces of HIVM to the names that people use; `gm` is memory off the chip."""

INLINE_ASSEMBLY = "llvm.inline_asm"

_FUNCTION = re.compile(r"^\s*func\.func\s+(?:\w+\s+)?@([\w$.-]+)(.*)$")
_CONSTANT = re.compile(r"(%[\w$.-]+) = arith\.constant (-?\d+) : (?:i64|i32|index)\b")
_BUFFER = re.compile(r"hivm\.hir\.pointer_cast\(([^)]*)\)(.*)$")
_MEMREF = re.compile(r"memref<((?:[\d?]+x)*)(\w+),(?P<layout>.*)#hivm\.address_space<(\w+)>>")
_STRIDES = re.compile(r"strided<\[([^\]]*)\]")
_CALL = re.compile(r"\bcall @([\w$.-]+)\(")
_HIR = re.compile(r"\bhivm\.hir\.(\w+)")
_SCALAR = re.compile(r"\b(memref\.(?:load|store)|llvm\.inline_asm)\b")
_CORE = re.compile(r"hivm\.func_core_type<(AIC|AIV|MIX)>")
_CORES = MappingProxyType({"AIC": "cube", "AIV": "vector", "MIX": "mix"})

# Library functions and operations by the start of their name; any other is a vector operation if it
# is declared for vector cores.
_KINDS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "scalar": re.compile(r"memref\."),
        "other": re.compile(r"print|assert|init_debug|finish_debug|sync_block|free_lock"),
        "cube": re.compile(r"mma|matmul|mmad|batch_mm"),
        "copy": re.compile(r"load|store|copy|nd2nz|nz2nd|fixpipe|set_l1|atomic"),
        "vector": re.compile(r"v[a-z]|reduce|enablevc|broadcast|gather|sort|transpose|interleave"),
    }
)
# Operations of the dialect that neither compute nor move anything.
_SILENT = re.compile(
    r"(?:pointer_cast|bitcast|get_\w+|set_mask\w*|set_ffts\w*|set_ctrl|pipe_barrier|sync_block\w*|.*_flag)$"
)
_FLOATS = MappingProxyType({"bf16": 16, "tf32": 32, "index": 64})


@dataclass(frozen=True, slots=True)
class Plan:
    """What one module plans. Counts are of the code, not of what a run executes.

    `peaks` is the highest planned byte per memory of MEMORIES, `workspace_bytes` global memory per
    block for what cube and vector cores hand each other. `sync_flags` are set_flag and wait_flag
    within a core, `block_syncs` flags between cores, `barriers` pipe_barrier. `scalar_ops` are loads
    and stores of single elements by the scalar unit. `operations` has every operation by name; `unplaced` counts buffers whose address or size is not a constant.
    """

    cores: str
    peaks: Mapping[str, int]
    workspace_bytes: int
    sync_flags: int
    barriers: int
    block_syncs: int
    cube_ops: int
    vector_ops: int
    copy_ops: int
    scalar_ops: int
    other_ops: int
    operations: Mapping[str, int]
    unplaced: int = 0


def read_plan(text: str) -> Plan:
    """Read a module of planned HIVM; raises BuildFailed if it is none."""
    declared = _declared_cores(text)
    cores, workspace, unplaced = set(), 0, 0
    peaks, dialect, operations = Counter[str](), Counter[str](), Counter[str]()
    for name, header, body in _functions(text):
        if name.endswith("infer_workspace_shape_function"):
            workspace = _returned_constant(body)
        if "hacc.function_kind<HOST>" in header:
            continue
        cores.add(_core(name, header))
        for space, top in _buffers(body):
            if top is None:
                unplaced += 1
            elif space in MEMORIES:
                peaks[space] = max(peaks[space], top)
        for line in body:
            dialect.update(_HIR.findall(line))
            operations.update(_CALL.findall(line) or _SCALAR.findall(line))
    if not cores:
        raise BuildFailed("the Ascend compiler wrote a module without a device function")
    operations.update({n: k for n, k in dialect.items() if not _SILENT.match(n)})
    kinds = Counter[str]()
    for name, times in operations.items():
        kinds[_kind(name, declared.get(name, ""))] += times
    return Plan(
        cores=cores.pop() if len(cores) == 1 else "mix",
        peaks=dict(peaks),
        workspace_bytes=workspace,
        sync_flags=dialect["set_flag"] + dialect["wait_flag"],
        barriers=dialect["pipe_barrier"],
        block_syncs=dialect["sync_block_set"] + dialect["sync_block_wait"],
        cube_ops=kinds["cube"],
        vector_ops=kinds["vector"],
        copy_ops=kinds["copy"],
        scalar_ops=kinds["scalar"],
        other_ops=kinds["other"],
        operations=dict(sorted(operations.items())),
        unplaced=unplaced,
    )


def _functions(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Name, header and body lines of each function that has a body."""
    name, header, body, end = "", "", list[str](), ""
    for line in text.splitlines():
        if found := _FUNCTION.match(line):
            if not line.rstrip().endswith("{"):
                continue
            name, header, body = found[1], found[2], []
            end = line[: len(line) - len(line.lstrip())] + "}"
        elif name and line.rstrip() == end:
            yield name, header, body
            name = ""
        elif name:
            body.append(line)


def _declared_cores(text: str) -> dict[str, str]:
    """Library function to `cube` or `vector`, from the declarations."""
    found = {}
    for line in text.splitlines():
        match = _FUNCTION.match(line)
        core = _CORE.search(line) if match else None
        if match and core and not line.rstrip().endswith("{"):
            found[match[1]] = _CORES[core[1]]
    return found


def _core(name: str, header: str) -> str:
    core = _CORE.search(header)
    if core is not None:
        return _CORES[core[1]]
    return {"_mix_aic": "cube", "_mix_aiv": "vector"}.get(name[-8:], "mix")


def _kind(name: str, core: str) -> str:
    for kind, pattern in _KINDS.items():
        if pattern.match(name):
            return kind
    return "vector" if core == "vector" else "other"


def _buffers(body: list[str]) -> Iterator[tuple[str, int | None]]:
    """Address space and first byte after each buffer; None where the plan does not say."""
    constants: dict[str, int] = {}
    for line in body:
        if found := _CONSTANT.search(line):
            constants[found[1]] = int(found[2])
        elif cast := _BUFFER.search(line):
            memref = _MEMREF.search(cast[2])
            if memref is None:
                yield "", None
                continue
            size = _bytes(memref)
            for address in (part.strip() for part in cast[1].split(",")):
                known = size is not None and address in constants
                yield memref[4], constants[address] + size if known and size is not None else None


def _bytes(memref: re.Match[str]) -> int | None:
    """Size of a buffer in bytes, i1 packed eight to a byte; None for a size known at run time."""
    sizes, element = memref[1].split("x")[:-1], memref[2]
    bits = _FLOATS.get(element) or int(re.sub(r"\D.*", "", element.lstrip("fsui")) or 0)
    if not bits or "?" in sizes:
        return None
    count = 1
    for size in sizes:
        count *= int(size)
    if (found := _STRIDES.search(memref["layout"])) and count:
        strides = [part.strip() for part in found[1].split(",")]
        if "?" in strides:
            return None
        count = 1 + sum((int(n) - 1) * int(s) for n, s in zip(sizes, strides, strict=True))
    return (count * bits + 7) // 8


def _returned_constant(body: list[str]) -> int:
    constants: dict[str, int] = {}
    for line in body:
        words = line.split()
        if found := _CONSTANT.search(line):
            constants[found[1]] = int(found[2])
        elif words[:1] == ["return"] and len(words) > 1:
            return constants.get(words[1], 0)
    return 0
