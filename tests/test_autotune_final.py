"""The end of a tuning: times decide beyond noise, scores only rank, and each is called what it is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_doubles import (
    CostModel,
    NoisyCostModel,
    NoisyRounds,
    cost,
    gemm_case,
    small_family,
)
from tilewright import tables
from tilewright.autotune.choosing import final
from tilewright.autotune.result import TuneResult
from tilewright.autotune.study import tune
from tilewright.backends.host import Host
from tilewright.cli.tune import _summary
from tilewright.evidence import Evidence
from tilewright.perf.statistics import verdict as judge
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import CPU

GEMM = family("gemm")
DEFAULT = GEMM.spec.default_config(CPU)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


def test_what_calls_had_wins_where_nothing_is_faster_beyond_noise(tmp_path: Path) -> None:
    plain = replace(GEMM, spec=replace(GEMM.spec, tiling=None))
    for found, had in ((GEMM, GEMM.spec.config_for(gemm_case(), CPU)), (plain, DEFAULT)):
        place = f"journal:{tmp_path}/{had == DEFAULT}.journal"
        result = tune(
            *(found, gemm_case(), "cpu", 12),
            objective=NoisyCostModel(flat=True),
            backend=Host(),
            storage=place,
        )
        assert result.best and result.best.config == had
        assert result.decision and result.decision.verdict in ("same", "inconclusive")
        assert len(result.tie_set) > 1
        assert result.tie_set[0] == had


@settings(deadline=None)
@given(
    logs=st.lists(st.sampled_from((0.0, 0.001, 0.01, 0.05, 0.3)), min_size=2, max_size=6),
    noise=st.sampled_from((0.0, 0.002, 0.05)),
    seed=st.integers(0, 1000),
)
def test_the_winner_is_what_calls_had_or_faster_beyond_noise(
    logs: list[float], noise: float, seed: int
) -> None:
    """Config 0 is the default, 1 what the tiling suggests: the second has the last word."""
    times = np.exp(np.random.default_rng(seed).normal(logs, noise, (24, len(logs))))
    rows: Any = [
        SimpleNamespace(config=Config(tile_m=i), number=i, value=1.0, unit="us")
        for i in range(len(logs))
    ]
    held = (Config(tile_m=0), Config(tile_m=1))
    decision = final._choose(times, rows, held, [0.0] * len(rows))
    winner = decision.best.trial
    assert winner == 1 or judge(final._ratio(times, 1, winner)) == "faster"
    alone = final._choose(times, rows, held[:1], [0.0] * len(rows)).best.trial
    assert alone == 0 or judge(final._ratio(times, 0, alone)) == "faster"


def test_a_study_that_has_not_tried_what_calls_had_reaches_no_table(tmp_path: Path) -> None:
    url = f"journal:{tmp_path}/one.journal"

    def go(trials: int) -> TuneResult:
        return tune(
            *(GEMM, gemm_case(), "cpu", trials),
            objective=NoisyCostModel(),
            backend=Host(),
            storage=url,
        )

    first = go(1)
    assert first.stored is None and first.decision and first.decision.reason == final.UNTRIED
    second = go(2)
    assert second.stored and second.decision and second.decision.confirmed


def test_a_model_gives_a_better_score_and_never_a_faster_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = small_family(tmp_path, tile_m=(16, 32, 64, 96))
    url = f"journal:{tmp_path}/score.journal"
    model = CostModel(unit="score")
    result = tune(found, gemm_case(), "cpu", 12, objective=model, backend=Host(), storage=url)
    decision, best = result.decision, result.best
    assert decision and best and best.config != DEFAULT
    assert (decision.verdict, decision.by_score, decision.confirmed) == (
        "better score",
        True,
        False,
    )
    assert result.gain is None and result.score_ratio == best.ratio
    assert best.ratio == pytest.approx(cost(DEFAULT) / cost(best.config))
    assert (best.ratio_low, best.ratio_high, best.value_us) == (None, None, None)
    top = result.top()
    assert (top["gain"], top["confirmed"]) == (None, False)
    assert "no device has timed" in top["doubt"]
    _summary(result, None)
    said = capsys.readouterr().out
    assert f"better score, ratio of scores {best.ratio:.3f}" in said
    assert "(modelled)" in said and "faster" not in said and f"{best.ratio:.3f}x" not in said
    entry = tables.choose(found, gemm_case(), CPU).entry
    assert entry and entry.config == best.config
    kept = entry.provenance
    assert (kept["evidence"], kept["verdict"]) == ("modelled", "better score")
    assert kept["gain"] is None and kept["gain_low"] is None
    assert kept["score_ratio"] == pytest.approx(best.ratio)
    again = tune(found, gemm_case(), "cpu", 12, objective=model, backend=Host(), storage=url)
    assert again.measured == 0 and again.decision == decision


def test_a_default_that_no_score_beats_stays(tmp_path: Path) -> None:
    result = tune(GEMM, gemm_case(), "cpu", 6, objective=CostModel(flat=True), backend=Host())
    assert result.best and result.best.config == DEFAULT
    assert result.decision and result.decision.verdict == "same score"


def test_times_that_are_taken_once_confirm_nothing() -> None:
    """A measured value is noisy: without interleaved rounds it is a remark, not a winner."""
    model = CostModel(evidence=Evidence.MEASURED)
    result = tune(GEMM, gemm_case(), "cpu", 12, objective=model, backend=Host())
    assert result.decision and result.best and result.best.config != DEFAULT
    assert (result.decision.verdict, result.decision.confirmed) == ("inconclusive", False)
    assert result.stored is None and result.gain is None
    assert "timed on its own" in result.top()["doubt"]


def test_a_decision_from_before_scores_were_told_from_times_is_made_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    first = tune(GEMM, gemm_case(), "cpu", 6, objective=CostModel(), backend=Host(), storage=url)
    study = optuna.load_study(study_name=first.study, storage=url)
    kept = study.user_attrs["decision"]
    del kept["decision"]["by_score"]
    kept["decision"] |= {"verdict": "faster", "confirmed": True}
    study.set_user_attr("decision", kept)
    again = tune(GEMM, gemm_case(), "cpu", 6, objective=CostModel(), backend=Host(), storage=url)
    assert again.measured == 0
    assert again.decision == first.decision


def test_a_faster_config_wins_with_an_interval_under_drift() -> None:
    result = tune(GEMM, gemm_case(), "cpu", 30, objective=NoisyCostModel(), backend=Host())
    best = result.best
    assert best and best.ratio_low and best.ratio_high and best.ratio
    assert result.decision and result.decision.verdict == "faster"
    true = cost(DEFAULT) / cost(best.config)
    assert best.ratio == pytest.approx(true, rel=0.02)
    assert best.ratio_low <= best.ratio <= best.ratio_high
    assert best.ratio_low > 1


def test_long_calls_leave_room_for_fewer_finalists_and_the_default_is_one(tmp_path: Path) -> None:
    rows = tune(GEMM, gemm_case(), "cpu", 12, objective=NoisyCostModel(), backend=Host()).rows
    slow = [replace(r, value=4e5, value_us=4e5) for r in rows if r.value]
    raced: list[int] = []

    class Counted(NoisyCostModel):
        def side_by_side(self, configs: Sequence[Config]) -> AbstractContextManager[NoisyRounds]:
            raced.append(len(configs))
            assert DEFAULT in configs
            return super().side_by_side(configs)

    final.decide(Counted(), slow, DEFAULT, 0.01, 12)
    final.decide(Counted(), slow, DEFAULT, 30.0, 12)
    assert raced[0] == 2 and 3 <= raced[1] <= 5
    # What untuned calls get stands beside it to the end, and something to compare them with.
    suggested = GEMM.spec.config_for(gemm_case(), CPU)
    final.decide(Counted(), slow, DEFAULT, 0.01, 12, suggested)
    assert raced[2] == 3
    assert [r.config for r in final.finalists(slow, DEFAULT, 2, suggested)][:2] == [
        DEFAULT,
        suggested,
    ]
