"""gemm in Triton, interpreted, against float64: every precision, tails, empties, any strides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import Refused, Unavailable, UsageError
from tilewright.kernels.gemm import triton as gemm
from tilewright.registry import family
from tilewright.targets import target

CONFIG = {"tile_m": 32, "tile_n": 32, "tile_k": 32, "num_warps": 4, "num_stages": 2, "group_m": 8}
DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.int8,
    "int32": torch.int32,
}
# Relative error of the whole output: one rounding of the output type, plus fp32 accumulation.
TOLERANCE = {"fp32": 1e-6, "bf16": 2.0**-8, "fp16": 2.0**-11, "int32": 0.0}
PRECISIONS = tuple(gemm.PRECISIONS)
FLOAT_PRECISIONS = ("fp32", "bf16", "fp16")


def make(
    precision: str, m: int, n: int, k: int, *, bias: bool, scale: str = "row_col", seed: int = 0
) -> dict[str, torch.Tensor | None]:
    """Logical inputs (b as [K, N]) and a poisoned output."""
    operand, addend, output = (DTYPES[name] for name in gemm.PRECISIONS[precision])
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        if dtype.is_floating_point:
            return torch.randn(*shape, generator=g).to(dtype)
        return torch.randint(-128, 128, shape, generator=g).to(dtype)

    scaled = precision.startswith("int8->") and output is not torch.int32
    poison = float("nan") if output.is_floating_point else -77
    return {
        "a": draw(m, k, dtype=operand),
        "b": draw(k, n, dtype=operand),
        "bias": draw(n, dtype=addend) if bias else None,
        "row_scale": torch.rand(m, generator=g) * 0.1 if scaled and scale == "row_col" else None,
        "col_scale": torch.rand(n, generator=g) * 0.1 if scaled else None,
        "c": torch.full((m, n), poison, dtype=output),
    }


def reference(t: dict[str, Any]) -> torch.Tensor:
    result = t["a"].double() @ t["b"].double()
    if t["row_scale"] is not None:
        result = result * t["row_scale"].double()[:, None]
    if t["col_scale"] is not None:
        result = result * t["col_scale"].double()[None, :]
    return result if t["bias"] is None else result + t["bias"].double()


def run(t: dict[str, Any], layout: str = "KN", config: dict[str, int] | None = None) -> None:
    physical = {**t, "b": t["b"] if layout == "KN" else t["b"].t()}
    gemm.launch(physical, {"b_layout": layout}, config or CONFIG, interpret=True)


def assert_right(t: dict[str, Any], precision: str) -> None:
    want, got = reference(t), t["c"].double()
    assert torch.isfinite(got).all()
    error = (
        (got - want).norm() / max(want.norm().item(), 1e-30) if want.numel() else torch.zeros(())
    )
    assert error.item() <= TOLERANCE[gemm.PRECISIONS[precision][2]]


@pytest.mark.parametrize("layout", ["KN", "NK"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(32, 32, 32), (33, 17, 63), (1, 65, 7), (70, 1, 1), (5, 3, 0), (0, 4, 3), (4, 0, 3)],
)
def test_every_precision_against_float64(
    precision: str, layout: str, m: int, n: int, k: int
) -> None:
    t = make(precision, m, n, k, bias=(m + n) % 2 == 0, seed=m * 1000 + n)
    run(t, layout)
    assert_right(t, precision)


@pytest.mark.parametrize("precision", ["int8->fp32", "int8->bf16", "int8->fp16"])
def test_per_column_scale_alone(precision: str) -> None:
    t = make(precision, 9, 40, 50, bias=True, scale="col")
    run(t)
    assert_right(t, precision)


def test_k_zero_gives_the_bias_exactly() -> None:
    t = make("fp16", 3, 37, 0, bias=True)
    run(t)
    assert torch.equal(t["c"], t["bias"].expand(3, 37))


@given(
    m=st.integers(0, 40),
    n=st.integers(0, 300),
    k=st.integers(0, 300),
    split=st.sampled_from((2, 4, 8)),
    precision=st.sampled_from(PRECISIONS),
    bias=st.booleans(),
    scale=st.sampled_from(("row_col", "col")),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_parts_of_k_are_added_to_the_same_sums(
    m: int, n: int, k: int, split: int, precision: str, bias: bool, scale: str
) -> None:
    """Also where there are fewer steps of K than parts; each element comes from the same parts on every call."""
    t = make(precision, m, n, k, bias=bias, scale=scale, seed=m + 41 * n)
    run(t, config={**CONFIG, "split_k": split})
    assert_right(t, precision)
    again = make(precision, m, n, k, bias=bias, scale=scale, seed=m + 41 * n)
    run(again, config={**CONFIG, "split_k": split})
    assert torch.equal(t["c"], again["c"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_with_batch_invariant_rows_keep_their_bits_whatever_config_is_given(precision: str) -> None:
    """Tables of tuned configs may choose by M; the tile, and with it the order of sums, stays."""
    few, many = (
        {**CONFIG, "tile_m": m, "tile_k": k, "split_k": s} for m, k, s in ((16, 64, 4), (64, 32, 1))
    )
    flags = {"b_layout": "KN", "batch_invariant": "yes"}
    t = make(precision, 33, 70, 300, bias=True)
    gemm.launch(t, flags, many, interpret=True)
    assert_right(t, precision)
    for rows in (slice(0, 1), slice(20, 33)):
        some: dict[str, Any] = dict(t)
        some |= {n: t[n][rows] for n in ("a", "row_scale") if t[n] is not None}
        some["c"] = torch.zeros_like(t["c"][rows])
        gemm.launch(some, flags, few, interpret=True)
        assert torch.equal(some["c"], t["c"][rows])
    spec = family("gemm").spec
    for kind in ("cuda:sm_90", "hip:gfx942"):
        case = spec.case({"M": 9, "N": 70, "K": 300}, precision, {"batch_invariant": "yes"})
        chosen = spec.config_for(case, target(kind))
        assert {n: chosen[n] for n in gemm.INVARIANT} == gemm.INVARIANT, "what is said is what runs"


@given(
    m=st.integers(1, 40),
    n=st.integers(1, 40),
    k=st.integers(1, 70),
    steps=st.tuples(*[st.integers(1, 3)] * 6),
    turned=st.tuples(*[st.booleans()] * 3),
    precision=st.sampled_from(PRECISIONS),
    tiles=st.tuples(st.sampled_from([16, 32]), st.sampled_from([16, 64]), st.integers(1, 4)),
)
@settings(max_examples=30, deadline=None)
def test_any_strides_and_nothing_else_written(
    m: int,
    n: int,
    k: int,
    steps: tuple[int, ...],
    turned: tuple[bool, ...],
    precision: str,
    tiles: tuple[int, int, int],
) -> None:
    t = make(precision, m, n, k, bias=True, seed=m + 41 * n)
    homes = {}
    for place, name in enumerate(("a", "b", "c")):
        homes[name], t[name] = embed(t[name], steps[2 * place : 2 * place + 2], turned[place])
    t["bias"] = embed(t["bias"][None], (1, 2), False)[1][0]
    before = homes["c"].clone()
    run(t, config={**CONFIG, "tile_m": tiles[0], "tile_n": tiles[1], "group_m": tiles[2]})
    assert_right(t, precision)
    after, changed = homes["c"].clone(), torch.zeros_like(homes["c"], dtype=torch.bool)
    view = torch.as_strided(changed, t["c"].shape, t["c"].stride(), t["c"].storage_offset())
    view.fill_(True)
    outside = ~changed
    assert torch.equal(after[outside].nan_to_num(7), before[outside].nan_to_num(7))


def embed(
    tensor: torch.Tensor, steps: tuple[int, ...], turned: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same values as a strided view into a larger storage full of poison, and that storage."""
    rows, cols = tensor.shape
    poison = float("nan") if tensor.dtype.is_floating_point else 99
    shape = (cols * steps[1] + 2, rows * steps[0] + 3)
    home = torch.full(shape if turned else shape[::-1], poison, dtype=tensor.dtype)
    grid = home.t() if turned else home
    view = grid[1 : 1 + rows * steps[0] : steps[0], 1 : 1 + cols * steps[1] : steps[1]]
    view.copy_(tensor)
    return home, view


def test_bf16_output_is_rounded_to_nearest_even() -> None:
    t = make("int8->bf16", 33, 40, 96, bias=True)
    run(t)
    exact = (t["a"].int() @ t["b"].int()).float()
    want = exact * t["row_scale"][:, None] * t["col_scale"][None, :] + t["bias"]
    assert torch.equal(t["c"], want.bfloat16())
    truncated = (want.view(torch.int32) & -65536).view(torch.float32).bfloat16()
    assert not torch.equal(t["c"], truncated)


def test_int8_accumulation_is_exact_at_the_extremes() -> None:
    a = torch.full((1, 4096), -128, dtype=torch.int8)
    t = {"a": a, "b": a.t().contiguous(), "c": torch.zeros(1, 1, dtype=torch.int32)}
    gemm.launch(t, {"b_layout": "KN"}, {**CONFIG, "tile_k": 128}, interpret=True)
    assert t["c"].item() == 4096 * 128 * 128


def test_refusals_name_what_is_taken() -> None:
    t = make("fp16", 4, 4, 4, bias=False)
    with pytest.raises(Refused, match="panel16 is the packed layout of the host kernel"):
        gemm.launch(t, {"b_layout": "panel16"}, CONFIG, interpret=True)
    with pytest.raises(UsageError, match="unknown b_layout 'XY'; accepted: KN, NK"):
        gemm.launch(t, {"b_layout": "XY"}, CONFIG, interpret=True)
    with pytest.raises(Refused, match="takes split_k from 1 to 16, not 0"):
        gemm.launch(t, {}, {**CONFIG, "split_k": 0}, interpret=True)
    with pytest.raises(Refused, match="powers of two for tile_n, not 48"):
        gemm.launch(t, {}, {**CONFIG, "tile_n": 48}, interpret=True)
    with pytest.raises(Refused, match="needs tensor 'b'"):
        gemm.launch({"a": t["a"], "c": t["c"]}, {}, CONFIG, interpret=True)
    with pytest.raises(Refused, match="tile_k >= 32 for int8"):
        t8 = make("int8->int32", 4, 4, 4, bias=False)
        gemm.launch(t8, {}, {**CONFIG, "tile_k": 16}, interpret=True)


def test_compiled_launch_on_cpu_tensors_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="needs tensors on a GPU"):
        gemm.launch(make("fp16", 4, 4, 4, bias=False), {}, CONFIG, interpret=False)
