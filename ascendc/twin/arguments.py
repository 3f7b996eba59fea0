"""The small language of `--args`: a kernel's arguments in order, in words a newcomer can guess."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.errors import UsageError, unknown

from . import values
from .cpp_source import Parameter

if TYPE_CHECKING:
    import numpy as np

STRUCT_CODES = {
    **{"int8": "b", "int16": "h", "int32": "i", "int64": "q"},
    **{"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q"},
    **{"fp16": "e", "fp32": "f", "fp64": "d", "bool": "?"},
}
TYPES = (*STRUCT_CODES, "bf16")
_ALIASES = {
    **{"half": "fp16", "float16": "fp16", "float": "fp32", "float32": "fp32", "double": "fp64"},
    **{"float64": "fp64", "bfloat16": "bf16", "bfloat16_t": "bf16", "int": "int32"},
    **{f"{t}_t": t for t in TYPES},
}
_PLACE = 512  # bytes an allocation on the device is aligned to
_FILLS = ("normal", "uniform", "randint", "arange", "zeros", "ones", "full", "out", "workspace")
_SPEC = re.compile(
    r"(?P<name>[A-Za-z_]\w*)\s*(?::\s*(?P<type>[^=\[]+?)\s*(?P<shape>\[[^\]]*\])?)?$"
)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: the array it is (bf16 as its bits), or the plain value handed to the kernel."""

    name: str
    dtype: str  # "" for what has none
    value: Any
    role: str  # input, output, workspace, scalar, bytes, null
    before: Any = field(
        default=None, repr=False, compare=False
    )  # of an input array, in fp64 or int64

    @property
    def is_array(self) -> bool:
        return self.role in ("input", "output", "workspace")

    def numbers(self) -> np.ndarray:
        """The array as it is now, in float64 or int64."""
        return wide(self.value, self.dtype)


def wide(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array of the twin in float64 or int64; uint64 in float64."""
    import numpy as np

    if dtype == "bf16":
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype.startswith("fp") or dtype == "uint64":
        return array.astype(np.float64)
    return array.astype(np.int64)


def narrow(array: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as the twin keeps them: rounded to nearest even, bf16 as its bits."""
    import numpy as np

    if dtype == "bf16":
        bits = array.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.ascontiguousarray(array.astype(numpy_type(dtype)))


def numpy_type(dtype: str) -> np.dtype[Any]:
    """How an element lies in memory."""
    import numpy as np

    name = {"bf16": "uint16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}.get(
        dtype, dtype
    )
    return np.dtype(name)


def split(text: str, separator: str = ",") -> list[str]:
    """Parts between commas that stand in no bracket."""
    parts, depth, begin = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([<{") - (c in ")]>}")
        if c == separator and depth == 0:
            parts.append(text[begin:i].strip())
            begin = i + 1
    return [p for p in [*parts, text[begin:].strip()] if p]


def parse(text: str, seed: int = 0) -> list[Argument]:
    """The arguments that `text` describes, their random values drawn from `seed`.

    Raises UsageError with one sentence about the first part that is not understood.
    """
    found: list[Argument] = []
    for i, part in enumerate(split(text)):
        argument = _parse(part, seed + 7919 * i)
        if any(a.name == argument.name for a in found):
            raise UsageError(f"--args names '{argument.name}' twice")
        found.append(argument)
    return found


def _parse(part: str, seed: int) -> Argument:
    left, equals, right = part.partition("=")
    right = right.strip()
    spec = _SPEC.match(left.strip())
    if spec is None:
        raise UsageError(f"'{part}' in --args is not NAME:TYPE[SHAPE]=FILL or NAME=VALUE")
    name, kind, shape = spec["name"], spec["type"], spec["shape"]
    if kind is not None and kind.replace(" ", "").startswith("struct<"):
        return Argument(name, "", _structure(part, kind, right), "bytes")
    dtype = None if kind is None else _ALIASES.get(kind, kind)
    if dtype is not None and dtype not in TYPES:
        raise unknown(f"type in '{part}':", kind, [*TYPES, "struct<...>"])
    if right.startswith("@"):
        return _from_file(part, name, dtype, shape, Path(right[1:]))
    if right in ("null", "nullptr"):
        return Argument(name, "", None, "null")
    if shape is not None:
        return _array(part, name, dtype or "", shape, right or "normal", seed)
    if not equals:
        raise UsageError(
            f"'{part}' in --args has no value; write {name}=VALUE or give a shape, as {name}:fp16[1024]=normal"
        )
    if right.partition("(")[0] in _FILLS:
        raise UsageError(
            f"'{part}' in --args has no shape; write {name}:{kind or 'fp16'}[1024]={right}"
        )
    return Argument(name, dtype or "", _scalar(part, right), "scalar")


def _scalar(part: str, text: str) -> int | float:
    try:
        return int(text, 0)
    except ValueError:
        pass
    if text in ("true", "false"):
        return int(text == "true")
    try:
        return float(
            text.rstrip("fF") if text[:2] != "0x" and text.lower() not in ("inf", "-inf") else text
        )
    except ValueError:
        raise UsageError(f"'{text}' in '{part}' is not a number") from None


def _structure(part: str, kind: str, right: str) -> bytes:
    names = split(kind.replace(" ", "")[len("struct<") : -1])
    if right.startswith("@"):
        return _bytes(part, Path(right[1:]))
    if not (right.startswith("(") and right.endswith(")")):
        raise UsageError(f"'{part}' in --args needs its values in parentheses, as (1,2,0.5)")
    codes = []
    for name in names:
        plain, _, count = name.partition("*")
        plain = _ALIASES.get(plain, plain)
        if plain not in STRUCT_CODES:
            raise unknown(f"field in '{part}':", plain, list(STRUCT_CODES))
        codes += [STRUCT_CODES[plain]] * int(count or 1)
    given = [_scalar(part, v) for v in split(right[1:-1])]
    if len(given) != len(codes):
        raise UsageError(f"'{part}' in --args has {len(codes)} fields and {len(given)} values")
    # "0" of the widest field pads the end, as the compiler does.
    widest = max(codes, key=lambda c: struct.calcsize(c))
    try:
        return struct.pack(f"@{''.join(codes)}0{widest}", *given)
    except struct.error as error:
        raise UsageError(f"'{part}' in --args: {error}") from None


def _bytes(part: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"'{part}' in --args: {path} cannot be read: {error.strerror}") from None


def _shape(part: str, text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(p) for p in split(text[1:-1].replace("*", ",").replace("x", ",")))
    except ValueError:
        raise UsageError(
            f"the shape {text} in '{part}' is not a list of integers, as [32,2048]"
        ) from None
    if not shape or any(n < 0 for n in shape):
        raise UsageError(f"the shape {text} in '{part}' is not a list of sizes, as [32,2048]")
    return shape


def _from_file(part: str, name: str, dtype: str | None, shape: str | None, path: Path) -> Argument:
    import numpy as np

    if path.suffix != ".npy":
        return Argument(name, "", _bytes(part, path), "bytes")
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"'{part}' in --args: {path} cannot be read: {error}") from None
    if dtype is None:
        dtype = _ALIASES.get(array.dtype.name, array.dtype.name)
        if dtype not in TYPES:
            raise unknown(f"type in {path}:", array.dtype, list(TYPES))
    if shape is not None and _shape(part, shape) != array.shape:
        raise UsageError(f"'{part}' in --args: {path} has the shape {list(array.shape)}")
    array = (
        np.ascontiguousarray(array) if array.dtype == numpy_type(dtype) else narrow(array, dtype)
    )
    return Argument(name, dtype, array, "input", wide(array, dtype))


def _numbers(part: str, text: str, count: int) -> list[float]:
    given = [float(_scalar(part, v)) for v in split(text)]
    if len(given) not in (0, count):
        raise UsageError(f"'{part}' in --args takes {count} numbers in parentheses")
    return given


def _array(part: str, name: str, dtype: str, shape_text: str, fill: str, seed: int) -> Argument:
    import numpy as np

    shape = _shape(part, shape_text)
    word, _, rest = fill.partition("(")
    word = word.strip()
    kind = numpy_type(dtype)
    if word not in _FILLS or (rest and not rest.endswith(")")):
        raise unknown(f"fill in '{part}':", fill, [*_FILLS, "@file.npy"])
    if word in ("out", "workspace"):
        # All bytes set is NaN in every floating-point type.
        poisoned = np.full(int(np.prod(shape)) * kind.itemsize, 0xFF, np.uint8).view(kind)
        role = "output" if word == "out" else "workspace"
        return Argument(name, dtype, _placed(poisoned.reshape(shape)), role)
    rng = np.random.default_rng(seed)
    values_of: np.ndarray
    whole = dtype not in ("fp16", "bf16", "fp32", "fp64")
    if word == "normal":
        mean, std = _numbers(part, rest[:-1], 2) or [0.0, 4.0 if whole else 1.0]
        values_of = rng.normal(mean, std, shape)
    elif word == "uniform":
        low, high = _numbers(part, rest[:-1], 2) or ([0.0, 8.0] if whole else [-1.0, 1.0])
        values_of = rng.uniform(low, high, shape)
    elif word == "randint":
        low, high = _numbers(part, rest[:-1], 2) or [0.0, 8.0]
        values_of = rng.integers(int(low), int(high), shape, endpoint=False)
    elif word == "arange":
        values_of = np.arange(int(np.prod(shape))).reshape(shape)
    else:
        value = {"zeros": 0.0, "ones": 1.0}.get(word)
        values_of = np.full(
            shape, value if value is not None else (_numbers(part, rest[:-1], 1) or [0.0])[0]
        )
    if whole:
        limits = (0, 1) if dtype == "bool" else (np.iinfo(kind).min, np.iinfo(kind).max)
        values_of = np.clip(np.rint(values_of), *limits)
    array = _placed(narrow(np.asarray(values_of), dtype))
    return Argument(name, dtype, array, "input", wide(array, dtype))


def _placed(array: np.ndarray) -> np.ndarray:
    """A copy where a device's allocator would put it: times depend on where rows start."""
    import numpy as np

    room = np.empty(array.nbytes + _PLACE, np.uint8)
    start = -room.ctypes.data % _PLACE
    placed = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    placed[...] = array
    return placed


def fit(
    arguments: Sequence[Argument], parameters: Sequence[Parameter], infos: Sequence[Any], entry: str
) -> list[Any]:
    """The values to call with; raises UsageError where the arguments are not those of the kernel."""
    if len(arguments) != len(infos):
        raise UsageError(
            f"{entry} takes {len(infos)} arguments and --args has {len(arguments)}; for example\n"
            f'  --args "{suggestion(parameters, infos)}"'
        )
    positions = {p.name: i for i, p in enumerate(parameters) if p.name}
    for i, (argument, info) in enumerate(zip(arguments, infos, strict=True)):
        if positions.get(argument.name, i) != i:
            raise UsageError(
                f"'{argument.name}' is argument {i + 1} of --args and parameter {positions[argument.name] + 1} "
                f"of {entry}; --args follows the kernel's order"
            )
        if argument.role == "scalar" and argument.dtype:
            size, kind = struct.calcsize(STRUCT_CODES.get(argument.dtype, "H")), int(info.kind)
            floating = argument.dtype[0] == "f" or argument.dtype == "bf16"
            wants = kind in (values.FLOAT, values.HALF, values.BFLOAT16)
            if kind == values.POINTER or size != info.bytes or floating != wants:
                raise UsageError(
                    f"'{argument.name}' is {argument.dtype} in --args and {values.describe(info)} in {entry}"
                )
    return [a.value for a in arguments]


def suggestion(parameters: Sequence[Parameter], infos: Sequence[Any]) -> str:
    """An --args that fits, to start from."""
    element = {
        **{"half": "fp16", "float16_t": "fp16", "float": "fp32", "bfloat16_t": "bf16"},
        **{f"{t}_t": t for t in TYPES if "int" in t},
    }
    parts = []
    for i, (parameter, info) in enumerate(zip(parameters, infos, strict=True)):
        name = parameter.name or f"a{i}"
        if info.kind == values.POINTER:
            base = re.sub(r"__gm__|const|\*|&", " ", parameter.type).split()
            kind = element.get(base[0] if len(base) == 1 else "", "fp16")
            fill = "out" if re.match(r"(out|[yz]|dst|result)", name, re.IGNORECASE) else "normal"
            parts.append(f"{name}:{kind}[1024]={fill}")
        elif info.kind == values.BYTES:
            parts.append(f"{name}=@{name}.bin")
        else:
            parts.append(
                f"{name}={'0.5' if info.kind in (values.FLOAT, values.HALF, values.BFLOAT16) else '1024'}"
            )
    return ", ".join(parts)
