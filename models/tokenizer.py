"""The byte-level BPE tokenizer that a GGUF file carries, through the package `tokenizers`.

llama.cpp's "smollm" splits every digit off before the byte-level pattern, so text is cut into
single digits first. A conversion that leaves this step out gives other ids for whitespace before
a digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from .errors import MissingMetadata
from .packages import require

if TYPE_CHECKING:
    import tokenizers

_PRE_TOKENIZERS = ("smollm",)
_CONTROL, _USER_DEFINED = 3, 4


class Tokenizer:
    """Text to ids and back.

    Attributes:
        special: special token text to id, e.g. "<|im_end|>" to 2.
        bos, eos, pad, unk: ids, or None where the file names none.
        chat_template: the Jinja template of the conversation format, or None.
    """

    __slots__ = ("_parsing", "_plain", "bos", "chat_template", "eos", "pad", "special", "unk")

    def __init__(self, metadata: Mapping[str, object]) -> None:
        """Build from the `tokenizer.*` keys of a GGUF file (0.2 s for 49,152 tokens).

        Raises:
            MissingPackage: the package tokenizers is not installed.
            MissingMetadata: a key is absent, or names another kind of tokenizer.
        """
        require("tokenizers", "tokenizing")
        from tokenizers import AddedToken

        _expect(metadata, "tokenizer.ggml.model", ("gpt2",))
        _expect(metadata, "tokenizer.ggml.pre", _PRE_TOKENIZERS)
        tokens = _list(metadata, "tokenizer.ggml.tokens")
        merges = _list(metadata, "tokenizer.ggml.merges")
        kinds = _list(metadata, "tokenizer.ggml.token_type")
        if len(kinds) != len(tokens):
            detail = f"has {len(kinds)} entries for {len(tokens)} tokens"
            raise MissingMetadata("tokenizer.ggml.token_type", detail)

        words = [str(token) for token in tokens]
        self._plain = _backend(words, [str(merge) for merge in merges])
        self.special: Mapping[str, int] = MappingProxyType(
            {word: i for i, word in enumerate(words) if kinds[i] == _CONTROL}
        )
        added = [AddedToken(word, special=True, normalized=False) for word in self.special]
        self._plain.add_special_tokens(added)
        self._plain.add_tokens(
            [
                AddedToken(word, normalized=False)
                for i, word in enumerate(words)
                if kinds[i] == _USER_DEFINED
            ]
        )
        self._parsing: tokenizers.Tokenizer | None = None
        self._plain.encode_special_tokens = True
        self.bos = _id(metadata, "bos")
        self.eos = _id(metadata, "eos")
        self.pad = _id(metadata, "padding")
        self.unk = _id(metadata, "unknown")
        template = metadata.get("tokenizer.chat_template")
        self.chat_template = template if isinstance(template, str) else None

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


def _backend(words: list[str], merges: list[str]) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        pairs.append((left, right))
    backend = Backend(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _expect(metadata: Mapping[str, object], key: str, accepted: tuple[str, ...]) -> None:
    value = metadata.get(key)
    if value not in accepted:
        raise MissingMetadata(key, f"= {value!r}; accepted: {', '.join(accepted)}")


def _list(metadata: Mapping[str, object], key: str) -> list[object]:
    value = metadata.get(key)
    if not isinstance(value, list):
        raise MissingMetadata(key, "is absent; the tokenizer cannot be built without it")
    return value


def _id(metadata: Mapping[str, object], role: str) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{role}_token_id")
    return value if isinstance(value, int) else None
