"""The roofline plot, and the small bar that shows a ratio with its interval."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tilewright.perf.charts.base import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    legend,
    line,
    log_scale,
    mark,
    number,
    opening,
    text,
    x_axis,
    y_axis,
)


@dataclass(frozen=True, slots=True)
class Roof:
    """One ceiling of a roofline: a slope (GB/s) or a flat peak (G operations/s)."""

    name: str
    gbps: float | None = None
    gops: float | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """One result: operations per byte, G operations/s, the series it belongs to, and how it was obtained."""

    x: float
    y: float
    series: str
    label: str
    evidence: str


def roofline(title: str, points: Sequence[Point], roofs: Sequence[Roof]) -> str:
    """G operations/s over operations per byte, both logarithmic, under the measured ceilings."""
    flats = [r.gops for r in roofs if r.gops]
    corner = [max(flats) / r.gbps for r in roofs if r.gbps and flats]
    x = log_scale([*(p.x for p in points), *corner], LEFT, WIDTH - RIGHT)
    slopes = [r.gbps * x.low for r in roofs if r.gbps and not points]
    y = log_scale([*(p.y for p in points), *flats, *slopes], HEIGHT - BOTTOM, TOP)
    parts = [opening(title, f"{len(points)} results under {len(roofs)} ceilings")]
    parts += x_axis(x, "operations per byte") + y_axis(y, "G operations / s")
    clip = f"clip-{zlib.crc32(title.encode()):08x}"
    parts.append(
        f'<clipPath id="{clip}"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath><g clip-path="url(#{clip})">'
    )
    top = max(flats) if flats else y.high
    lowest: list[float] = []
    for roof in sorted(roofs, key=lambda r: -(r.gops or 0)):
        if roof.gbps:
            end = min(x.high, top / roof.gbps)
            parts.append(line(x(x.low), y(roof.gbps * x.low), x(end), y(roof.gbps * end), "roof"))
            parts.append(_slope_label(roof, x, y, end))
        elif roof.gops:
            at = y(roof.gops)
            parts.append(line(LEFT, at, WIDTH - RIGHT, at, "roof flat"))
            # Names of peaks that lie close together stand below one another.
            label = max(at - 4, lowest[-1] + 12) if lowest else at - 4
            lowest.append(label)
            parts.append(text(WIDTH - RIGHT - 4, label, roof.name, "rooflabel", "end"))
    parts.append("</g>")
    names = list(dict.fromkeys(p.series for p in points))
    for point in points:
        if point.x > 0 and point.y > 0:
            tip = f"{point.label}: {number(point.y)} G/s, {point.evidence}"
            parts.append(
                mark(x(point.x), y(point.y), names.index(point.series), point.evidence, tip)
            )
    return "".join([*parts, "</svg>", legend(names, {p.evidence for p in points})])


def _slope_label(roof: Roof, x: Scale, y: Scale, end: float) -> str:
    """The name of a slope, along it, at the first place where it is inside the plot."""
    assert roof.gbps is not None
    along = x.low * (x.high / x.low) ** 0.02
    along = max(along, y.low * 1.08 / roof.gbps)
    if along > end:
        return ""
    rise = y(roof.gbps * along * 2) - y(roof.gbps * along)
    angle = math.degrees(math.atan2(rise, x(along * 2) - x(along)))
    at_x, at_y = x(along), y(roof.gbps * along) - 4
    turned = f'transform="rotate({angle:.1f} {at_x:.1f} {at_y:.1f})"'
    return text(at_x, at_y, roof.name, "rooflabel", "start", turned)


def ratio_bar(ratio: float, low: float | None, high: float | None, verdict: str) -> str:
    """A ratio with its interval on a logarithmic axis from 1/4 to 4; the line in the middle is 1."""
    width, height = 120, 16

    def x(value: float) -> float:
        return width * (0.5 + max(-1.0, min(1.0, math.log(value) / math.log(4.0))) / 2)

    left = x(low) if low else 0.0
    right = x(high) if high else float(width)
    said = f"ratio {ratio:.2f}, {verdict}"
    return (
        f'<svg viewBox="0 0 {width} {height}" class="bar" role="img"><title>{escape(said)}</title>'
        f'<line x1="{width / 2}" y1="0" x2="{width / 2}" y2="{height}" class="grid"/>'
        f'<line x1="{left:.1f}" y1="8" x2="{right:.1f}" y2="8" class="interval v-{escape(verdict)}"/>'
        f'<circle cx="{x(ratio):.1f}" cy="8" r="3.5" class="dot v-{escape(verdict)}"/></svg>'
    )
