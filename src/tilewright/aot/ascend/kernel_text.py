"""A kernel as text that needs nothing but triton: what the isolated environment can import.

A family's `triton.py` imports tilewright, which that environment does not have. The kernel itself
cannot use any of it, so its source, the jitted functions it calls and the constants it names are
gathered into a module of their own.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from types import FunctionType, ModuleType
from typing import Any

from tilewright.errors import BuildFailed


def kernel_text(kernel: Any) -> str:
    """Source of a module that defines the `@triton.jit` function `kernel` under its own name.

    Raises BuildFailed, naming what it is, if the kernel uses something that cannot travel.
    """
    return _Gathered().module(kernel)


_PYTHON = frozenset(dir(builtins))


class _Gathered:
    def __init__(self) -> None:
        # Name in the module to the line that makes it.
        self.lines: dict[str, str] = {}
        self.functions: dict[str, tuple[Any, str]] = {}

    def module(self, kernel: Any) -> str:
        self._function(kernel)
        head = ["import triton", *self.lines.values()]
        bodies = [text for _, text in self.functions.values()]
        return "\n".join(head) + "\n\n\n" + "\n\n\n".join(bodies) + "\n"

    def _function(self, jitted: Any) -> None:
        plain: FunctionType = jitted.fn
        name = plain.__name__
        if name in self.functions:
            if self.functions[name][0] is not plain:
                raise BuildFailed(f"two functions that the kernel calls are named '{name}'")
            return
        tree = ast.parse(textwrap.dedent(inspect.getsource(plain))).body[0]
        assert isinstance(tree, ast.FunctionDef)
        tree.decorator_list = [ast.parse("triton.jit", mode="eval").body]
        self.functions[name] = (plain, "")
        for used in _free_names(tree):
            if used in plain.__globals__:
                self._global(used, plain.__globals__[used], name)
        # Callees come first: a dict keeps the order of insertion.
        del self.functions[name]
        self.functions[name] = (plain, ast.unparse(tree))

    def _global(self, name: str, value: Any, user: str) -> None:
        line = self._line(name, value, user)
        if line is None:
            return
        if self.lines.setdefault(name, line) != line:
            raise BuildFailed(f"'{name}' means two things in the functions that the kernel calls")

    def _line(self, name: str, value: Any, user: str) -> str | None:
        if isinstance(value, ModuleType) and _is_triton(value.__name__):
            return f"import {value.__name__} as {name}" if value.__name__ != name else None
        home = getattr(value, "__module__", None) or ""
        if _is_triton(home) and hasattr(value, "__qualname__"):
            return f"from {home} import {value.__qualname__} as {name}"
        if isinstance(getattr(value, "fn", None), FunctionType):
            inner = value.fn.__module__
            if _is_triton(inner):
                return f"from {inner} import {value.fn.__name__} as {name}"
            self._function(value)
            return f"{name} = {value.fn.__name__}" if name != value.fn.__name__ else None
        literal = getattr(value, "value", value) if _is_triton(home) else value
        if isinstance(literal, bool | int | float | str | None):
            text = f"float('{literal}')" if isinstance(literal, float) else repr(literal)
            return f"{name} = triton.language.constexpr({text})"
        if _is_triton(type(value).__module__) and hasattr(value, "primitive_bitwidth"):
            return f"{name} = triton.language.dtype('{value.name}')"
        raise BuildFailed(
            f"{user} uses '{name}', a {type(value).__name__}; a kernel lowered for Ascend can use "
            "triton, jitted functions and numbers"
        )


def _is_triton(module: str) -> bool:
    return module == "triton" or module.startswith("triton.")


def _free_names(function: ast.FunctionDef) -> list[str]:
    """Names that a function reads, never assigns, and that are not Python's own, as they appear."""
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    own = {a.arg for a in arguments} | {n.id for n in names if isinstance(n.ctx, ast.Store)}
    return [n for n in dict.fromkeys(n.id for n in names) if n not in own and n not in _PYTHON]
