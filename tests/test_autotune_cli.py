"""`tilewright tune` on what this machine really has: the host kernels, and Triton's compiler."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tilewright import native, tables
from tilewright.autotune.study import tune
from tilewright.autotune.valuing.objective import objective_for
from tilewright.autotune.valuing.static_score import StaticScore
from tilewright.backends.triton import Triton
from tilewright.cli.main import main
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import CPU, target

pytestmark = pytest.mark.alone

GEMM = family("gemm")
SHAPE = ["--shape", "M=16,N=64,K=48"]

needs_host = pytest.mark.skipif(native.why_missing() is not None, reason=str(native.why_missing()))


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


@needs_host
def test_a_real_tuning_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "tune",
        "gemm",
        *SHAPE,
        "--dtype",
        "bf16",
        "--trials",
        "5",
        "--study",
        f"sqlite:///{tmp_path}/s.db",
    ]
    assert main([*command, "--json", "-"]) == 0
    first = capsys.readouterr()
    document = json.loads(first.out)
    assert document["schema"] == "tilewright/tune/1"
    assert [r["number"] for r in document["rows"]] == [0, 1, 2, 3, 4]
    for row in document["rows"]:
        assert row["state"] == "ok", row
        assert row["value_us"] > 0 and row["stage"] == "time"
        assert (row["evidence"], row["target"]) == ("measured", "cpu")
    assert document["rows"][0]["config"] == dict(GEMM.spec.default_config(CPU))
    assert document["measured"] == 5 and document["confirmed"] is True
    # The default, or what the tiling says, wins unless another is faster beyond noise.
    assert document["best"]["ratio_high"] >= 1 / 1.02
    assert set(document["spent_s"]) == {"gate", "check", "time"}
    assert sum(document["spent_s"].values()) <= document["seconds"]
    assert len(document["p_best"]) == len(document["tie_set"])
    assert document["best"]["config"] in document["tie_set"]
    assert "trial 5/5" in first.err and "seed 0" in first.err
    case = GEMM.spec.case({"M": 16, "N": 64, "K": 48}, "bf16")
    choice = tables.choose(GEMM, case, CPU)
    assert dict(choice.config) == document["best"]["config"]
    assert choice.entry and choice.entry.provenance["versions"]["compiler"]
    assert main([*command, "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["measured"] == 0
    assert (again["best"], again["rows"]) == (document["best"], document["rows"])


@needs_host
def test_the_study_opens_in_optuna_with_named_fields(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path}/s.db"
    result = tune(
        GEMM, GEMM.spec.case({"M": 8, "N": 32, "K": 32}, "fp32"), "cpu", 6, storage=url, final_s=0.2
    )
    study = optuna.load_study(study_name=result.study, storage=url)
    importance = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    space = GEMM.spec.space_for(CPU)
    assert space is not None and set(importance) <= set(space.fields)
    assert {"tile_m", "tile_n", "tile_k"} <= set(importance)
    assert study.trials[0].params == dict(GEMM.spec.default_config(CPU))
    assert study.user_attrs["key"]["source_hash"]


def test_without_a_device_a_gpu_target_gets_a_static_score(tmp_path: Path) -> None:
    where = target("cuda:sm_90")
    case = GEMM.spec.case({"M": 64, "N": 64, "K": 64}, "fp16")
    backend = Triton()
    if backend.cell(GEMM, where, GEMM.spec.precision("fp16")).state.value != "compile":
        pytest.skip("triton is missing, or there is such a device")
    objective = objective_for(GEMM, case, where, backend)
    result = tune(GEMM, case, where, 2, objective=objective, backend=backend)
    assert result.evidence == "modelled" and result.unit == "score"
    assert result.best and result.best.value_us is None and result.best.ratio_low is None
    row = result.rows[0]
    assert row.state.value == "ok" and row.value and row.value >= 1.0 and row.value_us is None
    assert (row.target, row.evidence) == ("cuda:sm_90", "modelled")
    assert result.decision and result.decision.by_score and not result.decision.confirmed
    assert result.decision.verdict in ("better score", "same score") and result.gain is None


def test_a_score_knows_how_many_multiprocessors_the_target_has() -> None:
    """108 tiles fill an A100 once and leave a fifth of an H100 idle."""
    pytest.importorskip("triton", reason="the grid of a kernel is declared in its Triton source")
    case = GEMM.spec.case({"M": 12 * 32, "N": 9 * 32, "K": 64}, "fp16")
    binary: Any = SimpleNamespace(
        threads=128, blocks_per_sm=8, async_copies={}, spill_bytes=0, matrix_instructions={"mma": 1}
    )
    scores, modes = {}, set()
    for name in ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942"):
        where = target(name)
        config = Config(
            {**GEMM.spec.default_config(where), "tile_m": 32, "tile_n": 32, "num_warps": 4}
        )
        objective = StaticScore(GEMM, case, where, Triton())
        scores[name] = objective._score(config, binary)
        modes.add(objective.mode)
    assert scores["cuda:sm_90"] / scores["cuda:sm_80"] == pytest.approx(132 / 108)
    assert scores["cuda:sm_100"] / scores["cuda:sm_80"] == pytest.approx(148 / 108)
    assert len(modes) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nope"], 2, "unknown family 'nope'; accepted: attention, beam_topk, "),
        (["gemm", "--target", "tpu"], 2, "unknown target 'tpu'"),
        (["gemm", "--shape", "M=64"], 2, "gemm needs a size for N, K"),
        (["gemm", "--dtype", "fp8"], 2, "unknown precision of gemm 'fp8'"),
        (["gemm", "--dtype", "int8"], 2, "--dtype int8 names 4 precisions of gemm; accepted"),
        (["gemm", "--dtype", "fp32,bf16"], 2, "one of fp32, bf16"),
        (["gemm", "--trials", "0"], 2, "0 trials were asked for"),
        (["gemm", "--backend", "reference"], 2, "backend reference does not address cpu"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *arguments]) == code
    assert sentence in capsys.readouterr().err
