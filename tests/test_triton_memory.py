"""What an interpreted kernel reads, writes and changes must lie in a tensor of the launch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import KernelFailed
from tilewright.interpret import run_interpreted

LANES = 8


@triton.jit
def move(src, dst, first, count, shift, LANES: tl.constexpr):
    lane = tl.arange(0, LANES)
    value = tl.load(src + first + lane, mask=lane < count, other=0.0)
    tl.store(dst + shift + lane, value, mask=lane < count)


@triton.jit
def change(counts, at, SWAP: tl.constexpr):
    if SWAP:
        tl.atomic_cas(counts + at, 0, 1)
    else:
        tl.atomic_add(counts + at, 1)


def run(kernel: Any, *arguments: Any, **constexprs: Any) -> None:
    run_interpreted(kernel, (1,), arguments, constexprs)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 6), st.integers(-3, 8), st.integers(0, LANES), st.integers(-3, 8))
def test_lanes_that_a_mask_leaves_on_are_in_a_tensor_or_the_kernel_failed(
    length: int, first: int, count: int, shift: int
) -> None:
    """In the middle of larger memory, so that nothing of it would fault."""
    around = torch.arange(32.0)
    src, room = around[10 : 10 + length], torch.full((32,), -1.0)
    dst = room[10 : 10 + LANES]
    before = room.clone()
    reads = count == 0 or (first >= 0 and first + count <= length)
    writes = count == 0 or (shift >= 0 and shift + count <= LANES)
    if reads and writes:
        run(move, src, dst, first, count, shift, LANES=LANES)
        before[10 + shift : 10 + shift + count] = src[first : first + count]
        assert torch.equal(room, before)
        return
    with pytest.raises(KernelFailed, match="memory of no tensor") as caught:
        run(move, src, dst, first, count, shift, LANES=LANES)
    assert ("reads" if not reads else "writes") in str(caught.value)
    assert torch.equal(room, before)


def test_the_sentence_names_the_line_the_tensor_and_how_far() -> None:
    src, dst = torch.zeros(4), torch.zeros(LANES)
    with pytest.raises(KernelFailed) as caught:
        run(move, src, dst, 2, 3, 0, LANES=LANES)
    line = move.fn.__code__.co_firstlineno + 3
    sentence = f"test_triton_memory.py:{line}: reads memory of no tensor, 0 bytes past src [4]"
    assert str(caught.value) == sentence
    with pytest.raises(KernelFailed, match=r"writes memory of no tensor, 4 bytes before dst \[8\]"):
        run(move, src, dst, 0, 1, -1, LANES=LANES)


def test_empty_tensors_have_no_memory() -> None:
    """Their address is null, which the interpreter would follow."""
    with pytest.raises(KernelFailed, match="reads memory of no tensor"):
        run(move, torch.zeros(0), torch.zeros(LANES), 0, 1, 0, LANES=LANES)
    run(move, torch.zeros(0), torch.zeros(0), 0, 0, 0, LANES=LANES)


def test_what_lies_between_the_rows_of_a_view_is_its_own() -> None:
    """Spans are whole: poison, not addresses, finds what reads between rows."""
    view = torch.arange(12.0).reshape(3, 4)[:, :2]
    out = torch.zeros(LANES)
    run(move, view, out, 2, 8, 0, LANES=LANES)
    assert torch.equal(out, torch.arange(2.0, 10.0))
    with pytest.raises(KernelFailed, match=r"past src \[3x2\]"):
        run(move, view, out, 3, 8, 0, LANES=LANES)


@pytest.mark.parametrize("swap", [False, True])
def test_atomics_change_memory_of_tensors_only(swap: bool) -> None:
    counts = torch.zeros(2, dtype=torch.int32)
    run(change, counts, 1, SWAP=swap)
    assert counts.tolist() == [0, 1]
    with pytest.raises(KernelFailed, match="changes memory of no tensor, 0 bytes past counts"):
        run(change, counts, 2, SWAP=swap)
