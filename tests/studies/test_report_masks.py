"""Reports of segmentation: a tiny study whose numbers are computed by hand, and studies of every kind."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mixlab.errors import UserError
from mixlab.studies.report import StudySummary, build_report, print_ranking, ranking, read_study
from mixlab.studies.report.collect import by_data
from mixlab.studies.report.details import remarks
from mixlab.studies.report.failures import failures
from mixlab.studies.report.figures import score_figures
from mixlab.studies.report.mask_cases import label_cases
from mixlab.studies.report.mask_facts import pixel_counts, readable, shares_of
from mixlab.studies.report.mask_figures import mask_figures
from mixlab.studies.report.structures import RULE, structure_table
from mixlab.training.mask_scores import MaskScores

from .fake_masks import FakeMasks
from .fake_study import FakeStudy, write_study
from .test_report import Page, page_of, summary_of
from .test_report_published import prepared

FEW = ("identity", "pooling-k3", "sep_conv-k3")
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


KINDS = {
    "ignored pixels": FakeStudy(
        labels=FEW,
        cases=12,
        classes=("background", "a", "b", "c"),
        masks=FakeMasks(ignored=True, size=(40, 36), spacing=0.5),
    ),
    "every class a structure": FakeStudy(
        labels=FEW, cases=8, classes=("a", "b"), masks=FakeMasks(background=False, size=(30, 30))
    ),
    "one structure": FakeStudy(
        labels=FEW[:2], cases=8, classes=("lesion",), rgb=True, masks=FakeMasks(overlapping=True, vary=True)
    ),
    "17 overlapping": FakeStudy(
        labels=FEW[:2],
        cases=8,
        classes=tuple(f"<bone> {k}" for k in range(17)),
        masks=FakeMasks(overlapping=True, size=(60, 60), spread=2),
    ),
    "folds": FakeStudy(
        labels=FEW[:2], seeds=(0,), folds=(0, 1), cases=8, classes=("background", "a"), masks=FakeMasks(size=(30, 30))
    ),
    "unfinished": FakeStudy(
        labels=FEW,
        cases=8,
        classes=("background", "a"),
        masks=FakeMasks(size=(30, 30)),
        states={("identity", 0): "failed", ("identity", 1): "running", ("pooling-k3", 1): "diverged"},
    ),
    "only failed runs": FakeStudy(
        labels=FEW[:1],
        cases=8,
        classes=("background", "a"),
        masks=FakeMasks(size=(30, 30)),
        states={("identity", 0): "failed", ("identity", 1): "failed"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_studies(kind: str, tmp_path: Path) -> None:
    import plotly.graph_objects as go

    spec = KINDS[kind]
    folder = write_study(tmp_path / "study", spec)
    html = build_report(folder).read_text(encoding="utf-8")
    assert "<bone>" not in html
    page, summary = Page(html), summary_of(folder)
    assert summary.headline() in page.text
    assert ("Unmasked Dice" in page.text) == (kind == "ignored pixels")
    assert ("HD95, mm" in page.text) == (kind == "ignored pixels")
    if kind != "only failed runs":
        assert page.text.count(f"{len(summary.study.structures)} classes") <= 1
        assert all(name in page.text for name in summary.study.structures)
    for figure in score_figures(summary) + mask_figures(summary, label_cases(summary)):
        for view in figure["views"]:
            coloured = json.loads(json.dumps(view, allow_nan=False).replace("var:--c", "#12345"))
            plain = json.loads(json.dumps(coloured).replace("var:--panel", "red").replace("var:--muted", "red"))
            go.Figure(data=plain["data"])
    assert len(rows_of(folder / "results.csv")) == len(spec.labels) * len(spec.seeds) * len(spec.folds)
    json.dumps([page.figures], allow_nan=False)


def test_pixels_and_shares() -> None:
    card = {
        "task": "segmentation",
        "classes": ["back", "a", "b"],
        "background": 0,
        "ignore_label": 255,
        "image_size": None,
        "overlapping": False,
        "spacing": [0.5, 0.25],
        "ignored_pixels": {"train": 12345},
        "class_counts": {"train": [7000, 2000, 1000], "test": [30, 10, 0]},
    }
    shown = readable(card)
    assert shown["image_size"] == "varies"
    assert shown["background"] == "back (class 0)"
    assert shown["spacing"] == "0.5, 0.25 mm"
    assert shown["ignored_pixels"] == {"train": "12,345"}
    study = read_study_with(card)
    assert pixel_counts(study) == (
        ["train", "test"],
        [
            ("back", ["7,000 (70 %)", "30 (75 %)"]),
            ("a", ["2,000 (20 %)", "10 (25 %)"]),
            ("b", ["1,000 (10 %)", "0 (0 %)"]),
        ],
    )
    assert shares_of(card) == "the pixels that count"
    overlapping = {**card, "overlapping": True, "sizes": {"train": 2}, "image_size": [100, 100], "background": None}
    assert pixel_counts(read_study_with(overlapping))[1][1] == ("a", ["2,000 (10 %)", "10"])
    assert shares_of(overlapping) == "all pixels"
    assert shares_of({**overlapping, "image_size": None}) == ""


def read_study_with(card: dict[str, Any]) -> Any:
    from mixlab.studies.report.collect import StudyRecord
    from mixlab.studies.report.run_record import RunRecord

    run = RunRecord(Path("run"), "identity", 0, None, "finished", {}, {}, {}, {}, card, [])
    return StudyRecord(Path("study"), {}, [run], [], [], [])


def test_classes_and_masks_in_one_study(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    label = tuple(f"{name}-{data}" for name in FEW for data in ("digits",))
    write_study(folder, FakeStudy(labels=label, cases=60, classes=("a", "b")))
    label = tuple(f"{name}-lungs" for name in FEW)
    masks = FakeMasks(size=(30, 30))
    write_study(folder, FakeStudy(labels=label, data="lungs", cases=8, classes=("background", "lung"), masks=masks))
    page = page_of(folder)
    assert "2 data sets, each ranked for itself." in page.text
    assert {"d0-classes", "d1-structures", "d1-cases", "d1-failures"} <= page.ids
    assert not {"d0-structures", "d1-classes"} & page.ids
    assert "Ranked by test macro F1" in page.text
    assert "Ranked by test Dice" in page.text
    rows = rows_of(folder / "results.csv")
    assert {bool(row["test_macro_f1"]) for row in rows if row["data"] == "lungs"} == {False}
    assert {bool(row["test_dice"]) for row in rows if row["data"] == "digits"} == {False}
    assert {bool(row["val_dice"]) for row in rows if row["data"] == "lungs"} == {True}
    assert {row["metric"] for row in rows_of(folder / "ranking.csv")} == {"macro_f1", "dice"}
    assert ranking(folder, data="lungs").metric == "dice"


def test_masks_without_any_structure_have_no_score(tmp_path: Path) -> None:
    nothing = MaskScores(IDS, 0 * TRUE, 0 * TRUE, 0 * TRUE, np.full((3, 2), NAN))
    assert TINY.masks is not None
    every = dict.fromkeys(TINY.masks.given, nothing)
    masks = FakeMasks(**{**vars(TINY.masks), "given": every})
    folder = write_study(tmp_path / "study", FakeStudy(**{**vars(TINY), "masks": masks}))
    page, summary = page_of(folder), summary_of(folder)
    assert summary.ranking.rows == ()
    assert "no test case has a structure, true or predicted" in page.text
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
    json.dumps(page.figures, allow_nan=False)


def test_damaged_files_become_remarks(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", TINY)
    first, second, third = sorted((folder / "runs").iterdir())[:3]
    arrays = dict(np.load(first / "predictions_test.npz"))
    np.savez(first / "predictions_test.npz", **{**arrays, "hit": arrays["hit"][:, :1]})
    arrays = dict(np.load(second / "examples.npz"))
    del arrays["sizes"]
    np.savez(second / "examples.npz", **arrays)
    one = {
        key: value[:, :1] if value.ndim == 2 else value
        for key, value in np.load(third / "predictions_test.npz").items()
    }
    np.savez(third / "predictions_test.npz", **one)
    text = page_of(folder).text
    assert "predictions_test.npz cannot be read: arrays that are not all of one shape" in text
    assert "examples.npz cannot be read" in text
    assert "predictions of 1 structures, the data card names 2" in text


def test_published_dice_and_variants(tmp_path: Path) -> None:
    spec = FakeStudy(**{**vars(TINY), "variants": {"identity": "plain", "pooling-k3": "plain"}})
    folder = write_study(tmp_path / "study", spec)
    columns = {"mixer": "mixer", "kernel": "kernel_size", "data": "data"}
    prepared(folder, columns=columns, scores={"f1": "dice", "acc": "hd95"})
    page = page_of(folder)
    assert "Beside the published numbers" in page.text
    assert {"published_dice", "published_hd95"} <= set(rows_of(folder / "results.csv")[0])
    (part,) = by_data(read_study(folder))
    assert StudySummary(part).metric_name == "Dice"
