"""Published timings against the cycle model: rows, summary, the table of the docs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from tilewright.errors import TilewrightError, UsageError

from ..twin import model
from . import launches
from .variants import OPS, Row, Unknown

DATA = Path(__file__).parent.parent / "twin" / "data"
PUBLISHED = DATA / "published_910b.csv"
_NEEDED = ("id", "op")  # what is blank the kernel chooses; without a time there is no ratio


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row's answer; ``predicted_us`` and ``ratio`` (predicted / published) None where blank."""

    id: str
    op: str
    published_us: float | None
    predicted_us: float | None
    ratio: float | None
    used_to_fit: bool
    reason: str
    bound_by: str
    note: str


@dataclass(frozen=True, slots=True)
class Summary:
    """Over the rows with both times: |ratio - 1| and rank correlation over the gemm rows."""

    rows: int
    predicted: int
    median_error: float | None
    p90_error: float | None
    gemm_spearman: float | None
    by_op: Mapping[str, float]


# Published figures behind constants that are not among the shipped rows: asc-devkit's data_copy,
# scenario 8 of UB, and bank_conflict_ub, scenario 5 (3751 ticks of 50 MHz).
_ALSO_FITTED = (("copy_gm_ub", 328.88), ("add_in_ub", 75.02))


@cache
def fitted(lib_path: Path) -> tuple[tuple[str, float], ...]:
    """Op and time of the published rows that constants were derived from or fitted to.

    Which they are, the sources of the constants say.
    """
    named = {
        name
        for constant in model.constants(lib_path)
        for name in re.findall(r"\b[A-Z]\d+\b", constant.source)
    }
    rows = [row for row in read(None) if row["id"] in named]
    return (*((row["op"], row.published_us or 0.0) for row in rows), *_ALSO_FITTED)


def _used_to_fit(lib_path: Path, row: Row) -> bool:
    """A row is known by its op and time, whatever it is called."""
    time = row.published_us
    return time is not None and any(
        op == row["op"] and abs(time - other) <= 1e-3 * other for op, other in fitted(lib_path)
    )


def read(source: str | Path | None) -> list[Row]:
    """Rows of a CSV file; None: those shipped. Raises UsageError for a file of other columns."""
    path = Path(source) if source is not None else PUBLISHED
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror}") from None
    reader = csv.DictReader(io.StringIO(text))
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(
            f"'{path}' has no column '{missing[0]}'; rows need those of {PUBLISHED.name}"
        )
    return [Row({str(k): str(v) for k, v in r.items() if k and v is not None}) for r in reader]


def predict(
    lib_path: Path, plan: launches.Plan, soc: str, constants: Mapping[str, float] | None = None
) -> tuple[float, str]:
    """Modelled microseconds of a plan, and what bounds it."""
    parts = []
    for choices in plan.choices:
        each = [
            model.predict_launch(lib_path, launch, soc, constants=constants) for launch in choices
        ]
        parts.append(min(each, key=lambda p: p.predicted_us))
    first = parts[0]
    if plan.inner:
        return plan.scale * first.pipe_us("v"), "v"
    if len(parts) == 1:
        inside = first.predicted_us - first.overhead_us
        return first.overhead_us + plan.scale * inside, first.bound_by
    # Hand in hand on one tile the halves add up, side by side the slower one counts.
    alone = [p.predicted_us - p.overhead_us for p in parts]
    longer = max(parts, key=lambda p: p.predicted_us - p.overhead_us)
    total = sum(alone) if plan.in_turn else max(alone)
    overhead = max(p.overhead_us for p in parts) + min(p.launch_us for p in parts)
    return overhead + total, longer.bound_by


def validate(
    lib_path: Path, rows: Iterable[Row], constants: Mapping[str, float] | None = None
) -> list[Outcome]:
    """An outcome per row; a row that cannot be modelled keeps its reason."""
    outcomes = []
    for row in rows:
        published = row.published_us
        predicted: float | None = None
        reason = bound_by = note = ""
        try:
            plan = launches.plan(row)
            predicted, bound_by = predict(lib_path, plan, row.soc, constants)
            note = plan.note
        except (Unknown, TilewrightError) as error:
            reason = str(error)
        except ValueError as error:
            reason = f"not a launch of ours: {error}"
        ratio = predicted / published if predicted and published else None
        used = predicted is not None and _used_to_fit(lib_path, row)
        outcomes.append(
            Outcome(row["id"], row["op"], published, predicted, ratio, used, reason, bound_by, note)
        )
    return outcomes


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end + 1 < len(order) and values[order[end + 1]] == values[order[at]]:
            end += 1
        for i in order[at : end + 1]:
            ranks[i] = (at + end) / 2
        at = end + 1
    return ranks


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Rank correlation, None for fewer than 3 pairs or one value throughout."""
    if len(a) < 3:
        return None
    x, y = _ranks(a), _ranks(b)
    mean = (len(a) - 1) / 2
    cov = sum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    var = sum((p - mean) ** 2 for p in x) * sum((q - mean) ** 2 for q in y)
    return float(cov / var**0.5) if var > 0 else None


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def summary(outcomes: Sequence[Outcome]) -> Summary:
    """Errors over the rows that have both times."""
    both = [(o, o.ratio) for o in outcomes if o.ratio is not None]
    errors = [abs(ratio - 1) for _, ratio in both]
    gemms = [o for o, _ in both if o.op == "gemm"]
    by_op = {}
    for op in OPS:
        own = [abs(ratio - 1) for o, ratio in both if o.op == op]
        if own:
            by_op[op] = median(own)
    return Summary(
        rows=len(outcomes),
        predicted=len(both),
        median_error=median(errors) if errors else None,
        p90_error=_percentile(errors, 0.9) if errors else None,
        gemm_spearman=spearman(
            [o.published_us or 0 for o in gemms], [o.predicted_us or 0 for o in gemms]
        ),
        by_op=by_op,
    )
