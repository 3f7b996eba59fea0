"""Many workers on one study: a journal, a real PostgreSQL, a gRPC proxy; some of them die, some stall."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import postgres
from autotune_doubles import CostModel, gemm_case, read_log
from store_workers import QUICK, STUDY, Job, end_all, finish, search, start, timing, wait_until
from tilewright.autotune import trials
from tilewright.autotune.sharing.claiming import Role
from tilewright.autotune.sharing.interrupt import Interruption
from tilewright.autotune.sharing.storage import open_url
from tilewright.autotune.sharing.tickets import STUDY as TICKETS
from tilewright.autotune.study import tune
from tilewright.backends.host import Host
from tilewright.errors import Unavailable, UsageError
from tilewright.evidence import Evidence
from tilewright.registry import family

pytestmark = pytest.mark.alone

needs_postgres = pytest.mark.skipif(bool(postgres.why_missing()), reason=postgres.why_missing())


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    here = str(Path(__file__).parent)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    yield
    end_all()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture
def fresh(database: str) -> Iterator[str]:
    """The server with the studies of other tests out of the way. Opened here first: its libraries are loaded then."""
    storage = open_url(database).storage
    yield database
    for study in storage.get_all_studies():
        storage.delete_study(study._study_id)


def outcomes(url: str) -> list[Any]:
    storage = open_url(url).storage
    found = storage.get_all_trials(storage.get_study_id_from_name(STUDY), deepcopy=False)
    return [t for t in found if trials.counts(t)]


def judge(url: str, log: Path, total: int, repeats: int = 0) -> None:
    """The whole study is there: each config measured once (`repeats` may have been cut short and retried)."""
    done = outcomes(url)
    assert len(done) == total
    assert all(t.state.is_finished() and trials.outcome(t) is not None for t in done)
    assert len({json.dumps(t.params, sort_keys=True) for t in done}) == total
    timed = Counter(json.dumps(r["config"]) for r in read_log(log) if r["what"] == "timed")
    assert len(timed) == total and set(timed.values()) == {1}
    begun = Counter(json.dumps(r["config"]) for r in read_log(log) if r["what"] == "start")
    assert sum(begun.values()) == total + repeats


def never_at_once(log: Path) -> None:
    spans = sorted((r["start"], r["end"]) for r in read_log(log) if r["what"] == "timed")
    assert all(one[1] <= other[0] for one, other in pairwise(spans))


def kill_one_that_times(log: Path) -> int:
    """SIGKILL a worker in the middle of timing, once all have begun; its number."""
    wait_until(lambda: bool(timing(log)))
    victim = min(timing(log))
    os.kill(victim, signal.SIGKILL)
    return victim


def four_and_one_killed(url: str, tmp_path: Path, machines: bool) -> None:
    log = tmp_path / "log"
    # Long enough that the victim is still timing when the signal arrives.
    model = CostModel(log=log, sleep_s=0.4, evidence=Evidence.MEASURED)
    names = [f"machine {i}" if machines else "" for i in range(4)]
    workers = [start(Job(url, model, 9, name)) for name in names]
    wait_until(lambda: len(read_log(log)) >= 4)
    victim = kill_one_that_times(log)
    codes = finish(*workers)
    assert sorted(c is not None and c for c in codes) == [-signal.SIGKILL, 0, 0, 0]
    judge(url, log, 9, repeats=1)
    assert victim in {r["pid"] for r in read_log(log)}
    retried = [t for t in outcomes(url) if t.user_attrs[trials.CLAIM]["deaths"]]
    assert [t.user_attrs[trials.CLAIM]["deaths"] for t in retried] == [1]


def test_four_workers_on_a_journal_one_killed(tmp_path: Path) -> None:
    four_and_one_killed(f"journal:{tmp_path}/s.journal", tmp_path, machines=False)
    never_at_once(tmp_path / "log")


@needs_postgres
def test_four_workers_on_postgresql_one_killed(fresh: str, tmp_path: Path) -> None:
    four_and_one_killed(fresh, tmp_path, machines=False)
    never_at_once(tmp_path / "log")


@needs_postgres
def test_a_machine_that_stops_beating_is_dead_and_its_trial_retried(
    fresh: str, tmp_path: Path
) -> None:
    """Nobody can look up the process of another machine: only its beats tell."""
    four_and_one_killed(fresh, tmp_path, machines=True)


@needs_postgres
def test_a_machine_that_beats_is_left_alone_however_long_it_takes(
    fresh: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    slow = CostModel(log=log, sleep_s=1.5 * QUICK.dead_s, evidence=Evidence.MEASURED)
    one = start(Job(fresh, slow, 1, "far away"))
    wait_until(lambda: bool(timing(log)))
    other = start(Job(fresh, replace(slow, sleep_s=0.0), 1, "here"))
    assert finish(one, other) == [0, 0]
    judge(fresh, log, 1)


@needs_postgres
def test_a_machine_that_stalls_and_wakes_counts_for_nothing(fresh: str, tmp_path: Path) -> None:
    """A stopped process is taken for dead; when it goes on, its trial is no longer its own."""
    log = tmp_path / "log"
    model = CostModel(log=log, sleep_s=0.3, evidence=Evidence.MEASURED)
    stalled = start(Job(fresh, model, 6, "stalls"))
    wait_until(lambda: bool(timing(log)))
    os.kill(stalled.pid or 0, signal.SIGSTOP)
    other = start(Job(fresh, model, 6, "goes on"))
    try:
        assert finish(other) == [0]
    finally:
        os.kill(stalled.pid or 0, signal.SIGCONT)
    assert finish(stalled) == [0]
    done = outcomes(fresh)
    assert len(done) == len({json.dumps(t.params) for t in done}) == 6
    assert all(t.user_attrs[trials.CLAIM]["pid"] == other.pid for t in done)


def test_other_users_of_this_machine_do_not_time_at_once(tmp_path: Path) -> None:
    """They share no file locks; the study tells them of one another."""
    url, log = f"journal:{tmp_path}/s.journal", tmp_path / "log"
    model = CostModel(log=log, sleep_s=0.15, meet=2, evidence=Evidence.MEASURED)
    assert finish(*[start(Job(url, model, 16, cache=f"user {i}")) for i in range(2)]) == [0, 0]
    judge(url, log, 16)
    assert len({r["pid"] for r in read_log(log)}) == 2
    spans = sorted((r["start"], r["end"]) for r in read_log(log) if r["what"] == "timed")
    # Whoever is in the middle of a trial when the other comes meets it after that.
    assert sum(one[1] > other[0] for one, other in pairwise(spans)) <= 1


@pytest.mark.parametrize("kind", ["journal", pytest.param("postgres", marks=needs_postgres)])
def test_some_prepare_and_one_times(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"journal:{tmp_path}/s.journal" if kind == "journal" else request.getfixturevalue("fresh")
    log = tmp_path / "log"
    model = CostModel(log=log, sleep_s=0.03, evidence=Evidence.MEASURED)
    job = Job(url, model, 8)
    measuring = start(replace(job, role=Role.MEASURE))
    preparing = [start(replace(job, role=Role.PREPARE)) for _ in range(3)]
    assert finish(measuring, *preparing) == [0, 0, 0, 0]
    judge(url, log, 8)
    assert {r["pid"] for r in read_log(log)} == {measuring.pid}
    never_at_once(log)


def test_the_one_that_times_dies_and_another_takes_its_place(tmp_path: Path) -> None:
    url, log = f"journal:{tmp_path}/s.journal", tmp_path / "log"
    model = CostModel(log=log, sleep_s=0.3, evidence=Evidence.MEASURED)
    job = Job(url, model, 6)
    first = start(replace(job, role=Role.MEASURE))
    preparing = [start(replace(job, role=Role.PREPARE)) for _ in range(2)]
    kill_one_that_times(log)
    assert finish(first) == [-signal.SIGKILL]
    second = start(replace(job, role=Role.MEASURE))
    assert finish(second, *preparing) == [0, 0, 0]
    judge(url, log, 6, repeats=1)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port: int = one.getsockname()[1]
        return port


def _serve(url: str, port: int) -> subprocess.Popen[str]:
    code = "from tilewright.cli.main import main; raise SystemExit(main())"
    command = [sys.executable, *(["-S"] if sys.flags.no_site else []), "-c", code]
    return subprocess.Popen(
        [*command, "store", "serve", "--study", url, "--port", str(port)], text=True
    )


def _answers(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex(("localhost", port)) == 0


def test_two_workers_through_a_grpc_proxy_one_of_them_killed(tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    port, database, log = _free_port(), f"sqlite:///{tmp_path}/s.db", tmp_path / "log"
    server = _serve(database, port)
    try:
        wait_until(lambda: _answers(port))
        url = f"grpc://localhost:{port}"
        model = CostModel(log=log, sleep_s=0.3, meet=2, evidence=Evidence.MEASURED)
        workers = [start(Job(url, model, 8, f"machine {i}")) for i in range(2)]
        wait_until(lambda: len({r["pid"] for r in read_log(log)}) == 2)
        kill_one_that_times(log)
        codes = finish(*workers)
        assert sorted(c or 0 for c in codes) == [-signal.SIGKILL, 0]
    finally:
        server.terminate()
        server.wait(30)
    judge(database, log, 8, repeats=1)


def _expects_the_end(job: Job) -> None:
    """A worker whose storage goes away says so and ends."""
    try:
        with Interruption() as interruption:
            search(job).run(interruption)
    except Unavailable as error:
        assert "was lost" in str(error) and "resumes the study" in str(error)
        os._exit(7)
    os._exit(8)


def test_a_storage_that_goes_away_is_a_sentence_and_the_rest_resumes(tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    port, database, log = _free_port(), f"sqlite:///{tmp_path}/s.db", tmp_path / "log"
    model = CostModel(log=log, sleep_s=0.1, evidence=Evidence.MEASURED)
    server = _serve(database, port)
    try:
        wait_until(lambda: _answers(port))
        job = Job(f"grpc://localhost:{port}", model, 40)
        worker = multiprocessing.get_context("fork").Process(target=_expects_the_end, args=(job,))
        worker.start()
        wait_until(lambda: len(read_log(log)) >= 6)
    finally:
        server.kill()
        server.wait(30)
    assert finish(worker) == [7]
    kept = [t for t in outcomes(database) if trials.outcome(t) is not None]
    assert len(kept) >= 2
    assert finish(start(Job(database, model, len(kept) + 2))) == [0]
    done = outcomes(database)
    assert len(done) == len(kept) + 2 and all(t.state.is_finished() for t in done)


def test_compile_workers_of_a_whole_tuning(tmp_path: Path) -> None:
    model = CostModel(log=tmp_path / "log", evidence=Evidence.MEASURED)
    result = tune(
        family("gemm"),
        gemm_case(),
        "cpu",
        8,
        objective=model,
        backend=Host(),
        compile_workers=2,
        storage=f"journal:{tmp_path}/s.journal",
    )
    timed = [r for r in read_log(tmp_path / "log") if r["what"] == "timed"]
    assert len(timed) == len(result.rows) == result.measured == 8
    assert len({r["pid"] for r in timed}) == 1 and timed[0]["pid"] != os.getpid()
    with pytest.raises(UsageError, match="2 workers beside 1 compile workers were asked for"):
        tune("gemm", gemm_case(), workers=2, compile_workers=1, objective=model, backend=Host())
    with pytest.raises(UsageError, match="-1 compile workers were asked for; accepted: 0 or more"):
        tune("gemm", gemm_case(), compile_workers=-1, objective=model, backend=Host())


def test_a_proxy_that_does_not_answer_and_what_cannot_be_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("grpc")
    monkeypatch.setattr("tilewright.autotune.sharing.storage._ANSWER_S", 0.2)
    with pytest.raises(Unavailable, match="does not answer; `tilewright store serve"):
        open_url(f"grpc://localhost:{_free_port()}")
    for wrong in ("grpc://localhost", "grpc://:1", "grpc://localhost:http", "grpc://h:99999"):
        with pytest.raises(UsageError, match="accepted: grpc://HOST:PORT"):
            open_url(wrong)
    from tilewright.autotune.sharing.storage import serve

    with pytest.raises(UsageError, match="cannot be served; accepted: a database"):
        serve(open_url(f"journal:{tmp_path}/s.journal"), "localhost", 1)


@needs_postgres
def test_tickets_are_all_given_back(fresh: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    model = CostModel(log=log, evidence=Evidence.MEASURED)
    assert finish(*[start(Job(fresh, model, 9, f"machine {i}")) for i in range(3)]) == [0, 0, 0]
    judge(fresh, log, 9)
    storage = open_url(fresh).storage
    tickets = storage.get_all_trials(storage.get_study_id_from_name(TICKETS), deepcopy=False)
    assert tickets and all(t.state.is_finished() for t in tickets)


def test_a_database_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(Unavailable) as caught:
        open_url("postgresql://nobody:secret@localhost:1/none")
    assert "cannot be opened" in str(caught.value) and "secret" not in str(caught.value)
