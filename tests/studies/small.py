"""A study small enough for tests: two classes of 12 px images in a folder, an epoch in a fraction of a second."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from mixlab.studies.grid import StudyConfig
from mixlab.studies.run_folder import RunFolder, run_folders
from mixlab.studies.study import Resources, StudyResult, run_study

FAULTS = str(Path(__file__).with_name("fault_mixers.py"))
#: Random everywhere: dropout, drop path, augmentation.
MODEL = {"name": "metaformer_nano", "drop_path_rate": 0.2, "dropout": 0.1}
RECIPE = {"preset": "short", "epochs": 3, "batch_size": 6, "warmup_epochs": 1}


def make_images(folder: Path, *, seed: int = 0) -> Path:
    """``folder/{train,val,test}/{dark,light}/N.png``."""
    draw = np.random.default_rng(seed)
    for split, count in (("train", 9), ("val", 7), ("test", 5)):
        for level, name in ((105, "dark"), (125, "light")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(draw.normal(level, 60, (12, 12)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def study(images: Path, mixers: list[Any], **plain: Any) -> StudyConfig:
    """A study of the mixers on ``images``, of one seed."""
    values = {"mixers": mixers, "seeds": 1, "model": MODEL, "recipe": RECIPE, "data": f"folder:{images}"}
    return StudyConfig.of({**values, "imports": [FAULTS], **plain})


def train(config: StudyConfig, out: Path, **resources: Any) -> tuple[StudyResult, str]:
    """Run a study; returns its result and what was printed."""
    text = io.StringIO()
    console = Console(file=text, width=200)
    given = {"device": "cpu", "jobs": 2, "threads": 1, **resources}
    return run_study(config, out, Resources(**given), console), text.getvalue()


def runs_by_label(out: Path) -> dict[str, RunFolder]:
    """The run folders of a study of one seed."""
    return {run.config()["label"].partition("-")[0]: run for run in run_folders(out)}
