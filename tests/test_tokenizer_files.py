"""Tokenizers of Hugging Face folders and of GGUF files, one vocabulary in both, and files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from tilewright.engine.session import chat_ids
from tilewright.errors import UsageError
from tilewright.models.errors import BadModelFile, MissingMetadata, MissingTokenizer
from tilewright.models.smollm import open_smollm2
from tilewright.models.text import default_text
from tilewright.models.tokenizer import Tokenizer

# As in the tokenizer.json of each family.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    "qwen2": WORDS.replace("DIGITS", r"\p{N}"),
    "llama-bpe": WORDS.replace("DIGITS", r"\p{N}{1,3}"),
    "gpt-2": None,
    "smollm": None,
}
SPECIAL = ["<|im_start|>", "<|im_end|>"]
TEXTS = st.text() | st.text(
    st.sampled_from("aAbt '’sSlLrRe.,!?\n\r\t  0123456789éé中🙂<|im_end|>"), max_size=60
)


def pieces_of(pre: str) -> pre_tokenizers.PreTokenizer:
    """How a family cuts text, put together again."""
    pattern = PATTERNS[pre]
    if pattern is not None:
        cut = pre_tokenizers.Split(Regex(pattern), "isolated")
        return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
    whole = pre_tokenizers.ByteLevel(False, use_regex=True)
    if pre == "gpt-2":
        return whole
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])


def folder_of(folder: Path, pre: str, **config: object) -> Path:
    """A folder with a small trained tokenizer of a family."""
    folder.mkdir(exist_ok=True)
    backend = Backend(models.BPE(ignore_merges=pre == "llama-bpe"))
    backend.pre_tokenizer = pieces_of(pre)
    backend.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([default_text()[:20_000], "12 123 1234 " * 50], trainer)
    backend.save(str(folder / "tokenizer.json"))
    said = {"eos_token": "<|im_end|>", "bos_token": {"content": "<|im_start|>"}} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def metadata_of(folder: Path, pre: str) -> dict[str, Any]:
    """The same tokenizer as a GGUF file describes it."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    words = sorted(model["vocab"], key=model["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [3 if word in SPECIAL else 1 for word in words],
        "tokenizer.ggml.bos_token_id": words.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": words.index("<|im_end|>"),
    }


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Tokenizer]]:
    found = {}
    for pre in PATTERNS:
        folder = folder_of(tmp_path_factory.mktemp(pre), pre)
        found[pre] = Tokenizer.from_directory(folder), Tokenizer(metadata_of(folder, pre))
    return found


@pytest.mark.parametrize("pre", sorted(PATTERNS))
@settings(max_examples=150, deadline=None)
@given(text=TEXTS, parse=st.booleans())
def test_folder_and_gguf_give_the_same_ids(
    pairs: dict[str, tuple[Tokenizer, Tokenizer]], pre: str, text: str, parse: bool
) -> None:
    folder, gguf = pairs[pre]
    ids = folder.encode(text, parse_special=parse)
    assert ids == gguf.encode(text, parse_special=parse)
    assert folder.decode(ids) == gguf.decode(ids)
    if pre != "qwen2":  # whose texts are composed first
        assert folder.decode(ids) == text


@pytest.mark.parametrize(
    ("pre", "text", "cut"),
    [
        ("smollm", "a 123", ["a", " ", "1", "2", "3"]),
        ("gpt-2", "a 123", ["a", " 123"]),
        ("qwen2", "a 123", ["a", " ", "1", "2", "3"]),
        ("llama-bpe", "a 12345", ["a", " ", "123", "45"]),
        ("llama-bpe", "I'LL\n\n x", ["I", "'LL", "\n\n", " x"]),
        ("qwen2", "(ab!?\n", ["(ab", "!?\n"]),
        ("gpt-2", "(ab!?\n", ["(", "ab", "!?", "\n"]),
    ],
)
def test_text_is_cut_as_the_family_does(
    pairs: dict[str, tuple[Tokenizer, Tokenizer]], pre: str, text: str, cut: list[str]
) -> None:
    """No token goes over a cut: ids of the whole are those of the parts."""
    for tokenizer in pairs[pre]:
        backend = tokenizer._plain
        assert backend.pre_tokenizer is not None
        found = [text[a:b] for _, (a, b) in backend.pre_tokenizer.pre_tokenize_str(text)]
        assert found == cut


def test_llama_takes_a_token_whole_that_no_merge_leads_to() -> None:
    words = ["a", "b", "c", "abc", "<|im_end|>"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.token_type": [1, 1, 1, 1, 3],
    }
    assert Tokenizer(metadata | {"tokenizer.ggml.pre": "llama-bpe"}).encode("abc") == [3]
    assert Tokenizer(metadata | {"tokenizer.ggml.pre": "gpt-2"}).encode("abc") == [0, 1, 2]


def test_qwen_composes_characters_first(
    pairs: dict[str, tuple[Tokenizer, Tokenizer]],
) -> None:
    for tokenizer in pairs["qwen2"]:
        assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")
    for tokenizer in pairs["llama-bpe"]:
        assert tokenizer.encode("e\u0301") != tokenizer.encode("\u00e9")


def test_text_from_outside_forges_no_turn(pairs: dict[str, tuple[Tokenizer, Tokenizer]]) -> None:
    for pair in pairs.values():
        for tokenizer in pair:
            end = tokenizer.special["<|im_end|>"]
            assert end == tokenizer.eos and tokenizer.bos == tokenizer.special["<|im_start|>"]
            assert end not in tokenizer.encode("x<|im_end|>y")
            assert end in tokenizer.encode("x<|im_end|>y", parse_special=True)
            assert tokenizer.decode([end], skip_special=True) == ""
            assert tokenizer.pad is None and tokenizer.unk is None


def test_the_real_tokenizer_survives_a_folder(tmp_path: Path) -> None:
    """SmolLM2's, written as tokenizer.json by the package and read again."""
    own = Tokenizer(open_smollm2().metadata)
    own._parser().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (tmp_path / "chat_template.jinja").write_text(str(own.chat_template))
    read = Tokenizer.from_directory(tmp_path)
    text = default_text()[:30_000] + "<|im_start|>1234 \n\t é 🙂"
    for parse in (False, True):
        ids = own.encode(text, parse_special=parse)
        assert read.encode(text, parse_special=parse) == ids and len(ids) > 5000
    assert (read.eos, read.vocab_size, read.chat_template) == (
        own.eos,
        own.vocab_size,
        own.chat_template,
    )
    assert dict(read.special) == dict(own.special)


@pytest.mark.parametrize(
    ("config", "file", "expected"),
    [
        ({}, None, None),
        ({"chat_template": "one"}, None, "one"),
        ({"chat_template": "one"}, "two", "two"),
        (
            {
                "chat_template": [
                    {"name": "tools", "template": "t"},
                    {"name": "default", "template": "d"},
                ]
            },
            None,
            "d",
        ),
        ({"chat_template": [{"name": "tools", "template": "t"}]}, None, None),
        ({"chat_template": 3}, None, None),
    ],
)
def test_where_a_chat_template_is_looked_for(
    tmp_path: Path, config: dict[str, object], file: str | None, expected: str | None
) -> None:
    folder = folder_of(tmp_path, "gpt-2", **config)
    if file is not None:
        (folder / "chat_template.jinja").write_text(file)
    assert Tokenizer.from_directory(folder).chat_template == expected


def test_padding_and_cuts_of_a_training_setup_are_off(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "gpt-2")
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(3)
    backend.enable_padding(length=5)
    backend.save(str(folder / "tokenizer.json"))
    text = "a text of more than three tokens"
    read = Tokenizer.from_directory(folder)
    assert read.decode(read.encode(text)) == text


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(MissingTokenizer, match=r"no tokenizer in .*tokenizer\.json"):
        Tokenizer.from_directory(tmp_path)
    source = tmp_path / "tokenizer.json"
    for text in (
        "",
        "{}",
        "[1]",
        '{"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}',
    ):
        source.write_text(text)
        with pytest.raises(BadModelFile, match=r"tokenizer\.json: holds no tokenizer"):
            Tokenizer.from_directory(tmp_path)
    folder_of(tmp_path, "gpt-2")
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(BadModelFile, match=r"tokenizer_config\.json: is not JSON"):
        Tokenizer.from_directory(tmp_path)


def test_merges_that_do_not_fit_and_unknown_kinds(tmp_path: Path) -> None:
    metadata = metadata_of(folder_of(tmp_path, "gpt-2"), "gpt-2")
    with pytest.raises(MissingMetadata, match=r"merges 'q' and '', which are no tokens"):
        Tokenizer(metadata | {"tokenizer.ggml.merges": ["q"]})
    with pytest.raises(MissingMetadata, match=r"pre' = 'tekken'; accepted: smollm, gpt-2, qwen2"):
        Tokenizer(metadata | {"tokenizer.ggml.pre": "tekken"})
    with pytest.raises(MissingMetadata, match="token_type' has 1 entries"):
        Tokenizer(metadata | {"tokenizer.ggml.token_type": [1]})


def test_a_chat_template_is_rendered_as_transformers_does(tmp_path: Path) -> None:
    template = (
        "{{ bos_token }}\n{% for message in messages %}\n    {% if message.role == 'tool' %}"
        "{{ raise_exception('no tools here') }}{% endif %}\n{{ message.content }}{{ eos_token }}"
        "\n{% endfor %}\n{% if add_generation_prompt %}>{% endif %}"
    )
    tokenizer = Tokenizer.from_directory(folder_of(tmp_path, "gpt-2", chat_template=template))
    ids = chat_ids(tokenizer, [("user", "a"), ("assistant", "b<|im_end|>")])
    assert tokenizer.decode(ids) == "<|im_start|>\na<|im_end|>\nb<|im_end|><|im_end|>\n>"
    with pytest.raises(UsageError, match="takes no such turns: no tools here"):
        chat_ids(tokenizer, [("tool", "x")])
    for broken in ("{% if %}", "{{ 1 + 'a' }}", "{{ messages[9].role.x }}", "{{ 1 / 0 }}"):
        tokenizer.chat_template = broken
        with pytest.raises(UsageError, match="chat template takes no such turns"):
            chat_ids(tokenizer, [("user", "x")])
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="has no chat template"):
        chat_ids(tokenizer, [("user", "x")])
