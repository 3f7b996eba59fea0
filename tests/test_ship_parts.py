"""The parts a bundle is made of, each by itself."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata as installed
import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.aot.source import fixed_sizes
from tilewright.bindings.table import op_of
from tilewright.dtypes import ALL as DTYPES
from tilewright.errors import TilewrightError, Unavailable, UsageError
from tilewright.inputs import draw, reference_outputs
from tilewright.numerics import compare
from tilewright.registry import family
from tilewright.ship import clean_venv, dispatch, golden, layout, provenance, pyapi
from tilewright.ship.gpu import GpuPart, compile_gpu
from tilewright.ship.launcher.entries import read_entries
from tilewright.ship.readme import readme
from tilewright.ship.receiver.verify_parts.elf import ElfError, dotted, numbers, read_elf
from tilewright.ship.receiver.verify_parts.host import LEVELS, cpu_levels
from tilewright.ship.request import make_request
from tilewright.space import Config
from tilewright.targets import CPU, target

GEMM = family("gemm")
OP = op_of(GEMM)


def module_from(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    """The receiver's own reading and comparing, as files of a bundle."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "compare.py").write_text(golden.compare_source())
    source = Path(golden.__file__).parent / "receiver" / "verify_parts" / "golden.py"
    (folder / "golden.py").write_text(source.read_text())
    names = ("compare", "golden")
    return {n: module_from(folder / f"{n}.py", f"receiver_{n}") for n in names}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden")
    golden.write_golden(root / "golden", [(GEMM, OP)])
    return root


def test_the_receiver_reads_what_was_drawn(stored: Path, receiver: dict[str, ModuleType]) -> None:
    calls = list(receiver["golden"].read_calls(stored))
    rows = json.loads((stored / "golden" / "cases.json").read_text())["families"][0]["cases"]
    assert len(calls) == len(rows) > 40
    for call, row in zip(calls, rows, strict=True):
        case = GEMM.spec.case(row["sizes"], row["precision"], row["flags"], row["memory"])
        inputs = draw(GEMM, case, row["seed"])
        a, b = inputs.physical["a"], inputs.physical["b"]
        assert a is not None and b is not None
        assert torch.equal(call.args[0], a) and torch.equal(call.args[1], b)
        assert call.args[0].stride() == a.stride(), "memory layouts are kept"
        assert torch.equal(call.expected[0], reference_outputs(GEMM, case, inputs)["c"])
        assert call.tolerances == (GEMM.spec.tolerance.of(GEMM.spec, case),)
        assert (call.kwargs.get("bias") is None) == (row["flags"]["bias"] == "no")
    assert {c.precision for c in calls} == {p.name for p in GEMM.spec.precisions}


def test_vectors_cover_every_flag_tails_and_empties(stored: Path) -> None:
    rows = json.loads((stored / "golden" / "cases.json").read_text())["families"][0]["cases"]
    for precision in GEMM.spec.precisions:
        mine = [r for r in rows if r["precision"] == precision.name]
        for flag in GEMM.spec.flags:
            wanted = set(GEMM.spec.flag_values(flag, precision, "host"))
            assert {r["flags"][flag.name] for r in mine} == wanted
        assert any(0 in r["sizes"].values() for r in mine)
        assert any(r["sizes"]["N"] % 16 and r["sizes"]["K"] % 4 for r in mine)
        assert {r["memory"] for r in mine} == {"dense", "padded"}
    assert sum(p.stat().st_size for p in (stored / "golden").iterdir()) < 3_000_000


def test_a_copy_for_a_call_that_changes_it_stays_where_it_was(
    receiver: dict[str, ModuleType],
) -> None:
    assert receiver["golden"].own(torch.ones(3, device="meta")).device.type == "meta"


def test_the_launcher_has_a_code_for_every_dtype() -> None:
    source = Path(golden.__file__).parent / "receiver" / "verify_parts" / "gpu.py"
    (codes,) = re.findall(r"^_CODES = \((.*?)^\)", source.read_text(), re.DOTALL | re.MULTILINE)
    found = [name.strip() for name in codes.split(",") if name.strip()]
    wanted = {one.code: f"torch.{one.torch_name}" for one in DTYPES.values()}
    assert found == [wanted[code] for code in sorted(wanted)]


@pytest.mark.parametrize("name", ["attention", "paged_attention", "hadamard", "gemm"])
def test_sizes_that_gpu_binaries_fix_have_stored_calls(name: str, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="triton says which sizes its binaries fix")
    found = family(name)
    precision = found.spec.precisions[0].name
    stored = {}
    for for_gpus in (False, True):
        folder = tmp_path / str(for_gpus)
        golden.write_golden(folder, [(found, op_of(found))], [precision], for_gpus)
        stored[for_gpus] = json.loads((folder / "cases.json").read_text())["families"][0]["cases"]
    more = stored[True][len(stored[False]) :]
    assert stored[True][: len(stored[False])] == stored[False]
    fixed = [dict(one) for one in fixed_sizes(found.module("triton")) if one]
    for one in fixed:
        assert any(one.items() <= row["sizes"].items() for row in more), one
    assert bool(more) == bool(fixed)


def test_every_stored_call_fits_the_schema(stored: Path) -> None:
    positional = [a.name for a in OP.arguments() if not a.keyword_only]
    keywords = {a.name for a in OP.arguments() if a.keyword_only}
    for row in json.loads((stored / "golden" / "cases.json").read_text())["families"][0]["cases"]:
        assert len(row["args"]) == len(positional)
        assert set(row["kwargs"]) <= keywords
        told = row["flags"]["bias"] == "yes" or row["flags"]["scale"] != "none"
        assert ("N" in row["kwargs"]) == (row["flags"]["b_layout"] == "panel16" and not told)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    free=st.integers(0, 3),
    align=st.sampled_from([0, 64, 512]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int8]),
)
def test_the_receiver_places_and_owns_what_a_call_changes(
    receiver: dict[str, ModuleType], shape: list[int], free: int, align: int, dtype: torch.dtype
) -> None:
    """Empty tensors too: a view of larger memory, and a copy of it that keeps strides and alignment."""
    value = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    placed = receiver["golden"].placed(value, min(free, len(shape)), align)
    copy = receiver["golden"].own(placed)
    for one in (placed, copy):
        assert torch.equal(one, value)
        assert not (align and one.numel()) or one.data_ptr() % align == 0
    assert copy.stride() == placed.stride() and copy.shape == placed.shape
    before = placed.clone()
    copy.fill_(1)
    assert torch.equal(placed, before), "a change of the copy is no change of what was placed"


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=True, width=16), min_size=1, max_size=6),
    error=st.floats(-0.1, 0.1),
    tolerance=st.sampled_from([0.0, 1e-6, 1e-3, 0.05]),
    unit=st.sampled_from([0.0, 1.0]),
)
def test_the_receiver_judges_as_the_core_does(
    receiver: dict[str, ModuleType],
    values: list[float],
    error: float,
    tolerance: float,
    unit: float,
) -> None:
    want = torch.tensor(values, dtype=torch.float64)
    got = (want * (1 + error)).to(torch.float16)
    ours = compare(got, want, tolerance, unit)
    theirs = receiver["compare"].compare(got, want, tolerance, unit)
    assert repr(theirs) == repr(ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
def test_the_shipped_packing_is_the_families_own(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = tmp_path / f"shipped_{dtype}".replace(".", "_")
    folder.mkdir()
    (folder / "_layouts_gemm.py").write_text(pyapi.layouts_module(GEMM, OP) or "")
    (folder / "_ops.py").write_text("LIBRARY = None\nops = None\n")
    (folder / "_fakes.py").write_text("")
    (folder / "__init__.py").write_text(pyapi.init_module([(GEMM, OP)], "gemm.", ["scalar"]))
    module = module_from(folder / "__init__.py", folder.name)
    b = torch.randint(-9, 9, (13, 37)).to(dtype)
    precision = next(p for p in GEMM.spec.precisions if p.dtypes["b"].torch() == dtype)
    expected = GEMM.module("reference").to_panel16(b, precision.sizes)
    assert torch.equal(module.pack_b(b), expected)
    assert torch.equal(module.pack_b(b, "NK"), b.t())
    with pytest.raises(
        ValueError, match="cannot pack torch.float64 as 'panel16'; accepted: NK, panel16 of"
    ):
        module.pack_b(b.double())
    compile((folder / "__init__.py").read_text(), "init", "exec")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("2.13.0+cpu", (2, 13, 0)),
        ("2.9", (2, 9)),
        ("2.12.0a0", (2, 12, 0)),
        ("2.11rc1.dev3", (2, 11)),
    ],
)
def test_version_numbers(version: str, expected: tuple[int, ...]) -> None:
    assert numbers(version) == expected


def test_the_elf_reader_agrees_with_readelf() -> None:
    library = Path(torch.__file__).parent / "lib" / "libc10.so"
    elf = read_elf(library)
    shown = subprocess.run(
        ["readelf", "-dVW", "--dyn-syms", str(library)], capture_output=True, text=True, check=True
    ).stdout
    assert list(elf.needed) == [
        line.split("[")[1].rstrip("]") for line in shown.splitlines() if "(NEEDED)" in line
    ]
    for prefix, version in elf.versions.items():
        assert f"{prefix}_{dotted(version)}" in shown
    undefined = {
        line.split()[7].split("@")[0]
        for line in shown.splitlines()
        if " UND " in line and " GLOBAL " in line
    }
    assert set(elf.undefined) == undefined
    assert not set(elf.exported) & undefined


@pytest.mark.parametrize(
    "data", [b"", b"MZ", b"\x7fELF\x02\x01" + b"\xff" * 90], ids=["empty", "short", "ones"]
)
def test_what_is_no_elf_file_is_an_elf_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.so"
    path.write_bytes(data)
    with pytest.raises(ElfError):
        read_elf(path)


def client(code: str, *arguments: str) -> Any:
    """What Hugging Face's client says, as JSON; our own folder of that name is not on this path."""
    try:
        installed.distribution("kernels")
    except installed.PackageNotFoundError:
        pytest.skip("the kernels client is not installed")
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import json, sys\n{code}", *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_variant_names_are_those_the_client_knows() -> None:
    name = layout.variant_name("2.11")
    code = (
        "from kernels import variants as v\n"
        "mine = v.parse_variant(sys.argv[1])\n"
        "accepted, trace = v.resolve_variants([mine], 'cpu')\n"
        "print(json.dumps([mine.variant_str, [a.variant_str for a in accepted]]))"
    )
    assert client(code, name) == [name, [name]]


def test_digest_leaves_metadata_and_bytecode_out(tmp_path: Path) -> None:
    (tmp_path / "binaries").mkdir()
    (tmp_path / "__pycache__").mkdir()
    for name in ("a.py", "metadata.json", "binaries/x.cubin", "__pycache__/a.pyc"):
        (tmp_path / name).write_text(name)
    digest = layout.variant_digest(tmp_path)
    code = (
        "from kernels._rust import Digest, DigestAlgorithm\n"
        "print(json.dumps(Digest.hash_variant(DigestAlgorithm.SHA256, sys.argv[1]).files))"
    )
    assert digest["files"] == client(code, str(tmp_path))
    assert set(digest["files"]) == {"a.py", "binaries/x.cubin"}


def test_levels_are_those_of_the_core() -> None:
    """verify.py stands alone, so it has a copy of the core's table; the compiled library asks the processor."""
    from tilewright import machine, native

    assert LEVELS == machine.LEVELS
    assert cpu_levels() == machine.usable_levels(machine.cpu_flags())
    assert native.module().cpu_levels() == machine.usable_levels()


def test_the_hash_follows_the_sources_not_the_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "spec.py").write_text("x")
        (tmp_path / name / "host.cpp").write_text("int f();")
    one, two = (dataclasses.replace(GEMM, folder=tmp_path / name) for name in ("one", "two"))
    same = provenance.content_hash([one], ["fact"])
    assert provenance.content_hash([two], ["fact"]) == same
    assert provenance.content_hash([one], ["other"]) != same
    (tmp_path / "two" / "host.cpp").write_text("int g();")
    assert provenance.content_hash([two], ["fact"]) != same


def test_git_state_says_commit_and_dirt(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) == {"commit": None, "dirty": None}

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True
        )

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "one")
    state = provenance.git_state(tmp_path)
    assert state["dirty"] is False and len(state["commit"]) == 40
    (tmp_path / "file").write_text("2")
    assert provenance.git_state(tmp_path) == {"commit": state["commit"], "dirty": True}


def test_a_combination_that_does_not_compile_is_listed_with_its_reason() -> None:
    pytest.importorskip("triton")
    where = target("cuda:sm_80")
    config = Config({**GEMM.spec.default_config(where), "tile_k": 8})
    spoiled = dataclasses.replace(GEMM.spec, default={"cuda": config})
    part = compile_gpu([dataclasses.replace(GEMM, spec=spoiled)], [where], ["fp16"], workers=1)
    # With batch_invariant the tile is not the config's, so that binary exists.
    assert {e["flags"].get("batch_invariant") for e in part.entries} == {1}
    assert {r["precision"] for r in part.refused} == {"fp16"}
    assert all("tile_k" in r["reason"] for r in part.refused)


def test_binaries_serve_every_combination_of_flags_once() -> None:
    pytest.importorskip("triton")
    part = compile_gpu([GEMM], [target("cuda:sm_80")], ["fp16"], workers=1)
    entries = read_entries(part.entries)
    assert {e.binary for e in entries} == set(part.binaries)
    assert {hashlib.sha256(data).hexdigest() for data in part.binaries.values()} == {
        e.sha256 for e in entries
    }
    layouts = GEMM.spec.flag("b_layout").values
    assert [layouts[e.flags["b_layout"]] for e in entries] == ["KN", "KN", "NK", "NK"]
    divisible = [any(a.divisible > 1 for a in e.args) for e in entries]
    assert divisible == [True, False, True, False], "the specialised binary is tried first"
    assert all(e.tensors[2].presence == "optional" for e in entries), (
        "one binary with and without bias"
    )


def test_dispatch_says_why_for_every_target() -> None:
    targets = [CPU, target("hip:gfx942"), target("ascend:910b3")]
    table = dispatch.document([GEMM], targets, GpuPart(), ["gemm"])
    assert list(table["targets"]) == ["cpu", "hip:gfx942", "ascend:910b3"]
    for name, families in table["targets"].items():
        row = families["gemm"]
        assert row["default"]["config"] == dict(GEMM.spec.default_config(target(name)))
        assert row["default"]["reason"] and row["form"]
    assert "not run on hardware" in table["targets"]["ascend:910b3"]["gemm"]["form"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"families": ["gem"]}, "unknown family 'gem'"),
        ({"targets": ["cuda:sm_75"]}, "unknown target 'cuda:sm_75'"),
        ({"cpu_level": "sse"}, "unknown CPU level 'sse'; accepted: scalar"),
        ({"gpu_precisions": ["fp8"]}, "unknown precision 'fp8'"),
        ({"version": -1}, "version -1 is negative"),
        ({"name": "Über"}, "'Über' is no name for a bundle"),
        ({"bench": Path("/nowhere.json")}, "cannot be read as the JSON of tilewright bench"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_request(tmp_path / "new", **{"families": ["gemm"], **changes})


def test_timings_become_a_table_with_their_evidence(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    row = {"family": "gemm", "dtype": "fp32", "median_us": 12.345678, "evidence": "measured"}
    path.write_text(
        json.dumps({"schema": "tilewright/bench/1", "host": {"cpu": "X1"}, "rows": [row]})
    )
    assert make_request(tmp_path / "new", ["gemm"], bench=path).bench == path
    manifest = {
        "needs": {"system": "Linux", "machine": "x86_64", "glibc": "2.28", "python": "3.9"}
        | {"torch": "2.11", "cpu_level": "scalar"},
        "ops": {"gemm": OP.as_dict()},
        "source": {"commit": "c0ffee", "dirty": True},
        "name": "n", "id": "_n_0", "tilewright": "0", "variant": "v", "cpu_levels": ["scalar"], "targets": {},
    }  # fmt: skip
    text = readme(manifest, json.loads(path.read_text()))
    assert "Timed on X1" in text and "12.35" in text and "measured" in text
    assert "commit c0ffee, with local changes" in text
    assert "No timings were given" in readme(manifest, None)


def test_requirements_of_torch_are_followed() -> None:
    names = clean_venv.closure(["torch"])
    assert {"torch", "sympy", "mpmath", "typing-extensions"} <= set(names)
    assert "tilewright" not in names and "triton" not in names
    with pytest.raises(Unavailable, match="no-such-thing is not installed"):
        clean_venv.closure(["no-such-thing"])


def test_a_clean_environment_is_clean_and_says_when_it_is_not(tmp_path: Path) -> None:
    made = clean_venv.make(tmp_path / "env")
    done = made.run(
        ["-c", "import torch, os; print(float(torch.ones(2).sum()), os.environ['PATH'])"]
    )
    assert done.stdout.split() == ["2.0", str(made.bin)]
    assert sorted(p.name for p in made.bin.iterdir()) == ["python", "python3"]
    with pytest.raises(TilewrightError, match="exists"):
        clean_venv.make(tmp_path / "env")
    site = next((made.path / "lib").glob("python3.*/site-packages"))
    (site / "tilewright").mkdir()
    with pytest.raises(TilewrightError, match="tilewright can be imported"):
        clean_venv.assert_clean(made)
    (site / "tilewright").rmdir()
    (made.bin / "cc").symlink_to(sys.executable)
    with pytest.raises(TilewrightError, match="has cc on PATH"):
        clean_venv.assert_clean(made)
    clean_venv.remove(made)
    assert not made.path.exists() and Path(torch.__file__).exists()


def test_padding_surrounds_with_poison(receiver: dict[str, ModuleType]) -> None:
    view = receiver["golden"].placed(torch.ones(2, 3, 4), 2)
    assert torch.equal(view, torch.ones(2, 3, 4)) and view.stride() == (24, 4, 1)
    assert math.isnan(float(view._base[0]))
