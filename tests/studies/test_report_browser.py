"""The report in a headless Chromium: it draws, sorts, follows the theme, and fits a desktop and a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixlab.studies.report import build_report

from .fake_study import FakeStudy, write_study
from .test_report_published import prepared

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LABELS = ("identity", "pooling-k3", "sep_conv-k3", "local_attention-k3", "local_attention-k5")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = FakeStudy(labels=LABELS, cases=150, examples=14, states={("sep_conv-k3", 1): "failed"})
    return build_report(write_study(tmp_path_factory.mktemp("browser") / "study", spec))


class Opened:
    """A page, and everything that it complained about."""

    def __init__(self, browser: Any, report: Path, width: int = 1280, scheme: str = "light") -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.resolve().as_uri())
        self.page.wait_for_function("document.querySelectorAll('.canvas.js-plotly-plot').length === 6")

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()

    def run(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_draws_and_fits(browser: Any, report: Path, width: int, scheme: str) -> None:
    with Opened(browser, report, width, scheme) as opened:
        assert opened.complaints == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in opened.requests)
        drawn = "[...document.querySelectorAll('.js-plotly-plot')].map(p => p.querySelectorAll('svg.main-svg').length)"
        assert min(opened.run(drawn)) >= 1
        traces = "[...document.querySelectorAll('.js-plotly-plot')].map(p => p.querySelectorAll('.trace, .hm').length)"
        assert min(opened.run(traces)) >= 1
        assert opened.run("document.documentElement.scrollWidth") <= width
        opened.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert opened.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1280, 390])
def test_published_numbers_fit(browser: Any, tmp_path: Path, width: int) -> None:
    """On a phone the table scrolls by itself; the label stays in view and leaves room for the numbers."""
    spec = FakeStudy(labels=LABELS, cases=60, examples=2, stand_ins={"sep_conv-k3": ["data: digits for imagewoof"]})
    with Opened(browser, build_report(prepared(write_study(tmp_path / "study", spec))), width) as opened:
        assert opened.complaints == []
        assert opened.run("document.documentElement.scrollWidth") <= width
        assert opened.page.locator(".banner").bounding_box()["y"] < 100
        box = "(() => {{ const b = document.querySelector('#published {}').getBoundingClientRect(); return {}; }})()"
        hidden = "document.querySelector('#published .scroll').scrollWidth"
        room = opened.run(box.format(".scroll", "b.width"))
        if width == 1280:
            assert opened.run(hidden) <= room
        before = opened.run(box.format(".beside tbody th", "b.left"))
        opened.run("document.querySelector('#published .scroll').scrollLeft = 100")
        assert opened.run(box.format(".beside tbody th", "b.left")) == before
        assert opened.run(box.format(".beside tbody th", "b.width")) < room / 2
        assert opened.run(box.format(".said div", "b.right")) <= width


def test_headers_sort(browser: Any, report: Path) -> None:
    column = "[...document.querySelectorAll('.ranked tbody tr')].map(r => r.cells[{0}].dataset.sort)"
    with Opened(browser, report) as opened:
        names = opened.run(column.replace("{0}", "0"))
        opened.page.locator(".ranked").get_by_role("button", name="Mixer").click()
        assert opened.run(column.replace("{0}", "0")) == sorted(names)
        head = opened.page.locator(".ranked thead th", has_text="Parameters")
        for direction, reverse in (("descending", True), ("ascending", False)):
            opened.page.locator(".ranked").get_by_role("button", name="Parameters").click()
            values = [float(v) for v in opened.run(column.replace("{0}", "8"))]
            assert values == sorted(values, reverse=reverse)
            assert head.get_attribute("aria-sort") == direction
        assert opened.run("document.querySelectorAll('.ranked th[aria-sort$=ending]').length") == 1
        opened.page.locator(".ranked").get_by_role("button", name="Rank").click()
        assert opened.run(column.replace("{0}", "0")) == names
        assert opened.complaints == []


def test_figures_follow_theme_and_choice(browser: Any, report: Path) -> None:
    ink = "document.querySelector('#plot-cost .xtick text').style.fill"
    title = "document.querySelector('#plot-cost .xtitle').textContent"
    with Opened(browser, report) as opened:
        light = opened.run(ink)
        opened.page.emulate_media(color_scheme="dark")
        opened.page.wait_for_function(f"{ink} !== '{light}'")
        assert opened.run(title) == "multiply-accumulates"
        opened.page.locator("#plot-cost").get_by_role("button", name="parameters").click()
        opened.page.wait_for_function(f"{title} === 'parameters'")
        opened.page.locator("#plot-confusion select").select_option("identity")
        opened.page.locator("#plot-differences select").select_option("identity")
        ticks = "[...document.querySelectorAll('#plot-differences .ytick')].map(t => t.textContent)"
        assert sorted(opened.run(ticks)) == sorted(set(LABELS) - {"identity"})
        assert opened.complaints == []


def test_figures_can_be_hovered(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        heat = opened.page.locator("#plot-confusion .nsewdrag").first
        heat.scroll_into_view_if_needed()
        heat.hover()
        opened.page.wait_for_selector("#plot-confusion .hovertext")
        assert "predicted" in opened.page.locator("#plot-confusion .hovertext").first.text_content()
        assert opened.complaints == []


def test_study_without_results_opens(browser: Any, tmp_path: Path) -> None:
    spec = FakeStudy(labels=("identity",), seeds=(0,), states={("identity", 0): "failed"}, epochs=3)
    folder = write_study(tmp_path / "study", spec)
    next((folder / "runs").glob("*/metrics.jsonl")).unlink()
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(build_report(folder).resolve().as_uri())
    assert "No run has test results yet" in page.locator(".headline").text_content()
    assert complaints == []
    page.close()
