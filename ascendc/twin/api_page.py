"""The state of every documented name of the basic API: read from the headers, from the tests, or refused and why."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tilewright.build import compiler

from .conformance import CONFORMANCE

_HERE = Path(__file__).resolve().parent
_INCLUDE = _HERE.parent / "include"
IMPLEMENTED, REFUSED, MISSING, ABSENT = "implemented", "refused", "missing", "not on 2201"

# An instance of each class template, to look its members up in.
_INSTANCES = {
    "LocalTensor": "LocalTensor<half>",
    "GlobalTensor": "GlobalTensor<half>",
    "TQue": "TQue<TPosition::VECIN, 1>",
    "TQueBind": "TQueBind<TPosition::VECIN, TPosition::VECOUT, 1>",
    "TBuf": "TBuf<TPosition::VECCALC>",
    "TBufPool": "TBufPool<TPosition::VECCALC>",
    "LocalMemAllocator": "LocalMemAllocator<Hardware::UB>",
}

# Why a name that 2201 has is not in the headers: the first pattern that matches.
_REASONS = (
    (r"CubeResGroupHandle|GroupBarrier|KfcWorkspace", "groups of cores stand on adv_api's messages"),
    (r"MmadWithSparse|LoadDataWithSparse", "4:2 sparse matrices are not modelled"),
    (r"LoadImageToLocal|SetAippFunctions", "the image preprocessor is not modelled"),
    (r"SetHF32", "the rounding of HF32 is not public"),
    (r"Layout|Coordinate|TensorTrait", "tensors with traits and layouts are not modelled"),
    (r"ListTensorDesc|TensorDesc", "how lists of tensors lie in memory is the runtime's own affair"),
    (r"(Get|Set)ShapeInfo", "shapes attached to tensors have no effect on a kernel"),
    (r"SpmBuffer", "spilling to a shared buffer is not modelled"),
    (r"BufHandle|EXTERN_IMPL_BUFPOOL", "pools with an allocator of the kernel's own are not modelled"),
    (r"LocalTensor::(Print|ToFile)|GetBaseAddr", "of CANN's own simulator only; printf and DumpTensor print"),
    (r"CtrlSpr|SaturationFlag", "arithmetic is that of the control register's defaults"),
    (r"StoreAtomicConfig", "SetAtomicAdd, SetAtomicMax and SetAtomicMin configure stores"),
    (r"GetProgramCounter", "code of the host has no program counter of a core"),
    (r"InitDetermineComputeWorkspace|NotifyNextBlock|WaitPreBlock", "the order of blocks through a workspace is not modelled"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One documented name. ``detail``: its conformance test, else tests that use it, or why it is refused."""

    name: str
    page: str
    state: str
    detail: str = ""
    now: str = ""  # the name that replaced it


@cache
def _data() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((_HERE / "api_names.json").read_text(encoding="utf-8"))
    return loaded


def advanced() -> list[str]:
    """The functions of adv_api, which are refused."""
    return list(_data()["advanced"])


def _gxx(source: str, *flags: str) -> str:
    command = [compiler(), "-std=c++17", "-x", "c++", f"-I{_INCLUDE}", *flags, "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _probe(name: str, line: int) -> str:
    owner, colons, member = name.partition("::")
    if not colons:
        return f"namespace p{line} {{ using AscendC::{name}; }}"
    if owner not in _INSTANCES and owner != "TPipe":
        return f"namespace p{line} {{ using AscendC::{owner}; }}"
    instance = f"AscendC::{_INSTANCES.get(owner, owner)}"
    instance = re.sub(r"\b(TPosition|Hardware)::", r"AscendC::\1::", instance)
    # A base of a derived class: `using` finds members of every kind, overloads and templates included.
    return f"struct P{line} : {instance} {{ using {instance}::{member}; }};"


def declared(names: Sequence[str]) -> set[str]:
    """Which of the names the headers declare: a line of C++ for each, compiled once; macros are read."""
    head = '#include "kernel_operator.h"\n'
    probes = [_probe(n, i) for i, n in enumerate(names)]
    output = _gxx(head + "\n".join(probes) + "\n", "-fsyntax-only", "-fmax-errors=0", "-w")
    lines = {
        int(m[1]) - 2 for m in re.finditer(r"^<stdin>:(\d+):\d+: error:", output, re.MULTILINE)
    }
    macros = set(re.findall(r"^#define (\w+)", _gxx(head, "-E", "-dM"), re.MULTILINE))
    return {n for i, n in enumerate(names) if i not in lines or n in macros}


def _code(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:[^\"\\\n]|\\.)*\"", " ", text, flags=re.DOTALL)


def tests_of(names: Iterable[str], tests: Path) -> dict[str, list[str]]:
    """The test files whose kernels (``native/*.cpp`` and what these include) use each name."""
    found: dict[str, list[str]] = {}
    sources = {p.name: _code(p) for p in sorted((tests / "native").glob("twin_*.[ch]*"))}
    words = {file: set(re.findall(r"\w+", code)) for file, code in sources.items()}
    raw = {p.name: p.read_text(encoding="utf-8") for p in sorted(tests.glob("test_twin_*.py"))}
    helpers = {
        p.name: p.read_text(encoding="utf-8") for p in sorted((tests / "native").glob("*.py"))
    }
    used: dict[str, set[str]] = {}
    for test, text in raw.items():
        texts = [text, *(t for n, t in helpers.items() if re.search(rf"\b{Path(n).stem}\b", text))]
        kernels = {f for f in sources if f.endswith(".cpp") and any(f in t for t in texts)}
        headers = {
            h for f in kernels for h in sources
            if h.endswith(".h") and f'"{h}"' in (tests / "native" / f).read_text(encoding="utf-8")
        }  # fmt: skip
        used[test] = {w for f in kernels | headers for w in words[f]}
    for name in names:
        word = re.sub(r"\W", "", name.rpartition("::")[2])
        found[name] = [test for test, known in used.items() if word in known]
    return found


def rows(tests: Path | None = None) -> list[Row]:
    """Every documented name with its state; with the folder of the tests, those of each name."""
    listed = _data()["names"]
    here = [e["name"] for e in listed if e["on_2201"]]
    known = declared(here)
    tested = tests_of(known, tests) if tests is not None else {}
    result = []
    for entry in listed:
        name, page, now = entry["name"], entry["pages"][0], entry.get("now", "")
        if name in known:
            result.append(Row(name, page, IMPLEMENTED, _tests(name, tested.get(name, [])), now))
            continue
        if not entry["on_2201"]:
            result.append(Row(name, page, ABSENT, "", now))
            continue
        why = next((why for pattern, why in _REASONS if re.search(pattern, name)), "")
        result.append(Row(name, page, REFUSED if why else MISSING, why, now))
    return result


def _tests(name: str, used: Sequence[str]) -> str:
    test = CONFORMANCE.get(name, "")
    if test:
        return test.removeprefix("tests/").replace(".py", "")
    return f"used by {', '.join(t.removesuffix('.py') for t in used)}" if used else ""


def page(found: Sequence[Row]) -> str:
    """docs/twin-api.md."""
    data = _data()
    counts = {
        state: sum(r.state == state for r in found)
        for state in (IMPLEMENTED, REFUSED, MISSING, ABSENT)
    }
    untested = sum(r.state == IMPLEMENTED and not r.detail for r in found)
    compared = sum(r.name in CONFORMANCE for r in found if r.state == IMPLEMENTED)
    missing = f", {counts[MISSING]} missing" if counts[MISSING] else ""
    lines = [
        "# The basic API on the twin",
        "",
        "Generated by `tilewright twin api --write docs/twin-api.md`; a test holds it to the headers and the tests.",
        f"Names, pages and whether the 910B (architecture 2201) has them: the documentation of `{data['origin']}`",
        f"at {data['commit'][:12]}, `{data['root']}`.",
        "",
        f"{counts[IMPLEMENTED]} are implemented: {compared} have a conformance test of their own, which compares them with an",
        f"independent oracle; {untested} are used by no test. {counts[REFUSED]} are refused{missing}; {counts[ABSENT]} more are not on 2201.",
        "adv_api (Matmul, SoftMax and their like) is refused when a kernel is compiled, by name.",
        "",
    ]
    by_folder: dict[str, list[Row]] = {}
    for row in found:
        if row.state != ABSENT:
            by_folder.setdefault(row.page.rpartition("/")[0], []).append(row)
    for folder, group in by_folder.items():
        lines += [
            f"## {folder or 'API'}",
            "",
            "| name | state | conformance test, or why not |",
            "|---|---|---|",
        ]
        for row in group:
            name = f"`{row.name}` (now `{row.now}`)" if row.now else f"`{row.name}`"
            detail = row.detail or ("no test" if row.state == IMPLEMENTED else "")
            lines.append(f"| {name} | {row.state} | {detail} |")
        lines.append("")
    names = ", ".join(f"`{r.name}`" for r in found if r.state == ABSENT)
    lines += ["## Not on 2201", "", names, ""]
    return "\n".join(lines)
