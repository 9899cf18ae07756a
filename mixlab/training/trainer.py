"""Lightning's trainer as it is used here: it prints nothing and writes nothing by itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import Dataset

from mixlab.training.loaders import eval_loader
from mixlab.training.machine import Machine
from mixlab.training.task import ImageTask


def run_batches(task: ImageTask, split: Dataset[Any], machine: Machine) -> list[Any]:
    """What ``task.predict_step`` gives for each batch of a split."""
    with quiet_lightning():
        trainer = make_trainer(machine, enable_checkpointing=False)
        return trainer.predict(task.eval(), eval_loader(split, task.recipe, machine)) or []


def make_trainer(machine: Machine, **options: Any) -> pl.Trainer:
    """A Lightning trainer that prints nothing and writes nothing by itself."""
    return pl.Trainer(
        accelerator="gpu" if machine.device == "cuda" else machine.device,
        devices=1,
        precision=machine.precision,  # type: ignore[arg-type]
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **options,
    )


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice (number of workers, tips, modules in evaluation mode); errors still come through."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=r".*in eval mode at the start of training.*")
            yield
    finally:
        logger.setLevel(level)
