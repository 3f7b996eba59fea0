"""Runs kernels for one vector instruction and says, in plain Python, which bytes it reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import twin_build
from twin_build import runner

TYPES = {
    "half": (0, np.dtype(np.float16)),
    "float": (1, np.dtype(np.float32)),
    "int16": (2, np.dtype(np.int16)),
    "uint16": (3, np.dtype(np.uint16)),
    "bfloat16": (4, np.dtype(np.uint16)),
    "int32": (5, np.dtype(np.int32)),
    "uint32": (6, np.dtype(np.uint32)),
    "int8": (7, np.dtype(np.int8)),
    "uint8": (8, np.dtype(np.uint8)),
}
WIDE = ("half", "float", "int16", "uint16", "bfloat16", "int32", "uint32")
HOWS = ("count", "bits", "counter", "register")


def launch(
    source: str,
    kernel: str,
    buffers: Sequence[np.ndarray],
    params: Sequence[int],
    seed: int | None = None,
) -> runner.TwinResult:
    """In program order, or with ``seed`` in an order of the adversary's."""
    table = np.array(params, np.int64)
    made = [runner.Buffer.of(f"b{i}", b) for i, b in enumerate([*buffers, table])]
    return runner.run(
        twin_build.twin(),
        kernel,
        1,
        made,
        kernel_library=twin_build.kernels(source),
        schedule="program" if seed is None else "random",
        seed=seed or 0,
    )


def run(
    source: str, kernel: str, buffers: Sequence[np.ndarray], params: Sequence[int]
) -> runner.TwinResult:
    result = launch(source, kernel, buffers, params)
    assert result.ok, "\n".join(map(str, result.findings))
    return result


def refused(
    source: str, kernel: str, buffers: Sequence[np.ndarray], params: Sequence[int], kind: str
) -> str:
    """The message of the one finding, which must be of ``kind``."""
    result = launch(source, kernel, buffers, params)
    kinds = [f.kind for f in result.findings]
    assert kinds == [kind], [str(f) for f in result.findings]
    return result.findings[0].message


def poison(nbytes: int, rng: np.random.Generator) -> np.ndarray:
    """Bytes that no instruction would leave by chance."""
    return rng.integers(0, 256, nbytes, dtype=np.uint8)


def up(nbytes: int, to: int = 32) -> int:
    return -(-nbytes // to) * to


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask as the kernels take it, and the lanes it makes active in each repeat."""

    how: str
    words: tuple[int, int]
    repeat: int

    def params(self) -> list[int]:
        return [HOWS.index(self.how), *(w - (1 << 64) if w >> 63 else w for w in self.words)]

    def lanes(self, width: int) -> Iterator[list[int]]:
        """Active lanes, one list a repeat."""
        if self.how == "counter":
            for start in range(0, self.words[0], width):
                yield list(range(min(width, self.words[0] - start)))
            return
        for _ in range(self.repeat):
            if self.how == "count":
                yield list(range(self.words[0]))
            else:
                both = self.words[0] | self.words[1] << 64
                yield [i for i in range(width) if both >> i & 1]


def masks(how: str, width: int, rng: np.random.Generator) -> Mask:
    """A random mask of that kind, at least one lane."""
    repeat = int(rng.integers(1, 6))
    if how == "count":
        return Mask(how, (int(rng.integers(1, width + 1)), 0), repeat)
    if how == "counter":
        return Mask(how, (int(rng.integers(1, repeat * width + 1)), 0), 1)
    words = [int(rng.integers(0, 1 << 63, dtype=np.uint64)) for _ in range(2)]
    if rng.integers(2):  # few lanes, whole blocks without any
        words = [w & int(rng.integers(0, 1 << 63, dtype=np.uint64)) & 0xF0F00000FF for w in words]
    words[0] |= 1 << int(rng.integers(0, 64))
    if width <= 64:
        words[1] = 0
    return Mask(how, (words[0], words[1]), repeat)


def elements(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random values with the extremes of the type among them; NaN only where asked for elsewhere."""
    dtype = TYPES[name][1]
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max + 1, count, dtype=dtype)
    x = rng.standard_normal(count).astype(dtype)
    special = np.array(
        [np.inf, -np.inf, 0.0, -0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max], dtype
    )
    at = rng.integers(0, count, max(1, count // 40))
    x[at] = rng.choice(special, at.size)
    return x
