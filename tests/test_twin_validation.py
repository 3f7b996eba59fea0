"""Published timings: how rows are read, what is built for them, how near the model comes."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import median

import pytest

from conftest import CommandLine
from tilewright import native
from tilewright.ascendc.bench import launches, page, validation, variants
from tilewright.ascendc.bench.variants import Row, Unknown
from tilewright.ascendc.ops.gemm import planning

SLOW = "G0"  # a single core of 64x64 tiles: 48 million instructions


def row(**columns: str) -> Row:
    return Row({"soc": "910B1", **columns})


@pytest.fixture(scope="module")
def outcomes() -> list[validation.Outcome]:
    rows = [r for r in validation.read(None) if r["id"] != SLOW]
    return validation.validate(native.library("twin"), rows)


def test_published_rows_are_met(outcomes: list[validation.Outcome]) -> None:
    summary = validation.summary(outcomes)
    assert summary.predicted == summary.rows == 40
    assert summary.median_error is not None and summary.median_error <= 0.12
    assert summary.p90_error is not None and summary.p90_error <= 0.30
    assert summary.gemm_spearman is not None and summary.gemm_spearman >= 0.9
    # No op is carried by another's rows. Of top-k and int8 gemm our kernels are modelled, which have bounds of
    # their own below.
    assert set(summary.by_op) == set(variants.OPS)
    own = {op: error for op, error in summary.by_op.items() if op not in ("topk", "gemm_int8")}
    assert all(error <= 0.15 for error in own.values()), summary.by_op


def test_rows_that_informed_no_constant_are_met_too(outcomes: list[validation.Outcome]) -> None:
    held = [abs(o.ratio - 1) for o in outcomes if o.ratio is not None and not o.used_to_fit]
    assert len(held) >= 8
    assert sorted(held)[len(held) // 2] <= 0.12


def test_each_step_that_made_a_gemm_faster_makes_the_prediction_faster(
    outcomes: list[validation.Outcome],
) -> None:
    predicted = {o.id: o.predicted_us or 0.0 for o in outcomes}
    assert predicted["G1"] > 10 * predicted["G3"] > 10 * predicted["G4"] > 10 * predicted["G5"]


def test_our_mixed_int8_gemm_is_modelled_below_the_published_time(
    outcomes: list[validation.Outcome],
) -> None:
    found = {o.id: o for o in outcomes if o.op == "gemm_int8"}
    assert not any(o.used_to_fit for o in found.values())
    ratios = {name: o.ratio or 0 for name, o in found.items() if "our mixed kernel" in o.note}
    assert set(ratios) == {"I5", "I7", "I9"}
    assert all(0.7 <= ratio < 1 for ratio in ratios.values()), ratios
    assert set(found) - set(ratios) == {"I1"} and abs((found["I1"].ratio or 0) - 1) <= 0.15


def test_int8_gemms_as_two_launches_are_met() -> None:
    """Every row, those that our mixed kernel answers too; I7 alone is 15.5 % off."""
    ratios = {}
    for published in validation.read(None):
        if published["op"] == "gemm_int8":
            plan = launches.two_launches(published)
            predicted, _ = validation.predict(native.library("twin"), plan, published.soc)
            ratios[published["id"]] = predicted / (published.published_us or 0)
    assert set(ratios) == {"I1", "I5", "I7", "I9"}
    errors = [abs(ratio - 1) for ratio in ratios.values()]
    assert median(errors) <= 0.15 and max(errors) <= 0.16, ratios


def test_our_top_k_is_modelled_below_the_published_time(
    outcomes: list[validation.Outcome],
) -> None:
    found = [o for o in outcomes if o.op == "topk"]
    assert len(found) == 2
    assert all(o.ratio is not None and 0.2 <= o.ratio <= 1.0 and o.note for o in found)
    assert not any(o.used_to_fit for o in found)


@pytest.mark.parametrize(
    "wrong", [{"variant": "rows x cols"}, {"variant": "k=2000"}, {"dtype": "int8"}]
)
def test_top_k_rows_that_cannot_be_had_say_why(wrong: dict[str, str]) -> None:
    given = {"op": "topk", "M": "48", "N": "1024", "dtype": "fp32", "variant": "k=10", **wrong}
    with pytest.raises(Unknown):
        launches.plan(row(**given))


def test_rows_are_known_by_their_figures_whatever_they_are_called(tmp_path: Path) -> None:
    shipped = next(r for r in validation.read(None) if r["id"] == "D3")
    file = tmp_path / "rows.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(shipped.columns))
        writer.writeheader()
        writer.writerow({**shipped.columns, "id": "X1"})
        writer.writerow({**shipped.columns, "id": "X2", "task_us": "200", "variant": "64x128B"})
    one, other = validation.validate(native.library("twin"), validation.read(file))
    assert one.used_to_fit and not other.used_to_fit
    assert one.ratio is not None and other.ratio is not None


def test_the_command_answers_rows_of_ones_own(tilewright: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(
        "id,op,soc,cores_aic,cores_aiv,M,N,K,dtype,variant,task_us\n"
        'a,copy_gm_l1,910B2,24,0,4096,4096,,fp16,"nd2nz [64,256]",30\n'
        "b,softmax,910B1,0,48,8,8,,fp16,,1\n"
        'c,add,910B1,0,48,64,512,,fp16,"double buffer",\n'
        'd,add_in_ub,910B1,0,1,,4096,,fp32,"in another world",3\n'
    )
    ran = tilewright("model", "--validate", str(file), "--json", "-")
    assert ran.code == 0, ran.err
    a, b, c, d = ran.document["rows"]
    assert a["ratio"] == pytest.approx(a["predicted_us"] / 30) and a["evidence"] == "modelled"
    assert b["predicted_us"] is None and b["reason"].startswith("op 'softmax' is unknown")
    assert c["predicted_us"] > 0 and c["ratio"] is None and c["published_us"] is None
    assert d["predicted_us"] is None and "in another world" in d["reason"]
    assert ran.document["summary"]["predicted"] == 1

    file.write_text("id,op,cores_aiv,M,N\ne,copy_gm_ub,48,4096,4096\n")
    (e,) = tilewright("model", "--validate", str(file), "--json", "-").document["rows"]
    assert e["predicted_us"] > 0 and e["published_us"] is None and e["ratio"] is None

    file.write_text("name,time\n")
    ran = tilewright("model", "--validate", str(file))
    assert ran.code == 2 and "has no column 'id'" in ran.err
    ran = tilewright("model", "--validate", str(tmp_path / "none.csv"))
    assert ran.code == 2 and "cannot read" in ran.err


COPIES = {
    # variant, M, N, K, op: tile, passes, parts, order
    ("1x128B", "12288", "12288", "", "copy_gm_ub"): ((1, 64), 1, 1, variants.OWN_ROWS),
    ("64x2048B", "12288", "12287", "", "copy_gm_ub"): ((64, 1024), 1, 1, variants.OWN_ROWS),
    ("whole, 4 passes (L2 misses)", "12288", "12288", "x4", "copy_gm_ub"): (
        (64, 1024),
        4,
        1,
        variants.OWN_ROWS,
    ),
    ("quarters, 4 passes each (L2 hits)", "12288", "12288", "x4", "copy_gm_ub"): (
        (64, 1024),
        4,
        4,
        variants.OWN_ROWS,
    ),
    ("48 cores same addresses", "6144", "512", "x48", "copy_gm_ub"): (
        (128, 64),
        1,
        1,
        variants.SAME,
    ),
    ("48 cores, staggered addresses", "6144", "512", "x48", "copy_gm_ub"): (
        (128, 64),
        1,
        1,
        variants.STAGGERED,
    ),
    ("nd2nz [64,1024], 4 passes (L2 misses)", "12288", "12288", "x4", "copy_gm_l1"): (
        (64, 1024),
        4,
        1,
        variants.OWN_ROWS,
    ),
    ("nd2nz [64, 1024], split in 4, 4 passes", "12288", "12288", "x4", "copy_gm_l1"): (
        (64, 1024),
        4,
        4,
        variants.OWN_ROWS,
    ),
    ("24 cores offset addresses", "6144", "512", "x24", "copy_gm_l1"): (
        (256, 64),
        1,
        1,
        variants.STAGGERED,
    ),
}


@pytest.mark.parametrize("given", COPIES, ids=lambda g: g[0])
def test_copies_are_read(given: tuple[str, str, str, str, str]) -> None:
    variant, m, n, k, op = given
    read = variants.copies(row(op=op, M=m, N=n, K=k, variant=variant))
    assert (read.tile, read.passes, read.parts, read.order) == COPIES[given]
    assert (read.rows, read.columns) == (int(m), int(n))


def test_unaligned_columns_lose_one() -> None:
    read = variants.copies(
        row(op="copy_gm_l1", M="12288", N="12288", variant="nd2nz [64,256], unaligned N")
    )
    assert read.columns == 12287 and read.tile == (64, 256)


def test_additions_are_read() -> None:
    def read(variant: str) -> variants.Additions:
        return variants.additions(row(op="add", M="8192", N="8192", variant=variant))

    scalar = read("scalar loop, 1 core")
    assert scalar.scalar and scalar.buffers == 1 and scalar.elements == 4096
    assert read("48 cores, one buffer, 16384").elements == 16384
    double = read("48 cores, double buffer, 16384")
    assert double.buffers == 2 and not double.bypass and double.x == (0, 3 * 32768)
    assert read("double buffer, L2 bypass, 16384").bypass
    apart = read("double buffer, L2 bypass, 16256, operands in different banks")
    assert apart.elements == 16256 and apart.y[0] == 32512 and apart.z == (131072, 163584)
    with pytest.raises(Unknown, match="do not fit UB"):
        read("one buffer, 65536")


def test_bank_placements_are_read() -> None:
    def at(variant: str) -> tuple[int, ...]:
        a = variants.additions_in_ub(row(op="add_in_ub", N="4096", variant=variant))
        return a.src0, a.src1, a.dst, a.src0_block_stride, a.src0_repeat_stride

    assert at("no conflict; 1000 instructions of 64 repeats") == (0, 0x10100, 0x20000, 1, 8)
    assert at("read-read same bank; 1000 instructions") == (0, 0x4000, 0x10000, 1, 8)
    assert at("read-read same bank group") == (0, 0x10000, 0x14100, 1, 8)
    assert at("read-write conflict") == (0, 0x10100, 0x4020, 1, 8)
    assert at("src0 and dst in the same bank, no conflict in hardware") == (
        0,
        0x10100,
        0x4000,
        1,
        8,
    )
    assert at("src1 and dst overlap") == (0, 0x10100, 0x10100, 1, 8)
    assert at("src0 same block, repeat stride 1") == (0, 0x10100, 0x10100, 0, 1)
    assert at("src0 same block, repeat stride 8") == (0, 0x10100, 0x10100, 0, 8)
    assert at("mixed; 1000 instructions of 64 repeats") == (0, 0x10100, 0x10100, 0, 1)
    assert at("src0 0x0, src1 0x100, dst 0x8000") == (0, 0x100, 0x8000, 1, 8)


def test_pitches_are_read() -> None:
    def tile(variant: str) -> tuple[tuple[int, int], int]:
        s = variants.spreads(row(op="nd2nz_in_ub", M="8192", N="8192", variant=variant))
        return s.tile, s.pitch

    assert tile("row stride 144 elements") == ((144, 128), 144)
    assert tile("row stride 145 elements") == ((144, 128), 145)
    assert tile("row stride 128 elements") == ((128, 128), 128)
    with pytest.raises(Unknown, match="no row stride"):
        tile("as it comes")


def test_mixed_int8_gemms_are_read() -> None:
    def read(variant: str, **more: str) -> variants.Dequantised:
        return variants.dequantised(row(op="gemm_int8", cores_aic="24", variant=variant, **more))

    turn = read("mix 1:1", source="asc-devkit quant_group_matmul_high_performance sc0")
    assert turn == variants.Dequantised(True, 24, True)
    assert read("mix 1:2").in_turn and not read("mix 1:2, 4-stage pipeline").in_turn
    assert not read("mix(1-2), depth 4").in_turn and read("mix(1-2), depth 1").in_turn
    assert read("catlass quant_matmul, per-token dequant") == variants.Dequantised(False, 48, False)


def test_a_gemm_takes_what_is_given_and_chooses_the_rest() -> None:
    given = row(
        op="gemm", cores_aic="24", M="8192", N="8192", K="8192", dtype="fp16", b_layout="ND",
        grid_m="4", grid_n="6", tile_m="128", tile_n="256", tile_k="64", step_ka="8", step_kb="4",
        l1_buffers="2", l0_buffers="2", unit_flag="1", l2_split_m="2",
    )  # fmt: skip
    dims = planning.Dims(8192, 8192, 8192)
    (config,) = launches.gemm_configs(given, dims, 2, "910b1")
    assert config == planning.Config(128, 256, 64, 8, 4, 2, 2, 4, 6, 1, 2)
    blank = row(op="gemm", cores_aic="8", M="512", N="512", K="512", dtype="fp16")
    chosen = launches.gemm_configs(blank, planning.Dims(512, 512, 512), 2, "910b1")
    assert len(chosen) > 1 and all(c.grid_m * c.grid_n <= 8 for c in chosen)
    with pytest.raises(Unknown, match="b_layout 'XY', known are ND, KN"):
        launches.plan(row(op="gemm", M="8", N="8", K="8", dtype="fp16", b_layout="xy"))
    with pytest.raises(Unknown, match="L0A|l0a|L1|l1"):
        launches.plan(
            row(op="gemm", cores_aic="1", M="512", N="512", K="512", dtype="fp16", tile_m="512", tile_n="512", tile_k="512")
        )  # fmt: skip


def test_parts_are_read() -> None:
    names = {"910B1": "910b1", "Ascend910B2C": "910b2", "": "910b1", "310P": "310p"}
    assert {name: Row({"soc": name}).soc for name in names} == names


def test_ranks() -> None:
    assert validation.spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert validation.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # With ties, by the definition over mean ranks: ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3.
    assert validation.spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert validation.spearman([1, 2], [1, 2]) is None


def test_the_page_is_renewed_between_its_marks(
    outcomes: list[validation.Outcome], tmp_path: Path
) -> None:
    docs = Path(__file__).parent.parent / "docs" / "model.md"
    file = tmp_path / "model.md"
    file.write_text(docs.read_text())
    summary = validation.summary(outcomes)
    page.renew(file, outcomes, summary, native.library("twin"))
    first = file.read_text()
    page.renew(file, outcomes, summary, native.library("twin"))
    assert file.read_text() == first
    # The page as committed holds these very rows and constants.
    for line in page.rows_table(outcomes, summary).splitlines()[2:]:
        assert line in docs.read_text(), line
    assert page.constants_table(native.library("twin")) in docs.read_text()
