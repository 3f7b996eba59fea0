"""Records for tests of the store: a simple one to vary, and any that can be thought of."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tilewright.autotune.provenance import StudyKey
from tilewright.autotune.store.record import Record
from tilewright.autotune.trials import Stage, State
from tilewright.evidence import Evidence


def key(**fields: Any) -> StudyKey:
    """A study of gemm on cpu, some fields changed."""
    content: dict[str, Any] = {
        "family": "gemm",
        "backend": "host",
        "target": "cpu",
        "device": "cpu-a",
        "shape": "M=64,N=64,K=64",
        "precision": "bf16",
        "flags": "b_layout=KN,bias=no",
        "memory": "dense",
        "threads": 2,
        "source_hash": "s",
        "space_hash": "p",
        "mode": "warm median",
        "unit": "us",
    }
    return StudyKey(**{**content, **fields})


def record(
    value: float | None = 1.0, config: dict[str, Any] | None = None, **fields: Any
) -> Record:
    """A success with this value, or a failure at the check for None."""
    good = value is not None
    content: dict[str, Any] = {
        "key": key(),
        "config": config or {"tile_m": 32, "tile_n": 32},
        "state": State.OK if good else State.FAILED,
        "stage": Stage.TIME if good else Stage.CHECK,
        "evidence": Evidence.MEASURED,
        "value": value,
        "reason": "" if good else "element (0, 0) is 1 instead of 2",
    }
    return Record(**{**content, **fields})


_numbers = st.floats(1e-6, 1e9)
_words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
_names = st.text("abcxyz_", min_size=1, max_size=6)
_plain = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), _numbers, _words)


@st.composite
def studies(draw: st.DrawFn, fewest: int = 1) -> list[Record]:
    """Records of one study: its fields are the same in every config, no config occurs twice."""
    unit = draw(st.sampled_from(["us", "ms", "score"]))
    sizes = draw(st.lists(st.integers(0, 2**40), min_size=0, max_size=3))
    shape = ",".join(f"{n}={s}" for n, s in zip("MNK", sizes, strict=False))
    about = {n: draw(_words) for n in ("family", "device", "precision", "flags", "source_hash")}
    one = key(**about, unit=unit, shape=shape, threads=draw(st.integers(0, 512)))
    names = draw(st.lists(_names, min_size=1, max_size=4, unique=True))
    point = st.tuples(*(st.integers(0, 99) for _ in names))
    points = draw(st.lists(point, min_size=fewest, max_size=6, unique=True))
    versions = draw(st.dictionaries(_names, _words, max_size=2))
    found = []
    for number, values in enumerate(points):
        value = draw(st.none() | _numbers)
        good = value is not None
        found.append(
            Record(
                key=one,
                config=dict(zip(names, values, strict=True)),
                state=State.OK if good else State.FAILED,
                stage=Stage.TIME if good else draw(st.sampled_from(Stage)),
                evidence=draw(st.sampled_from(Evidence)),
                value=value,
                reason="" if good else draw(_words),
                samples=tuple(draw(st.lists(_numbers, max_size=3))) if good else (),
                details=draw(st.dictionaries(_names, _plain, max_size=2)),
                versions=versions,
                number=number,
                when=draw(st.sampled_from(["", "2026-01-02T03:04:05+00:00"])),
                origin="o",
            )
        )
    return found
