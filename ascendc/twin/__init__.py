"""The twin: runs, checks and records AscendC kernels on the host.

from tilewright.ascendc import twin
result = twin.compile("add.cpp").run("add", x, y, z, x.size, blocks=8)
for finding in result.findings:
    print(finding)
"""

from .program import CompileError, Program, compile
from .runner import Buffer, Finding, TwinError, TwinResult

__all__ = ["Buffer", "CompileError", "Finding", "Program", "TwinError", "TwinResult", "compile"]
