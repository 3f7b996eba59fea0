"""What `tilewright compile` shows people: a table for binaries, one for planned HIVM, a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tilewright.aot import CompiledKernel
from tilewright.aot.ascend import NO_BINARY, LoweredKernel
from tilewright.cli.output import table

MOST_ROWS, MOST_ERRORS = 200, 5


def show(rows: Sequence[CompiledKernel | LoweredKernel]) -> None:
    """Both tables, each if it has a row."""
    binaries = [r for r in rows if isinstance(r, CompiledKernel)]
    plans = [r for r in rows if isinstance(r, LoweredKernel)]
    if binaries:
        _show_binaries(binaries)
    if plans:
        _show_plans(plans)


def verdict(rows: Sequence[CompiledKernel | LoweredKernel]) -> Iterator[str]:
    """The first failures with their reasons, then how many of how many are good."""
    bad = [r for r in rows if not r.ok]
    for row in bad[:MOST_ERRORS]:
        what = "cannot launch" if isinstance(row, CompiledKernel) else "not planned"
        yield f"{what}: {row.target} {row.precision} {dict(row.config)}: {row.error}"
    if len(bad) > MOST_ERRORS:
        yield f"and {len(bad) - MOST_ERRORS} more; --json has every reason"
    plans = [r for r in rows if isinstance(r, LoweredKernel)]
    for note in dict.fromkeys(f"{r.target}: {n}" for r in plans for n in r.notes):
        yield f"note: {note}"
    if plans:
        good = sum(r.ok for r in plans)
        yield f"{good} of {len(plans)} configs planned by {plans[0].toolchain}; {NO_BINARY}"
    binaries = [r for r in rows if isinstance(r, CompiledKernel)]
    if binaries or not plans:
        good = sum(r.ok for r in binaries)
        yield f"{good} of {len(binaries)} binaries can launch; all figures compiled, none measured"
    else:
        yield "all figures compiled, none measured"


def _show_binaries(rows: list[CompiledKernel]) -> None:
    """An op's further kernels stand below its first one."""
    _table(
        ("kernel", "launches", "regs", "spill B", "shared B", "matrix", "async", "occupancy"),
        [kernel for row in rows for kernel in (row, *row.then)],
        lambda r: (
            *(r.kernel_symbol, "yes" if r.ok else "no", r.regs, r.spill_bytes, r.shared_bytes),
            *(_counted(r.matrix_instructions), _counted(r.async_copies), f"{r.occupancy:.2f}"),
        ),
        "compiled",
    )


def _show_plans(rows: list[LoweredKernel]) -> None:
    """As for binaries."""
    fits = {True: "yes", False: "no"}
    _table(
        ("kernel", "fits", "cores", "L1 B", "L0C B", "UB B", "flags", "barriers")
        + ("cross-core", "cube", "vector", "copies", "scalar", "workspace B"),
        [kernel for row in rows for kernel in (row, *row.then)],
        lambda r: (
            *(r.symbol, fits[r.ok], r.cores, r.l1_bytes, r.l0c_bytes, r.ub_bytes),
            *(r.sync_flags, r.barriers),
            *(r.block_syncs, r.cube_ops, r.vector_ops, r.copy_ops, r.scalar_ops, r.workspace_bytes),
        ),
        "compiled to planned HIVM",
    )


def _table(columns: tuple[str, ...], rows: list[Any], cells: Any, title: str) -> None:
    more = f" (first {MOST_ROWS} of {len(rows)})" if len(rows) > MOST_ROWS else ""
    table(
        ("target", "dtype", "config", *columns),
        [
            (r.target, r.precision, " ".join(f"{k}={v}" for k, v in r.config.items()), *cells(r))
            for r in rows[:MOST_ROWS]
        ],
        title=title + more,
    )


def _counted(values: Mapping[str, int]) -> str:
    return " ".join(f"{k} {v}" for k, v in values.items() if v)
