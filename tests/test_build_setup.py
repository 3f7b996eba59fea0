"""What `make setup` stands on: missing packages are named, pins are exact, the build does nothing twice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def preflight(folder: Path, *tools: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a PATH that has these tools only."""
    folder.mkdir()
    for tool in tools:
        source = sys.executable if tool == "python3" else shutil.which(tool)
        assert source is not None
        # A symbolic link to a virtual environment's python is not that environment: wrap it.
        (folder / tool).write_text(f'#!/bin/sh\nexec "{source}" "$@"\n', encoding="utf-8")
        (folder / tool).chmod(0o755)
    return subprocess.run(
        ["/bin/sh", str(ROOT / "tools" / "preflight.sh")],
        env={"PATH": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_complete_machine_prints_its_python(tmp_path: Path) -> None:
    done = preflight(tmp_path / "bin", "python3", "git", "make", "g++")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(tmp_path / "bin" / "python3")


@pytest.mark.parametrize("absent", ["git", "make", "g++"])
def test_a_missing_tool_is_named_with_its_package(tmp_path: Path, absent: str) -> None:
    tools = [t for t in ("python3", "git", "make", "g++") if t != absent]
    done = preflight(tmp_path / "bin", *tools)
    assert done.returncode == 1 and done.stdout == ""
    assert f"missing: {absent}\n" in done.stderr
    assert f"sudo apt-get install {absent}\n" in done.stderr


def test_everything_missing_is_named_at_once(tmp_path: Path) -> None:
    done = preflight(tmp_path / "bin")
    assert done.returncode == 1
    assert "missing: python3 3.11 or later" in done.stderr
    assert done.stderr.endswith(
        "sudo apt-get install python3 python3-venv python3-dev git make g++\n"
    )


def test_a_python_without_venv_and_headers_is_named_by_version(tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    fake = (
        '#!/bin/sh\ncase "$2" in\n'
        '*"sys.version_info < "*) exit 0;;\n'
        '*"python%d.%d"*) echo python3.12;;\n'
        "*ensurepip*) exit 1;;\n"
        "*get_path*) echo /nowhere;;\nesac\n"
    )
    folder.mkdir()
    (folder / "python3").write_text(fake, encoding="utf-8")
    (folder / "python3").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(ROOT / "tools" / "preflight.sh")],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "python3.12-venv python3.12-dev git make g++" in done.stderr


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    exact = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^=\s]+)", line) for line in lines if line]
    assert all(exact), "every line of requirements.lock is name==version"
    return {m[1].lower().replace("_", "-"): m[2] for m in exact if m}


def test_the_lock_pins_every_dependency_within_its_range() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = pins()
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *optional["dev"], *optional["report"], *optional["models"]]
    for text in wanted:
        requirement = Requirement(text)
        version = locked.get(requirement.name.lower().replace("_", "-"))
        assert version is not None, f"{text} is not in requirements.lock"
        assert requirement.specifier.contains(version), f"{text} excludes the pinned {version}"


def test_rooms_are_subpackages_and_nothing_else_is_installed() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    packages = tool["scikit-build"]["wheel"]["packages"]
    assert all(name == "tilewright" or name.startswith("tilewright/") for name in packages)
    rooms = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert rooms <= {Path(source).name for source in packages.values()}


@pytest.mark.skipif(not list(ROOT.glob("build/cp*/build.ninja")), reason="not built in this tree")
def test_generated_sources_do_not_change_on_their_own(tmp_path: Path) -> None:
    code = "from tilewright.bindings.generate import main; main()"
    texts = []
    for turn in ("one", "two"):
        target = tmp_path / turn
        subprocess.run(
            [sys.executable, "-c", code, "torch", str(target), "--families=gemm"],
            env={**os.environ, "PYTHONHASHSEED": str(len(turn) + len(texts))},
            check=True,
        )
        texts.append(target.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    stamp = (tmp_path / "two").stat().st_mtime_ns
    subprocess.run(
        [sys.executable, "-c", code, "torch", str(tmp_path / "two"), "--families=gemm"], check=True
    )
    assert (tmp_path / "two").stat().st_mtime_ns == stamp
