"""ggml block formats to fp32, bit for bit as ggml's own dequantisers.

Source: the block layouts of ggml's quantisation types. Those of `NATIVE` are done in C++ where it is
built, the rare ones by `gguf.quants`, which works on 16 rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tilewright import native

from .errors import UnsupportedEncoding
from .packages import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Floats = NDArray[np.float32]

Q4_0_BYTES = 18
Q4_1_BLOCK, Q4_1_BYTES = 32, 20
Q8_0_BLOCK, Q8_0_BYTES = 32, 34
# Bytes of a block and the values it holds, of what C++ decodes.
NATIVE = {
    "F16": (2, 1),
    "BF16": (2, 1),
    "Q8_0": (Q8_0_BYTES, Q8_0_BLOCK),
    "Q4_0": (Q4_0_BYTES, Q4_1_BLOCK),
    "Q4_1": (Q4_1_BYTES, Q4_1_BLOCK),
}


def _f32(raw: Bytes) -> Floats:
    import numpy as np

    return raw.view("<f4").astype(np.float32)


def _f16(raw: Bytes) -> Floats:
    import numpy as np

    return raw.view("<f2").astype(np.float32)


def _bf16(raw: Bytes) -> Floats:
    import numpy as np

    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q4_0(raw: Bytes) -> Floats:
    """18 bytes hold 32 values w = d * (q - 8): fp16 d, low nibbles 0..15, high 16..31."""
    import numpy as np

    blocks = raw.reshape(raw.shape[0], -1, Q4_0_BYTES)
    d = np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float32)
    out = np.concatenate([blocks[..., 2:] & 0x0F, blocks[..., 2:] >> 4], axis=-1).astype(np.float32)
    return ((out - 8) * d).reshape(raw.shape[0], -1)


def _q4_1(raw: Bytes) -> Floats:
    """20 bytes hold 32 values w = d * q + m: fp16 d, fp16 m, low nibbles 0..15, high 16..31."""
    import numpy as np

    blocks = raw.reshape(raw.shape[0], -1, Q4_1_BYTES)
    d = np.ascontiguousarray(blocks[..., 0:2]).view("<f2").astype(np.float32)
    m = np.ascontiguousarray(blocks[..., 2:4]).view("<f2").astype(np.float32)
    out = np.empty((*blocks.shape[:2], Q4_1_BLOCK), np.float32)
    half = Q4_1_BLOCK // 2
    out[..., :half] = blocks[..., 4:] & 0x0F
    out[..., half:] = blocks[..., 4:] >> 4
    out *= d
    out += m
    return out.reshape(raw.shape[0], -1)


def _q8_0(raw: Bytes) -> Floats:
    """34 bytes hold 32 values w = d * q: fp16 d, then 32 int8."""
    import numpy as np

    blocks = raw.reshape(raw.shape[0], -1, Q8_0_BYTES)
    d = np.ascontiguousarray(blocks[..., 0:2]).view("<f2").astype(np.float32)
    out = np.ascontiguousarray(blocks[..., 2:]).view(np.int8).astype(np.float32)
    out *= d
    return out.reshape(raw.shape[0], -1)


_DEQUANTISERS: dict[str, Callable[[Bytes], Floats]] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q8_0": _q8_0,
}


def numpy_dequantise(raw: Bytes, encoding: str) -> Floats:
    """As `dequantise`, in numpy: what the C++ is tested against."""
    return _DEQUANTISERS[encoding](raw)


def dequantise(raw: Bytes, encoding: str) -> Floats:
    """Rows of encoded bytes to fp32.

    Args:
        raw: uint8 [rows, bytes per row], contiguous.
        encoding: ggml's name of the format, e.g. "Q4_1".

    Returns:
        fp32 [rows, K], a fresh array.

    Raises:
        UnsupportedEncoding: neither this module nor `gguf.quants` knows the format.
    """
    import numpy as np

    if encoding in NATIVE and native.why_missing() is None:
        size, values = NATIVE[encoding]
        out = np.empty((raw.shape[0], raw.shape[1] // size * values), np.float32)
        native.module().dequantize(encoding, raw, out)
        return out
    own = _DEQUANTISERS.get(encoding)
    if own is not None:
        return own(raw)
    require("gguf", "dequantising")
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        return dequantize(raw, GGMLQuantizationType[encoding]).astype(np.float32, copy=False)
    except (KeyError, NotImplementedError) as error:
        raise UnsupportedEncoding(encoding, _DEQUANTISERS) from error
