"""The KV families' host kernels as a library of their own, driven case by case beside their references.

The library is built from `kernels/` with g++ for every level, natively and emulated (see host_lib.py), so
that a test names the level it runs at.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch

from native import host_lib
from native.host_lib import TwAttr, TwCall, TwTensor
from tilewright.backends.host import attributes, view
from tilewright.cases import Case
from tilewright.inputs import Inputs, make_outputs, reference_outputs
from tilewright.registry import Family

FAMILIES = ("nz_kv", "kv_write", "kv_residual")
# amx is avx512 again for these families and avx2vnni is avx2; each is launched once, in test_host_nz_kv.py.
RUNS = [(build, level) for build in ("native", "emulated") for level in ("avx2", "avx512")]
RUNS.append(("native", "scalar"))
OK, REFUSED = 0, 1
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}


@cache
def library(emulate: bool) -> ctypes.CDLL:
    units = host_lib.units_of("_host", emulate=emulate)
    for family in FAMILIES:
        units += host_lib.units_of(family, emulate=emulate)
    name = "libtw-kv-emulated.so" if emulate else "libtw-kv.so"
    lib = ctypes.CDLL(str(host_lib.build(name, units, ("-shared", "-Wl,--no-undefined"))))
    lib.tw_force_level.argtypes = [ctypes.c_char_p]
    lib.tw_cpu_levels.restype = ctypes.c_char_p
    return lib


def usable(build: str, level: str) -> bool:
    if build == "emulated":
        return True
    text: bytes = library(False).tw_cpu_levels()
    return level in text.decode().split(",")


@dataclass(frozen=True, slots=True)
class Ran:
    """The status of a launch, its sentence, and the tensors it wrote."""

    status: int
    error: str
    outputs: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Level:
    """One build and level, as a test runs it."""

    build: str
    name: str

    def launch(
        self,
        family: Family,
        case: Case,
        inputs: Inputs,
        config: Mapping[str, int] | None = None,
        threads: int = 1,
        strided: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
    ) -> Ran:
        """Launch on `inputs` and fresh outputs; `strided` may lay a tensor out otherwise."""
        outputs = make_outputs(family, case, inputs)
        tensors: dict[str, torch.Tensor | None] = {
            **{t.name: inputs.physical.get(t.name) for t in family.spec.inputs},
            **{t.name: outputs.get(t.name) for t in family.spec.outputs},
        }
        if strided is not None:
            tensors = {n: None if t is None else strided(n, t) for n, t in tensors.items()}
        lib = library(self.build == "emulated")
        assert lib.tw_force_level(self.name.encode()) == 0
        attrs = {**attributes(family.spec, case, {}), **(config or {})}
        status, error = _call(lib, f"tw_host_{family.name}", tensors, attrs, threads)
        written = {n: t for n in outputs if (t := tensors[n]) is not None}
        return Ran(status, error, written)


def _call(
    lib: ctypes.CDLL,
    kernel: str,
    tensors: Mapping[str, torch.Tensor | None],
    attrs: Mapping[str, int],
    threads: int,
) -> tuple[int, str]:
    records = (TwTensor * len(tensors))()
    for record, (name, tensor) in zip(records, tensors.items(), strict=True):
        name, record.data, record.dtype, shape, strides = view(name, tensor)
        record.name = name.encode()
        record.ndim = -1 if tensor is None else len(shape)
        if tensor is not None:
            record.shape[: len(shape)] = shape
            record.stride[: len(shape)] = strides
    fields = (TwAttr * max(1, len(attrs)))()
    for field, (name, value) in zip(fields, attrs.items(), strict=False):
        field.name, field.value = name.encode(), value
    error = ctypes.create_string_buffer(256)
    text = ctypes.cast(error, ctypes.c_char_p)
    launch = TwCall(records, fields, text, 256, len(tensors), len(attrs), threads)
    status: int = getattr(lib, kernel)(ctypes.byref(launch))
    return status, error.value.decode()


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of one type are the same bits, but for the sign of zero."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.is_floating_point:
        a, b = a + 0.0, b + 0.0
    kind = BITS[a.element_size()]
    return torch.equal(a.contiguous().view(kind), b.contiguous().view(kind))


def check_exact(
    level: Level,
    family: Family,
    case: Case,
    inputs: Inputs,
    config: Mapping[str, int] | None = None,
    threads: int = 1,
    strided: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
    but: tuple[str, ...] = (),
) -> Ran:
    """Launch twice; everything written is the reference's, bit by bit, and is so again. `but` is not compared."""
    ran = level.launch(family, case, inputs, config, threads, strided)
    assert ran.status == OK, ran.error
    expected = reference_outputs(family, case, inputs)
    for name, value in ran.outputs.items():
        if name in but:
            continue
        right = expected[name].to(value.dtype)
        if not same_bits(value, right):
            wrong = (value != right).nonzero()
            place = tuple(wrong[0].tolist()) if len(wrong) else ()
            message = f"{family.name} {case} {level}: {name} differs at {len(wrong)} places"
            raise AssertionError(f"{message}, {place}: {value[place]} for {right[place]}")
    return ran
