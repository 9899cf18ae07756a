"""Overlays pixel by pixel, and which cases and labels the pictures of a segmentation report show."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixlab.studies.report import build_report
from mixlab.studies.report.mask_cases import label_cases
from mixlab.studies.report.mask_gallery import FEWER, WORST_BEST, Gallery, chosen_labels, collect_cases
from mixlab.studies.report.overlays import (
    DRAWN,
    FILL,
    colour_of,
    ignored,
    image_uri,
    overlay,
    pattern_of,
    planes,
)

from .fake_masks import FakeMasks
from .fake_study import FakeStudy, write_study
from .test_report import page_of, summary_of

SIDE = 40


def opened(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def pixels(uri: str) -> np.ndarray:
    return np.array(opened(uri).convert("RGBA"))


def rgb(structure: int) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour_of(structure)[1:]))


def square(structures: int = 1, structure: int = 0) -> np.ndarray:
    """A square from 10 to 30 in one of the planes."""
    made = np.zeros((structures, SIDE, SIDE), dtype=bool)
    made[structure, 10:30, 10:30] = True
    return made


NOTHING = np.zeros((SIDE, SIDE), dtype=bool)


def test_masks_become_planes() -> None:
    mask = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(planes(mask, 2, 0), [[[0, 1], [0, 0]], [[0, 0], [1, 0]]])
    np.testing.assert_array_equal(planes(mask, 2, 1), [[[1, 0], [0, 0]], [[0, 0], [1, 0]]])
    np.testing.assert_array_equal(planes(mask, 3, None)[0], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(ignored(mask), [[0, 0], [0, 1]])
    stacked = np.stack([mask == 1, mask == 2]).astype(np.uint8)
    np.testing.assert_array_equal(planes(stacked, 2, None), stacked)
    assert not ignored(stacked).any()


def test_fill_is_translucent_and_contour_is_crisp() -> None:
    times = DRAWN // SIDE
    painted = pixels(overlay(square(), square(), NOTHING))
    assert painted.shape == (DRAWN, DRAWN, 4)
    assert tuple(painted[20 * times, 20 * times]) == (*rgb(0), round(255 * FILL))
    assert tuple(painted[10 * times, 20 * times]) == (*rgb(0), 255)  # the first pixel inside
    assert tuple(painted[30 * times - 1, 20 * times]) == (*rgb(0), 255)
    assert tuple(painted[10 * times - 1, 20 * times, :3]) == (0, 0, 0)  # its casing is outside
    assert painted[10 * times - 1, 20 * times, 3] > 0
    assert painted[5 * times, 5 * times, 3] == 0


def test_what_is_missed_has_a_contour_and_what_is_invented_a_fill() -> None:
    times = DRAWN // SIDE
    missed = pixels(overlay(~square() & False, square(), NOTHING))
    assert missed[20 * times, 20 * times, 3] == 0
    assert missed[10 * times, 20 * times, 3] == 255
    invented = pixels(overlay(square(), square() & False, NOTHING))
    assert tuple(invented[10 * times, 20 * times]) == (*rgb(0), round(255 * FILL))


def test_contours_at_the_border_are_closed() -> None:
    whole = np.ones((1, SIDE, SIDE), dtype=bool)
    painted = pixels(overlay(whole & False, whole, NOTHING))
    assert (painted[0, :, 3] == 255).all()
    assert (painted[:, -1, 3] == 255).all()


def test_ignored_pixels_are_dimmed_and_hatched() -> None:
    veil = NOTHING.copy()
    veil[:, :12] = True
    painted = pixels(overlay(square() & False, square() & False, veil))
    inside = painted[:, : 12 * DRAWN // SIDE].reshape(-1, 4)
    assert len(np.unique(inside, axis=0)) == 2
    assert inside[:, 3].min() > 128
    assert painted[:, 12 * DRAWN // SIDE :, 3].max() == 0


def test_structures_that_lie_on_one_another_are_mixed() -> None:
    times = DRAWN // SIDE
    both = np.concatenate([square(2, 0)[:1], square(2, 1)[1:]])
    painted = pixels(overlay(both, both & False, NOTHING))[20 * times, 20 * times]
    assert tuple(painted[:3]) == tuple(np.mean([rgb(0), rgb(1)], axis=0).round().astype(int))
    assert painted[3] > round(255 * FILL)


def test_fills_past_the_palette_are_striped() -> None:
    times = DRAWN // SIDE
    kinds = {(colour_of(k), pattern_of(k)) for k in range(40)}
    assert len(kinds) == 40
    for structure in (8, 16, 24):
        painted = pixels(overlay(square(31, structure), square(31) & False, NOTHING))
        part = painted[10 * times : 30 * times, 10 * times : 30 * times].reshape(-1, 4)
        share = (part[:, 3] > 0).mean()
        assert 0.3 < share < 0.8
        assert {tuple(p[:3]) for p in part if p[3]} == {rgb(structure)}


@pytest.mark.parametrize("structures", [1, 17, 70])
def test_overlays_are_small_and_indexed(structures: int) -> None:
    rng = np.random.default_rng(0)
    made = np.zeros((structures, 192, 150), dtype=bool)
    for k in range(structures):
        y, x = rng.integers(0, 150), rng.integers(0, 110)
        made[k, y : y + 30, x : x + 30] = True
    uri = overlay(made, made, np.zeros((192, 150), dtype=bool))
    assert opened(uri).mode == "P"
    assert opened(uri).size == (300, 384)
    assert len(uri) < 16_000


@pytest.mark.parametrize(("shape", "mode"), [((20, 30), "L"), ((20, 30, 3), "P")])
def test_images_are_stored_in_few_bytes(shape: tuple[int, ...], mode: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    made = opened(image_uri(image))
    assert (made.mode, made.size) == (mode, (30, 20))
    if mode == "L":
        np.testing.assert_array_equal(np.array(made), image)


# Which cases and labels are shown


def gallery_of(folder: Path) -> Gallery:
    summary = summary_of(folder)
    return collect_cases(summary, label_cases(summary))


def study(folder: Path, labels: tuple[str, ...], **changes: Any) -> Path:
    masks: dict[str, Any] = {"size": (24, 30), "spread": 3, "extreme": 4} | changes
    return write_study(folder, FakeStudy(labels=labels, cases=20, classes=("back", "a"), masks=FakeMasks(**masks)))


def test_spread_cases_stand_side_by_side(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", ("identity", "pooling-k3"))
    summary, gallery = summary_of(folder), gallery_of(folder)
    assert [case.case for case in gallery.spread] == ["case00000", "case00001", "case00002"]
    ranked = [label.label for label in summary.labels]
    cases = {label.label.label: label for label in label_cases(summary)}
    for case in gallery.spread:
        assert [panel.head for panel in case.panels] == ["image", "truth", *ranked]
        assert len({panel.picture for panel in case.panels}) == 1
        assert [bool(panel.overlay) for panel in case.panels] == [False, True, True, True]
        for panel in case.panels[2:]:
            runs = [run.predictions("test") for run in cases[panel.head].label.runs]
            place = list(runs[0].ids).index(case.case)  # type: ignore[union-attr]
            dice = np.mean([run.dice()[place, 0] for run in runs])  # type: ignore[union-attr]
            assert panel.note == ("Dice \N{EN DASH}" if np.isnan(dice) else f"Dice {dice:.3f}")
    assert gallery.columns == ""
    page = page_of(folder)
    for text in ("case00002", "identity", "their place in the test split"):
        assert text in " ".join(page.text.split())


def test_worst_and_best_of_each_label(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", ("identity", "pooling-k3"))
    summary, gallery = summary_of(folder), gallery_of(folder)
    assert [extremes.label for extremes in gallery.extremes] == [label.label for label in summary.labels]
    cases = {label.label.label: label.overall_dice for label in label_cases(summary)}
    for extremes in gallery.extremes:
        dice = cases[extremes.label]
        kept = {e.case for run in summary.study.finished if run.label == extremes.label for e in run.mask_examples()}
        ordered = sorted((value, case) for case, value in dice.items() if case in kept)
        worst, best = min(WORST_BEST[0], len(ordered) - min(3, len(ordered) // 3)), min(3, len(ordered) // 3)
        assert [case.case for case in extremes.worst] == [case for _, case in ordered[:worst]]
        assert [case.case for case in extremes.best] == [case for _, case in reversed(ordered[-best:])]


def test_with_many_labels_some_are_shown(tmp_path: Path) -> None:
    labels = ("identity", *(f"mixer{k}" for k in range(13)))
    spec = FakeStudy(
        labels=labels,
        seeds=(0,),
        skill={f"mixer{k}": 3.0 - k for k in range(13)} | {"identity": -3.0},
        cases=30,
        classes=("back", "a"),
        masks=FakeMasks(size=(24, 30), extreme=5),
    )
    summary = summary_of(write_study(tmp_path / "study", spec))
    cases = label_cases(summary)
    chosen, words = chosen_labels(cases)
    names, ranked = [label.label.label for label in chosen], [label.label.label for label in cases]
    assert len(names) == 6
    assert names[:3] == ranked[:3]
    assert names[-1] == ranked[-1]
    assert "identity" in names
    assert words.startswith("Of 14 mixers 6 are shown: the best three, the next best")
    assert chosen_labels(cases[:6]) == (cases[:6], "")
    gallery = collect_cases(summary, cases)
    assert gallery.widest == 8
    assert len(gallery.extremes) == 14
    assert max(len(extremes.worst) for extremes in gallery.extremes) == FEWER[0]


def test_padding_is_cut_off(tmp_path: Path) -> None:
    gallery = gallery_of(study(tmp_path / "study", ("identity",), vary=True))
    assert {(p.width, p.height) for p in gallery.pictures.values()} > {(30, 24), (22, 16)}


def test_ignored_pixels_are_in_the_legend(tmp_path: Path) -> None:
    for known in (True, False):
        page = page_of(study(tmp_path / str(known), ("identity",), ignored=known))
        assert ("pixels that count for nothing" in page.text) == known


def test_a_picture_is_stored_once(tmp_path: Path) -> None:
    folder = study(tmp_path / "study", ("identity", "pooling-k3", "sep_conv-k3"))
    gallery = gallery_of(folder)
    shown = {panel.picture for case in gallery.spread for panel in case.panels}
    assert shown <= set(gallery.pictures)
    assert len({picture.uri for picture in gallery.pictures.values()}) == len(gallery.pictures)
    html = build_report(folder).read_text()
    for picture in gallery.pictures.values():
        assert html.count(picture.uri) == 1
