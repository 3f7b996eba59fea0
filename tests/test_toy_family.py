"""A family in a temporary folder is found, checked, benchmarked, tuned and bound to torch; nothing else is touched."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, CommandLine


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("families") / "row_scale"
    shutil.copytree(ROOT / "examples" / "row_scale", folder)
    return {"TILEWRIGHT_FAMILIES": str(folder)}


def test_it_is_listed(tilewright: CommandLine, env: dict[str, str]) -> None:
    rows = tilewright("list", "row_scale", "--json", "-", env=env).document["rows"]
    states = {(r["backend"], r["dtype"]): r["state"] for r in rows}
    assert states["host", "fp32"] == "run"
    assert states["reference", "bf16->fp32"] == "run"
    assert states["triton", "fp32"] == "absent"
    assert "no triton.py" in next(r["reason"] for r in rows if r["backend"] == "triton")
    assert "row_scale" not in tilewright("list").out


def test_folders_of_one_name_are_two_families(
    tilewright: CommandLine, env: dict[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "row_scale"
    shutil.copytree(ROOT / "examples" / "row_scale", other)
    spec = other / "spec.py"
    spec.write_text(spec.read_text().replace('name="row_scale"', 'name="other_scale"'))
    both = {"TILEWRIGHT_FAMILIES": os.pathsep.join([env["TILEWRIGHT_FAMILIES"], str(other)])}
    families = {r["family"] for r in tilewright("list", "--json", "-", env=both).document["rows"]}
    assert {"row_scale", "other_scale"} <= families


def test_it_is_checked(tilewright: CommandLine, env: dict[str, str]) -> None:
    ran = tilewright("check", "row_scale", "--json", "-", env=env)
    assert ran.code == 0, ran.err
    rows = [r for r in ran.document["rows"] if r["backend"] == "host"]
    assert len(rows) >= 20
    assert all(r["ok"] and r["rel_err"] <= r["tolerance"] for r in rows)


def test_it_is_benchmarked(tilewright: CommandLine, env: dict[str, str]) -> None:
    ran = tilewright(
        "bench", "row_scale", "--shape", "R=64,C=1000", "--dtype", "fp32", "--json", "-", env=env
    )
    assert ran.code == 0, ran.err
    row = next(r for r in ran.document["rows"] if r["backend"] == "host")
    assert row["ok"] and row["median_us"] > 0 and row["evidence"] == "measured"
    assert row["ci_low_us"] <= row["median_us"] <= row["ci_high_us"]


def test_it_is_tuned(tilewright: CommandLine, env: dict[str, str]) -> None:
    ran = tilewright(
        "tune",
        "row_scale",
        "--target",
        "cpu",
        "--shape",
        "R=64,C=1000",
        "--dtype",
        "fp32",
        "--trials",
        "3",
        "--json",
        "-",
        env=env,
    )
    assert ran.code == 0, ran.err
    document = ran.document
    assert document["rows"][0]["config"] == {"unroll": 4}
    assert {r["config"]["unroll"] for r in document["rows"]} == {1, 4, 8}


def test_it_is_a_torch_op(env: dict[str, str]) -> None:
    code = """
import torch
from tilewright.bindings.torch.ops import torch_op
from tilewright.registry import family
op = torch_op(family("row_scale"))
x, s = torch.randn(7, 33), torch.rand(7)
assert torch.allclose(op(x, s), x * s[:, None])
assert torch.allclose(op(x.t().contiguous().t(), s), x * s[:, None])
print(torch.library.opcheck(op, (x, s)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("SUCCESS") >= 4


def test_a_wrong_kernel_is_caught_and_its_file_replays(
    tilewright: CommandLine, tmp_path: Path
) -> None:
    folder = tmp_path / "row_scale"
    shutil.copytree(ROOT / "examples" / "row_scale", folder)
    source = folder / "host.cpp"
    # Forgets the last element of each row, as an off-by-one would.
    source.write_text(
        source.read_text().replace("i < x->shape[1]; ++i", "i < x->shape[1] - 1; ++i")
    )
    env = {"TILEWRIGHT_FAMILIES": str(folder)}
    ran = tilewright(
        "check",
        "row_scale",
        "--backend",
        "host",
        "--shape",
        "R=3,C=5",
        "--dtype",
        "fp32",
        "--seed",
        "5",
        "--failures",
        str(tmp_path / "failures"),
        "--json",
        "-",
        env=env,
    )
    assert ran.code == 1
    row = ran.document["rows"][0]
    assert not row["ok"] and "nan" in row["reason"]
    assert f"replay: {row['replay']}" in ran.err
    # The printed line alone, in a shell that knows nothing of the family.
    variable, command, *arguments = shlex.split(row["replay"])
    assert command == "tilewright"
    replayed = tilewright(*arguments, "--json", "-", env=dict([variable.split("=", 1)]))
    assert replayed.code == 1
    again = replayed.document["rows"][0]
    assert (again["reason"], again["seed"], again["case"]) == (row["reason"], 5, row["case"])


def test_a_kernel_that_does_not_compile_is_one_sentence(
    tilewright: CommandLine, tmp_path: Path
) -> None:
    folder = tmp_path / "row_scale"
    shutil.copytree(ROOT / "examples" / "row_scale", folder)
    (folder / "host.cpp").write_text("int nonsense = undeclared;\n")
    ran = tilewright(
        "check",
        "row_scale",
        "--backend",
        "host",
        "--shape",
        "R=3,C=5",
        env={"TILEWRIGHT_FAMILIES": str(folder)},
    )
    assert ran.code == 1
    assert "undeclared" in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err


def test_two_families_of_one_name_are_refused(tilewright: CommandLine, tmp_path: Path) -> None:
    for place in ("one", "two"):
        shutil.copytree(ROOT / "examples" / "row_scale", tmp_path / place / "row_scale")
    ran = tilewright(
        "list", env={"TILEWRIGHT_FAMILIES": f"{tmp_path / 'one'}{os.pathsep}{tmp_path / 'two'}"}
    )
    assert ran.code == 2
    assert "two families are named 'row_scale'" in ran.err


def test_a_family_in_another_package_is_found_by_its_entry_point(
    tilewright: CommandLine, tmp_path: Path
) -> None:
    package = tmp_path / "their_kernels"
    shutil.copytree(ROOT / "examples" / "row_scale", package)
    info = tmp_path / "their_kernels-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-kernels\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tilewright.families]\nrow_scale = their_kernels\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    ran = tilewright("check", "row_scale", "--json", "-", env={"PYTHONPATH": path})
    assert ran.code == 0, ran.err
    assert {r["backend"] for r in ran.document["rows"]} == {"reference", "host"}
