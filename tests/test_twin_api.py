"""The basic API beside the instructions, the refusal of adv_api, and the page that lists every name."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, CommandLine
from tilewright.ascendc import twin
from tilewright.ascendc.twin import api_page
from tilewright.ascendc.twin.api_names import former_names, prototypes, supported

SOURCE = ROOT / "tests" / "native" / "twin_api.cpp"
INCLUDE = ROOT / "ascendc" / "include"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILEWRIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def program(cache: object) -> twin.Program:
    return twin.compile(SOURCE)


def run(
    program: twin.Program, kernel: str, x: np.ndarray | None = None
) -> tuple[list[int], object]:
    y = np.full(64, -1, np.int64)
    x = np.zeros(64, np.int64) if x is None else x
    result = program.run(kernel, x, y)
    return y.tolist(), result


def test_scalar_utilities(program: twin.Program) -> None:
    x = np.zeros(64, np.float32)
    x[0] = 2.5
    y, result = run(program, "scalars", x)
    assert result.findings == ()
    assert y[:14] == [8, 64, 59, 5, 59, 4, 3, -1, 2, 3, -3, 3, -2, 2**31 - 1]
    # Odd in the last place, unless exact; to nearest otherwise.
    assert y[14:17] == [0x3C01, 0x3BFF, 0x3C00]
    assert y[17:20] == [0x4020, 0x4020, 12]
    assert y[20] == np.float32(2.5).view(np.int32) and y[21:25] == [77, 0x220, 32, 10]


def test_printing_shows_values_as_they_are(program: twin.Program) -> None:
    _, result = run(program, "printing")
    assert result.findings == ()
    assert "".join(result.printed) == (
        "half 7 0.25\nblock 0 of 1\nDumpTensor 5: 0 0.5 1 1.5 \nDumpAccChkPoint 9: -3 \n"
    )
    assert "ScalarGet" not in str(result.counts.get("V", {}))


def test_the_command_shows_what_a_kernel_prints(tilewright: CommandLine) -> None:
    words = ("--entry", "printing", "--args", "x=null, y:int32[128]=out", "--json", "-")
    ran = tilewright("twin", "run", str(SOURCE), *words)
    assert ran.code == 0 and "half 7 0.25\nblock 0 of 1\nDumpTensor 5: 0 0.5 1 1.5" in ran.err


@pytest.mark.parametrize("kernel", ["failing_assert", "trap", "too_much", "pool_overrun"])
def test_what_stops_a_kernel_is_found_at_its_line(program: twin.Program, kernel: str) -> None:
    lines = SOURCE.read_text().splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith(f"KERNEL({kernel})"))
    at = next(i for i in range(begin, len(lines)) if "// expect: " in lines[i])
    y, result = run(program, kernel)
    kind = lines[at].partition("// expect: ")[2]
    assert [(f.kind, f.line) for f in result.findings] == [(kind, at + 1)]
    if kind == "assertion":
        assert y[0] == 1, "the core does nothing after it"
    if kernel == "failing_assert":
        assert "GetBlockNum() == 2: 5 blocks" in result.findings[0].message


def test_memory_without_queues(program: twin.Program) -> None:
    x = np.random.default_rng(1).integers(0, 2**15, 256).astype(np.int16)
    y, result = run(program, "allocator", x)
    assert result.findings == () and y[32:35] == [384, 256, 64]
    assert np.array(y, np.int64).view(np.int16)[:128].tolist() == x[:128].tolist()
    y, result = run(program, "pools", x)
    assert result.findings == () and y[16:18] == [1, 192 * 1024 - 256 - 1024]
    assert np.array(y, np.int64).view(np.int16)[128:192].tolist() == x[128:192].tolist()


def test_buffers_in_place_and_on_two_legs(program: twin.Program) -> None:
    x = np.random.default_rng(2).standard_normal(256).astype(np.float16)
    y, result = run(program, "legs", x)
    assert result.findings == ()
    assert np.array(y, np.int64).view(np.float16)[:128].tolist() == (x[:128] * 2).tolist()


def test_what_tensors_queues_and_pipes_say_of_themselves(program: twin.Program) -> None:
    y, result = run(program, "bookkeeping")
    assert result.findings == ()
    queue = [110, 0, 11, 1]
    assert list(y[:13]) == [1, *queue, 64, 32, 1677, 1, 96, 1, 1, 1]


def test_tiling_macros_read_plain_structs(program: twin.Program) -> None:
    x = np.frombuffer(struct.pack("@qii2q", 1000, 3, 4, 5, 6), np.int64).copy()
    y, result = run(program, "tiling", x)
    assert result.findings == () and y[:5] == [1004, 304, 506, 30, 1]
    keyed = twin.compile(SOURCE, define=["TILING_KEY_VAR=2"])
    assert run(keyed, "tiling", x)[0][3] == 31


def test_work_is_given_to_one_kind_of_core(program: twin.Program) -> None:
    y, result = run(program, "by_engine")
    assert y[:3] == [10, 25, 25] and y[3] == -1
    assert {f.kind for f in result.findings} <= {"race"}, "all cores write y[8]"


REFUSED = """#include "lib/matmul_intf.h"
int Sum(int a, long b) { return a + static_cast<int>(b); }
extern "C" __global__ __aicore__ void k(GM_ADDR x) {
  AscendC::LocalTensor<half> t;
  Sum(1, 2);
  CALL;
}
"""
OPERAND = "AscendC::MatmulType<AscendC::TPosition::GM, CubeFormat::ND, half>"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("AscendC::SoftMax<half, false, true>(t, t, t, 4)", "SoftMax"),
        ("AscendC::Gelu(t, t, 16)", "Gelu"),
        ("Sigmoid(t, t)", "Sigmoid"),
        ("AscendC::Sort<half, true>(t, t, t, t, 2)", "Sort"),
        (f"AscendC::Matmul<{OPERAND}, {OPERAND}, {OPERAND}> mm", "Matmul"),
        (f"matmul::Matmul<{OPERAND}, {OPERAND}, {OPERAND}, {OPERAND}, AscendC::CFG_MDL> mm", "Matmul"),
    ],
)  # fmt: skip
def test_adv_api_is_refused_by_name(tmp_path: Path, call: str, name: str) -> None:
    file = tmp_path / "k.cpp"
    file.write_text(REFUSED.replace("CALL", call))
    with pytest.raises(twin.CompileError) as caught:
        twin.compile(file)
    assert f"AscendC::{name} is adv_api; the twin models the basic API only" in str(caught.value)
    assert f"{file}:6" in caught.value.output


def test_including_matmul_is_free_and_other_headers_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "k.cpp"
    file.write_text(REFUSED.replace("CALL", ""))
    assert twin.compile(file).kernels
    file.write_text('#include "lib/hccl/hccl.h"\n')
    with pytest.raises(twin.CompileError, match="hccl.h is Hccl, which is adv_api"):
        twin.compile(file)


def test_the_list_of_refused_functions_is_the_documentations() -> None:
    text = (INCLUDE / "api" / "adv_api.h").read_text()
    listed = re.findall(r"\bX\((\w+)\)", text)
    assert [n for n in listed if n != "name"] == api_page.advanced()


def test_the_page_is_up_to_date(tilewright: CommandLine) -> None:
    ran = tilewright("twin", "api", "--check", str(ROOT / "docs" / "twin-api.md"))
    assert ran.code == 0, ran.out + ran.err


def test_every_name_has_a_state(tilewright: CommandLine) -> None:
    ran = tilewright("twin", "api", "--json", "-")
    rows = {r["name"]: r for r in ran.document["rows"]}
    assert ran.code == 0 and len(rows) > 400
    assert rows["DataCopyPad"]["state"] == rows["TQue::EnQue"]["state"] == "implemented"
    assert rows["MmadWithSparse"]["state"] == "refused" and rows["MmadWithSparse"]["detail"]
    assert rows["Truncate"]["state"] == "not on 2201"
    assert {r["name"] for r in rows.values() if r["state"] == "missing"} <= {"IBSet", "IBWait"}
    assert tilewright("twin", "api", "reducesum").out.count("ReduceSum") >= 4
    assert tilewright("twin", "api", "NoSuchName").code == 2


def test_what_the_headers_do_not_declare_is_seen() -> None:
    names = [
        "Add",
        "Nonsense",
        "TQue::EnQue",
        "TQue::Nonsense",
        "TILING_KEY_IS",
        "LocalTensor::operator()",
    ]
    assert api_page.declared(names) == {
        "Add",
        "TQue::EnQue",
        "TILING_KEY_IS",
        "LocalTensor::operator()",
    }


PAGE = """# Thing<a name="x"></a>
- Ascend 950PR/Ascend 950DT：支持
- Atlas A2 训练系列产品/Atlas A2 推理系列产品：不支持
## 函数原型
```cpp
template <typename T, void (*f)(int) = nullptr>
__aicore__ inline void Thing(const LocalTensor<T>& dst, Params p = Params(3)) // Not(this)
OTHER_THING(a, b)
```
## 参数说明
Else(1)
"""


def test_names_are_read_from_prototypes_only() -> None:
    assert list(prototypes(PAGE)) == ["Thing", "OTHER_THING"]
    assert supported(PAGE) is False and supported("nothing") is None
    assert former_names("| A / B | [C](x.md) | |\n| D | [D](y) | |") == {"A": "C", "B": "C"}
