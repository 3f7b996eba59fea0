"""The host kernel of attention as a library of its own, at a level that a test names, beside its reference."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from native import host_lib
from native.host_lib import LEVELS, TwAttr, TwCall, TwTensor
from tilewright.backends.host import attributes, view
from tilewright.cases import Case
from tilewright.inputs import Inputs, reference_outputs
from tilewright.numerics import compare
from tilewright.registry import Family, family

RUNS = [("native", level) for level in LEVELS]
RUNS += [("emulated", level) for level in LEVELS if level != "scalar"]
OK, REFUSED = 0, 1
TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@cache
def attention() -> Family:
    return family("attention")


@cache
def library(emulate: bool) -> ctypes.CDLL:
    units = host_lib.units_of("_host", emulate=emulate)
    units += host_lib.units_of("attention", emulate=emulate)
    name = "libtw-attention-emulated.so" if emulate else "libtw-attention.so"
    lib = ctypes.CDLL(str(host_lib.build(name, units, ("-shared", "-Wl,--no-undefined"))))
    lib.tw_force_level.argtypes = [ctypes.c_char_p]
    lib.tw_cpu_levels.restype = ctypes.c_char_p
    return lib


@dataclass(frozen=True, slots=True, repr=False)
class Call:
    """Tensors of one call, in any memory; `flags` and `config` as the spec has them."""

    tensors: Mapping[str, Tensor | None]
    precision: str
    flags: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, int] = field(default_factory=dict)
    threads: int = 1

    def __repr__(self) -> str:
        shapes = {n: tuple(x.shape) for n, x in self.tensors.items() if x is not None}
        cut = [x.tolist() for n, x in self.tensors.items() if n.startswith("cu_") and x is not None]
        return f"{self.case} {shapes} {cut} {dict(self.config)} threads={self.threads}"

    @property
    def case(self) -> Case:
        q, k, v = (self.given(n) for n in ("q", "k", "v"))
        ends = self.tensors.get("cu_q")
        sizes = {
            "B": q.shape[0], "SQ": q.shape[1], "HQ": q.shape[2], "DK": q.shape[3],
            "SK": k.shape[1], "HKV": k.shape[2], "DV": v.shape[3],
            "NS1": len(ends) if ends is not None else 2,
        }  # fmt: skip
        found = {
            "lengths": "equal" if ends is None else "ragged",
            "alibi": "no" if self.tensors.get("alibi") is None else "yes",
        }
        return attention().spec.case(sizes, self.precision, {**found, **self.flags})

    def given(self, name: str) -> Tensor:
        value = self.tensors[name]
        assert value is not None
        return value

    def expected(self) -> dict[str, Tensor]:
        return reference_outputs(attention(), self.case, Inputs(self.tensors, self.tensors))

    def outputs(self) -> dict[str, Tensor]:
        """Poisoned ones, contiguous."""
        q, v = self.given("q"), self.given("v")
        found = {"o": torch.full((*q.shape[:3], v.shape[3]), math.nan, dtype=q.dtype)}
        if self.case.flags["lse"] == "yes":
            found["lse"] = torch.full(tuple(q.shape[:3]), math.nan)
        return found


@dataclass(frozen=True, slots=True)
class Level:
    """One build and level, as a test runs it."""

    build: str
    name: str

    @property
    def usable(self) -> bool:
        text: bytes = library(False).tw_cpu_levels()
        return self.build == "emulated" or self.name in text.decode().split(",")

    def raw(self, call: Call, outputs: Mapping[str, Tensor], case: Case) -> tuple[int, str]:
        """Launch with exactly these tensors; the status and its sentence."""
        lib = library(self.build == "emulated")
        assert lib.tw_force_level(self.name.encode()) == 0
        given = {**call.tensors, **outputs}
        spec = attention().spec
        views = [view(t.name, given.get(t.name)) for t in (*spec.inputs, *spec.outputs)]
        records = (TwTensor * len(views))()
        for record, (name, data, dtype, shape, stride) in zip(records, views, strict=True):
            record.name, record.data, record.dtype = name.encode(), data, dtype
            record.ndim = len(shape) if stride or not shape or shape[0] >= 0 else -1
            for i, (size, step) in enumerate(zip(shape, stride, strict=False)):
                record.shape[i], record.stride[i] = size, step
        values = attributes(spec, case, {"tile_m": 32, "tile_n": 32, **call.config})
        fields = (TwAttr * len(values))(*[TwAttr(k.encode(), v) for k, v in values.items()])
        error = ctypes.create_string_buffer(400)
        raw = TwCall(
            records, fields, ctypes.cast(error, ctypes.c_char_p), 400,
            len(views), len(values), call.threads,
        )  # fmt: skip
        status: int = lib.tw_host_attention(ctypes.byref(raw))
        return status, error.value.decode()

    def run(self, call: Call) -> dict[str, Tensor]:
        """The outputs of a call that is taken."""
        outputs = call.outputs()
        status, error = self.raw(call, outputs, call.case)
        assert status == OK, error
        return outputs

    def check(self, call: Call) -> dict[str, Tensor]:
        """The outputs, after comparing each with the reference under its tolerance."""
        case, outputs = call.case, self.run(call)
        for name, expected in call.expected().items():
            limit = attention().spec.tolerance_of(name, case)
            verdict = compare(outputs[name], expected, limit, attention().spec.unit_of(name))
            assert verdict.ok, f"{name}: {verdict.reason} ({case})"
        return outputs
