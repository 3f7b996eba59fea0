"""What compiled ops get where nothing is tuned: at every benchmark's sizes what the family's tiling says."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tilewright.bindings import cpp
from tilewright.bindings.table import BACKEND, op_of
from tilewright.cases import Case
from tilewright.registry import Family, families, package_folder
from tilewright.tables import Table
from tilewright.targets import CPU

FAMILIES = {
    name: one
    for name, one in families().items()
    if one.spec.tiling is not None and one.spec.space_for(CPU) is not None
}


def bench_cases(family: Family) -> Iterator[Case]:
    """Every precision, layout and other flag at the sizes of the benchmarks."""
    spec = family.spec
    assert spec.bench_cases is not None
    for precision in spec.precisions:
        for flags in spec.flag_combinations(precision, BACKEND):
            for sizes in spec.bench_cases.sizes:
                if not spec.why_invalid(sizes, precision.name, flags):
                    yield spec.case(sizes, precision.name, flags)


def test_some_families_have_a_tiling() -> None:
    assert {"gemm", "grouped_gemm"} <= set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_choose_at_every_benchmark_what_the_tiling_says(name: str) -> None:
    family = FAMILIES[name]
    table = Table(name, CPU.name, op_of(family).tiling)
    for case in bench_cases(family):
        chosen = table.nearest(case)
        found = chosen.config if chosen else family.spec.default_config(CPU)
        assert found == family.spec.config_for(case, CPU), case


@pytest.mark.parametrize("name", FAMILIES)
def test_compiled_code_chooses_it_too(name: str, tmp_path: Path) -> None:
    """The border and the tables of compiled ops, around a kernel that says which config it is given."""
    family = FAMILIES[name]
    program = compiled(family, tmp_path)
    cases = list(bench_cases(family))
    spec = family.spec
    names = [p.name for p in spec.precisions]
    asked = [
        [
            *(names.index(case.precision), len(spec.flags)),
            *(f.values.index(case.flags[f.name]) for f in spec.flags),
            *("avx2", 1 << 30, *case.sizes.values()),
        ]
        for case in cases
    ]
    text = "".join(" ".join(map(str, numbers)) + "\n" for numbers in asked)
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(cases)
    for case, line in zip(cases, lines, strict=True):
        _, _, used = line.partition(":")
        assert used.split() == ["ran", *map(str, spec.config_for(case, CPU).values())], case


def compiled(family: Family, folder: Path) -> Path:
    source = Path(__file__).parent / "native" / "border_choice.cpp"
    (folder / "tables.inc").write_text(cpp.tables(op_of(family), "picky_kernel"), encoding="utf-8")
    bindings, kernels = package_folder("tilewright.bindings"), package_folder("tilewright.kernels")
    command = ["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{folder}"]
    command += [f"-I{bindings}", f"-I{kernels}", f"-DTW_OP={family.spec.name}_op"]
    sources = [bindings / "border.cpp", bindings / "choice.cpp", source]
    command += [*map(str, sources), "-o", str(folder / "choose")]
    subprocess.run(command, check=True)
    return folder / "choose"
