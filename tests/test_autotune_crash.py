"""Ctrl-C, kill -9 and several processes: nothing found is lost, nothing is measured twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from autotune_doubles import CostModel, cost, gemm_case, read_log
from tilewright.autotune.study import tune
from tilewright.autotune.trials import State
from tilewright.backends.host import Host
from tilewright.registry import family
from tilewright.targets import CPU

pytestmark = pytest.mark.alone

GEMM = family("gemm")
DEFAULT = GEMM.spec.default_config(CPU)

# One tuning in a process of its own: arguments are folder, trials, seconds per trial, document.
SCRIPT = """
import sys
from pathlib import Path
from autotune_doubles import CostModel, gemm_case
from tilewright.autotune.study import tune
from tilewright.backends.host import Host
from tilewright.document import write
folder, count, sleep, place = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
model = CostModel(log=folder / "log", sleep_s=sleep)
result = tune("gemm", gemm_case(), "cpu", count, objective=model, backend=Host(), seed=4,
              storage=f"journal:{folder}/study.journal")
write(place, "tune", result.rows, **result.top())
"""


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    here = str(Path(__file__).parent)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    )


def start(folder: Path, count: int, sleep_s: float) -> subprocess.Popen[bytes]:
    flags = ["-S"] if sys.flags.no_site else []
    arguments = [str(folder), str(count), str(sleep_s), str(folder / "out.json")]
    return subprocess.Popen([sys.executable, *flags, "-c", SCRIPT, *arguments])


def wait_for(folder: Path, what: str, count: int) -> None:
    end = time.monotonic() + 60
    while sum(r["what"] == what for r in read_log(folder / "log")) < count:
        assert time.monotonic() < end, f"no {count} of '{what}' in {read_log(folder / 'log')}"
        time.sleep(0.02)


def finished(folder: Path) -> list[dict[str, int]]:
    return [r["config"] for r in read_log(folder / "log") if r["what"] == "timed"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_the_best_and_the_rest_resumes(tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path, 40, 0.15)
    wait_for(tmp_path, "start", 5)
    process.send_signal(number)
    assert process.wait(30) == 0
    document = json.loads((tmp_path / "out.json").read_text())
    good = [r for r in document["rows"] if r["state"] == "ok"]
    assert document["interrupted"] is True
    assert 4 <= len(good) < 40
    assert document["best"]["value"] == min(r["value"] for r in good)
    assert document["stored"]
    done = finished(tmp_path)
    result = tune(
        GEMM,
        gemm_case(),
        "cpu",
        12,
        objective=CostModel(log=tmp_path / "log"),
        backend=Host(),
        seed=4,
        storage=f"journal:{tmp_path}/study.journal",
    )
    assert not result.interrupted
    assert all(r.state is State.OK for r in result.rows)
    assert finished(tmp_path)[: len(done)] == done
    assert len({json.dumps(c) for c in finished(tmp_path)}) == len(finished(tmp_path)) == 12


def test_kill_9_and_resume_is_the_same_study_as_one_never_killed(tmp_path: Path) -> None:
    process = start(tmp_path, 40, 0.15)
    wait_for(tmp_path, "start", 4)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    done = finished(tmp_path)
    assert len(done) >= 3
    resumed = tune(
        GEMM,
        gemm_case(),
        "cpu",
        10,
        objective=CostModel(log=tmp_path / "log"),
        backend=Host(),
        seed=4,
        storage=f"journal:{tmp_path}/study.journal",
    )
    whole = tune(
        GEMM,
        gemm_case(),
        "cpu",
        10,
        objective=CostModel(),
        backend=Host(),
        seed=4,
        storage=f"journal:{tmp_path}/whole.journal",
    )
    assert [r.config for r in resumed.rows] == [r.config for r in whole.rows]
    assert len({json.dumps(c) for c in finished(tmp_path)}) == len(finished(tmp_path)) == 10
    assert resumed.best == whole.best


def test_workers_share_a_study_and_never_time_at_once(tmp_path: Path) -> None:
    model = CostModel(log=tmp_path / "log", sleep_s=0.03, meet=2)
    result = tune(
        GEMM,
        gemm_case(),
        "cpu",
        16,
        objective=model,
        backend=Host(),
        workers=2,
        storage=f"journal:{tmp_path}/study.journal",
    )
    timed = sorted(
        (r for r in read_log(model.log) if r["what"] == "timed"), key=lambda r: r["start"]
    )
    assert len(result.rows) == result.measured == len(timed) == 16
    assert len({json.dumps(r["config"]) for r in timed}) == 16
    assert result.rows[0].config == DEFAULT
    assert len({r["pid"] for r in timed}) == 2
    assert all(one["end"] <= other["start"] for one, other in pairwise(timed))


def test_a_config_that_kills_its_process_is_retried_then_recorded(tmp_path: Path) -> None:
    model = CostModel(log=tmp_path / "log", killers=(dict(DEFAULT),), kills=99)
    result = tune(
        GEMM,
        gemm_case(),
        "cpu",
        5,
        objective=model,
        backend=Host(),
        workers=2,
        storage=f"journal:{tmp_path}/study.journal",
    )
    first = result.rows[0]
    assert first.config == DEFAULT and first.state is State.FAILED
    assert first.reason == "the process died in this trial 3 times"
    assert str(first.stage) == "check"
    assert sum(r["what"] == "died" for r in read_log(model.log)) == 3
    assert len(result.rows) == 5 and result.best
    assert result.best.value == min(cost(r.config) for r in result.rows[1:])


def test_a_worker_that_dies_once_costs_nothing(tmp_path: Path) -> None:
    model = CostModel(log=tmp_path / "log", killers=(dict(DEFAULT),), kills=1)
    result = tune(
        GEMM,
        gemm_case(),
        "cpu",
        4,
        objective=model,
        backend=Host(),
        workers=2,
        storage=f"sqlite:///{tmp_path}/study.db",
    )
    assert [r.state for r in result.rows] == [State.OK] * 4
    assert result.default and result.default.value == cost(DEFAULT)
