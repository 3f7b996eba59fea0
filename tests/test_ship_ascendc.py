"""The AscendC part of a bundle: a receiver can plan a launch from it, and finds every file it names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from tilewright.ascendc.ops.gemm import planning
from tilewright.registry import families, family
from tilewright.ship import ascendc
from tilewright.ship.bundle import Bundle

pytest_plugins = ("fakes.bundle_fixtures",)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the AscendC part of gemm."""
    root = tmp_path_factory.mktemp("shipped")
    assert ascendc.write(root, [family("gemm")]) == ["gemm"]
    return root


def alone(root: Path, code: str, given: Any = None) -> subprocess.CompletedProcess[str]:
    """Run code with the standard library and this one folder: no site-packages, no working folder."""
    prelude = f"import sys\nsys.path.insert(0, {str(root)!r})\n"
    return subprocess.run(
        [sys.executable, "-S", "-P", "-B", "-c", prelude + code],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd="/",
        env={},
        check=False,
    )


PLAN = """
import json
from ascendc.ops.gemm import planning
answers = []
for dims, precision, layout, config, soc, bias in json.load(sys.stdin):
    try:
        chosen = planning.Config.of(config)
        plan = planning.plan(planning.Dims(*dims), precision, layout, chosen, soc, bias=bias)
        answers.append([plan.kernel, plan.block_dim, plan.tiling.hex()])
    except ValueError as error:
        answers.append(str(error))
assert not any(name.split(".")[0] in ("tilewright", "numpy", "torch") for name in sys.modules)
print(json.dumps(answers))
"""
SIZE = st.integers(0, 3000)
CASES = st.tuples(
    st.tuples(SIZE, SIZE, SIZE, st.sampled_from([0, 4096]), st.sampled_from([0, 4096]), st.just(0)),
    st.sampled_from(sorted(planning.PRECISIONS)),
    st.sampled_from(planning.B_LAYOUTS),
    st.fixed_dictionaries(
        {
            "tile_m": st.sampled_from([16, 32, 128]),
            "tile_n": st.sampled_from([16, 32, 256]),
            "stages": st.sampled_from([1, 2, 3]),
        },
        optional={"tile_k": st.sampled_from([32, 64]), "l2_split_m": st.just(2)},
    ),
    st.sampled_from(["910b1", "910b3", "310p"]),
    st.booleans(),
)


def here(case: Any) -> Any:
    """What the planning of the source tree answers."""
    dims, precision, layout, config, soc, bias = case
    try:
        plan = planning.plan(
            planning.Dims(*dims), precision, layout, planning.Config.of(config), soc, bias=bias
        )
    except ValueError as error:
        return str(error)
    return [plan.kernel, plan.block_dim, plan.tiling.hex()]


@settings(max_examples=4, deadline=None)
@given(cases=st.lists(CASES, min_size=40, max_size=60))
def test_the_shipped_planning_stands_alone_and_gives_the_same_tiling(
    shipped: Path, cases: list[Any]
) -> None:
    done = alone(shipped, PLAN, cases)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [here(case) for case in cases]


def test_every_default_config_is_planned_alike(shipped: Path) -> None:
    cases = [
        ((64, 128, 256, 0, 0, 0), precision, layout, {}, soc, False)
        for precision in planning.PRECISIONS
        for layout in planning.B_LAYOUTS
        for soc in ("910b1", "910b2", "910b3", "910b4")
    ]
    answers = json.loads(alone(shipped, PLAN, cases).stdout)
    assert answers == [here(case) for case in cases]
    assert {len(bytes.fromhex(tiling)) // 4 for _, _, tiling in answers} == {21, 24}


# A file's name in a README or in CMake; what has a placeholder or a wildcard in it is no name.
_NAME = re.compile(r"[\w./{},-]*\w\.(?:py|cpp|hpp|h|txt|md)\b|[\w./-]+\.\{[\w,]+\}")


def named_files(text: str) -> set[str]:
    found = set()
    for line in text.splitlines():
        for word in re.split(r"[\s`()'\"|,;]+(?![^{]*\})", line):
            match = _NAME.fullmatch(word.strip(".:"))
            if match and "$" not in word and "*" not in word:
                found |= set(spread(match.group(0)))
    return found


def spread(name: str) -> list[str]:
    """`launcher.{hpp,cpp}` is two names."""
    braces = re.search(r"\{([\w,]+)\}", name)
    if braces is None:
        return [name]
    return [name.replace(braces.group(0), part) for part in braces.group(1).split(",")]


def missing(root: Path) -> list[str]:
    """Names in the shipped pages and build files that are no file of the bundle."""
    absent = []
    pages = [p for p in root.rglob("*") if p.suffix in (".md", ".txt")]
    assert len(pages) >= 3
    for page in pages:
        for name in named_files(page.read_text()):
            # Where the tests of the launcher are is said of the source tree, and acl/ is CANN's.
            if name.startswith(("tests/", "acl/")):
                continue
            where = (
                root,
                root / "ascendc",
                page.parent,
                *(root / "ascendc" / "ops").iterdir(),
                *root.glob("build/*"),
            )
            if not any((folder / name).is_file() for folder in where):
                absent.append(f"{page.relative_to(root)}: {name}")
    return absent


def test_every_file_that_is_named_is_there(shipped: Path) -> None:
    (shipped / "verify.py").touch()  # Of the bundle around it.
    assert missing(shipped) == []
    readme = named_files((shipped / "ascendc" / "npu" / "README.md").read_text())
    assert {"fetch_acl_headers.py", "launcher.hpp", "tw_npu.h", "CMakeLists.txt"} <= readme
    (shipped / "ascendc" / "npu" / "fetch_acl_headers.py").rename(shipped / "away")
    assert any("fetch_acl_headers.py" in line for line in missing(shipped))
    (shipped / "away").rename(shipped / "ascendc" / "npu" / "fetch_acl_headers.py")


def test_the_header_fetcher_runs_alone(shipped: Path) -> None:
    script = shipped / "ascendc" / "npu" / "fetch_acl_headers.py"
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-P",
            "-B",
            str(script),
            "--wheel",
            "/nowhere.whl",
            "--dir",
            "/tmp/none",
        ],
        capture_output=True,
        text=True,
        env={},
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (3, "no file /nowhere.whl")


def test_the_readme_says_what_the_host_must_do(shipped: Path, tmp_path: Path) -> None:
    text = (shipped / "ascendc" / "README.md").read_text()
    order = "`a`, `b`, `bias`, `scale`, `c`, `workspace`, `tiling`"
    for fact in (
        order,
        "`ops/gemm/gemm_tiling.h`",
        "padded to a multiple of 32",
        "in the type of L0C",
    ):
        assert fact in text, fact
    assert "`Config(tile_m=32, tile_n=32" in text and "`Dims(m, n, k, lda=0" in text
    for fact in ("one uint64 a column", "10 mantissa bits", "K of 0 writes the bias, or zero"):
        assert fact in text, fact
    assert "Not run on hardware" in text
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    place = tmp_path / "path" / "of" / "this" / "bundle"
    place.parent.mkdir(parents=True)
    place.symlink_to(shipped)
    done = subprocess.run(
        [sys.executable, "-P", "-B", "-c", code],
        capture_output=True, text=True, cwd=tmp_path, env={}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "plan(dims: 'Dims', precision: 'str'" in done.stdout


def test_a_bundle_has_it_and_no_python_but_what_is_needed(made: Bundle) -> None:
    files = {path for path in made.manifest["files"] if path.startswith("ascendc/")}
    assert {path for path in files if path.endswith(".py")} == {
        "ascendc/soc.py",
        *(f"ascendc/ops/{name}/planning.py" for name in ("gemm", "_rows", "_kv")),
        *(f"ascendc/ops/gemm/{name}.py" for name in ("limits", "precisions")),
        "ascendc/npu/fetch_acl_headers.py",
    }
    assert {"ascendc/README.md", "ascendc/npu/CMakeLists.txt", "ascendc/ops/gemm/gemm.cpp"} <= files
    source = ROOT / "ascendc" / "ops" / "gemm" / "planning.py"
    copied = made.folder / "ascendc" / "ops" / "gemm" / "planning.py"
    assert copied.read_bytes() == source.read_bytes()
    assert missing(made.folder) == []


FAMILIES = [f.name for f in families().values() if f.ascendc_folder.is_dir()]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_planning_of_every_family_stands_alone(name: str, tmp_path: Path) -> None:
    """With every module that it imports, and those that these import."""
    assert ascendc.write(tmp_path, [family(name)]) == [name]
    ran = alone(tmp_path, f"import ascendc.ops.{name}.planning")
    assert ran.returncode == 0, ran.stderr


SHARED = """
import json
from ascendc.ops.kv_residual import planning as residual
from ascendc.ops.kv_write import planning as write
from ascendc.ops.nz_kv import planning as moves
plans = [
    moves.plan(moves.Move(40, 2, 66, 132, 66, 3072, 1536, True), True, 64, "910b1"),
    write.plan(
        write.Launch(40, 2, "c8d", False, 2, (write.Side(64, 128, 64, 2048, 128),) * 2), "fp16", 8192, "910b3"
    ),
    residual.plan(
        residual.Problem(3, 2, 36, "c8s", True, True, True, 4), (1152, 72, 36), (2048, 1024), (9, 9), "fp32", 8192, "910b1"
    ),
]
assert not any(name.split(".")[0] in ("tilewright", "numpy", "torch") for name in sys.modules)
print(json.dumps([[p.kernel, p.block_dim, len(p.tiling)] for p in plans]))
"""


def test_families_that_share_headers_are_whole(tmp_path: Path) -> None:
    names = ["kv_residual", "kv_write", "nz_kv"]
    assert ascendc.write(tmp_path, [family(name) for name in names]) == names
    for source in (tmp_path / "ascendc" / "ops").rglob("*"):
        if source.suffix in (".cpp", ".h"):
            for include in re.findall(r'#include "([^"]+)"', source.read_text()):
                there = (source.parent / include).is_file()
                assert there or include == "kernel_operator.h", f"{source}: {include}"
    ran = alone(tmp_path, SHARED)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [row[0] for row in found] == ["nz_kv_write", "kv_write_fp16", "kv_residual_write_fp32"]
    assert [row[2] for row in found] == [48, 80, 68]
