"""The tokenizer of a GGUF file (byte-level BPE) or of a Hugging Face folder, through the package `tokenizers`.

llama.cpp's "smollm" splits every digit off before the byte-level pattern, so text is cut into
single digits first. A conversion that leaves this step out gives other ids for whitespace before
a digit. "qwen2" and "llama-bpe" are cut by the pattern of these models' own tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .errors import BadModelFile, MissingMetadata, MissingTokenizer
from .json_file import read_object, read_text
from .packages import require

if TYPE_CHECKING:
    import tokenizers

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How text is cut before pairs are merged: a pattern, or None for GPT-2's, which is ByteLevel's own.
_PRE_TOKENIZERS: Mapping[str, str | None] = {
    "smollm": None,
    "gpt-2": None,
    "qwen2": _WORDS % r"\p{N}",
    "llama-bpe": _WORDS % r"\p{N}{1,3}",
}
_CONTROL, _USER_DEFINED = 3, 4


class Tokenizer:
    """Text to ids and back.

    Attributes:
        special: special token text to id, e.g. "<|im_end|>" to 2.
        bos, eos, pad, unk: ids, or None where the file names none.
        chat_template: the Jinja template of the conversation format, or None.
        byte_runs: neighbouring tokens of single bytes are decoded together, if they are no text each to U+FFFD.
    """

    __slots__ = (
        "_parsing", "_plain", "bos", "byte_runs", "chat_template", "eos", "pad", "special", "unk"
    )  # fmt: skip

    def __init__(self, metadata: Mapping[str, object]) -> None:
        """Build from the `tokenizer.*` keys of a GGUF file (0.2 s for 49,152 tokens).

        Raises:
            MissingPackage: the package tokenizers is not installed.
            MissingMetadata: a key is absent, or names another kind of tokenizer.
        """
        require("tokenizers", "tokenizing")
        from tokenizers import AddedToken

        _expect(metadata, "tokenizer.ggml.model", ("gpt2",))
        pre = _expect(metadata, "tokenizer.ggml.pre", tuple(_PRE_TOKENIZERS))
        tokens = _list(metadata, "tokenizer.ggml.tokens")
        merges = _list(metadata, "tokenizer.ggml.merges")
        kinds = _list(metadata, "tokenizer.ggml.token_type")
        if len(kinds) != len(tokens):
            detail = f"has {len(kinds)} entries for {len(tokens)} tokens"
            raise MissingMetadata("tokenizer.ggml.token_type", detail)

        words = [str(token) for token in tokens]
        plain = _backend(pre, words, [str(merge) for merge in merges])
        special = {word: i for i, word in enumerate(words) if kinds[i] == _CONTROL}
        plain.add_special_tokens(
            [AddedToken(word, special=True, normalized=False) for word in special]
        )
        plain.add_tokens(
            [
                AddedToken(word, normalized=False)
                for i, word in enumerate(words)
                if kinds[i] == _USER_DEFINED
            ]
        )
        roles = {role: _id(metadata, role) for role in ("bos", "eos", "padding", "unknown")}
        template = metadata.get("tokenizer.chat_template")
        self._fill(plain, special, roles, template if isinstance(template, str) else None)

    def _fill(
        self,
        plain: tokenizers.Tokenizer,
        special: dict[str, int],
        roles: Mapping[str, int | None],
        template: str | None,
    ) -> None:
        self._plain = plain
        self._plain.encode_special_tokens = True
        self._parsing: tokenizers.Tokenizer | None = None
        self.special: Mapping[str, int] = MappingProxyType(special)
        self.bos, self.eos = roles["bos"], roles["eos"]
        self.pad, self.unk = roles["padding"], roles["unknown"]
        self.chat_template = template
        self.byte_runs = False

    @classmethod
    def from_directory(cls, path: Path) -> Tokenizer:
        """Build from a folder's tokenizer.json, with tokenizer_config.json and chat_template.jinja if they are there.

        Raises:
            MissingPackage: the package tokenizers is not installed.
            MissingTokenizer: there is no tokenizer.json.
            BadModelFile: one of the files cannot be read.
        """
        require("tokenizers", "tokenizing")
        from tokenizers import Tokenizer as Backend

        source = path / "tokenizer.json"
        if not source.is_file():
            raise MissingTokenizer(source)
        text = read_text(source)
        try:
            plain = Backend.from_str(text)
        except Exception as error:
            if type(error) is not Exception:  # what the package raises, nothing narrower
                raise
            raise BadModelFile(source, f"holds no tokenizer: {error}") from error
        plain.no_padding()
        plain.no_truncation()
        config = path / "tokenizer_config.json"
        said = read_object(config) if config.is_file() else {}
        special = {t.content: i for i, t in plain.get_added_tokens_decoder().items() if t.special}
        found = cls.__new__(cls)
        roles = {
            role: _named(plain, said.get(f"{key}_token"))
            for role, key in (("bos",) * 2, ("eos",) * 2, ("padding", "pad"), ("unknown", "unk"))
        }
        found._fill(plain, special, roles, _template(path, said))
        found.byte_runs = '"ByteFallback"' in text
        return found

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return self._plain.get_vocab_size()

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Ids of a text; nothing is put before or after it.

        Bytes without a token are dropped: in SmolLM2 the control characters 04, 06, 13, 14, 16, 1D
        and the lead bytes F1, F2 (characters from U+40000 on).

        Args:
            text: any text.
            parse_special: "<|im_start|>" written in the text becomes its one id. Leave it off for
                text from outside, which then cannot forge a turn.
        """
        backend = self._parser() if parse_special else self._plain
        return list(backend.encode(text, add_special_tokens=False).ids)

    def _parser(self) -> tokenizers.Tokenizer:
        # A second one, because the switch is a state of the tokenizer and not of the call.
        if self._parsing is None:
            from tokenizers import Tokenizer as Backend

            parsing = Backend.from_str(self._plain.to_str())
            parsing.encode_special_tokens = False
            self._parsing = parsing
        return self._parsing

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of the ids; bytes that are no whole UTF-8 character become U+FFFD."""
        return self._plain.decode(list(ids), skip_special_tokens=skip_special)

    def pieces(self, text: str) -> list[str]:
        """The tokens of a text as text, one string for each id, for reading."""
        return [self.decode([i]) for i in self.encode(text)]


def _backend(pre: str, words: list[str], merges: list[str]) -> tokenizers.Tokenizer:
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        pairs.append((left, right))
    vocab = {word: i for i, word in enumerate(words)}
    for left, right in pairs:
        if not {left, right, left + right} <= vocab.keys():
            detail = f"merges {left!r} and {right!r}, which are no tokens or make none"
            raise MissingMetadata("tokenizer.ggml.merges", detail)
    # Llama 3 takes a word that is a token whole, whether merges lead to it or not.
    model = models.BPE(vocab=vocab, merges=pairs, ignore_merges=pre == "llama-bpe")
    backend = Backend(model)
    pattern = _PRE_TOKENIZERS[pre]
    steps: list[pre_tokenizers.PreTokenizer] = []
    if pre == "smollm":
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(pattern), "isolated"))
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _named(backend: tokenizers.Tokenizer, token: object) -> int | None:
    """The id of a token that a config names, as text or as an object with its content."""
    text = token.get("content") if isinstance(token, dict) else token
    return backend.token_to_id(text) if isinstance(text, str) else None


def _template(path: Path, said: Mapping[str, object]) -> str | None:
    """The chat template: a file of its own, or in the config, alone or by name."""
    file = path / "chat_template.jinja"
    if file.is_file():
        return read_text(file)
    found = said.get("chat_template")
    if isinstance(found, list):
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _expect(metadata: Mapping[str, object], key: str, accepted: tuple[str, ...]) -> str:
    value = metadata.get(key)
    if not isinstance(value, str) or value not in accepted:
        raise MissingMetadata(key, f"= {value!r}; accepted: {', '.join(accepted)}")
    return value


def _list(metadata: Mapping[str, object], key: str) -> list[object]:
    value = metadata.get(key)
    if not isinstance(value, list):
        raise MissingMetadata(key, "is absent; the tokenizer cannot be built without it")
    return value


def _id(metadata: Mapping[str, object], role: str) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{role}_token_id")
    return value if isinstance(value, int) else None
