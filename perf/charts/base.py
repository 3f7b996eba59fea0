"""What every plot stands on: axes, ticks, marks and legends as SVG text.

No library and no script. Colours come from the page's style sheet through classes; every plot has a
title and a description for screen readers. Measured points are filled circles, anything else is a hollow
diamond; a failure is a cross.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 16, 48
COLOURS = 6


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` on pixels from `start` to `end`, logarithmic or not."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (self._of(v) for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self) -> list[float]:
        """Round values inside, a handful."""
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


def log_scale(values: Iterable[float], start: float, end: float, margin: float = 0.15) -> Scale:
    """A logarithmic scale around positive values, `margin` decades wider on each side."""
    logs = [math.log10(v) for v in values if v > 0]
    low, high = (min(logs) - margin, max(logs) + margin) if logs else (0.0, 1.0)
    if high - low < 0.15:
        middle = (low + high) / 2
        low, high = middle - 0.075, middle + 0.075
    return Scale(10**low, 10**high, start, end, True)


def linear_scale(values: Iterable[float], start: float, end: float, margin: float = 0.05) -> Scale:
    """A linear scale around values."""
    given = list(values) or [0.0, 1.0]
    low, high = min(given), max(given)
    spare = (high - low) * margin or max(abs(high), 1.0) * margin
    return Scale(low - spare, high + spare, start, end)


def x_scale(low: float, high: float) -> Scale:
    """The plot's own horizontal axis, linear; marks at its ends stay inside."""
    return Scale(low, high if high > low else low + 1, LEFT + 8, WIDTH - RIGHT - 8)


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.log10(low), math.log10(high)
    exponents = range(math.floor(first), math.ceil(last) + 1)
    for steps in ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)):
        found = [10.0**e * s for e in exponents for s in steps]
        inside = [t for t in found if first <= math.log10(t) <= last]
        if len(inside) >= 3:
            break
    else:
        return _linear_ticks(low, high)
    return inside[:: math.ceil(len(inside) / 9)]


def _linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]


def number(value: float) -> str:
    """Few significant digits, no exponent for everyday sizes."""
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def tick_text(value: float) -> str:
    """A number beside an axis, short: thousands and millions by their letters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return number(value)


def text(
    x: float, y: float, words: str, cls: str = "tick", anchor: str = "middle", more: str = ""
) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{cls}" text-anchor="{anchor}" {more}>{escape(words)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, cls: str) -> str:
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="{cls}"/>'


def opening(title: str, description: str, height: float = HEIGHT, width: float = WIDTH) -> str:
    """The start of a plot, with what a screen reader says of it."""
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" class="plot" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    )


def shorten(words: str, most: int) -> str:
    """Words cut to a length that fits beside a plot."""
    return words if len(words) <= most else f"{words[: most - 1]}…"


def y_axis(scale: Scale, label: str, height: float = HEIGHT) -> list[str]:
    """Horizontal grid lines with their values, and the axis' name along it."""
    parts = []
    for tick in scale.ticks():
        y = scale(tick)
        parts += [
            line(LEFT, y, WIDTH - RIGHT, y, "grid"),
            text(LEFT - 6, y + 4, tick_text(tick), anchor="end"),
        ]
    middle = (TOP + height - BOTTOM) / 2
    parts.append(text(14, middle, label, "axis", more=f'transform="rotate(-90 14 {middle:.0f})"'))
    return parts


def x_axis(
    scale: Scale, label: str, height: float = HEIGHT, ticks: Sequence[float] = ()
) -> list[str]:
    """Vertical grid lines with their values, and the axis' name below."""
    parts = []
    for tick in ticks or scale.ticks():
        x = scale(tick)
        parts += [
            line(x, TOP, x, height - BOTTOM, "grid"),
            text(x, height - BOTTOM + 16, tick_text(tick)),
        ]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, height - 10, label, "axis"))
    return parts


def colour(series: int) -> str:
    """The class of a series' colour."""
    return f"s{series % COLOURS}"


def mark(x: float, y: float, series: int, evidence: str, label: str) -> str:
    """A point: filled circle for measured, hollow diamond for anything else, with a tip."""
    tip = f"<title>{escape(label)}</title>"
    if evidence == "measured":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="point {colour(series)}">{tip}</circle>'
    diamond = f"M{x:.1f} {y - 6:.1f} l6 6 l-6 6 l-6 -6 z"
    return f'<path d="{diamond}" class="hollow {colour(series)}">{tip}</path>'


def cross(x: float, y: float, label: str) -> str:
    """A failure, with a tip."""
    shape = f"M{x - 4:.1f} {y - 4:.1f} l8 8 m0 -8 l-8 8"
    return f'<path d="{shape}" class="cross"><title>{escape(label)}</title></path>'


def legend(names: Sequence[str], evidence: Iterable[str] = (), more: Sequence[str] = ()) -> str:
    """Series by colour, evidence by shape, as text beside small marks; `more` are further items as HTML."""
    items = [
        _key(f'<rect width="12" height="12" rx="2" class="{colour(i)} point"/>', name)
        for i, name in enumerate(names)
    ]
    for word in sorted(set(evidence)):
        shape = '<circle cx="6" cy="6" r="4" class="plain"/>'
        if word != "measured":
            shape = '<path d="M6 1 l5 5 l-5 5 l-5 -5 z" class="plainhollow"/>'
        items.append(_key(shape, word))
    return f'<ul class="legend">{"".join([*items, *more])}</ul>'


def _key(shape: str, words: str) -> str:
    return f'<li><svg viewBox="0 0 12 12" class="key" aria-hidden="true">{shape}</svg>{escape(words)}</li>'


def key_of_failures(words: str) -> str:
    """The legend's item for crosses."""
    return _key('<path d="M2 2 l8 8 m0 -8 l-8 8" class="cross"/>', words)


def key_of_line(cls: str, words: str) -> str:
    """The legend's item for a line of a class."""
    return _key(f'<path d="M0 6 H12" class="{cls}"/>', words)
