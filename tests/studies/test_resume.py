"""A killed study goes on where it was, to the same bits; whoever is killed, and wherever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixlab.studies.configuration import dump_yaml, load_yaml
from mixlab.studies.grid import StudyConfig
from mixlab.studies.run_folder import RunFolder
from tests.studies.small import FAULTS, MODEL, RECIPE, runs_by_label, study, train

# nano applies the mixer five times a batch; an epoch has three batches. Passes of its first block are counted.
PLACES = {"first epoch": 2, "middle epoch": 5, "last epoch": 8}


def mixer(marker: Path) -> dict[str, Any]:
    return {"name": "test_kill", "marker": str(marker)}


def assert_same_results(one: RunFolder, other: RunFolder) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (torch.load(run.checkpoints / name, weights_only=True) for run in (one, other))
        keys = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "model")
        torch.testing.assert_close({k: a.get(k) for k in keys}, {k: b.get(k) for k in keys}, rtol=0, atol=0)
    for split in ("val", "test"):
        a, b = (np.load(run.path / f"predictions_{split}.npz") for run in (one, other))
        for key in ("ids", "targets", "probabilities"):
            assert a[key].tobytes() == b[key].tobytes()
    summaries = [run.summary() or {} for run in (one, other)]
    assert summaries[0]["test"] == summaries[1]["test"]
    lines = [[{**line, "seconds": 0} for line in run.metrics()] for run in (one, other)]
    assert lines[0] == lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_runs_go_on_to_the_same_bits(images: Path, tmp_path: Path, workers: int) -> None:
    """The run's process is killed in the first, then in the middle, then in the last epoch, of one and the same run."""
    marker = tmp_path / "marker"
    config = study(images, [mixer(marker)])
    train(config, tmp_path / "whole")
    out = tmp_path / "killed"
    for number in PLACES.values():
        # Passes are counted from the start of the process, that is from the epoch that is resumed.
        done = (runs_by_label(out)["test_kill"].status()["epoch"] if out.exists() else 0) * 3
        marker.write_text(str(number - done))
        result, text = train(config, out, workers=workers)
        assert result.states == {"failed": 1}
        assert "signal 9" in text
    result, _ = train(config, out, workers=workers)
    assert result.states == {"finished": 1}
    assert_same_results(runs_by_label(out)["test_kill"], runs_by_label(tmp_path / "whole")["test_kill"])


def start(file: Path, out: Path) -> subprocess.Popen[str]:
    """``mixlab study run`` in a process group of its own, as a shell starts it."""
    command = [sys.executable, "-m", "mixlab.cli", "study", "run", str(file), "--out", str(out)]
    command += ["--jobs", "1", "--threads", "1"]
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it, and hands that on
    try:
        return subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, before)


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def slow_study(images: Path, tmp_path: Path) -> Path:
    """A study file whose epochs take about a second."""
    plain = {"name": "slow", "mixers": ["test_slow"], "seeds": 1, "model": MODEL, "data": f"folder:{images}"}
    plain |= {"imports": [FAULTS], "recipe": {**RECIPE, "epochs": 4}}
    file = tmp_path / "slow.yaml"
    file.write_text(dump_yaml(plain))
    return file


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes in /proc")
def test_kill_9_of_the_study_ends_its_children_and_the_next_call_goes_on(slow_study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    parent = start(slow_study, out)
    wait_for(lambda: any(len(p.read_text().splitlines()) >= 2 for p in out.glob("runs/*/metrics.jsonl")))
    run = runs_by_label(out)["test_slow"]
    child = run.status()["pid"]
    assert run.state() == "running"
    parent.kill()
    parent.communicate()
    wait_for(lambda: not alive(child), 20)
    assert run.state() == "interrupted"
    config = StudyConfig.of(load_yaml(slow_study))
    result, _ = train(config, out)
    assert (result.trained, result.states) == (1, {"finished": 1})
    train(config, tmp_path / "whole")
    assert_same_results(run, runs_by_label(tmp_path / "whole")["test_slow"])


@pytest.mark.slow
def test_ctrl_c_saves_the_state_and_exits_with_130(slow_study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    parent = start(slow_study, out)
    wait_for(lambda: any(out.glob("runs/*/checkpoints/last.ckpt")))
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert "Traceback" not in errors
    assert "the same command goes on" in errors
    assert runs_by_label(out)["test_slow"].status()["state"] == "interrupted"
    train(StudyConfig.of(load_yaml(slow_study)), out)
    assert [line["epoch"] for line in runs_by_label(out)["test_slow"].metrics()] == [1, 2, 3, 4]


@pytest.mark.slow
def test_one_changed_image_makes_another_run(tmp_path: Path) -> None:
    from PIL import Image

    from tests.studies.small import make_images

    images = make_images(tmp_path / "images")
    config = study(images, ["identity"], recipe={"epochs": 1})
    first, _ = train(config, tmp_path / "out")
    assert train(config, tmp_path / "out")[0].trained == 0
    picture = images / "train" / "dark" / "0.png"
    Image.open(picture).point(lambda v: v + 1).save(picture)
    second, _ = train(config, tmp_path / "out")
    assert (first.trained, second.trained) == (1, 1)
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2
