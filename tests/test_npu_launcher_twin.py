"""The NPU launcher over a stand-in for libascendcl whose launches run on the twin."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.npu import (
    CUBE,
    MIX,
    RESIDENT_BLOCKS,
    VECTOR,
    Libraries,
    Npu,
    acl_headers,
    gemm_tiling,
)
from tilewright import native


@pytest.fixture(scope="module")
def headers() -> Path:
    return acl_headers()


@pytest.fixture(scope="module")
def libraries(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    named = os.environ.get("TILEWRIGHT_TWIN_LIBRARY")
    twin = Path(named) if named else native.library_paths().get("twin")
    assert twin is not None, "libtilewright_twin.so is not built; run `make setup`"
    return Libraries.build(tmp_path_factory.mktemp("npu"), headers, twin)


@pytest.fixture
def npu(libraries: Libraries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Npu:
    monkeypatch.setenv("TILEWRIGHT_LIBASCENDCL", str(tmp_path / "libascendcl.so"))
    monkeypatch.setenv("TILEWRIGHT_TWIN_LIBRARY", str(libraries.twin))
    monkeypatch.setenv("TILEWRIGHT_FAKE_LOG", str(tmp_path / "acl.jsonl"))
    return Npu(libraries, tmp_path)


def _random(shape: tuple[int, ...], dtype: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    if dtype == np.int8:
        return rng.integers(-128, 128, shape, dtype=np.int8)
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("nk", [False, True])
def test_gemm_computes_on_the_blocks_and_tiling_it_was_given(npu: Npu, nk: bool) -> None:
    m, n, k, stream = 70, 96, 80, npu.stream()
    a, b = _random((m, k), np.float16, 1), _random((n, k) if nk else (k, n), np.float16, 2)
    c = np.zeros((m, n), np.float16)
    pa, pb, pc = npu.upload(a, stream), npu.upload(b, stream), npu.empty(c.nbytes)
    tiling = gemm_tiling(m, n, k, nk=nk, grid=(2, 3))
    assert npu.launch("gemm_fp16", [pa, pb, None, None, pc], tiling, blocks=6, stream=stream) == (
        0,
        "",
    )
    out = npu.download(pc, c, stream)
    assert npu.log("execute") == [], "the launcher waited for the device"
    assert npu.synchronize(stream) == ""
    (launch,) = npu.log("launch")
    assert (launch["kernel"], launch["blocks"], launch["stream"]) == ("gemm_fp16", 6, 1)
    assert launch["parameters"] == [pa, pb, 0, 0, pc, 0, "tiling"]
    assert bytes.fromhex(launch["tiling"]) == tiling
    assert [row["status"] for row in npu.log("execute")] == [0]
    exact = a.astype(np.float64) @ (b.T if nk else b).astype(np.float64)
    assert np.linalg.norm(out - exact) <= 2**-10 * np.linalg.norm(exact)


def test_int8_is_exact(npu: Npu) -> None:
    m, n, k, stream = 33, 64, 96, npu.stream()
    a, b = _random((m, k), np.int8, 3), _random((n, k), np.int8, 4)
    c = np.zeros((m, n), np.int32)
    pointers = [npu.upload(a, stream), npu.upload(b, stream), None, None, npu.empty(c.nbytes)]
    assert npu.launch("gemm_int8", pointers, gemm_tiling(m, n, k, nk=True), stream=stream) == (
        0,
        "",
    )
    out = npu.download(int(pointers[-1] or 0), c, stream)
    assert npu.synchronize(stream) == ""
    assert np.array_equal(out, a.astype(np.int32) @ b.astype(np.int32).T)


def test_launches_of_a_stream_run_in_order_and_streams_are_apart(npu: Npu) -> None:
    size, first, other = 32, npu.stream(), npu.stream()
    a, b = _random((size, size), np.int8, 5) // 64, _random((size, size), np.int8, 6)
    pa, pb = npu.upload(a, first), npu.upload(b, first)
    middle, end = npu.empty(size * size * 4), npu.empty(size * size * 4)
    tiling = gemm_tiling(size, size, size)
    npu.launch("gemm_int8", [pa, pb, None, None, middle], tiling, stream=first)
    npu.launch("gemm_int8", [pb, pa, None, None, end], tiling, stream=first)
    npu.launch("gemm_int8", [pa, pb, None, None, npu.empty(size * size * 4)], tiling, stream=other)
    one, two = (npu.download(p, np.zeros((size, size), np.int32), first) for p in (middle, end))
    assert npu.synchronize(first) == ""
    assert [row["launch"] for row in npu.log("execute")] == [1, 2], (
        "the other stream has not been waited for"
    )
    assert [row["stream"] for row in npu.log("launch")] == [1, 1, 2]
    wide = a.astype(np.int32), b.astype(np.int32)
    assert np.array_equal(one, wide[0] @ wide[1]) and np.array_equal(two, wide[1] @ wide[0])


def test_a_chain_sees_the_launch_before_it(npu: Npu) -> None:
    size, stream = 48, npu.stream()
    a, b = _random((size, size), np.float32, 7), _random((size, size), np.float32, 8)
    pa, pb = npu.upload(a, stream), npu.upload(b, stream)
    pc, pd = npu.empty(a.nbytes), npu.empty(a.nbytes)
    tiling = gemm_tiling(size, size, size)
    npu.launch("gemm_fp32", [pa, pb, None, None, pc], tiling, stream=stream)
    npu.launch("gemm_fp32", [pc, pb, None, None, pd], tiling, stream=stream)
    out = npu.download(pd, a, stream)
    assert npu.synchronize(stream) == ""
    exact = a.astype(np.float64) @ b @ b
    assert np.linalg.norm(out - exact) <= 1e-5 * np.linalg.norm(exact)


def test_workspace_is_kept_per_stream_and_grows_only_behind_the_work(npu: Npu) -> None:
    stream, other = npu.stream(), npu.stream()
    a = _random((32, 32), np.float16, 9)
    buffers = [npu.upload(a, stream), npu.upload(a, stream), None, None, npu.empty(a.nbytes)]
    before = len(npu.log("aclrtMalloc"))

    def launch(size: int, on: int, **fields: Any) -> int:
        assert npu.launch(
            "gemm_fp16", buffers, gemm_tiling(32, 32, 32), stream=on, workspace_bytes=size, **fields
        ) == (0, "")
        return int(npu.log("launch")[-1]["parameters"][5])

    first = launch(4096, stream)
    assert launch(1024, stream) == first, "a smaller one fits in what is there"
    assert launch(4096, other) != first, "streams overlap: they do not share"
    larger = launch(8192, stream)
    taken = [row["bytes"] for row in npu.log("aclrtMalloc")[before:]]
    assert taken == [4096, 4096, 8192]
    (freed,) = npu.log("aclrtFree")
    assert (freed["memory"], freed["pending"]) == (first, 1), (
        "freed after its stream ran; the other's launch waits"
    )
    mine = npu.empty(512)
    assert launch(512, stream, workspace=mine) == mine
    assert npu.release(stream) == 0
    assert npu.log("aclrtFree")[-1]["memory"] == larger
    assert len(npu.log("execute")) == 4, "released after the stream ran"
    assert npu.release(stream) == 0 and len(npu.log("aclrtFree")) == 2


def test_a_binary_is_loaded_once(npu: Npu) -> None:
    a = _random((32, 32), np.float16, 10)
    stream = npu.stream()
    buffers = [npu.upload(a, stream), npu.upload(a, stream), None, None, npu.empty(a.nbytes)]
    for kernel in ("gemm_fp16", "gemm_bf16", "gemm_fp16"):
        assert npu.launch(kernel, buffers, gemm_tiling(32, 32, 32), stream=stream) == (0, "")
    assert [row["path"] for row in npu.log("aclrtBinaryLoadFromFile")] == [str(npu.twin)]
    assert [row["kernel"] for row in npu.log("aclrtBinaryGetFunction")] == [
        "gemm_fp16",
        "gemm_bf16",
    ]
    assert npu.synchronize(stream) == ""
    assert npu.launcher.tw_npu_unload(None, 0) == 0
    assert len(npu.log("aclrtBinaryUnLoad")) == 1
    assert npu.launch("gemm_fp16", buffers, gemm_tiling(32, 32, 32), stream=stream) == (0, "")
    assert len(npu.log("aclrtBinaryLoadFromFile")) == 2


@pytest.mark.parametrize(
    ("core", "magic"), [(CUBE, 0x41494343), (VECTOR, 0x41415246), (MIX, 0x43554245)]
)
def test_embedded_bytes_name_their_core_and_resident_blocks_are_asked_for(
    npu: Npu, monkeypatch: pytest.MonkeyPatch, core: int, magic: int
) -> None:
    monkeypatch.delenv("TILEWRIGHT_TWIN_LIBRARY")
    image = npu.acl_path.read_bytes()
    fields = {"image": image, "image_bytes": len(image), "core": core}
    assert npu.launch("aclrtMalloc", [], **fields) == (0, "")
    assert npu.launch("aclrtMalloc", [], flags=RESIDENT_BLOCKS, **fields) == (0, "")
    (load,) = npu.log("aclrtBinaryLoadFromData")
    assert (load["bytes"], load["magic"]) == (len(image), magic)
    assert [row["schem_mode"] for row in npu.log("launch")] == [0, 1]
    assert [row["parameters"] for row in npu.log("launch")] == [[0, 0], [0, 0]]


def test_no_blocks_start_nothing(npu: Npu) -> None:
    assert npu.launch("gemm_fp16", [], blocks=0) == (0, "")
    assert npu.log("launch") == []


def test_what_the_twin_finds_comes_back_with_the_stream(npu: Npu) -> None:
    stream = npu.stream()
    a = _random((64, 64), np.float16, 11)
    buffers = [npu.upload(a, stream), npu.upload(a, stream), None, None, npu.empty(a.nbytes - 512)]
    assert npu.launch("gemm_fp16", buffers, gemm_tiling(64, 64, 64), stream=stream) == (0, "")
    message = npu.synchronize(stream)
    assert "the twin found" in message and "ops/gemm/gemm" in message


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"abi_version": 2}, 1, "ABI version 2; this launcher takes 1"),
        ({"kernel": b""}, 1, "the call names no kernel"),
        ({"binary": b""}, 1, "the call names no binary"),
        ({"buffers": None}, 1, "the call has buffers and no list of them"),
        ({"tiling": None}, 1, "the call has tiling bytes and no address"),
        ({"tiling_bytes": 16385}, 1, "the tiling has 16385 bytes; at most 16384"),
        ({"block_dim": 65536}, 1, "block_dim is 65536; at most 65535"),
        ({"core": 3}, 1, "core is 3; accepted: 0 cube, 1 vector, 2 mix"),
        ({"soc": b"Ascend310P"}, 1, "gemm_fp16 was built for Ascend310P; this NPU is Ascend910B1"),
        ({"device": 1}, 1, "NPU 1 does not exist; 1 are here"),
        ({"binary": b"/nowhere/k.o"}, 2, "gemm_fp16: its binary /nowhere/k.o cannot be read"),
        (
            {"binary": __file__.encode()},
            2,
            "loading " + __file__ + " failed with ACL error 100000: not a kernel binary",
        ),
        ({"kernel": b"gemm_fp12"}, 2, "finding kernel 'gemm_fp12' in"),
        (
            {"stream": 0x1234},
            2,
            "launching 'gemm_fp16' failed with ACL error 100000: no such stream",
        ),
    ],
)
def test_refusals_and_failures_are_sentences(
    npu: Npu, fields: dict[str, Any], status: int, sentence: str
) -> None:
    found = npu.launch("gemm_fp16", [0, 0, 0, 0, 0], gemm_tiling(1, 1, 1), **fields)
    assert found[0] == status
    assert sentence in found[1]
    assert npu.log("execute") == []


@pytest.mark.parametrize(
    ("variable", "value", "status", "sentence"),
    [
        (
            "TILEWRIGHT_LIBASCENDCL",
            "/nowhere/libascendcl.so",
            1,
            "no ACL library: /nowhere/libascendcl.so: cannot open",
        ),
        (
            "TILEWRIGHT_LIBASCENDCL",
            "libm.so.6",
            1,
            "ACL library libm.so.6 is too old: it has no aclrtGetDeviceCount",
        ),
        ("TILEWRIGHT_FAKE_DEVICES", "0", 1, "NPU 0 does not exist; 0 are here"),
        (
            "TILEWRIGHT_FAKE_FAIL",
            "aclrtMalloc=207001",
            2,
            "allocating 64 bytes of workspace failed with ACL error 207001",
        ),
        (
            "TILEWRIGHT_FAKE_FAIL",
            "aclrtLaunchKernelWithConfig=107003",
            2,
            "failed with ACL error 107003: told to fail",
        ),
    ],
)
def test_a_missing_library_or_device_is_said(
    npu: Npu, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, status: int, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    found = npu.launch("gemm_fp16", [0], workspace_bytes=64)
    assert found[0] == status
    assert sentence in found[1]
    monkeypatch.undo()


def test_a_launch_gives_the_callers_device_back(npu: Npu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_FAKE_DEVICES", "2")
    assert npu.launch("gemm_fp16", [], device=1) == (0, "")
    assert npu.log("launch")[0]["device"] == 1
    assert [row["device"] for row in npu.log("aclrtSetDevice")][-2:] == [1, 0]


def test_the_launcher_links_no_cann_library(libraries: Libraries) -> None:
    text = subprocess.run(
        ["readelf", "-d", str(libraries.launcher)], capture_output=True, text=True, check=True
    ).stdout
    assert not [
        name for name in re.findall(r"NEEDED.*\[(.*)\]", text) if "acl" in name or "ascend" in name
    ]
