"""Layout functions travel with what they use and pack as the family's own do; schemas are told apart."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.bindings.table import op_of
from tilewright.errors import UsageError
from tilewright.registry import Family, families
from tilewright.ship import pyapi
from tilewright.ship.layout_source import standing_alone
from tilewright.ship.receiver.verify_parts.schema import same_schema
from tilewright.spec import Ref

FAMILIES = families()
PACKED = [
    (family.name, tensor.name, layout.pack.path)
    for family in FAMILIES.values()
    for tensor in family.spec.given
    for layout in tensor.layouts.values()
    if layout.pack is not None
]


def shipped(family: Family) -> dict[str, Any]:
    source = pyapi.layouts_module(family, op_of(family))
    assert source is not None
    assert not re.search(r"(from|import) tilewright", source)
    names: dict[str, Any] = {}
    exec(compile(source, f"_layouts_{family.name}.py", "exec"), names)
    return names


def test_some_families_pack() -> None:
    assert {"gemm", "gemm_w4"} <= {name for name, _, _ in PACKED}


@pytest.mark.parametrize(("name", "tensor", "path"), PACKED)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_shipped_function_packs_as_the_familys_own(
    name: str, tensor: str, path: str, data: st.DataObject
) -> None:
    family = FAMILIES[name]
    spec = next(t for t in family.spec.given if t.name == tensor)
    precision = data.draw(st.sampled_from(family.spec.precisions))
    shape = [data.draw(st.integers(0, 40)) for _ in spec.dims]
    value = torch.randint(0, 16, shape).to(precision.dtypes[tensor].torch())
    function = path.rpartition(":")[2]
    want = Ref(path).resolve(family.package)(value, precision.sizes)
    assert torch.equal(shipped(family)[function](value, precision.sizes), want)


def _uses_what_a_bundle_lacks(value: torch.Tensor) -> object:
    return pytest.approx(value)


def _reaches_it() -> object:
    return _uses_what_a_bundle_lacks(torch.zeros(1))


@pytest.mark.parametrize("function", [_uses_what_a_bundle_lacks, _reaches_it])
def test_a_function_that_needs_more_than_torch_is_refused(function: Any) -> None:
    with pytest.raises(UsageError, match="uses 'pytest' of pytest, which a bundle has not"):
        standing_alone([function])


FIRST = """
import torch
from torch import float32 as KIND
_LANE = 4
def first(value, sizes):
    return _padded(value).to(KIND)
def _padded(value):
    return torch.nn.functional.pad(value, (0, _LANE))
"""
SECOND = FIRST.replace("first", "second")


def functions_of(tmp_path: Path, **texts: str) -> list[Any]:
    """The function of every module's own name, as families' modules would be imported."""
    found = []
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        described = importlib.util.spec_from_file_location(f"apart.{name}", tmp_path / f"{name}.py")
        assert described is not None and described.loader is not None
        module = importlib.util.module_from_spec(described)
        sys.modules[module.__name__] = module
        described.loader.exec_module(module)
        found.append(getattr(module, name))
    return found


def test_modules_that_mean_the_same_by_a_name_are_shipped_together(tmp_path: Path) -> None:
    source = "\n\n".join(standing_alone(functions_of(tmp_path, first=FIRST, second=SECOND)))
    assert source.count("_LANE = 4") == source.count("def _padded") == 1
    names: dict[str, Any] = {}
    exec(compile(source, "together.py", "exec"), names)
    assert names["first"](torch.ones(3), {}).tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert torch.equal(names["first"](torch.ones(3), {}), names["second"](torch.ones(3), {}))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("_LANE", "_LANE = 4", "_LANE = 2"),
        ("_padded", "pad(value, (0, _LANE))", "pad(value, (_LANE, 0))"),
        ("KIND", "float32 as KIND", "float64 as KIND"),
        ("KIND", "from torch import float32 as KIND", "KIND = torch.float32"),
    ],
)
def test_one_name_with_two_meanings_is_refused(
    tmp_path: Path, name: str, old: str, new: str
) -> None:
    other = SECOND.replace(old, new)
    assert other != SECOND
    functions = functions_of(tmp_path, first=FIRST, second=other)
    for order in (functions, functions[::-1]):
        with pytest.raises(UsageError, match=rf"use '{name}' of apart\.\w+ and another '{name}'"):
            standing_alone(order)


@given(default=st.floats(allow_nan=False, allow_infinity=False, min_value=0))
def test_default_numbers_are_compared_as_numbers(default: float) -> None:
    declared = f"op(Tensor x, *, float eps={default}, int threads=0) -> Tensor"
    assert same_schema(
        f"space::op(Tensor x, *, float eps={default:.17g}, int threads=0) -> Tensor", declared
    )
    assert not same_schema(
        f"space::op(Tensor x, *, float eps={default + 1 + default}, int threads=0) -> Tensor",
        declared,
    )
    assert not same_schema(
        f"space::op(Tensor x, *, float eps={default:.17g}, int threads=1) -> Tensor", declared
    )
    assert not same_schema(
        f"space::op2(Tensor x, *, float eps={default}, int threads=0) -> Tensor", declared
    )
