"""Masks of image files by segmentation runs. Weights are random: what is tested is where pixels come from and go."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlab.cli import main
from mixlab.cli.single import show_metrics
from mixlab.data import DataConfig, ImageSplit, open_data
from mixlab.data.mask_files import read_mask
from mixlab.data.readers import read_image
from mixlab.data.resize import resize_mask
from mixlab.errors import UserError
from mixlab.studies.evaluation import evaluate_run, load_run, predict_files
from mixlab.studies.plan import build_model
from mixlab.studies.prediction import predict_masks
from mixlab.studies.run_config import RunConfig
from mixlab.studies.run_folder import RunFolder
from mixlab.training.checkpoint import save_best
from mixlab.training.checks import input_size
from mixlab.training.fit import evaluate
from mixlab.training.machine import Machine
from tests.data.make import Array, nifti, pairs_folder, picture, save
from tests.data.test_decathlon import AFFINE, task

MakeRun = Callable[..., Path]
LPS = np.diag([-0.8, -0.9, 2.5, 1.0])


def make_run(folder: Path, data: DataConfig, **recipe: Any) -> Path:
    """A run folder as a training leaves it, with the weights that it began with."""
    images = open_data(data)
    model = {"name": "metaformer_nano", "token_mixer": "pooling", "decoder": "fcn"}
    config = RunConfig.of({"model": model, "recipe": {"preset": "segmentation", **recipe}, "precision": "32-true"})
    config = RunConfig(**{**vars(config), "data": data})
    run = RunFolder(folder)
    run.create(config.to_plain(images.fingerprint))
    run.write_json("data_card.json", {**images.card.to_dict(), "fingerprint": images.fingerprint})
    torch.manual_seed(0)
    model = build_model(config, images.card, input_size(config.recipe, images.card))
    save_best(run.checkpoints, model, epoch=1, metrics={})
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs_folder(tmp_path_factory.mktemp("pairs"), 8, classes=3)


@pytest.fixture(scope="module")
def run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of images of 20 x 16 pixels, presented as they are."""
    return make_run(tmp_path_factory.mktemp("run"), DataConfig(name=f"folder:{pairs}"))


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows brightness: class 1 is what is at least half white."""

    def segment(model: Any, card: Any, split: ImageSplit, **how: Any) -> Iterator[tuple[int, Array]]:
        for index, size in enumerate(how["sizes"]):
            light = (split[index][0].mean(0) >= 0.5).numpy().astype(np.uint8)
            light = resize_mask(light, size)
            yield index, np.stack([light, 1 - light]) if card.overlapping else light

    monkeypatch.setattr("mixlab.training.segment.segment", segment)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def light(path: Path) -> Array:
    values = read_image(path)
    scale = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    return ((values / scale).mean(0) >= 0.5).astype(np.uint8)


def test_masks_and_a_table_of_them(run: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model itself: what is written is what an evaluation counts."""
    trained = load_run(run)
    split = open_data(trained.config.data).splits["train"]
    arrays, _ = evaluate(trained.model, trained.card, split, recipe=trained.config.recipe, machine=Machine())
    files = [pairs / "images" / name for name in split.ids]
    out = tmp_path / "new" / "masks"
    code, text, err = call(capsys, "predict", run, *files, "--output", out, "--device", "cpu")
    assert code == 0, err
    assert f"masks:   {out}" in err
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["path"] for row in rows] == [str(file) for file in files]
    assert rows[0].keys() == {"path", "mask", "class 1", "class 2"}
    for row, said in zip(rows, arrays["said"].tolist(), strict=True):
        mask = read_mask(Path(row["mask"]))
        assert mask.shape == (20, 16)
        assert [int((mask == k).sum()) for k in (1, 2)] == [int(row[f"class {k}"]) for k in (1, 2)] == said
    assert len(list(out.iterdir())) == len(files)
    code, _, err = call(capsys, "predict", run, *files, "--output", out)
    assert (code, f"{len(files)}:" in err, str(out / files[0].name) in err, "--overwrite" in err) == (
        2,
        True,
        True,
        True,
    )
    before = (out / files[0].name).read_bytes()
    (out / files[0].name).write_bytes(b"old")
    assert call(capsys, "predict", run, *files, "--output", out, "--overwrite", "--device", "cpu")[0] == 0
    assert (out / files[0].name).read_bytes() == before


@pytest.mark.usefixtures("bright")
def test_each_mask_has_its_own_file_s_size(run: Path, tmp_path: Path) -> None:
    """The model sees 20 x 16 pixels."""
    spots = np.kron(picture(1, (5, 4), top=2), np.ones((4, 4), np.uint8))
    files = [
        save(tmp_path / "same.png", spots * 255),
        save(tmp_path / "double.tif", np.kron(spots, np.ones((2, 2), np.uint8)).astype(np.uint16) * 65535),
        save(tmp_path / "odd.png", picture(1, (217, 181, 3))),
        nifti(tmp_path / "flat.nii", np.kron(spots, np.ones((2, 2), np.uint8)).T[::-1, :, None] * 7.0, LPS),
    ]
    told: list[str] = []
    found = list(predict_masks(run, files, tmp_path / "out", "cpu", told.append))
    assert [mask.place.name for mask in found] == ["same.png", "double.png", "odd.png", "flat.nii.gz"]
    np.testing.assert_array_equal(read_mask(found[0].place), spots)
    np.testing.assert_array_equal(read_mask(found[1].place), light(files[1]))
    assert read_mask(found[2].place).shape == (217, 181)
    np.testing.assert_array_equal(read_mask(found[3].place), light(files[3]))
    assert [mask.pixels[0] for mask in found[:2]] == [spots.sum(), 4 * spots.sum()]
    assert "3 of 4 images resized to 20 x 16 for the model; masks have the files' own sizes" in told


@pytest.mark.parametrize("image_size", [None, [40, 32]])
def test_runs_of_crops_see_images_as_they_are(tmp_path: Path, image_size: Any) -> None:
    """Unless they were resized before crops were taken: the size of a pixel is what the model knows."""
    data = pairs_folder(tmp_path / "pairs", 8, classes=3)
    run = make_run(tmp_path / "run", DataConfig(name=f"folder:{data}", image_size=image_size), crop_size=16)
    small, odd = save(tmp_path / "s.png", picture(1, (9, 50))), save(tmp_path / "o.png", picture(2, (41, 37)))
    told: list[str] = []
    found = list(predict_masks(run, [small, odd], tmp_path / "out", "cpu", told.append))
    assert [read_mask(mask.place).shape for mask in found] == [(9, 50), (41, 37)]
    assert any("resized" in message for message in told) == (image_size is not None)


@pytest.mark.usefixtures("bright")
def test_overlapping_structures(tmp_path: Path) -> None:
    for i in range(8):
        save(tmp_path / "pairs/images" / f"{i}.png", picture(i))
        for structure in ("light", "dark"):
            save(tmp_path / "pairs/masks" / structure / f"{i}.png", picture(i, top=2) * 255)
    run = make_run(tmp_path / "run", DataConfig(name=f"folder:{tmp_path / 'pairs'}"))
    image = save(tmp_path / "case.png", picture(9))
    flat = nifti(tmp_path / "flat.nii.gz", picture(9, (12, 10, 1)).astype(np.float32), LPS)
    found = list(predict_masks(run, [image, flat], tmp_path / "out", "cpu"))
    # structures are in the order of their names: "dark" is the first one
    assert found[0].place == tmp_path / "out"
    for name, truth in (("dark", light(image)), ("light", 1 - light(image))):
        np.testing.assert_array_equal(read_mask(tmp_path / "out" / name / "case.png"), truth * 255)
    assert found[0].pixels == [light(image).sum(), 120 - light(image).sum()]
    assert json.loads((tmp_path / "out" / "flat.json").read_text()) == {"volumes": ["dark", "light"]}


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_volumes_are_cut_as_the_set_was(tmp_path: Path, plane: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What an evaluation of the set's slices counts is in the slices of the volumes that are written."""
    nibabel = pytest.importorskip("nibabel")
    folder = task(tmp_path)
    run = make_run(tmp_path / "run", DataConfig(name=f"decathlon:Task09@{plane}", root=tmp_path))
    trained = load_run(run)
    split = open_data(trained.config.data).splits["train"]
    arrays, _ = evaluate(trained.model, trained.card, split, recipe=trained.config.recipe, machine=Machine())
    names = list(dict.fromkeys(split.groups or []))
    files = []
    for name in names:  # the same voxels, stored the other way round: written masks follow the file
        stored = nibabel.load(folder / "imagesTr" / f"{name}.nii.gz")
        files.append(nifti(tmp_path / "turned" / f"{name}.nii.gz", stored.get_fdata()[::-1, ::-1].astype("f4"), LPS))
    code, text, err = call(capsys, "predict", run, *files, "--output", tmp_path / "out", "--device", "cpu")
    assert code == 0, err
    axis = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    for row, name in zip(csv.DictReader(io.StringIO(text)), names, strict=True):
        found = nibabel.load(row["mask"])
        assert found.shape == (6, 7, 4)
        np.testing.assert_allclose(found.affine, LPS)
        ras = np.asarray(found.dataobj)[::-1, ::-1]
        counts = [int(part.sum()) for part in np.moveaxis(ras, axis, 0)]
        own = [i for i, group in enumerate(split.groups or []) if group == name]
        assert counts == arrays["said"][own, 0].tolist()
        assert 0 < int(row["spleen"]) == sum(counts) < 6 * 7 * 4


@pytest.mark.usefixtures("bright")
def test_slices_are_put_back_in_their_places(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    task(tmp_path, channels=2)
    bright = picture(5, (6, 7, 4), top=2)
    case = nifti(tmp_path / "case.nii.gz", np.stack([bright, bright], 3).astype(np.float32), LPS)
    for plane in ("axial", "coronal", "sagittal"):
        run = make_run(tmp_path / plane, DataConfig(name=f"decathlon:Task09@{plane}", root=tmp_path))
        (found,) = predict_masks(run, [case], tmp_path / "out" / plane, "cpu")
        np.testing.assert_array_equal(np.asarray(nibabel.load(found.place).dataobj), bright)


def test_a_run_of_volumes(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    task(tmp_path)
    run = make_run(tmp_path / "run", DataConfig(name="decathlon:Task09@3d", root=tmp_path, image_size=16))
    case = nifti(tmp_path / "case.nii", picture(5, (6, 7, 9)).astype(np.float32), LPS)
    (found,) = predict_masks(run, [case], tmp_path / "out", "cpu")
    assert nibabel.load(found.place).shape == (6, 7, 9)
    with pytest.raises(UserError, match="expected 3D, as decathlon:Task09_Spleen@3d, got 2D"):
        predict_masks(run, [save(tmp_path / "a.png", picture(1))], tmp_path / "out", "cpu")


def test_what_cannot_be_segmented_is_said_before_anything_is_written(
    run: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, out = pairs / "images" / "00.png", tmp_path / "out"
    (tmp_path / "broken.png").write_text("no image")
    (tmp_path / "notes.txt").write_text("")
    volume = nifti(tmp_path / "volume.nii", picture(1, (5, 6, 7)), AFFINE)
    other = shutil.copyfile(good, tmp_path / good.name)
    for words, message in (
        ((good, tmp_path / "gone.png", "--output", out), "gone.png: no such file"),
        ((good, pairs / "images", "--output", out), "images: a folder, not a file"),
        ((good, tmp_path / "notes.txt", "--output", out), "notes.txt: no image format"),
        ((good, tmp_path / "broken.png", "--output", out), "broken.png: no image, or its beginning is damaged"),
        ((good, volume, "--output", out), "volume.nii: expected 2D, as folder:"),
        ((volume, "--output", out), "try its slices as 2D images"),
        ((good, other, "--output", out), "expected one file name for each image"),
        ((good, "--output", good.parent, "--overwrite"), "another place than the images'"),
        ((good, "--output", tmp_path / "notes.txt"), "expected a folder to write to"),
        ((good, "--output", tmp_path / "notes.txt" / "in"), "expected a folder that can be made"),
        ((good,), "--output: expected a folder for the masks of a segmentation run"),
    ):
        code, text, err = call(capsys, "predict", run, *words)
        assert (code, text) == (2, "")
        assert message in err
        assert not out.exists()


def test_volumes_beside_images_are_refused(tmp_path: Path) -> None:
    folder = task(tmp_path)
    run = make_run(tmp_path / "run", DataConfig(name="decathlon:Task09", root=tmp_path))
    image = save(tmp_path / "a.png", picture(1, (7, 6)))
    with pytest.raises(UserError, match="not both, got 1 volumes and 1 images"):
        predict_masks(run, [image, folder / "imagesTr/spleen_0.nii.gz"], tmp_path / "out")
    assert [m.place.name for m in predict_masks(run, [image], tmp_path / "out", "cpu")] == ["a.png"]


def test_probabilities_of_a_segmentation_run_are_refused(run: Path, pairs: Path) -> None:
    with pytest.raises(UserError, match="expected a run of a task with classes, got 'segmentation', try predict_masks"):
        predict_files(run, [pairs / "images" / "00.png"])


def test_metrics_of_masks_are_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_metrics({"test": evaluate_run(run, device="cpu")})
    shown = capsys.readouterr().out
    assert "hd95 (pixels)" in shown
    assert "dice" in shown
    assert not {"accuracy", "unmasked"} & set(shown.split())
    show_metrics({"test": {"loss": 1.0, "dice": None, "dice_unmasked": 0.25, "hd95": 3.5, "hd95_unit": "mm"}})
    assert capsys.readouterr().out.split() == [
        "test",
        "loss",
        "1.0000",
        "dice",
        "dice",
        "unmasked",
        "0.2500",
        "hd95",
        "(mm)",
        "3.5000",
    ]
