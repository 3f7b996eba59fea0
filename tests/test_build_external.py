"""Families outside the package: built when first used, kept by content, refused with the compiler's first error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tilewright import build, native
from tilewright.errors import BuildFailed, Unavailable
from tilewright.registry import Family, family

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason=str(native.why_missing()))

HOST = """#include "_host/abi.h"
extern "C" int tw_host_gemm(const tw_call* call) { return call->tensor_count; }
"""


def elsewhere(folder: Path, host: str) -> Family:
    """gemm's spec with another host.cpp, in a folder of its own."""
    folder.mkdir()
    (folder / "host.cpp").write_text(host, encoding="utf-8")
    return Family(family("gemm").spec, folder, "elsewhere", str(folder))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_host_library_is_built_once_for_each_content(cache: Path, tmp_path: Path) -> None:
    one = elsewhere(tmp_path / "one", HOST)
    path = build.build_host_library(one)
    stamp = path.stat().st_mtime_ns
    assert build.build_host_library(one) == path and path.stat().st_mtime_ns == stamp
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    exported = subprocess.run(
        ["nm", "-D", "--defined-only", str(path)], capture_output=True, text=True, check=True
    )
    names = [line.split()[-1] for line in exported.stdout.splitlines()]
    assert "tw_host_gemm" in names and all(n.startswith("tw_") for n in names)
    (one.folder / "host.cpp").write_text(HOST + "// changed\n", encoding="utf-8")
    assert build.build_host_library(one) != path


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        (HOST.replace("tensor_count", "tensors_count"), "has no member named .tensors_count"),
        (HOST.replace("int tw_host", "long tw_host"), "tw_host_gemm"),
    ],
)
def test_the_first_error_of_the_compiler_is_the_message(
    cache: Path, tmp_path: Path, host: str, sentence: str
) -> None:
    with pytest.raises(BuildFailed, match="the host kernel of gemm does not build: .*host.cpp") as caught:
        build.build_host_library(elsewhere(tmp_path / "bad", host))
    assert "error:" in str(caught.value) and "\n" not in str(caught.value)
    assert re.search(sentence, str(caught.value))


def test_no_compiler_names_the_package(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(Unavailable, match=r"needs g\+\+, which is not on PATH; .*apt-get install g\+\+"):
        build.build_host_library(elsewhere(tmp_path / "one", HOST))


def test_an_op_of_a_family_elsewhere(tmp_path: Path) -> None:
    # In a process of its own: a torch namespace can be registered once.
    code = """
import torch
from tilewright import native
from tilewright.registry import family
op = native.torch_op(family("row_scale"))
x, s = torch.randn(7, 33), torch.rand(7)
assert torch.equal(op(x[:, ::2], s), x[:, ::2] * s[:, None])
assert op(torch.zeros(0, 3), torch.zeros(0)).shape == (0, 3)
assert op.default._schema.name == "tilewright_row_scale::row_scale"
assert set(torch.library.opcheck(op.default, (x.bfloat16(), s)).values()) == {"SUCCESS"}
torch.compile(lambda x, s: op(x, s), fullgraph=True, backend="aot_eager", dynamic=True)(x, s)
try:
    op(x, s[:3])
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "TILEWRIGHT_FAMILIES": str(ROOT / "examples" / "row_scale"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "row_scale: scale has shape [3]; accepted: [R] with R = 7 from x"
