"""The twin: runs, checks and records AscendC kernels on the host.

from tilewright.ascendc import twin
result = twin.compile("add.cpp").run("add", x, y, z, x.size, blocks=8)
for finding in result.findings:
    print(finding)
"""

from typing import TYPE_CHECKING, Any

from .runner import Buffer, Finding, TwinError, TwinResult

if TYPE_CHECKING:
    from .program import CompileError, Program, compile

__all__ = ["Buffer", "CompileError", "Finding", "Program", "TwinError", "TwinResult", "compile"]


def __getattr__(name: str) -> Any:
    """What compiles programs is imported when it is asked for: `tilewright list` only looks at adapters."""
    if name in ("CompileError", "Program", "compile"):
        from . import program

        return getattr(program, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
