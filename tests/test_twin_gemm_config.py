"""Configs of the AscendC gemm: their limits, and that each field changes what is issued."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
from twin_build import host, runner, soc
from twin_cases import Config, check, make, run


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tile_m": 24}, "tile_m is 24"),
        ({"tile_m": 512, "tile_k": 128}, "l0a: 2 x A tile 512x128 take 262144 bytes, 65536"),
        ({"tile_n": 512, "tile_k": 64}, "l0b:"),
        ({"tile_m": 256, "tile_n": 256, "tile_k": 32}, "l0c:"),
        ({"step_ka": 300}, "l1:"),
        ({"grid_m": 5, "grid_n": 5}, "needs 25 cores, 910b1 has 24"),
        ({"grid_m": 2}, "both sides or neither"),
        ({"l1_buffers": 3}, "l1_buffers is 3"),
        ({"l2_split_m": 2**31 - 1}, "l2_split_m is 2147483647, allowed are 1..65535"),
        ({"tile_n": 512, "tile_k": 16, "tile_m": 16}, "bt: 512 bias values"),
    ],
)
def test_illegal_configs_name_the_limit(fields: dict[str, int], reason: str) -> None:
    reasons = host.illegal("fp16", "KN", Config(**fields), bias=True)
    assert any(reason in r for r in reasons), reasons


def test_a_scaled_tile_is_as_wide_as_vector_instructions_step() -> None:
    config = Config(tile_m=16, tile_n=2048, tile_k=32, l0_buffers=1)
    (why,) = host.illegal("int8->bf16", "NK", config, row_scale=True)
    assert why == "tile_n is 2048, vector cores scale at most 1024 columns"


@pytest.mark.parametrize("tile_m", [512, 1024])
def test_a_piece_of_a_high_tile_has_no_more_rows_than_an_instruction_repeats(tile_m: int) -> None:
    config = Config(tile_m=tile_m, tile_n=16, tile_k=32)
    case = make(tile_m + 5, 20, 40, "int8->bf16", "NK", bias=True, row_scale=True)
    check(case, "int8->bf16", "NK", config)


def counts(config: Config, m: int = 256, n: int = 256, k: int = 256) -> runner.TwinResult:
    return check(make(m, n, k, "fp16", "KN"), "fp16", "KN", config)


def test_config_fields_change_the_instruction_stream() -> None:
    base = counts(Config())
    tiles, steps = 64, 8
    assert base.count("Mmad") == tiles * steps and base.count("Fixpipe") == tiles
    assert base.count("Nd2Nz") == 2 * tiles * steps
    assert base.macs == 256**3

    assert counts(Config(tile_m=64)).count("Mmad") == tiles * steps // 2
    assert counts(Config(tile_k=64)).count("Mmad") == tiles * steps // 2
    assert counts(Config(step_ka=4)).count("Nd2Nz") == tiles * steps + tiles * steps // 4
    assert counts(Config(step_kb=8)).count("Nd2Nz") == tiles * steps + tiles
    single = counts(Config(l1_buffers=1))
    assert single.peak["l1"] * 2 == base.peak["l1"] and single.count("Nd2Nz") == base.count("Nd2Nz")
    assert counts(Config(l0_buffers=1)).peak["l0a"] * 2 == base.peak["l0a"]
    assert counts(Config(grid_m=2, grid_n=3)).blocks == 6
    flags = counts(Config(unit_flag=1))
    assert (
        flags.count("SetFlag", "M") == base.count("SetFlag", "M") - tiles
        and flags.count("WaitFlag", "FIX") == 0
    )
    assert flags.count("CubeOrder") == flags.blocks


def test_barrier_only_between_small_mmads() -> None:
    small = counts(Config())
    assert small.count("Barrier", "M") == small.count("Mmad") - small.count("Fixpipe")
    assert counts(Config(tile_m=64, tile_n=64)).count("Barrier") == 0  # 16 fractals


def trace(tmp_path: Path, config: Config, **shape: int) -> list[dict[str, Any]]:
    case = make(shape.get("m", 128), shape.get("n", 64), shape.get("k", 128), "fp16", "KN")
    result = run(case, "fp16", "KN", config, trace=tmp_path / "trace.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert len(rows) == sum(sum(ops.values()) for ops in result.counts.values())
    return rows


def test_double_buffering_loads_ahead(tmp_path: Path) -> None:
    def first_mmad_follows_loads(buffers: int) -> int:
        rows = trace(tmp_path, Config(l1_buffers=buffers, grid_m=1, grid_n=1))
        ops = [row["op"] for row in rows]
        return ops[: ops.index("Mmad")].count("Nd2Nz")

    assert first_mmad_follows_loads(1) == 2
    assert first_mmad_follows_loads(2) == 4


def test_l2_split_changes_the_order_of_tiles(tmp_path: Path) -> None:
    def rows_of_c(split: int) -> list[tuple[int, int]]:
        rows = trace(tmp_path, Config(grid_m=2, grid_n=1, l2_split_m=split), m=256)
        stores = [r for r in rows if r["op"] == "Fixpipe"]
        base = min(s["operands"][0]["base"] for s in stores)
        return [(s["block"], (s["operands"][0]["base"] - base) // (64 * 2 * 32)) for s in stores]

    whole, halves = rows_of_c(1), rows_of_c(2)
    assert {m for b, m in whole if b == 0} == {0, 1, 2, 3} and {m for b, m in halves if b == 0} == {
        0,
        1,
        4,
        5,
    }


def test_trace_rows_carry_operands_and_places(tmp_path: Path) -> None:
    rows = trace(tmp_path, Config())
    mmad = next(r for r in rows if r["op"] == "Mmad")
    assert mmad["pipe"] == "M" and mmad["params"]["m"] == 32
    assert [o["memory"] for o in mmad["operands"]] == ["l0c", "l0a", "l0b"]
    assert str(mmad["file"]).endswith("ops/gemm/gemm_cube.h")
    line = (
        (twin_build.ASCENDC / "ops/gemm/gemm_cube.h")
        .read_text()
        .splitlines()[int(mmad["line"]) - 1]
    )
    assert "Mmad(c, a2, b2, p)" in line
    load = next(r for r in rows if r["op"] == "Nd2Nz")
    assert load["operands"][1]["unit"] == 64 and load["operands"][1]["dims"] == [[32, 128]]
    assert load["operands"][0]["unit"] == 2048


def test_skipping_data_issues_the_same_instructions() -> None:
    plan = host.plan(host.Dims(256, 256, 256), "fp16")
    sizes = {"a": 131072, "b": 131072, "bias": 0, "scale": 0, "c": 131072, "workspace": 0}
    args = [runner.Buffer.unbacked(name, size) for name, size in sizes.items()]
    result = runner.run(
        twin_build.twin(), plan.kernel, plan.block_dim, args, plan.tiling, skip_data=True
    )
    assert result.ok and result.counts == counts(Config()).counts


@pytest.mark.parametrize(
    ("shape", "precision", "b_layout", "tiles"),
    [
        ((2**31 - 1, 1, 1), "fp16", "NK", {"tile_m": 2048, "tile_n": 16, "tile_k": 16}),
        ((1, 2**31 - 1, 1), "fp16", "KN", {"tile_m": 16, "tile_n": 2048, "tile_k": 16}),
        ((1, 1, 2**31 - 1), "int8->int32", "NK", {"tile_m": 16, "tile_n": 16, "tile_k": 4064}),
    ],
    ids=["M", "N", "K"],
)
def test_the_largest_sizes_that_are_planned_are_computed_whole(
    shape: tuple[int, int, int], precision: str, b_layout: str, tiles: dict[str, int]
) -> None:
    m, n, k = shape
    kind = host.PRECISIONS[precision]
    config = Config(**tiles, l1_buffers=1, l0_buffers=1)
    plan = host.plan(host.Dims(m, n, k), precision, b_layout, config)
    sizes = {"a": m * k * kind.input_bytes, "b": n * k * kind.input_bytes, "bias": 0, "scale": 0}
    args = [runner.Buffer.unbacked(name, size) for name, size in sizes.items()]
    args += [runner.Buffer.unbacked("c", m * n * kind.output_bytes), runner.Buffer("w", 0, 0)]
    result = runner.run(
        twin_build.twin(), plan.kernel, plan.block_dim, args, plan.tiling, skip_data=True
    )
    assert result.ok, [str(f) for f in result.findings]
    assert result.macs == 2**31 - 1
    assert result.count("Mmad") == -(-(2**31 - 1) // max(tiles.values()))
    with pytest.raises(ValueError, match=r"is 2147483648, allowed are 1..2147483647"):
        host.plan(host.Dims(m + 1, n + 1, k + 1), precision, b_layout, config)


def test_undersized_buffers_are_found() -> None:
    plan = host.plan(host.Dims(64, 64, 64), "fp16")
    data = {
        "a": np.zeros(64 * 64 - 1, np.float16),
        "b": np.zeros(4096, np.float16),
        "c": np.zeros(4096, np.float16),
    }
    args = [
        runner.Buffer.of(name, data.get(name))
        for name in ("a", "b", "bias", "scale", "c", "workspace")
    ]
    result = runner.run(twin_build.twin(), plan.kernel, plan.block_dim, args, plan.tiling)
    assert [(f.kind, f.memory) for f in result.findings] == [("out-of-bounds", "gm")]
    result = runner.run(twin_build.twin(), plan.kernel, plan.block_dim, args, plan.tiling[:-4])
    assert any("'tiling'" in f.message for f in result.findings)


def test_limits_agree_with_the_twins() -> None:
    for name, part in soc.SOCS.items():
        twin = runner.soc_parameters(twin_build.twin(), name)
        assert (twin["cube_cores"], twin["clock_mhz"]) == (part.cube_cores, part.clock_mhz)
        assert twin["bytes"] == {
            m: getattr(part, m) for m in ("l1", "l0a", "l0b", "l0c", "ub", "bt", "fb")
        }


def test_every_part_runs_within_its_cores() -> None:
    for name, part in soc.SOCS.items():
        result = check(make(300, 310, 64, "bf16", "NK"), "bf16", "NK", soc=name)
        assert result.soc == name and 1 < result.blocks <= part.cube_cores
