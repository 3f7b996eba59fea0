"""gemm_w4 in Triton, interpreted, against dequantised weights; what its binaries hold, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright import check
from tilewright.aot import compile_config
from tilewright.backends import backend
from tilewright.errors import Refused, UsageError
from tilewright.inputs import draw
from tilewright.kernels.gemm_w4 import formats
from tilewright.kernels.gemm_w4 import triton as gemm_w4
from tilewright.kernels.gemm_w4.reference import dequantised
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

GPU = target("cuda:sm_80")
TARGETS = ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942")
PRECISIONS = tuple(gemm_w4.PRECISIONS)
DEFAULT: Mapping[str, int] = family("gemm_w4").spec.default_config(GPU)
Tensors = dict[str, torch.Tensor]


def case_of(m: int, n: int, k: int, precision: str, memory: str = "dense", **flags: str) -> Any:
    sizes = {"M": m, "N": n, "K": k, "G": -(-k // int(flags.get("group", "32")))}
    return family("gemm_w4").spec.case(sizes, precision, flags, memory)


def operands(case: Any, seed: int = 0) -> tuple[Tensors, Tensors]:
    """Logical and physical inputs of a case."""
    drawn = draw(family("gemm_w4"), case, seed)
    logical = {n: v for n, v in drawn.logical.items() if v is not None}
    return logical, {n: v for n, v in drawn.physical.items() if v is not None}


def multiply(case: Any, tensors: Tensors, **fields: int) -> torch.Tensor:
    """One interpreted launch; `fields` of the config that differ from the default."""
    spec = family("gemm_w4").spec
    dtype = spec.dtype_of(spec.outputs[0], case).torch()
    c = torch.full((tensors["a"].shape[0], case.sizes["N"]), math.nan, dtype=dtype)
    gemm_w4.launch({**tensors, "c": c}, case.flags, {**DEFAULT, **fields}, interpret=True)
    return c


@settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    m=st.integers(0, 20),
    n=st.integers(0, 90),
    k=st.integers(0, 300),
    precision=st.sampled_from(PRECISIONS),
    group=st.sampled_from(("32", "64", "128")),
    zero=st.sampled_from(gemm_w4.ZEROS),
    bias=st.sampled_from(("no", "yes")),
    memory=st.sampled_from(("dense", "padded")),
    deep=st.booleans(),
)
def test_any_shape(
    m: int,
    n: int,
    k: int,
    precision: str,
    group: str,
    zero: str,
    bias: str,
    memory: str,
    deep: bool,
) -> None:
    case = case_of(m, n, k, precision, memory, group=group, zero=zero, bias=bias)
    config = {**DEFAULT, "tile_k": int(group)} if deep else DEFAULT
    row = check.run(check.Job(family("gemm_w4"), backend("triton"), GPU, case, config, m + n + k))
    assert row.ok and row.state == "interpret", f"{case}: {row.reason}"


@pytest.mark.parametrize("zero", gemm_w4.ZEROS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8->fp32"])
def test_single_activations_read_the_dequantised_weights_exactly(precision: str, zero: str) -> None:
    """Rows of the identity: every output is one weight, rounded once to the output."""
    case = case_of(97, 40, 97, precision, group="64", zero=zero)
    logical, physical = operands(case)
    physical["a"] = torch.eye(97).to(physical["a"].dtype)
    if "row_scale" in physical:
        physical["row_scale"] = torch.ones(97)
    weights = dequantised(
        logical["b"], logical["scale"], logical.get("zero"), logical.get("minimum"), 64
    )
    c = multiply(case, physical)
    assert torch.equal(c, weights.t().float().to(c.dtype))


def test_fp32_activations_are_taken_whole() -> None:
    """Three bf16 parts hold all 24 bits: a lone activation times a power of two comes back."""
    case = case_of(40, 33, 40, "fp32")
    _, physical = operands(case)
    values = torch.randn(40, generator=torch.Generator().manual_seed(3))
    values *= torch.logspace(-30, 30, 40)
    physical["a"] = torch.diag(values)
    physical["b"] = formats.codes_to_rows(torch.full((33, 40), 9), {})
    physical["scale"] = torch.full((33, 2), 0.5).half()
    assert torch.equal(multiply(case, physical), (values / 2)[:, None].expand(40, 33))


@pytest.mark.parametrize("zero", gemm_w4.ZEROS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8->fp16"])
def test_a_row_does_not_depend_on_its_batch(precision: str, zero: str) -> None:
    """Nor, with the flag, on a table of tuned configs."""
    case = case_of(40, 50, 160, precision, group="64", zero=zero, batch_invariant="yes")
    _, physical = operands(case, 3)
    want = multiply(case, physical)
    for part in (slice(0, 1), slice(39, 40), slice(5, 23)):
        some = {n: v[part] if n in ("a", "row_scale") else v for n, v in physical.items()}
        assert torch.equal(multiply(case, some, tile_m=32, tile_k=64, num_warps=8), want[part])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_specials_stay_in_their_row(precision: str) -> None:
    case = case_of(9, 40, 96, precision)
    _, physical = operands(case)
    clean = multiply(case, physical)
    physical["a"][4, 50], physical["a"][6, 0] = math.nan, math.inf
    c = multiply(case, physical)
    assert c[4].isnan().all() and not c[6].isfinite().any()
    rest = [0, 1, 2, 3, 5, 7, 8]
    assert torch.equal(c[rest], clean[rest])


@pytest.mark.parametrize("zero", ["sym", "asym"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_of_zero_give_zero(precision: str, zero: str) -> None:
    case = case_of(7, 33, 200, precision, group="128", zero=zero)
    _, physical = operands(case)
    if zero == "asym":  # the low four bits count
        physical["zero"] = torch.full_like(physical["zero"], 0xF0 + 11)
    physical["b"] = formats.codes_to_rows(torch.full((33, 200), 11 if zero == "asym" else 8), {})
    assert (multiply(case, physical) == 0).all()


@pytest.mark.parametrize(
    ("where", "precision", "zero", "fields", "legal"),
    [
        ("cuda:sm_80", "fp32", "sym", (128, 32, 128, 8, 5), False),
        ("cuda:sm_80", "fp32", "sym", (16, 128, 128, 8, 5), True),
        ("cuda:sm_80", "bf16", "min", (128, 128, 128, 8, 5), False),
        ("cuda:sm_80", "bf16", "asym", (128, 32, 128, 8, 5), True),
        ("cuda:sm_90", "fp32", "sym", (128, 32, 128, 8, 5), False),
        ("hip:gfx942", "fp32", "sym", (128, 128, 32, 8, 5), False),
        ("hip:gfx942", "bf16", "asym", (128, 32, 128, 8, 5), False),
        ("hip:gfx942", "bf16", "sym", (16, 128, 128, 8, 5), True),
        ("hip:gfx942", "bf16", "min", (16, 128, 128, 8, 5), True),
    ],
)
def test_what_the_space_says_of_shared_memory_is_what_compiling_says(
    where: str, precision: str, zero: str, fields: tuple[int, ...], legal: bool
) -> None:
    spec, names = family("gemm_w4").spec, ("tile_m", "tile_n", "tile_k", "num_warps", "num_stages")
    case = case_of(64, 4096, 4096, precision, group="128", zero=zero)
    config = Config(dict(zip(names, fields, strict=True)))
    space = spec.space_for(target(where))
    assert space is not None
    said = space.illegal(spec, case, config, target(where)) or ""
    built = compile_config(gemm_w4, precision, dict(case.flags), config, where)
    assert built.ok == legal, built.error
    assert ("shared memory" in said) == ("shared memory" in (built.error or "")), (said, built)
    if where == "cuda:sm_80" and not legal:
        assert f"needs {built.shared_bytes} bytes of shared memory" in said


@pytest.mark.parametrize("where", TARGETS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8->bf16"])
def test_binaries_multiply_on_the_matrix_unit_without_spills(precision: str, where: str) -> None:
    """fp32 too, as parts of bf16."""
    flags = dict(case_of(16, 64, 128, precision, zero="min", group="128").flags)
    built = compile_config(gemm_w4, precision, flags, DEFAULT, where)
    assert built.ok and built.spill_bytes == 0, built.error
    kind = {
        "cuda:sm_80": ("HMMA", "IMMA"),
        "cuda:sm_90": ("HGMMA", "IGMMA"),
        "cuda:sm_100": ("UTCHMMA", "UTCIMMA"),
        "hip:gfx942": ("v_mfma_f32", "v_mfma_i32"),
    }[where][precision.startswith("int8")]
    assert built.matrix_instructions
    assert all(name.startswith(kind) for name in built.matrix_instructions)
    if where.startswith("cuda"):
        assert built.async_copies["LDGSTS"] > 0


def test_refusals_name_what_is_taken() -> None:
    case = case_of(4, 20, 64, "fp32")
    _, physical = operands(case)
    c = torch.full((4, 20), 7.0)

    def refused(sentence: str, flags: Mapping[str, str], **config: int) -> None:
        with pytest.raises((Refused, UsageError), match=sentence):
            gemm_w4.launch({**physical, "c": c}, flags, {**DEFAULT, **config}, interpret=True)
        assert (c == 7).all()

    refused("panel16 is the packed layout of the host kernel", {"b_layout": "panel16"})
    refused("unknown group '16'; accepted: 32, 64, 128", {"group": "16"})
    refused("unknown zero 'max'; accepted: sym, asym, min", {"zero": "max"})
    refused("tile_k from 32 to the group of 32, not 64", {}, tile_k=64)
    refused("tile_k from 32 to the group of 32, not 16", {}, tile_k=16)
    refused("powers of two for tile_n, not 48", {}, tile_n=48)
    refused("zero=asym takes a tensor 'zero'", {"zero": "asym"})
    del physical["scale"]
    refused("needs tensor 'scale'", {})
