"""mask_gemm in AscendC on the twin: any selection against its reference, bits of rows, refusals, plans."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright import check, native
from tilewright.ascendc.ops.mask_gemm import host, planning
from tilewright.ascendc.soc import SOCS
from tilewright.ascendc.twin.runner import How, running
from tilewright.backends.ascendc import AscendC
from tilewright.kernels.mask_gemm import selection
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

TARGET = target("ascend:910b1")
FAMILY = family("mask_gemm")
MANY = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
CONFIGS = (
    {},
    {"tile_m": 16, "tile_n": 64, "tile_k": 64},
    {"tile_m": 64, "tile_n": 128, "tile_k": 128, "step_ka": 2, "step_kb": 4, "unit_flag": 1},
    {"tile_m": 128, "tile_n": 256, "tile_k": 64, "l0_buffers": 1, "l1_buffers": 1},
)
YES_NO = st.sampled_from(("no", "yes"))
Tensors = dict[str, torch.Tensor]


def job(
    sizes: Mapping[str, int], flags: Mapping[str, str], memory: str, seed: int, **config: int
) -> check.Job:
    case = FAMILY.spec.case(dict(sizes), "bf16", dict(flags), memory)
    chosen = Config(**{**dict(FAMILY.spec.default_config(TARGET)), **config})
    return check.Job(FAMILY, AscendC(), TARGET, case, chosen, seed)


@MANY
@given(
    *(
        st.one_of(st.integers(0, 40), st.integers(60, 200)),
        st.integers(0, 300),
        st.integers(0, 300),
    ),
    *(st.sampled_from(("0", "1", "66", "3")), YES_NO, st.sampled_from(("error", "keep_int8"))),
    *(YES_NO, st.sampled_from(("dense", "padded")), st.sampled_from(CONFIGS), st.integers(0, 999)),
)
def test_any_selection(
    m: int,
    n: int,
    k: int,
    layer: str,
    resident: str,
    missing: str,
    bias: str,
    memory: str,
    config: dict[str, int],
    seed: int,
) -> None:
    flags = {"layer": layer, "resident": resident, "missing": missing, "bias": bias}
    asked = job({"M": m, "N": n, "K": k, "W": 4}, flags, memory, seed, **config)
    with running(How(("program", "timeline", "random")[seed % 3], seed)):
        row = check.run(asked)
    assert row.ok, f"{asked.case}: {row.reason}"


def operands(m: int, n: int, k: int, seed: int = 0) -> Tensors:
    g = torch.Generator().manual_seed(seed)
    return {
        "a8": torch.randint(-128, 128, (m, k), generator=g).to(torch.int8),
        "row_scale": torch.rand(m, generator=g) * 0.01,
        "b8": torch.randint(-128, 128, (n, k), generator=g).to(torch.int8),
        "col_scale": torch.rand(n, generator=g) * 0.01,
        "a": torch.randn((m, k), generator=g).to(torch.bfloat16),
        "b16": torch.randn((n, k), generator=g).to(torch.bfloat16),
        "owner": torch.full((m,), -1, dtype=torch.int32),
    }


def run(given: Tensors, words: torch.Tensor, *, keep: bool = False, **config: int) -> Tensors:
    m, n = given["a8"].shape[0], given["b8"].shape[0]
    c = torch.full((m, n), float("nan"), dtype=torch.bfloat16)
    counts = torch.full((3,), -1, dtype=torch.int32)
    result = host.launch(
        {**given, "selection": words, "c": c, "counts": counts},
        layer=0,
        keep=keep,
        config=planning.config_of(config),
        soc="910b1",
        lib_path=native.library("twin"),
    )
    assert result.ok, "\n".join(map(str, result.findings))
    return {"c": c, "counts": counts}


def rows_of(given: Tensors, rows: list[int]) -> Tensors:
    return {
        n: t[rows].contiguous() if n[0] != "b" and n != "col_scale" else t for n, t in given.items()
    }


@MANY
@given(
    st.integers(1, 150), st.integers(1, 120), st.integers(1, 200), st.integers(0, 999), st.data()
)
def test_the_bits_of_a_row_do_not_follow_from_its_mates(
    m: int, n: int, k: int, seed: int, data: st.DataObject
) -> None:
    given = operands(m, n, k, seed)
    owners = data.draw(st.lists(st.integers(-1, 63), min_size=m, max_size=m))
    given["owner"] = torch.tensor(owners, dtype=torch.int32)
    requests = data.draw(st.sets(st.integers(0, 63), max_size=40))
    words = selection.pack(1, requests=requests)
    whole = run(given, words)["c"]
    some = data.draw(st.lists(st.integers(0, m - 1), min_size=1, max_size=6))
    alone = run(rows_of(given, some), words)["c"]
    assert torch.equal(alone.view(torch.int16), whole[some].view(torch.int16))


def test_a_change_of_the_selection_takes_effect_at_the_next_launch() -> None:
    given = operands(130, 40, 64)
    words = selection.pack(70)
    codes = run(given, words)
    assert codes["counts"].tolist() == [0, 130, 0]
    selection.set_bits(words, groups=[1])
    part = run(given, words)
    assert part["counts"].tolist() == [64, 66, 0]
    selection.set_bits(words, layers=[0])
    floats = run(given, words)
    assert floats["counts"].tolist() == [130, 0, 0]
    for rows, source in ((slice(64), codes), (slice(64, 128), floats), (slice(128, 130), codes)):
        assert torch.equal(part["c"][rows], source["c"][rows])


@pytest.mark.parametrize("chosen", [{"requests": [5]}, {"groups": [40]}], ids=["request", "group"])
def test_bits_that_no_row_asks_for_leave_rows_where_they_are(chosen: dict[str, list[int]]) -> None:
    given = operands(70, 32, 64)
    plain, same = run(given, selection.pack(1)), run(given, selection.pack(1, **chosen))
    assert torch.equal(plain["c"], same["c"]) and same["counts"].tolist() == [0, 70, 0]


def test_the_most_rows() -> None:
    given = operands(planning.MOST_ROWS, 16, 32)
    given["owner"] = torch.arange(planning.MOST_ROWS, dtype=torch.int32) % 65 - 1
    words = selection.pack(1, groups=[0, 63], requests=[3, 62, 63])
    found = run(given, words, tile_m=128, tile_n=16)
    chosen = selection.rows_in_bf16(words, 0, given["owner"])
    assert found["counts"].tolist() == [int(chosen.sum()), int((~chosen).sum()), 0]
    want = given["a"].double() @ given["b16"].double().t()
    assert torch.allclose(found["c"][chosen].double(), want[chosen], rtol=2**-7, atol=1e-3)


def test_what_is_refused() -> None:
    given = operands(66, 16, 32)
    words = selection.pack(1, groups=[1])

    def refused(sentence: str, **changed: torch.Tensor | None) -> None:
        kept = {name: t for name, t in {**given, **changed}.items() if t is not None}
        with pytest.raises(ValueError, match=sentence):
            run(kept, words)

    refused(r"row 64 is selected and its bf16 weights are not resident", a=None, b16=None)
    refused(r"owner\[0\] is 64; accepted: 0 to 63", owner=torch.full((66,), 64, dtype=torch.int32))
    refused(r"row_scale has shape \(3,\), it must be \(66,\)", row_scale=torch.ones(3))
    refused(r"b16 has shape", b16=torch.zeros((16, 31), dtype=torch.bfloat16))
    kept = {name: t for name, t in given.items() if name not in ("a", "b16")}
    assert run(kept, words, keep=True)["counts"].tolist() == [0, 66, 2]


@pytest.mark.parametrize("soc", sorted(SOCS))
@pytest.mark.parametrize("m", [1, 16, 130, planning.MOST_ROWS])
def test_as_few_blocks_as_take_no_longer(soc: str, m: int) -> None:
    for config in CONFIGS:
        chosen = planning.config_of(config)
        launch = planning.Launch(m, 1000, 64, 0, 3)
        total, count = planning.tiles(m, 1000, chosen), planning.blocks(launch, chosen, soc)
        assert 1 <= count <= SOCS[soc].cube_cores
        assert -(-total // count) == -(-total // SOCS[soc].cube_cores)
        stands = planning.representatives(launch, chosen, count)
        assert sum(stands.values()) == count and all(block < count for block in stands)


def test_a_plan_names_every_limit() -> None:
    with pytest.raises(ValueError, match=r"M is 4097, allowed are 1..4096; the row stride of c"):
        planning.plan(planning.Launch(4097, 8, 8, 0, 3, ldc=2**30), planning.config_of({}), "910b1")
    most = (2**31 - 1) // 2 - 65536  # the bytes of a bf16 row and a piece behind it stay an int32
    planning.plan(planning.Launch(1, 1, most, 0, 3), planning.config_of({}), "910b1")
    with pytest.raises(ValueError, match=f"K is {most + 1}, allowed are 1..{most}"):
        planning.plan(planning.Launch(1, 1, most + 1, 0, 3), planning.config_of({}), "910b1")
    (why,) = planning.illegal(planning.config_of({"tile_k": 48}), "910b1")
    assert why == "tile_k is 48, it must be a positive multiple of 32"


def test_the_host_reads_a_selection_as_the_family_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        words = torch.from_numpy(rng.integers(-(2**63), 2**63 - 1, 4))
        owner = torch.from_numpy(rng.integers(-1, 64, 300).astype(np.int32))
        for layer in (0, 63, 64, 127):
            want = selection.rows_in_bf16(words, layer, owner).numpy()
            assert (host.selected_rows(words.numpy(), layer, owner.numpy()) == want).all()
