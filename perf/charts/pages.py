"""The curve of page sizes: waste, bookkeeping and their sum, as a drawing that stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from tilewright.perf.charts.base import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    colour,
    log_scale,
    mark,
    number,
    opening,
    text,
    x_axis,
    y_axis,
)

_STYLE = (
    "<style>svg{--card:#fff;--soft:#5c6670;--line:#e3e0da;--ink:#1d2126;--s0:#0b6e6e;--s1:#c2410c;--s2:#4f46b8;"
    "font-family:system-ui,sans-serif}@media (prefers-color-scheme:dark){svg{--card:#1c2024;--soft:#a3abb3;"
    "--line:#33393f;--ink:#e8e6e1;--s0:#4fc3c0;--s1:#ff9a62;--s2:#a8a2ff}}.ground{fill:var(--card)}"
    ".grid{stroke:var(--line)}.tick{fill:var(--soft);font-size:11px}.axis{fill:var(--soft);font-size:12px}"
    ".name{fill:currentColor;font-size:12px}.curve{fill:none;stroke:currentColor;stroke-width:2}"
    ".s0{color:var(--s0)}.s1{color:var(--s1)}.s2{color:var(--s2)}"
    ".hollow{fill:var(--card);stroke:currentColor;stroke-width:2}</style>"
)


def page_sizes(title: str, sizes: Sequence[int], curves: Mapping[str, Sequence[float]]) -> str:
    """Bytes over the tokens of a page, both logarithmic; a curve each. Modelled, so the marks are hollow.

    Values of 0 have no place on a logarithmic axis and are left out.
    """
    values = [v for curve in curves.values() for v in curve]
    x = log_scale(sizes, LEFT, WIDTH - RIGHT, margin=0.06)
    y = log_scale(values, HEIGHT - BOTTOM, TOP, margin=0.3)
    least = {
        name: sizes[min(range(len(sizes)), key=curve.__getitem__)] for name, curve in curves.items()
    }
    said = "; ".join(f"{name}: least at {size} tokens" for name, size in least.items())
    parts = [
        opening(title, said),
        _STYLE,
        f'<rect width="{WIDTH}" height="{HEIGHT}" class="ground"/>',
    ]
    parts += [*x_axis(x, "tokens a page", ticks=sizes), *y_axis(y, "bytes (modelled)")]
    for i, (name, curve) in enumerate(curves.items()):
        places = [(x(s), y(v), s, v) for s, v in zip(sizes, curve, strict=True) if v > 0]
        if not places:
            continue
        path = " L".join(f"{px:.1f} {py:.1f}" for px, py, _, _ in places)
        parts.append(f'<path d="M{path}" class="curve {colour(i)}"/>')
        parts += [
            mark(px, py, i, "modelled", f"{name}, {s} tokens: {number(v)} bytes")
            for px, py, s, v in places
        ]
        px, py, _, _ = places[0]
        parts.append(text(px + 10, py - 8, name, f"name {colour(i)}", "start"))
    parts.append(text(WIDTH / 2, TOP - 3, escape(title), "tick"))
    return "".join([*parts, "</svg>\n"])
