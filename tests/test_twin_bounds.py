"""The floors of the model, held against timings that others published: none may lie below its floor."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tilewright.ascendc.twin.bounds import RATES
from tilewright.backends.ascendc import AscendC
from tilewright.registry import family
from tilewright.space import Config
from tilewright.targets import target

MHZ = 1850


@dataclass(frozen=True, slots=True)
class Published:
    """A gemm of 8192^3, fp16, 128x256x64 tiles on the 24 cores of a 910B1; times in us per pipe."""

    source: str
    step_ka: int
    step_kb: int
    l1_buffers: int
    unit_flag: int
    l2_split_m: int
    m: float
    mte1: float
    mte2: float
    fix: float


# asc-devkit's READMEs of matmul_high_performance (cases 3 to 8) and matmul_basic_api_high_performance.
GEMMS = (
    Published("case 3", 1, 1, 1, 0, 1, 3394.884, 2166.824, 8616.671, 488.829),
    Published("case 4", 2, 2, 2, 0, 1, 3116.472, 2332.914, 4051.458, 44.749),
    Published("case 5", 8, 4, 2, 0, 1, 3352.087, 2750.454, 3778.555, 47.853),
    Published("case 6", 8, 4, 2, 0, 2, 3254.310, 2680.849, 3625.420, 47.398),
    Published("case 8", 8, 4, 2, 1, 2, 3076.396, 2533.512, 3435.584, 272.576),
    Published("basic API 1", 8, 4, 2, 1, 1, 3081.664, 2538.348, 3552.248, 160.405),
    Published("basic API 2", 8, 4, 2, 1, 2, 3082.158, 2553.064, 3487.068, 161.812),
)


@pytest.mark.parametrize("row", GEMMS, ids=lambda row: row.source)
def test_no_published_gemm_is_below_its_floor(row: Published) -> None:
    gemm, chip = family("gemm"), target("ascend:910b1")
    config = Config(
        {
            **gemm.spec.default_config(chip),
            "tile_m": 128,
            "tile_n": 256,
            "tile_k": 64,
            "grid_m": 4,
            "grid_n": 6,
            "step_ka": row.step_ka,
            "step_kb": row.step_kb,
            "l1_buffers": row.l1_buffers,
            "unit_flag": row.unit_flag,
            "l2_split_m": row.l2_split_m,
        }
    )
    case = gemm.spec.case({"M": 8192, "N": 8192, "K": 8192}, "fp16", {"b_layout": "KN"})
    result, floor = AscendC().model(gemm, case, config, chip)
    assert result.ok
    floors = {pipe: cycles / MHZ for pipe, cycles in floor.pipes.items()}
    for pipe in ("m", "mte1", "mte2", "fix"):
        assert 0 < floors[pipe] <= getattr(row, pipe), pipe
    # A floor that no measurement comes near would be of no use: the cube runs at 9/10 of its own.
    assert floors["m"] >= 0.9 * row.m


def test_the_rate_of_reading_is_no_less_than_what_copies_reach() -> None:
    # nd2nz of [64,1024] tiles that lie in L2: 5.0 TB/s over 24 cores (asc-devkit, data_copy L1).
    assert RATES["mte2"]["l1"].bytes_per_cycle >= 5.0e12 / (24 * MHZ * 1e6)


def test_every_rate_says_where_it_is_published() -> None:
    rates = [rate for rates in RATES.values() for rate in rates.values()]
    assert rates and all(rate.bytes_per_cycle > 0 and len(rate.source) > 20 for rate in rates)
