"""Every fault planted into the corpus is found as what it is, where it is; good kernels are left alone."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "native"))
import twin_build
import twin_corpus
import twin_findings_page
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


COMPILERS = {"PipeBarrier<PIPE_V>"} | {
    f"HardEvent::{e}" for e in ("S_V", "V_S", "S_MTE2", "MTE2_S", "S_MTE3", "MTE3_S")
}


def test_auto_sync_mends_what_the_compiler_would_and_nothing_else() -> None:
    mended = 0
    for mutant in FAULTS:
        expected = mutant.expected()
        if {e.kind for e in expected} != {"race"}:
            continue
        result, arrays = launch(mutant, "random", 1, auto_sync=True)
        in_gm = any(f.memory == "gm" for f in launch(mutant, "program", 0)[0].findings)
        if {e.missing for e in expected} <= COMPILERS and not in_gm:
            assert result.ok and result.inserted_syncs > 0, mutant.symbol
            mended += 1
        else:
            assert {e.missing for e in found(result)} == {e.missing for e in expected}, (
                mutant.symbol
            )
    assert mended >= 10


def test_enough_faults_of_every_kind_and_every_flag_that_a_core_can_miss() -> None:
    assert len(FAULTS) >= 60
    expected = [e for m in FAULTS for e in m.expected()]
    assert {e.kind for e in expected} == set(twin_findings_page.KINDS)
    missing = {e.missing.removeprefix("HardEvent::") for e in expected if e.missing}
    vector = "MTE2_V V_MTE2 V_MTE3 MTE3_V MTE3_MTE2 MTE2_S S_MTE2 S_V V_S S_MTE3 MTE3_S"
    cube = "MTE2_MTE1 MTE1_MTE2 MTE1_M M_MTE1 M_FIX FIX_M MTE2_FIX FIX_MTE2 FIX_MTE1 MTE2_MTE3"
    barriers = {f"PipeBarrier<PIPE_{p}>" for p in ("V", "M", "MTE2", "MTE3")}
    assert missing >= {*vector.split(), *cube.split(), *barriers, twin_corpus.ACROSS}


def test_every_finding_says_where_and_what() -> None:
    for mutant in FAULTS:
        for finding in launch(mutant, "program", 0)[0].findings:
            text = str(finding)
            assert f"{mutant.file}:{finding.line}: {finding.kind}: " in text and "pipe " in text
            if finding.kind == "race":
                assert f"{mutant.file}:{finding.other_line}" in text and finding.missing in text
                assert finding.other_pipe in text and finding.range[1] > finding.range[0]
                assert "{}..{}".format(*finding.range) in text
            if finding.kind == "deadlock":
                assert "waits" in text
            if finding.kind == "capacity":
                held = twin_corpus.CORPUS.name + f"/{mutant.kernel}.cpp:{finding.line}"
                assert "Held: [0.." in text and held in text.partition("Held:")[2]


def test_a_circle_of_waits_is_told_from_the_wait_that_lacks_its_flag() -> None:
    mutant = next(m for m in FAULTS if m.symbol == "vector_add__never_primed_in")
    (finding,) = launch(mutant, "program", 0)[0].findings
    lines = {label: n for n, line in enumerate(mutant.lines(), 1) for label in _labels(line)}
    steps = finding.message.split(" -> ")
    assert f"pipe MTE2 waits at {mutant.file}:{lines['wait_free_in']}" in steps[0]
    assert "HardEvent::V_MTE2 with event id 0" in steps[0]
    assert f"pipe V sets at {mutant.file}:{lines['free_in']}" in steps[0]
    assert f"pipe V waits at {mutant.file}:{lines['wait_full']}" in steps[1]
    assert steps[2].startswith("pipe MTE2 again")


def test_a_circle_of_cores_is_told_with_the_flags_of_each() -> None:
    mutant = next(m for m in FAULTS if m.symbol == "mixed_workspace__one_core_forgets")
    (told,) = (f for f in launch(mutant, "program", 0)[0].findings if f.kind == "deadlock")
    for part in (
        "the cube core of block 0 waits",
        "for flag 1, which vector core 0 of block 0 has set at",
        "vector core 1 of block 0 does not set -> vector core 1 of block 0 waits",
        "-> the cube core of block 0 again",
    ):
        assert part in told.message


def _labels(line: str) -> list[str]:
    return re.findall(r"@(\w+)", line.partition("// ")[2])


def test_the_page_of_findings_is_up_to_date() -> None:
    assert twin_findings_page.PAGE.read_text(encoding="utf-8") == twin_findings_page.page()
