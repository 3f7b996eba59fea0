"""kill -9 at any point, half-written lines included: the resumed study is the one that was never interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file

from autotune_doubles import CostModel, read_log
from store_workers import STUDY, Job, end_all, finish, search, start
from tilewright.autotune import trials
from tilewright.autotune.sharing import claiming
from tilewright.autotune.sharing.interrupt import Interruption
from tilewright.autotune.sharing.storage import open_url
from tilewright.evidence import Evidence
from tilewright.space import Config

pytestmark = pytest.mark.alone

TRIALS = 11
_append = JournalFileBackend.append_logs


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    # A trial that is killed again and again is told as failed in the end; here that is no finding.
    monkeypatch.setattr(claiming, "_MOST_DEATHS", 10**6)
    yield
    end_all()


def job(url: str, log: Path, sampler: str, sleep_s: float = 0.0) -> Job:
    model = CostModel(log=log, sleep_s=sleep_s, evidence=Evidence.MEASURED)
    return Job(url, model, TRIALS, sampler=sampler)


def sequence(url: str) -> list[tuple[dict[str, int], float | None]]:
    """What was proposed and what came of it, in order."""
    storage = open_url(url).storage
    found = storage.get_all_trials(storage.get_study_id_from_name(STUDY), deepcopy=False)
    done = [(t, trials.outcome(t)) for t in found if trials.counts(t)]
    return [(dict(t.params), o.value if o else None) for t, o in done]


def recorded(url: str) -> set[str]:
    """Configs whose value is in the storage."""
    storage = open_url(url).storage
    try:
        found = storage.get_all_trials(storage.get_study_id_from_name(STUDY), deepcopy=False)
    except KeyError:
        return set()
    return {json.dumps(t.params) for t in found if trials.outcome(t) is not None}


def dies_while_writing(at: int, part: float) -> None:
    """Let this process die in its `at`-th write to a journal, with a part of the bytes on disk."""
    count = 0

    def append(self: Any, logs: list[dict[str, Any]]) -> None:
        nonlocal count
        count += 1
        if count < at:
            return _append(self, logs)
        content = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in logs).encode()
        with get_lock_file(self._lock), open(self._file_path, "ab") as file:
            file.write(content[: round(part * len(content))])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    JournalFileBackend.append_logs = append  # type: ignore[method-assign]


def run_until_killed(one: Job, at: int, part: float) -> bool:
    """Fork a worker that dies in that write; False if it came to its end before."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            dies_while_writing(at, part)
            with Interruption() as interruption:
                search(one).run(interruption)
            code = 0
        finally:
            os._exit(code)  # an error, too, must not go on as this test
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


kills = st.lists(st.tuples(st.integers(1, 70), st.floats(0, 1)), min_size=1, max_size=4)


@pytest.mark.parametrize("sampler", ["random", "portfolio", "tpe"])
def test_killed_in_any_write_and_resumed_is_the_same_study(sampler: str, tmp_path: Path) -> None:
    whole = f"journal:{tmp_path}/whole.journal"
    assert finish(start(job(whole, tmp_path / "whole", sampler))) == [0]
    expected = sequence(whole)
    assert len(expected) == TRIALS
    folder = tmp_path / "killed"

    @settings(derandomize=True, deadline=None, max_examples=7, database=None)
    @given(kills)
    def resumed(points: list[tuple[int, float]]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        url, log = f"journal:{folder}/s.journal", folder / "log"
        one = job(url, log, sampler)
        for at, part in points:
            killed = run_until_killed(one, at, part)
            kept = recorded(url)
            before = len(read_log(log))
            if not killed:
                break
            if at % 2:
                continue
            # Once more from here, to the end of the next write but one: nothing that is kept is begun again.
            run_until_killed(one, 3, part)
            assert not {json.dumps(r["config"]) for r in read_log(log)[before:]} & kept
        kept, before = recorded(url), len(read_log(log))
        assert finish(start(one)) == [0]
        begun = [json.dumps(r["config"]) for r in read_log(log)[before:] if r["what"] == "start"]
        assert not set(begun) & kept and len(begun) == len(set(begun)) == TRIALS - len(kept)
        assert sequence(url) == expected

    resumed()


@pytest.mark.parametrize("kind", ["journal:{}/s.journal", "sqlite:///{}/s.db"])
def test_killed_at_any_time_again_and_again(kind: str, tmp_path: Path) -> None:
    whole = f"journal:{tmp_path}/whole.journal"
    assert finish(start(job(whole, tmp_path / "whole", "portfolio"))) == [0]
    url, log = kind.format(tmp_path), tmp_path / "log"
    # Made first: two kills later a table of the database might be missing.
    open_url(url)
    one = job(url, log, "portfolio", 0.01)
    finished: set[str] = set()
    for delay_s in (0.05, 0.15, 0.25, 0.1, 0.2, 0.3):
        kept, before = recorded(url), len(read_log(log))
        worker = start(one)
        time.sleep(delay_s)
        worker.kill()
        worker.join()
        assert not {json.dumps(r["config"]) for r in read_log(log)[before:]} & kept
        finished |= kept
    assert finish(start(one)) == [0]
    assert finished <= recorded(url)
    assert sequence(url) == sequence(whole)


def test_a_guess_whose_taker_died_is_still_the_next_to_be_tried(tmp_path: Path) -> None:
    url, log = f"journal:{tmp_path}/s.journal", tmp_path / "log"
    one = job(url, log, "random")
    guesses = [Config(tile_m=16, tile_n=32, tile_k=k, stages=2, split_k=1) for k in (32, 64, 128)]
    made = search(one)
    for guess in (made.pool.config(made.pool.default), *guesses):
        made.study.enqueue_trial(dict(guess))
    del made
    # Deaths inside taking a guess from the queue: before, among and after its params.
    for at in (2, 3, 4, 5, 6, 7):
        assert run_until_killed(one, at, 0.5)
    assert finish(start(one)) == [0]
    assert [c for c, _ in sequence(url)][1:4] == [dict(g) for g in guesses]
    assert len(sequence(url)) == TRIALS


def test_a_journal_torn_while_others_write_goes_on(tmp_path: Path) -> None:
    """A writer dies in the middle of a line; the next one, of a process that was there all along, cuts it off."""
    url = f"journal:{tmp_path}/s.journal"
    here = open_url(url).storage
    study = optuna.create_study(storage=here, study_name=STUDY)
    pid = os.fork()
    if pid == 0:
        dies_while_writing(1, 0.5)
        optuna.load_study(storage=open_url(url).storage, study_name=STUDY).set_user_attr("a", 1)
        os._exit(0)
    os.waitpid(pid, 0)
    assert not (tmp_path / "s.journal").read_bytes().endswith(b"\n")
    study.set_user_attr("b", 2)
    assert optuna.load_study(storage=open_url(url).storage, study_name=STUDY).user_attrs == {"b": 2}
