"""Whether a recorded history of page operations is linearizable.

Pages are independent objects, so a history is linearizable exactly if the history of every page is (Herlihy
and Wing, Linearizability, TOPLAS 1990, theorem 1). One page is a counter of references: `a` takes it from 0
to 1, `s` adds one where there is one, `k` drops one and leaves some, `f` drops the last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operation:
    """One successful call: `kind`, the page, and the times of call and return."""

    kind: str
    page: int
    start: int
    end: int


def parse(text: str) -> list[Operation]:
    """Lines `thread kind page start end`, calls that found no page left out."""
    found = []
    for line in text.splitlines():
        _, kind, page, start, end = line.split()
        if kind != "n":
            found.append(Operation(kind, int(page), int(start), int(end)))
    return found


def after(references: int, kind: str) -> int | None:
    """The references after an operation; None where it cannot have this result."""
    if kind == "a":
        return 1 if references == 0 else None
    if kind == "s":
        return references + 1 if references >= 1 else None
    if kind == "k":
        return references - 1 if references >= 2 else None
    return 0 if references == 1 else None


def first_wrong(operations: Iterable[Operation]) -> int | None:
    """A page whose history has no linearization; None when the whole history has one."""
    pages = defaultdict(list)
    for operation in operations:
        pages[operation.page].append(operation)
    return next((page for page, own in pages.items() if not linearizable(own)), None)


def linearizable(operations: Sequence[Operation]) -> bool:
    """Whether one page's operations can be put in an order that respects their times and its counter.

    A search over what may come next: operations called before every operation that is left returned
    (Wing and Gong, 1993), each set of operations done tried once per counter (Lowe, 2017).
    """
    ordered = sorted(operations, key=lambda o: (o.start, o.end))
    stack: list[tuple[int, frozenset[int], int]] = [(0, frozenset(), 0)]
    tried = set(stack)
    while stack:
        low, ahead, references = stack.pop()
        # Everything before `low` is done, and of the rest those of `ahead`.
        while low in ahead:
            ahead, low = ahead - {low}, low + 1
        if low == len(ordered):
            return True
        limit, candidates, place = ordered[low].end, [], low
        while place < len(ordered) and ordered[place].start <= limit:
            if place not in ahead:
                candidates.append(place)
                limit = min(limit, ordered[place].end)
            place += 1
        for one in candidates:
            following = after(references, ordered[one].kind)
            if following is None or ordered[one].start > limit:
                continue
            state = (low, ahead | {one}, following)
            if state not in tried:
                tried.add(state)
                stack.append(state)
    return False
