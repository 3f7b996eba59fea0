"""Every fault planted into the corpus is found as what it is, where it is; good kernels are left alone."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
import twin_corpus
from twin_build import runner
from twin_corpus import CLEAN, Expected, Mutant
from twin_corpus_cases import case

HOWS = (("program", 0), ("timeline", 0), ("random", 0), ("random", 1), ("random", 2))
FAULTS = [m for k in twin_corpus.kernels() for m in twin_corpus.mutants(k)]

case_of = cache(case)


def launch(
    mutant: Mutant, schedule: str, seed: int, **options: bool
) -> tuple[runner.TwinResult, dict[str, np.ndarray]]:
    arguments, arrays = case_of(mutant.kernel).arguments()
    result = runner.run(
        twin_build.twin(),
        mutant.symbol,
        case_of(mutant.kernel).blocks,
        arguments,
        kernel_library=twin_corpus.libraries()[mutant.symbol],
        schedule=schedule,
        seed=seed,
        **options,
    )
    return result, arrays


def found(result: runner.TwinResult) -> set[Expected]:
    return {
        Expected(f.kind, f.line, f.other_line if f.missing else 0, f.missing)
        for f in result.findings
    }


@pytest.mark.parametrize("kernel", twin_corpus.kernels())
@pytest.mark.parametrize("auto_sync", [False, True], ids=["plain", "auto_sync"])
def test_good_kernels_are_right_and_nothing_is_said_of_them(kernel: str, auto_sync: bool) -> None:
    spec = case_of(kernel)
    for schedule, seed in HOWS:
        result, arrays = launch(Mutant(kernel, CLEAN), schedule, seed, auto_sync=auto_sync)
        assert result.ok, [str(f) for f in result.findings]
        assert result.inserted_syncs == 0, "a kernel that orders everything needs no help"
        for name, want in spec.want.items():
            np.testing.assert_allclose(
                arrays[name], want, rtol=spec.tolerance, atol=spec.tolerance, err_msg=name
            )


@pytest.mark.parametrize("mutant", FAULTS, ids=lambda m: m.symbol)
def test_planted_faults_are_found_whatever_the_order(mutant: Mutant) -> None:
    for schedule, seed in HOWS:
        result, _ = launch(mutant, schedule, seed)
        assert found(result) == mutant.expected(), (
            schedule,
            seed,
            "\n".join(str(f) for f in result.findings),
        )
        assert {f.file for f in result.findings} == {mutant.file}
