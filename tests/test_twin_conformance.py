"""The table of conformance tests names tests that are there, of names that the headers define."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tilewright.ascendc.twin.conformance import CONFORMANCE

ROOT = Path(__file__).resolve().parents[1]
API = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "ascendc/include/api").glob("*.h"))


@pytest.mark.parametrize("name", CONFORMANCE)
def test_every_name_has_its_test(name: str) -> None:
    file, _, test = CONFORMANCE[name].partition("::")
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {test}\(", text, re.MULTILINE), CONFORMANCE[name]
    assert re.search(rf"\b{name}\b", API), f"no header defines {name}"
