"""What variants change, in the page and as Markdown."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixlab.studies.report import StudySummary, build_report, read_study
from mixlab.studies.report.collect import by_data
from mixlab.studies.report.variants import Variants, variants, without_variant

from .fake_study import FakeStudy, write_study

LABELS = {
    "pooling-scratch": "scratch",
    "pooling-warm": "warm",
    "conv-k3-scratch": "scratch",
    "conv-k3-warm": "warm",
    "conv-k3-warm-up": "warm-up",
}
SKILL = {"pooling-warm": 2.5, "conv-k3-warm-up": 0.02}


def fake(folder: Path, **changes: object) -> Path:
    spec = FakeStudy(labels=tuple(LABELS), variants=LABELS, skill=SKILL, cases=600, seed_sd=0.02)
    return write_study(folder, FakeStudy(**{**vars(spec), **changes}))


def found_in(folder: Path) -> Variants:
    (part,) = by_data(read_study(folder))
    found = variants(StudySummary(part))
    assert found is not None
    return found


def test_gains_are_the_rankings_pairs(tmp_path: Path) -> None:
    folder = fake(tmp_path / "study")
    found = found_in(folder)
    assert found.names == ["scratch", "warm", "warm-up"]
    rows = dict(found.rows)
    assert list(rows) == ["pooling", "conv-k3"]
    scratch, warm, none = rows["pooling"]
    assert none is None
    assert scratch is not None
    assert warm is not None
    assert scratch.gain.text == ""
    (part,) = by_data(read_study(folder))
    pair = StudySummary(part).ranking.pair("pooling-warm", "pooling-scratch")
    assert warm.gain.sort == pytest.approx(abs(pair.difference))
    assert warm.sure
    assert warm.gain.text == f"+{abs(pair.difference):.3f}"
    last = rows["conv-k3"][2]
    assert last is not None
    assert not last.sure
    assert last.gain.title.endswith("not distinguishable from no gain")


def test_the_page_and_the_markdown_show_them(tmp_path: Path) -> None:
    folder = fake(tmp_path / "study")
    page = build_report(folder).read_text()
    assert "<h2>Variants</h2>" in page
    assert 'href="#variants"' in page
    text = (folder / "tables.md").read_text()
    assert "| mixer | scratch | warm | warm-up |" in text
    assert "**+" in text
    assert "| pooling-warm | " in text


def test_a_study_without_variants_has_no_section(tmp_path: Path) -> None:
    plain = write_study(tmp_path / "plain", FakeStudy())
    assert "<h2>Variants</h2>" not in build_report(plain).read_text()
    assert "### digits" in (plain / "tables.md").read_text()
    single = fake(tmp_path / "single", labels=tuple(LABELS)[:1])
    assert "<h2>Variants</h2>" not in build_report(single).read_text()


def test_an_unfinished_arm_has_no_number(tmp_path: Path) -> None:
    failed = {("pooling-warm", seed): "failed" for seed in (0, 1)}
    warm = dict(found_in(fake(tmp_path / "study", states=failed)).rows)["pooling"][1]
    assert warm is not None
    assert (warm.score.sort, warm.gain.text) == (None, "")


def test_labels_without_their_variant() -> None:
    assert without_variant("conv-k3-warm", "warm") == "conv-k3"
    assert without_variant("conv-warm-up", "warm-up") == "conv"
    assert without_variant("warmth-warm", "warm") == "warmth"
