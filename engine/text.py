"""Text of an answer as its tokens come: whole characters only, and nothing that may turn into a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_PARTIAL = "\ufffd"  # what bytes of an unfinished character decode to, together one of these
_KEEP = 4  # tokens before the new ones that decoding sees: those after may depend on them

Decode = Callable[[Sequence[int]], str]


class TextStream:
    """Push tokens, get text. What was given never has to be taken back."""

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, tuple(stop)
        self._ids: list[int] = []  # the last tokens
        self._seen = 0  # characters of their text that are in `_held` or were given
        self._held = ""

    def push(self, token: int) -> tuple[str, bool]:
        """Text that is certain now, and whether a stop text was met, before which it ends."""
        self._ids.append(token)
        self._held += self._new(final=False)
        found = [at for at in (self._held.find(text) for text in self._stop) if at >= 0]
        if found:
            text, self._held = self._held[: min(found)], ""
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
        # Of bytes that are no character only the last can still become one.
        open_end = text.endswith(_PARTIAL) and not final
        sure = len(text) - open_end
        new, self._seen = text[self._seen : sure], max(self._seen, sure)
        if not open_end and len(self._ids) > 2 * _KEEP:
            self._ids = self._ids[-_KEEP:]
            self._seen = len(self._decode(self._ids))
        return new

    def _maybe(self) -> int:
        """Characters at the end that begin a stop text."""
        for length in range(min(len(self._held), max(map(len, self._stop), default=0)), 0, -1):
            if any(text.startswith(self._held[-length:]) for text in self._stop):
                return length
        return 0
