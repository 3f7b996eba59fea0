"""The store is a reading of the studies; the command line lists, exports and imports; donors come closest first."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune_doubles import CostModel, cost, gemm_case
from conftest import ROOT
from store_doubles import key, record
from tilewright.autotune.sampling.pool import Pool
from tilewright.autotune.sharing.storage import open_url
from tilewright.autotune.store import measurements, reading
from tilewright.autotune.store.catalogue import related
from tilewright.autotune.store.donors import donors, octaves
from tilewright.autotune.store.record import Record
from tilewright.autotune.study import tune
from tilewright.autotune.trials import Stage, State
from tilewright.backends.host import Host
from tilewright.cli.main import main
from tilewright.evidence import Evidence
from tilewright.registry import family
from tilewright.space import Config, Space
from tilewright.targets import CPU

GEMM = family("gemm")
DEFAULT = GEMM.spec.default_config(CPU)
SCHEMA = json.loads((ROOT / "tests/data/t4/results-schema.json").read_text())


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))


def tuned(count: int = 6, **options: Any) -> Any:
    model = CostModel(wrong=(DEFAULT,))
    return tune(GEMM, gemm_case(), "cpu", count, objective=model, backend=Host(), **options)


@pytest.mark.parametrize("kind", ["journal:{}/s.journal", "sqlite:///{}/s.db"])
def test_every_trial_of_a_study_is_a_record(tmp_path: Path, kind: str) -> None:
    url = kind.format(tmp_path)
    result = tuned(storage=url)
    storage = open_url(url).storage
    optuna.create_study(storage=storage, study_name="somebody else's")
    (study,) = reading.studies(storage, "here")
    assert (study.name, study.key, study.running) == (result.study, result.key, 0)
    assert [r.config for r in study.records] == [r.config for r in result.rows]
    assert [r.value for r in study.records] == [r.value for r in result.rows]
    first = study.records[0]
    assert (first.state, first.stage) == (State.FAILED, Stage.CHECK) and first.reason
    assert first.evidence is Evidence.MODELLED and first.origin == "here" and first.when
    assert first.versions["compiler"] == "none" and first.versions["tilewright"]
    assert first.bucket == (8, 32, 16)
    best = study.best
    assert best and best.value == min(cost(r.config) for r in result.rows[1:])


def test_the_command_line_lists_exports_and_imports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tuned()
    assert main(["store", "list", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "tilewright/store/1"
    (row,) = document["rows"]
    assert (row["ok"], row["failed"], row["running"]) == (5, 1, 0)
    assert row["best"] == result.best.value and row["source_hash"] == result.key.source_hash
    assert main(["store", "list", "--records", "--json", str(tmp_path / "r.json")]) == 0
    listed = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [r["config"] for r in listed] == [dict(r.config) for r in result.rows]
    for form in ("t4", "kernel-tuner", "jsonl"):
        file = tmp_path / f"out.{form}"
        assert main(["store", "export", str(file), "--format", form]) == 0
        assert "6 configs in" in capsys.readouterr().out
        assert main(["store", "import", str(file)]) == 0
    jsonschema.validate(json.loads((tmp_path / "out.t4").read_text()), SCHEMA)
    # The same measurements in three formats are one measurement each.
    assert len(measurements.load().records) == 6
    assert main(["store", "list", "--family", "gemm"]) == 0
    assert "imported: out.t4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["list", "--study", "nonsense"], "'nonsense' is not a storage; accepted: journal:PATH"),
        (["export", "x.json", "--format", "xml"], "there are no finished configs to export"),
        (["import", "absent.json"], "absent.json cannot be read"),
        (["import", "absent.json", "--shape", "M"], "'M' in --shape is not NAME=INTEGER"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["store", *arguments]) in (2, 3)
    if arguments[-1] != "xml":
        assert sentence in capsys.readouterr().err


def test_what_may_be_a_donor_is_read_from_the_storage_and_the_imports(tmp_path: Path) -> None:
    url = f"journal:{tmp_path}/s.journal"
    first = tuned(4, storage=url)
    other = GEMM.spec.case({"M": 16, "N": 32, "K": 16}, "fp32")
    second = tune(
        GEMM, other, "cpu", 5, objective=CostModel(), backend=Host(), storage=url, store=False
    )
    measurements.append(
        [
            record(1.0, dict(first.rows[1].config), key=replace(first.key, device="another")),
            record(2.0, {"x": 1}, key=key(family="attention")),
        ]
    )
    found = related(open_url(url), first.key)
    assert len(found) == 6 and {r.key for r in found[:5]} == {second.key}
    pool = Pool.of(GEMM.spec, gemm_case(), CPU)
    close = donors(found, first.key, pool)
    assert [len(d.configs) for d in close] == [5, 1]
    assert pool.config(close[0].configs[0]) == second.best.config


SPACE = Space(tile_m=(16, 32, 64), tile_n=(16, 32, 64))
POOL = Pool.from_configs(SPACE, set(SPACE.points()), Config(tile_m=32, tile_n=32))
TILES = [(m, n) for m in (16, 32, 64) for n in (16, 32, 64)]


def measured(count: int, **about: Any) -> list[Record]:
    """A study whose configs get better along the list."""
    one = key(**about)
    return [
        record(float(100 - i), {"tile_m": m, "tile_n": n}, key=one, number=i)
        for i, (m, n) in enumerate(TILES[:count])
    ]


def test_donors_are_the_closest_first_and_ranked() -> None:
    own = key()
    studies = {
        "itself": measured(9),
        "near": measured(3, shape="M=128,N=64,K=64"),
        "far": measured(2, shape="M=1,N=64,K=64"),
        "other result": measured(2, precision="bf16->fp32"),
        "other operands": measured(2, precision="int8"),
        "other device": measured(4, device="cpu-b"),
        "other backend": measured(4, backend="triton"),
        "other family": measured(4, family="attention"),
        "other sizes": measured(4, shape="M=64"),
    }
    found = donors([r for s in studies.values() for r in s], own, POOL)
    order = ["near", "far", "other result", "other operands", "other device"]
    assert [d.name for d in found] == [studies[name][0].key.name for name in order]
    assert found[0].values == (98.0, 99.0, 100.0)
    assert [dict(POOL.config(i)) for i in found[0].configs] == [
        {"tile_m": 16, "tile_n": n} for n in (64, 32, 16)
    ]


def test_what_is_not_legal_here_failed_or_repeats_is_left_out() -> None:
    other = key(device="b")
    records = [
        record(3.0, {"tile_m": 16, "tile_n": 16}, key=other),
        record(1.0, {"tile_m": 16, "tile_n": 16}, key=other, number=1),
        record(0.1, {"tile_m": 16, "tile_n": 17}, key=other, number=2),
        record(0.1, {"tile_m": 16, "tile_n": 16, "stages": 2}, key=other, number=3),
        record(0.1, {"tile_m": 16, "tile_n": "16"}, key=other, number=4),
        record(None, {"tile_m": 32, "tile_n": 16}, key=other, number=5),
    ]
    (one,) = donors(records, key(), POOL)
    assert one.values == (1.0,) and dict(POOL.config(one.configs[0])) == {
        "tile_m": 16,
        "tile_n": 16,
    }
    assert donors(records[2:], key(), POOL) == ()


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.integers(0, 9)),
        max_size=8,
        unique=True,
    )
)
def test_donors_of_one_device_come_by_distance(drawn: list[tuple[int, str, int]]) -> None:
    records = [
        r
        for m, device, count in drawn
        for r in measured(count, shape=f"M={2**m},N=64,K=64", device=f"cpu-{device}")
    ]
    own = key()
    found = donors(records, own, POOL)
    keys = {r.key.name: r.key for r in records}
    ranks = [(keys[d.name].device != "cpu-a", octaves(keys[d.name], own)) for d in found]
    assert ranks == sorted(ranks)
    for donor in found:
        assert list(donor.values) == sorted(donor.values)
        assert len(set(donor.configs)) == len(donor.configs) > 0
    assert own.name not in {d.name for d in found}
