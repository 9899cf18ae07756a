"""CVAT's XML: polygons and runs, and GRAZPEDWRI-DX's bones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlab.data import DataConfig, ImageData, at_hand, describe, open_data
from mixlab.data.cvat import fill_polygon, fill_runs, read_cvat
from mixlab.data.sources.grazpedwri_bones import BONES
from mixlab.errors import UserError
from tests.data.make import picture, save, table

H, W = 20, 12
BOX = "2.00,3.00;6.00,3.00;6.00,9.00;2.00,9.00"
"""Columns 2 to 5 and rows 3 to 8."""


def polygon(bone: str, points: str = BOX) -> str:
    attribute = f'<attribute name="Anatomie">{bone}</attribute>'
    return f'<polygon label="Knochen" occluded="0" points="{points}" z_order="0">{attribute}</polygon>'


def xml(path: Path, images: dict[str, str], size: tuple[int, int] = (H, W)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    inner = "".join(
        f'<image id="0" name="{n}" width="{size[1]}" height="{size[0]}">{s}</image>' for n, s in images.items()
    )
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?><annotations><meta><task/></meta>{inner}</annotations>')
    return path


def test_pixels_whose_centres_are_inside() -> None:
    mask = np.zeros((10, 10), np.uint8)
    fill_polygon(mask, np.array([[2.0, 3.0], [6.0, 3.0], [6.0, 9.0], [2.0, 9.0]]))
    assert mask.sum() == 24
    assert mask[3:9, 2:6].all()
    fill_polygon(mask, np.array([[-5.0, -5.0], [1.5, -5.0], [1.5, 40.0], [-5.0, 40.0]]))
    assert mask[:, 0].all(), "it may leave the image"
    assert not mask[:, 1].any(), "a centre on the right border is outside"


def test_polygons_agree_with_another_rasteriser() -> None:
    from matplotlib.path import Path as Outline

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :50] + 0.5
    for _ in range(20):
        angles = np.sort(rng.random(9)) * 2 * np.pi
        radii = rng.uniform(4, 22, 9)
        points = np.stack([25 + radii * np.cos(angles), 20 + radii * np.sin(angles)], axis=1)
        mask = np.zeros((40, 50), np.uint8)
        fill_polygon(mask, points)
        other = Outline(points).contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(40, 50)
        assert (mask != other).sum() <= 1


def test_runs() -> None:
    mask = np.zeros((5, 6), np.uint8)
    fill_runs(mask, (1, 2, 3, 2), np.array([1, 2, 2, 1]))
    assert mask.tolist() == [[0] * 6, [0] * 6, [0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0], [0] * 6]


def test_shapes_of_a_structure_are_united(tmp_path: Path) -> None:
    lower = "2,12;6,12;6,14;2,14"
    runs = '<mask label="Ulna" rle="0,4" left="0" top="0" width="4" height="1"/>'
    file = xml(tmp_path / "a.xml", {"x.png": polygon("Radius") + polygon("Radius", lower) + runs})
    drawn = read_cvat(file, "Anatomie")[0]
    assert (drawn.name, drawn.size, drawn.structures) == ("x.png", (H, W), {"Radius", "Ulna"})
    mask = drawn.mask(["Ulna", "Os lunatum", "Radius"])
    assert mask.sum(axis=(1, 2)).tolist() == [4, 0, 24 + 8]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (polygon("Radius", "1,2;3,4"), "a polygon of Knochen with the points 1,2;3,4"),
        (polygon("Radius", "1,2;3;4,5"), "image 'x.png'"),
        (polygon("Radius", "a,b;3,4;4,5"), "could not convert"),
        ('<mask label="Ulna" rle="0,4" left="10" top="0" width="4" height="1"/>', "leaves its box or the image"),
        ('<mask label="Ulna" rle="0,5" left="0" top="0" width="4" height="1"/>', "leaves its box or the image"),
        ('<polygon label="Ulna"/>', "KeyError"),
    ],
)
def test_shapes_that_are_none(tmp_path: Path, shape: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_cvat(xml(tmp_path / "a.xml", {"x.png": shape}))


def test_files_that_are_none(tmp_path: Path) -> None:
    for text, message in (("<a", "XML file of CVAT"), ("<coco/>", "<annotations>")):
        (tmp_path / "a.xml").write_text(text)
        with pytest.raises(UserError, match=message):
            read_cvat(tmp_path / "a.xml")


STEMS = {
    "train1": ["0001_0304693626_01_WRI-R1_F014", "0002_1_01_WRI-L1_M003"],
    "train2": ["0003_1_01_WRI-L1_M003"],
    "val": ["0004_1_01_WRI-R1_M003"],
    "test": ["0005_1_01_WRI-L1_M003", "0006_1_01_WRI-L2_M003"],
}


def bones(root: Path, **changed: Any) -> Path:
    stems = {**STEMS, **changed}
    for number, (part, names) in enumerate(stems.items()):
        shapes = polygon("Radius") + polygon("Epiphyse Radius") + polygon("Phalanx media II")
        xml(root / "cvat_annotation_xml" / f"annotations_{part}.xml", {f"{n}.png": shapes for n in names})
        for i, name in enumerate(names):
            pixels = picture(10 * number + i, (H, W), top=65536, dtype=np.uint16)
            save(root / "images_part1" / f"{name}.png", pixels)
    return root


def opened(root: Path, **options: Any) -> ImageData:
    return open_data(DataConfig(name="grazpedwri-bones", root=root, **options))


def test_bones(tmp_path: Path) -> None:
    data = opened(bones(tmp_path))
    card = data.card
    assert (card.task, card.overlapping, card.classes, len(card.classes)) == ("segmentation", True, BONES, 17)
    assert card.sizes == {"train": 3, "val": 1, "test": 2}
    assert card.splits.startswith("the authors'")
    image, mask, _ = data.splits["train"][1]
    assert (image.shape, mask.shape, mask.dtype) == ((1, H, W), (17, H, W), torch.float32)
    radius, epiphysis = (mask[BONES.index(b)] for b in ("Radius", "Epiphyse Radius"))
    assert torch.equal(radius, epiphysis), "bones may overlap"
    assert radius[3:9, 2:6].all()
    assert mask.sum() == 48
    messages = [e["message"] for e in data.events]
    assert any("not of the 17: Phalanx media II" in m for m in messages)
    assert any("no dataset.csv" in m for m in messages)
    assert data.splits["test"].groups == ["0005", "0006"]


def test_right_wrists_are_mirrored(tmp_path: Path) -> None:
    split = opened(bones(tmp_path)).splits["train"]
    image, mask, _ = split[0]
    assert split.ids[0].startswith("0001")
    expected = picture(0, (H, W), top=65536, dtype=np.uint16)[:, ::-1] / 65535
    np.testing.assert_allclose(image[0], expected, atol=1e-6)
    assert mask[BONES.index("Radius"), 3:9, 6:10].all()


def test_the_table_says_which_are_frontal(tmp_path: Path) -> None:
    rows = [
        {"filestem": s, "projection": "2" if s.startswith("0002") else "1", "pixel_spacing": "0.144"}
        for stems in STEMS.values()
        for s in stems
    ]
    bones(tmp_path)
    table(tmp_path / "dataset.csv", rows)
    data = opened(tmp_path)
    assert data.card.sizes["train"] == 2
    assert data.card.spacing == (0.144, 0.144)
    assert any(e["message"] == "1 lateral images are left out" for e in data.events)


def test_a_patient_in_two_of_the_authors_splits(tmp_path: Path) -> None:
    data = opened(bones(tmp_path, val=["0001_9_01_WRI-L1_F014"]))
    assert data.card.leaks[0] == "1 patients are in several of the authors' splits"
    assert data.splits["train"].groups is None


def test_bones_that_are_not_there(tmp_path: Path) -> None:
    assert not at_hand(DataConfig(name="grazpedwri-bones", root=tmp_path))
    with pytest.raises(UserError, match=r"annotations_\*.xml in cvat_annotation_xml.*SamCarriesTheBurden"):
        opened(tmp_path)
    bones(tmp_path)
    assert at_hand(DataConfig(name="grazpedwri-bones", root=tmp_path))
    assert describe("grazpedwri-bones").classes == BONES
    missing = next((tmp_path / "images_part1").iterdir())
    missing.unlink()
    with pytest.raises(UserError, match=rf"1 of 6 missing \({missing.name}\)"):
        opened(tmp_path)
    save(missing, picture(0, (H, W + 1)))
    with pytest.raises(UserError, match=r"1 of 6 that differ \(.*image 20 x 13, mask 20 x 12"):
        opened(tmp_path)
    xml(tmp_path / "cvat_annotation_xml" / "annotations_extra.xml", {})
    with pytest.raises(UserError, match=r"annotations_train, _val or _test.*annotations_extra"):
        opened(tmp_path)
    (tmp_path / "cvat_annotation_xml" / "annotations_extra.xml").unlink()
    xml(tmp_path / "cvat_annotation_xml" / "annotations_train3.xml", {f"{STEMS['val'][0]}.png": ""})
    with pytest.raises(UserError, match="each image in one XML file"):
        opened(tmp_path)
