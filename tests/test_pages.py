"""The page pool from Python: against a model, at its ends, and what it refuses."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tilewright.errors import OutOfPages, PageMisuse, UsageError
from tilewright.pages import PagePool, page_of

BOTH = pytest.mark.parametrize("checked", [False, True])


class PoolMachine(RuleBasedStateMachine):
    """The pool does what a dict of reference counts does."""

    handles = Bundle("handles")
    CHECKED = True
    PAGES = 130

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(self.PAGES, checked=self.CHECKED)
        self.model: Counter[int] = Counter()

    def _own(self, handle: int) -> None:
        page = page_of(handle)
        assert 0 <= page < self.PAGES
        assert self.model[page] == 0
        self.model[page] = 1

    @property
    def _free(self) -> int:
        return self.PAGES - sum(count > 0 for count in self.model.values())

    @rule(target=handles)
    def alloc(self) -> object:
        if self._free == 0:
            with pytest.raises(OutOfPages):
                self.pool.alloc()
            return multiple()
        handle = self.pool.alloc()
        self._own(handle)
        return handle

    @rule(target=handles, count=st.integers(0, 140))
    def alloc_many(self, count: int) -> object:
        if count > self._free:
            with pytest.raises(OutOfPages):
                self.pool.alloc_many(count)
            return multiple()
        taken = self.pool.alloc_many(count)
        assert len(taken) == count
        for handle in taken:
            self._own(handle)
        return multiple(*taken)

    @rule(target=handles, handle=consumes(handles))
    def share(self, handle: int) -> object:
        assert self.pool.share(handle) == handle
        self.model[page_of(handle)] += 1
        return multiple(handle, handle)

    @rule(handle=consumes(handles))
    def release(self, handle: int) -> None:
        self.model[page_of(handle)] -= 1
        assert self.pool.release(handle) == (self.model[page_of(handle)] == 0)

    @rule(taken=st.lists(consumes(handles), max_size=20))
    def release_many(self, taken: list[int]) -> None:
        freed = 0
        for handle in taken:
            self.model[page_of(handle)] -= 1
            freed += self.model[page_of(handle)] == 0
        assert self.pool.release_many(taken) == freed

    @invariant()
    def counts_agree(self) -> None:
        assert self.pool.free_pages == self._free


class UncheckedMachine(PoolMachine):
    CHECKED = False
    PAGES = 64


TestChecked = PoolMachine.TestCase
TestUnchecked = UncheckedMachine.TestCase
for case in (TestChecked, TestUnchecked):
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@BOTH
@pytest.mark.parametrize("pages", [1, 63, 64, 65, 4096, 4097, 100_000])
def test_every_page_once_then_none_then_again(pages: int, checked: bool) -> None:
    """Exhaustion and recovery, singly and in batches, at every kind of end."""
    pool = PagePool(pages, checked=checked)
    for _ in range(2):
        taken = [pool.alloc() for _ in range(pages)]
        assert sorted(map(page_of, taken)) == list(range(pages))
        for _ in range(3):
            with pytest.raises(OutOfPages, match=f"1 page was asked for and 0 of {pages} are free"):
                pool.alloc()
        # One page anywhere comes back and is found.
        for place in (0, -1, pages // 2):
            assert pool.release(taken[place]) is True
            again = pool.alloc()
            assert page_of(again) == page_of(taken[place])
            taken[place] = again
        assert pool.release_many(taken) == pages
        taken = pool.alloc_many(pages)
        assert sorted(map(page_of, taken)) == list(range(pages))
        with pytest.raises(OutOfPages):
            pool.alloc_many(1)
        assert pool.release_many(taken[::-1]) == pages
        assert pool.free_pages == pages


@BOTH
def test_a_batch_is_all_or_nothing(checked: bool) -> None:
    pool = PagePool(100, checked=checked)
    kept = pool.alloc_many(60)
    with pytest.raises(OutOfPages, match="41 pages were asked for and 40 of 100 are free"):
        pool.alloc_many(41)
    assert pool.free_pages == 40
    with pytest.raises(OutOfPages, match="1000000000000 pages"):
        pool.alloc_many(10**12)
    assert pool.alloc_many(0) == []
    rest = pool.alloc_many(40)
    assert not set(map(page_of, kept)) & set(map(page_of, rest))


def test_four_million_pages_and_more() -> None:
    pool = PagePool(5_000_001, checked=False)
    assert pool.pages == pool.free_pages == 5_000_001
    taken = pool.alloc_many(5_000_001)
    assert len(set(taken)) == 5_000_001 and max(taken) == 5_000_000
    with pytest.raises(OutOfPages):
        pool.alloc()
    pool.release(4_321_000)
    assert pool.alloc() == 4_321_000
    # Two bits and a count a page, and a summary bit for 64 pages.
    assert pool.bookkeeping_bytes / pool.pages == pytest.approx(4 + 2 / 8 + 1 / 512, rel=1e-3)


@BOTH
def test_double_free_is_refused(checked: bool) -> None:
    pool = PagePool(200, checked=checked)
    handle = pool.alloc()
    pool.release(handle)
    with pytest.raises(PageMisuse, match=f"page {page_of(handle)} is not held by this handle"):
        pool.release(handle)
    with pytest.raises(PageMisuse):
        pool.share(handle)
    assert pool.references(handle) == 0 and pool.free_pages == 200


def test_a_stale_handle_is_refused_although_its_page_is_in_use_again() -> None:
    pool = PagePool(1, checked=True)
    stale = pool.alloc()
    pool.release(stale)
    fresh = pool.alloc()
    assert page_of(stale) == page_of(fresh) and stale != fresh
    for act in (pool.release, pool.share, lambda h: pool.release_many([h])):
        with pytest.raises(PageMisuse):
            act(stale)
    assert pool.references(fresh) == 1 and pool.references(stale) == 0
    pool.share(fresh)
    with pytest.raises(PageMisuse):
        pool.release(stale)
    assert pool.references(fresh) == 2


def test_a_foreign_handle_is_refused() -> None:
    one, other = PagePool(10, checked=True), PagePool(10, checked=True)
    handle = one.alloc()
    other.alloc_many(10)
    for act in (other.release, other.share, lambda h: other.release_many([h])):
        with pytest.raises(PageMisuse, match="is not of this pool"):
            act(handle)
    unchecked = PagePool(10, checked=False)
    unchecked.alloc_many(10)
    for handle in (10, 63, 64, 2**31, 2**32, 2**64 - 1):
        with pytest.raises(PageMisuse, match="is not of this pool"):
            unchecked.release(handle)
        with pytest.raises(PageMisuse, match="is not of this pool"):
            unchecked.release_many([handle])
    assert unchecked.free_pages == 0


@BOTH
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_batch_with_wrong_handles_frees_the_right_ones(
    checked: bool, data: st.DataObject
) -> None:
    """And names the first wrong one, wherever it stands."""
    pool = PagePool(300, checked=checked)
    held = pool.alloc_many(200)
    gone = held[150:]
    pool.release_many(gone)
    held = held[:150]
    chosen = data.draw(st.lists(st.sampled_from(held), unique=True, max_size=60))
    twice = data.draw(st.lists(st.sampled_from(chosen or held), max_size=3)) if chosen else []
    wrong = data.draw(st.lists(st.sampled_from(gone), max_size=3))
    batch = data.draw(st.permutations([*chosen, *twice, *wrong]))
    if twice or wrong:
        with pytest.raises(PageMisuse, match="is not held by this handle"):
            pool.release_many(batch)
    else:
        assert pool.release_many(batch) == len(chosen)
    assert pool.free_pages == 150 + len(chosen)
    assert all(pool.references(h) == 1 for h in held if h not in chosen)


@BOTH
def test_shared_pages_are_freed_by_the_last_in_any_batch(checked: bool) -> None:
    pool = PagePool(128, checked=checked)
    pages = pool.alloc_many(128)
    for handle in pages[::3]:
        pool.share(handle)
        pool.share(handle)
    assert pool.references(pages[0]) == 3
    assert pool.release_many(pages) == 128 - len(pages[::3])
    # The same handle twice in one batch drops two references.
    assert pool.release_many(pages[::3] + pages[::3]) == len(pages[::3])
    assert pool.free_pages == 128
    # A page that was shared begins anew with one reference.
    assert all(pool.references(h) == 1 for h in pool.alloc_many(128))


@pytest.mark.parametrize("pages", [0, -1, 2**31 + 1, 10**15])
def test_sizes_a_pool_cannot_have(pages: int) -> None:
    with pytest.raises(UsageError, match=f"a pool of {pages} pages; accepted: 1 to 2147483648"):
        PagePool(pages)
    with pytest.raises(UsageError, match="-1 pages were asked for"):
        PagePool(1).alloc_many(-1)


def test_many_pools_do_not_confuse_a_threads_hints() -> None:
    """A thread keeps few hints: pools come, go and alternate, and are never given another's page."""
    pools = [PagePool(pages, checked=False) for pages in (1, 70, 5000, 1, 64, 200_000, 65, 3, 1)]
    taken: list[set[int]] = [set() for _ in pools]
    for _ in range(70):
        for pool, own in zip(pools, taken, strict=True):
            if len(own) < pool.pages:
                page = pool.alloc()
                assert page < pool.pages and page not in own
                own.add(page)
    for _ in range(300):
        small = PagePool(1, checked=False)
        assert small.alloc() == 0


def test_threads_of_python_share_a_pool() -> None:
    pool = PagePool(1000, checked=True)
    wrong: list[str] = []

    def work() -> None:
        for size in range(1, 120):
            try:
                taken = pool.alloc_many(size)
            except OutOfPages:
                continue
            if pool.release_many(taken) != size:
                wrong.append("not all were freed")

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong and pool.free_pages == 1000
