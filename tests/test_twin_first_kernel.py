"""docs/twin_first_kernel.md, done as it says: every command is run, every line it shows is printed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from conftest import ROOT

PAGE = (ROOT / "docs" / "twin_first_kernel.md").read_text(encoding="utf-8")


def _blocks() -> list[tuple[str, list[str]]]:
    """Each command and the lines that the page shows after it."""
    found: list[tuple[str, list[str]]] = []
    shown = False
    for line in PAGE.splitlines():
        if line.startswith("    $ "):
            found.append((line[6:], []))
            shown = True
        elif shown and line.startswith("    "):
            found[-1][1].append(line[4:])
        else:
            shown = False
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    room = tmp_path_factory.mktemp("my_kernel")
    shutil.copy(ROOT / "examples" / "my_kernel" / "add.cpp", room)
    return room


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # The command of this interpreter's installation comes first.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "TILEWRIGHT_CACHE": str(folder / "cache")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_page_shows_what_happens(folder: Path) -> None:
    blocks = _blocks()
    assert len(blocks) >= 6
    for command, lines in blocks:
        done = _run(folder, "bash", "-c", command)
        printed = (done.stdout + done.stderr).splitlines()
        missing = [line for line in lines if line not in printed]
        assert not missing, f"{command}\n{done.stdout}{done.stderr}"
        if lines:
            assert done.returncode == (
                1 if "FAILED" in lines[-1] else 2 if "--args" in lines[-1] else 0
            )


def test_the_schedule_that_shows_the_missing_flag(folder: Path) -> None:
    command = next(c for c, _ in _blocks() if "--schedule random" in c)
    assert "z=x+y: NOT as expected" in _run(folder, "bash", "-c", command).stdout


def test_the_python_lines_run(folder: Path) -> None:
    begin = PAGE.index("    from tilewright.ascendc import twin")
    code = textwrap.dedent(PAGE[begin : PAGE.index("\nArrays of numpy", begin)])
    done = _run(folder, sys.executable, "-c", code)
    assert done.stdout.split() == ["True", "0.0", "24576"], done.stderr
