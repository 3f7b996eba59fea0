"""The examples do what README says of them, as a user would run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parent.parent


def test_the_demo_does_the_whole_job_on_real_input(tmp_path: Path) -> None:
    """`make demo` with fewer trials: every step holds, and the summary and the report say so."""
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py"), "--out", str(out), "--trials", "4"],
        env={**os.environ, "TILEWRIGHT_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = done.stdout[done.stdout.index("tilewright demo:") :]
    assert "FAILED" not in summary
    for word in ("check", "bench", "tune", "compile", "twin", "ship", "verify", "engine", "report"):
        assert f"ok     {word} " in summary, word
    checks = json.loads((out / "check.json").read_text())["rows"]
    assert {r["backend"] for r in checks} == {"reference", "host", "triton", "ascendc"}
    assert all(r["ok"] for r in checks)
    compiled = json.loads((out / "compile.json").read_text())["rows"]
    assert {r["target"] for r in compiled} == {
        *("cuda:sm_80", "cuda:sm_90", "cuda:sm_100", "hip:gfx942")
    }
    assert json.loads((out / "tune.json").read_text())["best"]
    assert all(r["ok"] for r in json.loads((out / "verify.json").read_text())["rows"])
    (answer,) = json.loads((out / "engine.json").read_text())["rows"]
    assert answer["same_as_fp32"] and answer["replays"] and "Paris" in answer["text"]
    report = (out / "report.html").read_text()
    assert "measured" in report and "modelled" in report
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", report), "it needs no network"


def test_a_paged_cache_goes_from_tokens_to_attention() -> None:
    """Every format and layout of the example agrees with torch over the whole history."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "kv_cache.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(re.findall("largest difference from torch", done.stdout)) == 4


def test_pages_link_to_what_is_there() -> None:
    """Relative links of every page lead somewhere in the tree."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("kernels/*/README.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert not broken
