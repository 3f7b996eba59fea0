"""What a spec is made of: tensors, how they lie in memory, their element types, and functions named beside it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tilewright.cases import Case
from tilewright.dims import Expr
from tilewright.dtypes import DType
from tilewright.numerics import Tolerance

Size = Expr | int


@dataclass(frozen=True, slots=True)
class Ref:
    """A function named `module:function` beside the spec, imported when first used.

    Keeps torch out of the import of a spec.
    """

    path: str

    def resolve(self, package: str) -> Callable[..., Any]:
        """Import it; `package` is the package of the family."""
        module, _, function = self.path.partition(":")
        found: Callable[..., Any] = getattr(
            importlib.import_module(f"{package}.{module}"), function
        )
        return found


@dataclass(frozen=True, slots=True)
class Layout:
    """How a tensor lies in memory: its physical shape, and how to get there from the logical one.

    `pack` names a function `(logical, sizes) -> physical`; None means the logical tensor as it is.
    `backends` limits who takes it; None means everyone. `blocked` trailing dims lie contiguous in
    any memory: kernels may load a whole block at once.
    """

    shape: tuple[Size, ...]
    pack: Ref | None = None
    backends: tuple[str, ...] | None = None
    blocked: int = 0


@dataclass(frozen=True, slots=True, init=False)
class Tensor:
    """An input or output: a name, logical dims, and optionally layouts and a presence rule.

    `when=("bias", ("yes",))` makes the tensor present only if that flag has one of those values.
    `init` says how inputs are drawn: "normal", "uniform" (integers over their whole range) or
    "scale" (positive, around 0.01). `layout_flag` is the flag that chooses the layout, which tensors may
    share. An output with `inout` holds something before the call: it is drawn like an input, the kernel
    changes it in place, and the reference takes its logical value by name and returns the new one.
    `align` is what the address and the stride of the first dim are multiples of, in bytes. `tolerance`
    is an output's own, where the spec's does not fit it.
    """

    name: str
    dims: tuple[Size, ...]
    layouts: Mapping[str, Layout]
    when: tuple[str, tuple[str, ...]] | None
    init: str
    inout: bool
    align: int
    tolerance: Tolerance | None
    _layout_flag: str | None

    def __init__(
        self,
        name: str,
        *dims: Size,
        layouts: Mapping[str, Layout] | None = None,
        when: tuple[str, tuple[str, ...]] | None = None,
        init: str = "normal",
        layout_flag: str | None = None,
        inout: bool = False,
        align: int = 0,
        tolerance: Tolerance | None = None,
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "dims", dims)
        object.__setattr__(self, "layouts", MappingProxyType(dict(layouts or {})))
        object.__setattr__(self, "when", when)
        object.__setattr__(self, "init", init)
        object.__setattr__(self, "inout", inout)
        object.__setattr__(self, "align", align)
        object.__setattr__(self, "tolerance", tolerance)
        object.__setattr__(
            self, "_layout_flag", (layout_flag or f"{name}_layout") if layouts else None
        )

    @property
    def optional(self) -> bool:
        return self.when is not None

    @property
    def layout_flag(self) -> str | None:
        """The flag that chooses the layout, `<name>_layout` or a shared one; None where there is only one."""
        return self._layout_flag

    def present(self, case: Case) -> bool:
        return self.when is None or case.flags[self.when[0]] in self.when[1]

    def layout(self, case: Case) -> Layout:
        if self._layout_flag is None:
            return Layout(self.dims)
        if self._layout_flag not in case.flags and len(self.layouts) == 1:
            return next(iter(self.layouts.values()))
        return self.layouts[case.flags[self._layout_flag]]


@dataclass(frozen=True, slots=True)
class Precision:
    """One combination of element types: tensor name to dtype.

    `sizes` are extra named sizes for layouts (such as how many k values one lane holds); `flags`
    narrows the values a flag may take under this precision; `accumulate` is the accumulator.
    """

    name: str
    dtypes: Mapping[str, DType]
    accumulate: DType
    sizes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
