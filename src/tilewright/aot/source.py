"""What a family's `triton.py` declares so that anyone can compile, launch or ship its kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tilewright.aot.grid import Grid
from tilewright.errors import UsageError

if TYPE_CHECKING:
    import torch

TRITON_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "fp64": "fp64",
        "fp32": "fp32",
        "bf16": "bf16",
        "fp16": "fp16",
        "int8": "i8",
        "int16": "i16",
        "uint8": "u8",
        "int32": "i32",
        "int64": "i64",
    }
)


@dataclass(frozen=True, slots=True)
class KernelArg:
    """One parameter of the compiled kernel, in launch order.

    `type` is Triton's (`*fp16`, `i32`, `i64`, `fp32`). `source` says what a launcher puts there:
    `data:a` the address of tensor a (null if absent and `nullable`), `size:a:0` its shape[0],
    `stride:a:1` its stride[1] in elements, `number:f` the value of the numeric flag f (rounded up for an
    integer), `flag:f` the place of flag f's value among its values, `workspace` the memory that the op's
    kernels share, `scratch` a device buffer of `scratch_bytes` per program (null if 0). `multiple_of` is
    the divisor (bytes for addresses) the binary was specialised for.
    """

    name: str
    type: str
    source: str
    multiple_of: int = 1
    nullable: bool = False
    scratch_bytes: int = 0
    scratch_align: int = 1

    @property
    def is_pointer(self) -> bool:
        return self.type.startswith("*")

    @property
    def bytes(self) -> int:
        """Size of the parameter in the kernel's argument buffer, which is also its alignment."""
        return 8 if self.is_pointer or self.type in ("i64", "u64", "fp64") else 4


@dataclass(frozen=True, slots=True)
class Requirement:
    """What must hold before this binary may run: `source` equals, or is a multiple of, `value`.

    A `stride:` requirement is void where that dimension has at most one element, and every
    requirement is void for an absent tensor. `dense:a` is 1 where tensor a lies row by row without gaps.
    """

    source: str
    kind: Literal["equals", "multiple_of"]
    value: int


@dataclass(frozen=True, slots=True)
class AotSource:
    """A kernel with everything fixed that its binary depends on.

    `fn` is the `@triton.jit` function, `args` its run-time parameters in order, `constexprs` the
    rest (absent tensors are None), `options` what the compiler takes (`num_warps`, `num_stages`).
    `requirements` are the conditions on tensors that are baked in as constexprs, such as unit
    strides; those that follow from `KernelArg.multiple_of` are added by `all_requirements`.

    `sizes` are dims of the spec that are fixed in the binary, `free` the flags whose every value it takes
    as an argument. An op of several kernels has the others in `then`: they start in this order after the
    first, on the same stream, and share `workspace` bytes of device memory (a formula over dims).
    """

    family: str
    fn: Any
    precision: str
    flags: Mapping[str, str]
    config: Mapping[str, int]
    target: str
    args: tuple[KernelArg, ...]
    constexprs: Mapping[str, Any]
    options: Mapping[str, int]
    grid: Grid
    requirements: tuple[Requirement, ...] = field(default=())
    sizes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    free: tuple[str, ...] = ()
    then: tuple[AotSource, ...] = ()
    workspace: Grid | None = None

    def __post_init__(self) -> None:
        names = list(self.fn.arg_names)
        declared = {arg.name for arg in self.args} | set(self.constexprs)
        if missing := [name for name in names if name not in declared]:
            raise UsageError(
                f"{self.family}: kernel parameter '{missing[0]}' is neither argument nor constexpr"
            )
        if extra := sorted(declared - set(names)):
            raise UsageError(f"{self.family}: '{extra[0]}' is not a parameter of the kernel")
        if [a.name for a in self.args] != [n for n in names if n not in self.constexprs]:
            raise UsageError(
                f"{self.family}: arguments are not in the order of the kernel's parameters"
            )

    @property
    def signature(self) -> dict[str, str]:
        """Parameter name to Triton type, constexprs included, in the kernel's order."""
        types = {arg.name: arg.type for arg in self.args}
        return {name: types.get(name, "constexpr") for name in self.fn.arg_names}

    @property
    def attrs(self) -> dict[tuple[int], list[list[Any]]]:
        """Triton's divisibility attributes, by parameter position."""
        place = {name: index for index, name in enumerate(self.fn.arg_names)}
        return {
            (place[arg.name],): [["tt.divisibility", arg.multiple_of]]
            for arg in self.args
            if arg.multiple_of > 1
        }

    @property
    def all_requirements(self) -> tuple[Requirement, ...]:
        """The declared requirements, then those the arguments' divisors imply."""
        implied = (
            Requirement(arg.source, "multiple_of", arg.multiple_of)
            for arg in self.args
            if arg.multiple_of > 1
        )
        return self.requirements + tuple(implied)


def argument(
    name: str, kind: str, source: str, multiple_of: int = 1, nullable: bool = False
) -> KernelArg:
    """A KernelArg from a dtype name as in the spec, with `*` in front for an address."""
    star, base = ("*", kind[1:]) if kind.startswith("*") else ("", kind)
    return KernelArg(name, star + TRITON_TYPES[base], source, multiple_of, nullable)


class TritonModule(Protocol):
    """What `kernels/<family>/triton.py` offers; nothing else of it is ever used."""

    @property
    def kernel(self) -> Any:
        """The `@triton.jit` function."""

    def launch(
        self,
        tensors: Mapping[str, torch.Tensor | None],
        flags: Mapping[str, str],
        config: Mapping[str, int],
        *,
        interpret: bool,
    ) -> None:
        """Run on these tensors, by name as in the spec; outputs are preallocated and overwritten.

        `flags` are values by name; with `interpret` it runs through Triton's interpreter. Raises
        Refused for a case the kernel does not do, Unavailable where no device can run it.
        """

    def aot(
        self,
        precision: str,
        flags: Mapping[str, str],
        config: Mapping[str, int],
        target: str,
        *,
        aligned: bool = True,
    ) -> AotSource:
        """What to compile; `aligned` specialises it to 16-byte rows and addresses.

        A module with `FIXED_SIZES`, a tuple of dicts of dims that its binaries fix, the usual one first, takes
        such a dict as the keyword `sizes` too.
        """


def fixed_sizes(module: TritonModule) -> tuple[Mapping[str, int], ...]:
    """The combinations of dims that a family's binaries are made for; one empty one where they fix none."""
    found: tuple[Mapping[str, int], ...] = getattr(module, "FIXED_SIZES", ({},))
    return found


def source_of(
    module: TritonModule,
    precision: str,
    flags: Mapping[str, str],
    config: Mapping[str, int],
    target: str,
    *,
    aligned: bool = True,
    sizes: Mapping[str, int] | None = None,
) -> AotSource:
    """`module.aot` with those of `sizes` that its binaries fix; the usual ones where they are not given."""
    usual = fixed_sizes(module)[0]
    if not usual:
        return module.aot(precision, flags, config, target, aligned=aligned)
    chosen = {name: (sizes or {}).get(name, value) for name, value in usual.items()}
    with_sizes: Any = module.aot
    source: AotSource = with_sizes(precision, flags, config, target, aligned=aligned, sizes=chosen)
    return source
