"""Buckets and tables: what the tuner writes is what Python and generated C++ find again, on any size."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright import buckets, tables
from tilewright.autotune import study
from tilewright.bindings import cpp, generate
from tilewright.bindings.table import Op, op_of
from tilewright.buckets import Span
from tilewright.cases import Case
from tilewright.errors import TilewrightError
from tilewright.perf import bench
from tilewright.registry import Family, family, package_folder
from tilewright.ship import bundle, dispatch, ranges
from tilewright.ship.gpu import compile_gpu
from tilewright.ship.launcher.entries import read_entries
from tilewright.space import Config, Rule, Space
from tilewright.spec import KernelSpec
from tilewright.tables import Entry, Table
from tilewright.targets import CPU, Target, target

GEMM = family("gemm")
SPEC = GEMM.spec
SIZES = st.one_of(
    st.integers(0, 5000), st.integers(0, 2**62), st.sampled_from([0, 1, 2, 63, 64, 65])
)
quick = settings(derandomize=True, deadline=None, max_examples=200)


def case(m: int, n: int = 576, k: int = 576, precision: str = "fp32", layout: str = "NK") -> Case:
    return SPEC.case({"M": m, "N": n, "K": k}, precision, {"b_layout": layout})


def entry(m: int, tile: int, over: int | None = None, precision: str = "fp32") -> Entry:
    config = Config({**SPEC.default_config(CPU), "tile_m": tile})
    flags = {"b_layout": "NK", "bias": "no", "scale": "none"}
    return Entry((m, 576, 576), precision, flags, config, over=over)


@quick
@given(size=SIZES)
def test_a_bucket_by_powers_of_two_holds_the_sizes_that_map_to_it(size: int) -> None:
    upper = buckets.upper_bound(size)
    assert Span.of(upper).holds(size)
    assert not Span.of(upper).holds(upper + 1)
    assert buckets.upper_bound(Span.of(upper).over + 1) == upper


@quick
@given(bounds=st.lists(st.integers(1, 5000), min_size=1, max_size=8, unique=True), size=SIZES)
def test_explicit_bounds_cut_the_sizes_into_ranges(bounds: list[int], size: int) -> None:
    ordered = sorted(bounds)
    upper = buckets.upper_bound(size, bounds)
    spans = [Span.of(u, o) for o, u in itertools.pairwise([-1, *ordered])]
    holding = [s for s in spans if s.holds(size)]
    assert [s.upper for s in holding] == ([upper] if size <= ordered[-1] else [])
    assert size <= ordered[-1] or upper == buckets.upper_bound(size)


@quick
@given(one=SIZES, other=SIZES)
def test_distances_are_octaves_and_none_only_between_equals(one: int, other: int) -> None:
    found = buckets.octaves(one, other)
    true = abs(math.log2(max(one, 1)) - math.log2(max(other, 1)))
    assert (found == 0) == (one == other)
    assert found == buckets.octaves(other, one)
    assert found / buckets.OCTAVE == pytest.approx(true, abs=4 / buckets.OCTAVE)


def test_one_function_writes_and_reads() -> None:
    # Not a copy each: a floor here and a ceiling there is how tuned configs reach calls they were not tuned for.
    assert study.tables.bucket is tables.bucket is buckets.bucket
    assert bench.tables.choose is tables.choose
    assert bundle.dispatch is dispatch and dispatch.load is tables.load
    assert generate.read is tables.read
    assert cpp.Entry is tables.Entry and cpp.operands is tables.operands


def test_a_swept_range_beats_the_power_of_two_around_it_and_gives_way_to_a_narrower_one() -> None:
    swept, old, narrow = entry(100, 64, over=20), entry(256, 96), entry(64, 48)
    read = Table("gemm", "cpu", tables._specific_first([old, swept, narrow]))

    def tile(m: int) -> int:
        return tables.choose(GEMM, case(m), CPU, read).config["tile_m"]

    assert [tile(m) for m in (21, 32, 33, 64, 65, 100, 101, 128, 129, 256)] == [
        64, 64, 48, 48, 64, 64, 64, 96, 96, 96
    ]  # fmt: skip
    assert "of 21..100" in tables.choose(GEMM, case(80), CPU, read).source


def test_a_sweep_replaces_what_it_covers_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    other = replace(entry(64, 8), bucket=(64, 64, 576))
    for one in (entry(16, 8), entry(64, 8), entry(4096, 8), other, entry(64, 8, precision="bf16")):
        tables.store(path, GEMM, CPU, one)
    tables.store_sweep(path, GEMM, CPU, [entry(48, 64, over=31), entry(200, 96, over=48)])
    found = {
        (e.precision, *e.bucket, e.over): e.config["tile_m"]
        for e in tables.read(path, GEMM, CPU).entries
    }
    assert found == {
        ("fp32", 16, 576, 576, None): 8,
        ("fp32", 4096, 576, 576, None): 8,
        ("fp32", 64, 64, 576, None): 8,
        ("bf16", 64, 576, 576, None): 8,
        ("fp32", 48, 576, 576, 31): 64,
        ("fp32", 200, 576, 576, 48): 96,
    }
    tables.store_sweep(path, GEMM, CPU, [entry(4096, 128, over=0)])
    left = [r for r in json.loads(path.read_text())["devices"].popitem()[1]["entries"]]
    assert [r["bucket"] for r in left if r["precision"] == "fp32"] == [
        [64, 64, 576],
        [4096, 576, 576],
    ]


def test_a_row_whose_ends_make_no_range_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    tables.store(path, GEMM, CPU, entry(100, 64, over=20))
    good = path.read_text()
    for wrong in ("100", '"20"', "-2", "1.5"):
        path.write_text(good.replace('"over": 20', f'"over": {wrong}'))
        with pytest.raises(TilewrightError, match="are no range"):
            tables.read(path, GEMM, CPU)


def with_rule(limit: Callable[[Case], int]) -> Family:
    """gemm whose tile_m is limited by the case."""

    def check(spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
        most = limit(case)
        return f"tile_m={config['tile_m']} of at most {most}" if config["tile_m"] > most else None

    space = Space((Rule("test", check),), **SPEC.space["cpu"].fields)
    return replace(GEMM, spec=replace(SPEC, space={"cpu": space}))


def test_an_illegal_config_gives_way_to_the_next_nearest_and_the_reasons_are_told() -> None:
    found = with_rule(lambda case: case.sizes["M"])
    table = Table("gemm", "cpu", (entry(64, 64), entry(128, 128), entry(32, 32)))
    choice = tables.choose(found, case(33), CPU, table)
    assert choice.config["tile_m"] == 32
    assert choice.source == (
        "nearest tuned bucket (32, 576, 576) to (33, 576, 576); "
        "the config of bucket (64, 576, 576) is illegal here (tile_m=64 of at most 33)"
    )
    assert [e.bucket[0] for e, _ in choice.passed] == [64]
    nothing = tables.choose(found, case(5), CPU, table)
    assert nothing.config == SPEC.default_config(CPU)
    assert nothing.entry is None and len(nothing.passed) == 3
    assert nothing.source.startswith(
        "default: nothing tuned is legal here; the config of bucket (32,"
    )


@quick
@given(m=SIZES, limit=st.integers(1, 256))
def test_what_is_chosen_is_legal_or_the_default(m: int, limit: int) -> None:
    found = with_rule(lambda case: limit)
    table = Table("gemm", "cpu", tuple(entry(2**i, 2 ** min(i + 3, 8)) for i in range(9)))
    choice = tables.choose(found, case(m), CPU, table)
    if choice.entry is None:
        assert choice.config == SPEC.default_config(CPU)
        assert all(e.config["tile_m"] > limit for e in table.entries)
    else:
        assert choice.config["tile_m"] <= limit
        nearer = [
            e
            for e in table.entries
            if tables.distance(e, case(m)) < tables.distance(choice.entry, case(m))
        ]
        assert all(e.config["tile_m"] > limit for e in nearer)
    assert choice.source


LEVELS = ("avx2", "amx")


def many_entries(rng: random.Random) -> list[Entry]:
    """Rows of every kind, swept and not, overlapping, some of no use to the op."""
    values = list(SPEC.space["cpu"].fields.values())
    names = list(SPEC.space["cpu"].fields)
    found = []
    for i in range(120):
        upper = rng.choice([0, 1, 2, 7, 64, 100, 128, 1000, 4096, 2**40, 2**62])
        over = rng.choice([None, rng.randrange(-1, upper) if upper else -1])
        upper = upper if over is not None else buckets.upper_bound(upper)
        precision = rng.choice(SPEC.precisions)
        flags = rng.choice(SPEC.flag_combinations(precision))
        if i % 20 == 0:
            flags = {"bias": "no"}
        name = "gone" if i % 30 == 1 else precision.name
        tail = (rng.choice([1, 576, 577, 2**33]), rng.choice([0, 576, 1536]))
        config = Config(dict(zip(names, map(rng.choice, values), strict=True)))
        level = rng.choice(["", *LEVELS])
        found.append(Entry((upper, *tail), name, flags, config, {}, "", level, over))
    return found


def calls(rng: random.Random, count: int, rows: Sequence[Entry]) -> list[tuple[Case, str, int]]:
    """Random cases, every other one near a row, with a CPU level and the largest tile_m that the kernel takes."""
    sizes = [0, 1, 2, 8, 63, 64, 65, 100, 101, 576, 577, 1000, 4097, 2**31, 2**40 + 1, 2**62]
    found = []
    for i in range(count):
        precision = rng.choice(SPEC.precisions)
        flags = rng.choice(SPEC.flag_combinations(precision))
        m = rng.choice([rng.choice(sizes), rng.randrange(2**63), rng.randrange(5000)])
        tail = (rng.choice(sizes), rng.choice([0, 576, 577, 1536, 2**50]))
        if i % 2:
            row = rng.choice(rows)
            ends = (row.span.over, row.span.over + 1, row.bucket[0], row.bucket[0] + 1)
            precision, flags = SPEC.precision(row.precision), dict(row.flags)
            m, tail = max(0, rng.choice(ends)), (row.bucket[1], row.bucket[2])
        case = SPEC.case(dict(zip("MNK", (m, *tail), strict=True)), precision.name, flags)
        found.append((case, rng.choice(LEVELS), rng.choice([7, 40, 100, 256])))
    return found


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Entry, ...]]:
    """A program around the border and generated tables, and the rows of these tables in their order."""
    op = replace(op_of(GEMM, many_entries(random.Random(7))), tiling=())
    return border_program(tmp_path_factory.mktemp("border"), op), tuple(cpp._usable(op))


def border_program(folder: Path, op: Op) -> Path:
    """The border and the generated tables of an op around a kernel that takes tiles up to a limit."""
    (folder / "tables.inc").write_text(cpp.tables(op, "picky_kernel"), encoding="utf-8")
    bindings, kernels = package_folder("tilewright.bindings"), package_folder("tilewright.kernels")
    source = Path(__file__).parent / "native" / "border_choice.cpp"
    command = ["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined"]
    command += ["-fno-sanitize-recover", f"-I{folder}", f"-I{bindings}", f"-I{kernels}"]
    sources = [bindings / "border.cpp", bindings / "choice.cpp", source]
    command += [*map(str, sources), "-o", str(folder / "choose")]
    subprocess.run(command, check=True)
    return folder / "choose"


def ask(
    program: Path, asked: list[tuple[Case, str, int]], **environment: str
) -> tuple[list[str], list[str]]:
    """Lines of output and of standard error for these calls."""
    names = [p.name for p in SPEC.precisions]
    text = ""
    for one, level, limit in asked:
        flags = [f.values.index(one.flags[f.name]) for f in SPEC.flags]
        numbers = [
            names.index(one.precision),
            len(flags),
            *flags,
            level,
            limit,
            *one.sizes.values(),
        ]
        text += " ".join(map(str, numbers)) + "\n"
    env = {**os.environ, **environment}
    done = subprocess.run(
        [program], input=text, capture_output=True, text=True, check=True, env=env
    )
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_generated_cpp_chooses_as_python_does_on_any_shape(
    choosing: tuple[Path, tuple[Entry, ...]],
) -> None:
    program, rows = choosing
    asked = calls(random.Random(11), 4000, rows)
    lines, silence = ask(program, asked)
    assert len(lines) == len(asked) and silence == []
    outcomes: dict[str, int] = {}
    for (one, level, limit), line in zip(asked, lines, strict=True):
        order, _, used = line.partition(":")
        here = tuple(e for e in rows if e.level in ("", level))
        expected = list(Table("gemm", "cpu", here).candidates(one))
        assert [rows[int(i)] for i in order.split()] == expected, f"{one} {one.precision} {level}"
        outcomes |= compare_use(used.split(), expected, limit, outcomes)
    assert all(outcomes.get(k, 0) > 50 for k in ("first", "later", "default")), outcomes


def test_generated_cpp_says_why_when_asked(choosing: tuple[Path, tuple[Entry, ...]]) -> None:
    program, rows = choosing
    asked = calls(random.Random(5), 400, rows)
    _, lines = ask(program, asked, TILEWRIGHT_EXPLAIN="1")
    kinds = set()
    for (one, level, limit), line in zip(asked, lines, strict=True):
        here = tuple(e for e in rows if e.level in ("", level))
        expected = list(Table("gemm", "cpu", here).candidates(one))
        legal = [e for e in expected if e.config["tile_m"] <= limit]
        passed = expected.index(legal[0]) if legal else len(expected)
        if not expected:
            said = "default: nothing tuned for this precision and layout"
        elif not legal:
            said = "default: nothing tuned is taken here"
        else:
            found = legal[0]
            ends = f"M={found.span.over + 1}..{found.span.upper},N={found.bucket[1]},K={found.bucket[2]}"
            word = "tuned for " if tables.holds(found, one) else "nearest tuned: "
            said = f"{word}{ends} {found.precision}"
        told = line.partition(f" {one.precision}: ")[2]
        assert told.partition(";")[0] == said
        assert (f"refused before: {passed}, " in told) == (passed > 0)
        kinds.add((said.split()[0], passed > 0))
    assert {k for k, _ in kinds} == {"tuned", "nearest", "default:"}
    assert ("tuned", False) in kinds and ("nearest", True) in kinds and ("default:", True) in kinds


def compare_use(
    used: list[str], expected: list[Entry], limit: int, outcomes: dict[str, int]
) -> dict[str, int]:
    """That the kernel ran with the first candidate it takes, else with the default; counts which."""
    legal = [e for e in expected if e.config["tile_m"] <= limit]
    config = legal[0].config if legal else SPEC.default_config(CPU)
    ran = "ran" if legal or config["tile_m"] <= limit else "refused"
    assert used == [ran, *map(str, config.values())]
    kind = "default" if not legal else "first" if legal[0] is expected[0] else "later"
    return {kind: outcomes.get(kind, 0) + 1}


def test_generated_cpp_tries_what_the_tiling_says_after_everything_tuned(tmp_path: Path) -> None:
    tuned = [entry(64, 192), entry(1024, 256)]
    op = op_of(GEMM, tuned)
    assert {e.bucket[0] for e in op.tiling} == {1, 16, 64, 256, 1024}
    assert all(e.config == SPEC.config_for(case_of(e), CPU) for e in op.tiling)
    program = border_program(tmp_path, op)
    for m, said, tile in (
        (64, "tuned for M=33..64", 192),
        (500, "nearest tuned: M=513..1024", 256),
    ):
        assert told(program, case(m), 256) == (f"{said},N=576,K=576 fp32", tile)
    # Where the kernel takes neither, and for a layout without tuned configs.
    assert told(program, case(64), 100) == ("tiling for M=33..64,N=576,K=576", 64)
    other = SPEC.case({"M": 300, "N": 80, "K": 9}, "bf16", {"b_layout": "KN"})
    assert told(program, other, 256) == ("nearest tiling: M=129..256,N=576,K=576", 128)


def case_of(row: Entry) -> Case:
    return SPEC.case(dict(zip("MNK", row.bucket, strict=True)), row.precision, row.flags)


def told(program: Path, one: Case, limit: int) -> tuple[str, int]:
    """Why a config was chosen, and its tile_m."""
    (line,), (said,) = ask(program, [(one, "avx2", limit)], TILEWRIGHT_EXPLAIN="1")
    why = said.partition(f" {one.precision}: ")[2].partition(";")[0]
    return why, int(line.partition(":")[2].split()[1])


def test_ranges_reach_the_generated_source_and_json(tmp_path: Path) -> None:
    swept = replace(entry(100, 64, over=20), level="avx2")
    text = cpp.tables(op_of(GEMM, [swept]), "nullptr")
    assert '{"avx2", 0, t0_flags, 20, t0_bucket, t0_config}' in text
    path = tmp_path / "cpu.json"
    tables.store(path, GEMM, CPU, swept)
    content: dict[str, Any] = json.loads(path.read_text())
    (row,) = next(iter(content["devices"].values()))["entries"]
    assert (row["bucket"], row["over"]) == ([100, 576, 576], 20)
    assert tables.read(path, GEMM, CPU).entries[0].span == Span(20, 100)


@quick
@given(
    rows=st.lists(
        st.tuples(
            st.integers(1, 300),
            st.integers(1, 300),
            st.sampled_from([64, 128, 576]),
            st.integers(0, 5),
        ),
        min_size=1,
        max_size=6,
    ),
    sizes=st.lists(st.integers(0, 700), min_size=1, max_size=30),
)
def test_ranges_for_launchers_are_the_choice_on_every_size(
    rows: list[tuple[int, int, int, int]], sizes: list[int]
) -> None:
    entries = [
        replace(entry(max(a, b), 8 << tile, over=min(a, b) - 1), bucket=(max(a, b), n, 576))
        for a, b, n, tile in rows
    ]
    table = Table("gemm", "cpu", tables._specific_first(entries))
    flags = {"b_layout": "NK", "bias": "no", "scale": "none"}
    found = ranges.pieces(GEMM, CPU, table, SPEC.precision("fp32"), flags)
    for n, m in itertools.product({e.bucket[1] for e in entries}, sizes):
        sizes_of = {"M": m, "N": n, "K": 576}
        fitting = [p for p in found if all(within(sizes_of[d], ends) for d, ends in p.when.items())]
        assert [p.config for p in fitting] == [tables.choose(GEMM, case(m, n), CPU, table).config]


def within(size: int, ends: tuple[int | None, int | None]) -> bool:
    low, high = ends
    return (low is None or low <= size) and (high is None or size <= high)


def test_tuned_gpu_binaries_stand_before_the_default_for_their_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path))
    where = target("cuda:sm_80")
    default = SPEC.default_config(where)
    kind = ("fp16", {"b_layout": "NK", "bias": "no", "scale": "none"})
    large = Config({**default, "tile_m": 64})
    rows = [
        Entry((16, 576, 576), *kind, default, over=0),
        Entry((512, 576, 576), *kind, large, over=16),
    ]
    tables.store_sweep(tables.user_path(GEMM, where), GEMM, where, rows)
    part = compile_gpu([GEMM], [where], ["fp16"], workers=1)
    entries = read_entries(part.entries)
    tuned = [e for e in entries if e.when]
    assert tuple(tuned) == entries[: len(tuned)]
    # Under batch_invariant a tile is never the table's.
    invariant = [e.flags.get("batch_invariant") for e in tuned]
    assert [(e.config["tile_m"], i) for e, i in zip(tuned, invariant, strict=True)] == [
        (64, 0)
    ] * 2 + [(32, 1)] * 2
    assert all(e.when == {"M": (17, None), "N": (576, 576), "K": (576, 576)} for e in tuned)
    assert all(e.config["tile_m"] == 32 for e in entries[len(tuned) :]) and len(entries) == 8
    row = dispatch.document([GEMM], [where], part, [])["targets"][where.name]["gemm"]
    assert [b["config"]["tile_m"] for b in row["buckets"]] == [32, 64]
    assert set(row["entries"]) == {e.id for e in entries}
