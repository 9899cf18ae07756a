"""Runs in child processes: what one does never touches another."""

from __future__ import annotations

import errno
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mixlab.errors import UserError
from mixlab.ops import local_attention_native as native
from mixlab.studies import plan
from mixlab.studies.run_folder import RunFolder, open_run, run_folders
from tests.studies.small import FAULTS, runs_by_label, study, train


@pytest.fixture(scope="module")
def faulty(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("faulty")
    mixers = ["test_crash", "identity", "test_error", "test_diverge", "test_no_cost", "local_attention"]
    result, text = train(study(images, mixers), out)
    assert result.states == {"failed": 2, "finished": 3, "diverged": 1}
    assert result.failed == 2
    return out, text


def test_a_crash_is_that_runs_own(faulty: tuple[Path, str]) -> None:
    runs = runs_by_label(faulty[0])
    crash, error = runs["test_crash"].status(), runs["test_error"].status()
    assert "signal 11" in crash["message"]
    assert "Segmentation fault" in crash["log_tail"]
    assert error["message"] == "ValueError: the mixer's own error"
    assert "fault_mixers.py" in error["log_tail"]
    assert "failed: ValueError: the mixer's own error" in faulty[1]


def test_divergence_is_a_result(faulty: tuple[Path, str]) -> None:
    status = runs_by_label(faulty[0])["test_diverge"].status()
    assert status["state"] == "diverged"
    # nano applies the mixer in five blocks, each with its own count; three batches an epoch.
    assert (status["diverged"]["step"], status["diverged"]["epoch"], status["diverged"]["tensor"]) == (3, 2, "loss")
    assert status["diverged"]["best"] == status["best"] == {"epoch": 1, "macro_f1": status["best"]["macro_f1"]}


def test_a_finished_run_folder_is_complete(faulty: tuple[Path, str]) -> None:
    run = runs_by_label(faulty[0])["identity"]
    summary, config, environment = run.summary(), run.config(), run.environment()
    assert summary is not None
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3]
    assert summary["test"]["confusion"]
    assert len(summary["test"]["per_class_recall"]) == 2
    assert summary["parameters"] > 100_000
    assert summary["macs"] == summary["macs_needed"] > 0
    assert summary["peak_memory_mb"] > 100
    assert config["precision"] == environment["precision"] == "32-true"
    assert environment["threads"] == 1
    assert config["imports"][0]["file"] == "fault_mixers.py"
    assert (run.imports / "fault_mixers.py").read_text() == Path(FAULTS).read_text()
    card = json.loads((run.path / "data_card.json").read_text())
    assert len(card["fingerprint"]) == 64
    for split, count in (("val", 14), ("test", 10)):
        with np.load(run.path / f"predictions_{split}.npz") as arrays:
            assert arrays["probabilities"].shape == (count, 2)
            assert arrays["ids"].shape == arrays["targets"].shape == (count,)
    with np.load(run.path / "examples.npz") as arrays:
        assert arrays["images"].shape == (10, 12, 12)
        assert arrays["images"].dtype == np.uint8
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_what_computed_local_attention_is_recorded(faulty: tuple[Path, str]) -> None:
    runs = runs_by_label(faulty[0])
    found = runs["local_attention"].environment()["local_attention"]
    assert {entry["problem"].partition(",")[0] for entry in found} == {"6 x 6", "3 x 3", "2 x 2", "1 x 1"}
    assert {entry["asked"] for entry in found} == {"auto"}
    by = {entry["problem"].partition(",")[0]: entry for entry in found}
    kernel = "native" if native.unavailable() is None else "pure"
    assert by["6 x 6"]["computed_by"].startswith(kernel)
    for size in ("2 x 2", "1 x 1"):  # the window holds all pairs
        assert by[size]["computed_by"] == "pure, dense"
        assert by[size]["not"]["native"]
    assert all(entry["because"] for entry in found)
    assert runs["identity"].environment()["local_attention"] == []
    assert runs["test_diverge"].environment()["local_attention"] == []


def test_a_mixer_without_cost_is_trained_and_recorded(faulty: tuple[Path, str]) -> None:
    summary = runs_by_label(faulty[0])["test_no_cost"].summary()
    assert summary is not None
    assert summary["macs"] is None
    assert any(event["kind"] == "cost" for event in summary["events"])


def test_a_kernel_larger_than_the_grid_is_recorded(images: Path, tmp_path: Path) -> None:
    train(study(images, ["pooling"], kernel_sizes=[5], recipe={"epochs": 1}), tmp_path)
    summary = runs_by_label(tmp_path)["pooling"].summary()
    assert summary is not None
    messages = [event["message"] for event in summary["events"] if event["kind"] == "kernel"]
    assert "the kernel (5) is larger than the grid (3 x 3) of stage 2" in messages


def test_a_frozen_backbone_is_told_and_recorded(images: Path, tmp_path: Path) -> None:
    _, text = train(study(images, ["identity"], recipe={"epochs": 1, "freeze_backbone": True}), tmp_path)
    summary = runs_by_label(tmp_path)["identity"].summary()
    assert summary is not None
    assert "note: the backbone is frozen at its random initialisation: no weights were loaded" in text
    assert {"kind": "recipe", "message": plan.FROZEN} in summary["events"]


def test_only_what_is_missing_is_trained(faulty: tuple[Path, str], images: Path) -> None:
    out = faulty[0]
    before = runs_by_label(out)["identity"].status()
    result, text = train(study(images, ["identity", "test_diverge"]), out)
    assert (result.trained, result.states) == (0, {"finished": 1, "diverged": 1})
    assert "all 2 runs are finished already" in text
    assert runs_by_label(out)["identity"].status() == before


def test_a_run_is_used_again_under_another_label(images: Path, tmp_path: Path) -> None:
    train(study(images, ["identity"], stages=["TTTT"], recipe={"epochs": 1}), tmp_path)
    result, _ = train(study(images, ["identity"], stages=["TTTT", "PPTT"], recipe={"epochs": 1}), tmp_path)
    assert (result.trained, result.states) == (1, {"finished": 2})
    runs = list(both_labels(tmp_path))
    assert sorted(label for label, _ in runs) == ["identity-PPTT", "identity-TTTT"]
    assert all(label == summary for label, summary in runs)


def both_labels(out: Path) -> Iterator[tuple[str, str]]:
    """The label of each run's configuration and of its summary."""
    for run in run_folders(out):
        summary = run.summary()
        assert summary is not None
        yield run.config()["label"], summary["label"]


def test_the_same_cell_twice_is_trained_once_and_told(images: Path, tmp_path: Path) -> None:
    images = shutil.copytree(images, tmp_path / "images")
    (images / "test" / "dark" / "notes.txt").write_text("")
    result, text = train(study(images, ["identity", "identity"], recipe={"epochs": 1}), tmp_path)
    assert result.trained == 1
    assert text.count("data: not read as images") == 1
    assert "appears twice in the grid" in text


def test_a_run_that_another_process_trains_is_waited_for(images: Path, tmp_path: Path) -> None:
    config = study(images, ["identity"], recipe={"epochs": 1})
    cell = plan.make_plan(config.runs(), tmp_path, "cpu").runs[0]
    cell.folder.create(cell.config.to_plain(cell.fingerprint))
    texts: list[str] = []
    with cell.folder.lock():
        thread = threading.Thread(target=lambda: texts.append(train(config, tmp_path)[1]))
        thread.start()
        time.sleep(6)
        assert thread.is_alive()
        assert cell.folder.summary() is None
    thread.join(60)
    assert "waiting, another process trains it" in texts[0]
    assert cell.folder.state() == "finished"


def test_bad_models_are_all_named_before_training(images: Path, tmp_path: Path) -> None:
    mixers = ["identity", {"name": "attention", "head_dim": 7}, {"name": "pooling", "kernel_size": 4}]
    with pytest.raises(UserError) as caught:
        train(study(images, mixers), tmp_path)
    message = str(caught.value)
    assert "attention-head_dim=7" in message
    assert "pooling-k4" in message
    assert not (tmp_path / "runs").exists()


def test_an_output_folder_that_cannot_be_made_is_an_error(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="output folder: expected a folder that can be written"):
        train(study(images, ["identity"]), tmp_path / "file" / "out")


def test_a_full_disk_is_an_error_before_training(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 2**20})()
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="free space"):
        train(study(images, ["identity"]), tmp_path)


def test_a_status_that_cannot_be_written_ends_no_study(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(folder: RunFolder, state: str, **values: object) -> None:
        if state != "pending":
            raise OSError(errno.ENOSPC, "No space left on device")

    config = study(images, ["test_crash"], recipe={"epochs": 1})
    monkeypatch.setattr(RunFolder, "set_status", full)
    result, _ = train(config, tmp_path)
    assert result.failed == 1
    assert "failed, which could not be written: No space left on device" in capsys.readouterr().err


def test_a_mixer_that_cannot_take_the_images_is_named(images: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"test_type: expected a model that takes images of 12 x 12, got object of type"
    ):
        train(study(images, ["test_type"], imports=[str(typed(tmp_path))]), tmp_path / "out")


def typed(folder: Path) -> Path:
    """A mixer whose forward pass raises a TypeError."""
    (file := folder / "typed.py").write_text(
        "import mixlab\n\n\n@mixlab.register_mixer('test_type')\nclass Typed(mixlab.Mixer):\n"
        "    def forward(self, x):\n        return len(3)\n"
    )
    return file


def test_imports_that_fail_are_errors(images: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("1 / 0\n")
    with pytest.raises(UserError, match=r"import bad\.py: expected a file that runs, got ZeroDivisionError"):
        train(study(images, ["identity"], imports=[str(bad)]), tmp_path / "out")
    with pytest.raises(UserError, match="a Python file"):
        train(study(images, ["identity"], imports=[str(tmp_path / "none.py")]), tmp_path / "out")


def test_what_is_no_run_and_no_study_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run folder: expected a folder with a config\.yaml"):
        open_run(tmp_path)
