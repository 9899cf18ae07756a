"""``grazpedwri-fracture`` on a tiny imitation of the authors' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlab.data import DataConfig, ImageData, describe, list_datasets, open_data
from mixlab.data.sources.grazpedwri import LABELS, OFFICIAL_IMAGES, labels_of
from mixlab.errors import UserError
from tests.data.make import picture, save, table

CODES = ("23r-M/2.1", "23u-E/7", "23-M/3.1", "22r-D/2.1; 23u-M/2.1", "72B(b)", "")
COLUMNS = (
    "filestem,patient_id,study_number,timehash,gender,age,laterality,projection,initial_exam,ao_classification,cast,"
)
COLUMNS += "diagnosis_uncertain,osteopenia,fracture_visible,metal,pixel_spacing,device_manufacturer"


def case(patient: int, study: int, projection: int, **values: str) -> dict[str, str]:
    row = dict.fromkeys(COLUMNS.split(","), "")
    stem = f"{patient:04d}_{study:010d}_{study:02d}_WRI-L{projection}_M010"
    return {**row, "filestem": stem, "patient_id": str(patient), "projection": str(projection), **values}


def rows(patients: int = 24) -> list[dict[str, str]]:
    """Two views a patient; every second patient has a visible fracture."""
    found = []
    for patient in range(patients):
        code = CODES[patient // 2 % len(CODES)]
        fracture = {"fracture_visible": "1", "ao_classification": code} if patient % 2 else {}
        found += [case(patient, 1, projection, **fracture) for projection in (1, 2)]
    return found


def imitate(root: Path, cases: list[dict[str, str]], parts: tuple[str, ...] = ("images_part1", "images_part2")) -> Path:
    for i, row in enumerate(cases):
        pixels = picture(i, (14, 10), top=2**16, dtype=np.uint16)
        save(root / parts[i % len(parts)] / f"{row['filestem']}.png", pixels)
    table(root / "dataset.csv", cases)
    return root


def opened(root: Path, labels: str = "", **options: Any) -> ImageData:
    return open_data(DataConfig(name=f"grazpedwri-fracture{labels}", root=root, **options))


def messages(data: ImageData) -> str:
    return "\n".join(e["message"] for e in data.events)


@pytest.mark.parametrize("parts", [("images_part1", "images_part4"), ("images",), (".",)])
def test_binary(tmp_path: Path, parts: tuple[str, ...]) -> None:
    cases = rows()
    data = opened(imitate(tmp_path, cases, parts))
    assert data.card.classes == ("no fracture", "fracture")
    assert data.card.task == "classification"
    assert (data.card.channels, data.card.image_size) == (1, (14, 10))
    assert sum(data.card.sizes.values()) == 48
    assert sum(counts[1] for counts in data.card.class_counts.values()) == 24
    truth = {row["filestem"]: row["fracture_visible"] == "1" for row in cases}
    for split in data.splits.values():
        assert [truth[i] for i in split.ids] == [bool(t) for t in split.targets]
        image, _, _ = split[0]
        assert 0 <= image.min() < image.max() <= 1
    assert f"48 images, not the official {OFFICIAL_IMAGES}" in messages(data)


def test_no_patient_is_divided(tmp_path: Path) -> None:
    for labels in ("", ":multilabel"):
        data = opened(imitate(tmp_path, rows()), labels)
        groups = [set(split.groups or ()) for split in data.splits.values()]
        assert all(groups)
        assert sum(map(len, groups)) == len(set.union(*groups)) == 24
        folds = [opened(tmp_path, labels, folds=3, fold=i).splits["val"] for i in range(3)]
        assert not set(folds[0].groups or ()) & set(folds[1].groups or ())


def test_multilabel(tmp_path: Path) -> None:
    cases = rows()
    data = opened(imitate(tmp_path, cases), ":multilabel")
    assert data.card.task == "multilabel"
    assert data.card.classes == LABELS
    found = {i: t for split in data.splits.values() for i, t in zip(split.ids, split.targets, strict=True)}
    for row in cases:
        visible, code = row["fracture_visible"], row["ao_classification"]
        want = (labels_of(code) or ["other"]) if visible else []
        assert [name for name, value in zip(LABELS, found[row["filestem"]], strict=True) if value] == want
    assert "4 images with a visible fracture have no AO code" in messages(data)


@pytest.mark.parametrize(
    ("codes", "labels"),
    [
        ("", []),
        ("23r-M/2.1", ["radius metaphysis"]),
        ("23-M/3.1", ["radius metaphysis", "ulna metaphysis"]),
        ("23u-E/7; 23r-E/2.1", ["radius epiphysis", "ulna epiphysis"]),
        ("22-D/2.1;", ["radius shaft", "ulna shaft"]),
        ("22u-D/1.1; 72B(b)", ["ulna shaft", "other"]),
        ("23r-M/2.1; 23r-M/3.1", ["radius metaphysis"]),
    ],
)
def test_codes(codes: str, labels: list[str]) -> None:
    assert labels_of(codes) == labels


def test_what_the_table_says_beside_is_told(tmp_path: Path) -> None:
    cases = rows()
    cases[0] |= {"ao_classification": "23r-M/2.1", "diagnosis_uncertain": "1"}
    said = messages(opened(imitate(tmp_path, cases)))
    assert "1 images have an AO code but no visible fracture" in said
    assert "diagnosis of 1 images is uncertain" in said


def test_the_card_is_known_before_the_data() -> None:
    card = describe("grazpedwri-fracture:multilabel")
    assert (card.task, card.classes, card.licence) == ("multilabel", LABELS, "CC BY 4.0")
    assert describe("grazpedwri-fracture").classes == describe("grazpedwri-fracture:binary").classes
    assert "10.6084/m9.figshare.14825193" in card.source
    assert "Nagy" in card.citation
    assert {"grazpedwri-fracture", "grazpedwri-fracture[:binary|multilabel]"} <= set(list_datasets())


def test_absent_data_are_told_with_instructions(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no .*dataset\.csv, try --data-root FOLDER with dataset\.csv and .*images_part1"
    ):
        opened(tmp_path)
    imitate(tmp_path, rows(4))
    for path in sorted((tmp_path / "images_part2").glob("*.png")):
        path.unlink()
    with pytest.raises(UserError, match=r"4 of 8 missing \(0000_.*\.png.*figshare"):
        opened(tmp_path)


def test_what_is_wrong_with_a_table(tmp_path: Path) -> None:
    cases = rows(4)
    imitate(tmp_path, cases)
    wrong: list[tuple[list[dict[str, str]], str]] = [
        ([{"filestem": "a", "patient_id": "1"}], "no fracture_visible, ao_classification among filestem, patient_id"),
        ([{**cases[0], "patient_id": ""}], "none in line 2"),
        ([cases[0], cases[0]], "twice: 0000_"),
        ([{**cases[0], "fracture_visible": "maybe"}], "has 'maybe'"),
    ]
    for content, message in wrong:
        table(tmp_path / "dataset.csv", content)
        with pytest.raises(UserError, match=message):
            opened(tmp_path)
    with pytest.raises(UserError, match="binary or multilabel, got 'types'"):
        opened(tmp_path, ":types")
