"""The report, doctor and the study: everything given is shown, in one offline file."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tilewright.errors import UsageError
from tilewright.perf import plots, report, study
from tilewright.perf.doctor import ceiling_findings, findings
from tilewright.registry import family

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


def bench_row(**changed: Any) -> dict[str, Any]:
    row = {
        "family": "gemm", "backend": "host", "target": "cpu", "case": "M=64,N=1536,K=576", "dtype": "bf16",
        "threads": 2, "cache": "warm", "median_us": 123.4, "ci_low_us": 120.0, "ci_high_us": 125.0, "samples": 50,
        "gflops": 917.0, "gbps": 16.9, "ceiling_frac": 0.87, "bound_by": "compute", "peer": "torch-best",
        "peer_is": "torch-mkldnn", "ratio": 1.21, "ratio_ci_low": 1.15, "ratio_ci_high": 1.25, "verdict": "faster",
        "evidence": "measured", "state": "timed", "quiet": False, "reason": "",
    }  # fmt: skip
    return {**row, **changed}


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


def test_a_study_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def bench(plan: Any, ceiling: Any) -> Any:
        measured.append(f"{plan.cases[0].precision} {plan.cases[0]}")
        yield bench_row(
            dtype=plan.cases[0].precision,
            case=str(plan.cases[0]),
            threads=plan.threads[0],
            peer_median_us=1.0,
        )

    monkeypatch.setattr("tilewright.perf.bench.rows", bench)
    made = study.make(family("gemm"), ["fp32", "bf16"], [1], "torch", 0.1, quick=True)
    store = tmp_path / "s.jsonl"
    going = study.rows(made, store)
    for _ in range(3):
        next(going)
    going.close()
    with store.open("a") as file:
        file.write('{"key": "cut sh')
    found = [row for _, row in study.rows(made, store)]
    assert len(found) == made.total == len(set(measured)) == len(measured)
    assert [row for _, row in study.rows(made, store)] == found
    assert len(measured) == made.total, (
        "a third run measures nothing, the torn line notwithstanding"
    )
    text = study.markdown(made, found, "the command", "a day")
    assert "measured" in text and "the command" in text and "a day" in text
    assert f"| fp32 | 1 | {made.total // 2} | **1.21**" in text


def test_a_study_covers_the_sizes_of_the_goal() -> None:
    made = study.make(family("gemm"), ["fp32"], [1, 2], "torch-best", 1.0)
    sizes = {(c.sizes["M"], c.sizes["N"], c.sizes["K"]) for c in made.cases}
    assert {m for m, _, _ in sizes} == {1, 16, 64, 256, 1024}
    assert {(n, k) for _, n, k in sizes} >= {(s, s) for s in (576, 1536, 2048, 4096)} | {
        (576, 1536),
        (1536, 576),
    }
    full = study.make(family("gemm"), ["fp32"], [1], "torch-best", 1.0, full=True)
    assert len(full.cases) == 5 * 16
