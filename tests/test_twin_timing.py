"""The cycle model: pipes, queues, flags, banks, cores that share memory; what it prints and draws."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import CommandLine
from tilewright.ascendc.bench import launches
from tilewright.ascendc.bench.variants import Row
from tilewright.ascendc.ops.gemm import planning
from tilewright.ascendc.twin import model
from tilewright.ascendc.twin.bounds import bound

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
from twin_build import runner

MISS, LATENCY, FIXED = 32.0, 190.0, 23.0  # bytes a cycle from HBM, cycles of a copy and of pipe V


def predict(
    kernel: str, *args: int | runner.Buffer, source: str = "twin_timing.cpp", **options: object
) -> model.Prediction:
    given_args = [
        a if isinstance(a, runner.Buffer) else runner.Scalar(f"a{i}", a) for i, a in enumerate(args)
    ]
    launch = model.Launch(kernel, 1, given_args, library=twin_build.kernels(source))
    return model.predict_launch(twin_build.twin(), replace(launch, **options))  # type: ignore[arg-type]


def gm(name: str, nbytes: int = 1 << 20) -> runner.Buffer:
    return runner.Buffer.unbacked(name, nbytes)


def inside(p: model.Prediction) -> float:
    """Cycles from the first instruction to the last result."""
    return (p.predicted_us - p.overhead_us) * p.clock_ghz * 1e3


def gemm(
    m: int, n: int, k: int, config: planning.Config, *, every_block: bool = False
) -> model.Launch:
    part = planning.find("910b1")
    dims = planning.Dims(m, n, k)
    grid = (
        (config.grid_m, config.grid_n)
        if config.grid_m
        else planning.choose_grid(dims, config, part)
    )
    ready = planning.plan(dims, "fp16", "KN", config)
    buffers = [
        gm("a", 2 * m * k),
        gm("b", 2 * n * k),
        gm("bias", 0),
        gm("scale", 0),
        gm("c", 2 * m * n),
    ]
    blocks = {} if every_block else planning.representatives(dims, config, grid)
    return model.Launch(
        ready.kernel,
        ready.block_dim,
        [*buffers, runner.Buffer("workspace", 0, 0)],
        ready.tiling,
        blocks,
    )


def test_a_wait_may_come_before_what_it_waits_for() -> None:
    count = 4096
    p = predict("waits_first", gm("x"), gm("y"), count)
    assert p.unresolved == 0
    copied = LATENCY + 2 * count / MISS
    worked = 2 * count / 256 + FIXED
    assert inside(p) == pytest.approx(copied + worked, rel=0.1)


def test_a_chain_of_pipes_costs_the_sum_of_its_links() -> None:
    one, ten = (predict("in_a_row", gm("x"), gm("y"), 4096, times) for times in (1, 10))
    assert inside(one) > LATENCY + 8192 / MISS + 8192 / 256 + FIXED
    # After the first copy the input lies in L2.
    assert 5 * inside(one) < inside(ten) < 10 * inside(one)
    path = {(s.pipe, s.op) for s in ten.critical_path}
    assert {("MTE2", "Copy"), ("V", "Muls"), ("MTE3", "Copy")} <= path
    assert sum(s.cycles for s in ten.critical_path) == pytest.approx(inside(ten), rel=0.02)
    places = {s.line for s in ten.critical_path if s.pipe != "S"}
    assert len(places) == 3 and all(s.file.endswith("twin_timing.cpp") for s in ten.critical_path)


def test_a_full_queue_holds_the_scalar_unit() -> None:
    few, more = (predict("many", 100, times) for times in (32, 320))
    for p, times in ((few, 32), (more, 320)):
        assert p.pipes["v"] == pytest.approx(times * (100 + FIXED), rel=0.01)
        assert inside(p) == pytest.approx(p.pipes["v"], rel=0.02)
    assert more.bound_by == "v"


def test_what_nobody_sets_stays_unresolved() -> None:
    assert predict("waits_forever").unresolved == 1


def test_flags_between_cores_carry_their_time() -> None:
    def run(rounds: int) -> model.Prediction:
        buffers = [gm("x", 512), gm("work", 1024), gm("y", 1024)]
        return predict("cube_to_vector", *buffers, rounds, 1, source="twin_mixed.cpp")

    one, five = run(1), run(5)
    assert one.unresolved == 0 and five.unresolved == 0
    assert set(one.kinds) == {"aic", "aiv"} and one.kinds["aiv"]["cores"] == 2
    # The vector cores do their part after the cube core's, each round.
    cube = one.kinds["aic"]["busy"]
    assert inside(one) > cube["MTE2"] + cube["M"] + cube["FIX"]
    assert 3 * inside(one) < inside(five) < 6 * inside(one)


SCENARIOS = {  # asc-devkit's bank_conflict_ub: addresses of src0, src1, dst; beats of a repeat
    "no conflict": (0, 0x10100, 0x20000, 1.0),
    "reads in a bank": (0, 0x4000, 0x10000, 2.0),
    "reads in a group": (0, 0x10000, 0x14100, 2.0),
    "writes a repeat later": (0, 0x10100, 0x4000, 1.0),
    "writes meet reads": (0, 0x10100, 0x4020, 1.8),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_operands_in_the_same_banks_cost_beats(name: str) -> None:
    src0, src1, dst, beats = SCENARIOS[name]
    times = 10
    tiling = struct.pack("<7i", 4096, times, src0, src1, dst, 1, 8)
    p = model.predict_launch(twin_build.twin(), model.Launch("bench_add_in_ub", 1, [], tiling))
    filled = 2 * (64 + FIXED)  # the two Duplicates before
    assert p.pipes["v"] - filled == pytest.approx(times * (64 * beats + FIXED), rel=0.01)


def test_writes_of_a_repeat_in_one_group_queue_up() -> None:
    def spread(stride: int) -> model.Prediction:
        row = Row(
            {
                "op": "nd2nz_in_ub",
                "M": "8192",
                "N": "8192",
                "cores_aiv": "48",
                "variant": f"row stride {stride} elements",
            }
        )
        ((launch,),) = launches.plan(row).choices
        return model.predict_launch(twin_build.twin(), launch)

    tiles = 76  # of the average core
    together, apart = spread(144), spread(145)
    for p, beats in ((together, 8), (apart, 1)):
        # The last row of tiles has 128 of 144 rows.
        assert p.pipes["v"] == pytest.approx(tiles * (143.7 * beats + FIXED), rel=0.01)


def test_short_copies_cost_their_issue_and_unaligned_rows_their_lines() -> None:
    def copy(
        columns: int, tile: tuple[int, int], order: int = 0, passes: int = 1
    ) -> model.Prediction:
        tiling = struct.pack("<8i", 64, columns, *tile, passes, 1, order, 0)
        launch = model.Launch("bench_copy_gm_ub", 1, [gm("src", 128 * columns)], tiling)
        return model.predict_launch(twin_build.twin(), launch)

    short = copy(4096, (1, 64))
    assert short.pipes["mte2"] == pytest.approx(64 * 64 * 20.6 + LATENCY, rel=0.01)
    aligned, odd = copy(4096, (64, 256)), copy(4097, (64, 256))
    assert 1.5 < odd.pipes["mte2"] / aligned.pipes["mte2"] < 2.1
    # A second pass reads from L2, at most at its rate.
    twice = copy(4096, (64, 256), passes=2)
    assert 1.1 < twice.pipes["mte2"] / aligned.pipes["mte2"] < 1.8


def test_cores_share_hbm() -> None:
    def copy(cores: int) -> model.Prediction:
        tiling = struct.pack("<8i", 64 * cores, 8192, 64, 1024, 1, 1, 0, 0)
        launch = model.Launch(
            "bench_copy_gm_ub", cores, [gm("src", 128 * cores * 8192)], tiling, {0: cores}
        )
        return model.predict_launch(twin_build.twin(), launch)

    one, all_cores = copy(1), copy(48)
    assert one.hbm_slow == 1
    rate = 48 * 64 * 8192 * 2 / inside(all_cores) * all_cores.clock_ghz * 1e9
    assert all_cores.hbm_slow > 1 and rate == pytest.approx(1.52e12, rel=0.03)


BIG = planning.Config(tile_m=128, tile_n=256, tile_k=64, step_ka=4, step_kb=4)


def test_mmads_back_to_back_hide_their_latency() -> None:
    steps = 1024 // 64
    deep = planning.Config(tile_m=128, tile_n=256, tile_k=64, step_ka=4, step_kb=4, l1_buffers=2)
    serial = replace(deep, step_ka=1, step_kb=1, l1_buffers=1, l0_buffers=1)
    busy = {
        c: model.predict_launch(twin_build.twin(), gemm(128, 256, 1024, c)).pipes["m"]
        for c in (deep, serial)
    }
    assert busy[serial] == pytest.approx(steps * (512 + 63), rel=0.01)
    assert busy[deep] < busy[serial]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    m=st.integers(1, 1500),
    n=st.integers(1, 1500),
    k=st.integers(16, 700),
    tile=st.sampled_from([(64, 64, 64), (128, 256, 64), (128, 128, 128)]),
    step=st.sampled_from([1, 2]),
    split=st.sampled_from([1, 2]),
    unit=st.sampled_from([0, 1]),
)
def test_blocks_that_stand_for_others_say_the_same(
    m: int, n: int, k: int, tile: tuple[int, int, int], step: int, split: int, unit: int
) -> None:
    config = planning.Config(*tile, step, step, unit_flag=unit, l2_split_m=split)
    some, every = (
        model.predict_launch(twin_build.twin(), gemm(m, n, k, config, every_block=all_blocks))
        for all_blocks in (False, True)
    )
    assert some.blocks == every.blocks and some.records <= every.records
    # Rows and columns of other blocks start elsewhere, so their lines may differ a little.
    assert some.predicted_us == pytest.approx(every.predicted_us, rel=0.03)
    assert some.unresolved == 0 and some.findings == 0


@pytest.mark.parametrize("sizes", [(256, 512, 1024), (1000, 900, 300)])
@pytest.mark.parametrize("unit_flag", [0, 1])
def test_no_prediction_is_below_its_floor(sizes: tuple[int, int, int], unit_flag: int) -> None:
    config = replace(BIG, unit_flag=unit_flag)
    launch = gemm(*sizes, config, every_block=True)
    counted = runner.run(
        twin_build.twin(),
        launch.kernel,
        launch.block_dim,
        launch.buffers,
        launch.tiling,
        skip_data=True,
    )
    predicted = model.predict_launch(twin_build.twin(), launch)
    assert inside(predicted) >= bound(counted, 2, launch.block_dim).cycles


def test_more_cores_are_not_slower_and_faster_memory_is_faster() -> None:
    times = [
        model.predict_launch(
            twin_build.twin(), gemm(4096, 4096, 1024, replace(BIG, grid_m=g[0], grid_n=g[1]))
        ).predicted_us
        for g in ((1, 1), (2, 2), (4, 4), (4, 6))
    ]
    assert times == sorted(times, reverse=True)
    launch = gemm(4096, 4096, 1024, BIG)
    slow = model.predict_launch(twin_build.twin(), launch, constants={"mte2_l1_hit": 30})
    assert slow.predicted_us > 1.2 * model.predict_launch(twin_build.twin(), launch).predicted_us


def test_weights_in_fractals_give_the_same_products() -> None:
    rng = np.random.default_rng(7)
    for precision, dtype, out, c0 in (
        ("fp16", np.float16, np.float16, 16),
        ("int8->int32", np.int8, np.int32, 32),
        ("fp32", np.float32, np.float32, 8),
    ):
        for m, n, k in ((48, 96, 160), (33, 50, 75), (1, 64, 64)):
            a, b = (rng.integers(-3, 4, shape).astype(dtype) for shape in ((m, k), (k, n)))
            wide = np.zeros((k, -(-n // c0) * c0), dtype)
            wide[:, :n] = b
            fractals = np.ascontiguousarray(wide.reshape(k, -1, c0).transpose(1, 0, 2))
            c = np.zeros((m, n), out)
            config = planning.Config(tile_m=32, tile_n=64, tile_k=32, step_ka=2, step_kb=2)
            ready = planning.plan(planning.Dims(m, n, k), precision, planning.NZ, config)
            buffers = [
                runner.Buffer.of("a", a),
                runner.Buffer.of("b", fractals),
                gm("bias", 0),
                gm("scale", 0),
            ]
            buffers += [runner.Buffer.of("c", c), gm("workspace", 0)]
            ran = runner.run(
                twin_build.twin(), ready.kernel, ready.block_dim, buffers, ready.tiling
            )
            assert ran.ok, [str(f) for f in ran.findings]
            np.testing.assert_array_equal(
                c.astype(np.float64), a.astype(np.float64) @ b.astype(np.float64)
            )


def test_constants_have_sources_and_can_be_replaced_by_name_only() -> None:
    table = model.constants(twin_build.twin())
    assert len({c.name for c in table}) == len(table) > 30
    assert all(c.source and c.unit for c in table)
    launch = gemm(128, 128, 128, BIG)
    for wrong, words in (
        ({"mte9": 1.0}, "unknown constant 'mte9'"),
        ({"hbm_rate": -1.0}, "at least 0"),
    ):
        with pytest.raises(runner.TwinError, match=words):
            model.predict_launch(twin_build.twin(), launch, constants=wrong)
    with pytest.raises(runner.TwinError, match="block 99 is not one of"):
        model.predict_launch(twin_build.twin(), replace(launch, blocks={99: 1}))


def test_a_trace_has_a_track_a_pipe_and_arrows_that_meet(
    tilewright: CommandLine, tmp_path: Path
) -> None:
    file = tmp_path / "t.json"
    ran = tilewright(
        *("model", "gemm", "--dtype", "fp16", "--shape", "M=256,N=256,K=256", "--cores", "2"),
        *("--config", "baseline"),
        *("--trace", str(file), "--json", "-"),
    )
    assert ran.code == 0, ran.err
    (row,) = ran.document["rows"]
    assert row["evidence"] == "modelled" and row["validated_by"].startswith("nothing: ")
    assert row["msprof"]["aic_mac_ratio"] == pytest.approx(
        row["msprof"]["aic_mac_time(us)"] / row["msprof"]["aic_time(us)"]
    )
    events = json.loads(file.read_text())["traceEvents"]
    tracks = {(e["pid"], e["args"]["name"]) for e in events if e["name"] == "thread_name"}
    assert {name for _, name in tracks} == {"S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX"}
    bars = [e for e in events if e["ph"] == "X"]
    assert {e["name"] for e in bars} >= {
        "Nd2Nz",
        "Load2d",
        "Mmad",
        "Fixpipe",
        "SetFlag",
        "WaitFlag",
    }
    starts: dict[tuple[int, int], float] = {}
    for e in bars:
        assert e["dur"] >= 0 and e["ts"] >= starts.get((e["pid"], e["tid"]), 0.0)
        starts[e["pid"], e["tid"]] = e["ts"]
    opened = {e["id"]: e["ts"] for e in events if e["ph"] == "s"}
    closed = {e["id"]: e["ts"] for e in events if e["ph"] == "f"}
    assert closed and all(opened[i] <= ts for i, ts in closed.items())
    assert len(closed) >= len(opened) - 16


def test_a_trace_says_what_it_leaves_out(tmp_path: Path) -> None:
    file, launch = tmp_path / "t.json", gemm(256, 256, 256, BIG)
    whole = model.predict_launch(twin_build.twin(), launch, trace=file)
    assert whole.untraced == 0
    count = file.read_text().count('"ph": "X"')

    def some() -> runner.TwinResult:
        return runner.run(
            twin_build.twin(),
            launch.kernel,
            launch.block_dim,
            launch.buffers,
            launch.tiling,
            skip_data=True,
        )

    part = model.predict(twin_build.twin(), some, blocks=launch.blocks, trace=file, trace_events=10)
    shown = file.read_text().count('"ph": "X"')
    assert shown < count and part.untraced == count - shown
    assert 0 < part.path_cycles <= part.cycles


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture_of_the_timeline(tilewright: CommandLine, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / f"t.{kind}"
    ran = tilewright(
        "model", "gemm", "--dtype", "fp16", "--shape", "M=128,N=128,K=128", "--trace", str(file)
    )
    assert ran.code == 0, ran.err
    head = file.read_bytes()[:400]
    assert head.startswith(b"\x89PNG") if kind == "png" else b"svg" in head


def test_large_gemms_are_modelled_in_no_time() -> None:
    launch = gemm(8192, 8192, 8192, BIG)
    p = model.predict_launch(twin_build.twin(), launch)
    # All 262144 steps of 24 cores stand behind it, a twelfth of them issued.
    assert p.records < 400_000 and p.predicted_us > 3000
