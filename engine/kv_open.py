"""Pages that are not full yet, in floats: what 4-bit keys and residuals are made from once a page is full.

Kernels read the open page of request i of a pass in row i of a window. Requests come and go, so rows are
moved between passes; the open page of a request that is not in a pass is parked. A captured pass knows
the window's addresses only: everything else is done before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from tilewright.engine.batch import Batch
from tilewright.engine.kv_formats import Part, lay_out
from tilewright.errors import TilewrightError
from tilewright.kernels._kv.formats import PAGE


@dataclass(frozen=True, slots=True)
class Run:
    """`count` tokens of one request, from token `begin` of the pass on, for tokens `first`.. of a page."""

    request: int
    page: int
    first: int
    begin: int
    count: int

    @property
    def closes(self) -> bool:
        """Whether the page is full afterwards."""
        return self.first + self.count == PAGE


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass of T tokens does to pages.

    `slots`, each int32 [T]: of the calls that write it; a request that fills a page begun before and
    leaves another one open takes two. `rows` int32 [T]: a token's row of the window; `window` int32 [T]: its
    slot there, -1 where its page is full after it and not the last. `fresh`: pages that are begun.
    `closing` int32 [N]: pages that are full now, and `sources` int64 [N,16] where their tokens lie: in the
    window's, followed by those of the pass.
    """

    slots: tuple[Tensor, ...]
    rows: Tensor
    window: Tensor
    fresh: tuple[int, ...]
    closing: Tensor
    sources: Tensor


def runs_of(batch: Batch) -> Iterator[Run]:
    """Tokens of a batch by request and page; those that go nowhere are left out."""
    slots = batch.slots.tolist()
    for request, (at, end) in enumerate(pairwise(batch.cu_q.tolist())):
        while at < end:
            page, first = divmod(slots[at], PAGE)
            count = min(end - at, PAGE - first) if page >= 0 else 1
            if page >= 0:
                yield Run(request, page, first, at, count)
            at += count


class OpenPages:
    """Windows [layers,rows,16,HKV,D] by name, and which page lies in which row."""

    def __init__(self, windows: dict[str, Tensor]) -> None:
        self.windows = windows
        # How often the windows got other memory: captured passes before that are void.
        self.moved = 0
        self.carried = 0  # pages that were brought to another row
        self.parked: dict[int, tuple[Tensor, ...]] = {}
        self.pages = [-1] * self._room
        self._slots = torch.full((self._room,), -1, dtype=torch.int32)

    @property
    def _room(self) -> int:
        return next(iter(self.windows.values())).shape[1]

    def reserve(self, rows: int) -> None:
        """Make room for a pass of so many requests."""
        if rows <= self._room:
            return
        room = 1 << (rows - 1).bit_length()
        for name, before in self.windows.items():
            part = Part((room, *before.shape[2:]), before.dtype, "", True)
            self.windows |= lay_out(len(before), {name: part})
            self.windows[name][:, : before.shape[1]] = before
        self.pages += [-1] * (room - len(self.pages))
        self._slots = torch.full((room,), -1, dtype=torch.int32)
        self.moved += 1

    def begin(self, batch: Batch) -> Pass:
        """Bring open pages to the rows of their requests; rows of requests without slots stay."""
        self.reserve(batch.seq_lens.shape[0])
        runs = list(runs_of(batch))
        first: dict[int, Run] = {}
        last = {run.request: run for run in runs}
        for run in runs:
            first.setdefault(run.request, run)
        fresh = tuple(run.page for run in runs if run.first == 0)
        for page in fresh:  # what is known of it is of an owner before
            self._drop(page)
        self._arrange({i: run.page if run.first else -1 for i, run in first.items()})
        for i, run in last.items():
            self.pages[i] = -1 if run.closes else run.page
        return self._plan(batch, runs, first, last, fresh)

    def keep(self, pages: Iterable[int]) -> None:
        """Forget all open pages but these."""
        alive = set(pages)
        for page in {*self.parked, *self.pages} - alive - {-1}:
            self._drop(page)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """What is open of the first page of each pair is so of the second, too."""
        found = [self._floats(source) for source, _ in pairs]
        for (_, target), own in zip(pairs, found, strict=True):
            self._drop(target)  # it was another request's before
            if own is not None:
                self.parked[target] = own

    def _plan(
        self,
        batch: Batch,
        runs: Sequence[Run],
        first: dict[int, Run],
        last: dict[int, Run],
        fresh: tuple[int, ...],
    ) -> Pass:
        count, room = batch.slots.shape[0], self._room
        window, rows = self._slots, torch.arange(count, dtype=torch.int32)
        if count == batch.seq_lens.shape[0]:
            window.fill_(-1)  # a captured pass reads this very memory
        else:
            window = torch.full((count,), -1, dtype=torch.int32)
            each = torch.diff(batch.cu_q).long()
            rows = torch.arange(len(each), dtype=torch.int32).repeat_interleave(each)
        early = late = batch.slots
        for i, run in last.items():
            tokens, at = slice(run.begin, run.begin + run.count), i * PAGE + run.first
            window[tokens] = torch.arange(at, at + run.count, dtype=torch.int32)
            begun = first[i]
            if begun.first and begun.closes and not run.closes:
                if late is batch.slots:
                    early, late = early.clone(), torch.full_like(late, -1)
                tokens = slice(begun.begin + begun.count, run.begin + run.count)
                early[tokens], late[tokens] = -1, batch.slots[tokens]
        closing = [run for run in runs if run.closes]
        sources = [
            [
                run.request * PAGE + t if t < run.first else room * PAGE + run.begin + t - run.first
                for t in range(PAGE)
            ]
            for run in closing
        ]
        return Pass(
            (batch.slots,) if late is batch.slots else (early, late),
            rows,
            window[:count],
            fresh,
            torch.tensor([run.page for run in closing], dtype=torch.int32),
            torch.tensor(sources, dtype=torch.int64).view(-1, PAGE),
        )

    def _arrange(self, wanted: dict[int, int]) -> None:
        """Page `wanted[row]` to each row, -1 for none; what lies there instead is parked."""
        for row, page in wanted.items():
            if self.pages[row] not in (-1, page):
                self.parked[self.pages[row]] = self._row(row)
                self.pages[row] = -1
        for row, page in wanted.items():
            if page < 0 or self.pages[row] == page:
                continue
            found = self._floats(page)
            if found is None:
                raise TilewrightError(f"page {page} is begun, and its tokens are in no window")
            self._drop(page)
            for whole, own in zip(self.windows.values(), found, strict=True):
                whole[:, row] = own
            self.pages[row] = page
            self.carried += 1

    def _floats(self, page: int) -> tuple[Tensor, ...] | None:
        if page in self.pages:
            return self._row(self.pages.index(page))
        return self.parked.get(page)

    def _row(self, row: int) -> tuple[Tensor, ...]:
        return tuple(whole[:, row].clone() for whole in self.windows.values())

    def _drop(self, page: int) -> None:
        self.parked.pop(page, None)
        if page in self.pages:
            self.pages[self.pages.index(page)] = -1
