"""Fixtures that several tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# How long an example takes says something of the machine's other users, and nothing of the code. CI tries the same
# examples each time, so that what it says is of the change; everywhere else they are new ones.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tests")

# What takes long to make once for all its tests.
_BUNDLES = {"made", "clean", "built"}

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did: exit code, what it printed, and its `--json -` document if it wrote one."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.out)
        return loaded


CommandLine = Callable[..., Ran]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file run in one process, one after the other, and so do all those of the same bundles."""
    for item in items:
        bundles = _BUNDLES & set(getattr(item, "fixturenames", ()))
        item.add_marker(pytest.mark.xdist_group("bundles" if bundles else item.path.name))


@pytest.fixture(scope="session")
def private_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment that keeps the user's caches, studies and tuned configs out of the tests."""
    folder = tmp_path_factory.mktemp("user")
    return {"TILEWRIGHT_DATA": str(folder / "data")}


@pytest.fixture(scope="session")
def ascend_ir(tilewright: CommandLine) -> None:
    """The ascend-ir toolchain, installed as a user would, kept in the user's cache for the next time.

    Skips where it cannot be had: no wheels for this machine, or TILEWRIGHT_OFFLINE=1 and not there.
    """
    _install(tilewright, "ascend-ir")


@pytest.fixture(scope="session")
def bench_readers(tilewright: CommandLine) -> None:
    """The tools that read our exports, installed and kept in the same way."""
    _install(tilewright, "bench-readers")


def _install(tilewright: CommandLine, name: str) -> None:
    from tilewright import toolchains

    one = toolchains.toolchain(name)
    if toolchains.installed(one) is not None:
        return
    if reason := toolchains.unsupported(one):
        pytest.skip(reason)
    if os.environ.get("TILEWRIGHT_OFFLINE") == "1":
        pytest.skip(f"TILEWRIGHT_OFFLINE is set and {toolchains.why_missing(one)}")
    ran = tilewright("toolchain", "install", name)
    assert ran.code == 0, f"{ran.err}\nWithout a package index, set TILEWRIGHT_OFFLINE=1."


@pytest.fixture(scope="session")
def tilewright(private_folders: dict[str, str]) -> CommandLine:
    """Run the installed command as a user would; `env=` adds variables."""

    def run(
        *arguments: str,
        env: dict[str, str] | None = None,
        timeout: float = 600,
        cwd: Path | None = None,
    ) -> Ran:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from tilewright.cli.main import main; raise SystemExit(main())",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **private_folders, **(env or {})},
            cwd=cwd,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
