"""The source of a layout function with all it uses of its module, to stand alone beside torch."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tilewright.errors import UsageError

# Packages that the receiver of a bundle has.
_THERE = sys.stdlib_module_names | {"torch"}


def standing_alone(functions: Iterable[Callable[..., Any]]) -> list[str]:
    """Imports and definitions that `functions` need, theirs included, each once and in an order that runs.

    Raises UsageError for a function that uses a name imported from a package a bundle lacks, and where two
    modules mean different things by one name.
    """
    imports: dict[str, None] = {}
    definitions: dict[str, None] = {}
    meant: dict[str, tuple[str, str]] = {}
    for function in functions:
        module = inspect.getmodule(function)
        assert module is not None, function
        source = inspect.getsource(module)
        tree = ast.parse(source)
        needed = _needed(tree, function.__name__)
        texts: dict[str, str] = {}
        for statement in tree.body:
            for name in _defines(statement) & needed:
                if isinstance(statement, ast.Import | ast.ImportFrom):
                    text = _import_of(statement, name, function)
                    imports[text] = None
                else:
                    text = _text(source, statement)
                    definitions[text] = None
                texts[name] = f"{texts.get(name, '')}{text}\n"
        for name, text in texts.items():
            place, known = meant.setdefault(name, (module.__name__, text))
            if known != text:
                raise UsageError(
                    f"layout functions of one family use '{name}' of {place} and another '{name}' of "
                    f"{module.__name__}; accepted: one meaning of a name, as they are shipped in one file"
                )
    return ["\n".join(sorted(imports)), *definitions] if imports else list(definitions)


def _needed(tree: ast.Module, name: str) -> set[str]:
    """`name` and the names of the module it reaches, however far."""
    uses: dict[str, set[str]] = {}
    for statement in tree.body:
        for defined in _defines(statement):
            uses[defined] = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
    found, open_names = set[str](), [name]
    while open_names:
        one = open_names.pop()
        if one in uses and one not in found:
            found.add(one)
            open_names += uses[one]
    return found


def _defines(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    return set(_assigned(statement))


def _assigned(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for node in (n for target in targets for n in ast.walk(target)):
            if isinstance(node, ast.Name):
                yield node.id


def _import_of(
    statement: ast.Import | ast.ImportFrom, name: str, function: Callable[..., Any]
) -> str:
    alias = next(a for a in statement.names if (a.asname or a.name) == name)
    shown = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
    if isinstance(statement, ast.Import):
        package, line = alias.name, f"import {shown}"
    else:
        package = statement.module or ""
        line = f"from {package} import {shown}"
    if package.partition(".")[0] not in _THERE:
        raise UsageError(
            f"the layout function '{function.__name__}' uses '{name}' of {package}, which a bundle has not; "
            "accepted: names of its own module, of torch and of the standard library"
        )
    return line


def _text(source: str, statement: ast.stmt) -> str:
    """The statement with its decorators, as it stands."""
    lines = source.splitlines()
    decorators = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(d.lineno for d in decorators)])
    return "\n".join(lines[first - 1 : statement.end_lineno])
