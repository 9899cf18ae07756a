"""Classification of volumes by the same code path as of images: from files to a finished run with predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixlab.data import DataConfig, open_data
from mixlab.studies.evaluation import evaluate_run, predict_files
from mixlab.studies.grid import StudyConfig
from tests.data.make import Array, medmnist_arrays, nifti, save_npz
from tests.studies.small import runs_by_label, train

RECIPE = {"preset": "short", "epochs": 1, "batch_size": 4, "warmup_epochs": 0}


def ball(seed: int, radius: float, size: tuple[int, int, int]) -> Array:
    """A bright ball in noise, (x, y, z)."""
    draw = np.random.default_rng(seed)
    axes = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in size)]
    inside = sum(axis**2 for axis in axes) < radius**2
    return (inside + draw.normal(0, 0.1, size)).astype(np.float32)


def volumes(root: Path, *, size: tuple[int, int, int] = (10, 12, 14)) -> Path:
    """``root/{train,val,test}/{large,small}/N.nii.gz``."""
    seed = 0
    for split, count in (("train", 5), ("val", 3), ("test", 3)):
        for name, radius in (("large", 0.9), ("small", 0.4)):
            for i in range(count):
                nifti(root / split / name / f"{i}.nii.gz", ball(seed, radius, size))
                seed += 1
    return root


def study_of(data: dict[str, Any], mixers: list[Any]) -> StudyConfig:
    return StudyConfig.of(
        {
            "mixers": mixers,
            "seeds": 1,
            "model": {"name": "metaformer_nano"},
            "recipe": RECIPE,
            "data": data,
            "precision": "32-true",
        }
    )


@pytest.mark.slow
def test_a_folder_of_nifti_volumes(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    folder = volumes(tmp_path / "volumes")
    card = open_data(DataConfig(name=f"folder:{folder}")).card
    assert (card.spatial_dims, card.image_size, card.classes) == (3, (14, 12, 10), ("large", "small"))
    mixers = [["pooling", {"name": "local_attention", "kernel_size": [1, 3, 3]}]]  # one after the other
    result, said = train(study_of({"name": f"folder:{folder}"}, mixers), tmp_path / "out")
    assert not result.failed, said
    (run,) = runs_by_label(tmp_path / "out").values()
    summary = run.summary()
    assert summary is not None
    assert summary["epochs"] == 1
    assert summary["macs_needed"] > 0
    assert len(np.load(run.path / "predictions_test.npz")["ids"]) == 6
    assert evaluate_run(run.path, "test")["cases"] == 6
    classes, found = predict_files(run.path, sorted((folder / "test").rglob("*.nii.gz")))
    assert classes == ("large", "small")
    assert found.shape == (6, 2)


@pytest.mark.slow
def test_nodulemnist3d(tmp_path: Path) -> None:
    arrays = medmnist_arrays({"train": 8, "val": 4, "test": 4}, size=(28, 28, 28))
    save_npz(tmp_path / "nodulemnist3d.npz", arrays)
    data = {"name": "medmnist:nodulemnist3d", "root": str(tmp_path), "image_size": 14}
    result, said = train(study_of(data, ["sep_conv"]), tmp_path / "out")
    assert not result.failed, said
    (run,) = runs_by_label(tmp_path / "out").values()
    assert run.config()["model"]["name"] == "metaformer_nano"
    assert len(np.load(run.path / "predictions_test.npz")["ids"]) == 4
