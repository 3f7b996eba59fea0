"""An AscendC family in a temporary folder: listed as twin, compiled when first used, checked, run and modelled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, CommandLine
from tilewright.backends.ascendc import refused_values

TWICE = ROOT / "tests" / "fakes" / "twice"
Family = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def family(tmp_path: Path, cache: Path) -> Family:
    """A copy of twice with replacements in one of its files; the environment that names it."""

    def make(file: str = "", *replacements: tuple[str, str]) -> dict[str, str]:
        folder = tmp_path / "twice"
        shutil.copytree(TWICE, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for old, new in replacements:
            text = (folder / file).read_text()
            assert old in text
            (folder / file).write_text(text.replace(old, new))
        return {"TILEWRIGHT_FAMILIES": str(folder), "TILEWRIGHT_CACHE": str(cache)}

    return make


RUN = ("twin", "run", "twice", "--shape", "N=100", "--json", "-")


def test_it_is_listed_with_what_it_refuses(tilewright: CommandLine, family: Family) -> None:
    rows = tilewright("list", "twice", "--json", "-", env=family()).document["rows"]
    cells = [r for r in rows if r["backend"] == "ascendc"]
    chips = ("910b1", "910b2", "910b3", "910b4", "910_93")
    assert [r["target"] for r in cells] == [f"ascend:{chip}" for chip in chips]
    assert {r["state"] for r in cells} == {"twin"}
    assert {r["reason"] for r in cells} == {
        "runs on the host twin; no time is measured; not shift=yes"
    }


def test_it_is_checked_run_and_modelled(
    tilewright: CommandLine, family: Family, cache: Path
) -> None:
    env = family()
    ran = tilewright("check", "twice", "--backend", "ascendc", "--json", "-", env=env)
    assert ran.code == 0, ran.err
    rows = ran.document["rows"]
    assert len(rows) >= 16 and all(r["ok"] and r["rel_err"] == 0 for r in rows)
    assert {r["case"].split()[0] for r in rows} == {"N=0", "N=1", "N=33", "N=1000"}
    (library,) = cache.rglob("*.so")

    ran = tilewright(*RUN, env=env)
    assert ran.code == 0, ran.err
    (row,) = ran.document["rows"]
    assert row["ok"] and row["blocks"] == 4 and row["peak"]["ub"] == 256
    assert row["instructions"]["MTE2"]["CopyPad"] == 2
    modelled = tilewright("model", "twice", "--shape", "N=100", "--json", "-", env=env)
    assert modelled.code == 0, modelled.err
    assert modelled.document["rows"][0]["bound_by"] == "s"
    assert [*cache.rglob("*.so")] == [library], "compiled once"


def test_a_wrong_kernel_is_caught(tilewright: CommandLine, family: Family) -> None:
    env = family("ascendc/twice.cpp", ("t.n - i < t.tile ? t.n - i", "t.n - i < 8 ? 0"))
    ran = tilewright(*RUN, env=env)
    assert ran.code == 1
    assert any(f["kind"] == "out-of-bounds" for f in ran.document["findings"])


def test_findings_name_the_family_and_the_line(tilewright: CommandLine, family: Family) -> None:
    env = family("ascendc/twice.cpp", ("WaitFlag<HardEvent::S_MTE3>(EVENT_ID0);", ""))
    lines = (Path(env["TILEWRIGHT_FAMILIES"]) / "ascendc/twice.cpp").read_text().splitlines()
    wanted = 1 + next(i for i, line in enumerate(lines) if "SetFlag<HardEvent::S_MTE3>" in line)
    ran = tilewright("twin", "run", "twice", "--shape", "N=64", "--json", "-", env=env)
    assert ran.code == 1
    found = {f["kind"]: f for f in ran.document["findings"]}
    assert set(found) == {"unpaired-flag", "race"}, "nobody waits, so the copy may start too early"
    assert {f["file"] for f in found.values()} == {"twice/ascendc/twice.cpp"}
    assert found["unpaired-flag"]["line"] == wanted
    assert found["race"]["missing"] == "HardEvent::S_MTE3"


@pytest.mark.parametrize(
    ("replacement", "code", "sentence"),
    [
        (
            ("pipe.InitBuffer", "pipe.InitBuffers"),
            1,
            "the AscendC kernel of twice does not build: ",
        ),
        (("void twice_fp32", "void twice_f32"), 3, "no kernel 'twice_fp32' in "),
        (
            ('extern "C"', 'void Elsewhere();\nextern "C"'),
            3,
            "undefined symbol: _Z9Elsewherev",
        ),
    ],
    ids=["compile", "name", "link"],
)
def test_what_does_not_build_or_load_is_one_sentence(
    tilewright: CommandLine,
    family: Family,
    replacement: tuple[str, str],
    code: int,
    sentence: str,
) -> None:
    env = family("ascendc/twice.cpp", replacement, ("TPipe pipe;", "TPipe pipe; CALL"))
    source = Path(env["TILEWRIGHT_FAMILIES"]) / "ascendc/twice.cpp"
    calls = "Elsewhere();" if "Elsewhere" in replacement[1] else ""
    source.write_text(source.read_text().replace("CALL", calls))
    ran = tilewright(*RUN, env=env)
    assert ran.code == code
    said = [line for line in ran.err.splitlines() if line.startswith("tilewright: ")]
    assert len(said) == 1 and sentence in said[0]
    assert "Traceback" not in ran.err


def test_a_folder_without_kernels_or_with_a_broken_adapter_says_so(
    tilewright: CommandLine, family: Family
) -> None:
    env = family()
    folder = Path(env["TILEWRIGHT_FAMILIES"]) / "ascendc"

    def reason() -> str:
        ran = tilewright("list", "twice", "--backend", "ascendc", "--json", "-", env=env)
        assert ran.code == 0 and {r["state"] for r in ran.document["rows"]} == {"absent"}
        return str(ran.document["rows"][0]["reason"])

    (folder / "twice.cpp").rename(folder / "twice.txt")
    assert reason() == f"{folder} has an adapter.py and no .cpp beside it"
    (folder / "twice.txt").rename(folder / "twice.cpp")
    (folder / "adapter.py").write_text("import nowhere_to_be_found\n")
    assert "adapter.py cannot be imported: ModuleNotFoundError" in reason()
    (folder / "adapter.py").unlink()
    assert reason() == "the family has no AscendC kernel"


def test_our_own_rows_say_what_they_refuse(tilewright: CommandLine) -> None:
    def reasons(family: str) -> dict[str, str]:
        ran = tilewright("list", family, "--target", "ascend:910b1", "--json", "-")
        return {r["dtype"]: r["reason"] for r in ran.document["rows"]}

    for precision in ("fp16", "int8->fp16"):
        assert reasons("gemm")[precision] == "runs on the host twin; no time is measured"
    assert "; not compute=int8; " in reasons("attention")["fp16"]


@pytest.mark.parametrize(
    ("refused", "taken", "words"),
    [
        ([{"a": "1", "b": "1"}, {"a": "1", "b": "2"}], [{"a": "2", "b": "1"}], "a=1, b=2"),
        ([{"a": "1", "b": "1"}], [{"a": "1", "b": "2"}, {"a": "2", "b": "1"}], "a=1 with b=1"),
    ],
)
def test_values_are_named_alone_only_if_no_case_takes_them(
    refused: list[dict[str, str]], taken: list[dict[str, str]], words: str
) -> None:
    assert refused_values(refused, taken) == words
