"""Dispatch entries: what is accepted, and the sentence for what is not."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import gpu
from tilewright.errors import UsageError
from tilewright.ship.launcher import generate
from tilewright.ship.launcher.entries import read_entries
from tilewright.ship.launcher.grid_cpp import cpp, evaluate, formula

ROW: dict[str, Any] = {
    "family": "toy",
    "precision": "fp32",
    "flags": {"layout": 1},
    "target": "cuda:sm_90",
    "symbol": "tw_toy",
    "binary": "gpu/toy.cubin",
    "sha256": "0" * 64,
    "num_warps": 4,
    "shared_bytes": 0,
    "config": {"tile": 32},
    "tensors": [{"name": "x", "dtype": "fp32", "dims": ["M", 4, None]}],
    "args": [
        {"kind": "tensor", "name": "x"},
        {"kind": "dim", "name": "M", "ctype": "i32"},
        {"kind": "scratch"},
    ],
    "grid": ["cdiv(M, tile)", 1, ["M", 2, "*"]],
}


def test_reads_an_entry_and_counts_its_grid() -> None:
    (entry,) = read_entries([ROW])
    assert (entry.id, entry.block, entry.dims) == ("toy.fp32.cuda-sm_90.layout=1", 128, ("M",))
    assert entry.grid_size({"M": 33}) == (2, 1, 66)
    assert read_entries([{**ROW, "target": "hip:gfx942"}])[0].block == 256


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"target": "cuda:90"}, "target 'cuda:90'; accepted: cuda:sm_<cc>, hip:gfx<id>"),
        ({"sha256": "12"}, "sha256 is '12'; 64 lower-case hex digits"),
        ({"num_warps": 0}, "num_warps is 0; an integer from 1 to 32"),
        ({"num_warps": True}, "num_warps is True; an integer"),
        ({"binary": "../x"}, "binary '../x' must be a path inside the bundle"),
        ({"grid": ["1", "1"]}, "grid has 2 expressions; 3 are needed"),
        ({"grid": ["cdiv(4, M)", 1, 1]}, "divides by something that is no positive constant"),
        ({"grid": ["W", 1, 1]}, "uses 'W'; known here: M, tile"),
        ({"grid": ["M // (tile - 32)", 1, 1]}, "divides by something that is no positive constant"),
        ({"grid": ["__import__('os')", 1, 1]}, "accepted: names, integers"),
        ({"tensors": [{"name": "x", "dtype": "fp8", "dims": []}]}, "unknown dtype 'fp8'"),
        (
            {"tensors": [{"name": "x", "dtype": "fp32", "dims": [], "shape": []}]},
            "unknown field 'shape'",
        ),
        ({"args": [{"kind": "pointer", "name": "x"}]}, "arg kind 'pointer'; accepted: tensor, dim"),
        ({"args": [{"kind": "tensor", "name": "y"}]}, "arg names tensor 'y'; declared: x"),
        ({"args": [{"kind": "dim", "name": "M"}]}, "ctype is None"),
        (
            {"args": [{"kind": "dim", "name": "M", "ctype": "fp32"}]},
            "ctype 'fp32'; accepted: i32, i64",
        ),
        ({"args": [{"kind": "const", "value": 2**31, "ctype": "i32"}]}, "value is 2147483648"),
        (
            {"args": [{"kind": "scratch"}, {"kind": "tensor", "name": "x"}]},
            "'scratch' must be the last arg",
        ),
        (
            {"args": [], "global_scratch_bytes": 4},
            "global_scratch_bytes needs a last arg of kind 'scratch'",
        ),
        ({"when": {"Q": [1, 2]}}, "when names dim 'Q'; declared: M"),
        ({"when": {"M": [1]}}, "[low, high] is needed"),
    ],
)
def test_refuses_with_the_value_and_what_is_accepted(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        read_entries([{**ROW, **change}])
    assert sentence in str(error.value)


def test_ids_are_unique_and_rows_are_objects() -> None:
    with pytest.raises(UsageError, match="is used twice"):
        read_entries([ROW, ROW])
    with pytest.raises(UsageError, match="an object is needed"):
        read_entries(["gemm"])


def test_command_writes_the_table_or_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "dispatch.json", tmp_path / "table.cpp"
    source.write_text(json.dumps({"entries": [ROW]}))
    assert generate.main([str(source), str(out)]) == 0
    assert out.read_text() == generate.table_source(read_entries([ROW]))
    source.write_text(json.dumps([{**ROW, "symbol": ""}]))
    assert generate.main([str(source), str(out)]) == 2
    assert "symbol is ''" in capsys.readouterr().err
    assert generate.main([]) == 2
    with pytest.raises(UsageError, match="image 'gpu/other' belongs to no dispatch entry"):
        generate.table_source(read_entries([ROW]), {"gpu/other": b""})
    with pytest.raises(UsageError, match="printable ASCII"):
        generate.table_source(read_entries([{**ROW, "symbol": 'x"\n'}]))


FORMULAS = st.recursive(
    st.sampled_from(["M", "N", "tile", "0", "1", "7"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.sampled_from(["tile", "3", "(tile + 1)"])).map(
            lambda t: f"cdiv({t[0]}, {t[1]})"
        ),
        st.tuples(inner, st.sampled_from(["tile", "5"])).map(lambda t: f"({t[0]} // {t[1]})"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(
            lambda t: f"{t[0]}({t[1]}, {t[2]})"
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=1, deadline=None)
@given(
    st.lists(st.tuples(FORMULAS, st.integers(0, 99), st.integers(0, 99)), min_size=40, max_size=80)
)
def test_cpp_and_python_agree_on_every_formula(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("grid")
    body = []
    for text, m, n in rows:
        expected = evaluate(formula(text), {"M": m, "N": n, "tile": 4})
        code = cpp(formula(text), ("M", "N"), {"tile": 4})
        body.append(
            f"{{ [[maybe_unused]] const int64_t d[] = {{{m}, {n}}}; "
            f"if ({code} != {expected}LL) return {len(body) % 200 + 1}; }}"
        )
    lines = "\n".join(body)
    source = folder / "grid.cpp"
    source.write_text(
        '#include "launcher/table.hpp"\nusing namespace tilewright::launch;\n'
        f"int main() {{\n{lines}\n}}\n"
    )
    gpu.compiled(["g++", *gpu.FLAGS, str(source), "-o", str(folder / "grid")])
    assert subprocess.run([str(folder / "grid")], check=False).returncode == 0


def test_property_offsets_are_those_of_the_hip_headers(tmp_path: Path) -> None:
    triton = pytest.importorskip("triton", reason="its wheel carries the HIP headers")

    include = Path(triton.__file__).parent / "backends" / "amd" / "include"
    source = tmp_path / "offsets.cpp"
    source.write_text(
        "#define __HIP_PLATFORM_AMD__\n#include <hip/hip_runtime_api.h>\n#include <cstddef>\n"
        "static_assert(offsetof(hipDeviceProp_tR0600, gcnArchName) == 1160);\n"
        "static_assert(sizeof(hipDeviceProp_tR0600::gcnArchName) == 256);\n"
        "static_assert(sizeof(hipDeviceProp_tR0600) == 1472);\n"
    )
    gpu.compiled(["g++", "-std=c++20", "-fsyntax-only", "-isystem", str(include), str(source)])
    text = (gpu.ROOT / "ship" / "launcher" / "hip_driver.cpp").read_text(encoding="utf-8")
    assert "kArchNameOffset = 1160;" in text and "kPropertiesSize = 1472;" in text


def test_the_library_needs_no_driver_and_only_old_symbols(tmp_path: Path) -> None:
    library = gpu.build_library(tmp_path, gpu.build_objects(tmp_path), read_entries([ROW]))
    dynamic = subprocess.run(
        ["readelf", "-d", str(library)], capture_output=True, text=True, check=True
    ).stdout
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    assert needed <= {
        "libstdc++.so.6",
        "libgcc_s.so.1",
        "libc.so.6",
        "libm.so.6",
        "libdl.so.2",
        "ld-linux-x86-64.so.2",
    }
    symbols = subprocess.run(
        ["readelf", "--dyn-syms", "-W", str(library)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"@GLIBC_([\d.]+)", symbols)}
    assert max(versions) <= (2, 28), "manylinux_2_28"
    runtime = {tuple(map(int, v.split("."))) for v in re.findall(r"@GLIBCXX_([\d.]+)", symbols)}
    assert max(runtime) <= (3, 4, 24), "manylinux_2_28"
    exported = set(re.findall(r"GLOBAL DEFAULT +\d+ (\w+)", symbols))
    assert exported == {
        "tw_gpu_launch",
        "tw_gpu_choose",
        "tw_gpu_device",
        "tw_gpu_set_directory",
        "tw_gpu_entry_count",
        "tw_gpu_entry_id",
    }
