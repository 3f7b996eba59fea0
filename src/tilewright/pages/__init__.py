"""Pages of a KV cache: the lock-free pool that hands them out, and what a page size costs.

The pool is C++ (`kernels/_pages/page_pool.hpp` says how it works); an engine written in C++ links it,
Python takes it through `PagePool`. `tilewright.pages.simulate` is the Monte Carlo of page sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilewright._C import PagePool as _Pool

_PAGE_BITS = 32


def page_of(handle: int) -> int:
    """The page a handle stands for: what a block table holds."""
    return handle & ((1 << _PAGE_BITS) - 1)


class PagePool:
    """A pool of `pages` pages, numbered from 0; any number of threads may use it at once.

    A handle stands for one reference to a page. With `checked` (the default but under `python -O`) it
    carries the pool and how often the page was freed before, modulo 2**20, so that releasing a page
    twice or a page of another pool is refused even when the page is in use again. Without, a handle is
    the page's number, and only a page that is not in use is refused.

    Raises UsageError unless 1 <= pages <= 2**31, Unavailable where the C++ is not built.
    """

    __slots__ = ("_pool",)

    def __init__(self, pages: int, *, checked: bool = __debug__) -> None:
        from tilewright import native

        self._pool: _Pool = native.module().PagePool(pages, checked)

    def alloc(self) -> int:
        """A handle to a free page. Raises OutOfPages when a scan of all of them found none."""
        return self._pool.alloc()

    def alloc_many(self, count: int) -> list[int]:
        """Handles to `count` pages, or none and OutOfPages; a word of 64 pages is taken at a time."""
        return self._pool.alloc_many(count)

    def share(self, handle: int) -> int:
        """One more reference to the page, by the same handle. Raises PageMisuse where it holds none."""
        self._pool.share(handle)
        return handle

    def release(self, handle: int) -> bool:
        """Drop one reference; whether that freed the page. Raises PageMisuse where the handle holds none."""
        return self._pool.release(handle)

    def release_many(self, handles: Sequence[int]) -> int:
        """Drop one reference of each; how many pages that freed.

        Neighbours are freed a word at a time. Every right handle is released, then PageMisuse names the
        first wrong one, if there is any.
        """
        return self._pool.release_many(handles)

    def references(self, handle: int) -> int:
        """References to the page; 0 when the handle holds none."""
        return self._pool.references(handle)

    @property
    def pages(self) -> int:
        """Pages in all."""
        return self._pool.pages

    @property
    def free_pages(self) -> int:
        """Pages not in use; exact while no other thread changes them."""
        return self._pool.free_pages

    @property
    def checked(self) -> bool:
        """Whether handles carry pool and generation."""
        return self._pool.checked

    @property
    def bookkeeping_bytes(self) -> int:
        """Bytes of bits, reference counts and, when checked, generations."""
        return self._pool.bookkeeping_bytes

    def __repr__(self) -> str:
        kind = "checked" if self.checked else "unchecked"
        return f"<PagePool {self.free_pages} of {self.pages} free, {kind}>"


__all__ = ["PagePool", "page_of"]
