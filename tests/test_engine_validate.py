"""What proves the engine: the oracles agree with each other, right answers pass, and each kind of mistake is found."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import CommandLine
from tilewright.engine.blocks import Blocks
from tilewright.engine.kv_cache import KvCache
from tilewright.engine.session import Choices
from tilewright.engine.validate import formats, oracle
from tilewright.engine.validate.features import FEATURES, Outcome, combinations, drive
from tilewright.engine.validate.oracle import Expected, Plain, Question, Transformers
from tilewright.engine.validate.plan import Plan, Wanted
from tilewright.engine.validate.subjects import SplitFeed, Subject, subject
from tilewright.engine.validate.tasks import judge, parted, run
from tilewright.errors import Unavailable, UsageError
from tilewright.models.forward import PlainForward
from tilewright.models.tiny import TINY
from tilewright.peer_engines import hugging_face as peer
from tilewright.toolchains import installed, toolchain

KINDS = [f"tiny:{kind}" for kind in TINY]
TOKENS = st.lists(st.integers(0, 99), max_size=6)
SHORT = Question(most=5)


def few(name: str) -> Subject:
    """A tiny subject with three prompts: two that share a beginning, and a short one."""
    of = subject(name)
    return dataclasses.replace(of, prompts=(*of.prompts[:2], of.prompts[-1]))


@pytest.fixture(scope="session")
def transformers() -> Transformers:
    if installed(toolchain(oracle.TOOLCHAIN)) is None:
        pytest.skip("the toolchain transformers is not installed")
    return Transformers()


@pytest.mark.peers
@pytest.mark.parametrize("name", KINDS)
def test_plain_forward_is_that_of_transformers(name: str, transformers: Transformers) -> None:
    of = subject(name)
    theirs = transformers.answer(of, Question())
    assert formats.relative(PlainForward(of.dense)(of.prompts[0]), theirs.logits) < 2e-6
    short = dataclasses.replace(of, prompts=of.prompts[-3:])
    assert Plain().answer(short, SHORT).greedy == tuple(a[:5] for a in theirs.greedy[-3:])


@pytest.mark.peers
@pytest.mark.parametrize("name", ["tiny:llama", "tiny:qwen2"])
@pytest.mark.parametrize("on", ["beams", "beams+preempt", "beams+batch+chunk+prefix+graph"])
def test_beams_are_those_of_transformers(name: str, on: str, transformers: Transformers) -> None:
    of, wanted, question = subject(name), frozenset(on.split("+")), Question()
    found = judge(
        drive(of, wanted, question, Choices(form="fp32")),
        transformers.answer(of, question),
        "transformers",
        question.most,
    )
    assert found.ok and found.fired > 0, found.detail


@pytest.mark.parametrize("name", KINDS)
def test_all_rows_of_a_tiny_model_are_good(name: str) -> None:
    wanted = Wanted(frozenset({"batch", "chunk", "prefix", "preempt", "logits"}), quick=True)
    rows = [run(task) for task in Plan(Plain(), wanted, SHORT).tasks([name])]
    decided = [row for row in rows if row.ok is not None]
    assert len(decided) > 3
    assert all(row.ok and row.fired > 0 for row in decided), [r.detail for r in decided if not r.ok]


def test_each_backend_alone_and_op_by_op() -> None:
    plan = Plan(Plain(), Wanted(frozenset({"backends"}), quick=True), SHORT)
    rows = [run(task) for task in plan.tasks(["tiny:llama"])]
    assert {row.task.beside for row in rows} >= {
        "every op",
        "gemm",
        "rope",
        "kv_write",
        "paged_attention",
    }
    assert all(row.ok and row.fired > 0 for row in rows), [row.detail for row in rows]


def test_formats_of_weights_equal_their_dequantisation() -> None:
    plan = Plan(Plain(), Wanted(frozenset({"formats"}), quick=True), SHORT)
    rows = [run(t) for t in plan.tasks(["tiny:llama"]) if t.feature in ("w8a8", "bf16")]
    assert {(row.task.feature, row.task.beside) for row in rows} >= {
        ("w8a8", "dequantised"),
        ("w8a8", "each call"),
        ("w8a8", "kl"),
        ("bf16", "kl"),
    }
    assert all(row.ok and row.fired > 0 for row in rows), [row.detail for row in rows]


@given(st.sets(st.sampled_from(sorted(FEATURES)), min_size=2))
@settings(max_examples=20, deadline=None)
def test_every_two_features_are_met_on_and_off(names: set[str]) -> None:
    found = combinations(sorted(names))
    for one, other in itertools.combinations(sorted(names), 2):
        met = {(one in on, other in on) for on in found}
        assert met == set(itertools.product((False, True), repeat=2))


@given(TOKENS, TOKENS)
def test_answers_part_unless_they_are_equal(ours: list[int], theirs: list[int]) -> None:
    assert (parted(ours, theirs) == "") == (ours == theirs)


def outcome(
    greedy: Mapping[int, tuple[int, ...]],
    fired: Mapping[str, int],
    beams: Sequence[tuple[tuple[int, ...], float]] = (),
) -> Outcome:
    return Outcome(greedy, tuple(beams), fired, Counter({"gemm": 3}))


EXPECTED = Expected(((1, 2), (3,)), 0.5, (((1, 2), -1.0),), torch.zeros(1, 1))


def test_a_feature_that_did_nothing_fails_its_row() -> None:
    right = {0: (1, 2), 1: (3,)}
    assert judge(outcome(right, {"chunk": 2}), EXPECTED, "x", 9).ok
    assert not judge(outcome(right, {"beams": 2}), EXPECTED, "x", 9).ok
    silent = judge(outcome(right, {"chunk": 2, "prefix": 0}), EXPECTED, "x", 9)
    assert not silent.ok and "prefix did nothing" in silent.detail


@pytest.mark.parametrize(
    ("greedy", "beams", "said"),
    [
        ({0: (1, 4)}, (), "prompt 0: token 1 is 4 instead of 2"),
        ({0: (1,)}, (), "1 tokens instead of 2"),
        ({1: (3, 1)}, (), "2 tokens instead of 1"),
        ({}, [((1, 2), -1.01)], "score -1.01"),
        ({}, [((2, 2), -1.0)], "beam 0: token 0"),
        ({}, [((1, 2), -1.0), ((1, 3), -2.0)], "2 beams instead of 1"),
    ],
)
def test_a_wrong_answer_fails_its_row(greedy: Any, beams: Any, said: str) -> None:
    found = judge(outcome(greedy, {"batch": 1}, beams), EXPECTED, "x", 9)
    assert not found.ok and said in found.detail


def test_copies_that_are_not_made_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beams write into pages that others read: answers of a prompt change once copies are left out."""
    of, question = few("tiny:llama"), Question(most=8)
    right = drive(of, frozenset({"beams"}), question, Choices(form="fp32"))
    assert right.fired["beams"] > 0
    monkeypatch.setattr(KvCache, "copy", lambda self, pairs: None)
    wrong = drive(of, frozenset({"beams"}), question, Choices(form="fp32"))
    expected = Expected(
        tuple(right.greedy.get(i, ()) for i in range(3)), 0.1, right.beams, torch.zeros(1)
    )
    assert not judge(wrong, expected, "itself", 8).ok


def test_a_prefix_of_other_tokens_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that takes any page for a match answers for another prompt."""
    of = few("tiny:llama")
    shifted = tuple((t + 1) % 128 for t in of.prompts[0][:32]) + of.prompts[1][32:]
    of = dataclasses.replace(of, prompts=(of.prompts[0], shifted))
    expected = Plain().answer(of, SHORT)
    honest = drive(of, frozenset({"prefix"}), SHORT, Choices(form="fp32"))
    assert not judge(honest, expected, "plain", 5).ok  # nothing is shared, so nothing was shown

    def careless(self: Blocks, request: Any) -> int:
        for known in list(self._known.values())[: (len(request.tokens) - 1) // 16]:
            request.pages.append(self.pool.share(known.handle))
        request.computed = 16 * len(request.pages)
        request.hashes = list(self._known)[: len(request.pages)]
        self.counts.hit_tokens += request.computed
        return request.computed

    monkeypatch.setattr(Blocks, "claim", careless)
    found = judge(
        drive(of, frozenset({"prefix"}), SHORT, Choices(form="fp32")), expected, "plain", 5
    )
    assert found.fired > 0 and not found.ok and "prompt 1" in found.detail


@pytest.mark.parametrize("name", ["tiny:llama", "tiny:qwen3"])
def test_a_split_feed_forward_is_the_dense_one(name: str) -> None:
    of = subject(name)
    mixture = SplitFeed(of.checkpoint)
    assert mixture.config.experts == 8 and mixture.has("layers.1.experts.7.down")
    assert mixture.shape("layers.0.experts.3.down") == (64, 12)
    dense, split = PlainForward(of.checkpoint)(of.prompts[0]), PlainForward(mixture)(of.prompts[0])
    assert formats.relative(split, dense) < 1e-6
    split_of = dataclasses.replace(of, checkpoint=mixture)
    ran = drive(split_of, frozenset({"moe", "batch"}), SHORT, Choices(form="fp32"))
    assert judge(ran, Plain().answer(of, SHORT), "dense", 5).ok and ran.fired["moe"] > 0


def test_a_feed_forward_that_does_not_split_is_refused() -> None:
    with pytest.raises(UsageError, match="96 does not split into 7"):
        _ = SplitFeed(subject("tiny:llama").checkpoint, 7).config


class Counted:
    """In place of the process: a line a job, counted."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, found: Any, arguments: Sequence[str], job: Any) -> str:
        self.asked.append(len(job["jobs"]))
        answers = {"greedy": {"tokens": [1], "gaps": [2.0]}, "logits": {"shape": [2, 3]}}
        answers["beams"] = {"answers": [[1]], "scores": [-1.0]}
        for one in job["jobs"]:
            if one["do"] == "logits":
                np.save(one["file"], np.ones((2, 3), np.float32))
        return "\n".join(json.dumps(answers[one["do"]]) for one in job["jobs"])


def test_answers_are_kept_and_spoilt_ones_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = few("tiny:llama")
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    counted = Counted()
    monkeypatch.setattr(peer, "run", counted)
    asked = Transformers.__new__(Transformers)
    asked._found = dataclasses.make_dataclass("Found", ["folder"])(tmp_path)  # type: ignore[attr-defined]
    first = asked.answer(of, SHORT)
    again = asked.answer(of, SHORT)
    assert counted.asked == [5] and first.greedy == again.greedy == ((1,),) * 3
    assert torch.equal(again.logits, torch.ones(2, 3))
    kept = sorted((tmp_path / "oracle" / "answers").glob("*.json"))
    kept[0].write_text("{", encoding="utf-8")
    next(iter((tmp_path / "oracle" / "answers").glob("*.npy"))).write_bytes(b"short")
    asked.answer(of, SHORT)
    assert counted.asked[1:] in ([1], [2])
    asked.answer(of, Question(most=6))
    assert counted.asked[-1] == 4  # the logits do not depend on how many tokens are wanted


def test_without_the_toolchain_a_row_says_how_to_get_it(
    tilewright: CommandLine, tmp_path: Path
) -> None:
    arguments = ("engine", "validate", "tiny:llama", "--quick", "--feature", "batch,beams")
    ran = tilewright(*arguments, "--json", "-", env={"TILEWRIGHT_CACHE": str(tmp_path)})
    assert ran.code == 3, ran.err
    rows = ran.document["rows"]
    assert "tilewright toolchain install transformers" in rows[0]["detail"]
    assert rows[0]["ok"] is None and any(row["ok"] for row in rows)
    assert not any("beams" in f"{row['feature']}+{row['with']}".split("+") for row in rows)
    assert set(rows[0]) == {"feature", "with", "model", "backend", "ok", "fired", "detail"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny:llama", "--feature", "chunks"), "unknown feature 'chunks'; accepted: batch, chunk"),
        (("tiny:gpt",), "unknown tiny model 'gpt'; accepted: tiny:llama"),
        (("nowhere.gguf",), "nowhere.gguf"),
    ],
)
def test_bad_input_is_one_sentence(
    tilewright: CommandLine, arguments: tuple[str, ...], said: str
) -> None:
    ran = tilewright("engine", "validate", *arguments)
    assert ran.code in (2, 3) and said in ran.err and "Traceback" not in ran.err
    assert len(ran.err.strip().splitlines()) == 1


def test_what_is_refused_is_undecided_and_what_breaks_fails() -> None:
    from tilewright.engine.validate.tasks import Task

    def raising(error: Exception, backend: str = "host") -> Task:
        def work() -> Any:
            raise error

        return Task("chunk", "", "tiny:llama", backend, work)

    assert run(raising(Unavailable("no such device"))).ok is None
    assert run(raising(UsageError("not with graphs"), "triton")).ok is None
    assert run(raising(UsageError("not with graphs"))).ok is False
    broken = run(raising(RuntimeError("shapes\nand more")))
    assert broken.ok is False and broken.detail == "RuntimeError: shapes"
    assert json.loads(json.dumps(broken.as_dict()))["fired"] == 0
