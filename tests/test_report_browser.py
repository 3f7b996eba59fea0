"""The report in a real browser: nothing is fetched, nothing is logged, everything given is there to be seen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_perf_report import DOCUMENTS

import report_documents as documents
from chromium import Tab, chromium, program
from tilewright.perf import report

pytestmark = pytest.mark.skipif(
    program() is None, reason="no chromium; `apt-get install chromium` brings it"
)

GIVEN: dict[str, dict[str, Any]] = {
    **DOCUMENTS,
    "tune": documents.tune(objectives=True),
    "modelled": documents.document(
        "tune", documents.trials(30, 2, "modelled"), evidence="modelled", unit="cycles",
        key={"family": "gemm", "target": "ascend:910b1", "shape": "M=1", "precision": "fp16"},
    ),
    "sweep": documents.swept(),
    "replay": documents.replay(),
    "doctor": documents.doctor(),
}  # fmt: skip

# Boxes of plots that have no area, text beyond its plot, and words of a plot that lie upon each other.
_PLOTS = """(() => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  const found = {count: 0, empty: [], outside: [], overlapping: []};
  for (const svg of document.querySelectorAll('svg.plot')) {
    found.count++;
    const name = svg.querySelector('title').textContent, box = svg.getBoundingClientRect();
    for (const shape of svg.querySelectorAll(':scope > circle, :scope > path, :scope > rect, :scope > text')) {
      const b = shape.getBoundingClientRect();
      if (b.width <= 0 && b.height <= 0) found.empty.push([name, shape.outerHTML.slice(0, 80)]);
    }
    if (box.width < 100 || box.height < 40) found.empty.push([name, 'svg']);
    const texts = [...svg.querySelectorAll('text')].filter(t => t.textContent);
    const boxes = texts.map(t => t.getBoundingClientRect());
    boxes.forEach((b, i) => {
      if (b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1)
        found.outside.push([name, texts[i].textContent]);
      if (texts[i].classList.contains('tick') && !texts[i].classList.contains('halo'))
        boxes.slice(0, i).forEach((a, j) => {
          if (texts[j].classList.contains('halo') || texts[j].classList.contains('rooflabel')) return;
          if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2)
            found.overlapping.push([name, texts[i].textContent, texts[j].textContent]);
        });
    });
  }
  return found;
})()"""

_SECTIONS = """[...document.querySelectorAll('section')].map(s => {
  const b = s.getBoundingClientRect();
  return {id: s.id, width: b.width, height: b.height, title: s.querySelector('h2').textContent,
          labelled: document.getElementById(s.getAttribute('aria-labelledby')) !== null,
          linked: document.querySelector(`nav a[href="#${s.id}"]`) !== null};
})"""

# Text that its own box cuts off, outside of what scrolls.
_CUT = """[...document.querySelectorAll('h1,h2,h3,p,li,td,th,caption,summary,figcaption,.tile')]
  .filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflow !== 'visible')
  .map(e => e.textContent.slice(0, 60))"""

# Relative luminance and contrast as WCAG 2.2 defines them, of every text against the nearest background.
_CONTRAST = """(() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => rgb(c).slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if ((rgb(c)[3] ?? 1) > 0) return c; } return 'rgb(255,255,255)'; };
  const low = [];
  for (const e of document.querySelectorAll('h1,h2,h3,p,li,td,th,caption,summary,a,b,span,svg.plot text')) {
    if (!e.textContent.trim()) continue;
    const style = getComputedStyle(e), ink = e.tagName === 'text' ? style.fill : style.color;
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) low.push([e.tagName, e.textContent.slice(0, 40), ink]);
  }
  return low;
})()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write(path, [report.parse(f"{n}.json", d) for n, d in GIVEN.items()])
    return path


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as browser:
        yield browser.tab()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_everything_is_there_and_legible(tab: Tab, page: Path, width: int, dark: bool) -> None:
    tab.view(width, dark=dark)
    tab.open(page)
    plots = tab.run(_PLOTS)
    assert plots["count"] >= 15
    assert plots["empty"] == [] and plots["outside"] == [] and plots["overlapping"] == []
    sections = tab.run(_SECTIONS)
    expected = {
        "matrix",
        "check",
        "roofline",
        "bench",
        "tune",
        "replay",
        "compile",
        "twin",
        "model",
        "verify",
        "doctor",
    }
    assert {s["id"] for s in sections} == expected
    assert all(
        s["width"] > 300 and s["height"] > 60 and s["labelled"] and s["linked"] for s in sections
    )
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run(_CUT) == []
    assert tab.run(_CONTRAST) == []


def test_the_browser_fetches_nothing_and_has_nothing_to_say(tab: Tab, page: Path) -> None:
    tab.open(page)
    assert set(tab.requests) == {page.as_uri()}
    assert tab.console == []
    assert tab.run("document.scripts.length") == 0


def test_the_page_is_the_same_without_javascript(tab: Tab, page: Path) -> None:
    tab.view(1200)
    tab.open(page)
    with_it = tab.run("document.body.innerText")
    # Scripts of the page are off; ours still run.
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(page)
    assert tab.run("document.body.innerText") == with_it
    tab.send("Emulation.setScriptExecutionDisabled", value=False)


def test_colours_follow_what_the_reader_prefers(tab: Tab, page: Path) -> None:
    grounds = []
    for dark in (False, True):
        tab.view(1200, dark=dark)
        tab.open(page)
        grounds.append(tab.run("getComputedStyle(document.body).backgroundColor"))
    light, darker = (sum(map(int, re.findall(r"\d+", g)[:3])) for g in grounds)
    assert light > 600 and darker < 150


def test_every_plot_says_what_it_shows(tab: Tab, page: Path) -> None:
    tab.open(page)
    told = tab.run(
        "[...document.querySelectorAll('svg.plot')].map(s => [s.getAttribute('role'), "
        "s.querySelector(':scope > title').textContent, s.querySelector(':scope > desc').textContent])"
    )
    assert all(role == "img" and len(title) > 8 and len(words) > 8 for role, title, words in told)
    assert len({title for _, title, _ in told}) == len(told), "each plot has a name of its own"
    # What cannot be read without scrolling can be scrolled by keyboard, and is named.
    assert tab.run(
        "[...document.querySelectorAll('.scroll')].every(e => e.tabIndex === 0 && e.getAttribute('aria-label'))"
    )


def test_the_test_would_see_what_is_wrong(tab: Tab, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><html><body style='background:#fff'><p style='color:#ccc'>pale</p>"
        "<svg class='plot' viewBox='0 0 200 100' width='200' height='100'><title>t</title>"
        "<text x='190' y='50' class='tick'>much too long</text><text x='185' y='50' class='tick'>over it</text>"
        "<circle cx='5' cy='5' r='0'/></svg><img src='http://127.0.0.1:9/x.png'><script>console.error('no')</script>"
        "<p style='width:20px;overflow:hidden;white-space:nowrap'>cut off, certainly</p></body></html>"
    )
    before = len(tab.requests), len(tab.console)
    tab.view(800)
    tab.open(bad)
    plots = tab.run(_PLOTS)
    assert plots["outside"] and plots["overlapping"] and plots["empty"]
    assert tab.run(_CONTRAST) and tab.run(_CUT)
    assert len(tab.requests) >= before[0] + 2 and len(tab.console) > before[1]
