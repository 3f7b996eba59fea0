"""The corpus: good kernels in tests/corpus, and the faults planted into them.

A line ``//! EDIT NAME ...: EXPECTED`` says what a mutant called NAME does to the next line of code:
``drop`` it, ``swap`` it with the line of code after it, ``replace `A` `B``` in it, or ``insert `A```
before it. The same NAME in several places is one mutant with several edits. EXPECTED lists what the
twin must report, and nothing else: ``kind@label``, the label being ``// @label`` on a line (without
one: this line), for races followed by ``<label`` of the earlier access and by what is missing: a
HardEvent (``MTE2_V``), a barrier (``PIPE_V``), order between cores (``CORES``) or the cleaning of the
scalar unit's cache (``DATA_CACHE``). A line ``//!`` without an EDIT continues the one before.
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import twin_build

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
CLEAN = "clean"
ACROSS = "CrossCoreSetFlag/CrossCoreWaitFlag or SyncAll"
_GROUP = 100  # mutants in one translation unit

_DIRECTIVE_START = re.compile(r"\s*//! (drop|swap|replace|insert) \w+")
_DIRECTIVE = re.compile(r"\s*//! (drop|swap|replace|insert) (\w+)((?: `[^`]*`)*)(?:: (.*))?$")
_EXPECTED = re.compile(r"([\w-]+)(?:@(\w+))?(?:<(\w+) (\w+))?$")


@dataclass(frozen=True, slots=True)
class Expected:
    """A finding that must be there; ``other_line`` and ``missing`` are of two accesses."""

    kind: str
    line: int
    other_line: int = 0
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    verb: str
    line: int  # of the code it applies to, from 0
    text: tuple[str, ...]
    expected: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One kernel of the corpus, with a planted fault or (``clean``) without."""

    kernel: str
    name: str
    edits: tuple[Edit, ...] = ()

    @property
    def symbol(self) -> str:
        return f"{self.kernel}__{self.name}"

    @property
    def source(self) -> Path:
        return CORPUS / f"{self.kernel}.cpp"

    @property
    def file(self) -> str:
        return f"tests/corpus/{self.kernel}.cpp"

    def lines(self) -> list[str]:
        """The kernel's text with the edits made; lines keep their numbers."""
        lines = self.source.read_text(encoding="utf-8").splitlines()
        for edit in self.edits:
            self._apply(lines, edit)
        return lines

    def _apply(self, lines: list[str], edit: Edit) -> None:
        at, where = edit.line, f"{self.file}:{edit.line + 1}"
        if edit.verb == "drop":
            lines[at] = ""
        elif edit.verb == "swap":
            other = next(i for i in range(at + 1, len(lines)) if _is_code(lines[i]))
            lines[at], lines[other] = lines[other], lines[at]
        elif edit.verb == "insert":
            lines[at] = edit.text[0] + lines[at]
        else:
            assert lines[at].count(edit.text[0]) == 1, f"{where}: {edit.text[0]} is not there once"
            lines[at] = lines[at].replace(*edit.text)

    def expected(self) -> set[Expected]:
        """What must be found, by the labels of the text as edited."""
        labels: dict[str, int] = {}
        for number, line in enumerate(self.lines(), start=1):
            comment = line.partition("// ")[2]
            for label in re.findall(r"@(\w+)", comment):
                assert label not in labels, f"{self.file}: two lines are called {label}"
                labels[label] = number
        found = set()
        for edit in self.edits:
            for item in filter(None, edit.expected.split(", ")):
                match = _EXPECTED.match(item)
                assert match, f"{self.file}: what is '{item}'?"
                kind, label, other, missing = match.groups()
                line = labels[label] if label else edit.line + 1
                found.add(
                    Expected(
                        kind, line, labels[other] if other else 0, _sync(missing) if missing else ""
                    )
                )
        return found


def _is_code(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith("//")


def _sync(name: str) -> str:
    if name == "CORES":
        return ACROSS
    if name == "DATA_CACHE":
        return "DataCacheCleanAndInvalid"
    return f"PipeBarrier<{name}>" if name.startswith("PIPE_") else f"HardEvent::{name}"


@cache
def kernels() -> tuple[str, ...]:
    return tuple(sorted(p.stem for p in CORPUS.glob("*.cpp")))


@cache
def mutants(kernel: str) -> tuple[Mutant, ...]:
    """The faults planted into ``kernel``, in the order of the file."""
    edits: dict[str, list[Edit]] = {}
    waiting: list[str] = []
    for number, line in enumerate((CORPUS / f"{kernel}.cpp").read_text().splitlines()):
        if line.strip().startswith("//! ") and not _DIRECTIVE_START.match(line):
            waiting[-1] += " " + line.strip()[4:].strip()
        elif line.strip().startswith("//!"):
            waiting.append(line)
        elif _is_code(line):
            for text in waiting:
                match = _DIRECTIVE.match(text)
                assert match, f"{kernel}.cpp: what is '{text.strip()}'?"
                verb, name, texts, expected = match.groups()
                edits.setdefault(name, []).append(
                    Edit(verb, number, tuple(re.findall(r"`([^`]*)`", texts)), expected or "")
                )
            waiting = []
    made = tuple(Mutant(kernel, name, tuple(all_)) for name, all_ in edits.items())
    for mutant in made:
        assert mutant.expected(), f"{mutant.symbol} expects nothing"
    return made


def _unit(group: tuple[Mutant, ...]) -> str:
    parts = ['#include "kernel_operator.h"']
    for mutant in group:
        body = "\n".join("" if x.startswith("#include") else x for x in mutant.lines())
        body = re.sub(rf"\b{mutant.kernel}\(", f"{mutant.symbol}(", body)
        parts.append(f'namespace of_{mutant.symbol} {{\n#line 1 "{mutant.file}"\n{body}\n}}')
    return "\n".join(parts) + "\n"


def _groups() -> list[tuple[Mutant, ...]]:
    everything = [m for k in kernels() for m in (Mutant(k, CLEAN), *mutants(k))]
    return [tuple(everything[i : i + _GROUP]) for i in range(0, len(everything), _GROUP)]


@cache
def libraries() -> dict[str, Path]:
    """The shared object of every symbol, compiled once for each state of the sources."""
    twin_build.twin()
    groups = _groups()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        paths = list(pool.map(_compiled, map(_unit, groups)))
    return {m.symbol: path for group, path in zip(groups, paths, strict=True) for m in group}


def _compiled(text: str) -> Path:
    digest = hashlib.sha256((text + twin_build.headers_digest()).encode()).hexdigest()[:16]
    out = twin_build.cache_folder() / f"corpus-{digest}.so"
    if not out.exists():
        source = out.with_suffix(f".{os.getpid()}.cpp")
        source.write_text(text, encoding="utf-8")
        twin_build.compile_kernels(source, out, "-O0", "-w")
        source.unlink()
    return out
