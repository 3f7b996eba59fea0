"""The tools that read our exports, in an environment of their own (`tilewright toolchain install bench-readers`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.errors import Unavailable
from tilewright.toolchains import require

if TYPE_CHECKING:
    from tilewright.toolchains import Installed

_COMPARE = Path("cuda/bench/scripts/nvbench_compare_robust.py")
# Where Debian's package libbenchmark-tools puts it; the wheels of Google Benchmark leave it out.
GOOGLE_COMPARE = Path("/usr/share/benchmark/compare.py")


def run(
    found: Installed, arguments: Sequence[str], timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """A Python with the readers' packages before ours; torch is that of this environment."""
    return subprocess.run(
        [found.python, *arguments],
        env={**os.environ, "PYTHONPATH": str(found.site), "FIB_DATASET_PATH": os.devnull},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def nvbench_compare(ref: Path, cmp: Path) -> str:
    """What nvbench-compare-robust prints; raises Unavailable where it is not installed or refuses."""
    found = require("bench-readers")
    return _said(run(found, [str(found.site / _COMPARE), "--no-color", str(ref), str(cmp)]))


def google_compare(ref: Path, cmp: Path) -> str:
    """What Google Benchmark's compare.py prints of two files."""
    if not GOOGLE_COMPARE.is_file():
        raise Unavailable(
            f"there is no {GOOGLE_COMPARE}; `apt-get install libbenchmark-tools` brings it"
        )
    arguments = [str(GOOGLE_COMPARE), "--no-color", "benchmarks", str(ref), str(cmp)]
    return _said(run(require("bench-readers"), arguments))


def _said(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise Unavailable(f"{Path(done.args[1]).name} failed: {lines[-1]}")
    return done.stdout


def probe(found: Installed) -> None:
    """Whether everything in it starts; raises Unavailable with the last line of what it said."""
    imports = "import flashinfer_bench.data, scipy.stats, viztracer.viewer"
    for arguments in (["-c", imports], [str(found.site / _COMPARE), "--help"]):
        done = run(found, arguments)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
            raise Unavailable(f"the tools of {found.toolchain.name} do not start: {lines[-1]}")
