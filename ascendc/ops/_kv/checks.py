"""What the kernels rely on and do not look at themselves: slots, page numbers, masks. One sentence each."""

from __future__ import annotations

import numpy as np

from .planning import PAGE


def check_slots(slots: np.ndarray, pages: int, unique: bool) -> None:
    """Every slot is -1 or one of `pages` pages', and where `unique` none comes twice."""
    wrong = (slots < -1) | (slots >= pages * PAGE)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"slots[{at}] is {int(slots[at])}; accepted: -1 and 0..{pages * PAGE - 1}")
    if not unique:
        return
    twice = _repeated(slots[slots >= 0])
    if twice is not None:
        raise ValueError(f"slot {twice} stands twice in slots; accepted: once")


def check_pages(ids: np.ndarray, pages: int) -> None:
    """`ids` are pages of 0..pages-1, none twice."""
    wrong = (ids < 0) | (ids >= pages)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"page_ids[{at}] is {int(ids[at])}; accepted: 0..{pages - 1}")
    twice = _repeated(ids)
    if twice is not None:
        raise ValueError(f"page {twice} stands twice in page_ids; accepted: once")


def check_open_pages(slots: np.ndarray, rows: np.ndarray, row_count: int) -> None:
    """kv_write of 4 bits: tokens of a page are neighbours in order, with one row of k_open of their own.

    A page that comes whole needs no row.
    """
    there = np.flatnonzero(slots >= 0)
    if not there.size:
        return
    wrong = (rows[there] < 0) | (rows[there] >= row_count)
    if wrong.any():
        at = int(there[int(np.argmax(wrong))])
        raise ValueError(f"open_row[{at}] is {int(rows[at])}; accepted: 0..{row_count - 1}")
    page, before = slots[there] // PAGE, np.roll(there, 1)
    starts = (
        (there != before + 1)
        | (slots[there] != slots[before] + 1)
        | (page != slots[before] // PAGE)
    )
    starts[0] = True
    run = np.cumsum(starts) - 1
    first = there[starts]
    differs = rows[there] != rows[first][run]
    if differs.any():
        at = int(there[int(np.argmax(differs))])
        raise ValueError(
            f"open_row[{at}] is {int(rows[at])}, another than its page's tokens have before it"
        )
    twice = _repeated(page[starts])
    if twice is not None:
        raise ValueError(
            f"page {twice} comes in two runs of tokens; its tokens must be neighbours in order"
        )
    partial = np.bincount(run) < PAGE
    twice = _repeated(rows[first][partial])
    if twice is not None:
        raise ValueError(f"two pages need row {twice} of k_open; accepted: one page a call")


def _repeated(values: np.ndarray) -> int | None:
    used, counts = np.unique(values, return_counts=True)
    return int(used[int(np.argmax(counts > 1))]) if (counts > 1).any() else None


def check_runs(mask: np.ndarray, rank: np.ndarray, rows: int, names: tuple[str, str, str]) -> None:
    """Every run of a mask's bits lies in its pool of `rows` rows."""
    bits = np.unpackbits(np.ascontiguousarray(mask).view(np.uint8).reshape(*mask.shape, 2), axis=-1)
    count = bits.sum(-1, dtype=np.int64)
    wrong = (count > 0) & ((rank < 0) | (rank.astype(np.int64) + count > rows))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{names[1]} of page {at[0]}, head {at[1]} is {int(rank[at])} for {int(count[at])} vectors of "
            f"{names[0]}; {names[2]} has {rows} rows"
        )


def check_both(mask: np.ndarray, fmask: np.ndarray) -> None:
    """No vector has a residual and stays in float."""
    both = mask & fmask
    if both.any():
        at = tuple(int(i) for i in np.argwhere(both)[0])
        raise ValueError(f"page {at[0]}, head {at[1]} has a token in mask and in fmask")
