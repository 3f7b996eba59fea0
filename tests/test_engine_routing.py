"""Precision routing: each token takes the weights its request was sent to, and nobody else notices."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tilewright.cli.main import main
from tilewright.engine.batch import Batch
from tilewright.engine.linear import Routed, rounded
from tilewright.engine.loop import Engine
from tilewright.engine.ops import Backends, Ops
from tilewright.engine.requests import Request, Sampling
from tilewright.engine.routing import (
    GROUPS,
    SCHEMA,
    BadSensitiveLayers,
    Group,
    read_sensitive,
    write_sensitive,
)
from tilewright.engine.sensitivity import sensitivity
from tilewright.engine.session import Choices, open_engine
from tilewright.errors import UsageError
from tilewright.kernels.mask_gemm import selection
from tilewright.models.tiny import TINY, write_tiny

CommandLine = Callable[..., Any]
PAGE = 16
NAMES = tuple(GROUPS.values())
ALL = frozenset((layer, name) for layer in range(2) for name in NAMES)
CONFIG = TINY["llama"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("routing")


@cache
def model_in(folder: Path, kind: str) -> Path:
    return write_tiny(folder / kind, kind, seed=3)


@cache
def sensitive_in(folder: Path, resident: frozenset[tuple[int, str]]) -> str:
    path = folder / f"{abs(hash(resident))}.json"
    groups = [Group(layer, name, 1.0, (layer, name) in resident) for layer, name in sorted(ALL)]
    write_sensitive(path, CONFIG, groups)
    return str(path)


def opened(
    folder: Path, resident: frozenset[tuple[int, str]] = ALL, kind: str = "llama", **more: Any
) -> Engine:
    sensitive = sensitive_in(folder, resident)
    return open_engine(model_in(folder, kind), Choices(sensitive=sensitive, invariant=True, **more))


@cache
def oracle_in(
    folder: Path, resident: frozenset[tuple[int, str]] = ALL, kind: str = "llama"
) -> Engine:
    """An engine that computes whole sequences, each over the pages of the one before."""
    return opened(folder, resident, kind)


@dataclass
class Answering:
    """A request and the logits that each of its answer's tokens was chosen from."""

    request: Request
    logits: list[Tensor] = field(default_factory=list)


def ask(engine: Engine, prompt: list[int], most: int = 8) -> Answering:
    logits: list[Tensor] = []

    def keep(_: object, row: Tensor) -> Tensor:
        logits.append(row.clone())
        return row

    wanted = Sampling(most=most, ignore_eos=True, processors=(keep,))
    return Answering(engine.add(prompt, wanted), logits)


def forward(engine: Engine, tokens: list[int], owner: list[int]) -> Tensor:
    """Logits [T,vocab] of all tokens in one pass, each owned by a slot or nobody."""
    count = len(tokens)
    places = torch.arange(count, dtype=torch.int32)
    batch = Batch(
        tokens=torch.tensor(tokens, dtype=torch.int32),
        positions=places,
        slots=places.clone(),
        owner=torch.tensor(owner, dtype=torch.int32),
        cu_q=torch.tensor([0, count], dtype=torch.int32),
        seq_lens=torch.tensor([count], dtype=torch.int32),
        block_table=torch.arange(-(-count // PAGE), dtype=torch.int32)[None],
        rows=torch.arange(count),
    )
    return engine.model.forward(engine.ops, engine.cache, batch).float()


def expected(oracle: Engine, done: Answering, in_bf16: list[bool]) -> Tensor:
    """The logits of a request's answer, of its tokens computed alone, at once, in these precisions."""
    assert oracle.router is not None
    selection.set_bits(oracle.router.words, requests=[5])
    tokens = done.request.tokens[:-1]
    owner = [5 if on else -1 for on in in_bf16[: len(tokens)]]
    return forward(oracle, tokens, owner)[len(done.request.prompt) - 1 :]


def run_with_turns(
    engine: Engine, asked: list[Answering], turns: dict[int, list[tuple[int, bool]]]
) -> list[list[bool]]:
    """Step to the end, sending requests (by their place) as `turns` says by step; the path of each token."""
    paths = [[False] * 128 for _ in asked]
    ever = [0] * len(asked)
    for step in range(400):
        if not engine.busy:
            break
        for index, bf16 in turns.get(step, []):
            request = asked[index].request
            if request.state.ended:
                continue
            engine.route(request, bf16)
            start = ever[index] if request.answer else request.computed
            paths[index][start:] = [bf16] * (128 - start)
        engine.step()
        engine.check()
        ever = [
            max(n, a.request.computed, len(a.request.tokens) - 1 if a.request.answer else 0)
            for n, a in zip(ever, asked, strict=True)
        ]
    assert not engine.busy
    return paths


def same(asked: list[Answering], paths: list[list[bool]], oracle: Engine) -> None:
    for one, path in zip(asked, paths, strict=True):
        assert torch.equal(torch.stack(one.logits), expected(oracle, one, path))


PROMPTS = st.lists(
    st.lists(st.integers(0, CONFIG.vocab - 1), min_size=1, max_size=40), min_size=1, max_size=4
)
TURNS = st.dictionaries(
    st.integers(0, 12), st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=3)
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    prompts=PROMPTS,
    turns=TURNS,
    resident=st.frozensets(st.sampled_from(sorted(ALL))),
    kind=st.sampled_from(["llama", "qwen2", "qwen3"]),
    budget=st.sampled_from([7, 64, 512]),
    pages=st.sampled_from([5, 64]),
    graphs=st.booleans(),
    prefixes=st.booleans(),
)
def test_every_request_has_the_logits_of_its_own_path_whatever_its_mates_do(
    folder: Path,
    prompts: list[list[int]],
    turns: dict[int, list[tuple[int, bool]]],
    resident: frozenset[tuple[int, str]],
    kind: str,
    **more: Any,
) -> None:
    engine = opened(folder, resident, kind, **more)
    asked = [ask(engine, prompt) for prompt in prompts]
    turns = {
        step: [(index % len(asked), on) for index, on in those] for step, those in turns.items()
    }
    paths = run_with_turns(engine, asked, turns)
    same(asked, paths, oracle_in(folder, resident, kind))
    wanted = any(any(p[: len(a.request.tokens) - 1]) for p, a in zip(paths, asked, strict=True))
    assert engine.router is not None
    assert bool(engine.router.rows) == (wanted and bool(resident))


@pytest.mark.parametrize("graphs", [False, True])
def test_a_turn_in_the_middle_changes_the_rest_of_one_request_only_and_restarts_nothing(
    folder: Path, graphs: bool
) -> None:
    # Four fill a graph of four; when the last one has ended, its row is nobody's.
    prompts, most = [list(range(1, 30)), list(range(40, 50)), [7], [9, 8]], (24, 24, 24, 12)

    def run(turns: dict[int, list[tuple[int, bool]]]) -> tuple[Engine, list[Answering]]:
        engine = opened(folder, graphs=graphs)
        asked = [ask(engine, *each) for each in zip(prompts, most, strict=True)]
        run_with_turns(engine, asked, turns)
        return engine, asked

    plain, before = run({})
    routed, after = run({6: [(3, True)]})
    assert plain.router is not None and routed.router is not None
    assert plain.router.rows == 0
    # 12 tokens, of which the first 6 were chosen before; each but the last goes through eight linears.
    assert routed.router.rows == 8 * (12 - 6)
    assert plain.scheduler.counts == routed.scheduler.counts
    if graphs:
        assert plain.graphs is not None and routed.graphs is not None
        assert plain.graphs.counts == routed.graphs.counts
        assert routed.graphs.counts.replays == 23
    for i in range(3):
        assert all(map(torch.equal, before[i].logits, after[i].logits))
    equal = list(map(torch.equal, before[3].logits, after[3].logits))
    assert all(equal[:6]) and not equal[6]


def test_with_all_groups_the_two_paths_are_the_formats_they_are_made_of(folder: Path) -> None:
    prompt = [(7 * i) % CONFIG.vocab for i in range(50)]
    model = model_in(folder, "qwen2")
    routed = opened(folder, kind="qwen2")
    int8 = open_engine(model, Choices(form="w8a8", invariant=True))
    assert torch.equal(forward(routed, prompt, [-1] * 50), forward(int8, prompt, [-1] * 50))
    bf16 = open_engine(model, Choices(form="bf16", invariant=True))
    assert routed.router is not None
    routed.router.always()
    # Up to the output projection, which is int8 in one and bf16 in the other.
    routed.model.head = bf16.model.head
    assert torch.equal(forward(routed, prompt, [-1] * 50), forward(bf16, prompt, [-1] * 50))
    routed.router.tally()
    assert routed.router.rows == 8 * 50


def test_pages_serve_those_of_their_own_path(folder: Path) -> None:
    prompt = [(11 * i) % CONFIG.vocab for i in range(60)]
    engine = opened(folder)
    counts = engine.blocks.counts

    def one(at: int | None) -> tuple[int, Answering, list[bool]]:
        """A request that turns to bf16 when so many tokens of its prompt are computed."""
        before, asked = counts.hit_tokens, ask(engine, prompt, most=4)
        asked.request.turns = []
        if at == 0:
            engine.route(asked.request)
        while engine.busy:
            if at and asked.request.computed == at:
                engine.route(asked.request)
            engine.step()
        path = [at is not None and i >= at for i in range(128)]
        return counts.hit_tokens - before, asked, path

    engine.scheduler.limits = type(engine.scheduler.limits)(chunk=20)
    oracle = oracle_in(folder)
    ran = [one(at) for at in (None, 0, None, 0, 20, 20, None)]
    hits = [hit for hit, _, _ in ran]
    # The one that turns at 20 claims nothing of bf16, and is still int8 when it claims: then all is there.
    assert hits[:4] == [0, 0, 48, 48]
    assert hits[6] == 48
    same([asked for _, asked, _ in ran[:4]], [path for _, _, path in ran[:4]], oracle)
    same([ran[6][1]], [ran[6][2]], oracle)


def test_a_turn_inside_a_page_keeps_that_page_from_others(folder: Path) -> None:
    prompt = [(13 * i) % CONFIG.vocab for i in range(20)]
    engine, oracle = oracle_in(folder), opened(folder)
    first = ask(engine, prompt, most=40)
    paths = run_with_turns(engine, [first], {5: [(0, True)], 30: [(0, False)]})
    same([first], paths, oracle)
    text = first.request.tokens[:-1]
    for path, hit in ((False, 16), (True, 0)):
        before, again = engine.blocks.counts.hit_tokens, ask(engine, text, most=2)
        if path:
            engine.route(again.request)
        same(
            [again],
            run_with_turns(engine, [again], {}) if not path else _all(engine, again),
            oracle,
        )
        assert engine.blocks.counts.hit_tokens - before == hit


def _all(engine: Engine, one: Answering) -> list[list[bool]]:
    run_with_turns(engine, [one], {})
    return [[True] * 128]


def test_preemption_computes_each_token_as_it_was(folder: Path) -> None:
    prompts = [[(i * k) % CONFIG.vocab for i in range(30)] for k in (3, 5, 7)]
    engine = opened(folder, pages=7, prefixes=False)
    asked = [ask(engine, prompt, most=30) for prompt in prompts]
    turns = {4: [(0, True), (2, True)], 12: [(0, False), (1, True)], 20: [(2, False)]}
    paths = run_with_turns(engine, asked, turns)
    turned = [a for a in asked if a.request.preemptions and a.request.turns]
    assert turned and engine.router is not None and engine.router.rows
    same(asked, paths, oracle_in(folder))


def test_what_is_sent_while_preempted_turns_where_it_had_come_to(folder: Path) -> None:
    engine = opened(folder, pages=6, prefixes=False)
    asked = [ask(engine, [(i * k) % CONFIG.vocab for i in range(30)], most=30) for k in (3, 5)]
    late = asked[1].request
    while not late.preemptions:
        engine.step()
    assert late.computed == 0 and late.answer
    engine.route(late)
    paths = [[False] * 128, [i >= len(late.tokens) - 1 for i in range(128)]]
    run_with_turns(engine, asked, {})
    same(asked, paths, oracle_in(folder))


def test_a_turn_does_not_depend_on_a_preemption_before_it(folder: Path) -> None:
    prompt = [(11 * i) % CONFIG.vocab for i in range(40)]
    engine = opened(folder, prefixes=False, chunk=16)
    asked = ask(engine, prompt, most=8)
    engine.step()
    engine.scheduler.preempt(asked.request)
    assert asked.request.computed == 0 and not asked.request.answer
    engine.route(asked.request)
    assert asked.request.turns == [16]
    run_with_turns(engine, [asked], {})
    same([asked], [[i >= 16 for i in range(128)]], oracle_in(folder))


def test_turns_of_one_place_are_the_last_one(folder: Path) -> None:
    engine = opened(folder)
    request = ask(engine, list(range(60))).request
    request.reached = 32
    engine.route(request)
    assert request.owners(30, 34) == [-1, -1, 0, 0]
    engine.route(request, False)
    assert request.owners(0, 60) == [-1] * 60
    engine.route(request)
    assert request.owners(30, 34) == [-1, -1, 0, 0]
    request.reached = 40
    engine.route(request, False)
    assert request.owners(39, 41) == [0, -1]


def test_slots_are_given_out_and_given_back(folder: Path) -> None:
    engine = opened(folder, running=70)
    asked = [ask(engine, [i + 1], most=3) for i in range(66)]
    for one in asked[:64]:
        engine.route(one.request)
    assert sorted(a.request.slot for a in asked[:64]) == list(range(64))
    for wrong in (64, 65):
        with pytest.raises(UsageError, match="64 requests were sent to bf16"):
            engine.route(asked[wrong].request)
    engine.route(asked[3].request)  # again changes nothing
    engine.cancel(asked[9].request)
    engine.route(asked[64].request)
    assert asked[64].request.slot == asked[9].request.slot
    paths = run_with_turns(engine, asked, {})
    live = [i for i in range(66) if i != 9]
    paths = [[i != 65] * 128 for i in live]
    same([asked[i] for i in live], paths, oracle_in(folder))


def test_what_cannot_be_sent_is_refused_in_a_sentence(folder: Path) -> None:
    plain = open_engine(model_in(folder, "llama"), Choices(form="w8a8"))
    with pytest.raises(UsageError, match="accepted: an engine opened with"):
        plain.route(plain.add([1]))
    engine = opened(folder)
    done = ask(engine, [1], most=1)
    run_with_turns(engine, [done], {})
    with pytest.raises(UsageError, match="has ended"):
        engine.route(done.request)
    beam = engine.beams([1, 2], 2).members[0]
    with pytest.raises(UsageError, match="is a beam"):
        engine.route(beam)
    sensitive = sensitive_in(folder, ALL)
    for choices in (
        Choices(form="routed"),
        Choices(form="w8a8", sensitive=sensitive),
        Choices(dtype="fp32", sensitive=sensitive),
        Choices(budget=5000, sensitive=sensitive),
    ):
        with pytest.raises(UsageError, match="accepted: "):
            open_engine(model_in(folder, "llama"), choices)


def good() -> dict[str, Any]:
    rows = [{"layer": 1, "group": "o", "score": 2, "bf16": True}]
    return {"schema": SCHEMA, "model": "m", "score": "s", "layers": 2, "groups": rows}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(place=st.sampled_from(["", *good(), *good()["groups"][0]]), value=JSON)
def test_a_wrong_file_is_one_sentence(folder: Path, place: str, value: Any) -> None:
    found = good()
    row = found["groups"][0]
    fine = {"model": True, "score": True}
    if place in row:
        row[place] = value
        fine = {
            "layer": type(value) is int and value in (0, 1),
            "group": value in NAMES,
            "score": isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) < float("inf"),
            "bf16": isinstance(value, bool),
        }
    elif place:
        found[place] = value
    assume(place not in ("groups", "layers") or value not in ([], 2))
    path = folder / "any.json"
    path.write_text(json.dumps(found if place else value))
    if fine.get(place):
        assert len(read_sensitive(path, CONFIG)) == 1
        return
    with pytest.raises(BadSensitiveLayers) as caught:
        read_sensitive(path, CONFIG)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ") and "; accepted: " in sentence and "\n" not in sentence


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, None])
def test_a_file_that_is_no_json_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "s.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadSensitiveLayers, match="cannot be read as JSON"):
        read_sensitive(path, CONFIG)


def test_a_group_is_named_once_and_one_of_experts_not_at_all(tmp_path: Path) -> None:
    path, found = tmp_path / "s.json", good()
    found["groups"] *= 2
    path.write_text(json.dumps(found))
    with pytest.raises(BadSensitiveLayers, match="each group once"):
        read_sensitive(path, CONFIG)
    found["groups"] = [{"layer": 0, "group": "down", "score": 1.0, "bf16": True}]
    path.write_text(json.dumps(found))
    assert read_sensitive(path, CONFIG) == (Group(0, "down", 1.0, True),)
    with pytest.raises(BadSensitiveLayers, match="accepted: qkv, o$"):
        read_sensitive(path, TINY["mixtral"])


def test_scores_are_those_of_the_inputs(folder: Path, tmp_path: Path) -> None:
    engine = open_engine(model_in(folder, "llama"), Choices(form="fp32"))
    ids = [(17 * i + i // 5) % CONFIG.vocab for i in range(96)]
    found, seen = sensitivity(engine, ids, keep=3, window=32, windows=3)
    assert (seen.windows, seen.tokens) == (3, 93)
    assert [g.bf16 for g in found] == [True] * 3 + [False] * 5
    assert [g.score for g in found] == sorted((g.score for g in found), reverse=True)
    assert {(g.layer, g.group) for g in found} == ALL
    # The input of the first layer's qkv is the normed embedding: 32 x 64 values a window, none left out.
    weights = engine.model
    embedded = weights.embed(torch.tensor(ids))
    normed = embedded * torch.rsqrt(embedded.square().mean(1, keepdim=True) + CONFIG.rms_eps)
    values = (normed * weights.layers[0].attn_norm).flatten()
    low, high = torch.quantile(values, torch.tensor([0.25, 0.75])).tolist()
    score = next(g.score for g in found if (g.layer, g.group) == (0, "qkv"))
    assert score == pytest.approx(float(values.abs().max()) / 127 / (high - low), rel=1e-4)
    path = tmp_path / "s.json"
    write_sensitive(path, CONFIG, found)
    assert read_sensitive(path, CONFIG) == tuple(found)
    # Nothing stays behind, even where it is refused.
    with pytest.raises(UsageError, match="9 groups in bf16; accepted: 0 to 8"):
        sensitivity(engine, ids, keep=9, window=32)
    assert all(type(layer.qkv).__name__ == "Dense" for layer in engine.model.layers)


@pytest.mark.parametrize("backend", ["host", "reference", "triton", "ascendc"])
def test_each_backend_takes_the_weights_that_the_selection_names(backend: str) -> None:
    ops = Ops(Backends.parse(f"host,mask_gemm={backend}"), 1, invariant=True)
    torch.manual_seed(1)
    w, bias = torch.randn(48, 64), torch.randn(48)
    x = torch.randn(9, 64).bfloat16()
    words, counts = selection.pack(2, requests=[4]), torch.zeros(3, dtype=torch.int32)
    linear = Routed(ops, w, bias, 1, words, counts)
    ops.owner = torch.tensor([-1, 4, 4, 3, 4, -1, 4, 0, 5], dtype=torch.int32)
    in_bf16 = ops.owner == 4
    codes, scale = rounded(w)
    q, row_scale = ops.quantize(x)
    int8 = (q.double() @ codes.double().T) * row_scale.double()[:, None] * scale.double()
    bf16 = x.double() @ w.bfloat16().double().T
    for turned in (False, True):
        want = torch.where(in_bf16[:, None], bf16, int8) + bias
        got = linear(ops, x).double()
        # One rounding to bf16 is 2^-9 of an element at the most; half as much again for the fp32 sums.
        assert (got - want).norm() <= 1.5 * 2**-9 * want.norm(), turned
        assert (int8 - bf16).norm() > 4 * 2**-9 * want.norm()  # the wrong path would show
        assert counts.tolist() == [int(in_bf16.sum()), 9 - int(in_bf16.sum()), 0]
        selection.set_bits(words, layers=[1])
        in_bf16 = torch.ones(9, dtype=torch.bool)


def test_the_real_model_from_scores_to_an_answer(
    tilewright: CommandLine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sensitive_layers.json"
    scored = tilewright(
        *("engine", "sensitivity", "smollm2", "--out", str(path), "--keep", "18"),
        *("--window", "64", "--windows", "1", "--json", "-"),
    )
    assert scored.code == 0, scored.err
    rows = scored.document["rows"]
    assert len(rows) == 120 and sum(row["bf16"] for row in rows) == 18
    # What is known of this family: the inputs of down projections have the largest outliers.
    assert rows[0]["group"] == "down"
    question = ("--chat", "--prompt", "What is the capital of France?", "--max-tokens", "8")
    told = tilewright(
        *("engine", "generate", "smollm2", *question, "--sensitive", str(path), "--json", "-")
    )
    assert told.code == 0, told.err
    assert "Paris" in told.document["rows"][0]["text"]
    path.write_text("{}")
    assert main(["engine", "generate", "smollm2", *question, "--sensitive", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"tilewright: {path}: schema is None") and said.count("\n") == 1
