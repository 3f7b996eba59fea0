"""Cells of the report's tables: numbers, verdicts and structures as short text with a class for their meaning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tilewright.perf import plots
from tilewright.perf.report import Row


def cell(text: object, cls: str = "") -> Any:
    """A table cell with a class for its meaning."""
    return {"text": "" if text is None else text, "cls": cls}


def num(value: object, digits: int = 4) -> Any:
    """A right-aligned number; a dash for what is missing."""
    if isinstance(value, str):
        return cell(value, "num")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return cell("-", "num")
    if isinstance(value, float) and not math.isfinite(value):
        return cell("-", "num")
    text = f"{value:,}" if isinstance(value, int) else plots.number(float(f"{value:.{digits}g}"))
    return cell(text, "num")


def yes(value: object) -> Any:
    if value is None:
        return cell("-", "none")
    return cell("ok", "good") if value else cell("FAILED", "bad")


def compact(value: object) -> str:
    """A config or any other structure in one short line."""
    if isinstance(value, Mapping):
        return " ".join(f"{k}={compact(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(compact(v) for v in value)
    if isinstance(value, float):
        return plots.number(value)
    return "" if value is None else str(value)


def evidence(row: Row) -> Any:
    word = str(row.get("evidence") or "")
    return cell(word, "good" if word == "measured" else "mid")


def positive(value: object) -> float | None:
    """A finite number above zero, else None."""
    return (
        float(value)
        if isinstance(value, int | float) and math.isfinite(value) and value > 0
        else None
    )
