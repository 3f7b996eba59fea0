"""mask_gemm in Triton, interpreted: any shape and mask, rows that keep their bits, what is refused, what is compiled."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from row_calls import same_bits

from tilewright import check, interpret
from tilewright.aot import compile_config
from tilewright.aot.ascend import lower_pool
from tilewright.backends import backend
from tilewright.errors import Refused
from tilewright.inputs import draw
from tilewright.kernels.mask_gemm import selection, triton
from tilewright.kernels.mask_gemm.triton_kernel import group
from tilewright.registry import family
from tilewright.ship import gpu
from tilewright.ship.launcher.compiled import dispatch_row
from tilewright.space import Config
from tilewright.targets import target

FAMILY = family("mask_gemm")
GPU = target("cuda:sm_80")
CONFIG = {"tile_m": 16, "tile_n": 16, "tile_k": 32, "num_warps": 1, "num_stages": 2}
SLOW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
Tensors = dict[str, torch.Tensor]


def case_of(m: int, n: int, k: int, memory: str = "dense", **flags: Any) -> Any:
    sizes = {"M": m, "N": n, "K": k, "W": 4}
    return FAMILY.spec.case(sizes, "bf16", {name: str(v) for name, v in flags.items()}, memory)


@SLOW
@given(
    m=st.integers(0, 70),
    n=st.integers(0, 40),
    k=st.integers(0, 70),
    layer=st.integers(0, 7),
    resident=st.sampled_from(("yes", "no")),
    bias=st.sampled_from(("no", "yes")),
    tile=st.sampled_from((16, 32)),
    seed=st.integers(0, 1000),
)
def test_any_shape_and_mask(
    m: int, n: int, k: int, layer: int, resident: str, bias: str, tile: int, seed: int
) -> None:
    for memory in ("dense", "padded"):
        case = case_of(
            m, n, k, memory, layer=layer, resident=resident, missing="keep_int8", bias=bias
        )
        config = Config({**FAMILY.spec.default_config(GPU), "tile_m": tile})
        row = check.run(check.Job(FAMILY, backend("triton"), GPU, case, config, seed))
        assert row.ok and row.state == "interpret", f"{case}: {row.reason}"


def multiply(given: Tensors, flags: dict[str, str], config: Any = CONFIG) -> Tensors:
    m, n = given["a8"].shape[0], given["b8"].shape[0]
    found = {
        "c": torch.full((m, n), math.nan, dtype=torch.bfloat16),
        "counts": torch.full((3,), -7, dtype=torch.int32),
    }
    triton.launch({**given, **found}, flags, config, interpret=True)
    return found


def operands(case: Any, seed: int = 0) -> Tensors:
    return {n: v for n, v in draw(FAMILY, case, seed).physical.items() if v is not None}


def test_more_rows_than_are_grouped_at_a_time() -> None:
    case = case_of(2500, 9, 5, layer=3)
    row = check.run(
        check.Job(FAMILY, backend("triton"), GPU, case, FAMILY.spec.default_config(GPU), 4)
    )
    assert row.ok, row.reason


def test_a_row_depends_on_its_path_alone() -> None:
    given = operands(case_of(50, 20, 70, layer=1))
    flags = {"layer": "0"}
    results = []
    for chosen in (range(50), (), range(0, 50, 3), range(20, 50)):
        words = selection.pack(64, requests=[5])
        owner = torch.full((50,), -1, dtype=torch.int32)
        owner[list(chosen)] = 5
        found = multiply({**given, "selection": words, "owner": owner}, flags)
        assert found["counts"].tolist() == [len(chosen), 50 - len(chosen), 0]
        results.append((owner == 5, found["c"]))
    (_, bf16), (_, int8), *mixed = results
    for selected, c in mixed:
        assert same_bits(c, torch.where(selected[:, None], bf16, int8))
    alone = {n: v[17:23] if n in ("a8", "row_scale", "owner", "a") else v for n, v in given.items()}
    assert same_bits(multiply(alone, {"layer": "1"})["c"], bf16[17:23])


def test_with_batch_invariant_no_config_reaches_the_bits() -> None:
    given = operands(case_of(20, 20, 150, layer=3))
    flags = {"layer": "3", "batch_invariant": "yes"}
    other = {**CONFIG, "tile_m": 32, "tile_k": 64}
    assert same_bits(multiply(given, flags)["c"], multiply(given, flags, other)["c"])


def test_refusals() -> None:
    case = case_of(20, 20, 64, layer=1)
    given = operands(case)
    bare = {n: v for n, v in given.items() if n not in ("a", "b16")}
    flags = {"layer": "1"}
    for tensors, mode, config, sentence in (
        (given, {**flags, "b_layout": "panel16"}, CONFIG, "takes weights as NK"),
        (given, flags, {**CONFIG, "tile_k": 16}, "powers of two from 32 for tile_k, not 16"),
        (given, flags, {**CONFIG, "tile_m": 24}, "powers of two from 1 for tile_m, not 24"),
        (given, {"layer": "128"}, CONFIG, "layer=128 has no bit in W=4 words; accepted: 0 to 127"),
        (given, {"layer": "0.5"}, CONFIG, "layer=0.5 has no bit in W=4 words; accepted: 0 to 127"),
        ({**given, "owner": given["owner"] + 64}, flags, CONFIG, r"owner\[\d+\] is \d+; accepted"),
        (
            {**given, "owner": given["owner"][:19]},
            flags,
            CONFIG,
            r"owner is \[19\]; accepted: \[20\]",
        ),
        (
            {**given, "b16": given["b16"].half()},
            flags,
            CONFIG,
            "b16 is float16; accepted: bfloat16",
        ),
        (
            {**given, "selection": given["selection"][:2]},
            flags,
            CONFIG,
            "W=2 words have no bit for a layer; accepted: 3 or more",
        ),
        (bare, flags, CONFIG, "needs tensor 'a'"),
        (bare, {**flags, "resident": "no"}, CONFIG, "row 0 of layer 1 is selected for bf16"),
    ):
        with pytest.raises(Refused, match=sentence):
            multiply(tensors, mode, config)
    kept = multiply(bare, {**flags, "resident": "no", "missing": "keep_int8"})
    assert kept["counts"].tolist() == [0, 20, 20]
    with pytest.raises(Refused, match="a binary of mask_gemm cannot look for selected rows"):
        triton.aot("bf16", {"resident": "no"}, CONFIG, "cuda:sm_80")


def test_on_a_device_what_has_no_bit_selects_nothing() -> None:
    """The first kernel alone, as a binary runs it: nobody has looked at its arguments."""
    for layer, rows, slot in ((128, 70, 9), (-1, 70, 9), (0, 70, 64), (0, 70, -7), (0, 4200, -1)):
        words = torch.full((4,), -1)
        words[:2] = 0
        words[2] = 0 if rows < 4096 else -1
        owner = torch.full((rows,), slot, dtype=torch.int32)
        order = torch.full((rows + 4,), -1, dtype=torch.int32)
        counts = torch.full((3,), -7, dtype=torch.int32)
        wanted = rows if slot == 9 else min(rows, 4096) if rows > 4096 else 0
        interpret.launch(
            group,
            (1, 1, 1),
            (words, owner, order, counts, rows, 4, layer, 1, 1, 1),
            {"BLOCK": 1024, "RESIDENT": True},
            {},
            interpret=True,
        )
        assert counts.tolist() == [wanted, rows - wanted, 0]
        assert sorted(order[4:].tolist()) == list(range(rows))


@pytest.mark.parametrize(
    ("where", "bf16", "int8"),
    [("cuda:sm_90", "HGMMA", "IGMMA"), ("hip:gfx942", "bf16", "i8")],
)
def test_both_paths_use_matrix_instructions(where: str, bf16: str, int8: str) -> None:
    config = {"tile_m": 64, "tile_n": 64, "tile_k": 64, "num_warps": 4, "num_stages": 3}
    built = compile_config(triton, "bf16", {}, config, where)
    assert built.ok and built.spill_bytes == 0, built.error
    (product,) = built.then
    assert product.ok and product.spill_bytes == 0
    used = {name for name, count in product.matrix_instructions.items() if count}
    assert any(bf16 in name for name in used) and any(int8 in name for name in used)


@pytest.mark.usefixtures("ascend_ir")
def test_both_kernels_are_planned_for_ascend() -> None:
    config = {"tile_m": 32, "tile_n": 32, "tile_k": 32}
    (row,) = lower_pool(triton, "bf16", {"bias": "yes"}, [config], "ascend:910b1")
    assert row.ok and row.symbol == "group" and row.cores == "vector", row.error
    (product,) = row.then
    assert product.ok and product.symbol == "kernel" and product.cores == "mix"
    assert [step["symbol"] for step in row.row()["then"]] == ["kernel"]
    (large,) = lower_pool(
        triton, "bf16", {}, [{"tile_m": 128, "tile_n": 512, "tile_k": 32}], "ascend:910b1"
    )
    assert not large.ok and large.error.startswith("kernel: ") and "overflow" in large.error


def test_an_entry_knows_what_its_second_kernel_takes() -> None:
    """A tensor that only the product reads is there; aligned rows and any rows are two entries."""
    jobs = list(gpu._jobs(FAMILY, target("cuda:sm_90"), FAMILY.spec.default_config(GPU), ()))
    taken = [(job.flags["resident"], job.flags["missing"], job.aligned) for job in jobs]
    assert taken == [
        ("no", "error", True),  # whose refusal is told
        *(("no", "keep_int8", aligned) for aligned in (True, False)),
        *(("yes", "error", aligned) for aligned in (True, False)),
    ]
    last = jobs[-1]
    built = compile_config(triton, "bf16", last.flags, last.config, last.target)
    row = dispatch_row(FAMILY.spec, built, "first", then=["second"])
    presence = {tensor["name"]: tensor["presence"] for tensor in row["tensors"]}
    assert presence.pop("bias") == "optional" and set(presence.values()) == {"required"}
    assert set(row["flags"]) == {"b_layout", "resident"}
