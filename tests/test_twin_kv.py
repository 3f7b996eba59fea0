"""The AscendC KV kernels on the twin: nz_kv, kv_write and kv_residual against their references, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright import check
from tilewright.ascendc.ops._kv import checks
from tilewright.ascendc.ops._kv import planning as moving
from tilewright.ascendc.ops.kv_residual import planning as residual_planning
from tilewright.ascendc.ops.kv_write import planning as write_planning
from tilewright.ascendc.soc import find
from tilewright.ascendc.twin import model_family
from tilewright.ascendc.twin.runner import How, running
from tilewright.backends.ascendc import AscendC
from tilewright.errors import Refused
from tilewright.inputs import Inputs, draw, make_outputs
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

TARGET = target("ascend:910b1")
UB = find("910b1").ub
MANY = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
FLOATS = ("fp32", "bf16", "fp16")
MEMORY = st.sampled_from(("dense", "padded"))


def job(
    name: str,
    precision: str,
    sizes: Mapping[str, int],
    flags: Mapping[str, str],
    *,
    memory: str = "dense",
    seed: int = 0,
    **config: int,
) -> check.Job:
    one = family(name)
    case = one.spec.case(dict(sizes), precision, dict(flags), memory)
    chosen = Config(**{**dict(one.spec.default_config(TARGET)), **config})
    return check.Job(one, AscendC(), TARGET, case, chosen, seed)


def right(asked: check.Job, inputs: Inputs | None = None) -> None:
    """The outputs are the reference's, and the twin found nothing."""
    row = check.run(asked, inputs)
    assert row.ok, f"{asked.case}: {row.reason}"


@cache
def _schedule(seed: int) -> How:
    return How(schedule=("program", "timeline", "random")[seed % 3], seed=seed)


# --- any shape, any slots, any memory -------------------------------------------------------------


@MANY
@given(
    st.integers(0, 90),
    st.integers(1, 9),
    st.integers(1, 300),
    st.integers(1, 9),
    st.sampled_from((*FLOATS, "int8")),
    st.sampled_from(("write", "read")),
    st.sampled_from((1, 3, 8, 64, 95)),
    MEMORY,
    st.integers(0, 1000),
)
def test_moves_any_shape(
    tokens: int,
    heads: int,
    dim: int,
    pages: int,
    precision: str,
    direction: str,
    tile: int,
    memory: str,
    seed: int,
) -> None:
    sizes = {"T": tokens, "HKV": heads, "D": dim, "P": pages}
    flags = {"direction": direction, "kv_layout": "nz"}
    with running(_schedule(seed)):
        right(job("nz_kv", precision, sizes, flags, memory=memory, seed=seed, tile_blocks=tile))


@MANY
@given(
    st.integers(1, 70),
    st.integers(1, 9),
    st.integers(1, 60),
    st.integers(0, 60),
    st.integers(1, 12),
    st.sampled_from(FLOATS),
    st.sampled_from(("float", "c8s", "c8d", "kv4")),
    st.sampled_from(("nd", "nz")),
    st.sampled_from((2048, 8192)),
    MEMORY,
    st.integers(0, 1000),
)
def test_writes_any_shape(
    tokens: int,
    heads: int,
    keys: int,
    values: int,
    pages: int,
    compute: str,
    kv: str,
    layout: str,
    tile: int,
    memory: str,
    seed: int,
) -> None:
    wide = 4 if kv == "kv4" or seed % 2 else 1
    sizes = {"T": tokens, "HKV": heads, "DK": wide * keys, "DV": wide * values, "P": pages, "NS": 5}
    precision = compute if kv == "float" else f"{compute}-{kv}"
    flags = {"kv": kv, "kv_layout": layout}
    with running(_schedule(seed)):
        right(
            job("kv_write", precision, sizes, flags, memory=memory, seed=seed, tile_elements=tile)
        )


@MANY
@given(
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 50),
    st.integers(0, 90),
    st.integers(0, 30),
    st.sampled_from(FLOATS),
    st.sampled_from(("c8s", "c8d", "kv4_key", "kv4_value")),
    st.sampled_from(("nested", "e3m0")),
    st.sampled_from(("write", "read")),
    st.sampled_from(("nd", "nz")),
    st.sampled_from((2048, 8192)),
    MEMORY,
    st.integers(0, 1000),
)
def test_residuals_of_any_shape(
    pages: int,
    heads: int,
    quarter: int,
    rows: int,
    frows: int,
    compute: str,
    kv: str,
    residual: str,
    direction: str,
    layout: str,
    tile: int,
    memory: str,
    seed: int,
) -> None:
    sizes = {"N": pages, "HKV": heads, "D": 4 * quarter, "P": pages + 2, "R": rows, "F": frows}
    flags = {"kv": kv, "residual": residual, "direction": direction, "kv_layout": layout}
    precision = f"{compute}-{kv.split('_')[0]}"
    with running(_schedule(seed)):
        right(
            job(
                "kv_residual", precision, sizes, flags, memory=memory, seed=seed, tile_elements=tile
            )
        )


# --- the orders that their flags permit -----------------------------------------------------------

ORDERS = (
    ("nz_kv", "fp16", {"T": 37, "HKV": 3, "D": 80, "P": 4}, {"direction": "write"}),
    ("nz_kv", "int8", {"T": 37, "HKV": 3, "D": 33, "P": 4}, {"direction": "read"}),
    ("kv_write", "bf16", {"T": 37, "HKV": 2, "DK": 64, "DV": 32, "P": 5, "NS": 4}, {}),
    (
        "kv_write",
        "fp32-c8d",
        {"T": 37, "HKV": 3, "DK": 36, "DV": 64, "P": 5, "NS": 4},
        {"kv_layout": "nz"},
    ),
    ("kv_write", "fp16-kv4", {"T": 37, "HKV": 2, "DK": 64, "DV": 36, "P": 5, "NS": 4}, {}),
    *(
        (
            "kv_residual",
            f"{compute}-{kv.split('_')[0]}",
            {"N": 3, "HKV": 3, "D": d, "P": 4, "R": 40, "F": 9},
            {"kv": kv, "residual": residual, "direction": direction, "kv_layout": layout},
        )
        for compute, kv, residual, direction, layout, d in (
            ("bf16", "c8s", "nested", "write", "nz", 36),
            ("fp32", "c8d", "e3m0", "write", "nd", 64),
            ("fp16", "kv4_key", "nested", "write", "nz", 64),
            ("fp32", "kv4_value", "e3m0", "write", "nd", 36),
            ("bf16", "c8s", "e3m0", "read", "nz", 36),
            ("fp32", "kv4_key", "nested", "read", "nd", 64),
        )
    ),
)


@pytest.mark.parametrize(("name", "precision", "sizes", "flags"), ORDERS)
def test_any_order_that_its_flags_permit(
    name: str, precision: str, sizes: dict[str, int], flags: dict[str, str]
) -> None:
    asked = job(name, precision, sizes, flags)
    inputs = draw(asked.family, asked.case, 3)
    for seed in range(10):
        with running(How(schedule="random", seed=seed)):
            right(asked, inputs)


# --- what a sparse selection and a full pool do ---------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 47, 48, 4 * 3 * 16])
@pytest.mark.parametrize("value", [1, 2])
def test_the_first_run_that_does_not_fit_ends_the_filling(rows: int, value: int) -> None:
    sizes = {"N": 4, "HKV": 3, "D": 32, "P": 4, "R": rows, "F": rows}
    asked = job("kv_residual", "fp32-c8d", sizes, {"kv": "c8d", "residual": "e3m0"})
    drawn = draw(asked.family, asked.case, 0)
    given = dict(drawn.logical)
    select = torch.zeros_like(_there(given["select"]))
    select[0, ::2], select[1, :, 1], select[2], select[3, 15, 2] = value, value, value, value
    given |= {"select": select, "used_before": torch.zeros(2, dtype=torch.int32)}
    physical = dict(drawn.physical) | {n: given[n] for n in ("select", "used_before")}
    right(asked, replace(drawn, logical=given, physical=physical, drawn=False))


def test_used_rows_beyond_the_pool_stay_as_they_are() -> None:
    sizes = {"N": 2, "HKV": 2, "D": 32, "P": 2, "R": 5, "F": 5}
    asked = job("kv_residual", "fp32-c8s", sizes, {"kv": "c8s"})
    drawn = draw(asked.family, asked.case, 0)
    used = torch.tensor([9, 4], dtype=torch.int32)
    logical = {**drawn.logical, "used_before": used}
    physical = {**drawn.physical, "used_before": used}
    outputs = make_outputs(asked.family, asked.case, drawn)
    _launch(asked, {**physical, **outputs})
    assert outputs["used_after"].tolist()[0] == 9
    assert not outputs["mask"][_there(logical["page_ids"]).long()].any()


def _there(value: torch.Tensor | None) -> torch.Tensor:
    assert value is not None
    return value


# --- bad input is one sentence, before any memory is touched ----------------------------------------


def _launch(asked: check.Job, tensors: Mapping[str, Any]) -> None:
    from tilewright import native

    adapter = AscendC().adapter(asked.family)
    adapter.launch(tensors, asked.case, asked.config, asked.target, native.library("twin"))


def _refused(asked: check.Job, name: str, change: Any, words: str) -> None:
    drawn = draw(asked.family, asked.case, 0)
    tensors = {**drawn.physical, **make_outputs(asked.family, asked.case, drawn)}
    before = {n: t.clone() for n, t in tensors.items() if t is not None}
    tensors[name] = change(tensors[name].clone())
    with pytest.raises(Refused, match=words):
        _launch(asked, tensors)
    for other, value in before.items():
        if other != name:
            same = torch.equal(
                tensors[other].contiguous().view(torch.uint8), value.contiguous().view(torch.uint8)
            )
            assert same, f"{other} changed"


def _put(at: Any, value: int) -> Any:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor[at] = value
        return tensor

    return change


NZ = {"T": 20, "HKV": 2, "D": 32, "P": 3}
WRITE = {"T": 20, "HKV": 2, "DK": 32, "DV": 32, "P": 3, "NS": 3}
RESIDUAL = {"N": 2, "HKV": 2, "D": 32, "P": 3, "R": 20, "F": 20}


@pytest.mark.parametrize(("value", "words"), [(48, r"slots\[3\] is 48"), (-2, r"is -2; accepted")])
def test_slots_that_do_not_exist(value: int, words: str) -> None:
    for direction in ("write", "read"):
        _refused(job("nz_kv", "fp16", NZ, {"direction": direction}), "slots", _put(3, value), words)
    _refused(job("kv_write", "fp16-c8d", WRITE, {}), "slots", _put(3, value), words)


def test_slots_that_stand_twice() -> None:
    def twice(slots: torch.Tensor) -> torch.Tensor:
        return _put(1, 7)(_put(0, 7)(slots.fill_(-1)))

    _refused(
        job("nz_kv", "fp16", NZ, {"direction": "write"}), "slots", twice, "slot 7 stands twice"
    )
    _refused(job("kv_write", "fp16", WRITE, {}), "slots", twice, "slot 7 stands twice")


def test_pages_that_are_not_aligned() -> None:
    def moved(pages: torch.Tensor) -> torch.Tensor:
        room = torch.zeros(pages.numel() + 64, dtype=pages.dtype)
        return room[1 : 1 + pages.numel()].view(pages.shape)

    _refused(job("nz_kv", "fp16", NZ, {}), "pages", moved, "multiples of 512")
    _refused(job("kv_write", "fp16", WRITE, {}), "k_cache", moved, "multiples of 512")
    _refused(job("kv_residual", "fp16-c8s", RESIDUAL, {}), "codes", moved, "multiples of 512")


@pytest.mark.parametrize(
    ("name", "at", "value", "words"),
    [
        ("page_ids", 0, 3, "page_ids.* is 3"),
        ("page_ids", 0, -1, "page_ids.* is -1"),
        ("select", (0, 1, 1), 3, r"select\[0, 1, 1\] is 3"),
        ("used_before", 1, -4, "used_before"),
    ],
)
def test_what_kv_residual_writes_by(name: str, at: Any, value: int, words: str) -> None:
    _refused(job("kv_residual", "fp16-c8s", RESIDUAL, {}), name, _put(at, value), words)


def test_a_page_twice() -> None:
    asked = job("kv_residual", "fp16-c8s", RESIDUAL, {})
    _refused(asked, "page_ids", lambda ids: ids.fill_(1), "page 1 stands twice")


@pytest.mark.parametrize(("rank", "pool"), [("rank", "pool"), ("frank", "fpool")])
def test_ranks_that_lead_out_of_their_pool(rank: str, pool: str) -> None:
    asked = job("kv_residual", "fp16-c8s", {**RESIDUAL, "P": 2}, {"direction": "read"})
    for row in (20, -1, 2**31 - 1):
        _refused(asked, rank, _put(..., row), f"{rank} of page .*; {pool} has 20 rows")


def test_a_vector_in_both_masks() -> None:
    asked = job("kv_residual", "fp16-c8s", {**RESIDUAL, "P": 2}, {"direction": "read"})
    drawn = draw(asked.family, asked.case, 0)
    tensors = {**drawn.physical, **make_outputs(asked.family, asked.case, drawn)}
    tensors |= {"mask": torch.full((2, 2), -(2**15), dtype=torch.int16)}
    tensors |= {"fmask": tensors["mask"], "rank": torch.zeros((2, 2), dtype=torch.int32)}
    with pytest.raises(Refused, match="in mask and in fmask"):
        _launch(asked, {**tensors, "frank": tensors["rank"]})


@pytest.mark.parametrize(
    ("slots", "rows", "words"),
    [
        ([0, 1, 16], [0, 0, 3], r"open_row\[2\] is 3"),
        ([0, 1, 16], [0, 1, 2], r"open_row\[1\] is 1"),
        ([0, 2, 16], [0, 0, 2], "page 0 comes in two runs"),
        ([3, 20, 4], [0, 1, 0], "page 0 comes in two runs"),
        ([3, 20, -1], [1, 1, 0], "two pages need row 1"),
    ],
)
def test_open_pages(slots: list[int], rows: list[int], words: str) -> None:
    import numpy as np

    with pytest.raises(ValueError, match=words):
        checks.check_open_pages(np.array(slots), np.array(rows), 3)


def test_whole_pages_need_no_row_of_their_own() -> None:
    import numpy as np

    slots = np.arange(40)
    checks.check_open_pages(slots, np.zeros(40, dtype=int), 1)


# --- what fits, and what is refused because it does not ---------------------------------------------


def test_tiles_that_are_planned_fit_ub() -> None:
    for columns in range(1, moving.most_columns(UB) + 1):
        assert moving.move_bytes(columns) <= UB
    assert moving.move_bytes(moving.most_columns(UB) + 1) > UB
    assert AscendC().refuses(
        family("nz_kv"), job("nz_kv", "fp16", NZ, {}).case, Config(tile_blocks=96), TARGET
    )


@pytest.mark.parametrize("kv", ["c8s", "c8d", "kv4"])
@pytest.mark.parametrize("compute", FLOATS)
def test_the_widest_heads_fit_and_wider_ones_are_refused(compute: str, kv: str) -> None:
    element = 4 if compute == "fp32" else 2
    most = max(
        d
        for d in range(32, 2048, 32)
        if not write_planning.too_large((d, d), 1, kv, element, 0, UB)
    )
    assert most >= 576
    sizes = {"T": 17, "HKV": 2, "DK": most, "DV": 32, "P": 2, "NS": 2}
    right(job("kv_write", f"{compute}-{kv}", sizes, {"kv_layout": "nz"}))
    refused = AscendC().refuses(
        family("kv_write"),
        job("kv_write", f"{compute}-{kv}", {**sizes, "DK": most + 32}, {}).case,
        family("kv_write").spec.default_config(TARGET),
        TARGET,
    )
    assert refused and f"DK={most + 32}" in refused


@pytest.mark.parametrize("kv", ["c8s", "kv4_key"])
@pytest.mark.parametrize("direction", ["write", "read"])
def test_the_widest_residual_heads(kv: str, direction: str) -> None:
    def plan(dim: int) -> residual_planning.Tiles | str:
        problem = residual_planning.Problem(1, 1, dim, kv, True, True, direction == "write", 4)
        return residual_planning.tiles_of(problem, 8192, UB, 1)

    most = max(d for d in range(32, 2048, 32) if not isinstance(plan(d), str))
    assert most >= 576 and "UB" in str(plan(most + 32))
    sizes = {"N": 2, "HKV": 1, "D": most, "P": 3, "R": 9, "F": 4}
    flags = {"kv": kv, "residual": "e3m0", "direction": direction, "kv_layout": "nz"}
    right(job("kv_residual", f"fp32-{kv.split('_')[0]}", sizes, flags))


# --- time, as modelled ----------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["write", "read"])
def test_whole_pages_move_at_the_modelled_speed_of_hbm(direction: str) -> None:
    from tilewright import native
    from tilewright.ascendc.twin import model

    sizes = {"T": 16384, "HKV": 8, "D": 128, "P": 1024}
    asked = job("nz_kv", "fp16", sizes, {"direction": direction})
    found = model_family.predict(asked.family, asked.case, asked.config, TARGET)
    rate = next(c.value for c in model.constants(native.library("twin")) if c.name == "hbm_rate")
    moved = asked.family.spec.bytes_of(asked.case)
    assert moved / found.predicted_us / 1e6 >= 0.75 * rate
    assert found.slowest["v"] < 0.25 * found.cycles  # turning is not what takes the time


@pytest.mark.parametrize(("name", "precision", "sizes", "flags"), ORDERS)
def test_no_flag_is_set_before_it_was_waited_for(
    name: str, precision: str, sizes: dict[str, int], flags: dict[str, str]
) -> None:
    asked = job(name, precision, sizes, flags)
    found = model_family.predict(asked.family, asked.case, asked.config, TARGET)
    assert found.unresolved == 0 and found.findings == 0 and found.predicted_us > 0
