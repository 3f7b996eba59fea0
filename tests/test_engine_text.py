"""Streams of text: split anywhere, they give what decoding everything at once gives, as soon as it is certain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import pytest
import tokenizers.models as models
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders

from tilewright.engine.text import TextStream
from tilewright.models.checkpoint import open_model
from tilewright.models.tokenizer import Tokenizer

BAD = "\ufffd"
# Characters of one to four bytes, of scripts whose parts join, and what stop texts are made of.
CHARS = st.sampled_from("ab\n aé€漢😀👩🏽\u200d\u0301<|>") | st.characters(codec="utf-8")
TEXTS = st.text(CHARS, max_size=30)
STOPS = st.lists(st.text(st.sampled_from("ab\né😀<"), min_size=1, max_size=4), max_size=3)


def as_bytes(ids: Sequence[int]) -> str:
    """A tokenizer whose tokens are single bytes."""
    return bytes(ids).decode("utf-8", errors="replace")


def certain(text: str, stops: Sequence[str]) -> str:
    """What of a text that goes on may be given: no open character, and no beginning of a stop text."""
    for length in range(max(map(len, stops), default=0), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops) and len(text) >= length:
            return text[:-length]
    return text


def followed(
    decode: Callable[[Sequence[int]], str], ids: Sequence[int], stops: Sequence[str]
) -> str:
    """Push all, holding each piece against decoding from the start; the whole text given."""
    stream, given = TextStream(decode, stops), ""
    for count in range(1, len(ids) + 1):
        text, stopped = stream.push(ids[count - 1])
        given += text
        whole = decode(ids[:count])
        sure = whole[:-1] if whole.endswith(BAD) else whole
        places = [sure.find(stop) for stop in stops if stop in sure]
        assert stopped is bool(places)
        assert given == (sure[: min(places)] if places else certain(sure, stops))
        if stopped:
            assert stream.flush() == ""
            return given
    given += stream.flush()
    assert given == decode(ids)
    assert stream.flush() == ""
    return given


@settings(max_examples=300, deadline=None)
@given(TEXTS, STOPS)
@example("é" * 20, ["é" * 3])
@example("aab" * 5, ["aaab", "ab"])
def test_utf8_that_is_split_at_every_byte(text: str, stops: list[str]) -> None:
    given_text = followed(as_bytes, list(text.encode()), stops)
    if not any(stop in text for stop in stops):
        assert given_text == text


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=40), STOPS)
@example([0x80] * 6 + [0xF0, 0x9F, 0x98, 0x80], [])  # a character after bytes that are none
@example([0xF0, 0x9F] * 8 + list("😀".encode()), [])
@example(list((BAD + "a").encode()), [])
def test_bytes_that_are_no_text(ids: list[int], stops: list[str]) -> None:
    followed(as_bytes, ids, stops)


@settings(max_examples=150, deadline=None)
@given(st.data(), TEXTS, STOPS)
def test_tokens_of_any_length_even_none(data: st.DataObject, text: str, stops: list[str]) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    def decode(ids: Sequence[int]) -> str:
        return b"".join(pieces[i] for i in ids).decode("utf-8", errors="replace")

    followed(decode, range(len(pieces)), stops)


@cache
def tokenizer() -> Tokenizer:
    return open_model("smollm2").tokenizer()


@settings(max_examples=60, deadline=None)
@given(TEXTS, STOPS)
def test_a_real_tokenizer_on_text(text: str, stops: list[str]) -> None:
    decode = partial(tokenizer().decode, skip_special=True)
    followed(decode, tokenizer().encode(text), stops)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 400) | st.integers(0, 49151), max_size=30), st.booleans())
def test_a_real_tokenizer_on_tokens_that_no_text_has(ids: list[int], skip: bool) -> None:
    """Ids below 400 are special tokens and single bytes: characters are cut and mixed with both."""
    followed(partial(tokenizer().decode, skip_special=skip), ids, [])


RUN = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def in_runs(ids: Sequence[int]) -> str:
    """Ids of bytes, and from 256 on of whole characters, as tokenizers with byte fallback decode them."""
    return RUN.decode([f"<0x{i:02X}>" if i < 256 else chr(i - 256) for i in ids])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(CHARS, st.booleans()), max_size=30))
@example([("a", True), ("😀", False), ("漢", False), ("a", True)])
@example([("漢", False)] * 20)
def test_bytes_that_are_decoded_in_runs(chars: list[tuple[str, bool]]) -> None:
    stream, given = TextStream(in_runs, runs=True), ""
    for at, (char, whole) in enumerate(chars):
        for token in [256 + ord(char)] if whole else char.encode():
            given += stream.push(token)[0]
        upto = "".join(c for c, _ in chars[: at + 1])
        assert given == upto.rstrip(BAD), "every character comes as soon as it is whole"
    assert given + stream.flush() == "".join(c for c, _ in chars)


def test_a_tokenizer_says_whether_it_decodes_runs(tmp_path: Path) -> None:
    pieces = Backend(models.BPE(vocab={"a": 0, "<unk>": 1}, merges=[], byte_fallback=True))
    pieces.decoder = RUN
    pieces.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.from_directory(tmp_path).byte_runs
    assert not tokenizer().byte_runs


@pytest.mark.parametrize(
    ("pieces", "stops", "given_text"),
    [
        (["Hello", " wor", "ld"], ["o w"], "Hell"),
        (["a", "b", "c"], ["abc"], ""),
        (["ab", "abd"], ["abc"], "ababd"),
        (["x###", "# y"], ["####"], "x"),
        (["one two"], ["two", "one"], ""),
        (["aa", "aab"], ["aab"], "aa"),
    ],
)
def test_stop_texts_across_tokens(pieces: list[str], stops: list[str], given_text: str) -> None:
    stream = TextStream(lambda ids: "".join(pieces[i] for i in ids), stops)
    text = ""
    for i in range(len(pieces)):
        new, stopped = stream.push(i)
        text += new
        if stopped:
            break
    assert text + stream.flush() == given_text


def test_a_long_stream_decodes_few_tokens_at_a_time() -> None:
    most = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal most
        most = max(most, len(ids))
        return as_bytes(ids)

    stream = TextStream(decode)
    text = "".join(stream.push(b)[0] for b in ("漢字 ab" * 100).encode())
    assert text + stream.flush() == "漢字 ab" * 100
    assert most <= 16
    for garbage in ([0x80] * 2000, [0xF0, 0x9F] * 1000):
        text, stream = "", TextStream(decode)
        for count, byte in enumerate([*garbage, *"漢".encode()], start=1):
            text += stream.push(byte)[0]
            if count == len(garbage):
                assert text == as_bytes(garbage)[:-1]
        assert text + stream.flush() == as_bytes([*garbage, *"漢".encode()])
    assert most <= 80
