"""The stage of the GPU binaries: their bytes, and stored calls run where there is a GPU they are for."""

from __future__ import annotations

import ctypes
import hashlib
import json
import struct
from typing import Any, NamedTuple

import torch

from .golden import Call
from .loaded import Loaded, Result, first_line, judge

_MAX_DIMS = 6
_REFUSED = 1
# Index: the dtype code of the launcher's C interface.
_CODES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int8,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.float64,
    torch.int16,
)


class _Tensor(ctypes.Structure):
    """`tw_tensor`: a strided view; an absent one has ndim -1."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.c_int64 * _MAX_DIMS),
        ("stride", ctypes.c_int64 * _MAX_DIMS),
    ]


class _Attr(ctypes.Structure):
    """`tw_attr`: a flag and the index of its value; of a numeric one, the bits of a double."""

    _fields_ = [("name", ctypes.c_char_p), ("value", ctypes.c_int64)]


class _Call(ctypes.Structure):
    """`tw_call`: what the launcher is given."""

    _fields_ = [
        ("tensors", ctypes.POINTER(_Tensor)),
        ("attrs", ctypes.POINTER(_Attr)),
        ("error", ctypes.c_char_p),
        ("error_size", ctypes.c_size_t),
        ("tensor_count", ctypes.c_int32),
        ("attr_count", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    ]


class Device(NamedTuple):
    """A GPU as torch has it: the driver it is reached by (`cuda` or `hip`), its number and its name."""

    api: str
    number: int
    name: str


def gpu_stage(loaded: Loaded) -> Result:
    """Compare the binaries with dispatch.json; on a GPU, run every stored call that has a binary there."""
    folder = loaded.library_path.parent
    document = json.loads((folder / "dispatch.json").read_text(encoding="utf-8"))
    entries = document["entries"]
    if not entries:
        return "passed", "The bundle has no GPU binaries."
    kernels = [kernel for entry in entries for kernel in (entry, *entry.get("then", ()))]
    for kernel in kernels:
        data = (folder / kernel["binary"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != kernel["sha256"]:
            return (
                "failed",
                f"{kernel['binary']} does not have the sha256 that dispatch.json gives.",
            )
        if data[:4] != b"\x7fELF":
            return "failed", f"{kernel['binary']} is not an ELF file."
    targets = ", ".join(sorted({e["target"] for e in entries}))
    binaries = len({kernel["binary"] for kernel in kernels})
    facts = f"{len(entries)} launch entries for {targets} name {binaries} binaries with the right sha256"
    library = loaded.library
    if not hasattr(library, "tw_gpu_choose"):
        return "failed", f"{facts}, but the library has no launcher."
    library.tw_gpu_entry_id.restype = ctypes.c_char_p
    count = library.tw_gpu_entry_count()
    built_in = [(library.tw_gpu_entry_id(i) or b"").decode() for i in range(count)]
    if built_in != [e["id"] for e in entries]:
        return "failed", "The launcher's built-in table is not the one of dispatch.json."
    facts += ", and the launcher's built-in table is the same"
    if not torch.cuda.is_available():
        return "passed", f"{facts}; launch not run: no device."
    return on_device(loaded, facts, targets)


def on_device(loaded: Loaded, facts: str, targets: str) -> Result:
    """Only a binary that the launcher chose can fail; a call that none is for is counted."""
    number = torch.cuda.current_device()
    api = "hip" if torch.version.hip else "cuda"
    device = Device(api, number, torch.cuda.get_device_name(number))
    status, seen = reached(loaded, device)
    if status != 0:
        return (
            "undecided",
            f"{facts}; launch not run: torch has {device.name}, the launcher has not: {seen}.",
        )
    ran, without, worst = 0, 0, 0.0
    for call in loaded.calls:
        moved = call._replace(
            args=tuple(map(to_device, call.args)),
            kwargs={name: to_device(value) for name, value in call.kwargs.items()},
        )
        status, said = choose(loaded, moved, device)
        if status == _REFUSED:
            without += 1
            continue
        if status != 0:
            return "failed", f"{call.name} on {device.name}: {said}."
        try:
            share, reason = judge(call, loaded.call(moved))
        except (RuntimeError, ValueError) as error:
            share, reason = 0.0, first_line(error)
        if reason:
            return "failed", f"{call.name} with {said} on {device.name}: {reason}."
        ran += 1
        worst = max(worst, share)
    if ran == 0:
        return "passed", (
            f"{facts}; launch not run: {device.name} is {seen} and no stored call has a binary for it; "
            f"binaries are for {targets}."
        )
    return "passed", (
        f"{facts}; {ran} stored calls agree on {device.name} ({seen}), the worst used {worst:.0%} of its "
        f"tolerance; {without} have no binary here."
    )


def to_device(value: Any) -> Any:
    """A tensor on torch's current GPU, as a view of the memory around it; anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    whole = value if value._base is None else value._base
    return whole.to("cuda").as_strided(value.shape, value.stride(), value.storage_offset())


def reached(loaded: Loaded, device: Device) -> tuple[int, str]:
    """The launcher's status and its name for the device, such as `cuda:sm_90`, or its sentence."""
    text = ctypes.create_string_buffer(1024)
    status = loaded.library.tw_gpu_device(
        device.api.encode(), ctypes.c_int32(device.number), text, ctypes.c_size_t(len(text))
    )
    return status, text.value.decode(errors="replace")


def choose(loaded: Loaded, call: Call, device: Device) -> tuple[int, str]:
    """The launcher's status for a call, and the id of the entry it takes or the sentence why not."""
    op = loaded.manifest["ops"][call.op]
    names = [argument.name for argument in loaded.op(call.op)._schema.arguments]
    given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
    like = next(t for t in call.args if isinstance(t, torch.Tensor))
    for name, want, dtype in zip(call.outputs, call.expected, call.dtypes, strict=True):
        if name not in call.changed:
            given[name] = torch.empty(want.shape, dtype=dtype, device=like.device)
    tensors = (_Tensor * len(op["tensors"]))(
        *(_tensor(given.get(t["name"])) for t in op["tensors"])
    )
    flags = [(f["name"], _flag_value(f, call.flags[f["name"]])) for f in op["flags"]]
    attrs = (_Attr * max(1, len(flags)))(*(_Attr(name.encode(), value) for name, value in flags))
    error, entry = ctypes.create_string_buffer(1024), ctypes.create_string_buffer(1024)
    room = ctypes.cast(error, ctypes.c_char_p)
    asked = _Call(tensors, attrs, room, len(error), len(tensors), len(flags), 0)
    status = loaded.library.tw_gpu_choose(
        ctypes.byref(asked),
        ctypes.c_int32(device.number),
        call.op.encode(),
        device.api.encode(),
        entry,
        ctypes.c_size_t(len(entry)),
    )
    said = entry.value if status == 0 else error.value
    return status, said.decode(errors="replace")


def _flag_value(flag: dict[str, Any], value: str) -> int:
    if flag["kind"] == "number":
        (bits,) = struct.unpack("<q", struct.pack("<d", float(value)))
        return int(bits)
    return int(flag["values"].index(value))


def _tensor(value: torch.Tensor | None) -> _Tensor:
    if value is None:
        return _Tensor(b"", None, 0, -1)
    made = _Tensor(b"", value.data_ptr(), _CODES.index(value.dtype), value.dim())
    for axis, (size, stride) in enumerate(zip(value.shape, value.stride(), strict=True)):
        made.shape[axis], made.stride[axis] = size, stride
    return made
