"""Reads the names of the documented API, and where architecture 2201 has them, out of asc-devkit's documentation.

    python -m tilewright.ascendc.twin.api_names CHECKOUT.git > ascendc/twin/api_names.json

Facts only: names, the page of each, and whether the page says that the 910B supports it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ORIGIN = "github:mirror-cann/asc-devkit"
ROOT = "docs/zh/api/SIMD-API"
CHANGES = "docs/zh/api/附录/接口变更说明.md"
# Methods that a kernel's author writes, and pages about running on CANN's own simulator.
SKIPPED = ("资源管理/自定义TBufPool/", "调试接口/CPU孪生调试/")
BASIC, ADVANCED = f"{ROOT}/基础API", f"{ROOT}/高阶API"
# Classes whose pages stand in a folder of their name.
CLASSES = {
    *("LocalTensor", "GlobalTensor", "TPipe", "TQue", "TQueBind", "TBuf", "TBufPool", "TensorDesc"),
    *("ListTensorDesc", "LocalMemAllocator", "TensorTrait", "Coordinate", "Layout", "ShapeInfo"),
    *("CubeResGroupHandle", "GroupBarrier", "KfcWorkspace", "TSCM", "RegTensor", "MaskReg"),
}
# Pages of advanced functions that are called by themselves; the others are methods of Matmul and its like.
FUNCTIONS = (
    *(
        "激活函数",
        "数学计算",
        "归一化操作",
        "量化操作",
        "归约操作",
        "排序操作",
        "张量变换",
        "数据过滤",
    ),
    *("索引计算", "随机函数", "其他"),
)
_HOST_SIDE = re.compile(r"Get\w*(Size|Info)$|\w*TilingFunc$|GetSort\w+$")
_KEYWORDS = {"if", "for", "while", "return", "sizeof", "static_assert", "decltype", "defined"}


def _git(repository: Path, *words: str) -> str:
    command = ["git", "--git-dir", str(repository), "-c", "core.quotepath=off", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _section(page: str, title: str) -> str:
    found = re.search(rf"^## {title}.*?$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def supported(page: str) -> bool | None:
    """What a page says of the 910B (Atlas A2); None where it says nothing."""
    lines = [line for line in page.splitlines() if line.lstrip().startswith("- Atlas A2 ")]
    return None if not lines else "不支持" not in lines[0]


def _without_templates(code: str) -> str:
    out: list[str] = []
    depth, i = 0, 0
    while i < len(code):
        c = code[i]
        if c == "<" and re.search(r"\btemplate\s*$", "".join(out)[-12:]):
            depth = 1
            i += 1
            while i < len(code) and depth:
                depth += (code[i] == "<") - (code[i] == ">" and code[i - 1] != "-")
                i += 1
            continue
        out.append(c)
        i += 1
    return "".join(out)


def prototypes(page: str) -> Iterator[str]:
    """Names declared or defined as functions and macros in a page's prototypes."""
    for block in re.findall(r"```\w*\n(.*?)```", _section(page, "函数原型"), re.DOTALL):
        code = _without_templates(re.sub(r"//[^\n]*|/\*.*?\*/", " ", block, flags=re.DOTALL))
        depth = 0
        for token in re.finditer(r"[(){}]|\b[A-Za-z_]\w*(?=\s*\()", code):
            if token[0] in "({":
                depth += 1
            elif token[0] in ")}":
                depth -= 1
            elif depth == 0 and token[0] not in _KEYWORDS and not token[0].startswith("__"):
                before = code[: token.start()].rstrip()
                if not before.endswith(("~", "operator", ":")) or before.endswith("::"):
                    yield token[0]


def _names(page: str, path: str) -> list[str]:
    folder = next((p for p in reversed(path.split("/")[:-1]) if p in CLASSES), None)
    title = re.match(r"#\s+([^<\n（(]*)", page.replace("\\", "").replace("构造函数", ""))
    names = list(dict.fromkeys(prototypes(page)))
    if title and title[1].startswith("operator"):
        names = ["operator()" if "(" in path else "operator[]"]
    if not names and title and re.fullmatch(r"[A-Za-z_]\w*", title[1].strip(), re.ASCII):
        names = [title[1].strip()]
    names = [n for n in names if n != "operator"]
    if folder is not None:
        names = [folder if n == folder else f"{folder}::{n}" for n in names]
    return names


def former_names(page: str) -> dict[str, str]:
    """Names of earlier versions, still in use, and those that replaced them."""
    found: dict[str, str] = {}
    for old, new in re.findall(r"^\| ([^|]+?) \| \[(\w+)", page, re.MULTILINE | re.ASCII):
        found |= {name: new for name in re.findall(r"\w+", old) if name != new}
    return found


def extract(repository: Path) -> dict[str, Any]:
    """The data file's content, from a bare checkout of asc-devkit."""
    commit = _git(repository, "rev-parse", "HEAD").strip()
    listed: dict[str, dict[str, Any]] = {}
    advanced: set[str] = set()
    for path in _git(repository, "ls-tree", "-r", "--name-only", "HEAD", ROOT).splitlines():
        if not path.endswith(".md"):
            continue
        page = _git(repository, "show", f"HEAD:{path}")
        if path.startswith(ADVANCED):
            if path.removeprefix(f"{ADVANCED}/").partition("/")[0] in FUNCTIONS:
                advanced |= {n for n in prototypes(page) if not _HOST_SIDE.match(n)}
            continue
        state = supported(page) if path.startswith(BASIC) else None
        if state is None or any(path.startswith(f"{BASIC}/{s}") for s in SKIPPED):
            continue
        short = path.removeprefix(f"{BASIC}/")
        for name in _names(page, short):
            entry = listed.setdefault(name, {"name": name, "pages": [], "on_2201": False})
            # A name with several pages is there where one of them is.
            if state and not entry["on_2201"]:
                entry["pages"], entry["on_2201"] = [], True
            if state == entry["on_2201"]:
                entry["pages"].append(short)
    for old, new in former_names(_git(repository, "show", f"HEAD:{CHANGES}")).items():
        if new in listed and old not in listed:
            listed[old] = {**listed[new], "name": old, "now": new}
    basic = sorted(listed.values(), key=lambda e: (str(e["pages"][0]), str(e["name"])))
    return {
        "origin": ORIGIN,
        "commit": commit,
        "root": BASIC,
        "names": basic,
        "advanced_root": ADVANCED,
        "advanced": sorted(advanced - {str(e["name"]).rpartition("::")[2] for e in basic}),
    }


if __name__ == "__main__":
    json.dump(extract(Path(sys.argv[1])), sys.stdout, ensure_ascii=False, indent=1)
    print()
