"""Peers as the benchmark sees them: found through the spec, tried, checked, and the fastest of them picked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from tilewright.errors import CRASHES, TilewrightError, Unavailable
from tilewright.peers import Peer, first_line
from tilewright.perf.device.timer import DeviceTimer
from tilewright.perf.gate import Expected, require_peer
from tilewright.perf.timers import CallTimer, settle

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.inputs import Inputs
    from tilewright.registry import Family

BEST = "torch-best"
_TRIAL_NS = 30e6

PeerTimer = CallTimer | DeviceTimer


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run torch with this many threads, then with as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def find(family: Family, case: Case, inputs: Inputs, threads: int) -> list[Peer]:
    """Every peer the family declares for a case; empty if it declares none."""
    if family.spec.peers is None:
        return []
    found: list[Peer] = list(family.spec.peers.resolve(family.package)(case, inputs, threads))
    return found


def names(family: Family, found: Sequence[Peer]) -> list[str]:
    """What `--against` accepts for these peers."""
    known = [p.name for p in found]
    return [*known, BEST] if known else []


def prepared(peer: Peer, expected: Expected, on_gpu: bool = False) -> PeerTimer:
    """A timer of the peer's call, once its output has been checked; raises Unavailable when it cannot or may
    not be timed."""
    try:
        timer = (DeviceTimer if on_gpu else CallTimer)(peer.prepare())
        timer.once()
    except TilewrightError:
        raise
    except CRASHES as error:
        raise Unavailable(f"{peer.name} fails here: {first_line(error)}") from error
    if isinstance(timer, DeviceTimer):
        _require_there(peer, timer)
    verdict = expected.judge_result(timer.result)
    require_peer(verdict, f"{peer.name} is wrong here, so it is not timed")
    return timer


def _require_there(peer: Peer, timer: DeviceTimer) -> None:
    """Raises Unavailable for results elsewhere: what the processor did is no part of a GPU's time."""
    values = timer.result if isinstance(timer.result, tuple) else (timer.result,)
    for value in values:
        if value is not None and value.device.type != timer.device:
            raise Unavailable(
                f"{peer.name} leaves a result on {value.device.type}, so it is not timed on a GPU"
            )


def resolve(
    wanted: str,
    family: Family,
    found: Sequence[Peer],
    expected: Expected,
    on_gpu: bool = False,
) -> tuple[Peer, PeerTimer, str]:
    """The peer of a name with its timer and a note; `torch-best` is the fastest of torch's in a short trial.

    Raises Unavailable with the reasons when there is no such peer or none can be timed.
    """
    if wanted != BEST:
        for peer in found:
            if peer.name == wanted:
                return peer, prepared(peer, expected, on_gpu), ""
        declared = ", ".join(names(family, found)) or "none"
        raise Unavailable(
            f"{family.name} has no peer '{wanted}' for this case; declared: {declared}"
        )
    best: tuple[float, Peer, PeerTimer] | None = None
    notes = []
    for peer in (p for p in found if p.name.startswith("torch")):
        try:
            timer = prepared(peer, expected, on_gpu)
        except Unavailable as error:
            notes.append(f"{peer.name}: {error}")
            continue
        trial = _trial(timer)
        notes.append(f"{peer.name} {trial / 1e3:.4g} us")
        if best is None or trial < best[0]:
            best = (trial, peer, timer)
    if best is None:
        raise Unavailable(
            f"no peer of {family.name} can be timed here: {'; '.join(notes) or 'none is declared'}"
        )
    return best[1], best[2], "fastest of " + "; ".join(notes)


def _trial(timer: PeerTimer) -> float:
    """Median ns of a few calls, about 30 ms."""
    settle()
    first = float(timer.sample(2, 1, 0).min())
    count = int(np.clip(_TRIAL_NS / first, 3, 200))
    return float(np.median(timer.sample(count, 1, 0)))
