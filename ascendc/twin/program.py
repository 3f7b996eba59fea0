"""A C++ file of AscendC kernels, compiled for the twin and called with arrays and numbers.

from tilewright.ascendc import twin
result = twin.compile("add.cpp").run("add", x, y, z, x.size, blocks=8)
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tilewright.build import compiler, digest
from tilewright.errors import BuildFailed, Unavailable, UsageError, unknown
from tilewright.machine import cache_folder

from . import values
from .cpp_source import Function, Parameter, functions, rewrite_launches
from .runner import Buffer, Call, TwinResult, run

_INCLUDE = Path(__file__).resolve().parents[1] / "include"
# What reads and rewrites a source is part of what it becomes.
_OWN = (Path(__file__).resolve(), Path(__file__).with_name("cpp_source.py").resolve())
# CANN's compiler is a clang, which takes one thing of C++20 in C++17 as well: f<T>(x) with an f that only the
# namespace of x declares. g++ takes it in C++20 alone, so that is tried where C++17 fails.
_STANDARDS = ("-std=c++17", "-std=c++20")
_FLAGS = ("-x", "c++", "-include", "twin/entry.h")
# -O1: what a kernel computes by itself is little, and its author waits for the compiler.
_COMPILE = (
    *("-O1", "-g0", "-fPIC", "-shared", "-ffp-contract=off"),
    *("-fvisibility=hidden", "-fpreprocessed", "-fdirectives-only"),
)


class CompileError(BuildFailed):
    """A source that g++ rejects: one sentence, and ``output`` as the compiler gave it."""

    def __init__(self, sentence: str, output: str) -> None:
        super().__init__(sentence)
        self.output = output


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to call in a compiled file: its number there, how it is written, its parameters."""

    number: int
    name: str
    kernel: bool
    parameters: tuple[Parameter, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})"


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled file. ``functions`` are those it defines, ``entries`` those that can be called."""

    source: Path
    library: Path
    functions: tuple[Function, ...]
    entries: tuple[Entry, ...]
    include: tuple[str, ...] = ()
    define: tuple[str, ...] = ()

    @property
    def kernels(self) -> tuple[Function, ...]:
        return tuple(f for f in self.functions if f.kernel)

    def entry(self, name: str | None, host: bool = False) -> Entry:
        """The kernel (or host function) called ``name``; without a name, the only kernel.

        Raises UsageError, which lists what there is.
        """
        offered = [f for f in self.functions if f.kernel != host]
        what = "host function" if host else "kernel"
        if name is None:
            if len(offered) == 1 and not offered[0].template:
                name = offered[0].name
            elif not offered:
                raise UsageError(f"{self.source} defines no {what}")
            else:
                shown = "".join(f"\n  {f}" for f in offered)
                option = "--host-entry" if host else "--entry"
                raise UsageError(
                    f"{self.source} has several {what}s; choose one with {option}:{shown}"
                )
        for entry in self.entries:
            if entry.kernel != host and name in (entry.name, entry.name.rpartition("::")[2]):
                return entry
        plain = name.partition("<")[0].strip()
        matches = [f for f in offered if plain in (f.name, f.base)]
        if not matches:
            raise unknown(f"{what} in {self.source}:", name, [str(f) for f in offered])
        if matches[0].template and "<" not in name:
            raise UsageError(
                f"{matches[0]} is a template; name its arguments, such as --entry '{plain}<half>'"
            )
        raise KeyError(name)

    def run(
        self,
        entry: str | None = None,
        *arguments: Any,
        blocks: int = 1,
        soc: str = "910b1",
        names: Sequence[str] = (),
        **options: Any,
    ) -> TwinResult:
        """Call the kernel ``entry`` on ``blocks`` blocks.

        Pointers take arrays of numpy, CPU tensors of torch, bytes or None; numbers take ints and
        floats; structs passed by value take bytes. Arrays are the kernel's global memory: what it
        writes is there afterwards. ``names`` (by default those of the parameters) appear in
        findings; ``options`` are those of ``runner.run``, such as ``threads`` and ``trace``.
        Raises UsageError for arguments the kernel does not take.
        """
        return self._call(entry, arguments, False, blocks, soc, names, options)[0]

    def run_host(
        self,
        entry: str | None = None,
        *arguments: Any,
        soc: str = "910b1",
        names: Sequence[str] = (),
        **options: Any,
    ) -> tuple[TwinResult, int]:
        """Call the host function ``entry``, whose ``kernel<<<...>>>(...)`` launch on the twin.

        Also gives the integer it returned, 0 where it returns none. ``main`` may take no arguments.
        """
        return self._call(entry, arguments, True, 1, soc, names, options)

    def _call(
        self,
        name: str | None,
        arguments: Sequence[Any],
        host: bool,
        blocks: int,
        soc: str,
        names: Sequence[str],
        options: dict[str, Any],
    ) -> tuple[TwinResult, int]:
        from tilewright import native

        try:
            entry = self.entry(name, host)
        except KeyError:
            wanted = {e.name: None for e in self.entries} | {str(name): None}
            again = compile(
                self.source, include=self.include, define=self.define, entries=list(wanted)
            )
            return again._call(name, arguments, host, blocks, soc, names, options)
        twin = native.library("twin")
        library = _load(str(twin), str(self.library))
        kept: list[Any] = []
        if host and entry.name == "main" and not arguments and entry.parameters:
            argv = (ctypes.c_char_p * 2)(os.fsencode(self.source), None)
            kept, arguments = [argv], [1, Buffer("argv", ctypes.addressof(argv), 16, argv)]
        bound = values.bind(str(entry), names or _names(entry), self.infos(entry), arguments)
        thunk = values.Thunk(ctypes.cast(bound.addresses, ctypes.c_void_p), 0)
        function = ctypes.cast(getattr(library, f"tw_entry_{entry.number}"), ctypes.c_void_p).value
        call = Call(int(function or 0), ctypes.addressof(thunk), host)
        result = run(twin, entry.name, blocks, bound.buffers, None, soc, call=call, **options)
        del kept
        return result, int(thunk.result)

    def infos(self, entry: Entry) -> list[values.ArgInfo]:
        """Size and kind of each parameter, as the compiler sees them."""
        from tilewright import native

        library = _load(str(native.library("twin")), str(self.library))
        table = (values.ArgInfo * 64)()
        count = getattr(library, f"tw_entry_{entry.number}_args")(table)
        return list(table[:count])


def _names(entry: Entry) -> list[str]:
    return [p.name or f"argument {i}" for i, p in enumerate(entry.parameters)]


@cache
def _load(twin: str, path: str) -> ctypes.CDLL:
    # The kernels' library finds the twin's functions in it.
    ctypes.CDLL(twin, mode=ctypes.RTLD_GLOBAL)
    try:
        return ctypes.CDLL(path, mode=os.RTLD_NOW)
    except OSError as error:
        raise Unavailable(f"cannot load the compiled kernels: {error}") from None


def compile(
    source: str | Path,
    *,
    include: Sequence[str | Path] = (),
    define: Sequence[str] = (),
    entries: Sequence[str] = (),
) -> Program:
    """Compile a C++ file against the AscendC API of the twin; what is unchanged is not compiled again.

    ``include`` are folders of the user's headers, ``define`` macros such as ``N=4``. ``entries``
    names what else to make callable than the kernels: instances of templates (``copy<half>``), host functions.
    Raises CompileError with the compiler's words, Unavailable without a compiler.
    """
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    given = [*(f"-I{i}" for i in include), *(f"-D{d}" for d in define)]
    text = _preprocess(path, [_STANDARDS[0], "-fdirectives-only", *given])
    key = digest(_OWN, words=[text, str(path), *_COMPILE, *_STANDARDS, *entries])
    folder = cache_folder("build", f"twin-{path.stem}-{key}")
    made = folder / "kernels.so"
    if not made.exists():
        _make(path, text, given, folder, entries)
    listed = json.loads((folder / "kernels.json").read_text(encoding="utf-8"))
    return Program(
        path,
        made,
        tuple(_function(f) for f in listed["functions"]),
        tuple(
            Entry(e["number"], e["name"], e["kernel"], _parameters(e)) for e in listed["entries"]
        ),
        tuple(map(str, include)),
        tuple(define),
    )


def _make(
    path: Path, text: str, given: Sequence[str], folder: Path, entries: Sequence[str]
) -> None:
    listing = [_STANDARDS[0], "-DTILEWRIGHT_LIST_KERNELS", *given]
    found = functions(_preprocess(path, listing), [str(_INCLUDE)])
    chosen = _entries(found, entries)
    mixes = {f.base: f.mix for f in found if f.kernel}
    thunks = _thunks(chosen, found)
    try:
        _build(
            path, rewrite_launches(text, mixes)[0] + thunks, _STANDARDS[0], folder, found, chosen
        )
    except CompileError as first:
        try:
            newer = _preprocess(path, [_STANDARDS[1], "-fdirectives-only", *given])
            rewritten = rewrite_launches(newer, mixes)[0]
            _build(path, rewritten + thunks, _STANDARDS[1], folder, found, chosen)
        except CompileError:
            raise first from None


def _preprocess(path: Path, flags: Sequence[str]) -> str:
    command = [compiler(), *_FLAGS, *flags, f"-I{_INCLUDE}", "-E", str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    errors = done.stderr.decode(errors="replace")
    if done.returncode:
        raise CompileError(f"{path} does not compile: {_first(errors)}", errors)
    return done.stdout.decode(errors="surrogateescape")


def _first(output: str) -> str:
    lines = [line for line in output.splitlines() if "error:" in line or "undefined" in line]
    return (lines or output.splitlines() or ["no output"])[0].strip()


def _entries(found: Sequence[Function], wanted: Sequence[str]) -> list[Entry]:
    """What gets a thunk: every kernel that is neither template nor overloaded, and what is asked for."""
    names = [f.name for f in found]
    chosen: list[Entry] = []
    for f in found:
        plain = f.kernel and not f.template and names.count(f.name) == 1
        if plain or any(w in (f.name, f.base) and not f.template for w in wanted):
            chosen.append(Entry(len(chosen), f.name, f.kernel, f.parameters))
            continue
        for name in wanted:
            head, bracket, rest = name.partition("<")
            if bracket and f.template and head.strip() in (f.name, f.base):
                chosen.append(Entry(len(chosen), f"{f.name}<{rest}", f.kernel, f.parameters))
    return chosen


def _thunks(chosen: Sequence[Entry], found: Sequence[Function]) -> str:
    mixes = {f.name: f.mix for f in found}
    text = '\n# 1 "<tilewright>"\n'
    export = 'extern "C" __attribute__((visibility("default")))'
    space = "::tilewright::twin::"
    for entry in chosen:
        cubes, vectors = mixes.get(entry.name.partition("<")[0], (0, 0))
        place = f'{space}Place{{"{entry.name}", 0}}'
        kind = (
            f"twi_task_type({space}MixOf({cubes}, {vectors}), {place}); "
            if cubes or vectors
            else ""
        )
        text += (
            f"{export} void tw_entry_{entry.number}(void* context) {{ {kind}"
            f"auto& t = *static_cast<{space}Thunk*>(context); "
            f"{space}CallWith(&::{entry.name}, t.args, &t.result); }}\n"
            f"{export} int tw_entry_{entry.number}_args({space}ArgInfo* into) "
            f"{{ return {space}Describe(&::{entry.name}, into); }}\n"
        )
    return text


def _build(
    path: Path,
    text: str,
    standard: str,
    folder: Path,
    found: Sequence[Function],
    chosen: Sequence[Entry],
) -> None:
    from tilewright import native

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder.parent) as room:
        unit, made = Path(room) / "unit.ii", Path(room) / "kernels.so"
        unit.write_bytes(text.encode(errors="surrogateescape"))
        colour = ["-fdiagnostics-color=always"] if sys.stderr.isatty() else []
        link = [str(native.library("twin")), "-Wl,-z,defs", "-Wl,--build-id=none"]
        command = [compiler(), standard, *_COMPILE, *colour, str(unit), "-o", str(made), *link]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            errors = done.stderr.decode(errors="replace").replace(str(unit), str(path))
            raise CompileError(f"{path} does not compile: {_first(errors)}", errors)
        listed = {"functions": [asdict(f) for f in found], "entries": [asdict(e) for e in chosen]}
        (Path(room) / "kernels.json").write_text(json.dumps(listed), encoding="utf-8")
        folder.mkdir(exist_ok=True)
        # The library last: where it is, the rest is.
        for name in ("kernels.json", "kernels.so"):
            os.replace(Path(room) / name, folder / name)


def _parameters(data: dict[str, Any]) -> tuple[Parameter, ...]:
    return tuple(Parameter(**p) for p in data["parameters"])


def _function(data: dict[str, Any]) -> Function:
    return Function(**{**data, "parameters": _parameters(data), "mix": tuple(data["mix"])})
