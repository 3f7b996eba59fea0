"""The AscendC part of a bundle: kernels, the CANN build and launcher, and how the host makes a launch."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tilewright.registry import Family, package_folder
from tilewright.ship import layout

FOLDER = "ascendc"
_SOURCES = {".cpp", ".h", ".hpp", ".txt", ".md"}
# What makes a family's tiling bytes, and what prepares its arrays on the host. The first, with modules beside it
# that it imports, stands on `soc.py` and the standard library; the second belongs to the twin and is only described.
PLANNING, HOST, SOC = "planning.py", "host.py", "soc.py"
_HEADERS = "fetch_acl_headers.py"
_NEIGHBOUR = re.compile(r'#include "\.\./(\w+)/')
_KERNEL = re.compile(r"__global__\s+__aicore__\s+void\s+\w+\(([^)]*)\)")


def write(root: Path, families: Sequence[Family]) -> list[str]:
    """Write `ascendc/` for the families that have AscendC sources; returns their names, none: no folder."""
    shipped = [family for family in families if family.ascendc_folder.is_dir()]
    if not shipped:
        return []
    source, place = package_folder("tilewright.ascendc"), root / FOLDER
    for family in shipped:
        for folder in (family.ascendc_folder, *_shared(family.ascendc_folder)):
            _copy(folder, place / "ops" / folder.name, _imported(folder))
    _copy(source / "npu", place / "npu", (_HEADERS,))
    shutil.copyfile(source / SOC, place / SOC)
    (place / "README.md").write_text(readme(shipped), encoding="utf-8")
    return [family.name for family in shipped]


def _shared(folder: Path) -> list[Path]:
    """Folders beside a family's own whose headers its sources include, and those that these include."""
    found: set[str] = set()
    todo = [folder.name]
    while todo:
        place = folder.parent / todo.pop()
        files = (p for p in place.iterdir() if p.suffix in _SOURCES)
        text = "".join(p.read_text(encoding="utf-8") for p in files)
        todo += set(_NEIGHBOUR.findall(text)) - found - {folder.name}
        found.update(todo)
    return [folder.parent / name for name in sorted(found)]


def _imported(folder: Path) -> list[str]:
    """`planning.py`, and modules of its folder that it imports, and that these import."""
    found: dict[str, None] = {}
    todo = [PLANNING]
    while todo:
        path = folder / todo.pop()
        if path.name in found or not path.is_file():
            continue
        found[path.name] = None
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                todo += [f"{name}.py" for name in names]
    return list(found)


def _copy(source: Path, place: Path, scripts: Sequence[str]) -> None:
    for path in layout.files_below(source):
        if path.suffix in _SOURCES or path.name in scripts:
            copy = place / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def readme(families: Sequence[Family]) -> str:
    """Text of `ascendc/README.md`; what is particular to a family is taken from its own sources."""
    lines = [
        "# AscendC kernels",
        "",
        "Sources, compiled with CANN where they run. **Not run on hardware**; checked on a host twin of the 910B.",
        "",
        "| in it | what |",
        "| --- | --- |",
        "| `ops/<family>/` | the kernels; `planning.py`, with what it imports, makes the tiling bytes of a launch |",
        "| `ops/_<name>/` | what several families share |",
        "| `npu/` | the CANN build and the launcher: `npu/README.md` |",
        "| `soc.py` | limits of the chips, which planning asks |",
        "",
        "Build outside of the bundle (`cmake -S ascendc/npu -B SOMEWHERE/ELSE ...`): a file added here fails "
        "verify.py.",
        "",
        "## A launch",
        "",
        "1. Plan. It needs the standard library alone; it raises ValueError with every reason where a case cannot run.",
        "",
        "```python",
        "import sys",
        "",
        'sys.path.insert(0, "path/of/this/bundle")',
        f"from ascendc.ops.{families[0].name} import planning",
        "",
        "help(planning.plan)",
        "```",
        "",
        "2. Prepare the buffers as the family asks, below.",
        "3. Hand `kernel`, `block_dim` and `tiling` of the plan, with the device addresses of the buffers, to "
        "`tw_npu_launch` (`npu/tw_npu.h`).",
        "",
    ]
    for family in families:
        lines += [f"## {family.name}", "", *_of_family(family)]
    return "\n".join(lines)


def _of_family(family: Family) -> Iterator[str]:
    folder = family.ascendc_folder
    for path in sorted(folder.glob("*.cpp")):
        found = _KERNEL.search(path.read_text(encoding="utf-8"))
        if found:
            names = ", ".join(f"`{n}`" for n in re.findall(r"GM_ADDR\s+(\w+)", found.group(1)))
            yield f"Addresses that the kernels of `ops/{family.name}/{path.name}` take, in order: {names}."
            yield ""
    for path in sorted(folder.glob("*tiling*.h")):
        yield f"Tiling bytes: the struct of `ops/{family.name}/{path.name}`, little-endian, without padding."
        yield ""
    for name, title in ((PLANNING, "Planning"), (HOST, "What the host does")):
        path = folder / name
        if not path.is_file():
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield f"**{title}.** {_sentences(tree)}"
        yield ""
        if name == HOST:
            yield "How tilewright's own host side, which is not in the bundle, does it:"
            yield ""
        chosen = _planning(folder, tree) if name == PLANNING else _preparing(tree)
        yield from (f"- `{_signature(node)}`: {_sentences(node)}" for node in chosen)
        yield ""


def _planning(folder: Path, tree: ast.Module) -> list[ast.ClassDef | ast.FunctionDef]:
    """`plan`, and classes that its signature names, of the module and of those that it imports."""
    function = next(
        (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "plan"), None
    )
    if function is None:
        return []
    named = _names(function.args) | _names(function.returns)
    trees = [ast.parse((folder / f).read_text(encoding="utf-8")) for f in _imported(folder)]
    nodes = (node for tree in trees for node in tree.body)
    classes = [n for n in nodes if isinstance(n, ast.ClassDef) and n.name in named]
    return [function, *classes]


def _preparing(tree: ast.Module) -> list[ast.FunctionDef]:
    """Public, documented functions that prepare arrays: those that do not run the twin."""
    return [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node)
        and "runner" not in _names(node)
    ]


def _names(node: ast.AST | None) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} if node else set()


def _signature(node: ast.ClassDef | ast.FunctionDef) -> str:
    if isinstance(node, ast.FunctionDef):
        return f"{node.name}({ast.unparse(node.args)})"
    fields = [
        ast.unparse(n.target) + (f"={ast.unparse(n.value)}" if n.value else "")
        for n in node.body
        if isinstance(n, ast.AnnAssign)
    ]
    return f"{node.name}({', '.join(fields)})"


def _sentences(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    return " ".join((ast.get_docstring(node) or "").replace("``", "`").split())
