"""Models of every architecture from GGUF files and Hugging Face folders, and files that are wrong."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf_models import encoded, permuted, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tilewright.engine.build import BadWeights, build
from tilewright.engine.ops import Backends, Ops
from tilewright.engine.requests import Sampling
from tilewright.engine.session import Choices, open_engine
from tilewright.errors import TilewrightError, UsageError
from tilewright.models.checkpoint import check_shapes, open_model, shapes
from tilewright.models.config import ModelConfig
from tilewright.models.errors import BadModelFile, MissingMetadata, MissingModel, UnknownTensor
from tilewright.models.hf_export import write_hf
from tilewright.models.tiny import TINY, tiny_tensor, write_tiny

ENCODINGS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]
LONG = Sampling(most=12, ignore_eos=True)


def config_of(kind: str) -> ModelConfig:
    """As in `TINY`, with rows that blocks of 32 divide; GGUF does not say that gates are normed."""
    config = dataclasses.replace(TINY[kind], norm_topk=True)
    return dataclasses.replace(config, ffn=64) if config.experts else config


def tensors_of(kind: str) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    config = config_of(kind)
    return config, {name: tiny_tensor(config, name, 7) for name in shapes(config)}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", sorted(TINY))
def test_a_gguf_file_has_the_tensors_it_was_made_of(
    tmp_path: Path, kind: str, encoding: str
) -> None:
    config, tensors = tensors_of(kind)
    found = open_model(write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__, encoding))
    expected = dataclasses.replace(config, architecture=found.config.architecture)
    assert found.config == dataclasses.replace(expected, rms_eps=found.config.rms_eps)
    assert found.config.rms_eps == np.float32(config.rms_eps)
    check_shapes(found)
    changed = 0
    for name, wanted in tensors.items():
        values = wanted.numpy()
        heads = {"q": config.heads, "k": config.kv_heads}.get(name.rpartition(".")[2])
        if found.config.architecture == "llama" and heads:
            # Each row is encoded by itself, so that their order does not matter.
            assert not np.array_equal(permuted(values, heads), values)
        stored = encoded(values, encoding)
        changed += not np.array_equal(stored, values)
        assert np.array_equal(found.tensor(name).float().numpy(), stored), name
        assert found.shape(name) == values.shape
    assert bool(changed) == (encoding != "F32")


@pytest.mark.parametrize("kind", sorted(TINY))
def test_gguf_and_folder_answer_alike(tmp_path: Path, kind: str) -> None:
    config, tensors = tensors_of(kind)
    gguf = write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__)
    folder = write_hf(tmp_path / "m", config, tensors.__getitem__, shards=3)
    prompts = [[5, 17, 99, 3], [(37 * i) % 128 for i in range(20)]]
    answers = []
    for path in (gguf, folder):
        engine = open_engine(path, Choices(form="fp32", pages=32))
        found = engine.generate(prompts, dataclasses.replace(LONG, logprobs=3))
        answers.append([(r.answer, r.logprobs) for r in found])
    assert answers[0] == answers[1]
    for answer, logprobs in answers[0]:
        assert len(answer) == len({repr(at) for at in logprobs}) == 12


@pytest.mark.parametrize("encoding", ["Q4_0", "Q4_1"])
def test_four_bit_codes_run_as_they_are_stored(tmp_path: Path, encoding: str) -> None:
    config, tensors = tensors_of("qwen2")
    path = write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__, encoding)
    found = open_model(path)
    for name in ("layers.0.q", "layers.1.down"):
        codes = found.q4(name)
        assert codes is not None and int(codes.codes.max()) == 15
        n, k = codes.codes.shape
        groups = codes.codes.view(n, k // 32, 32).float()
        dequantised = groups * codes.scale.float()[..., None] + codes.minimum.float()[..., None]
        assert torch.equal(dequantised.view(n, k), found.tensor(name))
    engines = [open_engine(path, Choices(form=form, pages=32)) for form in ("q4_1", "fp32")]
    answers = [[r.answer for r in e.generate([[5, 17, 99, 3]], LONG)] for e in engines]
    assert answers[0] == answers[1]
    assert open_engine(path, Choices(pages=32)).model.layers[0].o.bytes == 64 * 64 // 32 * 20


def test_a_q4_0_scale_too_large_for_its_minimum_is_named(tmp_path: Path) -> None:
    config, tensors = tensors_of("llama")
    tensors["layers.1.o"] = tensors["layers.1.o"] * 1e5
    path = write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__, "Q4_0")
    with pytest.raises(BadWeights, match=r"layers\.1\.o holds \d+ values that are NaN or infinite"):
        build(open_model(path), Ops(Backends()), "q4_1")
    build(open_model(path), Ops(Backends()), "fp32")


def test_shapes_are_checked_without_reading_a_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, tensors = tensors_of("mixtral")
    paths = [
        write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__),
        write_hf(tmp_path / "m", config, tensors.__getitem__),
    ]
    for path in paths:
        opened = open_model(path)
        asked: list[str] = []
        monkeypatch.setattr(type(opened), "tensor", lambda _, name, a=asked: a.append(name))
        check_shapes(opened)
        assert asked == []


def edited(folder: Path, **changes: torch.Tensor | None) -> Path:
    """The folder with tensors put in place of others, or taken out."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, value in changes.items():
        if value is None:
            del tensors[name.replace("__", ".")]
        else:
            tensors[name.replace("__", ".")] = value
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


DOWN = "model__layers__1__mlp__down_proj__weight"


def test_folders_with_wrong_tensors_are_refused_in_one_sentence(tmp_path: Path) -> None:
    def tiny(name: str) -> Path:
        return write_tiny(tmp_path / name, "llama")

    ops = Ops(Backends())
    cases: list[tuple[Path, str]] = [
        (edited(tiny("a"), **{DOWN: None}), r"a: has no tensor for layers\.1\.down \[64, 96\]"),
        (
            edited(tiny("b"), **{DOWN: torch.zeros(64, 95)}),
            r"b: layers\.1\.down is \[64, 95\], and \[64, 96\] by its config",
        ),
        (edited(tiny("c"), lm_head__weight=None), r"c: has no tensor for head \[128, 64\]"),
    ]
    for path, message in cases:
        with pytest.raises(BadModelFile, match=message):
            build(open_model(path), ops)
    whole = edited(tiny("d"), **{DOWN: torch.zeros(64, 96, dtype=torch.int8)})
    with pytest.raises(BadModelFile, match=r"down_proj\.weight is I8; accepted: F32, F16, BF16"):
        open_model(whole)


def test_bf16_and_fp16_folders_run(tmp_path: Path) -> None:
    for kind in (torch.bfloat16, torch.float16):
        folder = write_tiny(tmp_path / str(kind), "llama-tied", seed=2)
        file = folder / "model.safetensors"
        stored = {name: t.to(kind) for name, t in load_file(file).items()}
        save_file(stored, file, metadata={"format": "pt"})
        assert open_model(folder).tensor("embed").dtype == kind
        (request,) = open_engine(folder, Choices(pages=16)).generate([[1, 2, 3]], LONG)
        assert len(request.answer) == 12


@pytest.mark.parametrize("shards", [1, 3])
def test_a_cut_anywhere_in_safetensors_is_noticed(tmp_path: Path, shards: int) -> None:
    folder = write_tiny(tmp_path / "t", "qwen3", shards=shards)
    file = sorted(folder.glob("*.safetensors"))[-1]
    whole = file.read_bytes()
    for size in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        file.write_bytes(whole[:size])
        with pytest.raises(BadModelFile, match=f"{file.name}: is cut off or not safetensors"):
            open_model(folder)
    file.write_bytes(whole)
    assert open_model(folder).has("layers.1.q_norm")
    if shards > 1:
        file.unlink()
        with pytest.raises(MissingModel, match="a shard that the index names"):
            open_model(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no JSON object"),
        ("{}", "has no weight_map"),
        ('{"weight_map": {"a": 1}}', "has no weight_map"),
        ("\udcff", "cannot be read"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_bad_index_is_named(tmp_path: Path, text: str, message: str) -> None:
    folder = write_tiny(tmp_path / "t", "llama", shards=2)
    index = folder / "model.safetensors.index.json"
    index.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadModelFile, match=f"{index.name}: {message}"):
        open_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma3"}, "'model_type' = 'gemma3'; accepted: llama"),
        ({"num_hidden_layers": None}, "'num_hidden_layers' is absent"),
        ({"num_hidden_layers": 0}, "'layers' = 0; accepted: 1 or more"),
        ({"num_attention_heads": 0}, "'heads' = 0; accepted: 1 or more"),
        ({"num_key_value_heads": 3}, "'heads' = 4 is no multiple of the 3"),
        ({"head_dim": 15}, "'head_dim' = 15; rotary angles need an even one"),
        ({"hidden_act": "gelu"}, "'hidden_act' = 'gelu'; accepted: 'silu'"),
        ({"attention_bias": True}, "'attention_bias' = True; accepted: False"),
        ({"sliding_window": 512}, "'sliding_window' = 512"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "has the type 'llama3'"),
        ({"vocab_size": "128"}, "'vocab_size' = '128' is not an integer"),
    ],
)
def test_a_config_that_is_not_built_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = write_tiny(tmp_path / "t", "llama")
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(MissingMetadata, match=message):
        open_model(folder)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"general.architecture": "gemma3"}, "'general.architecture' = 'gemma3'; accepted: llama"),
        ({"llama.rope.scaling.type": "yarn"}, "scaling.type' = 'yarn'; accepted: 'none'"),
        ({"llama.attention.sliding_window": 64}, "sliding_window' = 64; accepted: 0"),
        ({"llama.attention.key_length": 15}, "'head_dim' = 15"),
        ({"llama.expert_count": 2, "llama.expert_used_count": 3}, "'experts used' = 3"),
    ],
)
def test_a_gguf_variant_that_is_not_built_is_refused(
    tmp_path: Path, more: dict[str, object], message: str
) -> None:
    config, tensors = tensors_of("llama")
    path = tmp_path / "m.gguf"
    write_gguf(path, config, tensors.__getitem__, more=more)
    with pytest.raises(MissingMetadata, match=message):
        _ = open_model(path).config


def test_gguf_shapes_and_scaled_angles(tmp_path: Path) -> None:
    config, tensors = tensors_of("llama")
    tensors["layers.0.k"] = torch.zeros(30, 64)
    path = write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__)
    with pytest.raises(BadModelFile, match=r"layers\.0\.k is \[30, 64\], and \[32, 64\] by its"):
        build(open_model(path), Ops(Backends()))
    with pytest.raises(BadModelFile, match="30 rows for 2 heads"):
        open_model(path).tensor("layers.0.k")


def test_a_name_of_no_tensor_and_a_model_of_no_kind(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "t", "mixtral")
    for name in ("layers.0.nothing", "layers.0.experts.9.gate", "x", ""):
        with pytest.raises(UnknownTensor, match="no tensor"):
            open_model(folder).tensor(name)
        assert not open_model(folder).has(name)
    with pytest.raises(UsageError, match="no model at .*accepted: a GGUF file"):
        open_model(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingModel, match=r"config\.json is needed there"):
        open_model(tmp_path / "empty")


def test_gguf_cut_in_its_tensors_loads_nothing(tmp_path: Path) -> None:
    config, tensors = tensors_of("llama")
    path = write_gguf(tmp_path / "m.gguf", config, tensors.__getitem__, "Q8_0")
    whole = path.read_bytes()
    for size in range(len(whole) - 40, 10, -len(whole) // 9):
        path.write_bytes(whole[:size])
        with pytest.raises(TilewrightError):
            open_engine(path, Choices(pages=16))
    # An infinite scale of a block is a bad weight, not a bad file.
    raw = bytearray(whole)
    info = open_model_info(path, whole, "blk.1.ffn_down.weight")
    raw[info : info + 2] = struct.pack("<e", float("inf"))
    path.write_bytes(raw)
    with pytest.raises(BadWeights, match=r"layers\.1\.down holds \d+ values"):
        open_engine(path, Choices(pages=16))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_header_ends_in_one_sentence_or_in_a_model(
    data: st.DataObject, damaged: tuple[Path, bytes, int]
) -> None:
    path, whole, end = damaged
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        found = open_model(path)
        check_shapes(found)
        for name, shape in shapes(found.config).items():
            assert found.tensor(name).shape == shape
    except TilewrightError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, int]:
    """Where to write, a whole file, and where its tensors begin."""
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    config, tensors = tensors_of("llama")
    write_gguf(path, config, tensors.__getitem__, "Q4_0")
    return path, path.read_bytes(), open_model_info(path, path.read_bytes(), "token_embd.weight")


def open_model_info(path: Path, whole: bytes, name: str) -> int:
    from tilewright.models.gguf_reader import GgufFile

    path.write_bytes(whole)
    return GgufFile.open(path).info(name).offset
