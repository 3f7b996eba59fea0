"""One dispatch entry of a bundle: what a binary needs to be started, and who may call it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from tilewright import dtypes
from tilewright.errors import UsageError
from tilewright.ship.launcher.grid_cpp import Formula, cpp, evaluate, formula

ArgKind = Literal["tensor", "dim", "stride", "attr", "number", "const", "workspace", "scratch"]
CType = Literal["ptr", "i32", "i64", "fp32"]
Presence = Literal["required", "optional", "absent"]
MAX_DIMS, MAX_NAMED_DIMS, MAX_ARGS = 6, 24, 96  # of abi.h and fit.hpp
_TARGET = re.compile(r"(?:cuda:sm_(\d{2,3})|hip:(gfx[0-9a-f]{3,4}))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class TensorDecl:
    """A tensor of the call in spec order.

    `dims` holds per axis a dim's name, a fixed extent, or None for any extent. `unit_stride` is the
    axis whose stride the kernel takes to be 1, or None; `dense` tensors lie row by row without gaps.
    """

    name: str
    dtype: str
    dims: tuple[str | int | None, ...]
    presence: Presence = "required"
    unit_stride: int | None = None
    dense: bool = False


@dataclass(frozen=True, slots=True)
class Arg:
    """One parameter of the kernel; the binary was specialised for multiples of `divisible`."""

    kind: ArgKind
    name: str = ""
    dim: int = 0
    ctype: CType = "ptr"
    divisible: int = 1
    value: int | float = 0


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """One kernel of an entry: its binary and how to start it."""

    symbol: str
    binary: str
    sha256: str
    num_warps: int
    shared_bytes: int
    args: tuple[Arg, ...]
    grid: tuple[Formula, Formula, Formula]
    global_scratch_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DispatchEntry:
    """A binary and how to start it; README.md beside this file is the schema.

    `then` are kernels that start after it on the same stream; they all share `workspace` bytes.
    """

    id: str
    family: str
    precision: str
    target: str
    symbol: str
    binary: str
    sha256: str
    num_warps: int
    shared_bytes: int
    tensors: tuple[TensorDecl, ...]
    args: tuple[Arg, ...]
    grid: tuple[Formula, Formula, Formula]
    flags: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, int] = field(default_factory=dict)
    when: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    global_scratch_bytes: int = 0
    then: tuple[KernelEntry, ...] = ()
    workspace: Formula = (0,)

    @property
    def kernels(self) -> tuple[KernelEntry, ...]:
        """All of them, in the order in which they start."""
        own = KernelEntry(
            self.symbol,
            self.binary,
            self.sha256,
            self.num_warps,
            self.shared_bytes,
            self.args,
            self.grid,
            self.global_scratch_bytes,
        )
        return (own, *self.then)

    def block_of(self, kernel: KernelEntry) -> int:
        """Threads per block: warps are 32 lanes on cuda and 64 on gfx9."""
        return kernel.num_warps * (32 if self.api == "cuda" else 64)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dims in order of first appearance in `tensors`; absent ones bind none."""
        seen = [
            d for t in self.tensors if t.presence != "absent" for d in t.dims if isinstance(d, str)
        ]
        return tuple(dict.fromkeys(seen))

    @property
    def api(self) -> str:
        """`cuda` or `hip`."""
        return self.target.partition(":")[0]

    @property
    def arch(self) -> str:
        """`sm_90`, `gfx942`, ..."""
        return self.target.partition(":")[2]

    @property
    def block(self) -> int:
        """Threads per block of the first kernel."""
        return self.block_of(self.kernels[0])

    def grid_size(self, dims: Mapping[str, int]) -> tuple[int, int, int]:
        """Blocks in x, y, z for these extents."""
        names = {**self.config, **dims}
        x, y, z = (evaluate(tokens, names) for tokens in self.grid)
        return x, y, z


def read_entries(rows: Iterable[object]) -> tuple[DispatchEntry, ...]:
    """Read the entries of a `dispatch.json`; raises UsageError for the first that breaks a rule."""
    entries = tuple(_entry(row, number) for number, row in enumerate(rows))
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise UsageError(f"dispatch entry id '{entry.id}' is used twice; ids must be unique")
        seen.add(entry.id)
    return entries


class _Row:
    """A JSON object with typed access; `where` names it in errors."""

    def __init__(self, row: object, where: str) -> None:
        if not isinstance(row, dict):
            raise UsageError(f"{where} is {row!r}; an object is needed")
        self.row: dict[str, object] = row
        self.where = where

    def text(self, key: str, default: str | None = None) -> str:
        value = self.row.get(key, default)
        if not isinstance(value, str) or not value:
            raise UsageError(f"{self.where}: {key} is {value!r}; a non-empty string is needed")
        return value

    def integer(
        self, key: str, default: int | None = None, low: int = -(2**63), high: int = 2**63 - 1
    ) -> int:
        value = self.row.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UsageError(
                f"{self.where}: {key} is {value!r}; an integer from {low} to {high} is needed"
            )
        return value

    def sequence(self, key: str) -> list[object]:
        value = self.row.get(key)
        if not isinstance(value, list | tuple):
            raise UsageError(f"{self.where}: {key} is {value!r}; a list is needed")
        return list(value)

    def integers(self, key: str) -> dict[str, int]:
        inner = _Row(self.row.get(key, {}), f"{self.where}: {key}")
        return {name: inner.integer(name) for name in inner.row}

    def only(self, accepted: Iterable[str]) -> None:
        extra = sorted(self.row.keys() - set(accepted))
        if extra:
            names = ", ".join(sorted(accepted))
            raise UsageError(f"{self.where}: unknown field '{extra[0]}'; accepted: {names}")


def _entry(raw: object, number: int) -> DispatchEntry:
    row = _Row(raw, f"dispatch entry {number}")
    family, precision, target = row.text("family"), row.text("precision"), row.text("target")
    flags = row.integers("flags")
    suffix = "".join(f".{name}={value}" for name, value in flags.items())
    name = row.text("id", f"{family}.{precision}.{target.replace(':', '-')}{suffix}")
    row.where = f"dispatch entry '{name}'"
    if not _TARGET.fullmatch(target):
        raise UsageError(f"{row.where}: target '{target}'; accepted: cuda:sm_<cc>, hip:gfx<id>")
    tensors = tuple(_tensor(item, row.where) for item in row.sequence("tensors"))
    kernel = _kernel(row)
    entry = DispatchEntry(
        id=name,
        family=family,
        precision=precision,
        target=target,
        symbol=kernel.symbol,
        binary=kernel.binary,
        sha256=kernel.sha256,
        num_warps=kernel.num_warps,
        shared_bytes=kernel.shared_bytes,
        tensors=tensors,
        args=kernel.args,
        grid=kernel.grid,
        flags=flags,
        config=row.integers("config"),
        when=_ranges(row),
        global_scratch_bytes=kernel.global_scratch_bytes,
        then=tuple(
            _kernel(_Row(item, f"{row.where}: then"))
            for item in (row.sequence("then") if "then" in row.row else [])
        ),
        workspace=_formula(row.row.get("workspace", 0), f"{row.where}: workspace"),
    )
    _check(entry, row.where)
    return entry


def _kernel(row: _Row) -> KernelEntry:
    grid = [_formula(item, row.where) for item in row.sequence("grid")]
    if len(grid) != 3:
        raise UsageError(f"{row.where}: grid has {len(grid)} expressions; 3 are needed")
    sha256 = row.text("sha256")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UsageError(f"{row.where}: sha256 is '{sha256}'; 64 lower-case hex digits are needed")
    binary = row.text("binary")
    if binary.startswith("/") or ".." in binary.split("/"):
        raise UsageError(f"{row.where}: binary '{binary}' must be a path inside the bundle")
    return KernelEntry(
        symbol=row.text("symbol"),
        binary=binary,
        sha256=sha256,
        num_warps=row.integer("num_warps", low=1, high=32),
        shared_bytes=row.integer("shared_bytes", low=0, high=2**20),
        args=tuple(_arg(item, row.where) for item in row.sequence("args")),
        grid=(grid[0], grid[1], grid[2]),
        global_scratch_bytes=row.integer("global_scratch_bytes", 0, low=0, high=2**31),
    )


def _formula(raw: object, where: str) -> Formula:
    if isinstance(raw, str):
        return formula(raw)
    tokens = tuple(raw) if isinstance(raw, list | tuple) else (raw,)
    kept = tuple(t for t in tokens if isinstance(t, str | int) and not isinstance(t, bool))
    if not tokens or len(kept) != len(tokens):
        raise UsageError(
            f"{where}: grid {raw!r}; a formula, an integer or a list of postfix tokens is needed"
        )
    return kept


def _tensor(raw: object, where: str) -> TensorDecl:
    row = _Row(raw, f"{where}: tensor")
    row.only(("name", "dtype", "dims", "presence", "unit_stride", "dense"))
    name, dims = row.text("name"), row.sequence("dims")
    row.where = f"{where}: tensor '{name}'"
    presence = row.text("presence", "required")
    if presence not in get_args(Presence):
        accepted = ", ".join(get_args(Presence))
        raise UsageError(f"{row.where}: presence '{presence}'; accepted: {accepted}")
    if len(dims) > MAX_DIMS:
        raise UsageError(f"{row.where}: {len(dims)} dims; at most {MAX_DIMS}")
    for dim in dims:
        named = isinstance(dim, str) and _NAME.fullmatch(dim)
        fixed = isinstance(dim, int) and not isinstance(dim, bool) and dim >= 0
        if not (dim is None or named or fixed):
            raise UsageError(f"{row.where}: dim {dim!r}; a name, an extent >= 0 or null is needed")
    unit = row.row.get("unit_stride")
    axis = (
        None
        if unit is None
        else row.integer("unit_stride", low=-len(dims), high=len(dims) - 1) % len(dims)
    )
    kept = tuple(d for d in dims if d is None or isinstance(d, str | int))
    dense = row.row.get("dense", False)
    if not isinstance(dense, bool):
        raise UsageError(f"{row.where}: dense is {dense!r}; true or false is needed")
    dtype = dtypes.dtype(row.text("dtype")).name
    return TensorDecl(name, dtype, kept, _presence(presence), axis, dense)


def _presence(text: str) -> Presence:
    return "optional" if text == "optional" else "absent" if text == "absent" else "required"


_ARG_FIELDS: dict[str, tuple[tuple[str, ...], tuple[CType, ...]]] = {
    "tensor": (("name", "divisible"), ("ptr",)),
    "dim": (("name", "divisible"), ("i32", "i64")),
    "stride": (("tensor", "dim", "divisible"), ("i32", "i64")),
    "attr": (("name",), ("i32", "i64", "fp32")),
    "number": (("name",), ("i32", "i64", "fp32")),
    "const": (("value",), ("i32", "i64", "fp32")),
    "workspace": (("divisible",), ("ptr",)),
    "scratch": ((), ("ptr",)),
}


def _arg(raw: object, where: str) -> Arg:
    row = _Row(raw, f"{where}: arg")
    kind = row.text("kind")
    if kind not in _ARG_FIELDS:
        raise UsageError(f"{where}: arg kind '{kind}'; accepted: {', '.join(_ARG_FIELDS)}")
    fields, ctypes = _ARG_FIELDS[kind]
    row.where = f"{where}: {kind} arg"
    row.only(("kind", "ctype", *fields))
    ctype = row.text("ctype", "ptr" if ctypes == ("ptr",) else None)
    found = next((c for c in ctypes if c == ctype), None)
    if found is None:
        raise UsageError(f"{row.where}: ctype '{ctype}'; accepted: {', '.join(ctypes)}")
    divisible = row.integer("divisible", 1, low=1, high=4096)
    value: int | float = 0
    if kind == "const":
        given = row.row.get("value")
        if found == "fp32" and isinstance(given, int | float):
            value = float(given)
        else:
            value = row.integer(
                "value",
                low=-(2**31) if found == "i32" else -(2**63),
                high=2**31 - 1 if found == "i32" else 2**63 - 1,
            )
    name = row.text("tensor") if kind == "stride" else row.text("name") if "name" in fields else ""
    axis = row.integer("dim", low=0, high=MAX_DIMS - 1) if kind == "stride" else 0
    return Arg(_kind(kind), name, axis, found, divisible, value)


def _kind(text: str) -> ArgKind:
    return next(kind for kind in get_args(ArgKind) if kind == text)


def _ranges(row: _Row) -> dict[str, tuple[int | None, int | None]]:
    inner = _Row(row.row.get("when", {}), f"{row.where}: when")
    ranges: dict[str, tuple[int | None, int | None]] = {}
    for name in inner.row:
        ends = inner.sequence(name)
        if len(ends) != 2:
            raise UsageError(
                f"{inner.where} {name}: {ends!r}; [low, high] is needed, null for an open end"
            )
        pair = _Row({"low": ends[0], "high": ends[1]}, f"{inner.where} {name}")
        low, high = (
            None if pair.row[key] is None else pair.integer(key) for key in ("low", "high")
        )
        ranges[name] = (low, high)
    return ranges


def _check(entry: DispatchEntry, where: str) -> None:
    tensors = {tensor.name: tensor for tensor in entry.tensors}
    if len(tensors) != len(entry.tensors):
        raise UsageError(f"{where}: two tensors have the same name")
    for kernel in entry.kernels:
        _check_kernel(entry, kernel, tensors, where)
    for name in entry.when:
        if name not in entry.dims:
            raise UsageError(f"{where}: when names dim '{name}'; declared: {', '.join(entry.dims)}")
    if len(entry.dims) > MAX_NAMED_DIMS:
        raise UsageError(f"{where}: at most {MAX_NAMED_DIMS} named dims")
    cpp(entry.workspace, entry.dims, entry.config)


def _check_kernel(
    entry: DispatchEntry, kernel: KernelEntry, tensors: Mapping[str, TensorDecl], where: str
) -> None:
    for arg in kernel.args:
        if arg.kind in ("tensor", "stride") and arg.name not in tensors:
            raise UsageError(
                f"{where}: arg names tensor '{arg.name}'; declared: {', '.join(tensors)}"
            )
        if arg.kind == "stride" and arg.dim >= len(tensors[arg.name].dims):
            raise UsageError(
                f"{where}: '{arg.name}' has {len(tensors[arg.name].dims)} dims, no dim {arg.dim}"
            )
        if arg.kind == "dim" and arg.name not in entry.dims:
            raise UsageError(
                f"{where}: arg names dim '{arg.name}'; declared: {', '.join(entry.dims)}"
            )
    if any(arg.kind == "scratch" for arg in kernel.args[:-1]):
        raise UsageError(
            f"{where}: 'scratch' must be the last arg: Triton appends its hidden pointers"
        )
    if kernel.global_scratch_bytes and (not kernel.args or kernel.args[-1].kind != "scratch"):
        raise UsageError(f"{where}: global_scratch_bytes needs a last arg of kind 'scratch'")
    if len(kernel.args) > MAX_ARGS:
        raise UsageError(f"{where}: at most {MAX_ARGS} args")
    for tokens in kernel.grid:
        cpp(tokens, entry.dims, entry.config)
