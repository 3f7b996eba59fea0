"""The AscendC gemm on the twin: values against float64 for any shape, layout, pitch and config."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
from twin_build import host, runner
from twin_cases import Config, check, from_bf16, make, run, to_bf16

SCALED = ("int8->fp32", "int8->bf16", "int8->fp16")
KINDS = [
    (precision, b_layout, bias)
    for precision in host.PRECISIONS
    for b_layout in host.B_LAYOUTS
    for bias in (False, True)
    if not host.refusal(precision, b_layout=b_layout, bias=bias, col_scale=precision in SCALED)
]


@pytest.mark.parametrize(("precision", "b_layout", "bias"), KINDS)
def test_tails_of_the_default_config(precision: str, b_layout: str, bias: bool) -> None:
    for m, n, k in (
        (1, 1, 1),
        (1, 577, 63),
        (33, 45, 70),
        (16, 16, 5),
        (65, 31, 129),
        (32, 32, 32),
    ):
        rows = precision in SCALED and k % 2 == 0
        case = make(m, n, k, precision, b_layout, bias=bias, row_scale=rows, extra=k % 3)
        check(case, precision, b_layout)


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
    rows = precision in SCALED and n % 2 == 0
    case = make(
        m, n, k, precision, b_layout, bias=bias, row_scale=rows, extra=extra, seed=m + n + k
    )
    reasons = host.illegal(precision, b_layout, config, bias=bias, row_scale=rows)
    if reasons:
        with pytest.raises(ValueError, match=r"take \d+ bytes"):
            run(case, precision, b_layout, config)
    else:
        check(case, precision, b_layout, config)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 100),
    st.integers(1, 200),
    st.integers(1, 300),
    st.sampled_from(KINDS),
    configs(),
    st.integers(0, 10**6),
)
def test_any_order_that_its_flags_permit_gives_the_same_bits(
    m: int, n: int, k: int, kind: tuple[str, str, bool], config: Config, seed: int
) -> None:
    precision, b_layout, bias = kind
    rows = precision in SCALED and k % 2 == 0
    assume(not host.illegal(precision, b_layout, config, bias=bias, row_scale=rows))
    plain, shuffled = (
        make(m, n, k, precision, b_layout, bias=bias, row_scale=rows, seed=seed) for _ in range(2)
    )
    check(plain, precision, b_layout, config)
    with runner.running(runner.How("random", seed)):
        check(shuffled, precision, b_layout, config)
    assert plain.out.tobytes() == shuffled.out.tobytes()


@pytest.mark.parametrize("unit_flag", [0, 1])
@pytest.mark.parametrize("schedule", ["program", "timeline", "random"])
def test_a_tile_waits_in_l0c_until_its_slot_of_the_ring_is_read(
    unit_flag: int, schedule: str
) -> None:
    config = Config(tile_m=16, grid_m=1, grid_n=1, unit_flag=unit_flag)
    case = make(161, 40, 32, "int8->bf16", "NK", bias=True, row_scale=True)
    with runner.running(runner.How(schedule, 5)):
        check(case, "int8->bf16", "NK", config)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8->bf16"])
def test_the_bits_of_a_row_do_not_follow_from_how_many_there_are(precision: str) -> None:
    scaled = precision in SCALED
    case = make(37, 50, 300, precision, "NK", bias=True, row_scale=scaled)
    for rows in (slice(0, 37), slice(0, 1), slice(36, 37), slice(5, 22)):
        out = np.zeros_like(case.out[rows])
        given = {n: v[rows] if n in ("a", "row_scale") else v for n, v in case.inputs.items()}
        result = host.launch(
            given, out, precision, b_layout="NK", invariant=True, lib_path=twin_build.twin()
        )
        assert result.ok, "\n".join(map(str, result.findings))
        if rows == slice(0, 37):
            whole = out
        assert out.tobytes() == whole[rows].tobytes()


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


@pytest.mark.parametrize("precision", SCALED)
def test_empty_k_of_a_scaled_gemm_leaves_the_bias(precision: str) -> None:
    case = make(5, 7, 0, precision, "NK", bias=True, row_scale=True)
    case.inputs["bias"][:3] = 1.00390625, -1e30, np.nan
    assert run(case, precision, "NK").blocks == 0
    got = from_bf16(case.out) if precision == "int8->bf16" else case.out
    torch = pytest.importorskip("torch")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision[6:]]
    want = torch.from_numpy(case.inputs["bias"]).to(dtype).float().numpy()
    np.testing.assert_array_equal(got.astype(np.float32), np.broadcast_to(want, (5, 7)))


@pytest.mark.parametrize("k", [0, 40])
@pytest.mark.parametrize("precision", SCALED)
def test_a_bias_of_a_scaled_gemm_may_be_bf16(precision: str, k: int) -> None:
    case = make(5, 24, k, precision, "NK", bias=True, row_scale=True)
    rounded = to_bf16(case.inputs["bias"])
    case.inputs["bias"] = from_bf16(rounded)
    assert run(case, precision, "NK").ok
    want = case.out.copy()
    case.inputs["bias"] = rounded
    assert run(case, precision, "NK").ok
    np.testing.assert_array_equal(case.out, want)


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
    assert host.refusal("int8->fp16", row_scale=True, col_scale=True) is None
    assert "needs col_scale" in str(host.refusal("int8->bf16", row_scale=True))
    assert "takes no row_scale" in str(host.refusal("bf16", row_scale=True))
    assert "host format" in str(host.refusal("fp16", b_layout="panel16"))
    assert host.refusal("int8->fp16", bias=True, col_scale=True) is None
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
