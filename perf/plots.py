"""Plots as SVG text, drawn by hand: no library, no script, readable in dark and light.

Colours come from the page's style sheet through classes; every plot has a title and a description for
screen readers. Measured points are filled circles, anything else is a hollow diamond.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 16, 16, 48


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


@dataclass(frozen=True, slots=True)
class _Axes:
    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        part = (math.log10(value) - self.x0) / (self.x1 - self.x0)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        part = (math.log10(value) - self.y0) / (self.y1 - self.y0)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


def _log_range(values: Iterable[float], margin: float = 0.15) -> tuple[float, float]:
    logs = [math.log10(v) for v in values if v > 0]
    if not logs:
        return 0.0, 1.0
    low, high = min(logs) - margin, max(logs) + margin
    return (low, high) if high - low > 0.5 else (low - 0.3, high + 0.3)


def _ticks(low: float, high: float) -> list[float]:
    found = [10.0**e * f for e in range(math.floor(low), math.ceil(high) + 1) for f in (1, 2, 5)]
    inside = [t for t in found if low <= math.log10(t) <= high]
    return (
        [t for t in inside if math.isclose(math.log10(t) % 1.0, 0.0, abs_tol=1e-9)]
        if len(inside) > 9
        else inside
    )


def _text(
    x: float, y: float, text: str, cls: str = "tick", anchor: str = "middle", more: str = ""
) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{cls}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def _line(x0: float, y0: float, x1: float, y1: float, cls: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="{cls}"/>'


def _open(title: str, description: str, height: int = _HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" class="plot" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    )


def number(value: float) -> str:
    """Few significant digits, no exponent for everyday sizes."""
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _frame(axes: _Axes, x_label: str, y_label: str) -> list[str]:
    parts = []
    for tick in _ticks(axes.x0, axes.x1):
        x = axes.x(tick)
        parts += [
            _line(x, _TOP, x, _HEIGHT - _BOTTOM, "grid"),
            _text(x, _HEIGHT - _BOTTOM + 16, number(tick)),
        ]
    for tick in _ticks(axes.y0, axes.y1):
        y = axes.y(tick)
        parts += [
            _line(_LEFT, y, _WIDTH - _RIGHT, y, "grid"),
            _text(_LEFT - 6, y + 4, number(tick), anchor="end"),
        ]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x_label, "axis"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        _text(14, middle, y_label, "axis", more=f'transform="rotate(-90 14 {middle:.0f})"')
    )
    return parts


def _mark(x: float, y: float, series: int, evidence: str, label: str) -> str:
    cls = f"s{series % 6}"
    tip = f"<title>{escape(label)}</title>"
    if evidence == "measured":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="point {cls}">{tip}</circle>'
    diamond = f"M{x:.1f} {y - 6:.1f} l6 6 l-6 6 l-6 -6 z"
    return f'<path d="{diamond}" class="hollow {cls}">{tip}</path>'


def roofline(title: str, points: Sequence[Point], roofs: Sequence[Roof]) -> str:
    """G operations/s over operations per byte, both logarithmic, under the measured ceilings."""
    flats = [r.gops for r in roofs if r.gops]
    xs = [p.x for p in points if p.x > 0]
    corner = [max(flats) / r.gbps for r in roofs if r.gbps and flats]
    x0, x1 = _log_range([*xs, *(c for c in corner[-1:])])
    slopes = [r.gbps * 10**x0 for r in roofs if r.gbps]
    y0, y1 = _log_range(
        [*(p.y for p in points), *flats, *(s for s in slopes if s > 0 and not points)]
    )
    axes = _Axes(x0, x1, y0, y1)
    parts = [_open(title, f"{len(points)} results under {len(roofs)} ceilings")]
    parts += _frame(axes, "operations per byte", "G operations / s")
    clip = f"clip-{zlib.crc32(title.encode()):08x}"
    parts.append(
        f'<clipPath id="{clip}"><rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH - _LEFT - _RIGHT}" '
        f'height="{_HEIGHT - _TOP - _BOTTOM}"/></clipPath><g clip-path="url(#{clip})">'
    )
    top = max(flats) if flats else 10**y1
    for roof in roofs:
        if roof.gbps:
            end = min(10**x1, top / roof.gbps)
            parts.append(
                _line(
                    axes.x(10**x0),
                    axes.y(roof.gbps * 10**x0),
                    axes.x(end),
                    axes.y(roof.gbps * end),
                    "roof",
                )
            )
            along = 10 ** (x0 + 0.04 * (x1 - x0))
            parts.append(
                _text(axes.x(along), axes.y(roof.gbps * along) - 4, roof.name, "rooflabel", "start")
            )
        elif roof.gops:
            y = axes.y(roof.gops)
            parts += [_line(_LEFT, y, _WIDTH - _RIGHT, y, "roof flat")]
            parts += [_text(_WIDTH - _RIGHT - 4, y - 4, roof.name, "rooflabel", "end")]
    parts.append("</g>")
    names = list(dict.fromkeys(p.series for p in points))
    for point in points:
        if point.x > 0 and point.y > 0:
            tip = f"{point.label}: {number(point.y)} G/s, {point.evidence}"
            parts.append(
                _mark(
                    axes.x(point.x), axes.y(point.y), names.index(point.series), point.evidence, tip
                )
            )
    return "".join([*parts, "</svg>", legend(names, {p.evidence for p in points})])


def legend(names: Sequence[str], evidence: set[str]) -> str:
    """Series by colour, evidence by shape, as text beside small marks."""
    items = [
        f'<li><svg viewBox="0 0 12 12" class="key" aria-hidden="true"><rect width="12" height="12" rx="2" '
        f'class="s{i % 6} point"/></svg>{escape(name)}</li>'
        for i, name in enumerate(names)
    ]
    for word in sorted(evidence):
        shape = '<circle cx="6" cy="6" r="4" class="plain"/>'
        if word != "measured":
            shape = '<path d="M6 1 l5 5 l-5 5 l-5 -5 z" class="plainhollow"/>'
        items.append(
            f'<li><svg viewBox="0 0 12 12" class="key" aria-hidden="true">{shape}</svg>{escape(word)}</li>'
        )
    return f'<ul class="legend">{"".join(items)}</ul>'


def history(
    title: str, values: Sequence[tuple[int, float]], default: float | None, unit: str, evidence: str
) -> str:
    """Value of each trial, the best so far as a step line, the default as a dashed one."""
    if not values:
        return ""
    y0, y1 = _log_range([v for _, v in values] + ([default] if default else []), 0.05)
    first, last = min(n for n, _ in values), max(n for n, _ in values)
    axes = _Axes(0.0, 1.0, y0, y1)

    def x(n: int) -> float:
        return _LEFT + (n - first) / max(1, last - first) * (_WIDTH - _LEFT - _RIGHT)

    parts = [_open(title, f"{len(values)} trials, best {number(min(v for _, v in values))} {unit}")]
    for tick in _ticks(y0, y1):
        y = axes.y(tick)
        parts += [
            _line(_LEFT, y, _WIDTH - _RIGHT, y, "grid"),
            _text(_LEFT - 6, y + 4, number(tick), anchor="end"),
        ]
    step = max(1, round((last - first) / 8))
    parts += [_text(x(n), _HEIGHT - _BOTTOM + 16, str(n)) for n in range(first, last + 1, step)]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, "trial", "axis"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(_text(14, middle, unit, "axis", more=f'transform="rotate(-90 14 {middle:.0f})"'))
    if default:
        parts.append(_line(_LEFT, axes.y(default), _WIDTH - _RIGHT, axes.y(default), "roof"))
        parts.append(
            _text(_WIDTH - _RIGHT - 4, axes.y(default) - 4, "default config", "rooflabel", "end")
        )
    best = math.inf
    path = ""
    for n, value in sorted(values):
        if value < best:
            path += f"{'M' if not path else f'H{x(n):.1f} V'}{f'{x(n):.1f} ' if not path else ''}{axes.y(value):.1f} "
            best = value
    parts.append(f'<path d="{path}H{x(last):.1f}" class="best"/>')
    parts += [
        _mark(x(n), axes.y(v), 0, evidence, f"trial {n}: {number(v)} {unit}") for n, v in values
    ]
    return "".join([*parts, "</svg>"])


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
