"""A picture of a modelled launch: one line a pipe, one bar an instruction."""

from __future__ import annotations

import json
from pathlib import Path

from tilewright.errors import Unavailable

_COLOURS = {
    "S": "#999999",
    "V": "#c44e52",
    "M": "#8172b3",
    "MTE1": "#55a868",
    "MTE2": "#4c72b0",
    "MTE3": "#dd8452",
    "FIX": "#da8bc3",
}


def draw(trace: Path, picture: Path, title: str) -> None:
    """Draws the Chrome trace at ``trace`` into ``picture`` (.png or .svg).

    Raises Unavailable without matplotlib.
    """
    try:
        import matplotlib
    except ImportError:
        raise Unavailable(
            "a picture of the timeline needs matplotlib: pip install 'tilewright[report]'; "
            "--trace FILE.json needs nothing and opens in ui.perfetto.dev"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    cores: dict[int, str] = {}
    pipes: dict[tuple[int, int], str] = {}
    bars: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in json.loads(trace.read_text())["traceEvents"]:
        key = (event["pid"], event.get("tid", 0))
        if event["ph"] == "M" and event["name"] == "process_name":
            cores[event["pid"]] = event["args"]["name"]
        elif event["ph"] == "M":
            pipes[key] = event["args"]["name"]
        elif event["ph"] == "X" and event["dur"] > 0:
            bars.setdefault(key, []).append((event["ts"], event["dur"]))
    lines = [key for key in pipes if key in bars]
    figure, axes = pyplot.subplots(figsize=(12, 1.2 + 0.35 * max(len(lines), 1)))
    for row, key in enumerate(lines):
        axes.broken_barh(bars[key], (row - 0.4, 0.8), color=_COLOURS.get(pipes[key], "#333333"))
    axes.set_yticks(range(len(lines)), [f"{cores[c]}  {pipes[c, p]}" for c, p in lines])
    axes.invert_yaxis()
    axes.set_xlabel("us, modelled")
    axes.set_title(title)
    figure.tight_layout()
    figure.savefig(picture)
    pyplot.close(figure)
