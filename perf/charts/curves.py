"""Plots over counts and sizes: quality over evaluations, and what a dispatch table loses on each size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    colour,
    legend,
    line,
    linear_scale,
    number,
    opening,
    text,
    x_axis,
    y_axis,
)


@dataclass(frozen=True, slots=True)
class Curve:
    """Mean quality over evaluations with its worst tenth: points of (evaluations, mean, tenth percentile)."""

    name: str
    points: Sequence[tuple[float, float, float | None]]


def quality(title: str, curves: Sequence[Curve]) -> str:
    """Fraction of the optimum over evaluations, one curve a sampler; the thin line is the worst tenth of seeds."""
    ats = sorted({at for c in curves for at, _, _ in c.points})
    if not ats:
        return ""
    lowest = min(
        v for c in curves for _, mean, p10 in c.points for v in (mean, p10) if v is not None
    )
    log = ats[0] > 0 and ats[-1] > ats[0]
    span = 0.06 if log else 0.0
    x = (
        Scale(ats[0] / 10**span, ats[-1] * 10**span, LEFT, WIDTH - RIGHT, True)
        if log
        else linear_scale(ats, LEFT, WIDTH - RIGHT)
    )
    floor = min(math.floor(lowest * 20) / 20, 0.95)
    y = Scale(floor, 1.0, HEIGHT - BOTTOM, TOP)
    said = "; ".join(
        f"{c.name}: {c.points[-1][1]:.3f} at {number(c.points[-1][0])}" for c in curves if c.points
    )
    parts = [opening(title, said)]
    parts += x_axis(x, "configs evaluated", ticks=ats if len(ats) <= 9 else ())
    parts += y_axis(y, "fraction of the optimum")
    for i, curve in enumerate(curves):
        ordered = sorted(curve.points)
        tenth = [(at, p10) for at, _, p10 in ordered if p10 is not None]
        parts.append(_path([(x(at), y(v)) for at, v in tenth], f"tenth {colour(i)}"))
        parts.append(_path([(x(at), y(mean)) for at, mean, _ in ordered], f"curve {colour(i)}"))
        for at, mean, _ in ordered:
            tip = escape(f"{curve.name} at {number(at)}: {mean:.3f}")
            parts.append(
                f'<circle cx="{x(at):.1f}" cy="{y(mean):.1f}" r="3.5" class="point {colour(i)}"><title>{tip}</title></circle>'
            )
    return "".join([*parts, "</svg>", legend([c.name for c in curves])])


def _path(points: Sequence[tuple[float, float]], cls: str) -> str:
    if not points:
        return ""
    return f'<path d="M{" L".join(f"{px:.1f} {py:.1f}" for px, py in points)}" class="{cls}"/>'


@dataclass(frozen=True, slots=True)
class SizeRegret:
    """What one size loses, with its interval where there is one; `bucket` is the place of its bucket."""

    size: int
    value: float
    low: float | None
    high: float | None
    bucket: int
    label: str


def regrets(title: str, sizes: Sequence[SizeRegret], dim: str, others: Mapping[str, float]) -> str:
    """Regret of each size of a sweep in the colour of its bucket; `others` are levels to compare with."""
    if not sizes:
        return ""
    ends = [v for s in sizes for v in (s.value, s.low, s.high) if v is not None]
    y = linear_scale([100 * v for v in [0.0, *ends, *others.values()]], HEIGHT - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / len(sizes)
    worst = max(sizes, key=lambda s: s.value)
    buckets = len({s.bucket for s in sizes})
    said = f"{len(sizes)} sizes in {buckets} buckets; the worst loses {worst.value:.1%} at {dim}={worst.size}"
    parts = [opening(title, said), *y_axis(y, "regret, %")]
    parts.append(line(LEFT, y(0), WIDTH - RIGHT, y(0), "axisline"))
    for name, value in others.items():
        at = y(100 * value)
        parts.append(line(LEFT, at, WIDTH - RIGHT, at, "roof"))
        parts.append(
            text(WIDTH - RIGHT - 4, at - 4, f"{name}: mean {value:.1%}", "rooflabel halo", "end")
        )
    for i, one in enumerate(sizes):
        x = LEFT + (i + 0.5) * step
        zero, at = y(0), y(100 * one.value)
        wide = min(30.0, step * 0.6)
        tip = escape(f"{dim}={one.size}: {one.value:.2%}, {one.label}")
        parts.append(
            f'<rect x="{x - wide / 2:.1f}" y="{min(zero, at):.1f}" width="{wide:.1f}" '
            f'height="{max(1.0, abs(zero - at)):.1f}" class="point {colour(one.bucket)}"><title>{tip}</title></rect>'
        )
        if one.low is not None and one.high is not None:
            parts.append(line(x, y(100 * one.low), x, y(100 * one.high), "whisker"))
        parts.append(text(x, HEIGHT - BOTTOM + 16, number(one.size)))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, dim, "axis"))
    labels = list(dict.fromkeys(s.label for s in sorted(sizes, key=lambda s: s.bucket)))
    return "".join([*parts, "</svg>", legend(labels)])
