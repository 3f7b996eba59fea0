"""The languages of --args and --expect: what they mean, and what they refuse in one sentence."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.ascendc.twin import arguments, expect
from tilewright.ascendc.twin.values import to_bf16
from tilewright.errors import UsageError


def one(text: str, seed: int = 0) -> arguments.Argument:
    (found,) = arguments.parse(text, seed)
    return found


def test_arrays_have_the_type_shape_and_filling_asked_for() -> None:
    x = one("x:fp16[32,2048]=normal")
    assert x.value.dtype == np.float16 and x.value.shape == (32, 2048) and x.role == "input"
    assert abs(x.value.astype(float).std() - 1) < 0.02
    assert one("x:half[64]").value.dtype == np.float16
    u = one("u:float[1000]=uniform(2,4)").value
    assert u.min() >= 2 and u.max() <= 4 and u.dtype == np.float32
    i = one("i:int8[1000]=randint(-3,3)").value
    assert set(i.tolist()) == {-3, -2, -1, 0, 1, 2}
    assert one("a:int32[2,3]=arange").value.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert one("a:uint8[3]=full(7)").value.tolist() == [7, 7, 7]
    assert one("a:bool[3]=ones").value.tolist() == [True] * 3
    assert one("x:fp16[99]", 1).value.tolist() != one("x:fp16[99]", 2).value.tolist()
    assert one("x:fp16[99]", 5).value.tolist() == one("x:fp16[99]", 5).value.tolist()


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32", "fp64"])
def test_outputs_are_filled_with_nan(dtype: str) -> None:
    out = one(f"y:{dtype}[5]=out")
    assert out.role == "output" and np.isnan(out.numbers()).all()
    assert set(out.value.tobytes()) == {0xFF}


def test_numbers_structs_and_files(tmp_path: Path) -> None:
    assert [a.value for a in arguments.parse("n=65536, s:fp32=0.5, h=0x10, b=true, e=-1e3")] == [
        *(65536, 0.5, 16, 1),
        -1000.0,
    ]
    packed = one("t:struct<int32, int64, fp32 , uint8*2>=(1,2,0.5,3,4)").value
    assert packed == struct.pack("@iqfBB0q", 1, 2, 0.5, 3, 4) and len(packed) == 24
    (tmp_path / "t.bin").write_bytes(b"abc")
    assert one(f"t=@{tmp_path}/t.bin").value == b"abc"
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    assert one(f"x=@{tmp_path}/x.npy").dtype == "fp32"
    assert one(f"x:fp16=@{tmp_path}/x.npy").value.dtype == np.float16
    assert one("p=null").value is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x:fp99[4]=normal", "unknown type in 'x:fp99[4]=normal': 'fp99'; accepted: int8, "),
        ("x:fp16[4]=norml", "unknown fill"),
        ("x:fp16[a]=normal", "not a list of integers, as [32,2048]"),
        ("x:fp16[-1]=normal", "not a list of sizes"),
        ("x:fp16=normal", "has no shape; write x:fp16[1024]=normal"),
        ("x:fp16", "has no value"),
        ("3x=1", "is not NAME:TYPE[SHAPE]=FILL or NAME=VALUE"),
        ("n=abc", "'abc' in 'n=abc' is not a number"),
        ("n=1,n=2", "names 'n' twice"),
        ("x:fp16[4]=uniform(1)", "takes 2 numbers"),
        ("t:struct<int32>=1", "needs its values in parentheses"),
        ("t:struct<int32>=(1,2)", "has 1 fields and 2 values"),
        ("t:struct<int33>=(1)", "unknown field"),
        ("t:struct<int8>=(300)", "in --args: "),
        ("x=@nowhere.npy", "cannot be read"),
        ("x=@nowhere.bin", "cannot be read: No such file"),
    ],
)
def test_what_is_not_understood_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        arguments.parse(text)
    assert sentence in str(caught.value)


@given(st.floats(width=32))
@settings(derandomize=True, deadline=None)
def test_bfloat16_is_rounded_as_torch_rounds(value: float) -> None:
    wanted = torch.tensor(value, dtype=torch.float32).to(torch.bfloat16)
    bits = wanted.view(torch.int16).item() & 0xFFFF
    array = arguments.narrow(np.array([value]), "bf16")
    if value == value:
        assert to_bf16(value) == bits and int(array[0]) == bits
        assert arguments.wide(array, "bf16")[0] == wanted.item()
    else:
        assert torch.tensor([to_bf16(value)]).to(torch.int16).view(torch.bfloat16).isnan().all()


X = np.arange(12.0).reshape(3, 4) - 5
VALUES = {"x": X, "y": X[:, :1], "n": np.int64(3)}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("z=x+y", X + X[:, :1]),
        ("z = -x / 2 ** n % 5", -X / 8 % 5),
        ("z=2 ** -1", np.float64(0.5)),
        ("z=x @ transpose(x)", X @ X.T),
        ("z=where(x > 0, sqrt(abs(x)), 0)", np.where(X > 0, np.sqrt(abs(X)), 0)),
        ("z=x[1:, ::-1]", X[1:, ::-1]),
        ("z=x[-1, None]", X[-1, None]),
        ("z=sum(x, axis=1, keepdims=True)", X.sum(1, keepdims=True)),
        ("z=einsum('ij,kj->ik', x, x)", X @ X.T),
        ("z=exp(x - max(x, axis=-1, keepdims=1))", np.exp(X - X.max(-1, keepdims=True))),
        ("z=reshape(concatenate([x, x]), (4, 6))", np.concatenate([X, X]).reshape(4, 6)),
        ("z=fp16(x / 3)", (X / 3).astype(np.float16).astype(float)),
        ("z=int(x / 3)", np.trunc(X / 3)),
        ("z=pi * inf", np.inf),
    ],
)
def test_expectations_are_computed_in_double_precision(text: str, wanted: object) -> None:
    found = expect.parse(text)
    assert found.name == "z"
    np.testing.assert_array_equal(found.value(VALUES), wanted)


def test_softmax_and_erf_are_those_of_torch() -> None:
    tensor = torch.from_numpy(X)
    for text, wanted in (("z=softmax(x)", tensor.softmax(-1)), ("z=erf(x)", torch.erf(tensor))):
        np.testing.assert_allclose(expect.parse(text).value(VALUES), wanted.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x+y", "is not OUTPUT=EXPRESSION"),
        ("z=x+", "cannot be read"),
        ("z=q+1", "unknown name in --expect z=q+1: 'q'; accepted: pi, inf, nan, x, y, n"),
        ("z=x.T", "'x.T' is not allowed"),
        ("z=__import__('os')", "'__import__' is no function here"),
        ("z=(lambda: 1)()", "is no function here"),
        ("z=[i for i in x]", "is not allowed"),
        ("z='text'", "is not allowed"),
        ("z=open('f')", "'open' is no function here"),
        ("z=sum(x, out=x)", "unknown keyword"),
        ("z=sum(x, axis=5)", "axis 5 is out of bounds"),
        ("z=x @ x", "mismatch"),
        ("z=x if n else y", "is not allowed"),
        ("z=1 < 2 < 3", "is not allowed"),
    ],
)
def test_expressions_run_nothing_else(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        expect.parse(text).value(VALUES)
    assert sentence in str(caught.value)
