"""Run a kernel on the twin from Python, through its C interface (``twin.h``) and ctypes alone."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tilewright.errors import TilewrightError

from ..soc import SOCS

ABI_VERSION = 2
SKIP_DATA, APPEND_TRACE, AUTO_SYNC, NO_HAZARDS = 1, 2, 4, 8
SCHEDULES = ("program", "timeline", "random")
# What a kernel that does not say runs on; the values of the C interface's task_type.
TASK_TYPES = MappingProxyType({"auto": 0, "aic": 1, "aiv": 2, "mix11": 5, "mix12": 6})
_BUFFER, _SCALAR, _FLOAT = 0, 1, 2


# What a result's `cycles` are; `tilewright model` shares the memory between the cores.
CYCLES_ARE = "modelled: the longest core, as if it had L2 and HBM to itself"

Counts = MappingProxyType[str, MappingProxyType[str, int]]


class TwinError(TilewrightError):
    """The twin could not run the launch at all; the message says why."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Buffer:
    """A GM argument: ``nbytes`` at host ``address`` (0 for none); ``owner`` keeps them alive."""

    name: str
    address: int
    nbytes: int
    owner: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, name: str, array: Any) -> Buffer:
        """A buffer over an array of numpy or a CPU tensor of torch.

        Raises TwinError for one whose elements do not lie one after the other.
        """
        if array is None:
            return cls(name, 0, 0)
        if hasattr(array, "data_ptr"):
            dense, address = array.is_contiguous(), array.data_ptr()
        else:
            dense, address = array.flags.c_contiguous, array.__array_interface__["data"][0]
        if not dense:
            raise TwinError(
                f"'{name}' is a view with gaps between its elements; a buffer takes none"
            )
        return cls(name, int(address), int(array.nbytes), array)

    @classmethod
    def of_bytes(cls, name: str, data: bytes) -> Buffer:
        """A buffer over a private copy of ``data``."""
        copy = ctypes.create_string_buffer(data, max(len(data), 1))
        return cls(name, ctypes.addressof(copy), len(data), copy)

    @classmethod
    def unbacked(cls, name: str, nbytes: int) -> Buffer:
        """Addresses only, ``nbytes`` of them; for runs that skip data."""
        return cls(name, 0, nbytes)


@dataclass(frozen=True, slots=True)
class Scalar:
    """An argument passed by value: an integer, or a float where ``is_float``."""

    name: str
    value: int | float
    is_float: bool = False


@dataclass(frozen=True, slots=True)
class How:
    """How launches run that do not say: what ``run`` calls ``schedule``, ``seed``, ``auto_sync``, ``hazards``."""

    schedule: str = "program"
    seed: int = 0
    auto_sync: bool = False
    hazards: bool = True


_AS_WRITTEN = How()
_how: ContextVar[How] = ContextVar("how the twin runs", default=_AS_WRITTEN)


@contextmanager
def running(how: How) -> Iterator[None]:
    """Launches within run like this; a family's adapter need not know of it."""
    token = _how.set(how)
    try:
        yield
    finally:
        _how.reset(token)


@dataclass(frozen=True, slots=True)
class Call:
    """A kernel given as ``function(context)`` instead of by name; a ``host`` function launches kernels itself."""

    function: int
    context: int
    host: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What the twin found at one line of a kernel. Ranges: bytes in ``memory``, end exclusive.

    Where two accesses or calls are concerned, ``other_*`` is the earlier one and ``missing`` the flag or
    barrier that would order them. ``core`` is aic or aiv in a mixed kernel, else empty.
    """

    kind: str
    message: str
    file: str
    line: int
    block: int
    pipe: str
    memory: str
    range: tuple[int, int]
    allowed: tuple[int, int]
    count: int
    core: str = ""
    missing: str = ""
    other_file: str = ""
    other_line: int = 0
    other_pipe: str = ""

    def __str__(self) -> str:
        times = f" ({self.count} times)" if self.count > 1 else ""
        core = f" {self.core}" if self.core else ""
        where = f"block {self.block}{core}, pipe {self.pipe}"
        return f"{self.file}:{self.line}: {self.kind}: {self.message} [{where}]{times}"


@dataclass(frozen=True, slots=True)
class TwinResult:
    """One launch: ``ok`` if nothing was found, ``peak`` in bytes, ``counts`` by pipe, then op.

    ``bytes_written`` by pipe, then memory. ``unchecked_gm``: accesses to global memory beyond those in
    which races were looked for (``gm_accesses`` of ``run``). ``cycles``: see ``CYCLES_ARE``.
    """

    ok: bool
    findings: tuple[Finding, ...]
    peak: MappingProxyType[str, int]
    counts: MappingProxyType[str, MappingProxyType[str, int]]
    bytes_written: MappingProxyType[str, MappingProxyType[str, int]]
    macs: int
    soc: str
    blocks: int
    cores: int = 0
    kind: str = ""
    inserted_syncs: int = 0
    unchecked_gm: int = 0
    cycles: int = 0
    printed: tuple[str, ...] = ()

    def count(self, op: str, pipe: str | None = None) -> int:
        """Instructions ``op`` issued on ``pipe`` (all pipes by default), over all blocks."""
        return sum(ops.get(op, 0) for name, ops in self.counts.items() if pipe in (None, name))


class _Arg(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("kind", ctypes.c_int32),
    ]


class _Launch(ctypes.Structure):
    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("library", ctypes.c_char_p),
        ("kernel", ctypes.c_char_p),
        ("soc", ctypes.c_char_p),
        ("args", ctypes.POINTER(_Arg)),
        ("arg_count", ctypes.c_uint32),
        ("block_dim", ctypes.c_uint32),
        ("threads", ctypes.c_int32),
        ("max_findings", ctypes.c_uint32),
        ("trace_path", ctypes.c_char_p),
        ("schedule", ctypes.c_char_p),
        ("seed", ctypes.c_uint64),
        ("task_type", ctypes.c_uint32),
        ("gm_accesses", ctypes.c_uint64),
        ("result", ctypes.POINTER(ctypes.c_void_p)),
    ]


@cache
def _load(path: str) -> ctypes.CDLL:
    lib = ctypes.CDLL(path)
    lib.tw_twin_run.argtypes = [ctypes.POINTER(_Launch)]
    lib.tw_twin_error.restype = ctypes.c_char_p
    for name in ("tw_twin_run_call", "tw_twin_run_host"):
        getattr(lib, name).argtypes = [ctypes.POINTER(_Launch), ctypes.c_void_p, ctypes.c_void_p]
    lib.tw_twin_host_json.restype = ctypes.c_char_p
    lib.tw_twin_host_error.restype = ctypes.c_char_p
    lib.tw_twin_result_json.argtypes = [ctypes.c_void_p]
    lib.tw_twin_result_json.restype = ctypes.c_char_p
    lib.tw_twin_result_free.argtypes = [ctypes.c_void_p]
    lib.tw_twin_soc_json.argtypes = [ctypes.c_char_p]
    lib.tw_twin_soc_json.restype = ctypes.c_char_p
    return lib


def _arg(arg: Buffer | Scalar) -> _Arg:
    if isinstance(arg, Buffer):
        return _Arg(arg.name.encode(), arg.address or None, arg.nbytes, 0, _BUFFER)
    if arg.is_float:
        bits = int.from_bytes(bytes(ctypes.c_float(float(arg.value))), "little")
        return _Arg(arg.name.encode(), None, 0, bits, _FLOAT)
    return _Arg(arg.name.encode(), None, 0, int(arg.value) & (2**64 - 1), _SCALAR)


def soc_parameters(lib_path: str | Path, soc: str) -> dict[str, Any]:
    """The twin's parameters of ``soc``: cores, ``clock_mhz``, ``bytes`` per memory.

    Raises TwinError for an unknown one.
    """
    text = _load(str(lib_path)).tw_twin_soc_json(soc.encode())
    if text is None:
        raise TwinError(f"unknown soc '{soc}', known are {', '.join(SOCS)}")
    parameters: dict[str, Any] = json.loads(text)
    return parameters


def run(
    lib_path: str | Path,
    kernel: str,
    block_dim: int,
    buffers: Sequence[Buffer | Scalar],
    tiling_bytes: bytes | None = None,
    soc: str = "910b1",
    *,
    threads: int = 0,
    skip_data: bool = False,
    trace: str | Path | None = None,
    append_trace: bool = False,
    max_findings: int = 0,
    kernel_library: str | Path | None = None,
    schedule: str | None = None,
    seed: int | None = None,
    auto_sync: bool | None = None,
    hazards: bool | None = None,
    task_type: str = "auto",
    gm_accesses: int = 0,
    call: Call | None = None,
) -> TwinResult:
    """Launch ``kernel`` on ``block_dim`` blocks of the twin in ``lib_path``; what happened.

    ``buffers`` are the kernel's arguments in order; ``tiling_bytes``, if any, comes last.
    ``kernel_library`` names another shared object to take the kernel from. ``threads`` 0 uses all
    of the host's. ``skip_data`` checks and counts without moving data. ``trace`` receives one JSON
    object a line and instruction; a launch starts the file anew unless ``append_trace``.
    ``schedule``: when instructions take effect, within what the kernel's synchronisation allows:
    ``program``, ``timeline`` (simulated time) or ``random`` (adversarial, from ``seed``).
    ``auto_sync`` inserts what CANN's compiler does by default; ``hazards`` off does not look for
    races. ``task_type`` says which cores a kernel runs on that does not say so itself.
    With ``call`` the kernel is that call, and ``kernel`` only what it is called.
    Raises TwinError where the launch is refused (unknown kernel or soc, bad arguments).
    """
    lib = _load(str(lib_path))
    usual = _how.get()
    how = How(
        usual.schedule if schedule is None else schedule,
        usual.seed if seed is None else seed,
        usual.auto_sync if auto_sync is None else auto_sync,
        usual.hazards if hazards is None else hazards,
    )
    args = list(buffers)
    if tiling_bytes is not None:
        args.append(Buffer.of_bytes("tiling", tiling_bytes))
    table = (_Arg * max(len(args), 1))(*[_arg(a) for a in args])
    handle = ctypes.c_void_p()
    launch = _Launch(
        abi_version=ABI_VERSION,
        flags=sum(
            flag
            for flag, on in (
                (SKIP_DATA, skip_data),
                (APPEND_TRACE, append_trace),
                (AUTO_SYNC, how.auto_sync),
                (NO_HAZARDS, not how.hazards),
            )
            if on
        ),
        library=str(kernel_library).encode() if kernel_library is not None else None,
        kernel=kernel.encode(),
        soc=soc.encode(),
        args=table,
        arg_count=len(args),
        block_dim=block_dim,
        threads=threads,
        max_findings=max_findings,
        trace_path=str(trace).encode() if trace is not None else None,
        schedule=how.schedule.encode(),
        seed=how.seed,
        task_type=TASK_TYPES[task_type],
        gm_accesses=gm_accesses,
        result=ctypes.pointer(handle),
    )
    if call is not None and call.host:
        if lib.tw_twin_run_host(ctypes.byref(launch), call.function, call.context) == 2:
            raise TwinError(lib.tw_twin_host_error().decode())
        documents = json.loads(lib.tw_twin_host_json())
        return merged([_result(d) for d in documents]) if documents else empty_result(soc)
    if call is not None:
        code = lib.tw_twin_run_call(ctypes.byref(launch), call.function, call.context)
    else:
        code = lib.tw_twin_run(ctypes.byref(launch))
    if code == 2:
        raise TwinError(lib.tw_twin_error().decode())
    try:
        return _result(json.loads(lib.tw_twin_result_json(handle)))
    finally:
        lib.tw_twin_result_free(handle)


def unchecked_text(accesses: int) -> str:
    """What a result's ``unchecked_gm`` means, as a sentence."""
    return (
        f"races in global memory were not looked for in {accesses} accesses, more than the twin "
        "keeps; a smaller shape has them all"
    )


def empty_result(soc: str) -> TwinResult:
    """The result of a case that needed no launch."""
    none: MappingProxyType[str, Any] = MappingProxyType({})
    peak = MappingProxyType({m: 0 for m in ("l1", "l0a", "l0b", "l0c", "ub", "bt", "fb")})
    return TwinResult(True, (), peak, none, none, 0, soc, 0)


def _sum(tables: Sequence[Counts]) -> Counts:
    total: dict[str, dict[str, int]] = {}
    for table in tables:
        for pipe, row in table.items():
            into = total.setdefault(pipe, {})
            for name, value in row.items():
                into[name] = into.get(name, 0) + value
    return _nested(total)


def merged(results: Sequence[TwinResult]) -> TwinResult:
    """Several launches as one: findings of all of them, counts and blocks added, the highest peaks."""
    memories = results[0].peak
    return replace(
        results[-1],
        ok=all(r.ok for r in results),
        findings=tuple(dict.fromkeys(f for r in results for f in r.findings)),
        peak=MappingProxyType({m: max(r.peak[m] for r in results) for m in memories}),
        counts=_sum([r.counts for r in results]),
        bytes_written=_sum([r.bytes_written for r in results]),
        macs=sum(r.macs for r in results),
        blocks=sum(r.blocks for r in results),
        cores=sum(r.cores for r in results),
        inserted_syncs=sum(r.inserted_syncs for r in results),
        unchecked_gm=sum(r.unchecked_gm for r in results),
        cycles=sum(r.cycles for r in results),
        printed=tuple(text for r in results for text in r.printed),
    )


def _nested(table: dict[str, dict[str, int]]) -> MappingProxyType[str, MappingProxyType[str, int]]:
    return MappingProxyType({key: MappingProxyType(row) for key, row in table.items()})


def _result(document: dict[str, Any]) -> TwinResult:
    findings = tuple(
        Finding(**{**f, "range": tuple(f["range"]), "allowed": tuple(f["allowed"])})
        for f in document["findings"]
    )
    return TwinResult(
        ok=document["ok"],
        findings=findings,
        peak=MappingProxyType(document["peak"]),
        counts=_nested(document["counts"]),
        bytes_written=_nested(document["bytes_written"]),
        macs=document["macs"],
        soc=document["soc"],
        blocks=document["blocks"],
        cores=document["cores"],
        kind=document["kind"],
        inserted_syncs=document["inserted_syncs"],
        unchecked_gm=document["unchecked_gm"],
        cycles=document["cycles"],
        printed=tuple(document["printed"]),
    )
