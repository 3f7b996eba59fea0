"""Drive the NPU launcher in this process, over the stand-in for libascendcl."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fakes.gpu import FAKES, ROOT, compiled

NPU = ROOT / "ascendc" / "npu"
CUBE, VECTOR, MIX = 0, 1, 2
RESIDENT_BLOCKS = 1
_TILING_HEADER = ROOT / "ascendc" / "ops" / "gemm" / "gemm_tiling.h"
Array = npt.NDArray[Any]
OFFLINE = "TILEWRIGHT_OFFLINE"


def fetcher() -> ModuleType:
    """`ascendc/npu/fetch_acl_headers.py`, which is a script and no part of the package."""
    spec = importlib.util.spec_from_file_location("fetch_acl_headers", NPU / "fetch_acl_headers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def acl_headers(module: ModuleType | None = None) -> Path:
    """The folder of the ACL headers. Without them a test fails, unless it is said that there is no network."""
    module = module or fetcher()
    try:
        return Path(module.fetch())
    except module.FetchError as error:
        if os.environ.get(OFFLINE) == "1":
            pytest.skip(f"{OFFLINE}=1 and the ACL headers are not cached: {error}")
        pytest.fail(f"the ACL headers cannot be had ({error}); {OFFLINE}=1 skips what needs them")


class Call(ctypes.Structure):
    """tw_npu_call."""

    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("binary", ctypes.c_char_p),
        ("image", ctypes.c_char_p),
        ("image_bytes", ctypes.c_size_t),
        ("kernel", ctypes.c_char_p),
        ("soc", ctypes.c_char_p),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
        ("tiling", ctypes.c_void_p),
        ("tiling_bytes", ctypes.c_size_t),
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
        ("error", ctypes.c_char_p),
        ("error_size", ctypes.c_size_t),
        ("buffer_count", ctypes.c_uint32),
        ("block_dim", ctypes.c_uint32),
        ("core", ctypes.c_int32),
        ("device", ctypes.c_int32),
    ]


@dataclass(frozen=True, slots=True)
class Libraries:
    """What is built once; every test works on copies, whose state is its own."""

    launcher: Path
    acl: Path
    twin: Path

    @staticmethod
    def build(folder: Path, headers: Path, twin: Path) -> Libraries:
        """Compile the launcher and the stand-in against the ACL headers in `headers`."""
        strict = [
            "-O1",
            "-fPIC",
            "-shared",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-isystem",
            str(headers),
        ]
        launcher, acl = folder / "liblauncher.so", folder / "libascendcl.so"
        compiled(
            [
                "g++",
                "-std=c++17",
                *strict,
                "-fvisibility=hidden",
                "-I",
                str(NPU),
                str(NPU / "launcher.cpp"),
                "-o",
                str(launcher),
                "-ldl",
            ]
        )
        includes = ["-I", str(ROOT / "ship"), "-I", str(ROOT / "ascendc"), "-I", str(FAKES)]
        compiled(
            [
                "g++",
                "-std=c++20",
                *strict,
                *includes,
                str(FAKES / "fake_ascendcl.cpp"),
                "-o",
                str(acl),
                "-ldl",
            ]
        )
        return Libraries(launcher, acl, twin)


class Npu:
    """One process-wide NPU of a test: memory, streams, launches and the log of what reached ACL."""

    def __init__(self, libraries: Libraries, folder: Path) -> None:
        self.log_path = folder / "acl.jsonl"
        self.acl_path = folder / "libascendcl.so"
        shutil.copy(libraries.acl, self.acl_path)
        shutil.copy(libraries.launcher, folder / "liblauncher.so")
        self.launcher = ctypes.CDLL(str(folder / "liblauncher.so"))
        self.launcher.tw_npu_launch.argtypes = [ctypes.POINTER(Call)]
        self.launcher.tw_npu_release.argtypes = [
            ctypes.c_int32,
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
        ]
        self.acl = ctypes.CDLL(str(self.acl_path))
        self.acl.aclGetRecentErrMsg.restype = ctypes.c_char_p
        self.acl.aclrtSetDevice(0)
        self.kept: list[object] = []
        self.twin = libraries.twin

    def stream(self) -> int:
        handle = ctypes.c_void_p()
        assert self.acl.aclrtCreateStream(ctypes.byref(handle)) == 0
        return int(handle.value or 0)

    def empty(self, size: int) -> int:
        pointer = ctypes.c_void_p()
        assert self.acl.aclrtMalloc(ctypes.byref(pointer), ctypes.c_size_t(size), 0) == 0
        return int(pointer.value or 0)

    def upload(self, array: Array, stream: int) -> int:
        """Device memory that will hold `array` once the stream gets there."""
        pointer = self.empty(array.nbytes)
        self._copy(pointer, array.ctypes.data, array.nbytes, 1, stream)
        self.kept.append(array)
        return pointer

    def download(self, pointer: int, like: Array, stream: int) -> Array:
        """An array that will hold device memory once the stream gets there."""
        out = np.zeros_like(like)
        self._copy(out.ctypes.data, pointer, out.nbytes, 2, stream)
        return out

    def _copy(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        room = ctypes.c_size_t(size)
        code = self.acl.aclrtMemcpyAsync(
            ctypes.c_void_p(to), room, ctypes.c_void_p(source), room, kind, ctypes.c_void_p(stream)
        )
        assert code == 0

    def synchronize(self, stream: int) -> str:
        """Run what is queued; the error message, empty if all went well."""
        code = self.acl.aclrtSynchronizeStream(ctypes.c_void_p(stream))
        return "" if code == 0 else (self.acl.aclGetRecentErrMsg() or b"?").decode()

    def launch(
        self,
        kernel: str,
        buffers: Sequence[int | None],
        tiling: bytes = b"",
        /,
        *,
        blocks: int = 1,
        stream: int = 0,
        **fields: Any,
    ) -> tuple[int, str]:
        """Status and sentence of tw_npu_launch; `fields` overwrite those of tw_npu_call."""
        error = ctypes.create_string_buffer(2048)
        addresses = (ctypes.c_void_p * max(1, len(buffers)))(*buffers)
        host = ctypes.create_string_buffer(tiling, max(1, len(tiling)))
        call = Call(
            abi_version=1,
            binary=str(self.twin).encode(),
            kernel=kernel.encode(),
            soc=b"Ascend910B",
            buffers=addresses,
            buffer_count=len(buffers),
            tiling=ctypes.addressof(host),
            tiling_bytes=len(tiling),
            stream=stream,
            error=ctypes.cast(error, ctypes.c_char_p),
            error_size=2048,
            block_dim=blocks,
        )
        for name, value in fields.items():
            setattr(call, name, value)
        status = self.launcher.tw_npu_launch(ctypes.byref(call))
        # A real caller's tiling and address list are gone when the kernel runs.
        ctypes.memset(host, 0xEE, max(1, len(tiling)))
        ctypes.memset(addresses, 0xEE, ctypes.sizeof(addresses))
        return status, error.value.decode()

    def release(self, stream: int) -> int:
        return int(self.launcher.tw_npu_release(0, stream, None, 0))

    def log(self, name: str) -> list[dict[str, Any]]:
        """Lines of this call, in order."""
        if not self.log_path.exists():
            return []
        rows = [json.loads(line) for line in self.log_path.read_text().splitlines()]
        return [row for row in rows if row["call"] == name]


def tiling_fields() -> list[str]:
    """Names of TwGemmTiling's int32 fields, in order."""
    text = re.sub(r"//.*", "", _TILING_HEADER.read_text(encoding="utf-8"))
    text = text.partition("struct TwGemmTiling {")[2].partition("};")[0]
    return [n.strip() for group in re.findall(r"int32_t ([^;]*);", text) for n in group.split(",")]


def gemm_tiling(
    m: int, n: int, k: int, *, nk: bool = False, grid: tuple[int, int] = (1, 1), **more: int
) -> bytes:
    """A TwGemmTiling of dense tensors with 32x32x32 tiles, double-buffered."""
    values: Mapping[str, int] = {
        "m": m,
        "n": n,
        "k": k,
        "lda": k,
        "ldb": k if nk else n,
        "ldc": n,
        "b_layout": int(nk),
        "has_bias": 0,
        "tile_m": 32,
        "tile_n": 32,
        "tile_k": 32,
        "step_ka": 1,
        "step_kb": 1,
        "l1_buffers": 2,
        "l0_buffers": 2,
        "l0c_buffers": 2,
        "grid_m": grid[0],
        "grid_n": grid[1],
        "unit_flag": 0,
        "l2_split_m": 1,
        "whole_rows": 0,
        **more,
    }
    return b"".join(struct.pack("<i", values[name]) for name in tiling_fields())
