"""A killed and resumed training equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.children import MASK_STEPS, STEPS, train_child

CONTEXT: Any = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["mixlab.training.fit", "torchmetrics.functional.classification", "monai.losses", "monai.inferers.utils"]
)

# Killed in a batch of the first, a middle and the last epoch, and between validation and checkpoint of the same.
PLACES = {
    "first epoch": (2, None),
    "middle epoch": (STEPS + 3, None),
    "last epoch": (3 * STEPS + 1, None),
    "before the first checkpoint": (None, 1),
    "before a middle checkpoint": (None, 2),
    "before the last checkpoint": (None, 4),
}


def run_child(
    folder: Path, workers: int, kill_batch: int | None = None, kill_epoch: int | None = None, *, masks: bool = False
) -> int:
    folder.mkdir(exist_ok=True)
    child = CONTEXT.Process(target=train_child, args=(folder, workers, kill_batch, kill_epoch, masks))
    child.start()
    child.join()
    assert child.exitcode is not None
    return int(child.exitcode)


def results(folder: Path) -> dict[str, Any]:
    """Everything that must agree, as one nested structure."""
    last = torch.load(folder / "last.ckpt", weights_only=True)
    best = torch.load(folder / "best.ckpt", weights_only=True)
    keys = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "callbacks")
    return {
        "last": {key: last[key] for key in keys},
        "best": best,
        "test": torch.load(folder / "test.pt", weights_only=True),
    }


def assert_same(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run_child(folder, workers=0) == 0
    return folder


def test_number_of_workers_changes_nothing(uninterrupted: Path, tmp_path: Path) -> None:
    assert run_child(tmp_path, workers=2) == 0
    assert_same(results(tmp_path), results(uninterrupted))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("place", PLACES)
def test_killed_anywhere_and_resumed(uninterrupted: Path, tmp_path: Path, place: str, workers: int) -> None:
    batch, epoch = PLACES[place]
    assert run_child(tmp_path, workers, kill_batch=batch, kill_epoch=epoch) == -9
    assert run_child(tmp_path, workers) == 0
    assert_same(results(tmp_path), results(uninterrupted))
    reference = json.loads((uninterrupted / "records.json").read_text())
    resumed = json.loads((tmp_path / "records.json").read_text())
    for got, want in zip(reversed(resumed), reversed(reference), strict=False):
        assert {**got, "seconds": 0} == {**want, "seconds": 0}


def test_masks_with_crops_killed_and_resumed(tmp_path: Path) -> None:
    """Crops of images of several sizes, flips, affine maps, dropout, drop path, a moving average. Killed in the first
    epoch, then in the middle of the next, then before the last checkpoint, with workers and without."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_child(whole, workers=0, masks=True) == 0
    for workers, (batch, epoch) in enumerate(((3, None), (MASK_STEPS + 2, None), (None, 3))):
        assert run_child(killed, workers, kill_batch=batch, kill_epoch=epoch, masks=True) == -9
    assert run_child(killed, workers=0, masks=True) == 0
    assert_same(results(killed), results(whole))
    last = [json.loads((folder / "records.json").read_text())[-1] for folder in (killed, whole)]
    assert {**last[0], "seconds": 0} == {**last[1], "seconds": 0}
    assert 0 < last[1]["val/dice"] < 1


def test_finished_training_is_not_trained_again(uninterrupted: Path, tmp_path: Path) -> None:
    before = (uninterrupted / "last.ckpt").stat().st_mtime_ns
    assert run_child(uninterrupted, workers=0) == 0
    assert (uninterrupted / "last.ckpt").stat().st_mtime_ns == before
