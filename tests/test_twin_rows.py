"""rmsnorm, silu_mul, quantize and hadamard in AscendC on the twin, against their references; plans against UB."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright import check, native
from tilewright.ascendc.ops.hadamard import matrices
from tilewright.ascendc.ops.hadamard import planning as hadamard_planning
from tilewright.ascendc.ops.quantize import planning as quantize_planning
from tilewright.ascendc.ops.rmsnorm import planning as rmsnorm_planning
from tilewright.ascendc.ops.silu_mul import planning as silu_planning
from tilewright.ascendc.soc import SOCS, find
from tilewright.ascendc.twin.runner import How, running
from tilewright.backends.ascendc import AscendC
from tilewright.errors import Refused
from tilewright.inputs import Inputs, draw, make_outputs
from tilewright.kernels.hadamard.matrices import LARGEST, ORDERS, matrix, parts
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

TARGET = target("ascend:910b1")
MANY = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
FLOATS = st.sampled_from(("fp32", "bf16", "fp16"))
MEMORY = st.sampled_from(("dense", "padded"))
Tensors = dict[str, torch.Tensor]
ROWS = st.one_of(st.integers(0, 12), st.integers(40, 130))
COLS = st.one_of(st.integers(0, 70), st.integers(0, 1500), st.sampled_from((2048, 5120, 8224)))
SCALES = ("token", "channel", "static_token", "static_channel")
WIDTHS = tuple(m << n for m in ORDERS for n in range(4, 14) if m << n <= 4096)


def job(
    name: str,
    precision: str,
    sizes: Mapping[str, int],
    flags: Mapping[str, str] | None = None,
    *,
    memory: str = "dense",
    seed: int = 0,
    **config: int,
) -> check.Job:
    one = family(name)
    case = one.spec.case(dict(sizes), precision, dict(flags or {}), memory)
    chosen = Config(**{**dict(one.spec.default_config(TARGET)), **config})
    return check.Job(one, AscendC(), TARGET, case, chosen, seed)


def right(asked: check.Job, inputs: Inputs | None = None) -> None:
    """The outputs are the reference's, and the twin found nothing."""
    schedule = ("program", "timeline", "random")[asked.seed % 3]
    with running(How(schedule=schedule, seed=asked.seed)):
        row = check.run(asked, inputs)
    assert row.ok, f"{asked.case}: {row.reason}"


@MANY
@given(ROWS, COLS, FLOATS, st.sampled_from((64, 1024, 8192)), MEMORY, st.integers(0, 999))
def test_silu_mul(rows: int, cols: int, precision: str, tile: int, memory: str, seed: int) -> None:
    sizes = {"T": rows, "W": 2 * cols}
    right(job("silu_mul", precision, sizes, memory=memory, seed=seed, tile=tile))


@MANY
@given(
    *(ROWS, COLS, FLOATS, st.sampled_from(("no", "yes")), st.sampled_from((1, 3, 16))),
    *(MEMORY, st.integers(0, 999)),
)
def test_rmsnorm(
    rows: int, cols: int, precision: str, residual: str, tile: int, memory: str, seed: int
) -> None:
    flags = {"residual": residual, "eps": "1e-05"}
    sizes = {"T": rows, "D": cols}
    right(job("rmsnorm", precision, sizes, flags, memory=memory, seed=seed, tile_t=tile))


@MANY
@given(
    *(ROWS, COLS, FLOATS, st.sampled_from(SCALES), st.sampled_from((64, 1024, 8192))),
    *(MEMORY, st.integers(0, 999)),
)
def test_quantize(
    rows: int, cols: int, precision: str, scales: str, tile: int, memory: str, seed: int
) -> None:
    sizes = {"T": rows, "D": cols}
    flags = {"scales": scales}
    right(job("quantize", precision, sizes, flags, memory=memory, seed=seed, tile=tile))


@MANY
@given(
    *(ROWS, st.sampled_from(WIDTHS), FLOATS, st.sampled_from((1, 3, 32))),
    *(MEMORY, st.integers(0, 999)),
)
def test_hadamard(rows: int, cols: int, precision: str, tile: int, memory: str, seed: int) -> None:
    sizes = {"T": rows, "D": cols}
    right(job("hadamard", precision, sizes, memory=memory, seed=seed, tile_t=tile))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_longest_rows(precision: str) -> None:
    """Rows that come in pieces, and transforms that do not fit at once."""
    flags = {"residual": "yes"}
    right(job("rmsnorm", precision, {"T": 3, "D": 16384}, flags, seed=2))
    right(job("quantize", precision, {"T": 3, "D": 20001}, {"scales": "token"}, seed=2))
    for cols in (16384, 18432, LARGEST):
        right(job("hadamard", precision, {"T": 2, "D": cols}, seed=2))


# --- bits of a row --------------------------------------------------------------------------------

ALONE = (
    ("rmsnorm", {"D": 2500}, {"residual": "yes"}, ("y", "h")),
    ("rmsnorm", {"D": 100}, {"residual": "no"}, ("y",)),
    ("silu_mul", {"W": 2600}, {}, ("y",)),
    ("quantize", {"D": 700}, {"scales": "token"}, ("q", "token_scale")),
    ("hadamard", {"D": 1024}, {}, ("y",)),
    ("hadamard", {"D": 1280}, {}, ("y",)),
)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("name", "width", "flags", "outputs"), ALONE)
def test_a_row_does_not_depend_on_its_batch(
    name: str,
    width: dict[str, int],
    flags: dict[str, str],
    outputs: tuple[str, ...],
    precision: str,
) -> None:
    flags = {**flags, "batch_invariant": "yes"}
    whole = launched(job(name, precision, {"T": 150, **width}, flags))
    for first, rows in ((0, 1), (149, 1), (37, 90)):
        asked = job(name, precision, {"T": rows, **width}, flags)
        inputs = {
            n: v[first : first + rows].clone() if v.shape[0] == 150 else v
            for n, v in whole.items()
            if v is not None and n not in outputs
        }
        part = launched(asked, inputs)
        for output in outputs:
            want = whole[output][first : first + rows]
            assert torch.equal(bits(part[output]), bits(want)), (output, first)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.uint8)


def launched(asked: check.Job, given_inputs: Tensors | None = None) -> Tensors:
    """Inputs and outputs of one launch."""
    drawn = draw(asked.family, asked.case, 3)
    tensors = {
        **drawn.physical,
        **(given_inputs or {}),
        **make_outputs(asked.family, asked.case, drawn),
    }
    adapter = AscendC().adapter(asked.family)
    adapter.launch(tensors, asked.case, asked.config, asked.target, native.library("twin"))
    return tensors


# --- matrices, plans, refusals --------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("power", [1, 2])
def test_signs_are_those_of_the_spec(order: int, power: int) -> None:
    words = matrices.signs(order, power)
    side = order * power
    found = [
        [
            -1 if words[i * matrices.WORDS + j // 32] >> j % 32 & 1 else 1
            for j in range(min(side, 32 * matrices.WORDS))
        ]
        for i in range(side)
    ]
    sylvester = (
        torch.tensor([[1, 1], [1, -1]]) if power == 2 else torch.ones((1, 1), dtype=torch.int64)
    )
    want = torch.kron(torch.tensor(matrix(order)), sylvester)
    assert torch.equal(torch.tensor(found), want[:, : len(found[0])])


def test_parts_are_those_of_the_spec() -> None:
    for d in range(1, 4000):
        assert matrices.parts(d) == parts(d)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    *(st.integers(1, 5000), st.integers(1, 40000), st.sampled_from((2, 4)), st.booleans()),
    *(st.booleans(), st.sampled_from((1, 4, 32, 1024, 8192)), st.sampled_from(sorted(SOCS))),
)
def test_plans_fit(
    rows: int, cols: int, element: int, token: bool, found: bool, wanted: int, soc: str
) -> None:
    part = find(soc)
    cores = 2 * part.cube_cores
    silu = silu_planning.Launch(rows, cols, element, 2 * cols, cols)
    assert 0 < silu_planning.plan(silu, "fp32", wanted, soc).block_dim <= cores
    norm = rmsnorm_planning.Launch(*(rows, cols, element, found, 1e-6), *(cols, cols, cols, cols))
    if cols <= 16384:
        assert rmsnorm_planning.too_wide(norm, part.ub) is None
        assert 0 < rmsnorm_planning.plan(norm, "fp32", wanted, soc).block_dim <= cores
    codes = quantize_planning.Launch(rows, cols, element, cols, cols, token, found)
    if not token or cols <= 30000:
        assert quantize_planning.too_wide(codes, part.ub) is None
        assert 0 < quantize_planning.plan(codes, "fp32", wanted, soc).block_dim <= cores
    of = hadamard_planning.Launch(rows, cols, element, cols, cols)
    if parts(cols) and cols % 16 == 0 and cols // parts(cols)[0] >= 16:
        assert hadamard_planning.refused(of, part.ub) is None
        assert 0 < hadamard_planning.plan(of, "fp32", wanted, soc)[0].block_dim <= cores


def test_refusals() -> None:
    def refused(asked: check.Job, sentence: str, **changed: torch.Tensor) -> None:
        outputs = make_outputs(asked.family, asked.case, draw(asked.family, asked.case, 0))
        with pytest.raises(Refused, match=sentence):
            launched(asked, {**outputs, **changed})

    norm = job("rmsnorm", "fp32", {"T": 4, "D": 8})
    refused(norm, "do not fit together", weight=torch.ones(7))
    codes = job("quantize", "fp32", {"T": 4, "D": 8}, {"scales": "static_token"})
    for bad in (0.0, -1.0, float("nan"), float("inf"), 2.0**-127, 2.0**127):
        scale = torch.ones(4)
        scale[2] = bad
        refused(codes, r"given_token_scale\[2\] is", given_token_scale=scale)
    refused(job("silu_mul", "fp32", {"T": 4, "W": 8}), "do not fit", gate_up=torch.empty(4, 10))
    small = job("hadamard", "fp32", {"T": 4, "D": 24})
    reason = AscendC().refuses(small.family, small.case, small.config, TARGET)
    assert reason is not None and "D=24; accepted: m" in reason
    refused(small, "D=24; accepted: m")
