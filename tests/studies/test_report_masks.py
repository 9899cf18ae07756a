"""Reports of segmentation: a tiny study whose numbers are computed by hand, and studies of every kind."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mixlab.errors import UserError
from mixlab.studies.report import build_report, print_ranking, ranking
from mixlab.studies.report.details import remarks
from mixlab.studies.report.failures import failures
from mixlab.studies.report.mask_cases import label_cases
from mixlab.studies.report.mask_figures import mask_figures
from mixlab.studies.report.structures import RULE, structure_table
from mixlab.training.mask_scores import MaskScores

from .fake_masks import FakeMasks
from .fake_study import FakeStudy, write_study
from .test_report import Page, page_of, summary_of

IDS = np.array(["case00000", "case00001", "case00002"])
TRUE = np.array([[10, 0], [0, 0], [10, 4]])
NAN = float("nan")


def given(said: list[Any], hit: list[Any], hd95: list[Any]) -> MaskScores:
    return MaskScores(IDS, TRUE, np.array(said), np.array(hit), np.array(hd95))


PERFECT = given(TRUE.tolist(), TRUE.tolist(), [[0, NAN], [NAN, NAN], [0, 0]])
#: Dice [[1, -], [0 (invented), -], [0 (missed), 0.5]] and [[1, -], [-, -], [0.5, 1]].
POOR = given([[10, 0], [7, 0], [0, 4]], [[10, 0], [0, 0], [0, 2]], [[0, NAN], [50, NAN], [50, 3]])
FAIR = given([[10, 0], [0, 0], [10, 4]], [[10, 0], [0, 0], [5, 4]], [[2, NAN], [NAN, NAN], [2, 0]])
TINY = FakeStudy(
    labels=("identity", "pooling-k3"),
    classes=("background", "left lung", "right <lung>"),
    cases=3,
    masks=FakeMasks(
        size=(24, 30),
        spread=2,
        extreme=1,
        given={("identity", 0): PERFECT, ("identity", 1): PERFECT, ("pooling-k3", 0): POOR, ("pooling-k3", 1): FAIR},
    ),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("masks") / "tiny", TINY)


@pytest.fixture(scope="module")
def page(tiny: Path) -> Page:
    return page_of(tiny)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_masks_are_ranked_by_dice(tiny: Path, page: Page) -> None:
    summary = summary_of(tiny)
    assert summary.metric == "dice"
    assert [row.label for row in summary.ranking.rows] == ["identity", "pooling-k3"]
    # seed 0: (1/3 + 0.5) / 2; seed 1: (0.75 + 1) / 2
    assert summary.ranking.row("pooling-k3").mean == pytest.approx((5 / 12 + 0.875) / 2)
    assert summary.headline() in page.text
    assert "Ranked by test Dice: 2 seeds, 3 test cases." in page.text
    for head in ("Test Dice", "HD95, pixels", "Val Dice"):
        assert head in page.text
    assert "Unmasked Dice" not in page.text
    for absent in ("AUROC", "Recall of each class", "Example test images", "macro F1"):
        assert absent not in page.text
    assert ranking(tiny) == summary.ranking


def test_metrics_of_another_task_are_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="one of 2 known names, got 'auroc'"):
        ranking(tiny, "auroc")


def test_sections_and_links(page: Page) -> None:
    assert {"structures", "cases", "extremes", "failures", "data"} <= page.ids
    assert not {"classes", "examples"} & page.ids
    for address in page.links:
        assert not address.startswith("#") or address[1:] in page.ids
    assert all(address.startswith("data:") for address in page.loaded)
    ids = {figure["id"] for figure in page.figures}
    assert ids == {"ranking", "differences", "cost", "curves", "structure-dice", "structure-distance"}
    (curves,) = (figure for figure in page.figures if figure["id"] == "curves")
    assert [view["name"] for view in curves["views"]] == ["validation Dice", "validation loss", "training loss"]


def test_structures_by_hand(tiny: Path, page: Page) -> None:
    summary = summary_of(tiny)
    table = structure_table(summary, label_cases(summary))
    assert table is not None
    assert table.names == ["left lung", "right <lung>"]
    assert table.groups == ["Dice", "HD95, pixels", "Cases left out"]
    cells = {label.label: groups for label, groups in table.rows}
    texts = [[cell.text for cell in group] for group in cells["pooling-k3"]]
    # left: 1/3 and 0.75, distances 100/3 and 2, no case and one left out
    assert texts == [["0.542", "0.750"], ["17.7", "1.50"], ["0 to 1", "2"]]
    assert cells["pooling-k3"][0][0].spread == f"± {np.std([1 / 3, 0.75], ddof=1):.3f}"
    assert [cell.text for cell in cells["identity"][2]] == ["1", "2"]
    assert cells["identity"][2][1].title == "of 3 test cases"
    assert RULE in page.text
    for text in ("0.542", "17.7", "0 to 1", "right <lung>"):
        assert text in page.text


def test_boxes_by_hand(tiny: Path) -> None:
    summary = summary_of(tiny)
    dice, distances = mask_figures(summary, label_cases(summary))
    assert [view["name"] for view in dice["views"]] == ["all structures", "left lung", "right <lung>"]
    box, centre = dice["views"][1]["data"][-2:]
    # cases of the left lung, mean over the runs that have them: 1, 0, 0.25
    numbers = {key: box[key] for key in ("lowerfence", "q1", "median", "q3", "upperfence")}
    assert numbers == {"lowerfence": [0.0], "q1": [0.125], "median": [0.25], "q3": [0.625], "upperfence": [1.0]}
    assert centre["x"] == [pytest.approx(1.25 / 3, abs=1e-4)]
    assert "3 cases, 0 left out" in centre["hovertemplate"]
    assert "1 cases, 2 left out" in dice["views"][2]["data"][-1]["hovertemplate"]
    # distances 1, 50, 26 on a square-root scale; what is read is not
    box, centre = distances["views"][1]["data"][-2:]
    assert box["median"] == [pytest.approx(26**0.5, abs=1e-4)]
    assert "median 26.0" in centre["hovertemplate"]


def test_cases_beyond_the_whiskers_are_named(tmp_path: Path) -> None:
    ids = np.array([f"case{i:05d}" for i in range(60)])
    true = np.full((60, 1), 100)
    hit = np.array([[90 + i % 5] for i in range(60)])
    hit[:3, 0] = 10, 20, 30
    scores = MaskScores(ids, true, true, hit)
    spec = FakeStudy(
        labels=("identity",),
        seeds=(0,),
        cases=60,
        classes=("lesion",),
        masks=FakeMasks(background=False, overlapping=True, size=(8, 8), given={("identity", 0): scores}),
    )
    summary = summary_of(write_study(tmp_path / "study", spec))
    (dice,) = mask_figures(summary, label_cases(summary))  # no distances were measured
    (view,) = dice["views"]
    assert view["data"][1]["text"] == ["case00000: 0.100", "case00001: 0.200", "case00002: 0.300"]
    assert view["data"][0]["lowerfence"] == [0.9]


def test_failures_by_hand(tiny: Path, page: Page) -> None:
    summary = summary_of(tiny)
    found = failures(summary, label_cases(summary))
    rows = [(r.label, r.case, r.structure, r.dice, r.hd95, r.failed, r.runs, r.why) for r in found.rows]
    assert rows == [
        ("pooling-k3", "case00001", "left lung", 0.0, 50.0, 1, 1, "invented"),
        ("pooling-k3", "case00002", "left lung", 0.25, 26.0, 1, 2, "missed"),
    ]
    assert found.total == 2
    assert "2 failures" in page.text
    assert failures(summary, label_cases(summary), most=1).rows == found.rows[:1]


def test_failures_that_are_left_out_are_counted(tmp_path: Path) -> None:
    spec = FakeStudy(
        labels=("identity",), seeds=(0,), cases=250, classes=("a", "b"), masks=FakeMasks(size=(4, 4), background=False)
    )
    ids, ones = np.array([f"case{i:05d}" for i in range(250)]), np.ones((250, 2), dtype=int)
    nothing = MaskScores(ids, ones, ones, 0 * ones)
    assert spec.masks is not None
    spec.masks.given[("identity", 0)] = nothing
    page = page_of(write_study(tmp_path / "study", spec))
    assert "500 failures, the worst 200 of them" in page.text
    assert "300 more are left out" in " ".join(page.text.split())
    assert "found elsewhere" in page.text


def test_tables_hold_the_same_numbers(tiny: Path) -> None:
    build_report(tiny)
    results = rows_of(tiny / "results.csv")
    poor = next(row for row in results if (row["label"], row["seed"]) == ("pooling-k3", "0"))
    assert float(poor["test_dice"]) == pytest.approx(5 / 12)
    assert float(poor["test_hd95"]) == pytest.approx((100 / 3 + 3) / 2)
    assert poor["hd95_unit"] == "pixels"
    assert poor["test_dice_unmasked"] == ""
    assert "test_macro_f1" not in poor
    ranked = rows_of(tiny / "ranking.csv")
    assert [(row["label"], row["metric"]) for row in ranked] == [("identity", "dice"), ("pooling-k3", "dice")]
    assert float(ranked[1]["test_hd95"]) == pytest.approx(((100 / 3 + 3) / 2 + 1) / 2)
    text = (tiny / "tables.md").read_text()
    assert "| mixer | test Dice |  | HD95, pixels | Val Dice | parameters | MACs |" in text
    assert "| mixer | left lung | right <lung> |" in text
    assert RULE in text
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_ranking(tiny, console)
    assert isinstance(console.file, io.StringIO)
    assert "HD95, pixels" in console.file.getvalue()
    assert "Ranked by test Dice" in console.file.getvalue()


def test_scores_that_predictions_do_not_give_are_remarked(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", TINY)
    path = next((folder / "runs").glob("identity-s0-*")) / "summary.json"
    stored = json.loads(path.read_text())
    stored["test"] |= {"dice": 0.8, "hd95": 7.0, "hd95_unit": "mm"}
    path.write_text(json.dumps(stored))
    summary = summary_of(folder)
    notes = remarks(summary.study, [summary])
    assert any("summary.json says dice 0.8000, its predictions give 1.0000" in note for note in notes)
    assert any("summary.json says hd95 7.00, its predictions give 0.00" in note for note in notes)
    assert any("HD95 is in mm and pixels" in note for note in notes)
