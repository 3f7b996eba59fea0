"""`python -m tilewright.bindings.generate KIND OUTPUT`: write generated sources; the build calls it.

KIND is `python` (pybind11 functions), `torch` (stable-ABI ops) or `json` (the table itself). A file
that would not change is left alone, so that nothing is recompiled.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tilewright.bindings.python import generate as python_generator
from tilewright.bindings.table import Op, op_of
from tilewright.bindings.torch import generate as torch_generator
from tilewright.registry import family
from tilewright.tables import installed_path, read
from tilewright.targets import CPU


def ops(names: list[str]) -> list[Op]:
    """The table for the named families, with the configs their folders hold for each CPU level."""
    found = [family(name) for name in names]
    return [op_of(f, read(installed_path(f, CPU), f, CPU, every_level=True).entries) for f in found]


def write(path: Path, text: str) -> None:
    """Write a file unless it already says this."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="tilewright.bindings.generate", description=__doc__)
    parser.add_argument("kind", choices=("python", "torch", "json"))
    parser.add_argument("output", type=Path)
    parser.add_argument("--families", default="", help="names, comma separated")
    parser.add_argument("--namespace", default="tilewright", help="torch namespace (kind torch)")
    parser.add_argument("--module", default="_ops", help="name of the Python module (kind torch)")
    given = parser.parse_args(arguments)
    table = ops([n for n in given.families.split(",") if n])
    if given.kind == "python":
        text = python_generator.source(table)
    elif given.kind == "torch":
        text = torch_generator.source(table, given.namespace, given.module)
    else:
        text = json.dumps([op.as_dict() for op in table], indent=1) + "\n"
    write(given.output, text)


if __name__ == "__main__":
    main()
