"""What a segmentation study refuses, in words, before a run folder is made."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mixlab.errors import UserError
from mixlab.studies.configuration import to_plain
from mixlab.studies.grid import StudyConfig
from mixlab.studies.study import Resources, run_study
from tests.data.make import discs, picture, save
from tests.studies.mask_folders import KINDS

DENSE = {"name": "metaformer_nano", "decoder": {"name": "segformer", "width": 8}}
WHOLE = {"name": "metaformer_nano"}


def refused(out: Path, match: str, **plain: Any) -> str:
    """A study is refused with this message and leaves no run; returns the whole message."""
    values = {"mixers": ["identity"], "seeds": 1, "model": DENSE, "recipe": {"preset": "segmentation-short"}, **plain}
    quiet = Console(file=io.StringIO())
    with pytest.raises(UserError, match=match) as caught:
        run_study(StudyConfig.of(values), out, Resources(device="cpu", jobs=1, threads=1), quiet)
    assert not (out / "runs").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("plain", {"model": WHOLE}, r"expected one that scores every pixel.*try .*decoder segformer"),
        ("odd_sizes", {}, r"expected images of one size, got images of several sizes, try --recipe\.crop_size"),
        (
            "plain",
            {"recipe": {"crop_size": [8, 8, 8]}},
            r"recipe\.crop_size: expected one number or 2, got \[8, 8, 8\]",
        ),
        ("plain", {"recipe": {"loss": "bce"}}, r"loss: expected a loss for segmentation \(dice_ce or .*got 'bce'"),
        ("plain", {"recipe": {"loss": "dice_bce"}}, r"loss: expected a loss for segmentation"),
        (
            "overlapping",
            {"recipe": {"loss": "cross_entropy"}},
            r"overlapping structures \(dice_bce or .*'cross_entropy'",
        ),
        ("overlapping", {"recipe": {"loss": "dice_ce"}}, r"overlapping structures"),
        (
            "plain",
            {"recipe": {"sampler": "balanced", "class_weights": "none"}},
            r"recipe\.sampler: expected shuffle, as an image with a mask has no class",
        ),
        ("plain", {"recipe": {"head_dropout": 0.1}, "baselines": ["intensity"], "mixers": []}, r"a dropout layer"),
        ("plain", {"model": {**DENSE, "decoder": {"name": "segformers"}}}, r"decoder.*try 'segformer'"),
    ],
)
def test_what_does_not_go_together(kind: str, changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    refused(tmp_path / "out", match, data=[to_plain(KINDS[kind](tmp_path / "data"))], **changes)


def test_crops_of_images_with_one_class_each(tmp_path: Path) -> None:
    match = r"recipe\.crop_size: expected null, as a crop of an image may not have its class, got 4"
    refused(tmp_path / "out", match, data="digits", model=WHOLE, recipe={"crop_size": 4})


def test_a_decoder_for_images_with_one_class_each(tmp_path: Path) -> None:
    refused(tmp_path / "out", r"one that classifies, as classification asks for, got 'a dense model'", data="digits")


def test_several_crops_need_a_size(tmp_path: Path) -> None:
    data = [to_plain(KINDS["plain"](tmp_path / "data"))]
    match = r"recipe\.crops_per_image: expected 1 without crop_size, got 3"
    refused(tmp_path / "out", match, data=data, recipe={"crops_per_image": 3})


def missing(root: Path) -> None:
    (root / "train" / "masks" / "1.png").unlink()


def another_size(root: Path) -> None:
    save(root / "val" / "masks" / "1.png", discs(0, (16, 20)))


def a_strange_value(root: Path) -> None:
    (root / "classes.json").write_text('["background", "a", "b"]')
    save(root / "test" / "masks" / "1.png", np.full((20, 16), 9, np.uint8))


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (missing, r"image .*1 without mask"),
        (another_size, r"val/1.png: image 20 x 16, mask 16 x 20"),
        (a_strange_value, r"test/1.png: it has the value 9 outside the classes"),
    ],
)
def test_masks_that_do_not_do(spoil: Callable[[Path], None], match: str, tmp_path: Path) -> None:
    """Their messages are tested with the data; here, that a study stops at them."""
    data = KINDS["plain"](tmp_path / "data")
    spoil(tmp_path / "data")
    refused(tmp_path / "out", match, data=[to_plain(data)])


def test_all_models_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """A set of classes beside a set of masks needs models that fit each: a decoder fits the masks alone, none the
    classes alone, and either message says which data it speaks of and what to change."""
    for split in ("train", "val", "test"):
        for name in ("dark", "light"):
            for i in range(3):
                save(tmp_path / "classes" / split / name / f"{i}.png", picture(i, (20, 16)))
    mixed = [to_plain(KINDS["plain"](tmp_path / "masks")), {"name": f"folder:{tmp_path / 'classes'}"}]
    said = refused(tmp_path / "out", "a dense model", data=mixed)
    assert "identity-" in said
    assert "classes: model: expected one that classifies" in said
    assert "try decoder: null" in said
    assert "masks: model" not in said
    said = refused(tmp_path / "out", "scores every pixel", data=mixed, model=WHOLE)
    assert "masks: model: expected one that scores every pixel" in said
    assert "classes: model" not in said
    said = refused(tmp_path / "out", "scores every pixel", data=mixed, model=WHOLE, baselines=["intensity"])
    assert said.count("\n") == 1
    assert "intensity-" in said


def test_sets_that_overlap_are_checked_apart_from_those_that_do_not(tmp_path: Path) -> None:
    """Two sets of two classes and one size: what fits the one is not taken to fit the other."""
    data = [to_plain(KINDS[kind](tmp_path / kind)) for kind in ("instances", "overlapping")]
    said = refused(tmp_path / "out", "overlapping structures", data=data, recipe={"loss": "dice_ce"})
    assert said.count("expected a loss") == 1
