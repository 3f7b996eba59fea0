"""Studies that may know where the good configs of another study lie: neighbouring shapes, other devices.

A donor is a ranked list and nothing more: its values are of another shape or device, so only their order
is worth something, and the sampler that borrows from one drops it when it disappoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tilewright.autotune.provenance import StudyKey
from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.store.record import Record, sizes_of
from tilewright.evidence import Evidence

# What a donor's value was taken by: the nearer to this study's own way, the better.
_TRUST = {Evidence.MEASURED: 0, Evidence.PUBLISHED: 1, Evidence.COMPILED: 2, Evidence.MODELLED: 2}


@dataclass(frozen=True, slots=True)
class Donor:
    """One study with its configs as indices of the asking study's pool, best first.

    `values` are the donor's own, in its own unit and increasing.
    """

    name: str
    configs: tuple[int, ...]
    values: tuple[float, ...]


def donors(records: Sequence[Record], key: StudyKey, pool: Pool) -> tuple[Donor, ...]:
    """Donors for the study `key` over `pool`, closest first.

    A donor has the same family and fields, the same backend, and sizes of the same names. Those of the same
    device come before others, then the same target, operands and precision, layout, kernel sources, way of
    valuing, and last the distance of the shapes in octaves. The study itself is none.
    """
    groups: dict[StudyKey, list[Record]] = {}
    for record in records:
        groups.setdefault(record.key, []).append(record)
    close = [
        (_distance(one, key, found[0].evidence), one, found)
        for one, found in groups.items()
        if one != key and _related(one, key)
    ]
    ordered = sorted(close, key=lambda entry: (entry[0], entry[1].name))
    made = (_donor(one, found, pool) for _, one, found in ordered)
    return tuple(d for d in made if d.configs)


def _related(one: StudyKey, key: StudyKey) -> bool:
    """Whether configs of one study mean the same in the other."""
    same_sizes = sizes_of(one.shape).keys() == sizes_of(key.shape).keys()
    return one.family == key.family and related_backend(one, key) and same_sizes


def related_backend(one: StudyKey, key: StudyKey) -> bool:
    """The same backend, or an import, whose backend is none of ours: its fields decide what it is worth."""
    from tilewright.backends import all_backends

    return one.backend == key.backend or one.backend not in all_backends()


def _distance(one: StudyKey, key: StudyKey, evidence: Evidence) -> tuple[float, ...]:
    """What tells donors apart, the most important first; 0 is the same."""
    return (
        one.device != key.device,
        one.target.partition(":")[0] != key.target.partition(":")[0],
        one.target != key.target,
        _operands(one) != _operands(key),
        one.precision != key.precision,
        _layouts(one) != _layouts(key),
        one.unit != key.unit,
        _TRUST[evidence],
        octaves(one, key),
        one.source_hash != key.source_hash,
        one.space_hash != key.space_hash,
        one.flags != key.flags,
        one.threads != key.threads,
    )


def octaves(one: StudyKey, key: StudyKey) -> float:
    """How far two shapes of the same names are apart: the sum over sizes of |log2 of their ratio|."""
    ours, theirs = sizes_of(key.shape), sizes_of(one.shape)
    return sum(abs(math.log2(max(theirs[n], 1) / max(size, 1))) for n, size in ours.items())


def _operands(key: StudyKey) -> str:
    return key.precision.partition("->")[0]


def _layouts(key: StudyKey) -> set[str]:
    return {flag for flag in key.flags.split(",") if flag.partition("=")[0].endswith("_layout")}


def _donor(key: StudyKey, records: Iterable[Record], pool: Pool) -> Donor:
    """Its successes that are legal configs here, each once with its best value."""
    best: dict[int, float] = {}
    for record in records:
        if record.value is None or set(record.config) != set(pool.names):
            continue
        config = {n: v for n, v in record.config.items() if isinstance(v, int)}
        index = pool.index(config)
        if index is not None:
            best[index] = min(record.value, best.get(index, math.inf))
    ranked = sorted(best.items(), key=lambda pair: (pair[1], pair[0]))
    return Donor(key.name, tuple(i for i, _ in ranked), tuple(v for _, v in ranked))
