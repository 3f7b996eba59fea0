"""Dependencies point one way (see docs/house.md); this test reads every import in the tree."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Room to the rooms it may import. Transitive permissions are written out, so that a reader sees them.
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "ascendc": {"core"},
    "kernels": {"core", "ascendc"},
    "bindings": {"core", "kernels"},
    "perf": {"core", "kernels", "bindings"},
    "autotune": {"core", "kernels", "ascendc", "bindings", "perf"},
    "ship": {"core", "kernels", "bindings", "ascendc", "perf", "autotune"},
    "models": {"core", "kernels"},
    "quant": {"core", "kernels", "models"},
    "engine": {"core", "kernels", "bindings", "perf", "models", "quant"},
    "cli": {
        "core",
        "ascendc",
        "kernels",
        "bindings",
        "perf",
        "autotune",
        "ship",
        "models",
        "quant",
        "engine",
    },
}
ROOMS = set(ALLOWED) - {"core", "cli"}


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    if parts[:3] == ("src", "tilewright", "cli"):
        return "cli"
    return "core" if parts[:2] == ("src", "tilewright") else parts[0]


def room_of_module(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "tilewright":
        return None
    if len(parts) > 1 and (parts[1] in ROOMS or parts[1] == "cli"):
        return parts[1]
    return "core"


def imported_modules(source: str, package: str) -> set[str]:
    """Absolute names of everything imported, at any depth of the file, relative imports resolved."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def package_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts[1:] if parts[0] == "src" else ["tilewright", *parts]
    return ".".join(parts[:-1])


def upward_imports(room: str, source: str, package: str) -> list[str]:
    rooms = {module: room_of_module(module) for module in imported_modules(source, package)}
    return sorted(
        m for m, r in rooms.items() if r is not None and r != room and r not in ALLOWED[room]
    )


def sources() -> list[Path]:
    found = [*(ROOT / "src" / "tilewright").rglob("*.py")]
    for room in sorted(ROOMS):
        found += [p for p in (ROOT / room).rglob("*.py") if (ROOT / room).exists()]
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    upward = upward_imports(room_of(path), path.read_text(encoding="utf-8"), package_of(path))
    assert not upward, f"{path.relative_to(ROOT)} imports upward: {upward}"


@pytest.mark.parametrize(
    "source",
    [
        "import tilewright.ship.bundle",
        "from tilewright import autotune",
        "def f():\n    from tilewright.cli import main",
        "from ..autotune import study",
    ],
)
def test_an_upward_import_is_seen(source: str) -> None:
    assert upward_imports("perf", source, "tilewright.perf")


@pytest.mark.parametrize("folder", ["kernels", "ascendc"])
def test_kernel_code_includes_neither_python_nor_torch(folder: str) -> None:
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in {".h", ".hpp", ".cpp"}:
            text = path.read_text(encoding="utf-8")
            for banned in ("Python.h", "pybind11/", "torch/", "ATen/", "c10/"):
                assert f"#include <{banned}" not in text, f"{path} includes {banned}"
                assert f'#include "{banned}' not in text, f"{path} includes {banned}"
