"""Host kernels with little memory left: they fail with a sentence, and nothing else leaves the C function."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Calls with more and more memory until one has enough; prints how many had not.
CALLS = """
import resource, sys
import torch
from row_calls import call
from tilewright import errors, native

def gemm_w4():
    n, k = 64, 1 << 20
    return {
        "a": torch.ones(1, 1, dtype=torch.int8).expand(1, k),
        "b": torch.ones(1, 1, dtype=torch.int32).expand(n, k // 8),
        "scale": torch.ones(1, 1, dtype=torch.float16).expand(n, k // 32),
        "row_scale": torch.ones(1),
        "c": torch.zeros(1, n),
    }

def grouped_gemm():
    rows = 1 << 20
    return {
        "a": torch.ones(1, 1).expand(rows, 1),
        "b": torch.ones(1, 1, 1).expand(rows, 1, 1),
        "ends": torch.arange(1, rows + 1, dtype=torch.int32),
        "c": torch.zeros(rows, 1),
    }

name = sys.argv[1]
tensors = globals()[name]()
native.module().force_level("scalar")
with open("/proc/self/statm") as sizes:
    used = int(sizes.read().split()[0]) * resource.getpagesize()
for failed in range(200):
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 + 2 * failed << 20), resource.RLIM_INFINITY))
    try:
        call(name, tensors)
    except errors.TilewrightError as error:
        assert "no memory for the" in str(error), error
        continue
    print(failed)
    break
"""


@pytest.mark.parametrize("name", ["gemm_w4", "grouped_gemm"])
def test_a_call_without_memory_fails_in_one_sentence(name: str) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", CALLS, name],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
