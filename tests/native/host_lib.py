"""The host kernels as a shared library of their own, driven through ctypes and numpy.

The library is built with g++ from ``kernels/`` under the flags of the build convention, cached by a
hash of the sources, and loaded without tilewright. ``emulate=True`` builds every level from the plain
vector layer, so that the AVX2+VNNI and AVX-512 algorithms run on any machine.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "kernels"
LEVELS = ("scalar", "avx2", "avx2vnni", "avx512", "amx")
LEVEL_FLAGS = {
    "scalar": (),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx2vnni": ("-mavx2", "-mfma", "-mf16c", "-mavxvnni"),
    "avx512": ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"),
    "amx": ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"),
}
BASE_FLAGS = (
    *("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden"),
    *("-fno-math-errno", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", f"-I{KERNELS}"),
)
FP32, BF16, FP16, INT8, INT32 = range(5)
DTYPE_IDS = {"fp32": FP32, "bf16": BF16, "fp16": FP16, "int8": INT8, "int32": INT32}
STORAGE = {
    "fp32": np.dtype(np.float32),
    "bf16": np.dtype(np.uint16),
    "fp16": np.dtype(np.float16),
    "int8": np.dtype(np.int8),
    "int32": np.dtype(np.int32),
}
GROUP = {"fp32": 1, "bf16": 2, "fp16": 1, "int8": 4}
REFUSED = 1


class TwTensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.c_int64 * 6),
        ("stride", ctypes.c_int64 * 6),
    )


class TwAttr(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_int64))


class TwCall(ctypes.Structure):
    _fields_ = (
        ("tensors", ctypes.POINTER(TwTensor)),
        ("attrs", ctypes.POINTER(TwAttr)),
        ("error", ctypes.c_char_p),
        ("error_size", ctypes.c_size_t),
        ("tensor_count", ctypes.c_int32),
        ("attr_count", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    )


@dataclass(frozen=True, slots=True)
class Array:
    """A numpy array in the storage type of `dtype` (bf16 is held as uint16 bits)."""

    data: NDArray[np.generic]
    dtype: str


def to_bf16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round fp32 to bf16 bits, to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded).astype(np.uint16)


def store(x: NDArray[np.float64], dtype: str) -> NDArray[np.generic]:
    """`x` rounded to `dtype`, in its storage type."""
    if dtype == "bf16":
        return to_bf16(x.astype(np.float32))
    return x.astype(STORAGE[dtype])


def widen(x: NDArray[np.generic], dtype: str) -> NDArray[np.float64]:
    """Values of a stored array as float64."""
    if dtype == "bf16":
        bits = np.ascontiguousarray(x).astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64)
    return x.astype(np.float64)


def pack_panel16(b: NDArray[np.generic], dtype: str) -> NDArray[np.generic]:
    """B[K, N] as [ceil(N/16), ceil(K/KR), 16, KR], zero padded."""
    k, n = b.shape
    kr = GROUP[dtype]
    panels, groups = -(-n // 16), -(-k // kr)
    padded = np.zeros((groups * kr, panels * 16), b.dtype)
    padded[:k, :n] = b
    split = padded.reshape(groups, kr, panels, 16)
    return np.ascontiguousarray(split.transpose(2, 0, 3, 1))


def _sources() -> list[Path]:
    return sorted(p for p in KERNELS.rglob("*") if p.suffix in (".h", ".hpp", ".cpp"))


def build(name: str, units: list[tuple[Path, tuple[str, ...]]], link: tuple[str, ...]) -> Path:
    """Compile `units` (source, extra flags) and link them; cached by the content of every source."""
    digest = hashlib.sha256(repr((BASE_FLAGS, units, link)).encode())
    for source in sorted({*_sources(), *(unit for unit, _ in units)}):
        digest.update(source.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"tilewright-test-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{name}-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        objects = [f"{scratch}/{index}.o" for index in range(len(units))]

        def compile_one(index: int) -> None:
            source, flags = units[index]
            command = ["g++", *BASE_FLAGS, *flags, "-c", str(source), "-o", objects[index]]
            subprocess.run(command, check=True)

        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            list(pool.map(compile_one, range(len(units))))
        output = Path(scratch) / "out"
        subprocess.run(["g++", *objects, *link, "-pthread", "-o", str(output)], check=True)
        output.replace(target)
    return target


def units_of(folder: str, *, emulate: bool) -> list[tuple[Path, tuple[str, ...]]]:
    """Sources of one kernels folder with their flags: `*_simd.cpp` once per level, the rest once."""
    units: list[tuple[Path, tuple[str, ...]]] = []
    extra = ("-DTW_EMULATE", "-O1") if emulate else ()
    for source in sorted((KERNELS / folder).glob("*.cpp")):
        if not source.name.endswith("_simd.cpp"):
            units.append((source, extra))
            continue
        for level in LEVELS:
            flags = () if emulate else LEVEL_FLAGS[level]
            units.append((source, (*extra, *flags, f"-DTW_ISA={level}")))
    return units


@cache
def library(*, emulate: bool = False) -> ctypes.CDLL:
    """The library of `_host` and `gemm`, with its C functions typed."""
    units = units_of("_host", emulate=emulate) + units_of("gemm", emulate=emulate)
    name = "libtw-emulated" if emulate else "libtw"
    lib = ctypes.CDLL(str(build(f"{name}.so", units, ("-shared", "-Wl,--no-undefined"))))
    lib.tw_host_gemm.argtypes = [ctypes.POINTER(TwCall)]
    lib.tw_force_level.argtypes = [ctypes.c_char_p]
    lib.tw_set_threads.argtypes = [ctypes.c_int]
    for bandwidth in (lib.tw_ceiling_read_gbps, lib.tw_ceiling_write_gbps):
        bandwidth.argtypes = [ctypes.c_int64, ctypes.c_int, ctypes.c_double]
        bandwidth.restype = ctypes.c_double
    lib.tw_ceiling_flops.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_double]
    lib.tw_ceiling_flops.restype = ctypes.c_double
    for function in (lib.tw_cpu_level, lib.tw_cpu_levels, lib.tw_cpu_level_error):
        function.restype = ctypes.c_char_p
    return lib


def usable_levels() -> list[str]:
    """Levels this CPU runs natively."""
    text: bytes = library().tw_cpu_levels()
    return text.decode().split(",")


def call(
    lib: ctypes.CDLL,
    tensors: Mapping[str, Array | None],
    attrs: Mapping[str, int],
    *,
    threads: int = 1,
    kernel: str = "tw_host_gemm",
) -> tuple[int, str]:
    """One launch: the status and the error sentence."""
    records = (TwTensor * len(tensors))()
    for record, (name, array) in zip(records, tensors.items(), strict=True):
        record.name = name.encode()
        if array is None:
            record.ndim = -1
            continue
        data = array.data
        record.data = data.ctypes.data
        record.dtype = DTYPE_IDS[array.dtype]
        record.ndim = data.ndim
        for i in range(data.ndim):
            record.shape[i] = data.shape[i]
            record.stride[i] = data.strides[i] // data.itemsize
    fields = (TwAttr * max(1, len(attrs)))()
    for field, (name, value) in zip(fields, attrs.items(), strict=False):
        field.name = name.encode()
        field.value = value
    error = ctypes.create_string_buffer(256)
    launch = TwCall(
        records, fields, ctypes.cast(error, ctypes.c_char_p), 256, len(tensors), len(attrs), threads
    )
    status: int = getattr(lib, kernel)(ctypes.byref(launch))
    return status, error.value.decode()
