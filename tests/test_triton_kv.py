"""Triton kernels of the KV families and of rope: any shape against the references, bit for bit where codes are."""

from __future__ import annotations

import importlib
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
from tilewright.inputs import draw, make_outputs
from tilewright.registry import family
from tilewright.targets import target

GPU = target("cuda:sm_80")
SLOW = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def judge(
    name: str, sizes: Mapping[str, int], precision: str, flags: Mapping[str, str], seed: int
) -> None:
    """The kernel, interpreted, against the family's reference."""
    one = family(name)
    config = one.spec.default_config(GPU)
    for memory in ("dense", "padded"):
        case = one.spec.case(sizes, precision, flags, memory)
        row = check.run(check.Job(one, backend("triton"), GPU, case, config, seed))
        assert row.ok and row.state == "interpret", f"{case}: {row.reason}"


@SLOW
@given(st.data())
def test_nz_kv_moves_any_element(data: st.DataObject) -> None:
    draw_int = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    judge(
        "nz_kv",
        {"T": draw_int(0, 70), "HKV": draw_int(0, 3), "D": draw_int(0, 140), "P": draw_int(1, 6)},
        data.draw(st.sampled_from(["fp32", "bf16", "fp16", "int8"])),
        {"direction": data.draw(st.sampled_from(["write", "read"]))},
        draw_int(0, 1000),
    )


@pytest.mark.parametrize("kv", ["float", "c8s", "c8d", "kv4"])
@SLOW
@given(st.data())
def test_kv_write_gives_the_same_codes(kv: str, data: st.DataObject) -> None:
    draw_int = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    unit = 4 if kv == "kv4" else 1
    compute = data.draw(st.sampled_from(["fp32", "bf16", "fp16"]))
    judge(
        "kv_write",
        {
            "T": draw_int(0, 50),
            "HKV": draw_int(0, 3),
            "DK": unit * draw_int(0, 40),
            "DV": unit * draw_int(0, 40),
            "P": draw_int(1, 6),
            "NS": draw_int(1, 5),
        },
        compute if kv == "float" else f"{compute}-{kv}",
        {"kv_layout": data.draw(st.sampled_from(["nd", "nz"]))},
        draw_int(0, 1000),
    )


@pytest.mark.parametrize("kv", ["c8s", "c8d", "kv4_key", "kv4_value"])
@SLOW
@given(st.data())
def test_kv_residual_gives_the_same_codes_and_places(kv: str, data: st.DataObject) -> None:
    draw_int = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    pages = draw_int(1, 4)
    compute = data.draw(st.sampled_from(["fp32", "bf16", "fp16"]))
    judge(
        "kv_residual",
        {
            "N": draw_int(0, pages),
            "HKV": draw_int(0, 3),
            "D": 4 * draw_int(0, 40),
            "P": pages,
            "R": draw_int(0, 40),
            "F": draw_int(0, 6),
        },
        f"{compute}-{kv[:3]}",
        {
            "kv": kv,
            "direction": data.draw(st.sampled_from(["write", "read"])),
            "residual": data.draw(st.sampled_from(["nested", "e3m0"])),
            "kv_layout": data.draw(st.sampled_from(["nd", "nz"])),
        },
        draw_int(0, 1000),
    )


@SLOW
@given(st.data())
def test_rope_turns_any_shape(data: st.DataObject) -> None:
    draw_int = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    channels = draw_int(1, 150)
    judge(
        "rope",
        {
            "T": draw_int(1, 12),
            "H": draw_int(1, 4),
            "D": channels,
            "MAXPOS": draw_int(1, 100),
            "ROT": 2 * draw_int(0, channels // 2),
        },
        data.draw(st.sampled_from(["fp32", "bf16", "fp16"])),
        {"style": data.draw(st.sampled_from(["neox", "gptj"]))},
        draw_int(0, 1000),
    )


def call(name: str, sizes: Mapping[str, int], precision: str, **flags: str) -> tuple[Any, ...]:
    """(launch, tensors, flags, config) of a case, to be broken by the test."""
    one = family(name)
    case = one.spec.case(sizes, precision, flags)
    inputs = draw(one, case, 1)
    tensors = {**inputs.physical, **make_outputs(one, case, inputs)}
    return one.module("triton").launch, tensors, dict(case.flags), one.spec.default_config(GPU)


def refused(broken: tuple[Any, ...], sentence: str, **changed: torch.Tensor | None) -> None:
    """The launch says why, and touches nothing."""
    launch, tensors, flags, config = broken
    tensors = {**tensors, **changed}
    before = {name: None if t is None else t.clone() for name, t in tensors.items()}
    with pytest.raises(Refused, match=sentence):
        launch(tensors, flags, config, interpret=True)
    for name, value in tensors.items():
        kept = before[name]
        assert value is None or kept is None or torch.equal(value.nan_to_num(), kept.nan_to_num())


def test_nz_kv_refuses_slots_that_are_none() -> None:
    broken = call("nz_kv", {"T": 5, "HKV": 1, "D": 8, "P": 2}, "fp16")
    slots = torch.tensor([0, 1, -1, 5, 31], dtype=torch.int32)
    for place, bad in ((4, 32), (0, -2)):
        wrong = slots.clone()
        wrong[place] = bad
        refused(
            broken, rf"slots\[{place}\] is {bad}; accepted: -1 \(skipped\) or 0 to 31", slots=wrong
        )
    refused(broken, "slot 5 stands twice", slots=torch.tensor([5, 1, -1, 5, 2], dtype=torch.int32))
    refused(broken, "needs tensor 'x'", x=None)
    launch, tensors, flags, config = broken
    with pytest.raises(Refused, match="powers of two for tile_t, not 3"):
        launch(tensors, flags, {**config, "tile_t": 3}, interpret=True)
    with pytest.raises(UsageError, match="unknown direction 'both'"):
        launch(tensors, {"direction": "both"}, config, interpret=True)


def test_kv_write_refuses_what_breaks_the_rule_of_pages() -> None:
    sizes = {"T": 4, "HKV": 1, "DK": 8, "DV": 8, "P": 4, "NS": 2}
    broken = call("kv_write", sizes, "fp32-kv4")
    as_int = lambda *values: torch.tensor(values, dtype=torch.int32)  # noqa: E731
    refused(
        broken, "token 2 is of page 0, as an earlier one that is no neighbour",
        slots=as_int(0, 16, 1, 17), open_row=as_int(0, 1, 0, 1),
    )  # fmt: skip
    refused(
        broken, r"token 0: open_row \[0, 1\]; accepted: one row from 0 to 1",
        slots=as_int(0, 1, -1, -1), open_row=as_int(0, 1, 0, 0),
    )  # fmt: skip
    refused(
        broken, r"open_row \[2\]; accepted: one row from 0 to 1",
        slots=as_int(0, -1, -1, -1), open_row=as_int(2, 0, 0, 0),
    )  # fmt: skip
    refused(
        broken, "needs row 0 of k_open, as another page does",
        slots=as_int(15, 16, -1, -1), open_row=as_int(0, 0, 0, 0),
    )  # fmt: skip


def test_kv_residual_refuses_pages_pools_and_selections() -> None:
    sizes = {"N": 2, "HKV": 1, "D": 8, "P": 3, "R": 20, "F": 4}
    write = call("kv_residual", sizes, "fp32-c8s")
    as_int = lambda *values: torch.tensor(values, dtype=torch.int32)  # noqa: E731
    refused(write, r"page_ids\[1\] is 3; accepted: 0 to 2", page_ids=as_int(0, 3))
    refused(write, "page 1 stands twice in page_ids", page_ids=as_int(1, 1))
    refused(write, "select holds 3", select=torch.full((2, 16, 1), 3, dtype=torch.uint8))
    refused(write, r"used_before\[1\] is 5; accepted: 0 to 4", used_before=as_int(0, 5))
    read = call("kv_residual", sizes, "fp32-c8s", direction="read")
    both = torch.full((3, 1), 3, dtype=torch.int16)
    refused(read, "stands in mask and in fmask", mask=both, fmask=both)
    none = torch.zeros((3, 1), dtype=torch.int16)
    refused(
        read, "rank of page . head 0 is 19 with 2 vectors".replace(". ", r"\d, "),
        mask=both, fmask=none, rank=torch.full((3, 1), 19, dtype=torch.int32),
    )  # fmt: skip


AOT = (
    ("nz_kv", "int8", {"direction": "read"}),
    ("kv_write", "bf16-c8d", {"kv_layout": "nz"}),
    ("kv_write", "fp16-kv4", {"kv_layout": "nd"}),
    ("kv_residual", "bf16-c8s", {"direction": "write", "residual": "e3m0"}),
    ("kv_residual", "bf16-kv4", {"direction": "read", "kv": "kv4_value", "kv_layout": "nz"}),
    ("rope", "bf16", {"style": "gptj"}),
)


@pytest.mark.parametrize("where", ["cuda:sm_90", "hip:gfx942"])
@pytest.mark.parametrize(("name", "precision", "flags"), AOT)
def test_binaries_do_not_spill_and_keep_operations_apart(
    name: str, precision: str, flags: Mapping[str, str], where: str
) -> None:
    module = importlib.import_module(f"tilewright.kernels.{name}.triton")
    config = family(name).spec.default_config(target(where))
    row = compile_config(module, precision, flags, config, where)
    assert row.ok, row.error
    assert row.spill_bytes == 0 and row.regs > 0
    # Codes must be exact; what only moves or rotates may be contracted.
    assert row.fp_fusion is (name in ("nz_kv", "rope"))


def test_the_compiler_keeps_to_it() -> None:
    """No fused multiply-add in the code of a quantiser, and a division that rounds correctly."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tilewright.interpret import language_lock

    module = importlib.import_module("tilewright.kernels.kv_write.triton")
    config = family("kv_write").spec.default_config(target("cuda:sm_90"))
    source = module.aot("fp32-kv4", {"kv_layout": "nd"}, config, "cuda:sm_90")
    ast = ASTSource(source.fn, source.signature, dict(source.constexprs), source.attrs)
    with language_lock:
        done = triton.compile(ast, target=GPUTarget("cuda", 90, 32), options=dict(source.options))
    assert "fma.rn.f32" not in done.asm["ptx"] and "div.rn.f32" in done.asm["ptx"]
