"""The registry of conformance tests names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

from tilewright.ascendc.twin.conformance import CONFORMANCE

ROOT = Path(__file__).resolve().parents[1]


def test_every_name_has_its_test() -> None:
    missing = []
    for name, node in CONFORMANCE.items():
        path, _, function = node.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        if function not in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}:
            missing.append(f"{name}: {node}")
    assert not missing
