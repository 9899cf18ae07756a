"""The report of a segmentation study in a headless Chromium: it draws, fits, sorts, shows the chosen mixer's cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixlab.studies.report import build_report

from .fake_masks import FakeMasks
from .fake_study import FakeStudy, write_study
from .test_report_browser import CHROMIUM, Opened, browser

__all__ = ["browser"]  # the fixture

LABELS = ("identity", "pooling-k3", "sep_conv-k3", "local_attention-k3")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")


@pytest.fixture(scope="module", params=["with ignored pixels", "17 overlapping"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = FakeStudy(
        labels=LABELS, cases=14, classes=("background", "left", "right"), masks=FakeMasks(ignored=True, size=(60, 48))
    )
    if request.param == "17 overlapping":
        names = tuple(f"a_bone_with_a_long_name_{k}" for k in range(17))
        masks = FakeMasks(overlapping=True, size=(96, 60), spread=2)
        spec = FakeStudy(labels=LABELS[:2], cases=12, classes=names, masks=masks)
    return build_report(write_study(tmp_path_factory.mktemp("browser") / "study", spec))


@pytest.mark.parametrize("width", [360, 900, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_draws_and_fits(browser: Any, report: Path, width: int, scheme: str) -> None:
    with Opened(browser, report, width, scheme) as opened:
        assert opened.complaints == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in opened.requests)
        assert opened.run("document.documentElement.scrollWidth") <= width
        opened.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        opened.run("document.querySelectorAll('.chosen').forEach(c => { c.hidden = false; })")
        assert opened.run("document.documentElement.scrollWidth") <= width
        broken = "[...document.querySelectorAll('.picture img')].filter(i => !i.complete || !i.naturalWidth).length"
        assert opened.run(broken) == 0
        # A mask lies exactly on its picture.
        apart = """[...document.querySelectorAll('.picture img')].map(i => [i, i.parentElement])
          .map(([i, p]) => [i.getBoundingClientRect(), p.getBoundingClientRect()])
          .filter(([i, p]) => Math.hypot(i.width - p.width, i.height - p.height) > 1 || !p.height).length"""
        assert opened.run(apart) == 0
        plots = "[...document.querySelectorAll('#structures .js-plotly-plot')]"
        boxes = f"{plots}.map(p => p.querySelectorAll('.box').length)"
        assert min(opened.run(boxes)) >= 2


def test_the_chosen_mixer_is_shown(browser: Any, report: Path) -> None:
    shown = "[...document.querySelectorAll('#extremes .chosen')].filter(c => !c.hidden).map(c => c.textContent)"
    with Opened(browser, report) as opened:
        for name in ("pooling-k3", "identity"):
            opened.page.locator("#choose-extremes").select_option(name)
            (text,) = opened.run(shown)
            assert f"Worst cases of {name}" in text
        assert opened.complaints == []


def test_structures_sort_and_are_chosen(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        for group, sign in ((0, -1), (1, 1)):
            heads = opened.run("document.querySelectorAll('.structures thead tr:nth-child(2) th').length")
            column = 1 + group * heads // 3
            opened.page.locator(f".structures th[data-column='{column}'] button").click()
            rows = "[...document.querySelectorAll('.structures tbody tr')]"
            values = opened.run(f"{rows}.map(r => Number(r.cells[{column}].dataset.sort))")
            assert values == sorted(values, key=lambda value: sign * value)
        if opened.page.locator("#plot-structure-dice select").count():
            opened.page.locator("#plot-structure-dice select").select_option("a_bone_with_a_long_name_3")
        else:
            opened.page.locator("#plot-structure-dice").get_by_role("button", name="right").click()
        assert opened.complaints == []


def test_boxes_tell_their_numbers(browser: Any, report: Path) -> None:
    with Opened(browser, report) as opened:
        plot = opened.page.locator("#plot-structure-dice")
        plot.scroll_into_view_if_needed()
        plot.locator(".scatterlayer .point").last.hover(force=True)
        opened.page.wait_for_selector("#plot-structure-dice .hovertext")
        assert opened.complaints == []
