"""Host side of the AscendC gemm: what it takes, how it is tiled, and how a launch is put together.

The kernel (``gemm.cpp``) computes C[M,N] = A[M,K] @ B (+ bias[N]); B is [K,N] ("KN") or [N,K] ("NK").
Empty cases never reach it: this module returns at once for M or N of 0 and writes the bias, or zero, for K of 0.

Arrays are numpy arrays, or CPU tensors of torch; bfloat16 travels as uint16.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np

from ...soc import Soc, find
from ...twin import runner

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Precision:
    """A kernel entry: types by numpy name (bfloat16 as uint16), ``acc`` being that of L0C and of the bias on chip."""

    kernel: str
    inputs: str
    acc: str
    output: str
    per_column_scale: bool = False

    @property
    def input_bytes(self) -> int:
        """Bytes of one element of A and B."""
        return np.dtype(self.inputs).itemsize


PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        "fp32": Precision("gemm_fp32", "float32", "float32", "float32"),
        "fp16": Precision("gemm_fp16", "float16", "float32", "float16"),
        "bf16": Precision("gemm_bf16", "uint16", "float32", "uint16"),
        "int8->int32": Precision("gemm_int8", "int8", "int32", "int32"),
        "int8->fp16": Precision(
            "gemm_int8_fp16", "int8", "int32", "float16", per_column_scale=True
        ),
    }
)

B_LAYOUTS = ("KN", "NK")


@dataclass(frozen=True, slots=True)
class Config:
    """A point of the tunable space. Tiles in elements; ``step_*`` in tiles; ``grid_*`` 0 means: choose for the shape."""

    tile_m: int = 32
    tile_n: int = 32
    tile_k: int = 32
    step_ka: int = 1
    step_kb: int = 1
    l1_buffers: int = 2
    l0_buffers: int = 2
    grid_m: int = 0
    grid_n: int = 0
    unit_flag: int = 0
    l2_split_m: int = 1

    @classmethod
    def of(cls, values: Mapping[str, int] | None) -> Config:
        """From named integers; ``stages`` sets both buffer counts. Raises ValueError for an unknown name."""
        given = dict(values or {})
        stages = given.pop("stages", None)
        if stages is not None:
            given.setdefault("l1_buffers", stages)
            given.setdefault("l0_buffers", stages)
        names = {f.name for f in fields(cls)}
        unknown = sorted(set(given) - names)
        if unknown:
            raise ValueError(
                f"unknown config field '{unknown[0]}', known are stages, {', '.join(sorted(names))}"
            )
        return cls(**given)


DEFAULT_CONFIG = Config()


@dataclass(frozen=True, slots=True)
class Dims:
    """The shape in elements, and row pitches of A, B and C (0: dense)."""

    m: int
    n: int
    k: int
    lda: int = 0
    ldb: int = 0
    ldc: int = 0

    def pitches(self, b_layout: str) -> tuple[int, int, int]:
        """lda, ldb, ldc with the dense ones filled in."""
        return (
            self.lda or self.k,
            self.ldb or (self.n if b_layout == "KN" else self.k),
            self.ldc or self.n,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A launch, ready but for its buffers."""

    kernel: str
    block_dim: int
    tiling: bytes
    config: Config


def refusal(
    precision: str,
    *,
    b_layout: str = "KN",
    bias: bool = False,
    row_scale: bool = False,
    col_scale: bool = False,
) -> str | None:
    """Why this kind of case is not done by the ascendc gemm, or None if it is."""
    if b_layout not in B_LAYOUTS:
        return f"b_layout '{b_layout}' is a host format; the ascendc gemm takes KN and NK"
    if row_scale:
        return (
            "per-row scales need a vector core after the cube; this gemm runs on cube cores alone"
        )
    if precision in ("int8->fp32", "int8->bf16"):
        return f"{precision}: Fixpipe on 2201 scales int32 to fp16 only (VDEQF16)"
    if precision not in PRECISIONS:
        return f"precision '{precision}' is unknown to the ascendc gemm, known are {', '.join(PRECISIONS)}"
    scaled = PRECISIONS[precision].per_column_scale
    if scaled and not col_scale:
        return f"{precision} needs col_scale"
    if col_scale and not scaled:
        return f"{precision} takes no col_scale"
    if scaled and bias:
        return f"{precision} with a bias: the spec adds it after scaling, the cube adds it before"
    return None


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def l0c_buffers(config: Config, soc: Soc) -> int:
    """2 where two output tiles fit L0C, else 1."""
    return 2 if 2 * config.tile_m * config.tile_n * 4 <= soc.l0c else 1


def illegal(
    precision: str, b_layout: str, config: Config, soc: str = "910b1", *, bias: bool = False
) -> list[str]:
    """Every reason why ``config`` can not run, empty if it can. Does not depend on the shape."""
    part, kind = find(soc), PRECISIONS[precision]
    size = kind.input_bytes
    step_k = 32 if size == 1 else 16
    step_n = 32 if size == 1 and b_layout == "KN" else 16
    why: list[str] = []

    def need(good: bool, text: str) -> None:
        if not good:
            why.append(text)

    for name, step in (("tile_m", 16), ("tile_n", step_n), ("tile_k", step_k)):
        value = getattr(config, name)
        need(
            value > 0 and value % step == 0,
            f"{name} is {value}, it must be a positive multiple of {step}",
        )
        need(value <= 4095, f"{name} is {value}, Mmad takes at most 4095")
    for name in ("l1_buffers", "l0_buffers"):
        need(
            getattr(config, name) in (1, 2),
            f"{name} is {getattr(config, name)}, allowed are 1 and 2",
        )
    for name in ("step_ka", "step_kb", "l2_split_m"):
        need(
            getattr(config, name) >= 1, f"{name} is {getattr(config, name)}, it must be at least 1"
        )
    need(config.unit_flag in (0, 1), f"unit_flag is {config.unit_flag}, allowed are 0 and 1")
    need(config.grid_m >= 0 and config.grid_n >= 0, "grid_m and grid_n must not be negative")
    need(
        (config.grid_m == 0) == (config.grid_n == 0),
        f"grid {config.grid_m}x{config.grid_n}: give both sides or neither",
    )
    cores = config.grid_m * config.grid_n
    need(
        cores <= part.cube_cores,
        f"grid {config.grid_m}x{config.grid_n} needs {cores} cores, {soc} has {part.cube_cores}",
    )
    if why:
        return why

    def fits(memory: str, used: int, what: str) -> None:
        room = getattr(part, memory)
        need(used <= room, f"{memory}: {what} take {used} bytes, {room} are there")

    c = config
    chunk_a, chunk_b = c.tile_k * c.step_ka, c.tile_k * c.step_kb
    extra = c.tile_n * 8 * kind.per_column_scale + c.tile_n * 4 * bias
    fits(
        "l0a",
        c.tile_m * c.tile_k * size * c.l0_buffers,
        f"{c.l0_buffers} x A tile {c.tile_m}x{c.tile_k}",
    )
    fits(
        "l0b",
        c.tile_k * c.tile_n * size * c.l0_buffers,
        f"{c.l0_buffers} x B tile {c.tile_k}x{c.tile_n}",
    )
    fits("l0c", c.tile_m * c.tile_n * 4, f"C tile {c.tile_m}x{c.tile_n}")
    fits(
        "l1",
        (c.tile_m * chunk_a + c.tile_n * chunk_b) * size * c.l1_buffers + extra,
        f"{c.l1_buffers} x (A {c.tile_m}x{chunk_a} + B {chunk_b}x{c.tile_n})",
    )
    if bias:
        fits("bt", c.tile_n * 4, f"{c.tile_n} bias values")
    if kind.per_column_scale:
        fits("fb", c.tile_n * 8, f"{c.tile_n} column scales")
    need(chunk_b <= 16384, f"step_kb x tile_k is {chunk_b}, one ND2NZ takes at most 16384 rows")
    return why


def choose_grid(dims: Dims, config: Config, soc: Soc) -> tuple[int, int]:
    """The core grid with the fewest tiles on its busiest core; of those, the one that reads least."""
    m_tiles, n_tiles = _ceil_div(dims.m, config.tile_m), _ceil_div(dims.n, config.tile_n)

    def cost(grid: tuple[int, int]) -> tuple[int, int, int]:
        rows, columns = _ceil_div(m_tiles, grid[0]), _ceil_div(n_tiles, grid[1])
        return rows * columns, rows * config.tile_m + columns * config.tile_n, grid[0] * grid[1]

    grids = [
        (gm, gn)
        for gm in range(1, min(soc.cube_cores, m_tiles) + 1)
        for gn in range(1, min(soc.cube_cores // gm, n_tiles) + 1)
    ]
    return min(grids, key=cost)


def plan(
    dims: Dims,
    precision: str,
    b_layout: str = "KN",
    config: Config = DEFAULT_CONFIG,
    soc: str = "910b1",
    *,
    bias: bool = False,
) -> Plan:
    """Kernel, blocks and tiling bytes of a non-empty case. Raises ValueError with every reason if it can not run."""
    part = find(soc)
    why = illegal(precision, b_layout, config, soc, bias=bias)
    lda, ldb, ldc = dims.pitches(b_layout)
    why += [
        f"{name} is {value}, allowed are 1..{_INT32_MAX}"
        for name, value in (
            ("M", dims.m),
            ("N", dims.n),
            ("K", dims.k),
            ("lda", lda),
            ("ldb", ldb),
            ("ldc", ldc),
        )
        if not 1 <= value <= _INT32_MAX
    ]
    if why:
        raise ValueError("; ".join(why))
    grid_m, grid_n = (
        (config.grid_m, config.grid_n) if config.grid_m else choose_grid(dims, config, part)
    )
    words = (
        dims.m,
        dims.n,
        dims.k,
        lda,
        ldb,
        ldc,
        B_LAYOUTS.index(b_layout),
        int(bias),
        config.tile_m,
        config.tile_n,
        config.tile_k,
        config.step_ka,
        config.step_kb,
        config.l1_buffers,
        config.l0_buffers,
        l0c_buffers(config, part),
        grid_m,
        grid_n,
        config.unit_flag,
        config.l2_split_m,
    )
    return Plan(
        PRECISIONS[precision].kernel,
        grid_m * grid_n,
        struct.pack(f"<{len(words)}i", *words),
        config,
    )


def tiling(
    dims: Dims,
    precision: str,
    b_layout: str,
    config: Config,
    soc: str = "910b1",
    *,
    bias: bool = False,
) -> bytes:
    """The bytes of ``TwGemmTiling``."""
    return plan(dims, precision, b_layout, config, soc, bias=bias).tiling


def pad_columns(values: np.ndarray) -> np.ndarray:
    """``values[N]`` copied and zero-padded to a multiple of 32, as the kernel reads bias and scales."""
    out = np.zeros(_round_up(max(values.shape[0], 1), 32), dtype=values.dtype)
    out[: values.shape[0]] = values
    return out


def on_chip_bias(values: np.ndarray, precision: str) -> np.ndarray:
    """The bias in the type of L0C (bfloat16 bits widened), padded."""
    if PRECISIONS[precision].acc == "int32":
        return pad_columns(values.astype(np.int32, casting="same_kind"))
    if values.dtype == np.uint16:
        return pad_columns((values.astype(np.uint32) << 16).view(np.float32))
    return pad_columns(values.astype(np.float32))


def vdeq_scales(col_scale: np.ndarray) -> np.ndarray:
    """``col_scale[N]`` fp32 as VDEQF16 takes it: one uint64 a column, the float in its low half, padded.

    The hardware keeps 10 mantissa bits: it drops the low 13 of each factor, so ``scale * (1 - 2**-10) < used <= scale``.
    Raises ValueError for scales it can not represent.
    """
    scale = np.ascontiguousarray(col_scale, dtype=np.float32)
    bad = ~np.isfinite(scale) | ((scale != 0) & (np.abs(scale) < np.finfo(np.float32).tiny))
    if bad.any():
        column = int(np.argmax(bad))
        raise ValueError(
            f"col_scale[{column}] is {scale[column]}, Fixpipe takes normal finite floats"
        )
    return pad_columns(scale.view(np.uint32).astype(np.uint64))


def as_array(value: Any) -> np.ndarray:
    """A numpy view of an array or CPU tensor; bfloat16 as uint16."""
    if hasattr(value, "detach"):
        tensor = value.detach()
        if str(tensor.dtype) == "torch.bfloat16":
            return np.asarray(tensor.view(_torch_int16(tensor)).numpy()).view(np.uint16)
        return np.asarray(tensor.numpy())
    return np.asarray(value)


def _torch_int16(tensor: Any) -> Any:
    import sys

    return sys.modules[type(tensor).__module__.partition(".")[0]].int16


def _pitch(name: str, array: np.ndarray, dtype: str) -> int:
    if array.ndim != 2 or array.dtype != np.dtype(dtype):
        raise ValueError(
            f"{name} has {array.ndim} dims of {array.dtype}, it must have 2 of {dtype}"
        )
    item = array.itemsize
    row, column = array.strides
    if array.size == 0:
        return max(array.shape[1], 1)
    if array.shape[1] > 1 and column != item:
        raise ValueError(
            f"{name} has a column stride of {column // item} elements, the ascendc gemm takes 1"
        )
    if array.shape[0] == 1:
        return max(array.shape[1], 1)
    if row % item != 0 or row < array.shape[1] * item:
        raise ValueError(
            f"{name} has a row stride of {row} bytes, rows of {array.shape[1] * item} bytes would overlap"
        )
    return row // item


def _span(name: str, array: np.ndarray, pitch: int) -> runner.Buffer:
    rows, columns = array.shape
    nbytes = ((rows - 1) * pitch + columns) * array.itemsize
    return runner.Buffer(name, int(array.__array_interface__["data"][0]), nbytes, array)


def launch(
    inputs: Mapping[str, Any],
    out: Any,
    precision: str,
    *,
    b_layout: str = "KN",
    config: Config | Mapping[str, int] | None = None,
    soc: str = "910b1",
    lib_path: Any,
    threads: int = 0,
    trace: Any = None,
) -> runner.TwinResult:
    """Run gemm on the twin: ``inputs`` holds a, b and optionally bias and col_scale; ``out`` [M,N] is written.

    Raises ValueError for refused cases, illegal configs and arrays that do not fit together; TwinError where the twin
    itself refuses.
    """
    bias, scale = inputs.get("bias"), inputs.get("col_scale")
    why = refusal(
        precision,
        b_layout=b_layout,
        bias=bias is not None,
        row_scale=inputs.get("row_scale") is not None,
        col_scale=scale is not None,
    )
    if why is not None:
        raise ValueError(why)
    kind = PRECISIONS[precision]
    a, b, c = as_array(inputs["a"]), as_array(inputs["b"]), as_array(out)
    lda, ldb, ldc = (
        _pitch("a", a, kind.inputs),
        _pitch("b", b, kind.inputs),
        _pitch("c", c, kind.output),
    )
    m, k = a.shape
    kb, n = b.shape if b_layout == "KN" else b.shape[::-1]
    if kb != k or c.shape != (m, n):
        raise ValueError(
            f"a {a.shape}, b {b.shape} as {b_layout} and c {c.shape} do not fit together"
        )
    for name, vector in (("bias", bias), ("col_scale", scale)):
        if vector is not None and as_array(vector).shape != (n,):
            raise ValueError(f"{name} has shape {as_array(vector).shape}, it must be ({n},)")
    chosen = config if isinstance(config, Config) else Config.of(config)
    if m == 0 or n == 0:
        return runner.empty_result(soc)
    if k == 0:
        c[...] = 0 if bias is None else as_array(bias)
        return runner.empty_result(soc)
    ready = plan(
        Dims(m, n, k, lda, ldb, ldc), precision, b_layout, chosen, soc, bias=bias is not None
    )
    args = [
        _span("a", a, lda),
        _span("b", b, ldb),
        runner.Buffer.of(
            "bias", on_chip_bias(as_array(bias), precision) if bias is not None else None
        ),
        runner.Buffer.of("scale", vdeq_scales(as_array(scale)) if scale is not None else None),
        _span("c", c, ldc),
        runner.Buffer("workspace", 0, 0),
    ]
    return runner.run(
        lib_path,
        ready.kernel,
        ready.block_dim,
        args,
        ready.tiling,
        soc,
        threads=threads,
        trace=trace,
    )
