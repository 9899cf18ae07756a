"""Segmentation runs on folders that the tests write: what a run folder says of itself is so."""

from __future__ import annotations

import dataclasses
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from mixlab.data import DataConfig, open_data
from mixlab.heads import DECODERS
from mixlab.studies.evaluation import evaluate_run, load_run
from mixlab.studies.mask_examples import PIXELS, SPREAD
from mixlab.studies.plan import make_plan
from mixlab.studies.run import train_run
from mixlab.studies.run_config import RunConfig
from mixlab.studies.run_folder import RunFolder
from mixlab.studies.statistics import Outcome, rank
from mixlab.studies.study import Resources, run_single
from mixlab.studies.user_files import import_files
from mixlab.training.machine import Machine
from mixlab.training.mask_scores import MaskScores
from mixlab.training.segment import segment
from tests.data.make import Array, nifti
from tests.studies.mask_folders import KINDS, nothing
from tests.studies.small import FAULTS, runs_by_label, study, train

SMALL = {"name": "segformer", "width": 8}
RECIPE = {"preset": "segmentation-short", "epochs": 2, "warmup_epochs": 0, "batch_size": 2, "flips": True}
#: So that two epochs predict something.
RECIPE |= {"class_weights": "balanced", "learning_rate": 1e-2}


def config(data: DataConfig, mixer: Any = "pooling", *, decoder: Any = SMALL, **recipe: Any) -> RunConfig:
    model = {"name": "metaformer_nano", "token_mixer": mixer, "decoder": decoder, "mlp_ratio": 1}
    made = RunConfig.of({"model": model, "recipe": {**RECIPE, **recipe}, "precision": "32-true"})
    return dataclasses.replace(made, data=data)


def trained(run: RunConfig, out: Path) -> RunFolder:
    """The folder of a run that was trained in this process."""
    import_files(run.imports)
    (planned,) = make_plan([run], out, "cpu").runs
    planned.folder.create(planned.config.to_plain(planned.fingerprint), run.imports)
    threads = torch.get_num_threads()
    train_run(planned, Machine())
    torch.set_num_threads(threads)
    assert planned.folder.state() == "finished"
    return planned.folder


def predictions(folder: RunFolder, split: str = "test") -> dict[str, Array]:
    with np.load(folder.path / f"predictions_{split}.npz") as file:
        return dict(file)


def dice(true: Array, said: Array, hit: Array) -> tuple[Array, float | None]:
    """Dice of each case and structure, and their mean, by the rule of empty structures."""
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        each = 2 * hit / (true + said)
        mean = float(np.nanmean(np.nanmean(each, axis=0)))
    return each, None if np.isnan(mean) else mean


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_says_what_its_predictions_say(kind: str, tmp_path: Path) -> None:
    data = KINDS[kind](tmp_path / "data")
    run = config(data, crop_size=96 if kind == "odd_sizes" else None, epochs=4 if kind == "sixteen_bits" else 2)
    folder = trained(run, tmp_path / "out")
    images, summary = open_data(data), folder.summary()
    assert summary is not None
    for split in ("val", "test"):
        cases, found, told = images.splits[split], predictions(folder, split), summary[split]
        assert found["ids"].tolist() == cases.ids
        counts = cases.targets.counts()
        assert found["true"].tolist() == (counts if images.card.overlapping else counts[:, 1:]).tolist()
        assert (found["hit"] <= np.minimum(found["said"], found["true"])).all()
        each, mean = dice(found["true"], found["said"], found["hit"])
        assert told["dice"] == pytest.approx(mean)
        assert told["cases_without"] == np.isnan(each).sum(0).tolist()
        if kind == "ignored":
            assert told["dice_unmasked"] == pytest.approx(dice(found["true"], found["said_unmasked"], found["hit"])[1])
            assert (found["said_unmasked"] >= found["said"]).all()
        assert found["hd95"].shape == found["true"].shape
        np.testing.assert_array_equal(np.isnan(found["hd95"]), np.isnan(each))
        assert told["hd95_unit"] == "pixels"
    assert predictions(folder, "val")["hit"].any(), "a training that learns nothing would test little"
    line = folder.metrics()[summary["best_epoch"] - 1]
    assert line["val/dice"] == summary["val"]["dice"]
    assert line["val/loss"] == pytest.approx(summary["val"]["loss"])
    again = evaluate_run(folder.path, "test", device="cpu")
    assert {name: again[name] for name in summary["test"]} == summary["test"]
    check_examples(folder, data)
    if kind == "empty_test":
        assert not predictions(folder)["true"].any()
        assert summary["test"]["dice"] in (None, 0.0)
        assert "RuntimeWarning" not in folder.log_tail()


def check_examples(folder: RunFolder, data: DataConfig) -> None:
    """``examples.npz`` holds cases, truth and prediction; of images that were not made smaller, pixel by pixel."""
    run = load_run(folder.path)
    split, card = open_data(data).splits["test"], run.card
    with np.load(folder.path / "examples.npz") as file:
        found = dict(file)
    assert found.keys() == {"images", "truth", "said", "sizes", "kept", "ids"}
    assert len(split) < SPREAD, "all cases are kept"
    assert found["ids"].tolist() == split.ids
    assert set(found["kept"]) == {"spread"}
    masks = dict(segment(run.model, card, split, recipe=run.config.recipe))
    large = tuple(max(min(size[axis], PIXELS) for size in split.sizes) for axis in (0, 1))
    assert found["images"].shape == (len(split), *large, *((3,) if card.channels == 3 else ()))
    planes = (len(card.classes),) if card.overlapping else ()
    assert found["truth"].shape == found["said"].shape == (len(split), *planes, *large)
    for i, (height, width) in enumerate(found["sizes"]):
        image, truth, _ = split[i]
        shrink = max(1.0, max(split.sizes[i]) / PIXELS)
        assert [height, width] == [round(n / shrink) for n in split.sizes[i]]
        if shrink > 1:
            share = (found["truth"][i] > 0).sum() / (truth > 0).sum() * shrink**2
            assert share == pytest.approx(1, rel=0.05)
            continue
        corner = (..., slice(height), slice(width))
        np.testing.assert_array_equal(found["truth"][i][corner], truth.numpy())
        np.testing.assert_array_equal(found["said"][i][corner], masks[i])
        shown = (image * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
        np.testing.assert_array_equal(found["images"][i], shown if card.channels == 3 else shown[..., 0])


@pytest.mark.parametrize(
    ("mixer", "decoder"),
    [
        ("pooling", "fcn"),
        ("sep_conv", "unet"),
        ({"name": "local_attention", "kernel_size": 3}, {"name": "segformer", "width": 8, "dropout": 0.1}),
        ("attention", "fcn"),
        ([{"name": "pooling"}, {"name": "identity"}], "unet"),
    ],
)
def test_mixers_and_decoders(mixer: Any, decoder: Any, tmp_path: Path) -> None:
    """Frozen encoders, layer-wise rates, dropout of the decoder, moving averages and double precision among them."""
    data = KINDS["plain"](tmp_path / "data")
    options: dict[str, Any] = {"layer_decay": 0.7, "ema_decay": 0.9}
    if isinstance(decoder, dict):
        options = {"freeze_backbone": True, "head_dropout": 0.3, "crop_size": [16, 8], "class_weights": "balanced"}
    run = config(data, mixer, decoder=decoder, **options)
    if mixer == "attention":
        run = dataclasses.replace(run, precision="64-true")
    folder = trained(run, tmp_path / "out")
    summary = folder.summary()
    assert summary is not None
    assert summary["test"]["dice"] == pytest.approx(
        dice(**{k: predictions(folder)[k] for k in ("true", "said", "hit")})[1]
    )
    assert evaluate_run(folder.path, device="cpu")["dice"] == summary["test"]["dice"]
    frozen = [event["message"] for event in summary["events"] if "frozen" in event["message"]]
    assert bool(frozen) == ("freeze_backbone" in options)


def test_every_decoder_is_tried_here() -> None:
    tried = test_mixers_and_decoders.pytestmark[0].args[1]
    assert {decoder if isinstance(decoder, str) else decoder["name"] for _, decoder in tried} == set(DECODERS)


def test_volumes(tmp_path: Path) -> None:
    """Distances are in millimetres, and of a volume the example is the slice with most of the structure."""
    affine = np.diag([0.5, 1.0, 3.0, 1])
    for i in range(6):
        volume = np.random.default_rng(i).random((9, 10, 8)).astype(np.float32)
        mask = np.zeros(volume.shape, np.uint8)
        mask[2:6, 3:7, 5] = 1  # stored as (x, y, z)
        nifti(tmp_path / "data" / "images" / f"{i}.nii.gz", volume + mask, affine)
        nifti(tmp_path / "data" / "masks" / f"{i}.nii.gz", mask, affine)
    data = DataConfig(name=f"folder:{tmp_path / 'data'}")
    folder = trained(config(data, crop_size=8), tmp_path / "out")
    summary = folder.summary()
    assert summary is not None
    assert summary["test"]["hd95_unit"] == "mm"
    with np.load(folder.path / "examples.npz") as file:
        assert (file["truth"] > 0).sum() == 16
        assert file["truth"].shape == (1, 10, 9)
    assert evaluate_run(folder.path, device="cpu")["hd95"] == summary["test"]["hd95"]


def test_an_evaluation_masks_pixels_that_only_the_other_set_ignores(tmp_path: Path) -> None:
    """A run of a set that ignores nothing, on a set of the same classes that does."""
    whole = KINDS["ignored"](tmp_path / "ignoring")
    data = KINDS["plain"](tmp_path / "data")
    (tmp_path / "data" / "classes.json").write_text(json.dumps({"background": 0, "a": 1, "b": 2}))
    folder = trained(config(data), tmp_path / "out")
    found = evaluate_run(folder.path, "test", {"name": whole.name}, device="cpu")
    assert "dice_unmasked" in found
    run = load_run(folder.path)
    split = open_data(whole).splits["test"]
    masks = segment(run.model, run.card, split, recipe=run.config.recipe)
    truths = np.stack(list(split.targets))
    said = np.stack([np.where(truth == 255, 0, mask) for (_, mask), truth in zip(masks, truths, strict=True)])
    counts = [[(x == k).sum((1, 2)) for k in (1, 2)] for x in (truths, said, np.where(truths == said, said, 0))]
    assert found["dice"] == pytest.approx(dice(*(np.array(c).T for c in counts))[1])


def test_a_mixer_that_diverges_is_recorded(tmp_path: Path) -> None:
    """Beside one that does not, in child processes."""
    data = KINDS["plain"](tmp_path / "data")
    model = {"name": "metaformer_nano", "decoder": SMALL}
    grid = study(
        tmp_path, ["identity", {"name": "test_diverge", "after": 1}], data=[vars(data)], model=model, recipe=RECIPE
    )
    result, text = train(grid, tmp_path / "out")
    assert result.states == {"finished": 1, "diverged": 1}, text
    runs = runs_by_label(tmp_path / "out")
    assert runs["test_diverge"].status()["diverged"]["tensor"] in ("loss", "validation output")
    assert "dice" in runs["identity"].status()["best"]
    assert predictions(runs["identity"])["ids"].tolist() == ["test/0.png", "test/1.png", "test/2.png"]


def test_a_set_without_any_structure(tmp_path: Path) -> None:
    """Where nothing is said either, no Dice is defined: no ranking, and a note that says why."""
    grid = study(
        tmp_path, [], baselines=["intensity"], data=[vars(nothing(tmp_path / "data"))], model={}, recipe=RECIPE
    )
    result, text = train(grid, tmp_path / "out")
    assert result.states == {"finished": 1}, text
    folder = runs_by_label(tmp_path / "out")["intensity"]
    summary = folder.summary() or {}
    assert (summary["test"]["dice"], summary["val"]["dice"], summary["best_epoch"]) == (None, None, 1)
    found = predictions(folder)
    ranking = rank([Outcome("intensity", 0, {"test": MaskScores.of(found, found["ids"].tolist())})], "dice")
    assert ranking.rows == ()
    assert ranking.notes == ("intensity, seed 0: dice is defined in no test case, left out of the ranking",)


class Killed(BaseException):
    """As ``kill -9``: nothing catches it."""


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops of images of several sizes, flips, affine maps, dropout; killed in the middle of the second epoch."""
    data = KINDS["plain"](tmp_path / "data")
    marker = tmp_path / "marker"
    mixer = {"name": "test_kill", "marker": str(marker)}
    run = config(data, "pooling", decoder={**SMALL, "dropout": 0.2}, epochs=3, crop_size=16, crops_per_image=2)
    run = dataclasses.replace(run, model=dataclasses.replace(run.model, token_mixer=mixer), imports=[FAULTS])
    whole = trained(run, tmp_path / "whole")

    def die(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr("os.kill", die)
    marker.write_text("6")  # an epoch has four batches
    with pytest.raises(Killed):
        trained(run, tmp_path / "killed")
    (path,) = (tmp_path / "killed" / "runs").iterdir()
    assert RunFolder(path).status()["epoch"] == 1
    killed = trained(run, tmp_path / "killed")
    assert killed.path == path
    for name in ("predictions_val.npz", "predictions_test.npz", "examples.npz"):
        with np.load(whole.path / name) as a, np.load(killed.path / name) as b:
            assert {key: a[key].tobytes() for key in a} == {key: b[key].tobytes() for key in b}
    lines = [[{**line, "seconds": 0} for line in folder.metrics()] for folder in (whole, killed)]
    assert lines[0] == lines[1]
    weights = [torch.load(f.checkpoints / "last.ckpt", weights_only=True)["state_dict"] for f in (whole, killed)]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_a_single_run_in_its_own_process(tmp_path: Path) -> None:
    """The same numbers as in this process."""
    run = config(KINDS["overlapping"](tmp_path / "data"), crop_size=[16, 12])
    quiet = Console(file=io.StringIO())
    result, planned = run_single(run, tmp_path / "child", Resources(device="cpu", jobs=1, threads=1), quiet)
    assert result.states == {"finished": 1}
    here = trained(run, tmp_path / "here")
    assert (planned.folder.summary() or {})["test"] == (here.summary() or {})["test"]
