"""Rows to rooflines: one plot per target and thread count, measured and modelled told apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tilewright.errors import TilewrightError
from tilewright.perf.plots import Point, Roof, roofline
from tilewright.perf.report import Block, Documents, Row

_CEILING = re.compile(r"(?P<what>.+), (?P<threads>\d+) threads?$")


def roofline_blocks(documents: Documents) -> list[Block]:
    """A plot per target and thread count with anything to show."""
    from markupsafe import Markup

    groups: dict[tuple[str, int], list[Point]] = {}
    for row in documents.rows("bench"):
        point = _bench_point(row)
        if point:
            groups.setdefault((str(row.get("target")), int(row.get("threads") or 0)), []).append(
                point
            )
    for row in documents.rows("model"):
        point = _model_point(row)
        if point:
            groups.setdefault((str(row.get("target") or "ascend"), 0), []).append(point)
    blocks = []
    for (target, threads), points in groups.items():
        roofs = _roofs(documents.rows("doctor"), threads) if target == "cpu" else []
        where = f"{target}, {threads} thread{'s' if threads != 1 else ''}" if threads else target
        blocks.append(
            Block(heading=where, svg=Markup(roofline(f"Roofline of {where}", points, roofs)))
        )
    return blocks


def _positive(value: object) -> float | None:
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        else None
    )


def _bench_point(row: Row) -> Point | None:
    gops, gbps = _positive(row.get("gflops")), _positive(row.get("gbps"))
    if not gops or not gbps or row.get("state", "timed") != "timed":
        return None
    label = f"{row.get('family')} {row.get('dtype')} {row.get('case')}"
    series = f"{row.get('family')} {row.get('dtype')} {row.get('backend')}"
    return Point(gops / gbps, gops, series, label, str(row.get("evidence") or "measured"))


def _model_point(row: Row) -> Point | None:
    us = _positive(row.get("predicted_us"))
    work = _work(row)
    if not us or not work:
        return None
    flops, moved = work
    label = f"{row.get('family')} {row.get('dtype')} {row.get('case') or row.get('shape') or ''}"
    series = f"{row.get('family')} {row.get('dtype')} modelled"
    return Point(
        flops / moved, flops / us / 1e3, series, label, str(row.get("evidence") or "modelled")
    )


def _work(row: Row) -> tuple[float, float] | None:
    """Operations and bytes of a row: its own, else from the family's spec."""
    flops, moved = _positive(row.get("flops")), _positive(row.get("bytes"))
    if flops and moved:
        return flops, moved
    from tilewright.cases import parse_shape
    from tilewright.registry import family

    text = str(row.get("case") or row.get("shape") or "").split(" ")[0]
    try:
        spec = family(str(row.get("family"))).spec
        dtype: Any = row.get("dtype")
        case = spec.case(parse_shape(text), dtype)
    except TilewrightError:
        return None
    flops, moved = spec.flops_of(case), spec.bytes_of(case)
    return (flops, moved) if flops > 0 and moved > 0 else None


def _roofs(rows: Sequence[Row], threads: int) -> list[Roof]:
    """Ceilings of doctor's rows for a thread count (of all threads where none match)."""
    found: dict[int, list[Roof]] = {}
    for row in rows:
        match = _CEILING.match(str(row.get("name")))
        value = _positive(row.get("value"))
        if not match or not value:
            continue
        what = match["what"]
        roof = None
        if what.endswith(" read"):
            roof = Roof(f"{what.removesuffix(' read')} {value:.0f} GB/s", gbps=value)
        elif what.endswith(" peak"):
            roof = Roof(f"{what.removesuffix(' peak')} {value:.0f} G/s", gops=value)
        if roof:
            found.setdefault(int(match["threads"]), []).append(roof)
    if not found:
        return []
    return found.get(threads) or found[max(found)]
