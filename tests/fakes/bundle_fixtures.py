"""One bundle of gemm and one receiver's environment, made once a session; copies of it to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fakes.bundles import Receive, request
from tilewright.ship import clean_venv
from tilewright.ship.bundle import Bundle, build
from tilewright.ship.clean_venv import CleanVenv
from tilewright.ship.receive import Verdict, verify


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(request(tmp_path_factory.mktemp("ship") / "bundle"))


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> CleanVenv:
    """torch and the `kernels` client, no tilewright, no compiler."""
    return clean_venv.make(tmp_path_factory.mktemp("receiver") / "env", ["kernels"])


@pytest.fixture
def copy(made: Bundle, tmp_path: Path) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


@pytest.fixture
def receive(clean: CleanVenv) -> Receive:
    """Verify in the clean environment."""

    def run(folder: Path, *options: str, **variables: str) -> Verdict:
        return verify(folder, options, lambda arguments: clean.run(arguments, extra=variables))

    return run
