"""Dispatch tables from sweeps: the partition is exact, regret is told honestly, tables hold what was found."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_doubles import CostModel, NoisyCostModel, NoisyRounds, small_family
from tilewright import tables
from tilewright.autotune.tables import sweep as tables_sweep
from tilewright.autotune.tables.partition import costs, partition, regret, spread, summary, worth
from tilewright.autotune.tables.result import Request, Sizes, parse_sweep
from tilewright.autotune.tables.sweep import sweep
from tilewright.autotune.trials import Outcome
from tilewright.backends.host import Host
from tilewright.bindings import cpp
from tilewright.bindings.table import op_of
from tilewright.cases import Case
from tilewright.cli.main import main
from tilewright.errors import UsageError
from tilewright.evidence import Evidence
from tilewright.registry import Family
from tilewright.ship import dispatch
from tilewright.space import Config
from tilewright.targets import CPU

pytestmark = pytest.mark.alone

quick = settings(derandomize=True, deadline=None, max_examples=60)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("M=1..16", (1, 2, 4, 8, 16)),
        ("M=3..20", (3, 4, 8, 16, 20)),
        ("M=7", (7,)),
        ("M=1..4,96, 33", (1, 2, 4, 33, 96)),
    ],
)
def test_a_sweep_is_both_ends_and_the_powers_of_two_between(
    text: str, values: tuple[int, ...]
) -> None:
    assert parse_sweep(text) == Sizes("M", values)


@pytest.mark.parametrize(
    "text", ["M", "M=", "M=a", "1..4", "M=8..4", "M=0..4", "M=1..2..3", "M=-1"]
)
def test_what_is_no_sweep_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--sweep"):
        parse_sweep(text)


def exhaustive(cost: np.ndarray[Any, np.dtype[np.float64]], count: int) -> float:
    """The least cost of dividing into exactly `count` ranges, by trying every division."""
    sizes = len(cost)
    cuts = itertools.combinations(range(1, sizes), count - 1)
    return min(
        sum(float(cost[a:b].sum(axis=0).min()) for a, b in itertools.pairwise((0, *cut, sizes)))
        for cut in cuts
    )


@quick
@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 8), st.randoms(use_true_random=False))
def test_the_partition_is_the_best_there_is(sizes: int, configs: int, most: int, rng: Any) -> None:
    cost = np.array(
        [[rng.choice([0.0, 0.1, 0.3, rng.random()]) for _ in range(configs)] for _ in range(sizes)]
    )
    found = partition(cost, most, slack=0.0)
    assert [r.first for r in found] == [0, *(r.last + 1 for r in found[:-1])]
    assert found[-1].last == sizes - 1 and len(found) <= most
    total = sum(float(cost[r.first : r.last + 1, r.column].sum()) for r in found)
    best = min(exhaustive(cost, n) for n in range(1, min(most, sizes) + 1))
    assert total == pytest.approx(best, abs=1e-12)
    # No more ranges than it takes.
    if len(found) > 1:
        assert exhaustive(cost, len(found) - 1) > best - 1e-12


def test_a_range_that_wins_less_than_noise_is_not_made() -> None:
    cost = np.array([[0.0, 0.001], [0.001, 0.0], [0.5, 0.0]])
    assert [(r.first, r.last, r.column) for r in partition(cost, 3)] == [(0, 2, 1)]
    assert len(partition(cost, 3, slack=0.0)) == 2


def test_noise_makes_no_ranges() -> None:
    # Thirteen sizes, nine configs that are all alike, and a machine that is not quiet.
    rng = np.random.default_rng(8)
    times = [rng.lognormal(0, 0.15, (7, 9)) for _ in range(13)]
    assert worth(times, 0) > 0.03
    assert len(partition(costs(times, 0), 8, worth(times, 0))) <= 2
    assert len(partition(costs(times, 0), 8)) == 8
    # A real difference is still seen through it.
    for i in range(6):
        times[i][:, 1:] *= 2
    found = partition(costs(times, 0), 8, worth(times, 0))
    assert found[0].column == 0 and len(found) <= 3


def test_a_config_that_cannot_run_a_size_is_taken_only_where_nothing_else_can() -> None:
    cost = np.array([[math.inf, 0.9], [0.0, 0.9]])
    assert [r.column for r in partition(cost, 1)] == [1]
    with pytest.raises(ValueError, match="nothing to divide"):
        partition(np.zeros((0, 2)), 1)


def test_regret_is_told_by_rounds_that_did_not_choose() -> None:
    # Twenty equal configs under heavy noise: the one that was luckiest in choosing must not look better
    # than it is, and what is chosen must not look worse.
    rng = np.random.default_rng(3)
    told, cursed = [], []
    for _ in range(300):
        rounds = rng.lognormal(0, 0.1, (16, 20))
        best = int(np.argmin(costs([rounds[::2]], 0)[0]))
        told.append(regret(rounds[1::2], 7, best).value or 0.0)
        cursed.append(regret(rounds[::2], 7, best).value or 0.0)
    assert abs(float(np.mean(told))) < 0.01
    assert float(np.mean(cursed)) > 0.04


def test_costs_ignore_what_slows_whole_rounds_down_and_failures_cost_everything() -> None:
    true = np.array([1.0, 1.1, 2.0])
    drift = np.exp(np.arange(6.0))[:, None]
    rounds = true * drift
    rounds[3, 2] = np.nan
    assert costs([rounds], 1)[0] == pytest.approx([0.0, math.log(1.1), math.inf])
    found = summary([regret(rounds, 1, 0), regret(rounds, 2, 0), regret(rounds, 0, 0)])
    assert found.mean == pytest.approx(math.sqrt(1.1) - 1)
    assert (found.worst_at, found.cannot) == (0, 1)
    assert found.worst == pytest.approx(0.1)


def test_no_size_gets_a_config_that_is_slower_than_the_default_beyond_noise() -> None:
    rng = np.random.default_rng(1)
    # The second is far better on the first size and 10 % slower than the default on the second one.
    sizes = [np.array([2.0, 1.0]), np.array([1.0, 1.1])]
    times = [true * rng.lognormal(0, 0.01, (14, 2)) for true in sizes]
    assert [r.column for r in partition(costs(times, 0), 1)] == [0]
    assert [r.column for r in partition(costs(times, 1), 1)] == [1]
    assert [r.column for r in partition(costs(times, 0), 2)] == [1, 0]
    # Nor slower than what the size had untuned: the second config for the first size, the first for the second.
    assert [r.column for r in partition(costs(times, 0, [1, 0]), 2)] == [1, 0]
    assert [r.column for r in partition(costs(times, 1, [1, 1]), 1)] == [1]
    assert np.isinf(costs(times, 1, [1, 0])).tolist() == [[True, False], [False, True]]
    exact = [t[None, :] for t in sizes]
    assert [r.column for r in partition(costs(exact, 0), 1)] == [0]


def test_how_uncertain_rounds_are() -> None:
    rng = np.random.default_rng(2)
    assert spread(rng.lognormal(0, 0.01, (14, 4)), 0) < 1.05
    assert spread(rng.lognormal(0, 0.6, (14, 4)), 0) > 1.2
    assert spread(np.ones((1, 3)), 0) == spread(np.ones((14, 1)), 0) == 1.0
    assert spread(np.ones((3, 2)), 0) == math.inf


@dataclass
class BySize(NoisyCostModel):
    """The best tile_m is the power of two at M, in [16, 128]; noise as in a measurement."""

    m: int = 1
    timed: int = 0
    spread: float = 0.003

    def true(self, config: Config) -> float:
        wanted = math.log2(min(max(self.m, 16), 128))
        return 50.0 * self.m * (1 + 0.2 * abs(math.log2(config["tile_m"]) - wanted))

    def evaluate(self, config: Config, enter: Any) -> Outcome:
        outcome = CostModel.evaluate(self, config, enter)
        return Outcome.ok(self.true(config)) if outcome.value is not None else outcome

    @contextmanager
    def side_by_side(self, configs: Sequence[Config]) -> Iterator[NoisyRounds]:
        self.timed += len(configs)
        true = np.array([self.true(c) for c in configs])
        yield NoisyRounds(true, noise=self.spread, drift=0.0, seed=self.m)


class Models:
    """One model a case, so that what was evaluated can be counted."""

    def __init__(self, noise: float = 0.003) -> None:
        self.noise = noise
        self.all: dict[int, BySize] = {}

    def __call__(self, case: Case) -> BySize:
        m = case.sizes["M"]
        return self.all.setdefault(m, BySize(m=m, evidence=Evidence.MEASURED, spread=self.noise))

    @property
    def work(self) -> int:
        return sum(len(m.calls) + m.timed for m in self.all.values())


def request(folder: Path, models: Callable[[Case], Any], **changes: Any) -> Request:
    found = small_family(folder, tile_m=(16, 32, 64, 128), stages=(1, 2))
    fields: dict[str, Any] = {
        "family": found,
        "target": CPU,
        "sizes": Sizes("M", (1, 16, 32, 64, 128, 256)),
        "tail": {"N": 32, "K": 16},
        "precision": "fp32",
        "trials": 8,
        "backend": Host(),
        "storage": f"journal:{folder}/s.journal",
        "objective": models,
        "retime_s": 0.0,
    }
    return Request(**{**fields, **changes})


def chosen(found: Family, m: int) -> tables.Choice:
    return tables.choose(found, found.spec.case({"M": m, "N": 32, "K": 16}, "fp32"), CPU)


def test_a_sweep_finds_the_ranges_and_everything_reads_them(tmp_path: Path) -> None:
    models = Models()
    asked = request(tmp_path, models, install=True)
    result = sweep(asked)
    spans = [(b.over, b.upper, b.config["tile_m"]) for b in result.buckets]
    assert spans == [(0, 16, 16), (16, 32, 32), (32, 64, 64), (64, 256, 128)]
    assert result.regret and result.regret.mean is not None and abs(result.regret.mean) < 0.005
    assert result.one_config and (result.one_config.mean or 0) > 0.1
    assert result.gain and result.gain > 1.05
    for m, tile in ((1, 16), (16, 16), (17, 32), (33, 64), (64, 64), (65, 128), (256, 128)):
        choice = chosen(asked.family, m)
        assert choice.config["tile_m"] == tile
        assert choice.source.startswith("tuned for bucket")
    assert "nearest tuned bucket" in chosen(asked.family, 257).source
    provenance = chosen(asked.family, 40).entry.provenance  # type: ignore[union-attr]
    assert provenance["shape"] == "M=33..64,N=32,K=16"
    assert provenance["sweep"]["sizes"] == [64] and provenance["sweep"]["rounds"] >= 12
    assert provenance["sweep"]["default_regret"]["mean"] > 0.05
    installed = tables.read(tables.installed_path(asked.family, CPU), asked.family, CPU)
    assert {e.over for e in installed.entries} == {0, 16, 32, 64}
    shipped = dispatch.choices(asked.family, CPU)["buckets"]
    assert {(b["over"], b["bucket"][0]) for b in shipped} == {
        (0, 16),
        (16, 32),
        (32, 64),
        (64, 256),
    }
    assert all("regret" in b["reason"] for b in shipped)
    text = cpp.tables(op_of(asked.family, installed.entries), "nullptr")
    assert all(f", {over}, t" in text for over in (0, 16, 32, 64))


def test_a_sweep_that_is_run_again_measures_nothing_and_says_the_same(tmp_path: Path) -> None:
    first, again = Models(), Models()
    result = sweep(request(tmp_path, first))
    assert first.work > 0
    repeated = sweep(request(tmp_path, again))
    assert again.work == 0
    assert (repeated.buckets, repeated.regret) == (result.buckets, result.regret)


def test_a_busy_machine_is_said_and_timed_further(tmp_path: Path) -> None:
    models = Models(noise=0.8)
    result = sweep(request(tmp_path, models, install=True))
    assert "the machine was busy" in result.doubt and "M=1 (" in result.doubt
    assert not tables.installed_path(result.request.family, CPU).exists()
    assert result.stored == tables.user_path(result.request.family, CPU)
    quieter, rounds = Models(), result.rounds
    again = sweep(request(tmp_path, quieter, install=True))
    assert all(b > a for a, b in zip(rounds, again.rounds, strict=True))
    assert all(not m.calls and m.timed for m in quieter.all.values())


def test_neighbours_winners_are_first_guesses(tmp_path: Path) -> None:
    result = sweep(request(tmp_path, Models(), trials=4, sampler="random"))
    for before, after in itertools.pairwise(result.tuned):
        assert before.best is not None
        configs = [r.config for r in after.rows]
        assert configs[0] == after.rows[0].config and after.rows[0].number == 0
        assert before.best.config in configs[:2]


def test_few_buckets_cost_regret_and_the_limit_holds(tmp_path: Path) -> None:
    result = sweep(request(tmp_path, Models(), most=2))
    assert len(result.buckets) == 2
    assert result.regret and 0.01 < (result.regret.mean or 0) < 0.2
    told = result.top()["sweep"]["buckets"]
    assert sum(len(b["regret"]) for b in told) == 6
    assert all(b["worst"] >= b["mean"] for b in told)


def test_illegal_sizes_and_failures_leave_a_table(tmp_path: Path) -> None:
    wrong = Config(tile_m=64, tile_n=32, tile_k=32, stages=2)

    def models(case: Case) -> BySize:
        bad = (wrong,) if case.sizes["M"] == 64 else ()
        return BySize(m=case.sizes["M"], evidence=Evidence.MEASURED, wrong=bad)

    result = sweep(request(tmp_path, models))
    assert result.buckets and result.regret and result.regret.cannot == 0


def test_a_wrong_sweep_is_one_sentence(tmp_path: Path) -> None:
    good = request(tmp_path, Models())
    with pytest.raises(UsageError, match="divided by M; accepted: M=A..B"):
        sweep(replace(good, sizes=Sizes("N", (1,)), tail={"M": 1, "K": 1}))
    with pytest.raises(UsageError, match="both swept and in --shape"):
        sweep(replace(good, tail={"M": 1, "N": 1, "K": 1}))
    with pytest.raises(UsageError, match="needs a size for K"):
        sweep(replace(good, tail={"N": 1}))
    with pytest.raises(UsageError, match="0 buckets"):
        sweep(replace(good, most=0))


def test_an_interrupted_sweep_keeps_finished_sizes_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Models()
    true = tables_sweep.tune

    def cut_off(*arguments: Any, **options: Any) -> Any:
        result = true(*arguments, **options)
        return replace(result, interrupted=arguments[1].sizes["M"] == 32)

    monkeypatch.setattr(tables_sweep, "tune", cut_off)
    result = sweep(request(tmp_path, models))
    assert result.interrupted and not result.buckets and len(result.tuned) == 3
    assert "tuned for bucket (16" in chosen(result.request.family, 16).source
    monkeypatch.undo()
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    before = {m: len(one.calls) for m, one in models.all.items()}
    assert sweep(request(tmp_path, models)).buckets
    assert all(len(models.all[m].calls) == count for m, count in before.items())


def test_the_command_sweeps_a_real_kernel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds in ("RETIME_S", "FINAL_S"):
        monkeypatch.setattr(f"tilewright.autotune.tables.result.{seconds}", 0.0)
    out = tmp_path / "sweep.json"
    code = main(
        ["tune", "gemm", "--sweep", "M=1,8", "--shape", "N=32,K=32", "--trials", "2", "--buckets", "2", "--json", str(out)]
    )  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "regret against a config for each size alone" in said.out
    content = json.loads(out.read_text())
    assert {r["shape"] for r in content["rows"]} == {"M=1,N=32,K=32", "M=8,N=32,K=32"}
    assert content["sweep"]["sizes"] == [1, 8] and 1 <= len(content["sweep"]["buckets"]) <= 2
    assert content["evidence"] == "measured"
    assert main(["tune", "gemm", "--sweep", "K=1..8", "--shape", "M=1,N=32"]) == 2
    assert (
        main(["tune", "gemm", "--sweep", "M=1", "--shape", "N=32,K=32", "--objective", "size"]) == 2
    )
    assert "not by --objective size; accepted with --sweep: time" in capsys.readouterr().err
