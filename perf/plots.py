"""Plots as SVG text, drawn by hand: no library, no script, readable in dark and light."""

from tilewright.perf.charts.base import number
from tilewright.perf.charts.curves import Curve, SizeRegret, quality, regrets
from tilewright.perf.charts.roofline import Point, Roof, ratio_bar, roofline
from tilewright.perf.charts.tuning import Candidate, Trial, history, importance, parallel, pareto

__all__ = [
    "Candidate",
    "Curve",
    "Point",
    "Roof",
    "SizeRegret",
    "Trial",
    "history",
    "importance",
    "number",
    "parallel",
    "pareto",
    "quality",
    "ratio_bar",
    "regrets",
    "roofline",
]
