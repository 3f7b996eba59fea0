"""A compiled Triton kernel and its family's spec -> one row of `dispatch.json`."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from tilewright.aot.compile import CompiledKernel
from tilewright.aot.source import KernelArg, Requirement
from tilewright.dims import Expr
from tilewright.errors import UsageError
from tilewright.spec import KernelSpec, Tensor
from tilewright.targets import target

_CTYPES = {"i32": "i32", "i64": "i64", "fp32": "fp32"}


def dispatch_row(
    spec: KernelSpec,
    kernel: CompiledKernel,
    binary: str,
    *,
    then: Sequence[str] = (),
    aligned: bool = False,
    when: Mapping[str, tuple[int | None, int | None]] | None = None,
) -> dict[str, Any]:
    """The row for `kernel`, whose bytes the bundle keeps at the relative path `binary`.

    `then` are the paths of the op's further kernels in their order. `aligned` tells the binary for
    rows of multiples of 16 bytes from the one for any: both may ask for alignment. `when` limits
    dims to inclusive ranges. Raises UsageError for a kernel that did not compile or whose
    parameters the launcher cannot fill from the call.
    """
    if not kernel.ok:
        raise UsageError(f"{kernel.family} for {kernel.target} cannot be shipped: {kernel.error}")
    when = {**{name: (size, size) for name, size in kernel.sizes.items()}, **(when or {})}
    steps = (kernel, *kernel.then)
    sources = {parameter.source: parameter for step in steps for parameter in step.parameters}
    data = {
        source.removeprefix("data:"): p
        for source, p in sources.items()
        if source.startswith("data:")
    }
    flags = _flags(spec, kernel, data)
    row: dict[str, Any] = {
        "id": _identifier(spec, kernel, flags, aligned) + _suffix(when),
        "family": kernel.family,
        "precision": kernel.precision,
        "flags": flags,
        "target": kernel.target,
        **_kernel(spec, kernel, binary),
        "config": dict(kernel.config),
        "tensors": [_tensor(spec, t, kernel, data.get(t.name)) for t in spec.tensors],
    }
    if kernel.then:
        row["then"] = [
            _kernel(spec, step, path) for step, path in zip(kernel.then, then, strict=True)
        ]
    if kernel.workspace:
        row["workspace"] = _grid(spec, kernel, kernel.workspace)
    if when:
        row["when"] = {name: list(ends) for name, ends in when.items()}
    return row


def _kernel(spec: KernelSpec, kernel: CompiledKernel, binary: str) -> dict[str, Any]:
    """What is of one kernel: its binary, block, parameters and grid."""
    return {
        "symbol": kernel.kernel_symbol,
        "binary": binary,
        "sha256": kernel.binary_sha256,
        "num_warps": kernel.threads // target(kernel.target).limit("warp_size"),
        "shared_bytes": kernel.dynamic_shared_bytes,
        "args": _args(spec, kernel),
        "grid": [_grid(spec, kernel, tokens) for tokens in kernel.grid],
        "global_scratch_bytes": _scratch(kernel),
    }


def _identifier(
    spec: KernelSpec, kernel: CompiledKernel, conditions: Mapping[str, int], aligned: bool
) -> str:
    flags = "".join(f".{name}={kernel.flags[name]}" for name in conditions)
    kind = ".aligned" if aligned else ""
    return f"{spec.name}.{kernel.precision}.{target(kernel.target).file_stem}{flags}{kind}"


def _suffix(when: Mapping[str, tuple[int | None, int | None]] | None) -> str:
    """What tells an entry for some sizes from the one for all: `.M17-64.N576`."""
    parts = []
    for name, (low, high) in (when or {}).items():
        exact = low == high and low is not None
        ends = f"{'' if low is None else low}-{'' if high is None else high}"
        parts.append(f".{name}{low if exact else ends}")
    return "".join(parts)


def _flags(
    spec: KernelSpec, kernel: CompiledKernel, data: Mapping[str, KernelArg]
) -> dict[str, int]:
    # A flag that only says whether a nullable tensor is there is no condition: one binary for both.
    free = {t.when[0] for t in spec.tensors if t.when and t.name in data and data[t.name].nullable}
    bound = {
        t.when[0] for t in spec.tensors if t.when and not (t.name in data and data[t.name].nullable)
    }
    return {
        name: _flag_value(spec, name, value)
        for name, value in kernel.flags.items()
        if name not in free - bound and name not in kernel.free
    }


def _flag_value(spec: KernelSpec, name: str, value: str) -> int:
    """A flag as an attribute of a call: the place of its value, of a number the bits of the double."""
    if spec.flag(name).numeric:
        (bits,) = struct.unpack("<q", struct.pack("<d", float(value)))
        return int(bits)
    return spec.flag(name).values.index(value)


def _shape(tensor: Tensor, kernel: CompiledKernel) -> tuple[Expr | int, ...]:
    flag = tensor.layout_flag
    if flag is None:
        return tensor.dims
    return tensor.layouts[kernel.flags.get(flag, next(iter(tensor.layouts)))].shape


def _tensor(
    spec: KernelSpec, tensor: Tensor, kernel: CompiledKernel, arg: KernelArg | None
) -> dict[str, Any]:
    names = [size.name if isinstance(size, Expr) else size for size in _shape(tensor, kernel)]
    presence = "absent" if arg is None else "optional" if arg.nullable else "required"
    dtype = spec.precision(kernel.precision).dtypes[tensor.name].name
    row: dict[str, Any] = {"name": tensor.name, "dtype": dtype, "dims": names, "presence": presence}
    for requirement in kernel.requirements:
        kind, _, place = requirement.source.partition(":")
        name, _, axis = place.partition(":")
        if requirement.kind != "equals" or name != tensor.name:
            continue
        if kind == "dense":
            row["dense"] = True
            continue
        unit = kind == "stride" and requirement.value == 1
        if not unit or row.setdefault("unit_stride", int(axis)) != int(axis):
            raise _unknown(kernel, requirement)
    return row


def _args(spec: KernelSpec, kernel: CompiledKernel) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for parameter in kernel.parameters:
        kind, _, place = parameter.source.partition(":")
        name, _, axis = place.partition(":")
        divisible = {"divisible": parameter.multiple_of} if parameter.multiple_of > 1 else {}
        match kind:
            case "data":
                rows.append({"kind": "tensor", "name": name, **divisible})
            case "size":
                dim = _dim(spec, kernel, name, int(axis))
                rows.append(
                    {"kind": "dim", "name": dim, "ctype": _CTYPES[parameter.type], **divisible}
                )
            case "stride":
                ctype = _CTYPES[parameter.type]
                rows.append(
                    {
                        "kind": "stride",
                        "tensor": name,
                        "dim": int(axis),
                        "ctype": ctype,
                        **divisible,
                    }
                )
            case "number":
                rows.append({"kind": "number", "name": name, "ctype": _CTYPES[parameter.type]})
            case "flag":
                rows.append({"kind": "attr", "name": name, "ctype": _CTYPES[parameter.type]})
            case "workspace":
                rows.append({"kind": "workspace", **divisible})
            case "scratch":
                continue
            case _:
                raise UsageError(
                    f"{kernel.family}: the launcher has nothing to fill {parameter.source!r}"
                )
    hidden = [p.source for p in kernel.parameters[-2:]]
    if hidden == ["scratch", "scratch"]:
        rows.append({"kind": "scratch"})
    return rows


def _scratch(kernel: CompiledKernel) -> int:
    sizes = [p.scratch_bytes for p in kernel.parameters if p.source == "scratch"]
    if any(sizes[1:]):
        raise UsageError(
            f"{kernel.family} was compiled with profiling on; a bundle takes it without"
        )
    return sizes[0] if sizes else 0


def _grid(
    spec: KernelSpec, kernel: CompiledKernel, tokens: tuple[str | int, ...]
) -> list[str | int]:
    # Formulas name the kernel's parameters; a dispatch entry names the spec's dims.
    sizes = {
        p.name: p.source.split(":")[1:] for p in kernel.parameters if p.source.startswith("size:")
    }
    return [
        _dim(spec, kernel, sizes[token][0], int(sizes[token][1]))
        if isinstance(token, str) and token in sizes
        else token
        for token in tokens
    ]


def _dim(spec: KernelSpec, kernel: CompiledKernel, name: str, axis: int) -> str:
    tensor = next(t for t in spec.tensors if t.name == name)
    size = _shape(tensor, kernel)[axis]
    dim = size.name if isinstance(size, Expr) else None
    if dim is None:
        raise UsageError(
            f"{kernel.family}: axis {axis} of '{name}' is {size}, which is no named dim"
        )
    return dim


def _unknown(kernel: CompiledKernel, requirement: Requirement) -> UsageError:
    condition = f"{requirement.source} {requirement.kind} {requirement.value}"
    return UsageError(f"{kernel.family}: the launcher cannot check '{condition}'")
