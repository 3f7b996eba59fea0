"""Families that change tensors in place, take numbers, and keep pages aligned: checked, bound to torch, timed."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT, CommandLine
from tilewright.cases import Flag, pairwise
from tilewright.errors import UsageError
from tilewright.inputs import aligned

FOLDER = ROOT / "tests" / "fakes" / "put_rows"


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    return {"TILEWRIGHT_FAMILIES": str(FOLDER)}


def test_every_layout_flag_and_number_is_checked(
    tilewright: CommandLine, env: dict[str, str]
) -> None:
    ran = tilewright("check", "put_rows", "--json", "-", env=env)
    assert ran.code == 0, ran.err
    rows = [r for r in ran.document["rows"] if r["backend"] == "host"]
    cases = {r["case"] for r in rows}
    for text in ("kv_layout=nz", "factor=0.5", "noted=yes", "sum=yes", "memory=padded", "T=0"):
        assert any(text in case for case in cases), text
    assert all(r["ok"] for r in rows)


def test_a_number_may_be_any(tilewright: CommandLine, env: dict[str, str]) -> None:
    asked = ("check", "put_rows", "--backend", "host", "--flags")
    ran = tilewright(*asked, "factor=0.37", "--dtype", "fp32", "--json", "-", env=env)
    assert ran.code == 0 and all("factor=0.37" in r["case"] for r in ran.document["rows"])
    refused = tilewright(*asked, "factor=much", env=env)
    assert refused.code == 2 and "factor is 'much'; accepted: a finite number" in refused.err


def test_what_does_not_go_together_is_one_sentence(
    tilewright: CommandLine, env: dict[str, str]
) -> None:
    ran = tilewright("check", "put_rows", "--shape", "T=13,P=3,H=1,L=6,W=0", env=env)
    assert ran.code == 2 and "T=13 rows do not fit 12 slots" in ran.err


def test_a_call_is_timed_on_what_it_changes(tilewright: CommandLine, env: dict[str, str]) -> None:
    shape = ("--shape", "T=9,P=3,H=3,L=32,W=0", "--dtype", "fp32", "--backend", "host")
    ran = tilewright("bench", "put_rows", *shape, "--json", "-", env=env)
    assert ran.code == 0, ran.err
    assert ran.document["rows"][0]["ok"] and ran.document["rows"][0]["median_us"] > 0


def test_a_kernel_is_timed_beside_itself(tilewright: CommandLine, env: dict[str, str]) -> None:
    shape = ("--shape", "T=9,P=3,H=3,L=32,W=0", "--dtype", "fp32", "--backend", "host")
    ran = tilewright("bench", "put_rows", *shape, "--against", "sum=yes", "--json", "-", env=env)
    assert ran.code == 0, ran.err
    row = ran.document["rows"][0]
    assert row["peer"] == "sum=yes" and row["ratio_ci_low"] <= row["ratio"] <= row["ratio_ci_high"]
    refused = tilewright("bench", "put_rows", *shape, "--against", "sums=yes", env=env)
    assert refused.code == 2 and "unknown flag of put_rows 'sums'" in refused.err


SCRIPT = """
import json, torch
from tilewright.registry import family
from tilewright.inputs import draw, make_outputs, reference_outputs
from tilewright.bindings.torch.ops import torch_op
from tilewright.numerics import compare
found = family("put_rows")
op = torch_op(found)
case = found.spec.case(dict(T=5, P=3, H=3, L=32, W=2), "bf16", {"kv_layout": "nz", "factor": "0.5", "sum": "yes"})
inputs = draw(found, case, 3)
held = make_outputs(found, case, inputs)
x, slots = inputs.physical["x"], inputs.physical["slots"]
def call(x, cache, seen):
    return op(x, slots, cache, seen, kv_layout="nz", sum=True, factor=0.5)
total = call(x, held["cache"], held["seen"])
want = reference_outputs(found, case, inputs)
got = {**held, "total": total}
again = make_outputs(found, case, inputs)
torch.compile(call, fullgraph=True)(x, again["cache"], again["seen"])
fresh = [inputs.physical["cache"].clone(), inputs.physical["seen"].clone()]
checked = torch.library.opcheck(op.default, (x, slots, *fresh), dict(kv_layout="nz", factor=0.5))
try:
    op(x, slots + 1000, held["cache"], held["seen"], kv_layout="nz")
    refusal = ""
except Exception as error:
    refusal = str(error)
print(json.dumps({
    "schema": str(op.default._schema),
    "ok": {n: compare(got[n], w, 0.0 if n == "seen" else 2.0**-7).ok for n, w in want.items()},
    "compiled": all(torch.equal(again[n], held[n]) for n in again if n != "total"),
    "opcheck": sorted(set(checked.values())),
    "refusal": refusal,
}))
"""


def test_the_torch_op_changes_its_arguments_and_says_so(
    env: dict[str, str], tmp_path: Path
) -> None:
    import os

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert "Tensor(a!) cache, Tensor(b!) seen" in found["schema"]
    assert "float factor=1." in found["schema"] and found["schema"].endswith("-> Tensor")
    assert found["ok"] == {"cache": True, "seen": True, "total": True}
    assert found["compiled"] and found["opcheck"] == ["SUCCESS"]
    assert "slots[0] is" in found["refusal"] and "accepted: 0 to 11" in found["refusal"]


@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    align=st.sampled_from([4, 64, 512]),
    padding=st.booleans(),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_aligned_memory_is_aligned_and_holds_the_values(
    shape: list[int], align: int, padding: bool, data: st.DataObject
) -> None:
    blocked = data.draw(st.integers(0, len(shape) - 1))
    value = 100 + torch.arange(math.prod(shape), dtype=torch.int32).view(shape)
    view = aligned(value, align, blocked, padding)
    assert torch.equal(view, value)
    if value.numel():
        assert view.data_ptr() % align == 0
    assert shape[0] < 2 or view.stride(0) * 4 % align == 0
    span = 1 + sum((n - 1) * s for n, s in zip(view.shape, view.stride(), strict=True))
    if value.numel() > 1:
        assert len(set(view.as_strided((span,), (1,)).tolist()) - {77}) == value.numel()


@given(st.lists(st.integers(2, 4), min_size=2, max_size=6))
@settings(deadline=None, max_examples=30)
def test_pairs_of_values_that_can_meet_do(counts: list[int]) -> None:
    import itertools

    names = [f"f{i}" for i in range(len(counts))]
    rows = [
        dict(zip(names, map(str, p), strict=True)) for p in itertools.product(*map(range, counts))
    ]
    rows = [r for r in rows if not (r["f0"] == "0" and r["f1"] == "1")] or rows
    chosen = pairwise(rows)
    pairs = {pair for r in rows for pair in itertools.combinations(sorted(r.items()), 2)}
    met = {pair for r in chosen for pair in itertools.combinations(sorted(r.items()), 2)}
    assert met == pairs
    assert all(c in rows for c in chosen) and len(chosen) <= len(rows)


@pytest.mark.parametrize(
    ("text", "normal"), [("30", "30"), ("0.50", "0.5"), (".5", "0.5"), ("1e3", "1000")]
)
def test_numbers_have_one_text(text: str, normal: str) -> None:
    assert Flag.number("cap", ("0",), "0").normal(text) == normal


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1,2"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="accepted: a finite number"):
        Flag.number("cap", ("0",), "0").normal(text)
