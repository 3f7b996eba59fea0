"""optuna-dashboard on studies of ours: the real server, its pages and its API, without an error."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autotune_doubles import CostModel, gemm_case
from tilewright.autotune.study import tune
from tilewright.backends.host import Host
from tilewright.registry import family
from tilewright.targets import CPU

pytest.importorskip("optuna_dashboard", reason="`pip install 'tilewright[dashboard]'` brings it")

GEMM = family("gemm")
# One that fails beside the default, so that the views meet failures.
DEFAULT = GEMM.spec.default_config(CPU)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


@contextmanager
def dashboard(storage: str, log: Path) -> Iterator[str]:
    """The real dashboard on a storage; gives its address."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    flags = ["-S"] if sys.flags.no_site else []
    code = "from optuna_dashboard._cli import main; main()"
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                *flags,
                "-c",
                code,
                storage,
                "--port",
                str(port),
                "--host",
                "127.0.0.1",
            ],
            stdout=file,
            stderr=file,
        )
    try:
        end = time.monotonic() + 90
        while True:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(30)


def get(address: str) -> Any:
    """What the API answers; an answer that is an error fails the test."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert answer.status == 200
        return json.loads(answer.read(), parse_constant=lambda word: pytest.fail(f"{word} in JSON"))


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_the_dashboard_shows_studies_of_ours(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("s.journal" if kind == "journal" else "s.db")
    url = f"journal:{path}" if kind == "journal" else f"sqlite:///{path}"
    result = tune(
        GEMM,
        gemm_case(),
        "cpu",
        12,
        objective=CostModel(wrong=(DEFAULT,)),
        backend=Host(),
        storage=url,
    )
    log = tmp_path / "log"
    with dashboard(str(path) if kind == "journal" else url, log) as address:
        (summary,) = get(f"{address}/api/studies")["study_summaries"]
        assert summary["study_name"] == result.study
        number = summary["study_id"]
        study = get(f"{address}/api/studies/{number}")
        assert len(study["trials"]) == len(result.rows) == 12
        for shown, row in zip(study["trials"], result.rows, strict=True):
            assert shown["state"] == "Complete"
            params = {p["name"]: int(float(p["param_external_value"])) for p in shown["params"]}
            assert params == dict(row.config)
            attributes = {a["key"]: a["value"] for a in shown["user_attrs"]}
            assert {"claim", "record", "stage"} <= set(attributes)
            # A failure has a finite value, behind every other: what is null or infinite draws no view.
            assert len(shown["values"]) == 1 and float(shown["values"][0]) < float("inf")
            if row.value is not None:
                assert float(shown["values"][0]) == row.value
        failed = study["trials"][0]
        worst = max(r.value for r in result.rows if r.value is not None)
        assert float(failed["values"][0]) > worst
        importance = get(f"{address}/api/studies/{number}/param_importances")
        named = {p["name"] for p in importance["param_importances"][0]}
        assert named == {"tile_m", "tile_n", "tile_k", "stages", "split_k"}
        with urllib.request.urlopen(f"{address}/dashboard/studies/{number}", timeout=60) as page:
            assert page.status == 200 and b"<html" in page.read().lower()
    assert "Traceback" not in log.read_text()
