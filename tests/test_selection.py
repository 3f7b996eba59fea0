"""Packed selections: the layout bit by bit, sets against words, the rule against a loop, C++ against Python."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from native.host_lib import KERNELS
from tilewright.ascendc.ops.mask_gemm import host as ascend_host
from tilewright.ascendc.ops.mask_gemm import planning
from tilewright.errors import UsageError
from tilewright.kernels.mask_gemm import layout, selection

BITS = st.sets(st.integers(0, 63))
LAYERS = st.integers(1, 300)


def test_every_bit_is_where_the_page_says() -> None:
    words = selection.pack(130, [0, 63, 64, 129], [1, 63], [0, 62])
    assert words.dtype is torch.int64 and words.tolist() == [
        1 - 2**63,
        1,
        2,
        2 - 2**63,
        1 + 2**62,
    ]
    assert [selection.words_for(n) for n in (1, 64, 65, 80, 128, 129)] == [3, 3, 4, 4, 4, 5]
    assert layout.layer_bits(4) == 128 and layout.layer_bits(2) == 0
    # AscendC imports nothing of kernels.
    theirs = (ascend_host._BITS, ascend_host._GROUP_ROWS, ascend_host._STEP_WORDS)
    assert theirs == (layout.BITS, layout.GROUP_ROWS, layout.STEP_WORDS)
    assert planning.MOST_ROWS == layout.MOST_ROWS


KINDS = (int, np.int8, np.int32, np.int64, np.uint8, np.uint64, torch.tensor, np.array)


@given(bits=BITS, layers=BITS, kind=st.sampled_from(KINDS))
def test_indices_of_any_kind_of_integer(bits: set[int], layers: set[int], kind: Any) -> None:
    plain = selection.pack(64, layers, bits, bits)
    those = [kind(bit) for bit in bits]
    words = selection.pack(kind(64), [kind(layer) for layer in layers], those, those)
    assert torch.equal(words, plain)
    selection.clear_bits(words, requests=those)
    assert torch.equal(words, selection.pack(64, layers, bits))
    owner = torch.full((3,), -1, dtype=torch.int32)
    for layer in (0, 63):
        rows = selection.rows_in_bf16(plain, kind(layer), owner)
        assert torch.equal(rows, selection.rows_in_bf16(plain, layer, owner))


def test_whole_tensors_and_arrays_are_indices() -> None:
    plain = selection.pack(64, range(64), range(64), [63])
    assert torch.equal(
        selection.pack(64, torch.arange(64), np.arange(64), torch.tensor([63])), plain
    )


@pytest.mark.parametrize(
    "wrong", [63.0, "63", None, torch.tensor(63.0), np.float32(63), [63], torch.tensor([1, 2])]
)
def test_what_is_no_index_is_refused(wrong: Any) -> None:
    words = torch.zeros(4, dtype=torch.int64)
    for call in (
        lambda: selection.set_bits(words, layers=[0, wrong]),
        lambda: selection.set_bits(words, groups=[wrong]),
        lambda: selection.clear_bits(words, requests=[wrong]),
        lambda: selection.rows_in_bf16(words, wrong, torch.zeros(3, dtype=torch.int32)),
    ):
        with pytest.raises(UsageError, match="accepted: 0 to (63|127)"):
            call()
    with pytest.raises(UsageError, match="a selection over .*; accepted: 1 or more"):
        selection.pack(wrong)
    assert not words.any()


@given(count=LAYERS, groups=BITS, requests=BITS, data=st.data())
def test_unpack_gives_what_was_packed(
    count: int, groups: set[int], requests: set[int], data: st.DataObject
) -> None:
    layers = data.draw(st.sets(st.integers(0, count - 1)))
    words = selection.pack(count, layers, groups, requests)
    found = selection.unpack(words)
    assert (found.layers, found.groups, found.requests) == tuple(
        tuple(sorted(s)) for s in (layers, groups, requests)
    )
    assert torch.equal(selection.pack(count, found.layers, found.groups, found.requests), words)


@given(seed=st.integers(0, 10**6), count=LAYERS)
def test_setting_and_clearing_are_those_of_sets(seed: int, count: int) -> None:
    """In place, one kind or all three at once, on words that may be a view with gaps."""
    chance = random.Random(seed)
    words = torch.zeros(2 * selection.words_for(count), dtype=torch.int64)[::2]
    model = (set[int](), set[int](), set[int]())
    most = (layout.layer_bits(len(words)), 64, 64)
    for _ in range(12):
        given = [chance.sample(range(n), chance.randint(0, 5)) for n in most]
        if chance.random() < 0.5:
            selection.set_bits(words, *given)
            for held, some in zip(model, given, strict=True):
                held.update(some)
        else:
            selection.clear_bits(words, *given)
            for held, some in zip(model, given, strict=True):
                held.difference_update(some)
        found = selection.unpack(words)
        assert [set(x) for x in (found.layers, found.groups, found.requests)] == list(model)
    selection.begin_step(words)
    assert selection.unpack(words) == selection.Selected(tuple(sorted(model[0])))


@given(
    words=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=6),
    owner=st.lists(st.integers(-1, 63), max_size=300),
    data=st.data(),
)
def test_the_rule_is_any_of_three_bits(
    words: list[int], owner: list[int], data: st.DataObject
) -> None:
    layer = data.draw(st.integers(0, 64 * (len(words) - 2) - 1))
    bits = [[word >> i & 1 for i in range(64)] for word in words]
    want = [
        bool(
            bits[layer // 64][layer % 64]
            or bits[-2][row // 64]
            or (request >= 0 and bits[-1][request])
        )
        for row, request in enumerate(owner)
    ]
    owners = torch.tensor(owner, dtype=torch.int32)
    assert selection.rows_in_bf16(torch.tensor(words), layer, owners).tolist() == want


def test_what_is_not_there_is_refused_and_nothing_changes() -> None:
    words = selection.pack(80, [3], [4], [5])
    before = words.clone()
    owner = torch.zeros(4, dtype=torch.int32)
    for act, sentence in (
        (lambda: selection.pack(80, [80]), "layer 80; accepted: 0 to 79"),
        (lambda: selection.pack(0), "a selection over 0 layers; accepted: 1 or more"),
        (lambda: selection.set_bits(words, [128]), "layer 128; accepted: 0 to 127"),
        (lambda: selection.set_bits(words, [1], [64]), "group 64; accepted: 0 to 63"),
        (lambda: selection.clear_bits(words, [3], [4], [-1]), "request -1; accepted: 0 to 63"),
        (lambda: selection.rows_in_bf16(words, 128, owner), "layer 128; accepted: 0 to 127"),
        (lambda: selection.rows_in_bf16(words, 0, owner + 64), r"owner\[0\] is 64; accepted"),
        (lambda: selection.rows_in_bf16(words, 0, owner - 2), r"owner\[0\] is -2; accepted"),
        (lambda: selection.rows_in_bf16(words, 0, owner.repeat(1025)), "4100 rows; accepted"),
        (lambda: selection.unpack(words[:2]), r"a selection of torch.int64 \[2\]; accepted"),
        (lambda: selection.begin_step(words.int()), r"a selection of torch.int32 \[4\]; accepted"),
        (lambda: selection.check(words[None]), r"a selection of torch.int64 \[1, 4\]; accepted"),
    ):
        with pytest.raises(UsageError, match=sentence):
            act()
        assert torch.equal(words, before)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("selection") / "words"
    source = Path(__file__).parent / "native" / "selection_words.cpp"
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{KERNELS}"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover", str(source)]
    subprocess.run([*command, "-o", str(built)], check=True)
    return built


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), count=LAYERS, stride=st.integers(1, 3))
def test_the_cpp_words_are_the_same(program: Path, seed: int, count: int, stride: int) -> None:
    chance = random.Random(seed)
    words = selection.pack(count)
    text, want = f"new {len(words)} {stride}\n", list[str]()
    for _ in range(30):
        kind = chance.randrange(3)
        index = chance.randrange(layout.layer_bits(len(words)) if kind == 0 else 64)
        on = chance.random() < 0.6
        bits: list[list[int]] = [[], [], []]
        bits[kind] = [index]
        (selection.set_bits if on else selection.clear_bits)(words, *bits)
        text += f"put {'lgr'[kind]} {index} {int(on)}\nwords\nget {'lgr'[kind]} {index}\n"
        want += [" ".join(map(str, words.tolist())), str(int(on))]
        row, owner = chance.randrange(4096), chance.randrange(-1, 64)
        owners = torch.full((row + 1,), -1, dtype=torch.int32)
        owners[row] = owner
        unlayered = words.clone()
        unlayered[:-2] = 0
        text += f"row {row} {owner}\n"
        want.append(str(int(selection.rows_in_bf16(unlayered, 0, owners)[row])))
    text += "step\nwords\n"
    selection.begin_step(words)
    want.append(" ".join(map(str, words.tolist())))
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
    assert [line.strip() for line in done.stdout.splitlines()] == want
