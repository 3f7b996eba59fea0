"""tilewright twin run FILE.cpp: a kernel file of anybody's, compiled, run and checked."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tilewright.cli.output import emit, number, quiet, say, table

if TYPE_CHECKING:
    from tilewright.ascendc.twin.arguments import Argument
    from tilewright.ascendc.twin.expect import Expectation
    from tilewright.ascendc.twin.program import Program
    from tilewright.ascendc.twin.runner import TwinResult
    from tilewright.numerics import Comparison

SUFFIXES = (".cpp", ".cc", ".cxx", ".asc", ".cce", ".c", ".h", ".hpp")
# An output rounds once, and what led to it a few times more.
_ROUNDINGS = 4


@dataclass(frozen=True, slots=True)
class Request:
    """What the options of the command say about a file."""

    file: Path
    entry: str | None = None
    host_entry: str | None = None
    arguments: str = ""
    blocks: int = 1
    seed: int = 0
    target: str = "ascend:910b1"
    include: Sequence[Path] = ()
    define: Sequence[str] = ()
    expect: Sequence[str] = ()
    tolerance: float | None = None
    save: Path | None = None
    launch: Mapping[str, Any] = field(default_factory=dict)  # options of runner.run


def looks_like_file(what: str) -> bool:
    """Whether the command's argument is a source and no family."""
    return what.endswith(SUFFIXES)


def run_file(request: Request, json: str | None) -> None:
    """Compile, run, check and report; raises typer.Exit(1) for findings or a wrong output."""
    from tilewright.ascendc.twin import diagnostics, expect
    from tilewright.ascendc.twin.program import CompileError, compile
    from tilewright.ascendc.twin.runner import CYCLES_ARE, unchecked_text
    from tilewright.document import plain
    from tilewright.errors import UsageError

    if request.entry is not None and request.host_entry is not None:
        raise UsageError(
            "--entry calls a kernel and --host-entry a host function; give one of them"
        )
    if request.blocks < 1:
        raise UsageError(f"--blocks is {request.blocks}; a launch has at least one block")
    wanted = [expect.parse(text) for text in request.expect]
    names = [n for n in (request.entry, request.host_entry) if n is not None]
    host = request.host_entry is not None
    try:
        program = compile(
            request.file,
            include=request.include,
            define=request.define,
            entries=[n for n in names if host or "<" in n],
        )
    except CompileError as error:
        print(error.output, end="", file=sys.stderr)
        raise
    result, code, arguments, called = _launch(program, request, quiet(json))
    verdicts = _compare(wanted, arguments, request.tolerance)
    reason = _reason(result, code, called, verdicts, arguments)
    worst = max((c for _, c in verdicts), key=lambda c: (not c.ok, c.rel_err), default=None)
    if request.save is not None:
        _save(request.save, arguments)
    locate = diagnostics.locate_in()
    findings = [
        {**plain(asdict(f)), "text": diagnostics.render(f, locate)} for f in result.findings
    ]
    row = {
        "file": str(request.file),
        "entry": called,
        "target": request.target,
        "seed": request.seed,
        "schedule": request.launch.get("schedule", "program"),
        "auto_sync": request.launch.get("auto_sync", False),
        "state": "twin",
        "evidence": "modelled",
        "ok": not reason,
        "rel_err": None if worst is None else worst.rel_err,
        "tolerance": None if worst is None else worst.tolerance,
        "findings": len(result.findings),
        "peak": dict(result.peak),
        "instructions": plain(result.counts),
        "blocks": result.blocks,
        "inserted_syncs": result.inserted_syncs,
        "unchecked_gm": result.unchecked_gm,
        "cycles": result.cycles,
        "cycles_evidence": CYCLES_ARE,
        "reason": reason,
    }
    emit(json, "twin", [row], findings=findings, interrupted=False)
    if result.printed:
        say("".join(result.printed).rstrip("\n"), json)
    _show(row, arguments, json)
    if findings:
        say(diagnostics.render_all(result.findings, locate), json)
    for expectation, verdict in verdicts:
        word = "as expected" if verdict.ok else f"NOT as expected: {verdict.reason}"
        numbers = f"relative error {number(verdict.rel_err)}, allowed {number(verdict.tolerance)}"
        say(f"{expectation.text}: {word} ({numbers})", json)
    if reason:
        say(f"FAILED {called}: {reason}", json)
        raise typer.Exit(1)
    advice = "" if verdicts else "; --expect 'OUTPUT=EXPRESSION' also checks the values"
    say(f"{result.cycles} cycles {CYCLES_ARE}", json)
    if result.unchecked_gm:
        say(unchecked_text(result.unchecked_gm), json)
    say(f"ok {called}: {result.blocks} blocks, no findings, seed {request.seed}{advice}", json)


def _launch(
    program: Program, request: Request, silent: bool
) -> tuple[TwinResult, int, list[Argument], str]:
    from tilewright.ascendc.twin import arguments as language

    host = request.host_entry is not None
    entry = program.entry(request.host_entry if host else request.entry, host)
    found = language.parse(request.arguments, request.seed)
    given: list[Any] = []
    if found or not (host and entry.name == "main"):
        given = language.fit(found, entry.parameters, program.infos(entry), str(entry))
    names = [a.name for a in found]
    soc = request.target.removeprefix("ascend:")
    options = dict(request.launch)
    code = 0
    with _stdout_to_stderr(silent):
        if host:
            result, code = program.run_host(entry.name, *given, soc=soc, names=names, **options)
        else:
            result = program.run(
                entry.name, *given, blocks=request.blocks, soc=soc, names=names, **options
            )
    return result, code, found, entry.name


def _compare(
    wanted: Sequence[Expectation], arguments: Sequence[Argument], tolerance: float | None
) -> list[tuple[Expectation, Comparison]]:
    import numpy as np

    from tilewright.errors import unknown

    if not wanted:
        return []
    import torch

    from tilewright import dtypes
    from tilewright.numerics import compare

    arrays = {a.name: a for a in arguments if a.is_array}
    known: dict[str, Any] = {a.name: a.before for a in arguments if a.before is not None}
    known |= {a.name: np.asarray(a.value)[()] for a in arguments if a.role == "scalar"}
    results = []
    for expectation in wanted:
        if expectation.name not in arrays:
            raise unknown("array to --expect:", expectation.name, list(arrays))
        argument = arrays[expectation.name]
        value = expectation.value(known).astype(np.float64)
        shape = argument.value.shape
        if value.size == argument.value.size:
            value = value.reshape(shape)
        else:
            value = _broadcast(value, shape, expectation)
        dtype = dtypes.ALL.get(argument.dtype)
        roundoff = dtype.unit_roundoff if dtype is not None else 0.0
        got = (
            torch.from_numpy(argument.value.view("uint16")).view(torch.bfloat16)
            if (argument.dtype == "bf16")
            else torch.from_numpy(argument.value)
        )
        limit = _ROUNDINGS * roundoff if tolerance is None else tolerance
        results.append((expectation, compare(got, torch.from_numpy(value.copy()), limit)))
    return results


def _broadcast(value: Any, shape: tuple[int, ...], expectation: Expectation) -> Any:
    import numpy as np

    from tilewright.errors import UsageError

    try:
        return np.broadcast_to(value, shape)
    except ValueError:
        raise UsageError(
            f"--expect {expectation.text} has the shape {list(value.shape)} and "
            f"{expectation.name} {list(shape)}"
        ) from None


def _reason(
    result: TwinResult,
    code: int,
    called: str,
    verdicts: Sequence[tuple[Expectation, Comparison]],
    arguments: Sequence[Argument],
) -> str:
    """Why the run is not good, or nothing."""
    if result.findings:
        count = len(result.findings)
        return f"{count} finding{'s' if count > 1 else ''}"
    for expectation, verdict in verdicts:
        if not verdict.ok:
            return f"{expectation.name}: {verdict.reason}"
    if code:
        return f"{called} returned {code}"
    if not result.blocks:
        return f"{called} launched no kernel"
    for argument in arguments:
        if argument.role == "output" and argument.value.size and not _written(argument):
            return f"the kernel wrote nothing to {argument.name}"
    return ""


def _written(argument: Argument) -> int:
    """Elements of an output that no longer hold the bytes it was filled with."""
    import numpy as np

    raw = argument.value.reshape(-1).view(np.uint8).reshape(argument.value.size, -1)
    return int((raw != 0xFF).any(axis=1).sum())


def _save(folder: Path, arguments: Sequence[Argument]) -> None:
    """Outputs, and inputs that the kernel changed, as .npy; bf16 as float32, which holds it exactly."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    for argument in arguments:
        if not argument.is_array or argument.role == "workspace":
            continue
        if argument.role == "input" and np.array_equal(
            argument.numbers(), argument.before, equal_nan=argument.before.dtype.kind == "f"
        ):
            continue
        array = argument.value
        if argument.dtype == "bf16":
            array = argument.numbers().astype(np.float32)
        np.save(folder / f"{argument.name}.npy", array)


def _show(row: Mapping[str, Any], arguments: Sequence[Argument], json: str | None) -> None:
    peak = row["peak"]
    table(
        ("entry", "ok", "rel_err", "findings", "blocks", "UB B", "L1 B", "L0A B", "L0B B", "L0C B"),
        [
            (
                row["entry"],
                "yes" if row["ok"] else "no",
                number(row["rel_err"]),
                row["findings"],
                row["blocks"],
                *(str(peak.get(m, "-")) for m in ("ub", "l1", "l0a", "l0b", "l0c")),
            )
        ],
        json=json,
    )
    for argument in arguments:
        if argument.role != "output" or not argument.value.size:
            continue
        numbers = argument.numbers().reshape(-1)
        first = ", ".join(f"{v:.6g}" for v in numbers[:6])
        left = argument.value.size - _written(argument)
        note = f"; {left} elements not written" if left else ""
        shape = ",".join(map(str, argument.value.shape))
        more = ", ..." if numbers.size > 6 else ""
        say(f"{argument.name}:{argument.dtype}[{shape}] = {first}{more}{note}", json)


@contextmanager
def _stdout_to_stderr(redirect: bool) -> Iterator[None]:
    """What kernels and host code print must not stand inside a JSON document on standard output."""
    if not redirect:
        sys.stdout.flush()
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(saved, 1)
        os.close(saved)
