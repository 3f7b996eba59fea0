"""The report and doctor: everything given is shown, in one offline file."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.perf import bench_row
from tilewright.errors import UsageError
from tilewright.perf import plots, report
from tilewright.perf.doctor import ceiling_findings, findings

HOST = {
    "cpu": "a processor",
    "cores": 2,
    "isa": "avx2",
    "os": "Linux",
    "python": "3.11",
    "fingerprint": "x",
}


def document(command: str, rows: list[dict[str, Any]], **top: Any) -> dict[str, Any]:
    return {"schema": f"tilewright/{command}/1", "version": "0", "host": HOST, "rows": rows, **top}


DOCUMENTS: dict[str, dict[str, Any]] = {
    "list": document(
        "list",
        [
            {"family": "gemm", "backend": "host", "target": "cpu", "dtype": "fp32", "state": "run", "reason": ""},
            {
                "family": "gemm", "backend": "triton", "target": "cuda:sm_90", "dtype": "fp32", "state": "compile",
                "reason": "no such GPU <here>",
            },
        ],
    ),
    "check": document(
        "check",
        [
            {
                "family": "gemm", "backend": "host", "target": "cpu", "dtype": "fp32", "case": "M=1,N=17,K=63", "ok": ok,
                "rel_err": 1e-7, "tolerance": 2e-6, "seed": 7, "reason": "" if ok else "element (0, 3) is wrong",
                "replay": None if ok else "tilewright check --replay f.safetensors",
            }
            for ok in (True, False)
        ],
    ),
    "bench": document("bench", [bench_row(), bench_row(dtype="fp32", verdict="slower", ratio=0.7, ratio_ci_low=None)]),
    "tune": document(
        "tune",
        [
            {
                "number": n, "config": {"tile_m": 2**n}, "state": "ok", "value": 200.0 - n, "value_us": 200.0 - n,
                "unit": "us", "stage": "time", "reason": "", "evidence": "measured",
            }
            for n in range(12)
        ]
        + [{"number": 12, "config": {}, "state": "failed", "value": None, "stage": "gate", "reason": "too large"}],
        best={"config": {"tile_m": 2048}, "trial": 11, "value": 189.0, "ratio": 1.058, "ratio_low": 1.04, "ratio_high": 1.07},
        default={"config": {"tile_m": 1}, "trial": 0, "value": 200.0},
        gain=1.058,
        tie_set=[{"tile_m": 2048}],
        verdict="faster",
        evidence="measured",
        unit="us",
        key={"family": "gemm", "target": "cpu", "dtype": "fp32"},
    ),
    "compile": document(
        "compile",
        [
            {
                "target": "cuda:sm_90", "config": {"tile_m": 32}, "ok": True, "binary_sha256": "ab" * 32, "regs": 61,
                "spill_bytes": 0, "shared_bytes": 16384, "matrix_instructions": 8, "async_copies": 4, "error": None,
            }
        ],
    ),
    "twin": document(
        "twin",
        [{"family": "gemm", "ok": True, "rel_err": 1e-3, "findings": [], "peak": {"ub": 0, "l1": 4096}, "cycles": 900}],
        findings=["missing WaitFlag at gemm.cpp:12"],
    ),
    "model": document(
        "model",
        [
            {
                "family": "gemm", "target": "ascend:910b1", "case": "M=256,N=1536,K=576", "dtype": "fp16",
                "predicted_us": 9.5, "evidence": "modelled",
            }
        ],
    ),
    "verify": document(
        "verify",
        [
            {"stage": "hashes", "ok": True, "state": "ok", "detail": "41 files"},
            {"stage": "peak", "ok": None, "state": "skipped", "detail": "no device"},
        ],
    ),
    "doctor": document(
        "doctor",
        [
            {"name": "L1 read, 2 threads", "value": 850.0, "unit": "GB/s", "ok": True, "hint": "", "evidence": "measured"},
            {"name": "bf16 peak, 2 threads", "value": 960.0, "unit": "GFLOP/s", "ok": True, "hint": "", "evidence": "measured"},
        ],
    ),
    "replay": document("replay", [{"space": "gemm-a100", "fraction_of_optimum": 0.93}]),
}  # fmt: skip


class Page(HTMLParser):
    """Checks that tags close in order, and collects text and links."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, k, v or "") for k, v in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, k, v or "") for k, v in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def page(*names: str) -> Page:
    given = [report.parse(f"{n}.json", DOCUMENTS[n]) for n in names]
    return Page(report.render(given, date="a day"))


def render(given: dict[str, Any]) -> str:
    """The text of a page about one document."""
    return Page(report.render([report.parse("d.json", given)])).text


def test_everything_given_is_shown() -> None:
    found = page(*DOCUMENTS)
    for expected in (
        "a processor", "a day", "gemm bf16", "123", "torch-mkldnn", "faster", "1 of 2", "element (0, 3) is wrong",
        "no such GPU <here>", "missing WaitFlag at gemm.cpp:12", "61", "abababababab", "too large", "41 files", "skipped", "tile_m=2048, 189 us (measured)", "1.04 .. 1.07",
        "gemm-a100", "1.06x", "modelled", "measured", "9.5", "L1 850 GB/s",
    ):  # fmt: skip
        assert expected in found.text, expected


@pytest.mark.parametrize("name", list(DOCUMENTS))
def test_each_document_alone_gives_a_page(name: str) -> None:
    assert "tilewright" in page(name).text


def test_the_page_is_one_file_without_scripts_or_network() -> None:
    found = page(*DOCUMENTS)
    text = report.render([report.parse(n, d) for n, d in DOCUMENTS.items()])
    assert "<script" not in text
    linked = [v for _, k, v in found.attributes if k in ("src", "href")]
    assert linked and all(v.startswith("#") for v in linked)
    assert not re.search(r"url\((?!#)|@import", text)


def test_the_page_is_accessible() -> None:
    found = page(*DOCUMENTS)
    tables = sum(
        t == "table"
        for t in re.findall(r"<(\w+)", report.render([report.parse("b", DOCUMENTS["bench"])]))
    )
    assert tables >= 1
    assert ("html", "lang", "en") in found.attributes
    assert any(k == "scope" and v == "row" for _, k, v in found.attributes)
    ids = {v for _, k, v in found.attributes if k == "id"}
    anchors = {v[1:] for t, k, v in found.attributes if t == "a" and k == "href"}
    assert anchors and anchors <= ids


def test_modelled_and_measured_points_have_different_marks() -> None:
    points = [
        plots.Point(10, 100, "a", "one", "measured"),
        plots.Point(20, 200, "b", "two", "modelled"),
    ]
    svg = plots.roofline("r", points, [plots.Roof("L1", gbps=50), plots.Roof("fp32", gops=300)])
    assert svg.count("<circle") == 2 and svg.count('class="hollow') == 1
    assert "modelled" in svg and "measured" in svg


def test_text_is_escaped_once() -> None:
    text = report.render([report.parse("list", DOCUMENTS["list"])])
    assert "no such GPU &lt;here&gt;" in text and "&amp;lt;" not in text


def test_machines_are_not_mixed_silently() -> None:
    other = {**DOCUMENTS["bench"], "host": {**HOST, "cpu": "another"}}
    text = report.render([report.parse("a", DOCUMENTS["bench"]), report.parse("b", other)])
    assert "2 machines" in text


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"rows": []}', '{"schema": "tilewright/bench/1", "rows": 3}']
)
def test_what_is_not_ours_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"odd\.json"):
        report.read(path)
    with pytest.raises(UsageError, match="cannot be read"):
        report.read(tmp_path / "absent.json")


def test_report_writes_the_file(tmp_path: Path) -> None:
    source = tmp_path / "bench.json"
    source.write_text(json.dumps(DOCUMENTS["bench"]))
    out = tmp_path / "deep" / "r.html"
    report.write(out, [report.read(source)])
    assert out.read_text().startswith("<!doctype html>")
    with pytest.raises(UsageError, match="at least one"):
        report.write(out, [])


def test_doctor_names_what_others_rely_on() -> None:
    found = {f.name: f for f in findings(measure=False)}
    for name in (
        "cpu",
        "isa",
        "g++",
        "cmake",
        "compile cuda:sm_90",
        "ascend twin",
        "CANN",
        "torch_npu",
        "torch",
    ):
        assert name in found
    assert all(f.ok is not False or f.hint for f in found.values()), (
        "what is missing comes with what would help"
    )


def test_doctor_shows_every_ceiling() -> None:
    from tilewright.perf.ceilings import Ceilings, Level

    curve = ((1 << 14, 400.0), (1 << 27, 30.0))
    made = Ceilings("m", (Level("L1", 32 << 10),), {1: curve}, {1: curve}, {"fp32": {1: 99.0}})
    rows = {f.name: f.value for f in ceiling_findings(made)}
    assert rows["L1 read, 1 thread"] == 400.0
    assert rows["DRAM write, 1 thread"] == 30.0
    assert rows["fp32 peak, 1 thread"] == 99.0


def test_a_hip_device_is_named_by_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says of an MI300X; it counts its capability as 9.4, which is no architecture's name."""
    import torch

    from tilewright.perf import doctor

    device = SimpleNamespace(
        name="AMD Instinct MI300X", gcnArchName="gfx942:sramecc+:xnack-", major=9, minor=4
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: device)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    (found,) = doctor._devices()
    assert (found.name, found.value, found.unit) == (
        "hip device 0",
        "AMD Instinct MI300X",
        "gfx942",
    )
    monkeypatch.setattr(torch.version, "hip", None)
    (found,) = doctor._devices()
    assert (found.name, found.unit) == ("cuda device 0", "sm_94")


def test_a_choice_by_score_is_no_gain() -> None:
    top = {
        **DOCUMENTS["tune"],
        "gain": None,
        "score_ratio": 3.6,
        "verdict": "better score",
        "evidence": "modelled",
    }
    text = render(top)
    assert "better score (modelled): 3.60 is the ratio of scores, not of times" in text
    assert "gain over the default" not in text and "verdict" not in text.split("Tuning", 1)[1]


def test_a_check_that_was_declined_is_neither_good_nor_bad() -> None:
    rows = [
        {**DOCUMENTS["check"]["rows"][0], "state": "run"},
        {**DOCUMENTS["check"]["rows"][1], "state": "refused", "reason": "not this layout"},
    ]
    text = render(document("check", rows))
    assert "1 of 1" in text and "host refused: not this layout" in text and "Failed" not in text
