"""Text of an answer as its tokens come: whole characters only, and nothing that may turn into a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_PARTIAL = "\ufffd"  # what bytes of an unfinished character decode to, together one of these
_KEEP = 4  # tokens before the new ones that decoding sees: those after may depend on them
_LONG = 64  # tokens that end in no character
_WHOLE = 4  # characters of their end in which the open one begins: it has three bytes at most

Decode = Callable[[Sequence[int]], str]


class TextStream:
    """Push tokens, get text. What was given never has to be taken back.

    `runs`: the tokenizer decodes neighbouring tokens of single bytes together, and if they are no text, each to
    U+FFFD, the whole characters among them too (`ByteFallback`).
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = (), runs: bool = False) -> None:
        self._decode, self._stop, self._runs = decode, tuple(stop), runs
        self._ids: list[int] = []  # the last tokens
        self._whole: list[int] = []  # how many of them end in a whole character
        self._seen = 0  # characters of their text that are in `_held` or were given
        self._held = ""

    def push(self, token: int) -> tuple[str, bool]:
        """Text that is certain now, and whether a stop text was met, before which it ends."""
        self._ids.append(token)
        self._held += self._new(final=False)
        found = [at for at in (self._held.find(text) for text in self._stop) if at >= 0]
        if found:
            text = self._held[: min(found)]
            self._ids, self._seen, self._held = [], 0, ""
            return text, True
        certain = len(self._held) - self._maybe()
        text, self._held = self._held[:certain], self._held[certain:]
        return text, False

    def flush(self) -> str:
        """The rest, when no more tokens come."""
        text, self._held = self._held + self._new(final=True), ""
        return text

    def _new(self, final: bool) -> str:
        text = self._decode(self._ids)
        open_end = text.endswith(_PARTIAL) and not final
        # Of bytes that are no character only the last can still become one, except in a run.
        sure = len(text.rstrip(_PARTIAL) if self._runs else text[:-1]) if open_end else len(text)
        new, self._seen = text[self._seen : sure], max(self._seen, sure)
        if not open_end:
            self._whole.append(len(self._ids))
            if len(self._ids) > 2 * _KEEP:
                self._forget(
                    max((n for n in self._whole if n <= len(self._ids) - _KEEP), default=0)
                )
                self._seen = len(self._decode(self._ids))
        elif len(self._ids) > _LONG and not self._runs:
            end = self._decode(self._ids[-_LONG // 4 :])
            if len(end) >= _WHOLE and text.endswith(end):
                self._forget(len(self._ids) - _LONG // 4)
                self._seen -= len(text) - len(end)
        return new

    def _forget(self, count: int) -> None:
        """Decode without the first tokens from now on."""
        self._ids = self._ids[count:]
        self._whole = [n - count for n in self._whole if n > count]

    def _maybe(self) -> int:
        """Characters at the end that begin a stop text."""
        for length in range(min(len(self._held), max(map(len, self._stop), default=0)), 0, -1):
            if any(text.startswith(self._held[-length:]) for text in self._stop):
                return length
        return 0
