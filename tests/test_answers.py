"""Answers of the matrix that are kept between processes: the same as fresh ones, and never of other sources."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.backends import answers as module
from tilewright.backends import cells
from tilewright.backends.answers import KEPT, Answers, answers, fingerprint
from tilewright.registry import select


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache folder that no process has used."""
    from tilewright.backends import ascendc

    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    monkeypatch.setattr(ascendc, "_answers", {})
    answers.cache_clear()
    yield tmp_path
    answers.cache_clear()


def _of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from tilewright.backends import ascendc

    monkeypatch.setattr(ascendc, "_answers", {})
    answers.cache_clear()


def test_kept_answers_are_those_of_the_adapters(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = list(cells(select(["gemm", "rope", "beam_topk"])))
    assert list((cache / "answers").glob("*.json"))
    _of_another_process(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("tilewright.backends.ascendc.AscendC.adapter", None)  # nobody asks it
        kept = list(cells(select(["gemm", "rope", "beam_topk"])))
    assert kept == fresh


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', '{"a": ["x"]}', "\x00"])
def test_a_spoilt_file_costs_time_only(
    cache: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    fresh = list(cells(select(["rope"])))
    (file,) = (cache / "answers").glob("*.json")
    file.write_text(text)
    _of_another_process(monkeypatch)
    assert list(cells(select(["rope"]))) == fresh
    assert json.loads(file.read_text())


def test_an_edit_of_a_source_is_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / "ops" / "one"
    deep.mkdir(parents=True)
    source = deep / "planning.py"
    source.write_text("A = 1\n")
    monkeypatch.setattr(module, "package_folder", lambda package: tmp_path)
    seen = {fingerprint()}
    source.write_text("A = 22\n")
    seen.add(fingerprint())
    os.utime(source, ns=(1, 1))
    seen.add(fingerprint())
    (deep / "more.py").touch()
    seen.add(fingerprint())
    (deep / "more.py").rename(deep / "other.py")
    seen.add(fingerprint())
    assert len(seen) == 5
    (deep / "notes.txt").touch()
    assert fingerprint() in seen


@given(
    rows=st.dictionaries(st.text(min_size=1), st.tuples(st.text(), st.text()), min_size=1),
)
def test_what_is_put_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, tuple[str, str]]
) -> None:
    file = tmp_path_factory.mktemp("answers") / "one.json"
    first = Answers(file)
    for key, (state, reason) in rows.items():
        first.put(key, state, reason)
    first.save()
    assert Answers(file).known == rows
    assert list(file.parent.iterdir()) == [file]


def test_few_files_stay_and_a_closed_folder_is_no_error(tmp_path: Path) -> None:
    for n in range(KEPT + 3):
        one = Answers(tmp_path / "answers" / f"{n}.json")
        one.put("a", "run", "")
        one.save()
        os.utime(one.file, (n, n))
    assert len(list((tmp_path / "answers").iterdir())) == KEPT
    (tmp_path / "file").touch()
    closed = Answers(tmp_path / "file" / "deeper" / "x.json")
    closed.put("a", "run", "")
    closed.save()
    assert closed.get("a") == ("run", "")
