"""Run launches of a GPU launcher library in this process, as a request on stdin says.

A driver library is opened once per process, so each scenario gets a process of its own.
Request: {"library": PATH, "directory": PATH|null, "calls": [{"family", "entry", "device", "stream",
"tensors": [{"data", "dtype", "shape", "stride"} | null], "attrs": {}, "choose": bool}],
"preload": [PATH] of libraries to load first, "function": NAME of what launches, which then chooses itself}.
Answer on stdout: [{"status", "error", "id"}].
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

MAX_DIMS = 6


class TwTensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.c_int64 * MAX_DIMS),
        ("stride", ctypes.c_int64 * MAX_DIMS),
    ]


class TwAttr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("value", ctypes.c_int64)]


class TwCall(ctypes.Structure):
    _fields_ = [
        ("tensors", ctypes.POINTER(TwTensor)),
        ("attrs", ctypes.POINTER(TwAttr)),
        ("error", ctypes.c_char_p),
        ("error_size", ctypes.c_size_t),
        ("tensor_count", ctypes.c_int32),
        ("attr_count", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    ]


def tensor(row: dict[str, Any] | None) -> TwTensor:
    """A tw_tensor; None is an absent one."""
    if row is None:
        return TwTensor(b"", None, 0, -1)
    out = TwTensor(b"", row["data"], row["dtype"], len(row["shape"]))
    for axis, (size, stride) in enumerate(zip(row["shape"], row["stride"], strict=True)):
        out.shape[axis], out.stride[axis] = size, stride
    return out


def call_of(row: dict[str, Any]) -> tuple[TwCall, ctypes.Array[ctypes.c_char]]:
    """A tw_call and the buffer its error sentence lands in."""
    error = ctypes.create_string_buffer(1024)
    tensors = (TwTensor * len(row["tensors"]))(*(tensor(t) for t in row["tensors"]))
    attrs = [TwAttr(name.encode(), value) for name, value in row.get("attrs", {}).items()]
    array = (TwAttr * max(1, len(attrs)))(*attrs)
    call = TwCall(
        tensors, array, ctypes.cast(error, ctypes.c_char_p), 1024, len(tensors), len(attrs), 0
    )
    return call, error


def main() -> None:
    request = json.load(sys.stdin)
    for path in request.get("preload", []):
        ctypes.CDLL(path)
    library = ctypes.CDLL(request["library"])
    launch = library[request.get("function", "tw_gpu_launch")]
    launch.argtypes = [
        ctypes.POINTER(TwCall),
        ctypes.c_void_p,
        ctypes.c_int32,
        ctypes.c_char_p,
        ctypes.c_char_p,
    ]
    library.tw_gpu_choose.argtypes = (
        [ctypes.POINTER(TwCall), ctypes.c_int32] + [ctypes.c_char_p] * 3 + [ctypes.c_size_t]
    )
    if request.get("directory"):
        library.tw_gpu_set_directory(request["directory"].encode())
    answers = []
    for row in request["calls"]:
        call, error = call_of(row)
        family = row["family"].encode()
        entry = row["entry"].encode() if row.get("entry") else None
        name = ctypes.create_string_buffer(256)
        if "function" not in request:
            status = library.tw_gpu_choose(
                ctypes.byref(call), row.get("device", 0), family, entry, name, 256
            )
        if not row.get("choose"):
            status = launch(
                ctypes.byref(call), row.get("stream", 0), row.get("device", 0), family, entry
            )
        answers.append({"status": status, "error": error.value.decode(), "id": name.value.decode()})
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
