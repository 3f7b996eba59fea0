"""Pages of requests: taken from the lock-free pool, shared by equal prefixes, given back, evicted.

A full page whose tokens are in the cache is known by the chained hash of its tokens and of all before
them. The prefix cache holds one reference to each such page; it is found again by hash and by its
tokens, so that a collision shares nothing. Pages that only the prefix cache holds are evicted, the
one unused for longest first, when the pool is empty.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from tilewright.engine.requests import Request
from tilewright.errors import OutOfPages, TilewrightError
from tilewright.kernels._kv.formats import PAGE
from tilewright.pages import PagePool, page_of


@dataclass(frozen=True, slots=True)
class _Known:
    handle: int
    tokens: tuple[int, ...]
    parent: bytes


@dataclass(slots=True)
class BlockCounts:
    """What happened to pages since the start."""

    hit_tokens: int = 0
    evicted: int = 0
    copied: int = 0


class Blocks:
    """Owns the pages of all requests. With `prefixes` off nothing is shared or kept."""

    def __init__(self, pages: int, prefixes: bool = True) -> None:
        self.pool, self.prefixes = PagePool(pages), prefixes
        self.counts = BlockCounts()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    @property
    def pages(self) -> int:
        """Pages there are."""
        return self.pool.pages

    @property
    def cached(self) -> int:
        """Pages that only the prefix cache holds."""
        return sum(self.pool.references(k.handle) == 1 for k in self._known.values())

    def claim(self, request: Request) -> int:
        """Give a request without pages those of the longest known prefix; how many tokens that saves.

        The last known token is always computed: its logits are wanted.
        """
        assert not request.pages
        if not self.prefixes:
            return 0
        limit = len(request.tokens) - 1
        for start in range(0, limit - limit % PAGE, PAGE):
            tokens = tuple(request.tokens[start : start + PAGE])
            parent = _parent(request)
            key = chain(parent, tokens)
            known = self._known.get(key)
            if known is None or known.tokens != tokens or known.parent != parent:
                break
            self._known.move_to_end(key)
            request.pages.append(self.pool.share(known.handle))
            request.hashes.append(key)
        request.computed = len(request.pages) * PAGE
        return request.computed

    def count(self, request: Request) -> None:
        """Count what a claim saved, once the request goes on from there."""
        self.counts.hit_tokens += request.computed

    def grow(self, request: Request, tokens: int) -> bool:
        """Pages for the request's first `tokens` tokens; False, and nothing taken, where there are none."""
        missing = -(-tokens // PAGE) - len(request.pages)
        if missing <= 0:
            return True
        try:
            request.pages += self._take(missing)
        except OutOfPages:
            return False
        return True

    def learn(self, request: Request) -> None:
        """Make the request's full computed pages known."""
        if not self.prefixes:
            return
        for index in range(len(request.hashes), request.computed // PAGE):
            tokens = tuple(request.tokens[index * PAGE : (index + 1) * PAGE])
            parent = _parent(request)
            key = chain(parent, tokens)
            request.hashes.append(key)
            if key not in self._known:
                handle = self.pool.share(request.pages[index])
                self._known[key] = _Known(handle, tokens, parent)

    def release(self, request: Request) -> None:
        """Give back all pages of a request; nothing of it counts as computed."""
        if request.pages:
            # Later pages first: of a prefix that is evicted in part, the beginning is what can be found.
            for key in reversed(request.hashes):
                if key in self._known:
                    self._known.move_to_end(key)
            self.pool.release_many(request.pages)
        request.pages, request.hashes, request.computed = [], [], 0

    def fork(self, source: Request, target: Request) -> None:
        """Let a request without pages share those of another one."""
        assert not target.pages
        target.pages = [self.pool.share(handle) for handle in source.pages]
        target.hashes, target.computed = list(source.hashes), source.computed

    def own(self, request: Request, first: int) -> list[tuple[int, int]] | None:
        """Make the pages from token `first` on the request's own, before they are written.

        Returns pairs of page numbers whose contents the caller copies from the first to the second;
        None, and nothing changed, where there are no pages for that.
        """
        shared = [
            i
            for i in range(first // PAGE, len(request.pages))
            if self.pool.references(request.pages[i]) > 1
        ]
        try:
            fresh = self._take(len(shared))
        except OutOfPages:
            return None
        copies = []
        for i, handle in zip(shared, fresh, strict=True):
            copies.append((page_of(request.pages[i]), page_of(handle)))
            self.pool.release(request.pages[i])
            request.pages[i] = handle
        self.counts.copied += len(copies)
        return copies

    def forget(self) -> None:
        """Drop the prefix cache."""
        self.pool.release_many([known.handle for known in self._known.values()])
        self._known.clear()

    def check(self, requests: Iterable[Request]) -> None:
        """Raise TilewrightError unless free + cached + used pages are all, and every reference has an owner."""
        owners: dict[int, int] = {}
        for request in requests:
            for handle in request.pages:
                owners[handle] = owners.get(handle, 0) + 1
        used = len(owners)
        for known in self._known.values():
            owners[known.handle] = owners.get(known.handle, 0) + 1
        for handle, count in owners.items():
            if (held := self.pool.references(handle)) != count:
                raise TilewrightError(
                    f"page {page_of(handle)} has {held} references and {count} owners"
                )
        cached, free = len(owners) - used, self.pool.free_pages
        if free + cached + used != self.pages:
            raise TilewrightError(
                f"{free} free + {cached} cached + {used} used pages are not {self.pages}"
            )

    def _take(self, count: int) -> list[int]:
        """Raises OutOfPages, and evicts nothing, where even all that may be evicted is too little."""
        short = count - self.pool.free_pages
        if short > 0:
            unused = (k for k, v in self._known.items() if self.pool.references(v.handle) == 1)
            evicted = list(islice(unused, short))
            if len(evicted) == short:
                self.pool.release_many([self._known.pop(key).handle for key in evicted])
                self.counts.evicted += short
        return self.pool.alloc_many(count)


def _parent(request: Request) -> bytes:
    """What the key of the request's next page follows from: the page before, and how its own tokens are computed."""
    before = request.hashes[-1] if request.hashes else chain(request.salt, ())  # of one length
    if not request.turns:
        return before
    start = len(request.hashes) * PAGE
    in_bf16 = [owner >= 0 for owner in request.owners(start, start + PAGE)]
    return before + bytes(in_bf16) if any(in_bf16) else before


def chain(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a page: of its tokens and, through `parent`, of all before them."""
    return hashlib.blake2b(parent + array("q", tokens).tobytes(), digest_size=16).digest()
