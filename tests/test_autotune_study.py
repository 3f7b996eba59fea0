"""Whole tunings: trial 0, failures, the decision at the end, resuming, storages, tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from autotune_doubles import CostModel, Misbehaving, cost, gemm_case, small_family
from tilewright import tables
from tilewright.autotune.study import default_case, tune
from tilewright.autotune.trials import Stage, State
from tilewright.autotune.valuing.measured import MeasuredTime
from tilewright.autotune.valuing.objective import objective_for, pick_backend
from tilewright.autotune.valuing.twin import TwinTime
from tilewright.backends.host import Host
from tilewright.errors import Unavailable, UsageError
from tilewright.registry import family
from tilewright.space import Config
from tilewright.tables import Table
from tilewright.targets import CPU, target

pytestmark = pytest.mark.alone

GEMM = family("gemm")
DEFAULT = GEMM.spec.default_config(CPU)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


def configs(**fields: int) -> Config:
    return Config({"tile_m": 32, "tile_n": 32, "tile_k": 32, "stages": 2, **fields})


def test_trial_0_is_the_default_and_the_best_is_far_better() -> None:
    model = CostModel()
    result = tune(GEMM, gemm_case(), "cpu", 40, objective=model, backend=Host())
    untuned = tables.choose(GEMM, gemm_case(), CPU, Table("gemm", "cpu")).config
    assert [r.config for r in result.rows[:2]] == [DEFAULT, untuned] and untuned != DEFAULT
    assert [r.arm for r in result.rows[:2]] == ["default", "tiling"]
    assert [r.number for r in result.rows] == list(range(40))
    assert len({r.config for r in result.rows}) == 40
    assert result.best and result.default
    assert result.best.value == min(cost(r.config) for r in result.rows)
    assert result.best.ratio == pytest.approx(cost(DEFAULT) / result.best.value)
    assert result.best.ratio > 1.2
    assert result.best.config in result.tie_set
    assert {r.evidence for r in result.rows} == {"modelled"}
    assert {r.target for r in result.rows} == {"cpu"}


@pytest.mark.parametrize(
    ("name", "storage"),
    [
        ("portfolio", "journal:{}/study.journal"),
        ("tpe", "journal:{}/study.journal"),
        ("random", "journal:{}/study.journal"),
        ("portfolio", "sqlite:///{}/study.db"),
    ],
)
def test_resuming_measures_nothing_twice_and_goes_on_as_if_never_stopped(
    tmp_path: Path, name: str, storage: str
) -> None:
    whole = tune(
        GEMM,
        gemm_case(),
        "cpu",
        14,
        objective=CostModel(),
        backend=Host(),
        sampler=name,
        seed=3,
        storage=f"journal:{tmp_path}/whole.journal",
    )
    model, url = CostModel(), storage.format(tmp_path)
    found = None
    for limit in (5, 9, 14, 14):
        found = tune(
            GEMM,
            gemm_case(),
            "cpu",
            limit,
            objective=model,
            backend=Host(),
            sampler=name,
            seed=3,
            storage=url,
        )
    assert found is not None
    assert len(model.calls) == len(set(model.calls)) == 14
    assert found.measured == 0
    assert [r.config for r in found.rows] == [r.config for r in whole.rows]
    assert found.best == whole.best


def test_a_journal_with_half_a_line_is_read_up_to_it(tmp_path: Path) -> None:
    url = f"journal:{tmp_path}/torn.journal"
    model = CostModel()
    tune(GEMM, gemm_case(), "cpu", 4, objective=model, backend=Host(), storage=url)
    with (tmp_path / "torn.journal").open("a", encoding="utf-8") as file:
        file.write('{"op_code": 4, "work')
    again = tune(GEMM, gemm_case(), "cpu", 6, objective=model, backend=Host(), storage=url)
    assert len(again.rows) == len(model.calls) == 6


def test_failures_are_rows_with_stage_and_reason_and_rank_last(tmp_path: Path) -> None:
    found = small_family(tmp_path)
    wrong, crash, refuse, late = (
        configs(tile_m=m, stages=s) for m, s in ((16, 1), (16, 2), (16, 3), (32, 1))
    )
    backend = Misbehaving([wrong], [crash], [refuse], [late])
    objective = MeasuredTime(found, gemm_case(), CPU, backend, seed=7)
    result = tune(
        found,
        gemm_case(),
        "cpu",
        50,
        objective=objective,
        backend=backend,
        sampler="exhaustive",
        final_s=0.2,
    )
    rows = {r.config: r for r in result.rows}
    assert len(rows) == result.pool == 6
    failed = {c: (r.stage, r.reason) for c, r in rows.items() if r.state is State.FAILED}
    assert set(failed) == {wrong, crash, refuse, late}
    assert failed[wrong][0] is Stage.CHECK and "nan at (0, 0)" in failed[wrong][1]
    assert failed[crash] == (Stage.CHECK, "RuntimeError: bad address")
    assert failed[refuse] == (Stage.GATE, "it does not like this tile")
    assert "right before timing and wrong after it" in failed[late][1]
    assert all(rows[c].value_us is None for c in failed)
    assert result.best and result.best.config not in failed
    assert not set(result.tie_set) & set(failed)
    assert all(r.evidence == (None if r.config in failed else "measured") for r in result.rows)
    assert {r.target for r in result.rows} == {"cpu"}


def test_a_wrong_answer_leaves_a_file_that_replays_it(tmp_path: Path) -> None:
    found = small_family(tmp_path)
    wrong = configs(stages=1)
    backend = Misbehaving([wrong])
    objective = MeasuredTime(found, gemm_case(), CPU, backend)
    outcome = objective.evaluate(wrong, _no_stage)
    assert outcome.state is State.FAILED
    assert Path(outcome.details["failure"]).is_file()
    assert outcome.details["replay"].startswith("tilewright check --replay ")


def _no_stage(stage: Stage):  # type: ignore[no-untyped-def]
    from contextlib import nullcontext

    return nullcontext()


def test_a_default_that_fails_does_not_end_the_study(tmp_path: Path) -> None:
    result = tune(
        GEMM, gemm_case(), "cpu", 8, objective=CostModel(wrong=(DEFAULT,)), backend=Host()
    )
    assert result.rows[0].state is State.FAILED
    assert result.default is None and result.gain is None
    assert result.best and result.best.config != DEFAULT


def test_nothing_that_works_is_no_winner() -> None:
    space = GEMM.spec.space["cpu"]
    result = tune(
        GEMM,
        gemm_case(),
        "cpu",
        5,
        objective=CostModel(wrong=tuple(space.points())),
        backend=Host(),
    )
    assert result.best is None and result.stored is None
    assert len(result.failures) == 5


def test_the_winner_is_stored_with_provenance_and_chosen(tmp_path: Path) -> None:
    found = small_family(tmp_path, tile_m=(16, 32, 64, 96))
    case = gemm_case()
    result = tune(
        found, case, "cpu", 12, objective=CostModel(), backend=Host(), sampler="exhaustive"
    )
    assert result.best and result.best.config != DEFAULT
    assert result.stored == tables.user_path(found, CPU)
    assert not (tmp_path / "configs").exists()
    choice = tables.choose(found, case, CPU)
    assert choice.config == result.best.config
    assert choice.entry
    provenance = choice.entry.provenance
    assert provenance["value"] == result.best.value
    assert provenance["default_value"] == cost(DEFAULT)
    for name in (
        "source_hash",
        "space_hash",
        "device",
        "mode",
        "study",
        "date",
        "evidence",
        "seed",
        "threads",
    ):
        assert provenance[name] not in (None, "")
    assert provenance["versions"]["optuna"]


def test_install_writes_the_familys_own_table(tmp_path: Path) -> None:
    found = small_family(tmp_path, tile_m=(16, 32, 64, 96))
    result = tune(
        found, gemm_case(), "cpu", 12, objective=CostModel(), backend=Host(), install=True
    )
    assert result.stored == tmp_path / "configs" / "cpu.json"
    content = json.loads(result.stored.read_text())
    entries = [e for d in content["devices"].values() for e in d["entries"]]
    assert [e["config"] for e in entries] == [dict(result.best.config)] if result.best else False


def test_a_study_ends_when_the_pool_is_used_up(tmp_path: Path) -> None:
    result = tune(
        small_family(tmp_path), gemm_case(), "cpu", 500, objective=CostModel(), backend=Host()
    )
    assert len(result.rows) == result.pool == 6


def test_seconds_bound_the_search() -> None:
    result = tune(
        GEMM, gemm_case(), "cpu", seconds=3.0, objective=CostModel(sleep_s=0.3), backend=Host()
    )
    assert 1 <= len(result.rows) <= 11


@dataclass(frozen=True)
class Modelled:
    """What a cycle model might say."""

    predicted_us: float
    peak: dict[str, int]
    findings: int = 0
    bound_by: str = "mte2"

    @property
    def cycles(self) -> float:
        return 1850 * self.predicted_us


def test_ascend_is_valued_by_the_cycle_model_checked_on_a_small_case_and_labelled(
    tmp_path: Path,
) -> None:
    found, where = small_family(tmp_path), target("ascend:910b1")
    full, racy = configs(stages=1), configs(tile_m=16, stages=1)
    backend = Misbehaving(wrong=[configs(tile_m=16)], cycles={})

    def model(config: Config) -> Modelled:
        ub = where.limit("ub_bytes") + 1 if config == full else 4096
        return Modelled(50.0 - 10 * config["stages"], {"UB": ub}, 2 if config == racy else 0)

    objective = TwinTime(found, gemm_case(), where, backend, model=model)
    result = tune(found, gemm_case(), where, 20, objective=objective, backend=backend)
    assert result.evidence == "modelled"
    assert result.best and result.best.config["stages"] == 3
    assert result.best.value_us == 20.0
    rows = {r.config: r for r in result.rows}
    assert "ub_bytes" in rows[full].reason and rows[full].stage is Stage.GATE
    assert "2 findings" in rows[racy].reason
    assert rows[configs(tile_m=16)].stage is Stage.CHECK
    assert rows[configs(stages=3)].details["ub_bytes"] == 4096
    assert rows[configs(stages=3)].details["bound_by"] == "mte2"


def test_the_cycle_model_values_a_real_kernel_in_well_under_a_second() -> None:
    """The default gemm case; a trial is the model, its gate, and functional checks on a small case."""
    where = target("ascend:910b1")
    case = default_case(GEMM, "fp16")
    objective = objective_for(GEMM, case, where, pick_backend(GEMM, where, "fp16"))
    default = GEMM.spec.default_config(where)
    one = objective.evaluate(default, _no_stage)
    two = objective.evaluate(default, _no_stage)
    assert one.state is State.OK, one.reason
    assert one.value == two.value and one.value
    assert one.details["cycles"] / where.limit("mhz") <= one.value
    assert one.details["l0c_bytes"] <= where.limit("l0c_bytes")
    small = objective.small.cases[0]  # type: ignore[attr-defined]
    assert GEMM.spec.flops_of(small) <= 3e6 and min(small.sizes.values()) > 1


def test_an_adapter_without_counts_ends_the_study_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilewright.backends.ascendc import AscendC

    found, where = small_family(tmp_path), target("ascend:910b1")
    monkeypatch.setattr(AscendC, "adapter", staticmethod(lambda family: object()))
    silent = Misbehaving(cycles={})
    objective = objective_for(found, gemm_case(), where, silent)
    with pytest.raises(Unavailable, match="has no count"):
        tune(found, gemm_case(), where, 2, objective=objective, backend=silent)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"trials": 0}, "0 trials were asked for"),
        ({"seconds": -1.0}, "-1 seconds were asked for"),
        ({"workers": 0}, "0 workers were asked for"),
        ({"storage": "studies.db"}, "'studies.db' is not a storage; accepted: journal:PATH"),
        ({"sampler": "best"}, "unknown sampler 'best'"),
    ],
)
def test_wrong_requests_are_one_sentence(wanted: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        tune(GEMM, gemm_case(), "cpu", **{"objective": CostModel(), "backend": Host(), **wanted})  # type: ignore[arg-type]


def test_without_a_shape_the_median_benchmark_case_is_tuned() -> None:
    case = default_case(GEMM, "bf16", {"bias": "yes"})
    flops = sorted(
        GEMM.spec.flops_of(c) for c in GEMM.spec.benchmark_cases(GEMM.spec.precision("bf16"))
    )
    assert case.precision == "bf16" and case.flags["bias"] == "yes"
    assert flops[0] < GEMM.spec.flops_of(case) < flops[-1]
