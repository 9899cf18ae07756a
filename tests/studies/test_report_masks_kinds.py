"""Reports of segmentation studies of every kind: unfinished, damaged, with classification beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlab.studies.report import StudySummary, build_report, ranking, read_study
from mixlab.studies.report.collect import StudyRecord, by_data
from mixlab.studies.report.figures import score_figures
from mixlab.studies.report.mask_cases import label_cases
from mixlab.studies.report.mask_facts import pixel_counts, readable, shares_of
from mixlab.studies.report.mask_figures import mask_figures
from mixlab.studies.report.run_record import RunRecord
from mixlab.training.mask_scores import MaskScores

from .fake_masks import FakeMasks
from .fake_study import FakeStudy, write_study
from .test_report import Page, page_of, summary_of
from .test_report_masks import IDS, NAN, TINY, TRUE, rows_of
from .test_report_published import prepared

FEW = ("identity", "pooling-k3", "sep_conv-k3")

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
    study = study_with(card)
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
    assert pixel_counts(study_with(overlapping))[1][1] == ("a", ["2,000 (10 %)", "10"])
    assert shares_of(overlapping) == "all pixels"
    assert shares_of({**overlapping, "image_size": None}) == ""


def study_with(card: dict[str, Any]) -> StudyRecord:
    run = RunRecord(Path("run"), "identity", 0, None, "finished", {}, {}, {}, {}, card, [])
    return StudyRecord(Path("study"), {}, [run], [], [], [])


def test_classes_and_masks_in_one_study(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    labels = tuple(f"{name}-digits" for name in FEW)
    write_study(folder, FakeStudy(labels=labels, cases=60, classes=("a", "b")))
    labels = tuple(f"{name}-lungs" for name in FEW)
    masks = FakeMasks(size=(30, 30))
    write_study(folder, FakeStudy(labels=labels, data="lungs", cases=8, classes=("background", "lung"), masks=masks))
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
