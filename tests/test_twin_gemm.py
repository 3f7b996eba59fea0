"""The AscendC gemm on the twin: values against float64 for any shape, layout, pitch and config."""

from __future__ import annotations

import dataclasses
import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
from twin_build import host, runner, soc

Config = host.Config
BIG = Config(tile_m=128, tile_n=256, tile_k=64, step_ka=4, step_kb=4)


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs, an output full of NaN (or -1) bytes with guard columns, and what must come out."""

    inputs: dict[str, np.ndarray]
    out: np.ndarray
    reference: np.ndarray  # float64; exact for integers and for int8->fp16
    bound: np.ndarray  # largest error allowed, elementwise


def to_bf16(x: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.uint32) << 16).view(np.float32)


def pitched(x: np.ndarray, extra: int) -> np.ndarray:
    """``x`` as the left part of rows ``extra`` elements longer, the rest all ones bits."""
    wide = np.full((x.shape[0], x.shape[1] + extra), 0, x.dtype)
    wide.view(np.uint8)[...] = 0xFF
    wide[:, : x.shape[1]] = x
    return wide[:, : x.shape[1]]


def make(
    m: int,
    n: int,
    k: int,
    precision: str,
    b_layout: str,
    *,
    bias: bool = False,
    extra: int = 0,
    seed: int = 0,
) -> Case:
    rng = np.random.default_rng(seed)
    kind = host.PRECISIONS[precision]
    inputs: dict[str, np.ndarray] = {}
    if kind.inputs == "int8":
        a, b = (rng.integers(-128, 128, s, dtype=np.int8) for s in ((m, k), (k, n)))
        exact_a, exact_b = a.astype(np.float64), b.astype(np.float64)
    else:
        a, b = (rng.standard_normal(s, dtype=np.float32) for s in ((m, k), (k, n)))
        if precision == "bf16":
            a, b = to_bf16(a), to_bf16(b)
            exact_a, exact_b = from_bf16(a).astype(np.float64), from_bf16(b).astype(np.float64)
        else:
            a, b = a.astype(kind.inputs), b.astype(kind.inputs)
            exact_a, exact_b = a.astype(np.float64), b.astype(np.float64)
    reference = exact_a @ exact_b
    # fp32 sums of k terms, each at most sum|a||b|, then one rounding to the output.
    magnitude = np.abs(exact_a) @ np.abs(exact_b)
    if bias and kind.acc == "int32":
        inputs["bias"] = rng.integers(-(10**6), 10**6, n).astype(np.int32)
        reference = reference + inputs["bias"]
    elif bias:
        values = rng.standard_normal(n).astype(np.float32)
        inputs["bias"] = to_bf16(values) if precision == "bf16" else values.astype(kind.output)
        widened = from_bf16(inputs["bias"]) if precision == "bf16" else inputs["bias"]
        reference = reference + widened.astype(np.float64)
        magnitude = magnitude + np.abs(widened)
    bound = np.zeros_like(reference)
    if precision == "int8->fp16":
        scale = ((rng.random(n) + 0.5) * 1e-3).astype(np.float32)
        inputs["col_scale"] = scale
        used = (scale.view(np.uint32) & ~np.uint32(0x1FFF)).view(np.float32)
        reference = (reference.astype(np.float32) * used).astype(np.float16).astype(np.float64)
    elif kind.acc == "float32":
        step = {"fp32": 0.0, "fp16": 2.0**-11, "bf16": 2.0**-8}[precision]
        bound = magnitude * (k + 2) * 2.0**-24 + np.abs(reference) * step + 1e-7
    inputs["a"] = pitched(a, extra)
    inputs["b"] = pitched(b if b_layout == "KN" else np.ascontiguousarray(b.T), 2 * extra)
    out = np.empty((m, n), kind.output)
    out.view(np.uint8)[...] = 0xFF
    return Case(inputs, pitched(out, 3 * extra), reference, bound)


def run(
    case: Case, precision: str, b_layout: str, config: object = None, **options: object
) -> runner.TwinResult:
    return host.launch(
        case.inputs,
        case.out,
        precision,
        b_layout=b_layout,
        config=config,
        lib_path=twin_build.twin(),
        **options,
    )


def check(
    case: Case, precision: str, b_layout: str, config: object = None, **options: object
) -> runner.TwinResult:
    result = run(case, precision, b_layout, config, **options)
    assert result.ok, "\n".join(map(str, result.findings))
    got = from_bf16(case.out) if precision == "bf16" else case.out
    worst = np.abs(got.astype(np.float64) - case.reference) - case.bound
    assert (worst <= 0).all(), (
        f"off by {worst.max()} at {np.unravel_index(np.argmax(worst), worst.shape)}"
    )
    if case.out.base is not None and case.out.base.shape != case.out.shape:
        assert (case.out.base[:, case.out.shape[1] :].view(np.uint8) == 0xFF).all(), (
            "wrote beside C"
        )
    return result


@pytest.mark.parametrize("b_layout", host.B_LAYOUTS)
@pytest.mark.parametrize("precision", host.PRECISIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_tails_of_the_default_config(precision: str, b_layout: str, bias: bool) -> None:
    if host.refusal(precision, b_layout=b_layout, bias=bias, col_scale=precision == "int8->fp16"):
        pytest.skip("refused, as test_refusals shows")
    for m, n, k in (
        (1, 1, 1),
        (1, 577, 63),
        (33, 45, 70),
        (16, 16, 5),
        (65, 31, 129),
        (32, 32, 32),
    ):
        check(make(m, n, k, precision, b_layout, bias=bias, extra=k % 3), precision, b_layout)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    def pick(*values: int) -> int:
        return draw(st.sampled_from(values))

    return Config(
        tile_m=pick(16, 32, 48, 128),
        tile_n=pick(32, 64, 96, 256),
        tile_k=pick(32, 64, 96),
        step_ka=pick(1, 2, 3),
        step_kb=pick(1, 2, 4),
        l1_buffers=pick(1, 2),
        l0_buffers=pick(1, 2),
        unit_flag=pick(0, 1),
        l2_split_m=pick(1, 2, 3),
        **draw(
            st.sampled_from(
                [
                    {},
                    {"grid_m": 1, "grid_n": 1},
                    {"grid_m": 3, "grid_n": 2},
                    {"grid_m": 2, "grid_n": 12},
                ]
            )
        ),
    )


@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    st.integers(1, 150),
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from(sorted(host.PRECISIONS)),
    st.sampled_from(host.B_LAYOUTS),
    st.booleans(),
    st.integers(0, 5),
    configs(),
)
def test_any_shape_under_any_legal_config(
    m: int, n: int, k: int, precision: str, b_layout: str, bias: bool, extra: int, config: Config
) -> None:
    bias = bias and precision != "int8->fp16"
    case = make(m, n, k, precision, b_layout, bias=bias, extra=extra, seed=m + n + k)
    reasons = host.illegal(precision, b_layout, config, bias=bias)
    if reasons:
        with pytest.raises(ValueError, match=r"take \d+ bytes"):
            run(case, precision, b_layout, config)
    else:
        check(case, precision, b_layout, config)


def test_default_is_32x32_double_buffered() -> None:
    assert (Config().tile_m, Config().tile_n, Config().tile_k) == (32, 32, 32)
    assert Config().l1_buffers == Config().l0_buffers == 2
    assert Config.of({"stages": 1}) == Config(l1_buffers=1, l0_buffers=1)
    with pytest.raises(ValueError, match="unknown config field 'num_warps'"):
        Config.of({"num_warps": 4})


def test_threads_grids_and_splits_give_the_same_bits() -> None:
    outputs = []
    for threads, config in (
        (1, Config()),
        (2, Config(grid_m=3, grid_n=4)),
        (2, Config(l2_split_m=3, unit_flag=1)),
    ):
        case = make(130, 200, 96, "fp16", "NK")
        check(case, "fp16", "NK", config, threads=threads)
        outputs.append(case.out.copy())
    assert (outputs[0] == outputs[1]).all() and (outputs[0] == outputs[2]).all()


def test_more_blocks_than_cores() -> None:
    case = make(200, 230, 64, "fp16", "KN")
    plan = host.plan(host.Dims(200, 230, 64), "fp16")
    words = list(struct.unpack(f"<{len(plan.tiling) // 4}i", plan.tiling))
    words[16:18] = 7, 6  # grid_m, grid_n: 42 blocks on 24 cores
    args = [runner.Buffer.of(name, case.inputs.get(name)) for name in ("a", "b", "bias", "scale")]
    args += [runner.Buffer.of("c", case.out), runner.Buffer("workspace", 0, 0)]
    result = runner.run(
        twin_build.twin(), plan.kernel, 42, args, struct.pack(f"<{len(words)}i", *words)
    )
    assert result.ok and result.blocks == 42
    assert (np.abs(case.out.astype(np.float64) - case.reference) <= case.bound).all()


def test_rows_longer_than_one_instruction_can_step() -> None:
    a = np.zeros((40, 70000), np.float16)
    rng = np.random.default_rng(1)
    a[:, :64] = rng.standard_normal((40, 64))
    b = rng.standard_normal((64, 48)).astype(np.float16)
    out = np.empty((40, 48), np.float16)
    result = host.launch({"a": a[:, :64], "b": b}, out, "fp16", lib_path=twin_build.twin())
    assert result.ok
    assert (
        result.count("Nd2Nz") == 40 * 2 * 2 + 2 * 2 * 2
    )  # a row each of A; two chunks a tile, four tiles
    np.testing.assert_allclose(
        out, a[:, :64].astype(np.float64) @ b.astype(np.float64), rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 0, 4)])
def test_empty_output_launches_nothing(shape: tuple[int, int, int]) -> None:
    case = make(*shape, "fp16", "KN")
    assert run(case, "fp16", "KN").blocks == 0


@pytest.mark.parametrize("bias", [False, True])
def test_empty_k_leaves_the_bias(bias: bool) -> None:
    case = make(5, 7, 0, "fp32", "NK", bias=bias)
    result = run(case, "fp32", "NK")
    assert result.ok and result.blocks == 0
    np.testing.assert_array_equal(
        case.out, np.broadcast_to(case.inputs.get("bias", np.float32(0)), (5, 7))
    )


def test_torch_tensors_and_bf16() -> None:
    torch = pytest.importorskip("torch")
    a, b = torch.randn(20, 40, dtype=torch.bfloat16), torch.randn(40, 24, dtype=torch.bfloat16)
    bias, c = (
        torch.randn(24, dtype=torch.bfloat16),
        torch.full((20, 24), float("nan"), dtype=torch.bfloat16),
    )
    assert host.launch({"a": a, "b": b, "bias": bias}, c, "bf16", lib_path=twin_build.twin()).ok
    want = a.double() @ b.double() + bias.double()
    assert torch.allclose(c.double(), want, rtol=2**-7, atol=1e-4)


def test_refusals() -> None:
    assert "per-row" in str(host.refusal("int8->fp16", row_scale=True, col_scale=True))
    assert "VDEQF16" in str(host.refusal("int8->bf16", col_scale=True))
    assert "host format" in str(host.refusal("fp16", b_layout="panel16"))
    assert "adds it before" in str(host.refusal("int8->fp16", bias=True, col_scale=True))
    assert "unknown" in str(host.refusal("fp8"))
    assert host.refusal("bf16", b_layout="NK", bias=True) is None
    case = make(8, 8, 8, "fp16", "KN")
    with pytest.raises(ValueError, match="column stride of 8"):
        host.launch(
            {"a": case.inputs["a"].T, "b": case.inputs["b"]},
            case.out,
            "fp16",
            lib_path=twin_build.twin(),
        )
    with pytest.raises(ValueError, match="do not fit together"):
        host.launch(
            {"a": case.inputs["a"][:, :4], "b": case.inputs["b"]},
            case.out,
            "fp16",
            lib_path=twin_build.twin(),
        )
    with pytest.raises(ValueError, match=r"col_scale\[2\] is inf"):
        host.vdeq_scales(np.array([1, 2, np.inf], np.float32))


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
        ({"tile_n": 512, "tile_k": 16, "tile_m": 16}, "bt: 512 bias values"),
    ],
)
def test_illegal_configs_name_the_limit(fields: dict[str, int], reason: str) -> None:
    reasons = host.illegal("fp16", "KN", Config(**fields), bias=True)
    assert any(reason in r for r in reasons), reasons


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
    assert str(mmad["file"]).endswith("ops/gemm/gemm.cpp")
    line = (
        (twin_build.ASCENDC / "ops/gemm/gemm.cpp").read_text().splitlines()[int(mmad["line"]) - 1]
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


def test_speed_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    case = make(1024, 1024, 1024, "fp16", "KN")
    for label, config in (("128x256x64", BIG), ("32x32x32", Config())):
        start = time.perf_counter()
        assert run(case, "fp16", "KN", config).ok
        seconds = time.perf_counter() - start
        with capsys.disabled():
            print(f"\n[twin] 1024^3 fp16 gemm, {label}: {seconds:.2f} s")
        assert seconds < 30
