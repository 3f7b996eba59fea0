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
from tilewright.registry import Family, family, package_folder

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


def test_a_kernel_may_call_another_familys(cache: Path, tmp_path: Path) -> None:
    """`host_needs.txt` names it: its objects are linked in, and its sources are part of what the build is kept by."""
    one = elsewhere(tmp_path / "one", HOST.replace("call->tensor_count", "tw_host_nz_kv(call)"))
    source = one.folder / "host.cpp"
    declared = 'extern "C" int tw_host_nz_kv(const tw_call*);\n'
    source.write_text(source.read_text(encoding="utf-8").replace("extern", declared + "extern", 1))
    with pytest.raises(BuildFailed, match="tw_host_nz_kv"):
        build.build_host_library(one)
    (one.folder / "host_needs.txt").write_text("nz_kv\n", encoding="utf-8")
    assert [folder.name for folder in build.needed(one.folder)] == ["nz_kv"]
    exported = subprocess.run(
        ["nm", "-D", "--defined-only", str(build.build_host_library(one))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "tw_host_gemm" in exported and "tw_host_nz_kv" in exported


def test_what_a_needed_family_needs_is_part_of_the_build(cache: Path, tmp_path: Path) -> None:
    """Two levels: a family calls grouped_gemm's functions, which call gemm's."""
    one = elsewhere(tmp_path / "one", HOST)
    kernels = package_folder("tilewright.kernels")
    assert (kernels / "grouped_gemm" / "host_needs.txt").read_text("utf-8") == "gemm\n"
    (one.folder / "host_needs.txt").write_text("grouped_gemm\nnz_kv\n", encoding="utf-8")
    found = sorted(folder.name for folder in build.needed(one.folder))
    assert found == ["gemm", "grouped_gemm", "nz_kv"]
    # One that is named twice stands once.
    (one.folder / "host_needs.txt").write_text("gemm grouped_gemm gemm\n", encoding="utf-8")
    assert sorted(folder.name for folder in build.needed(one.folder)) == ["gemm", "grouped_gemm"]


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
    with pytest.raises(
        BuildFailed, match="the host kernel of gemm does not build: .*host.cpp"
    ) as caught:
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
    with pytest.raises(
        Unavailable, match=r"needs g\+\+, which is not on PATH; .*apt-get install g\+\+"
    ):
        build.build_host_library(elsewhere(tmp_path / "one", HOST))


SPEC = """from __future__ import annotations

from tilewright.cases import Flag, empty, grid
from tilewright.dims import dims
from tilewright.dtypes import FP32, INT32
from tilewright.numerics import rounding_error
from tilewright.space import Config, Space
from tilewright.spec import KernelSpec, Precision, Ref, Tensor

R, C = dims("R C")
SPEC = KernelSpec(
    name="row_sum",
    summary="y[R] = sum of x[R,C], negated if asked; used[1] is the config's unroll",
    inputs=(Tensor("x", R, C),),
    outputs=(Tensor("y", R), Tensor("used", 1)),
    precisions=(
        Precision("fp32", {"x": FP32, "y": FP32, "used": INT32}, FP32),
    ),
    flags=(Flag.yes_no("negate"),),
    reference=Ref("reference:row_sum"),
    cases=grid(R=(1, 7), C=(33,)) + empty("R"),
    tolerance=rounding_error(8),
    flops=R * C,
    space={"cpu": Space(unroll=(1, 4, 8))},
    default={"cpu": Config(unroll=4)},
)
"""
ROW_SUM = """#include "_host/abi.h"
extern "C" int tw_host_row_sum(const tw_call* call) {
  const tw_tensor& x = call->tensors[0];
  const tw_tensor& y = call->tensors[1];
  const bool negate = call->attrs[0].value != 0;
  for (int64_t r = 0; r < x.shape[0]; ++r) {
    float sum = 0;
    for (int64_t c = 0; c < x.shape[1]; ++c) {
      sum += static_cast<const float*>(x.data)[r * x.stride[0] + c * x.stride[1]];
    }
    static_cast<float*>(y.data)[r * y.stride[0]] = negate ? -sum : sum;
  }
  *static_cast<int32_t*>(call->tensors[2].data) = static_cast<int32_t>(call->attrs[1].value);
  return TW_OK;
}
"""
USE = """
import torch
from tilewright import native
from tilewright.bindings.table import op_of
from tilewright.bindings.torch.ops import build_torch_ops, load_ops
from tilewright.registry import family
from tilewright.space import Config
from tilewright.tables import Entry

found = family("row_sum")
level = native.module().cpu_level()
tuned = [
    Entry((1, 10), "fp32", {}, Config(unroll=4), level="of another CPU"),
    Entry((64, 10), "fp32", {}, Config(unroll=8)),
    Entry((1, 10), "fp32", {}, Config(unroll=1), level=level),
]
load_ops(build_torch_ops([found], "acme", tuned={"row_sum": tuned}), "acme", [op_of(found).as_dict()])
op = torch.ops.acme.row_sum
x = torch.randn(7, 20)
y, used = op(x[:, ::2], negate=True)
assert torch.allclose(y, -x[:, ::2].sum(1), atol=1e-5) and used.dtype == torch.int32
rows = {1: 1, 2: 1, 20: 8, 33: 8, 64: 8, 1000: 8}
assert {r: int(op(torch.zeros(r, 10))[1]) for r in rows} == rows
assert int(op(torch.zeros(2, 10), config=[4])[1]) == 4
assert op(torch.zeros(0, 3))[0].shape == (0,)
checked = torch.library.opcheck(op.default, (x.t(),), {"negate": True})
assert set(checked.values()) == {"SUCCESS"}
torch.compile(lambda x: op(x)[0] + 1, fullgraph=True, backend="aot_eager", dynamic=True)(x)
try:
    op(x, config=[3])
except ValueError as error:
    print(error)
"""


def test_an_op_of_a_family_elsewhere_applies_its_tuned_configs(tmp_path: Path) -> None:
    folder = tmp_path / "row_sum"
    folder.mkdir()
    (folder / "spec.py").write_text(SPEC, encoding="utf-8")
    (folder / "host.cpp").write_text(ROW_SUM, encoding="utf-8")
    # In a process of its own: a torch namespace can be registered once.
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={
            **os.environ,
            "TILEWRIGHT_FAMILIES": str(folder),
            "TILEWRIGHT_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "row_sum: config unroll=3; accepted: [1, 4, 8]"
