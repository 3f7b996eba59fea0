"""How each kernel of the corpus is launched, and what it must compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from twin_build import runner

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Case:
    """``blocks`` blocks; arguments are inputs, then outputs or workspaces, then scalars."""

    blocks: int
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    want: dict[str, Array]
    scalars: tuple[int, ...] = ()
    tolerance: float = 0.0

    def arguments(self) -> tuple[list[runner.Buffer | runner.Scalar], dict[str, Array]]:
        """Fresh arguments of a launch, and its arrays by name."""
        arrays = {name: a.copy() for name, a in {**self.inputs, **self.outputs}.items()}
        made: list[runner.Buffer | runner.Scalar] = [
            runner.Buffer.of(name, a) for name, a in arrays.items()
        ]
        made += [runner.Scalar(f"scalar {i}", s) for i, s in enumerate(self.scalars)]
        return made, arrays


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _floats(seed: int, *shape: int) -> Array:
    return _rng(seed).standard_normal(shape).astype(np.float32)


def _nan(dtype: type, *shape: int) -> Array:
    return np.full(shape, np.nan, dtype)


def _small(seed: int, dtype: type, *shape: int) -> Array:
    return _rng(seed).integers(-3, 4, shape).astype(dtype)


def _vector_add() -> Case:
    x, y = _floats(1, 2, 1280).astype(np.float16), _floats(2, 2, 1280).astype(np.float16)
    return Case(2, {"x": x, "y": y}, {"z": _nan(np.float16, 2, 1280)}, {"z": x + y}, (5,))


def _vector_add_queue() -> Case:
    x, y = _floats(1, 2, 640), _floats(2, 2, 640)
    return Case(2, {"x": x, "y": y}, {"z": _nan(np.float32, 2, 640)}, {"z": x + y}, (5,))


def _in_place_scale() -> Case:
    x = _floats(1, 7, 128)
    scaled = x * np.float32(3)
    return Case(
        2,
        {"x": x},
        {"y": _nan(np.float32, 7, 128)},
        {"x": scaled, "y": scaled + np.float32(1)},
        (7,),
    )


def _softmax() -> Case:
    x = _floats(1, 24, 64)
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    want = e / e.sum(1, keepdims=True)
    return Case(3, {"x": x}, {"y": _nan(np.float32, 24, 64)}, {"y": want}, tolerance=1e-6)


def _mean_scalar() -> Case:
    x = _floats(1, 3, 256)
    mean = x.astype(np.float64).mean(1, keepdims=True)
    outputs = {
        "y": _nan(np.float32, 3, 256),
        "means": _nan(np.float32, 3, 8),
        "firsts": np.zeros((3, 8), np.float32),
    }
    firsts = np.zeros((3, 8), np.float32)
    firsts[:, 0] = x[:, 0]
    want = {"y": x - mean, "means": np.repeat(mean, 8, 1), "firsts": firsts}
    return Case(3, {"x": x}, outputs, want, tolerance=1e-6)


def _gemm_buffered() -> Case:
    a, b = _small(1, np.float16, 128, 96), _small(2, np.float16, 96, 192)
    want = a.astype(np.float32) @ b.astype(np.float32)
    return Case(2, {"a": a, "b": b}, {"c": _nan(np.float32, 128, 192)}, {"c": want}, (96, 192))


def _gemm_small_tile() -> Case:
    a, b = _small(1, np.float16, 2, 32, 128), _small(2, np.float16, 2, 32, 128)
    want = np.einsum("bmk,bnk->bmn", a.astype(np.float32), b.astype(np.float32)).astype(np.float16)
    return Case(2, {"a": a, "b": b}, {"c": _nan(np.float16, 2, 32, 32)}, {"c": want}, (128,))


def _bf16(values: Array) -> Array:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _gemm_unit_flag() -> Case:
    a, b = _small(1, np.float32, 128, 128), _small(2, np.float32, 192, 128)
    want = a @ b.T
    assert np.abs(want).max() <= 256  # such integers are exact in bfloat16
    outputs = {"c": np.zeros((128, 192), np.uint16)}
    return Case(2, {"a": _bf16(a), "b": _bf16(b)}, outputs, {"c": _bf16(want)}, (128, 192))


def _gemm_bias_scale() -> Case:
    a, b = _small(1, np.int8, 64, 64), _small(2, np.int8, 96, 64)
    bias = _small(3, np.int32, 96)
    scale = 2.0 ** _rng(4).integers(-2, 1, 96).astype(np.float32)
    want = (a.astype(np.int32) @ b.astype(np.int32).T + bias) * scale
    inputs = {"a": a, "b": b, "bias": bias, "scale": scale.view(np.uint32).astype(np.uint64)}
    return Case(2, inputs, {"c": _nan(np.float16, 64, 96)}, {"c": want.astype(np.float16)}, (96,))


def _nz_copy() -> Case:
    x = _floats(1, 5, 16, 32).astype(np.float16)
    want = x.reshape(5, 16, 2, 16).swapaxes(1, 2)
    return Case(2, {"x": x}, {"y": _nan(np.float16, 5, 2, 16, 16)}, {"y": want}, (5,))


def _mixed_workspace() -> Case:
    x = _small(1, np.float16, 2, 3, 16, 16)
    square = np.einsum("brij,brjk->brik", x.astype(np.float32), x.astype(np.float32))
    outputs = {"work": _nan(np.float32, 2, 16, 16), "y": _nan(np.float32, 2, 3, 16, 16)}
    return Case(2, {"x": x}, outputs, {"y": np.maximum(square, 0)}, (3,))


def _meet_and_sum() -> Case:
    x = _small(1, np.float32, 6, 64)
    outputs = {"partial": np.zeros((6, 8), np.float32), "y": _nan(np.float32, 6, 8)}
    want = np.zeros((6, 8), np.float32)
    want[:, 0] = x.sum()
    return Case(6, {"x": x}, outputs, {"y": want})


def _neighbours() -> Case:
    outputs = {"work": np.zeros((4, 8), np.int32), "y": np.zeros((4, 8), np.int32)}
    want = np.repeat((np.arange(4, dtype=np.int32)[:, None] + 1) % 4, 8, 1)
    return Case(4, {}, outputs, {"y": want})


def _swap_halves() -> Case:
    x = _small(1, np.int32, 4, 64)
    outputs = {"work": np.zeros_like(x), "y": np.zeros_like(x)}
    return Case(2, {"x": x}, outputs, {"y": x[[1, 0, 3, 2]]})


def _atomic_sum() -> Case:
    x = _small(1, np.float32, 7, 64)
    return Case(3, {"x": x}, {"y": np.zeros(64, np.float32)}, {"y": x.sum(0)}, (7,))


def _padded_rows() -> Case:
    x = _floats(1, 5, 9)
    want = np.abs(x[:, :6])
    return Case(1, {"x": x}, {"y": _nan(np.float32, 5, 6)}, {"y": want}, (5, 6, 9))


def _sort_scores() -> Case:
    x = _floats(1, 2, 128)
    return Case(2, {"x": x}, {"y": _nan(np.float32, 2, 128)}, {"y": -np.sort(-x, 1)})


def _lookup() -> Case:
    x = _rng(1).integers(0, 64, (2, 32)).astype(np.int32)
    table = _rng(2).integers(0, 1000, 64).astype(np.int32)
    outputs = {"y": np.zeros((2, 32), np.int32)}
    return Case(2, {"x": x, "table": table}, outputs, {"y": table[x]})


def _gemm_chained() -> Case:
    a = _small(1, np.float16, 5, 16, 16)
    first = a.astype(np.float32) @ a.astype(np.float32)
    outputs = {"d": _nan(np.float32, 5, 16, 16)}
    return Case(2, {"a": a}, outputs, {"d": first @ a.astype(np.float32)}, (5,))


def _scalar_header() -> Case:
    x = _small(1, np.int32, 2, 16)
    want = x.copy()
    want[:, :8] = 7
    return Case(2, {"x": x}, {"y": np.zeros_like(x)}, {"y": want + 1}, (7,))


def _interleaved() -> Case:
    x = _floats(1, 2, 16, 8)
    each = x.copy()
    each[:, ::2] *= np.float32(2)
    each[:, 1::2] += np.float32(1)
    flat = each.reshape(2, 128)
    y = np.zeros((2, 128), np.float32)
    want = y.copy()
    want[:, :64] = flat[:, :64] + flat[:, 64:]
    return Case(2, {"x": x}, {"y": y}, {"y": want})


def _masked_rows() -> Case:
    x = _floats(1, 6, 3)
    return Case(1, {"x": x}, {"y": _nan(np.float32, 6, 3)}, {"y": np.abs(x)}, (6,))


def _queue_ahead() -> Case:
    x = _floats(1, 2, 320).astype(np.float16)
    return Case(2, {"x": x}, {"y": _nan(np.float16, 2, 320)}, {"y": -x}, (5,))


def _two_phases() -> Case:
    x = _small(1, np.float32, 2, 3, 128)
    return Case(2, {"x": x}, {"y": _nan(np.float32, 2, 3, 128)}, {"y": 2 * x + 1}, (3,))


_CASES: dict[str, Callable[[], Case]] = {
    name[1:]: make
    for name, make in list(globals().items())
    if callable(make) and getattr(make, "__annotations__", {}).get("return") == "Case"
}


def case(kernel: str) -> Case:
    """The launch of a kernel of the corpus."""
    return _CASES[kernel]()
