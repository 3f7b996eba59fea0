"""Triton kernels compiled without a GPU: what the binaries hold, and whether they could launch."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tilewright import aot, interpret
from tilewright.errors import Unavailable, UsageError
from tilewright.kernels.gemm import triton as gemm

DEFAULT = {"tile_m": 32, "tile_n": 32, "tile_k": 32, "num_warps": 4, "num_stages": 2, "group_m": 8}
WIDE = {**DEFAULT, "tile_m": 128, "tile_n": 64}
TARGETS = ("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942")
NK = {"b_layout": "NK"}


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aot-cache")


def build(
    cache_dir: Path, precision: str, config: dict[str, int], target: str, **options: Any
) -> aot.CompiledKernel:
    return aot.compile_config(gemm, precision, NK, config, target, cache_dir=cache_dir, **options)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8->int32"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_default_config_uses_matrix_instructions(
    cache_dir: Path, target: str, precision: str
) -> None:
    row = build(cache_dir, precision, DEFAULT, target)
    assert row.ok and row.error == ""
    # A 32-row tile is below the 64 rows of a warp-group, so sm_90 and sm_100 take the sm_80 forms.
    if target.startswith("cuda"):
        wanted = "IMMA" if precision.startswith("int8") else "HMMA"
        assert set(row.matrix_instructions) == {wanted}
        assert row.async_copies["LDGSTS"] >= 2
    else:
        kind = {"fp16": "f32_32x32x8_f16", "bf16": "f32_32x32x8_bf16"}.get(precision, "i8")
        assert all(name.startswith("v_mfma_") and kind in name for name in row.matrix_instructions)
    assert sum(row.matrix_instructions.values()) > 0
    assert 0 < row.regs <= 255 and row.spill_bytes == 0 and 0 < row.shared_bytes < 64 * 1024
    assert 0 < row.occupancy <= 1 and row.blocks_per_sm >= 1
    assert row.threads == 4 * (64 if target.startswith("hip") else 32)
    assert row.binary[:4] == b"\x7fELF"
    assert row.binary_sha256 == hashlib.sha256(row.binary).hexdigest()


def test_wide_tiles_reach_the_larger_matrix_instructions(cache_dir: Path) -> None:
    assert build(cache_dir, "fp16", WIDE, "cuda:sm_90").matrix_instructions.keys() == {"HGMMA"}
    assert build(cache_dir, "int8->int32", WIDE, "cuda:sm_90").matrix_instructions.keys() == {
        "IGMMA"
    }
    blackwell = build(cache_dir, "fp16", WIDE, "cuda:sm_100")
    assert blackwell.matrix_instructions.keys() == {"UTCHMMA"}
    assert 0 < blackwell.tmem_columns <= 512


def test_one_stage_copies_synchronously(cache_dir: Path) -> None:
    single = build(cache_dir, "fp16", {**DEFAULT, "num_stages": 1}, "cuda:sm_80")
    double = build(cache_dir, "fp16", DEFAULT, "cuda:sm_80")
    triple = build(cache_dir, "fp16", {**DEFAULT, "num_stages": 3}, "cuda:sm_80")
    assert single.ok and single.async_copies == {}
    assert double.async_copies["LDGSTS"] > 0 and triple.async_copies["LDGSTS"] > 0
    # On sm_80 the tile being computed sits in registers: n stages take n - 1 buffers of A and B.
    assert (double.shared_bytes, triple.shared_bytes) == (2 * 32 * 32 * 2, 2 * 2 * 32 * 32 * 2)


def test_unaligned_rows_give_up_asynchronous_copies_and_conditions(cache_dir: Path) -> None:
    row = build(cache_dir, "fp16", DEFAULT, "cuda:sm_80", aligned=False)
    assert row.ok and row.async_copies == {}
    assert {r.kind for r in row.requirements} == {"equals"}
    aligned = build(cache_dir, "fp16", DEFAULT, "cuda:sm_80")
    assert aot.Requirement("size:a:1", "multiple_of", 8) in aligned.requirements
    assert row.binary_sha256 != aligned.binary_sha256


@pytest.mark.parametrize(("target", "most"), [("cuda:sm_80", 166912), ("hip:gfx942", 65536)])
def test_a_config_beyond_shared_memory_compiles_and_is_judged_not_ok(
    cache_dir: Path, target: str, most: int
) -> None:
    huge = {**DEFAULT, "tile_m": 128, "tile_n": 128, "tile_k": 128, "num_stages": 5, "num_warps": 8}
    row = build(cache_dir, "fp16", huge, target)
    assert row.binary and not row.ok and row.blocks_per_sm == 0
    want = rf"needs {row.shared_bytes} bytes of shared memory per block, {target} has {most}"
    assert re.match(want, row.error)


def test_what_the_compiler_or_the_family_rejects_is_a_row_with_the_reason(cache_dir: Path) -> None:
    rejected = build(cache_dir, "fp16", {**DEFAULT, "tile_m": 1024, "tile_n": 2048}, "cuda:sm_80")
    assert not rejected.ok and not rejected.binary
    assert "triton rejects it for cuda:sm_80" in rejected.error and "numel" in rejected.error
    refused = build(cache_dir, "int8->int32", {**DEFAULT, "tile_k": 16}, "cuda:sm_80")
    assert not refused.ok and refused.family == "gemm"
    assert refused.error == "triton gemm takes tile_k >= 32 for int8 operands, not 16"


def test_unknown_names_are_usage_errors(cache_dir: Path) -> None:
    with pytest.raises(UsageError, match="unknown target 'cuda:sm_1'"):
        build(cache_dir, "fp16", DEFAULT, "cuda:sm_1")
    with pytest.raises(UsageError, match="unknown precision of triton gemm 'fp8'"):
        build(cache_dir, "fp8", DEFAULT, "cuda:sm_80")
    with pytest.raises(Unavailable, match="triton compiles for cuda and hip targets, not for cpu"):
        build(cache_dir, "fp16", DEFAULT, "cpu")


def test_the_row_has_the_documented_fields_and_says_how_it_was_obtained(cache_dir: Path) -> None:
    row = build(cache_dir, "bf16", DEFAULT, "cuda:sm_90").row()
    documented = "target config ok binary_sha256 regs spill_bytes shared_bytes matrix_instructions async_copies error"
    assert set(documented.split()) <= row.keys()
    assert row["evidence"] == "compiled" and row["fp_fusion"] is True and "binary" not in row
    assert row["toolchain"].startswith("triton 3.")


def test_parameters_are_those_of_the_cubin_hidden_ones_included(
    cache_dir: Path, tmp_path: Path
) -> None:
    from triton import knobs

    row = build(cache_dir, "int8->fp16", DEFAULT, "cuda:sm_80")
    (tmp_path / "k.cubin").write_bytes(row.binary)
    text = subprocess.run(
        [knobs.nvidia.cuobjdump.path, "--dump-elf", str(tmp_path / "k.cubin")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    info = re.findall(r"Ordinal : (0x\w+)\s+Offset\s+: (0x\w+)\s+Size\s+: (0x\w+)", text)
    found = sorted((int(o, 16), int(at, 16), int(size, 16)) for o, at, size in info)
    assert found == list(layout(row.parameters))
    assert [p.name for p in row.parameters[-2:]] == ["global_scratch", "profile_scratch"]
    assert f"function: {row.kernel_symbol}(" in text


def test_parameters_fill_the_kernarg_segment_of_the_hsaco(cache_dir: Path) -> None:
    row = build(cache_dir, "fp16", DEFAULT, "hip:gfx942")
    key = b".kernarg_segment_size"
    at = row.binary.index(key) + len(key)
    # msgpack: one byte up to 127, else 0xcc and one byte.
    size = row.binary[at] if row.binary[at] < 0x80 else row.binary[at + 1]
    *_, (_, offset, width) = layout(row.parameters)
    assert size == offset + width


def layout(parameters: tuple[aot.KernelArg, ...]) -> Iterator[tuple[int, int, int]]:
    """(ordinal, offset, size) of each parameter, each aligned to its size."""
    at = 0
    for ordinal, parameter in enumerate(parameters):
        at = -(-at // parameter.bytes) * parameter.bytes
        yield ordinal, at, parameter.bytes
        at += parameter.bytes


def test_binaries_do_not_depend_on_the_process_the_place_or_the_cache(
    cache_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere" / "family_copy.py"
    copy.parent.mkdir()
    kernels = Path(gemm.__file__).with_name("triton_kernel.py")
    shutil.copy(kernels, copy.with_name("family_kernels.py"))
    text = Path(gemm.__file__).read_text(encoding="utf-8")
    assert "tilewright.kernels.gemm.triton_kernel" in text
    text = text.replace("tilewright.kernels.gemm.triton_kernel", "family_kernels")
    copy.write_text(text, encoding="utf-8")
    program = (
        "import pathlib, family_copy\nfrom tilewright import aot\n"
        "for target in ('cuda:sm_80', 'hip:gfx942'):\n"
        f"    row = aot.compile_config(family_copy, 'fp16', {NK!r}, {DEFAULT!r}, target,\n"
        "        cache_dir=pathlib.Path('cache'))\n"
        "    assert not row.cached\n"
        "    print(row.binary_sha256)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(copy.parent), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    here = [
        build(cache_dir, "fp16", DEFAULT, t).binary_sha256 for t in ("cuda:sm_80", "hip:gfx942")
    ]
    assert done.stdout.split() == here


def test_the_cache_answers_and_a_damaged_entry_is_compiled_again(tmp_path: Path) -> None:
    first = build(tmp_path, "fp16", DEFAULT, "hip:gfx942")
    second = build(tmp_path, "fp16", DEFAULT, "hip:gfx942")
    assert (first.cached, second.cached) == (False, True)
    assert second.binary == first.binary and second.parameters == first.parameters
    (entry,) = tmp_path.iterdir()
    (entry / "kernel.bin").write_bytes(first.binary[:-1])
    third = build(tmp_path, "fp16", DEFAULT, "hip:gfx942")
    assert not third.cached and third.binary == first.binary


def test_interpreting_does_not_change_what_the_compiler_makes(
    cache_dir: Path, tmp_path: Path
) -> None:
    before = build(cache_dir, "bf16", DEFAULT, "hip:gfx942")
    a = torch.ones(32, 32).bfloat16()
    gemm.launch({"a": a, "b": a, "c": a.clone()}, {}, DEFAULT, interpret=True)
    after = build(tmp_path, "bf16", DEFAULT, "hip:gfx942")
    assert not after.cached and after.binary_sha256 == before.binary_sha256


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pool_reports_progress_in_order(cache_dir: Path, workers: int) -> None:
    configs = [{**DEFAULT, "tile_m": m} for m in (32, 48, 128)]
    seen: list[tuple[int, int]] = []
    rows = list(
        aot.compile_pool(
            gemm,
            "fp16",
            NK,
            configs,
            ["hip:gfx942", "cuda:sm_80"],
            workers=workers,
            progress=lambda row, done, total: seen.append((done, total)),
            cache_dir=cache_dir,
        )
    )
    assert seen == [(i, 6) for i in range(1, 7)]
    want = [(t, c["tile_m"]) for t in ("hip:gfx942", "cuda:sm_80") for c in configs]
    assert [(r.target, r.config["tile_m"]) for r in rows] == want
    assert [r.ok for r in rows] == [True, False, True] * 2


def test_a_pool_can_be_left_early(cache_dir: Path) -> None:
    configs = [{**DEFAULT, "group_m": g} for g in (8, 4, 1)]
    rows = aot.compile_pool(gemm, "fp16", NK, configs, ["hip:gfx942"], cache_dir=cache_dir)
    assert next(rows).ok
    rows.close()
    assert build(cache_dir, "fp16", configs[2], "hip:gfx942").cached is False


class FakeDevice:
    """Stands for a GPU driver: enough for the just-in-time path up to, and without, the launch."""

    def __init__(self) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", 90, 32)

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.mark.parametrize("sizes", [(64, 48, 96), (1, 1, 1), (1, 48, 64), (33, 17, 63)])
def test_the_just_in_time_path_accepts_what_launch_passes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sizes: tuple[int, int, int]
) -> None:
    from triton import knobs
    from triton.runtime import driver

    m, n, k = sizes
    compiled = []

    def warm(kernel: Any, grid: Any, args: Any, constexprs: Any, options: Any, **_: Any) -> None:
        compiled.append(kernel.warmup(*args, grid=grid, **constexprs, **options))

    monkeypatch.setattr(interpret, "launch", warm)
    tensors = {
        "a": torch.empty(m, k, dtype=torch.int8),
        "b": torch.empty(n, k, dtype=torch.int8),
        "bias": torch.empty(n),
        "row_scale": torch.empty(m),
        "col_scale": torch.empty(n),
        "c": torch.empty(m, n, dtype=torch.float16),
    }
    active = driver._active
    driver.set_active(FakeDevice())
    try:
        with knobs.cache.scope():
            knobs.cache.dir = str(tmp_path)
            gemm.launch(tensors, NK, DEFAULT, interpret=False)
    finally:
        driver._active = active
    assert "cubin" in compiled[0].asm
