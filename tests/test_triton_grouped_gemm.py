"""grouped_gemm in Triton, interpreted, against its reference: any groups, and ends that no one has looked at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright.aot import compile_config
from tilewright.errors import Refused, UsageError
from tilewright.inputs import draw
from tilewright.kernels.grouped_gemm import reference
from tilewright.kernels.grouped_gemm import triton as grouped
from tilewright.numerics import compare
from tilewright.registry import family
from tilewright.targets import target

PRECISIONS = tuple(grouped.PRECISIONS)
CONFIG = {"tile_m": 16, "tile_n": 32, "tile_k": 32, "num_warps": 4, "num_stages": 2, "group_m": 4}
Tensors = dict[str, torch.Tensor | None]


def operands(
    counts: list[int], rest: int, n: int, k: int, precision: str, bias: str, seed: int = 0
) -> tuple[Any, Tensors]:
    spec = family("grouped_gemm").spec
    rows = sum(counts) + rest
    sizes = {"T": rows, "E": len(counts), "N": n, "K": k}
    case = spec.case(sizes, precision, {"bias": bias})
    tensors = dict(draw(family("grouped_gemm"), case, seed).logical)
    tensors["ends"] = torch.tensor(counts, dtype=torch.int64).cumsum(0).int()
    dtype = spec.dtype_of(spec.outputs[0], case).torch()
    poison = float("nan") if dtype.is_floating_point else -77
    return case, {**tensors, "c": torch.full((rows, n), poison, dtype=dtype)}


def run(tensors: Tensors, config: dict[str, int] | None = None) -> torch.Tensor:
    grouped.launch(tensors, {"b_layout": "NK"}, config or CONFIG, interpret=True)
    c = tensors["c"]
    assert c is not None
    return c


@settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    counts=st.lists(st.integers(0, 40), max_size=6),
    rest=st.integers(0, 20),
    n=st.integers(0, 70),
    k=st.integers(0, 70),
    precision=st.sampled_from(PRECISIONS),
    bias=st.sampled_from(("no", "yes")),
    group_m=st.sampled_from((1, 4, 8)),
)
def test_any_groups(
    counts: list[int], rest: int, n: int, k: int, precision: str, bias: str, group_m: int
) -> None:
    case, tensors = operands(counts, rest, n, k, precision, bias, seed=n + 71 * k)
    c = run(tensors, {**CONFIG, "group_m": group_m})
    want = reference.grouped_gemm(**{name: v for name, v in tensors.items() if name != "c"})
    found = compare(c, want, family("grouped_gemm").spec.tolerance_of("c", case))
    assert found.ok, found.reason


def test_more_experts_than_are_looked_at_in_one_step() -> None:
    counts = [1 if e in (0, 127, 128, 129, 255, 299) else 0 for e in range(300)]
    case, tensors = operands(counts, 2, 17, 20, "fp32", "yes")
    want = reference.grouped_gemm(**{name: v for name, v in tensors.items() if name != "c"})
    found = compare(run(tensors), want, family("grouped_gemm").spec.tolerance_of("c", case))
    assert found.ok, found.reason


@settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    ends=st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 30), min_size=3, max_size=3)
)
def test_ends_that_break_the_rules_on_a_device_leave_memory_alone(ends: list[int]) -> None:
    """The interpreter finds any access outside the tensors; what is computed is nobody's business."""
    _, tensors = operands([5, 6, 7], 2, 33, 40, "fp32", "yes")
    tensors["ends"] = torch.tensor(ends, dtype=torch.int64).int()
    looked_at = grouped._check_ends
    try:
        grouped._check_ends = lambda ends, rows: None  # type: ignore[assignment]
        run(tensors)
    finally:
        grouped._check_ends = looked_at


def test_refusals_name_what_is_taken() -> None:
    _, tensors = operands([2, 2], 0, 8, 8, "fp16", "no")
    for ends, sentence in (
        ([3, 2], r"ends\[1\] is 2; accepted: 3 to 4"),
        ([0, 5], r"ends\[1\] is 5; accepted: 0 to 4"),
        ([-1, 2], r"ends\[0\] is -1"),
    ):
        with pytest.raises(Refused, match=sentence):
            run({**tensors, "ends": torch.tensor(ends, dtype=torch.int32)})
    with pytest.raises(Refused, match="panel16 is the packed layout of the host kernel"):
        grouped.launch(tensors, {"b_layout": "panel16"}, CONFIG, interpret=True)
    with pytest.raises(UsageError, match="unknown b_layout 'KN'"):
        grouped.launch(tensors, {"b_layout": "KN"}, CONFIG, interpret=True)
    with pytest.raises(Refused, match="powers of two for tile_n, not 48"):
        run(tensors, {**CONFIG, "tile_n": 48})
    with pytest.raises(Refused, match="tile_k >= 32 for int8"):
        run(operands([2], 0, 8, 8, "int8->int32", "no")[1], {**CONFIG, "tile_k": 16})
    with pytest.raises(Refused, match="needs tensor 'ends'"):
        run({**tensors, "ends": None})
    with pytest.raises(UsageError, match="unknown precision of triton grouped_gemm 'int4'"):
        grouped.aot("int4", {}, CONFIG, "cuda:sm_90")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_with_batch_invariant_rows_keep_their_bits_whatever_config_is_given(precision: str) -> None:
    """Alone, or in another place among other groups, by configs of other tables: the bits of a row stay."""
    few, many = ({**CONFIG, "tile_m": m, "tile_k": k} for m, k in ((16, 64), (64, 32)))
    flags = {"b_layout": "NK", "batch_invariant": "yes"}
    case, tensors = operands([9, 0, 30, 7], 3, 70, 300, precision, "yes")
    grouped.launch(tensors, flags, many, interpret=True)
    c = tensors["c"]
    want = reference.grouped_gemm(**{name: v for name, v in tensors.items() if name != "c"})
    spec = family("grouped_gemm").spec
    assert c is not None and compare(c, want, spec.tolerance_of("c", case)).ok
    # Of every group some rows: one of the first, the last ones of the third, none of the fourth; all of the third.
    for counts, rows in (([1, 0, 4, 0], [4, *range(35, 39)]), ([0, 0, 30, 0], [*range(9, 39)])):
        some = {n: v[rows] if v is not None and n in ("a", "row_scale") else v
                for n, v in tensors.items()}  # fmt: skip
        some["ends"] = torch.tensor(counts).cumsum(0).int()
        some["c"] = torch.zeros_like(c[rows])
        grouped.launch(some, flags, few, interpret=True)
        assert torch.equal(some["c"].view(torch.uint8), c[rows].view(torch.uint8))
    for kind in ("cuda:sm_90", "hip:gfx942"):
        asked = spec.case(
            {"T": 9, "E": 4, "N": 70, "K": 300}, precision, {"batch_invariant": "yes"}
        )
        chosen = spec.config_for(asked, target(kind))
        fixed = {n: v for n, v in grouped.INVARIANT.items() if n in chosen}
        assert {n: chosen[n] for n in fixed} == fixed, "what is said is what runs"


@pytest.mark.parametrize("rows", [1, 64, 4096])
def test_tiles_from_the_sizes_are_legal_and_spill_nothing(rows: int) -> None:
    spec = family("grouped_gemm").spec
    for where in ("cuda:sm_80", "hip:gfx942"):
        for precision in PRECISIONS:
            case = spec.case({"T": rows, "E": 8, "N": 1536, "K": 576}, precision)
            config = spec.config_for(case, target(where))
            space = spec.space_for(target(where))
            assert space is not None and config != spec.default_config(target(where))
            assert all(value in space.fields[name] for name, value in config.items())
        case = spec.case({"T": rows, "E": 8, "N": 1536, "K": 576}, "bf16")
        config = spec.config_for(case, target(where))
        built = compile_config(grouped, "bf16", {"b_layout": "NK"}, config, where)
        assert built.ok and built.spill_bytes == 0
