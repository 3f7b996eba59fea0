"""`tilewright engine` as a user runs it: text that streams, documents, sentences for bad input, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import CommandLine, Ran
from engine_doubles import TinyCheckpoint
from tilewright.cli.main import main
from tilewright.engine import session
from tilewright.engine.loop import Engine
from tilewright.machine import usable_cores
from tilewright.models.checkpoint import open_model
from tilewright.models.tokenizer import Tokenizer

Run = Callable[..., Ran]


class Spoken(TinyCheckpoint):
    """A tiny model that speaks with the tokens of SmolLM2."""

    def tokenizer(self) -> Tokenizer:
        return _tokenizer()


@cache
def _tokenizer() -> Tokenizer:
    return open_model("smollm2").tokenizer()


@cache
def spoken() -> Spoken:
    return Spoken(vocab=49152, ends=(2,), context=200)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `tilewright engine ...` here; the model `tiny` is the one above, opened in no time."""
    plain = session.open_model
    monkeypatch.setattr(
        session, "open_model", lambda model: spoken() if model == "tiny" else plain(model)
    )

    def command(*arguments: str, stdin: str | None = None) -> Ran:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main(["engine", *arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return command


def row(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    assert ran.document["schema"] == "tilewright/engine/1"
    (one,) = ran.document["rows"]
    assert isinstance(one, dict)
    return one


SHORT = ("--max-tokens", "12", "--threads", "1")


def test_generate_prints_the_text_that_its_document_has(run: Run) -> None:
    spoke = row(run("generate", "tiny", "--prompt", "Once upon", *SHORT, "--json", "-"))
    assert spoke["tokens"] == 12 and spoke["finish"] == "length"
    assert spoke["prompt_tokens"] == len(_tokenizer().encode("Once upon"))
    assert (spoke["evidence"], spoke["target"]) == ("measured", "cpu")
    ran = run("generate", "tiny", "--prompt", "Once upon", *SHORT)
    assert ran.code == 0 and spoke["text"] in ran.out
    assert f"{spoke['prompt_tokens']} tokens in, 12 out (length)" in ran.out


def test_text_is_written_as_it_comes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write is seen before the next step is computed."""
    seen: list[str] = []
    plain = Engine.step

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            seen.append(text)
            return len(text)

    def step(self: Engine) -> Any:
        seen.append("<step>")
        return plain(self)

    monkeypatch.setattr(Engine, "step", step)
    monkeypatch.setattr(sys, "stdout", Out())
    assert run("generate", "tiny", "--prompt", "Once", *SHORT).code == 0
    steps = [i for i, s in enumerate(seen) if s == "<step>"]
    assert len(steps) == 12
    between = ["".join(seen[a + 1 : b]) for a, b in zip(steps, steps[1:], strict=False)]
    assert sum(bool(text) for text in between) >= 6


def test_options_reach_the_sampling(run: Run) -> None:
    options = ("generate", "tiny", "--prompt", "One", *SHORT, "--json", "-")
    greedy = row(run(*options))["text"]
    drawn = [row(run(*options, "--temperature", "2", "--seed", s))["text"] for s in ("1", "1", "2")]
    assert drawn[0] == drawn[1] != drawn[2]
    assert row(run(*options, "--temperature", "2", "--top-k", "1"))["text"] == greedy
    assert row(run(*options, "--temperature", "2", "--min-p", "1"))["text"] == greedy
    stop = greedy[3:6]
    stopped = row(run(*options, "--stop", stop))
    assert stopped["finish"] == "stop" and stopped["text"] == greedy[: greedy.index(stop)]
    assert row(run(*options, "--eager"))["text"] == greedy
    shown = row(run(*options, "--weights", "w8a8", "--kv", "c8d", "--threads", "1", "--eager"))
    assert {name: shown[name] for name in ("weights", "dtype", "kv", "threads", "graphs")} == {
        "weights": "w8a8", "dtype": "bf16", "kv": "c8d", "threads": 1, "graphs": False,
    }  # fmt: skip
    other = row(run(*options, "--backend", "host,rope=reference", "--threads", "0"))
    assert [other[name] for name in ("backend", "weights", "kv", "threads", "text")] == [
        "host,rope=reference", "fp32", "fp32", usable_cores(), greedy,
    ]  # fmt: skip
    chat = row(run(*options, "--chat"))
    assert chat["prompt_tokens"] > 10


def test_beams_are_ranked(run: Run) -> None:
    ran = run("generate", "tiny", "--prompt", "One", *SHORT, "--beams", "3", "--json", "-")
    assert ran.code == 0
    rows = ran.document["rows"]
    assert [r["rank"] for r in rows] == [0, 1, 2] and ran.document["interrupted"] is False
    assert [r["score"] for r in rows] == sorted((r["score"] for r in rows), reverse=True)
    table = run("generate", "tiny", "--prompt", "One", *SHORT, "--beams", "3").out
    assert all(f"{r['score']:.4f}" in table for r in rows)


def test_chat_answers_line_by_line_and_finds_turns_before_in_the_cache(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: list[Engine] = []
    plain = session.open_engine

    def opened(*arguments: Any) -> Engine:
        engines.append(plain(*arguments))
        return engines[-1]

    monkeypatch.setattr(session, "open_engine", opened)
    ran = run(
        "chat", "tiny", *SHORT, "--system", "Be brief.", stdin="Hello\nAnd now?\n\nnot read\n"
    )
    assert ran.code == 0, ran.err
    assert ran.out.count("12 out (length)") == 2
    assert engines[0].blocks.counts.hit_tokens >= 16
    assert run("chat", "tiny", *SHORT, stdin="").code == 0


def test_a_talk_is_a_row_a_turn(run: Run, tmp_path: Path) -> None:
    ran = run("chat", "tiny", *SHORT, "--json", "-", stdin="Hello\nAnd now?\n")
    assert ran.code == 0, ran.err
    first, second = ran.document["rows"]
    assert (first["prompt"], second["prompt"]) == ("Hello", "And now?")
    assert second["prompt_tokens"] > first["prompt_tokens"] + first["tokens"]
    assert ran.err.count("12 out (length)") == 2

    file = tmp_path / "turns.json"
    shown = run("chat", "tiny", *SHORT, "--json", str(file), stdin="Hello\n").out
    (kept,) = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert kept["text"] == first["text"] and kept["text"] in shown


def test_a_turn_that_fails_is_left_out_of_the_talk(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "turns.json"
    wrong, long = "\udc80", "word " * 300
    ran = run("chat", "tiny", *SHORT, "--json", str(file), stdin=f"Hello\n{wrong}\n{long}\nAgain\n")
    assert ran.code == 2
    assert [line[:30] for line in ran.err.splitlines()] == [
        "tilewright: a turn holds bytes",
        "tilewright: a prompt of 355 to",
    ]
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert [r["prompt"] for r in rows] == ["Hello", "Again"]
    talk = run("chat", "tiny", *SHORT, "--json", "-", stdin="Hello\nAgain\n").document["rows"]
    assert rows[1]["prompt_tokens"] == talk[1]["prompt_tokens"], "turns that fail are no part of it"
    assert rows[1]["text"] == talk[1]["text"]


def test_ppl_of_a_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("The quick brown fox jumps over the lazy dog, " * 20, encoding="utf-8")
    options = ("ppl", "tiny", "--text", str(file), "--window", "32", "--json", "-")
    found = row(run(*options))
    assert (found["windows"], found["tokens"], found["window"]) == (4, 4 * 31, 32)
    assert found["ppl"] > 100, "an untrained model knows nothing"
    assert row(run(*options, "--windows", "1"))["tokens"] == 31
    assert row(run(*options)) == found


def test_plan_lists_every_pair_of_formats(run: Run) -> None:
    ran = run("plan", "smollm2", "--memory", "1", "--json", "-")
    rows = ran.document["rows"]
    by = {(r["weights"], r["kv"], r["residual"]): r for r in rows}
    assert {("fp32", "fp32"), ("q4_1", "c8s"), ("w8a8", "kv4"), ("bf16", "bf16")} <= {
        key[:2] for key in by
    }
    assert len(by) == len(rows) and ("q4_1", "kv4", "nested") in by
    # 30 layers, keys and values of 3 heads of 64, 16 tokens, 4 bytes.
    assert by["fp32", "fp32", "none"]["page_bytes"] == 30 * 2 * 3 * 64 * 16 * 4
    for r in rows:
        left = 2**30 - r["weight_bytes"] - r["besides_bytes"]
        assert r["tokens"] == left // r["page_bytes"] * 16
        assert r["evidence"] == "counted"
    assert by["q4_1", "fp32", "none"]["weight_bytes"] < by["bf16", "bf16", "none"]["weight_bytes"]
    assert 0.93 < ran.document["paging"]["saved"] < 1
    assert run("plan", "smollm2", "--memory", "0.001").code == 0


G = ("generate", "tiny", "--prompt", "x")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("generate", "/no/such", "--prompt", "x"), "no model at /no/such; accepted: a GGUF file"),
        (("generate", "tiny", "--prompt", ""), "a prompt has no tokens; accepted: one or more"),
        (("generate", "tiny", "--prompt", "x\udcff"), "--prompt holds bytes that are no UTF-8"),
        (("generate", "tiny", "--prompt", "word " * 300), "a prompt of 301 tokens; accepted: fewer than 200"),
        ((*G, "--max-tokens", "0"), "most=0; accepted: 1 to"),
        ((*G, "--temperature", "-1"), "temperature=-1.0; accepted: 0.0 to 100.0"),
        ((*G, "--temperature", "nan"), "temperature=nan; accepted"),
        ((*G, "--top-p", "0"), "top_p=0.0; accepted"),
        ((*G, "--top-k", "-3"), "top_k=-3; accepted"),
        ((*G, "--min-p", "2"), "min_p=2.0; accepted"),
        ((*G, "--seed", "99999999999999999999"), "seed=99999999999999999999; accepted"),
        ((*G, "--stop", ""), "an empty stop text would end every answer"),
        ((*G, "--weights", "int3"), "unknown format of weights 'int3'; accepted: fp32, bf16"),
        ((*G, "--weights", "q4_1"), "is not stored as Q4_1; accepted formats"),
        ((*G, "--dtype", "fp8"), "unknown type of activations 'fp8'; accepted: fp32, bf16"),
        ((*G, "--backend", "cudnn"), "no backend 'cudnn'; accepted: reference, host"),
        ((*G, "--backend", "host,conv=host"), "unknown op of the engine 'conv'; accepted"),
        ((*G, "--backend", "host,rope=fast"), "no backend 'fast'; accepted"),
        ((*G, "--threads", "-2"), "threads=-2; accepted: 1 or more, 0 for all"),
        ((*G, "--threads", "999"), "--threads 999; accepted: 1 to"),
        ((*G, "--weights", "routed"), "routed weights; accepted: routed with a file of sensitive"),
        ((*G, "--weights", "int3"), "weights 'int3'; accepted: fp32, bf16, w8a8, q4_1, w4a8"),
        ((*G, "--backend", "host,reference"), "backends host and reference for all ops; accepted: one"),
        ((*G, "--backend", "rope=host,rope=triton"), "backends host and triton for rope; accepted"),
        ((*G, "--beams", "17"), "17 beams; accepted: 1 to 16"),
        ((*G, "--beams", "-1"), "-1 beams; accepted: 1 to 16"),
        ((*G, "--beams", "2", "--temperature", "1"), "--beams ranks whole answers; accepted: no option"),
        (("chat", "tiny", "--system", "\udc80"), "--system holds bytes that are no UTF-8"),
        (("plan", "smollm2", "--longest", "0"), "a longest request of 0 tokens; accepted: 2"),
        (("ppl", "tiny", "--text", "/no/such"), "--text /no/such: No such file or directory; accepted"),
        (("ppl", "tiny", "--text", "/"), "--text /: Is a directory; accepted"),
        (("ppl", "tiny", "--window", "1"), "a window of 1 tokens; accepted: 2 to 200"),
        (("ppl", "tiny", "--window", "5000"), "a window of 5000 tokens; accepted"),
        (("ppl", "tiny", "--windows", "-1"), "--windows -1; accepted: 1 or more, 0 for all"),
        (("plan", "smollm2", "--memory", "0"), "--memory 0.0; accepted"),
        (("plan", "smollm2", "--memory", "nan"), "--memory nan; accepted"),
        (("plan", "smollm2", "--memory", "inf"), "--memory inf; accepted"),
        (("plan", "/no/such"), "no model at /no/such"),
    ],
    ids=lambda value: ascii(value if isinstance(value, str) else " ".join(value))[-40:],
)  # fmt: skip
def test_bad_input_is_one_sentence(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    lines = ran.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("tilewright: ") and sentence in lines[0]
    assert "Traceback" not in ran.out + ran.err


def test_text_that_is_no_utf8(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"\xff\xfe\x00")
    ran = run("ppl", "tiny", "--text", str(file))
    assert ran.code == 2 and ran.err.endswith("no UTF-8; accepted: a text file in UTF-8\n")


def test_a_model_without_a_tokenizer_and_one_whose_weights_are_nan(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = TinyCheckpoint()
    monkeypatch.setattr(session, "open_model", lambda _: mute)
    ran = run("generate", "mute", "--prompt", "x")
    assert ran.code == 2 and "no tokenizer beside its weights" in ran.err
    broken = Spoken(vocab=49152)
    broken.changed["norm"] = torch.full((64,), torch.nan)
    monkeypatch.setattr(session, "open_model", lambda _: broken)
    ran = run("generate", "broken", "--prompt", "x")
    assert ran.code == 1 and "norm holds 64 values that are NaN or infinite of 64" in ran.err


def test_a_kernel_that_gives_nan_fails_with_a_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "forward", lambda self, pieces: torch.full((1, 49152), torch.nan))
    for more in ((), ("--beams", "2")):
        ran = run(*G, *more)
        assert ran.code == 1
        assert ran.err.strip().endswith("hold NaN; weights or a kernel are broken")


class After:
    """Ctrl-C in the step after so many."""

    def __init__(self, steps: int) -> None:
        self.left, self.plain = steps, Engine.step

    def __call__(self, engine: Engine) -> Any:
        self.left -= 1
        if self.left < 0:
            self.left = 10**9
            raise KeyboardInterrupt
        return self.plain(engine)


def test_ctrl_c_keeps_the_answer_so_far(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = row(run(*G, *SHORT, "--json", "-"))
    after = After(5)
    monkeypatch.setattr(Engine, "step", lambda self: after(self))
    ran = run(*G, *SHORT, "--json", "-")
    assert ran.code == 3 and ran.document["interrupted"] is True
    (part,) = ran.document["rows"]
    assert (part["tokens"], part["finish"]) == (5, "cancelled")
    assert part["text"] and whole["text"].startswith(part["text"])


def test_ctrl_c_keeps_the_beams_that_ended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    after = After(3)
    monkeypatch.setattr(Engine, "step", lambda self: after(self))
    ran = run(*G, *SHORT, "--beams", "4", "--json", "-")
    assert ran.code == 3 and ran.document["interrupted"] is True


def test_ctrl_c_ends_a_turn_and_not_the_talk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    after = After(4)
    monkeypatch.setattr(Engine, "step", lambda self: after(self))
    ran = run("chat", "tiny", *SHORT, stdin="Hello\nAgain\n")
    assert ran.code == 0
    assert "4 out (cancelled)" in ran.out and "12 out (length)" in ran.out


def test_ctrl_c_keeps_the_windows_that_were_finished(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilewright.engine import perplexity

    options = ("ppl", "tiny", "--window", "32", "--windows", "5", "--json", "-")
    plain, left = perplexity._nll, [2]

    def nll(*arguments: Any) -> float:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(perplexity, "_nll", nll)
    ran = run(*options)
    assert ran.code == 3 and ran.document["interrupted"] is True
    assert ran.document["rows"][0]["windows"] == 2
    ran = run(*options)
    assert ran.code == 3 and "interrupted before the first window was finished" in ran.err


def test_a_real_answer_and_a_real_ctrl_c(
    private_folders: dict[str, str], tilewright: CommandLine
) -> None:
    """SmolLM2 knows the capital of France; SIGINT in the middle of a long answer keeps its beginning."""
    ran = tilewright(
        "engine", "generate", "smollm2", "--chat", "--max-tokens", "12", "--json", "-",
        "--prompt", "What is the capital of France?",
    )  # fmt: skip
    assert "Paris" in row(ran)["text"]
    command = "from tilewright.cli.main import main; raise SystemExit(main())"
    options = [
        "engine",
        "generate",
        "smollm2",
        "--prompt",
        "Once upon a time",
        "--max-tokens",
        "4000",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **private_folders},
    )
    assert process.stdout is not None
    loaded = process.stdout.readline()
    assert "loaded in" in loaded
    first = process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 3 and "Traceback" not in err
    assert len(first) == 20 and "(cancelled)" in rest.splitlines()[-1]


def test_documents_hold_no_bare_nan(run: Run) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    ran = run(*G, "--max-tokens", "1", "--json", "-")
    json.loads(ran.out, parse_constant=refuse)
    assert row(ran)["tokens"] == 1


def test_text_that_was_held_for_a_stop_text_is_told_when_there_is_none(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*options: str) -> Ran:
        after = After(6)
        with monkeypatch.context() as patch:
            patch.setattr(Engine, "step", lambda self: after(self))
            ran = run(*G, *SHORT, *options)
        assert ran.code == 3, ran.err
        return ran

    plain = broken_off("--json", "-").document["rows"][0]["text"]
    held = ("--stop", plain + "no")
    assert plain
    assert broken_off(*held, "--json", "-").document["rows"][0]["text"] == plain
    assert plain in broken_off(*held).out


def test_one_token_has_no_rate(run: Run) -> None:
    found = row(run(*G, "--max-tokens", "1", "--json", "-"))
    assert found["tokens_per_s"] is None and found["first_token_s"] > 0
    shown = run(*G, "--max-tokens", "1").out
    assert "1 out (length); first after" in shown and "tokens/s" not in shown


def test_before_the_first_token_no_time_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    after = After(0)
    monkeypatch.setattr(Engine, "step", lambda self: after(self))
    ran = run(*G, *SHORT)
    assert ran.code == 3
    assert "0 out (cancelled)" in ran.out and "first after" not in ran.out


def test_a_document_that_cannot_be_written_is_one_sentence(run: Run) -> None:
    ran = run(*G, *SHORT, "--json", "/dev/full")
    assert ran.code == 2
    assert ran.err.strip() == "tilewright: /dev/full cannot be written: No space left on device"


def test_features_that_a_model_has_not_are_said(run: Run) -> None:
    ran = run("validate", "tiny:llama", "--feature", "moe", "--json", "-")
    assert ran.code == 3 and "tiny:llama has no row with moe" in ran.err
