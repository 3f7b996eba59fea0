"""Monte Carlo of page sizes: what is wasted inside pages, what the tables take, and the peak of both.

A number of sequences is served at once. Each starts with a share of its length (the prompt), grows by
one token a step, ends at its length and makes room for the next; all page sizes see the same sequences.
Waste is the tokens' worth of memory in started pages that hold none. Bookkeeping is the block table
(as kernels take it: a row a sequence, as wide as the longest) and the pool's bits and counts.

Waste falls with the page size without end: about (page - 1) / 2 tokens a sequence. Bookkeeping falls
the other way, about 1 / page. Their sum has a minimum, which depends on what a token and a page's
bookkeeping take, and on nothing that singles out one size: `best_for` gives, for each size, the bytes of
bookkeeping a page for which it is the best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from tilewright.errors import UsageError
from tilewright.evidence import Evidence
from tilewright.pages.lengths import Distribution, Lengths

PAGE_SIZES = (8, 16, 32, 64, 128)
# Sequences drawn to find the ages of those already running at the start.
_RUNNING_FROM = 4096
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Plan:
    """What is simulated; bytes are those of all layers of a model.

    `token_bytes`: K and V of one token. The default is 32 layers of 8 heads of 128 in 16 bits (128 KiB).
    `table_bytes`: one entry of a block table. `pool_bytes`: what the pool keeps a page: two bits and a
    32-bit count. `prompt`: the share of its length that a sequence starts with.
    """

    lengths: Distribution
    page_sizes: tuple[int, ...] = PAGE_SIZES
    sequences: int = 256
    steps: int = 1024
    trials: int = 20
    seed: int = 0
    prompt: float = 0.5
    token_bytes: float = 131072.0
    table_bytes: float = 4.0
    pool_bytes: float = 4.27

    def __post_init__(self) -> None:
        for name in ("sequences", "steps", "trials"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} {getattr(self, name)}: at least 1 is needed")
        if not self.page_sizes or min(self.page_sizes) < 1:
            raise UsageError(f"page sizes {list(self.page_sizes)}: each must be 1 token or more")
        if not 0 <= self.prompt <= 1:
            raise UsageError(f"--prompt {self.prompt:g}: a share from 0 to 1 is needed")
        for name in ("token_bytes", "table_bytes", "pool_bytes"):
            if not getattr(self, name) >= 0:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name):g}: 0 or more is needed"
                )


@dataclass(frozen=True, slots=True)
class Row:
    """One page size. Means over time and trials, with the 95 % interval over trials where named so.

    Peaks are the mean over trials of the most in one step; `most_pages` is the most of all trials.
    """

    page_tokens: int
    lengths: str
    sequences: int
    trials: int
    waste_tokens: float  # a sequence
    waste_tokens_low: float
    waste_tokens_high: float
    waste_share: float  # of the memory in pages
    waste_bytes: float
    table_entries: float  # of pages in use
    table_width: float  # of the longest sequence
    table_bytes: float
    pool_bytes: float
    bookkeeping_bytes: float
    overhead_bytes: float
    overhead_low: float
    overhead_high: float
    overhead_share: float  # of the bytes of the tokens themselves
    peak_pages: float
    most_pages: int
    peak_bytes: float  # of pages and bookkeeping
    peak_token_bytes: float  # with no waste and no bookkeeping
    evidence: Evidence = Evidence.MODELLED


@dataclass(frozen=True, slots=True)
class Best:
    """For which bytes of bookkeeping a page a size has the least overhead; `to_bytes` None: for any more."""

    page_tokens: int
    from_bytes: float
    to_bytes: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """`minimum` names the page size with the least of each quantity; rows stand by page size."""

    rows: tuple[Row, ...]
    minimum: Mapping[str, int]
    best_for: tuple[Best, ...]


_QUANTITIES = ("waste", "pages", "width", "peak_pages", "peak_width")
_Trial = dict[str, npt.NDArray[np.float64]]


def simulate(plan: Plan, step: Callable[[], None] = lambda: None) -> Result:
    """Run every trial of the plan; `step` is called after each."""
    found: list[_Trial] = []
    tokens, peaks = [], []
    for seed in np.random.SeedSequence(plan.seed).spawn(plan.trials):
        trial, mean_tokens, peak_tokens = _trial(plan, np.random.default_rng(seed))
        found.append(trial)
        tokens.append(mean_tokens)
        peaks.append(peak_tokens)
        step()
    values = {name: np.stack([trial[name] for trial in found]) for name in _QUANTITIES}
    rows = tuple(
        _row(plan, i, {name: value[:, i] for name, value in values.items()}, tokens, peaks)
        for i in range(len(plan.page_sizes))
    )
    minimum = {
        name: min(rows, key=lambda r: getattr(r, field)).page_tokens
        for name, field in (
            ("waste", "waste_bytes"),
            ("bookkeeping", "bookkeeping_bytes"),
            ("overhead", "overhead_bytes"),
            ("peak", "peak_bytes"),
        )
    }
    return Result(rows, MappingProxyType(minimum), best_for(rows))


def best_for(rows: Sequence[Row]) -> tuple[Best, ...]:
    """The lower envelope of waste + cost x pages over the cost of a page: sizes that are best for some cost."""
    lines = sorted({(r.table_entries, r.waste_bytes, r.page_tokens) for r in rows}, reverse=True)
    found: list[Best] = []
    cost = 0.0
    slope, base, size = min(lines, key=lambda line: (line[1], line[0]))
    while True:
        crossings = [
            ((other[1] - base) / (slope - other[0]), other) for other in lines if other[0] < slope
        ]
        if not crossings:
            found.append(Best(size, cost, None))
            return tuple(found)
        # Of lines that cross at one place the flattest is below from there on.
        at, following = min(crossings, key=lambda c: (c[0], c[1][0]))
        found.append(Best(size, cost, at))
        cost, (slope, base, size) = at, following


def _trial(plan: Plan, generator: np.random.Generator) -> tuple[_Trial, float, float]:
    """Per page size: means and peaks of one trial; then the mean and the peak of tokens."""
    sizes = np.array(plan.page_sizes, dtype=np.int64)
    length, age = _running(plan, generator)
    zeros = np.zeros(len(sizes))
    sums: _Trial = {name: zeros.copy() for name in _QUANTITIES}
    tokens = peak_tokens = 0.0
    for _ in range(plan.steps):
        pages = -(-age // sizes[:, None])
        held, total = pages.sum(axis=1), float(age.sum())
        width = pages.max(axis=1)
        sums["waste"] += held * sizes - total
        sums["pages"] += held
        sums["width"] += width
        sums["peak_pages"] = np.maximum(sums["peak_pages"], held)
        sums["peak_width"] = np.maximum(sums["peak_width"], width)
        tokens += total
        peak_tokens = max(peak_tokens, total)
        age += 1
        ended = age > length
        if ended.any():
            length[ended] = plan.lengths.draw(int(ended.sum()), generator)
            age[ended] = _prompt(plan, length[ended])
    for name in ("waste", "pages", "width"):
        sums[name] /= plan.steps
    return sums, tokens / plan.steps, peak_tokens


def _prompt(plan: Plan, lengths: Lengths) -> Lengths:
    started: Lengths = np.maximum(1, np.ceil(plan.prompt * lengths)).astype(np.int64)
    return started


def _running(plan: Plan, generator: np.random.Generator) -> tuple[Lengths, Lengths]:
    """Lengths and ages of sequences met at any one time: longer lives are met more often, at any age."""
    drawn = plan.lengths.draw(max(_RUNNING_FROM, plan.sequences), generator)
    first = _prompt(plan, drawn)
    lives = drawn - first + 1
    chosen = generator.choice(len(drawn), plan.sequences, p=lives / lives.sum())
    age = first[chosen] + generator.integers(0, lives[chosen])
    return drawn[chosen], age


def _row(
    plan: Plan,
    place: int,
    values: Mapping[str, npt.NDArray[np.float64]],
    tokens: Sequence[float],
    peaks: Sequence[float],
) -> Row:
    size = plan.page_sizes[place]
    waste = values["waste"] * plan.token_bytes
    table = values["width"] * plan.sequences * plan.table_bytes
    pool = values["pages"] * plan.pool_bytes
    overhead = waste + table + pool
    peak_bookkeeping = (
        values["peak_width"] * plan.sequences * plan.table_bytes
        + values["peak_pages"] * plan.pool_bytes
    )
    peak_bytes = values["peak_pages"] * size * plan.token_bytes + peak_bookkeeping
    waste_low, waste_high = _interval(values["waste"] / plan.sequences)
    low, high = _interval(overhead)
    held = float(values["pages"].mean()) * size
    mean_tokens = float(np.mean(tokens))
    return Row(
        page_tokens=size,
        lengths=plan.lengths.text,
        sequences=plan.sequences,
        trials=plan.trials,
        waste_tokens=float(values["waste"].mean()) / plan.sequences,
        waste_tokens_low=waste_low,
        waste_tokens_high=waste_high,
        waste_share=float(values["waste"].mean()) / held,
        waste_bytes=float(waste.mean()),
        table_entries=float(values["pages"].mean()),
        table_width=float(values["width"].mean()),
        table_bytes=float(table.mean()),
        pool_bytes=float(pool.mean()),
        bookkeeping_bytes=float((table + pool).mean()),
        overhead_bytes=float(overhead.mean()),
        overhead_low=low,
        overhead_high=high,
        overhead_share=float(overhead.mean()) / max(mean_tokens * plan.token_bytes, 1.0),
        peak_pages=float(values["peak_pages"].mean()),
        most_pages=int(values["peak_pages"].max()),
        peak_bytes=float(peak_bytes.mean()),
        peak_token_bytes=float(np.mean(peaks)) * plan.token_bytes,
    )


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """95 % of the mean over independent trials; the mean itself for one trial."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, mean
    # Student's quantile from the normal one, first term of Cornish and Fisher: within 1 % from 8 trials on.
    quantile = _Z95 + (_Z95**3 + _Z95) / (4 * (len(values) - 1))
    reach = quantile * float(values.std(ddof=1)) / float(np.sqrt(len(values)))
    return mean - reach, mean + reach
