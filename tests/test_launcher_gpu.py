"""The GPU launcher against recording drivers: what a real binary receives, and every refusal."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton compiles the binaries these tests launch")

from fakes import gpu
from fakes.gpu import TARGETS, Built
from tilewright.aot.compile import compile_config
from tilewright.ship.launcher.compiled import dispatch_row
from tilewright.ship.launcher.entries import read_entries

pytest_plugins = ("fakes.gpu_fixtures",)
BITS = struct.unpack("<I", struct.pack("<f", 0.375))[0]


@pytest.mark.parametrize("target", TARGETS)
def test_packs_every_kind_of_argument_and_the_hidden_pointers(
    built: Built, tmp_path: Path, target: str
) -> None:
    entry = built.entries[f"toy.fp32.{target.replace(':', '-')}.mode=1"]
    call = gpu.call_for(entry, {"M": 5, "N": 300}, {"alpha": BITS}, stream=0x5000, entry=entry.api)
    bare = {**call, "tensors": [call["tensors"][0], None, call["tensors"][2]]}
    ran = gpu.drive(built.library, [call, bare], tmp_path, built.environment(entry.arch))
    assert [a["status"] for a in ran.answers] == [0, 0], ran.answers
    assert [a["id"] for a in ran.answers] == [entry.id] * 2
    name = "cuLaunchKernel" if entry.api == "cuda" else "hipModuleLaunchKernel"
    launches = ran.calls(name)
    for launch, sent in zip(launches, (call, bare), strict=True):
        assert launch["parameters"] == gpu.expected_parameters(entry, sent)
        assert launch["grid"] == [5, 3, 1]
        assert launch["block"] == [128 if entry.api == "cuda" else 256, 1, 1]
        assert (launch["shared"], launch["stream"]) == (entry.shared_bytes, 0x5000)
    assert launches[0]["parameters"][-2:] == ["00" * 8, "00" * 8]
    assert launches[0]["parameters"][6] == struct.pack("<f", 0.375).hex()
    loads = ran.calls("cuModuleLoadData" if entry.api == "cuda" else "hipModuleLoadData")
    assert [load["sha256"] for load in loads] == [entry.sha256], "loaded once, the shipped bytes"


def test_large_tiles_raise_the_limit_of_shared_memory(built: Built, tmp_path: Path) -> None:
    from tilewright.kernels.gemm import triton as module
    from tilewright.kernels.gemm.spec import SPEC as spec

    wanted = [(p.name, "cuda:sm_90") for p in spec.precisions] + [
        ("fp16", t) for t in TARGETS if t != "cuda:sm_90"
    ]
    rows, images = [], {}
    for precision, name in wanted:
        config = {
            "tile_m": 64,
            "tile_n": 64,
            "tile_k": 64,
            "num_warps": 4,
            "num_stages": 4,
            "group_m": 8,
        }
        if name.startswith("hip"):
            config["num_stages"] = 2
        case = spec.case({"M": 1, "N": 16, "K": 16}, precision, {"b_layout": "NK"})
        kernel = compile_config(module, precision, dict(case.flags), config, name)
        assert kernel.ok, kernel.error
        rows.append(dispatch_row(spec, kernel, f"gpu/{len(rows)}.bin"))
        images[rows[-1]["binary"]] = kernel.binary
    entries = read_entries(rows)
    library = gpu.build_library(tmp_path / "lib", built.objects, entries, images)
    raised = 0
    for arch in {entry.arch for entry in entries}:
        chosen = [entry for entry in entries if entry.arch == arch]
        calls = [gpu.call_for(e, {"M": 100, "N": 160, "K": 320}, entry=e.api) for e in chosen]
        ran = gpu.drive(library, calls, tmp_path, built.environment(arch))
        assert [(a["status"], a["id"], a["error"]) for a in ran.answers] == [
            (0, e.id, "") for e in chosen
        ]
        launches = ran.calls("cuLaunchKernel") or ran.calls("hipModuleLaunchKernel")
        for entry, call, launch in zip(chosen, calls, launches, strict=True):
            assert launch["symbol"] == entry.symbol
            assert launch["grid"] == [2 * 3, 1, 1]
            assert launch["shared"] == entry.shared_bytes
            assert launch["block"] == [entry.block, 1, 1]
            assert launch["parameters"] == gpu.expected_parameters(entry, call)
        raised += sum(e.shared_bytes > 48 * 1024 for e in chosen)
        allowed = [line["max_dynamic_shared"] for line in ran.calls("cuFuncSetAttribute")]
        assert allowed == [e.shared_bytes for e in chosen if e.shared_bytes > 48 * 1024]
    assert raised, (
        "no config needs more than 48 KB of shared memory, so raising the limit went untested"
    )


def test_a_call_that_breaks_the_alignment_takes_the_unaligned_binary(
    built: Built, tmp_path: Path
) -> None:
    from tilewright.kernels.gemm import triton as module
    from tilewright.kernels.gemm.spec import SPEC as spec

    config = dict.fromkeys(("tile_m", "tile_n", "tile_k"), 64)
    config |= {"num_warps": 4, "num_stages": 4, "group_m": 8}
    flags = {"b_layout": "NK", "bias": "yes", "scale": "none"}
    rows, images = [], {}
    for aligned in (True, False):
        kernel = compile_config(module, "fp16", flags, config, "cuda:sm_90", aligned=aligned)
        rows.append(dispatch_row(spec, kernel, f"gpu/{aligned}.bin", aligned=aligned))
        images[rows[-1]["binary"]] = kernel.binary
    assert rows[0]["id"] == rows[1]["id"] + ".aligned"
    entries = read_entries(rows)
    library = gpu.build_library(tmp_path / "lib", built.objects, entries, images)
    calls = [gpu.call_for(entries[0], {"M": 100, "N": 160, "K": k}) for k in (320, 321)]
    without_bias = {
        **calls[1],
        "tensors": [t if i != 2 else None for i, t in enumerate(calls[1]["tensors"])],
    }
    ran = gpu.drive(library, [*calls, without_bias], tmp_path, built.environment("sm_90"))
    assert [a["id"] for a in ran.answers] == [rows[0]["id"], rows[1]["id"], rows[1]["id"]]
    assert ran.calls("cuLaunchKernel")[2]["parameters"][2] == "00" * 8, "a null bias"


def test_scratch_is_allocated_on_the_stream_for_the_whole_grid(
    built: Built, tmp_path: Path
) -> None:
    entry = built.entries["toy.small"]
    call = gpu.call_for(entry, {"M": 3, "N": 132}, stream=0x77)
    ran = gpu.drive(built.library, [call], tmp_path, built.environment("sm_90"))
    assert ran.answers[0]["id"] == "toy.small"
    (taken,), (given,) = ran.calls("cuMemAllocAsync"), ran.calls("cuMemFreeAsync")
    assert taken["bytes"] == 3 * 2 * 64
    assert (given["memory"], given["stream"], taken["stream"]) == (taken["memory"], 0x77, 0x77)
    launch = ran.calls("cuLaunchKernel")[0]
    assert launch["parameters"] == gpu.expected_parameters(entry, call, scratch=taken["memory"])
    order = [line["call"] for line in ran.log if "Mem" in line["call"] or "Launch" in line["call"]]
    assert order == ["cuMemAllocAsync", "cuLaunchKernel", "cuMemFreeAsync"]


def test_kernels_of_one_op_start_in_order_and_share_a_workspace(
    built: Built, tmp_path: Path
) -> None:
    from tilewright.kernels.paged_attention import triton as module
    from tilewright.registry import family

    spec = family("paged_attention").spec
    config = {"tile_m": 16, "tile_n": 32, "split_pages": 8, "num_warps": 4, "num_stages": 2}
    flags = {"kv_layout": "nd", "values": "separate", "residual": "none"}
    kernel = compile_config(module, "bf16", flags, config, "cuda:sm_80")
    assert kernel.ok, kernel.error
    row = dispatch_row(spec, kernel, "gpu/first.bin", then=["gpu/merge.bin"])
    images = {"gpu/first.bin": kernel.binary, "gpu/merge.bin": kernel.then[0].binary}
    (entry,) = read_entries([row])
    library = gpu.build_library(tmp_path / "lib", built.objects, [entry], images)
    sizes = {"TQ": 5, "HQ": 8, "HKV": 2, "DK": 128, "DV": 128, "NS": 3, "MP": 20, "P": 30}
    numbers = {"scale": bits(0.25), "softcap": bits(30.0), "window": bits(40.5)}
    call = gpu.call_for(entry, sizes, numbers, stream=0x77)
    names = [tensor.name for tensor in entry.tensors]
    for name in ("k_cache", "v_cache"):
        call["tensors"][names.index(name)] |= {
            "shape": [30, 16, 2, 128],
            "stride": [4096, 256, 128, 1],
        }
    ran = gpu.drive(library, [call], tmp_path, built.environment("sm_80"))
    assert ran.answers[0]["error"] == ""
    (taken,) = ran.calls("cuMemAllocAsync")
    assert taken["bytes"] == 3 * 5 * 8 * 130 * 4, "three splits of eight pages"
    first, merge = ran.calls("cuLaunchKernel")
    assert [first["symbol"], merge["symbol"]] == ["kernel", "merge"]
    assert (first["grid"], merge["grid"]) == ([5 * 8 // 16 + 3 * 2, 3, 1], [5 * 8, 1, 1])
    memory = struct.pack("<Q", taken["memory"]).hex()
    places = {p.name: i for i, p in enumerate(kernel.parameters)}
    given = first["parameters"]
    assert given[places["partial"]] == merge["parameters"][0] == memory
    assert given[places["scale"]] == struct.pack("<f", 0.25).hex()
    assert given[places["window"]] == struct.pack("<i", 41).hex(), "rounded up"
    order = [line["call"] for line in ran.log if "Mem" in line["call"] or "Launch" in line["call"]]
    assert order == ["cuMemAllocAsync", "cuLaunchKernel", "cuLaunchKernel", "cuMemFreeAsync"]

    # A tensor that must be dense and is not, and a width that the binary is not for.
    call["tensors"][names.index("alibi")]["stride"] = [2]
    narrow = gpu.call_for(entry, {**sizes, "DK": 64})
    ran = gpu.drive(library, [call, narrow], tmp_path, built.environment("sm_80"))
    assert "'alibi' does not lie row by row without gaps" in ran.answers[0]["error"]
    assert "DK = 64 is outside its range" in ran.answers[1]["error"]
    assert not ran.calls("cuLaunchKernel")


def test_parts_of_k_are_summed_through_a_workspace(built: Built, tmp_path: Path) -> None:
    from tilewright.kernels.gemm import triton as module
    from tilewright.registry import family

    config = {"tile_m": 16, "tile_n": 64, "tile_k": 64, "num_warps": 4, "num_stages": 2}
    config |= {"group_m": 1, "split_k": 4}
    flags = {"b_layout": "NK", "bias": "no", "scale": "row_col", "batch_invariant": "no"}
    kernel = compile_config(module, "int8->bf16", flags, config, "cuda:sm_80")
    assert kernel.ok, kernel.error
    row = dispatch_row(family("gemm").spec, kernel, "gpu/first.bin", then=["gpu/merge.bin"])
    images = {"gpu/first.bin": kernel.binary, "gpu/merge.bin": kernel.then[0].binary}
    (entry,) = read_entries([row])
    library = gpu.build_library(tmp_path / "lib", built.objects, [entry], images)
    call = gpu.call_for(entry, {"M": 5, "N": 160, "K": 320}, stream=0x77)
    ran = gpu.drive(library, [call], tmp_path, built.environment("sm_80"))
    assert ran.answers[0]["error"] == ""
    (taken,) = ran.calls("cuMemAllocAsync")
    assert taken["bytes"] == 4 * 5 * 160 * 4, "a sum of 32 bits for each part"
    first, merge = ran.calls("cuLaunchKernel")
    assert (first["grid"], merge["grid"]) == ([3, 4, 1], [1 * 2, 1, 1])
    memory = struct.pack("<Q", taken["memory"]).hex()
    places = {p.name: i for i, p in enumerate(kernel.parameters)}
    assert first["parameters"][places["partial"]] == merge["parameters"][0] == memory


def bits(number: float) -> int:
    """A numeric flag as the attribute of a call."""
    (found,) = struct.unpack("<q", struct.pack("<d", number))
    return int(found)


def test_each_device_loads_its_own_copy(built: Built, tmp_path: Path) -> None:
    entry = built.entries["toy.fp32.cuda-sm_90.mode=1"]
    calls = [gpu.call_for(entry, {"M": 5, "N": 8}, device=d) for d in (0, 1, 1, 0)]
    ran = gpu.drive(
        built.library, calls, tmp_path, built.environment("sm_90", TILEWRIGHT_FAKE_DEVICES="2")
    )
    assert [line["device"] for line in ran.calls("cuModuleLoadData")] == [0, 1]
    assert [line["device"] for line in ran.calls("cuLaunchKernel")] == [0, 1, 1, 0]


def test_hip_gives_the_callers_device_back(built: Built, tmp_path: Path) -> None:
    entry = built.entries["toy.fp32.hip-gfx942.mode=1"]
    calls = [gpu.call_for(entry, {"M": 5, "N": 8}, device=1)]
    environment = built.environment("gfx942:sramecc+:xnack-", TILEWRIGHT_FAKE_DEVICES="2")
    ran = gpu.drive(built.library, [{**calls[0], "entry": "hip"}], tmp_path, environment)
    assert [line["device"] for line in ran.calls("hipSetDevice")] == [1, 0]
    assert ran.calls("hipModuleLaunchKernel")[0]["device"] == 1


def test_an_empty_grid_starts_nothing(built: Built, tmp_path: Path) -> None:
    entry = built.entries["toy.fp32.cuda-sm_90.mode=1"]
    ran = gpu.drive(
        built.library, [gpu.call_for(entry, {"M": 0, "N": 8})], tmp_path, built.environment("sm_90")
    )
    assert ran.answers[0]["status"] == 0
    assert not ran.calls("cuLaunchKernel")


def _changed(call: dict[str, Any], tensor: int, **fields: Any) -> dict[str, Any]:
    tensors = list(call["tensors"])
    tensors[tensor] = {**tensors[tensor], **fields}
    return {**call, "tensors": tensors}


REFUSALS = {
    "dtype": (lambda c: _changed(c, 0, dtype=2), "'x' is fp16, it takes fp32"),
    "absent": (lambda c: {**c, "tensors": [None, *c["tensors"][1:]]}, "'x' is absent"),
    "rank": (
        lambda c: _changed(c, 1, shape=[1, 9], stride=[9, 1]),
        "'bias' has 2 dims, it takes 1",
    ),
    "count": (lambda c: {**c, "tensors": c["tensors"][:2]}, "2 tensors, it takes 3"),
    "shape": (lambda c: _changed(c, 2, shape=[9, 7]), "'y' has 7 along axis 1, N is 9"),
    "stride": (
        lambda c: _changed(c, 0, stride=[18, 2]),
        "'x' has stride 2 along axis 1, it takes 1",
    ),
    "address": (
        lambda c: _changed(c, 0, data=0x1004),
        "the address of 'x' must be divisible by 16",
    ),
    "row stride": (
        lambda c: _changed(c, 0, stride=[9, 1]),
        "stride 0 of 'x' must be divisible by 4 and is 9",
    ),
    "flag": (lambda c: {**c, "attrs": {"mode": 2}}, "flag 'mode' is 2, it takes 1"),
    "extent": (
        lambda c: _changed(_changed(c, 0, shape=[2**31, 9]), 2, shape=[2**31, 9]),
        "does not fit 32 bits",
    ),
    "family": (
        lambda c: {**c, "family": "tow"},
        "no GPU binary of family 'tow'; families here: toy",
    ),
    "entry": (
        lambda c: {**c, "entry": "toy.fp64"},
        "no GPU binary 'toy.fp64' of family 'toy'; accepted: auto, cuda, hip",
    ),
    "device": (lambda c: {**c, "device": 1}, "device 1 does not exist; 1 cuda device"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses_what_the_binary_was_not_built_for(built: Built, tmp_path: Path, case: str) -> None:
    change, sentence = REFUSALS[case]
    entry = built.entries["toy.fp32.cuda-sm_90.mode=1"]
    good = gpu.call_for(entry, {"M": 9, "N": 9})
    good = _changed(good, 0, stride=[12, 1])
    ran = gpu.drive(built.library, [good, change(good)], tmp_path, built.environment("sm_90"))
    assert (ran.answers[0]["status"], ran.answers[1]["status"]) == (0, 1), ran.answers
    assert sentence in ran.answers[1]["error"]
    assert len(ran.calls("cuLaunchKernel")) == 1


@pytest.mark.parametrize(
    ("environment", "status", "sentence"),
    [
        (
            {
                "TILEWRIGHT_LIBCUDA": "/nowhere/libcuda.so.1",
                "TILEWRIGHT_LIBHIP": "/nowhere/libamdhip64.so",
            },
            1,
            "no driver library: /nowhere/libcuda.so.1",
        ),
        (
            {"TILEWRIGHT_LIBCUDA": "libm.so.6", "TILEWRIGHT_LIBHIP": "libm.so.6"},
            1,
            "libm.so.6 is too old: it has no cuInit",
        ),
        ({"TILEWRIGHT_FAKE_DEVICES": "0"}, 1, "the cuda driver has no device"),
        (
            {"TILEWRIGHT_FAKE_ARCH": "sm_75"},
            1,
            "device 0 is cuda:sm_75; binaries are here for cuda:sm_80, cuda:sm_90, cuda:sm_100",
        ),
        ({"TILEWRIGHT_FAKE_ARCH": "sm_103"}, 1, "device 0 is cuda:sm_103; binaries"),
        ({"TILEWRIGHT_FAKE_FAIL": "cuInit=999"}, 1, "cuInit failed: 999"),
        (
            {"TILEWRIGHT_FAKE_FAIL": "cuModuleLoadData=209"},
            2,
            "cuModuleLoadData failed: CUDA_ERROR_NO_BINARY_FOR_GPU",
        ),
        (
            {"TILEWRIGHT_FAKE_FAIL": "cuLaunchKernel=1"},
            2,
            "cuLaunchKernel failed: CUDA_ERROR_INVALID_VALUE",
        ),
    ],
)
def test_says_what_is_missing(
    built: Built, tmp_path: Path, environment: dict[str, str], status: int, sentence: str
) -> None:
    entry = built.entries["toy.fp32.cuda-sm_90.mode=1"]
    named = "cuda" if "FAIL" in str(environment) else "auto"
    call = gpu.call_for(entry, {"M": 9, "N": 12}, entry=named)
    ran = gpu.drive(built.library, [call], tmp_path, {**built.environment("sm_90"), **environment})
    assert ran.answers[0]["status"] == status
    assert sentence in ran.answers[0]["error"]


def test_an_older_minor_version_of_the_same_major_runs(built: Built, tmp_path: Path) -> None:
    call = gpu.call_for(built.entries["toy.fp32.cuda-sm_80.mode=1"], {"M": 4, "N": 8})
    ran = gpu.drive(built.library, [call], tmp_path, built.environment("sm_89"))
    assert (ran.answers[0]["status"], ran.answers[0]["id"]) == (0, "toy.fp32.cuda-sm_80.mode=1")


def test_falls_through_to_hip_where_there_is_no_cuda(built: Built, tmp_path: Path) -> None:
    call = gpu.call_for(built.entries["toy.fp32.hip-gfx942.mode=1"], {"M": 4, "N": 8})
    environment = built.environment("gfx942", TILEWRIGHT_LIBCUDA="/nowhere/libcuda.so.1")
    ran = gpu.drive(built.library, [call], tmp_path, environment)
    assert ran.answers[0]["id"] == "toy.fp32.hip-gfx942.mode=1", ran.answers
    wrong = gpu.drive(
        built.library, [call], tmp_path, {**environment, "TILEWRIGHT_FAKE_ARCH": "gfx90a"}
    )
    assert "device 0 is hip:gfx90a; binaries are here for" in wrong.answers[0]["error"]


def test_a_missing_or_changed_binary_is_told_apart_and_never_loaded(
    built: Built, tmp_path: Path
) -> None:
    entry = built.entries["toy.fp32.cuda-sm_90.mode=1"]
    call = gpu.call_for(entry, {"M": 4, "N": 8})
    missing = gpu.drive(
        built.library, [call], tmp_path, built.environment("sm_90"), directory=tmp_path
    )
    assert missing.answers[0]["status"] == 2
    assert f"its binary {tmp_path}/{entry.binary} cannot be read" in missing.answers[0]["error"]
    data = bytearray((built.folder / entry.binary).read_bytes())
    data[-1] ^= 1
    (tmp_path / "gpu").mkdir()
    (tmp_path / entry.binary).write_bytes(data)
    changed = gpu.drive(
        built.library, [call], tmp_path, built.environment("sm_90"), directory=tmp_path
    )
    assert changed.answers[0]["status"] == 2
    assert "is not the file that was shipped" in changed.answers[0]["error"]
    assert hashlib.sha256(data).hexdigest() in changed.answers[0]["error"]
    assert not missing.calls("cuModuleLoadData") and not changed.calls("cuModuleLoadData")


def test_a_failed_load_is_tried_again_and_a_wrong_symbol_is_named(
    built: Built, tmp_path: Path
) -> None:
    rows = [{**row, "symbol": "tw_toi"} for row in built.rows if row["target"] == "cuda:sm_90"]
    library = gpu.build_library(tmp_path / "lib", built.objects, read_entries(rows))
    call = gpu.call_for(read_entries(rows)[1], {"M": 4, "N": 8})
    ran = gpu.drive(
        library, [call, call], tmp_path, built.environment("sm_90"), directory=built.folder
    )
    assert [a["status"] for a in ran.answers] == [2, 2]
    assert "cuModuleGetFunction of 'tw_toi' failed: CUDA_ERROR_NOT_FOUND" in ran.answers[0]["error"]
    assert len(ran.calls("cuModuleLoadData")) == 2


def test_refuses_shared_memory_that_the_device_lacks(built: Built, tmp_path: Path) -> None:
    rows = [
        {**row, "shared_bytes": 230 * 1024} for row in built.rows if row["target"] == "cuda:sm_90"
    ]
    library = gpu.build_library(tmp_path / "lib", built.objects, read_entries(rows))
    call = gpu.call_for(read_entries(rows)[1], {"M": 4, "N": 8})
    ran = gpu.drive(library, [call], tmp_path, built.environment("sm_90"), directory=built.folder)
    assert ran.answers[0]["status"] == 1
    assert (
        "needs 235520 bytes of shared memory per block; this device has 232448"
        in ran.answers[0]["error"]
    )
