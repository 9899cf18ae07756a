"""Masks of image files by a finished segmentation run, in the files' own geometry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mixlab.data.loose_files import FilesToSegment, files_to_segment
from mixlab.data.mask_writing import check_places, count_pixels, mask_files, mask_place
from mixlab.errors import Quoted, expected
from mixlab.studies.evaluation import TrainedRun, load_run, machine_for, presented_as
from mixlab.training.files import write_atomically
from mixlab.training.machine import Machine


@dataclass(frozen=True)
class WrittenMask:
    """A mask that was written: of which image, where, and the pixels of each structure."""

    image: Path
    place: Path
    """The mask file; of overlapping structures the folder that has a folder for each."""
    pixels: list[int]


def predict_masks(
    path: Path,
    files: Sequence[Path],
    folder: Path,
    device: str = "auto",
    tell: Callable[[str], object] = lambda message: None,
    *,
    overwrite: bool = False,
) -> Iterator[WrittenMask]:
    """Segment image files with a run's best weights; see :mod:`mixlab.data.mask_writing` for what is written.

    The model sees the images as in its training: resized if that had images of one size, at their own size by a sliding
    window if it had crops of images that were not resized. Each mask has the pixels of its own file. Everything is
    checked at once; each mask is computed and written when it is asked for.

    Args:
        path: the folder of a segmentation run.
        files: image files.
        folder: where the masks go; made if it is absent.
        device: where to compute.
        tell: called with each sentence that the user should know.
        overwrite: replace masks that exist.

    Raises:
        UserError: a run of another task; files that are missing, cannot be read, are of other dimensions; masks that
            exist or would share a name; a folder that cannot be written.
    """
    run = load_run(path)
    if run.card.task != "segmentation":
        raise expected(f"run {run.folder.name}", "a segmentation run", run.card.task, "no masks of it")
    check_places(files, folder, run.card, overwrite=overwrite)
    cases = files_to_segment(files, presented_as(run))
    machine, events = machine_for(run, device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise expected("masks", "a folder that can be made", Quoted(f"{folder} ({error.strerror})")) from None
    if not os.access(folder, os.W_OK):
        raise expected("masks", "a folder that can be written", str(folder), "another --output")
    for message in dict.fromkeys(event["message"] for event in [*cases.events, *events]):
        tell(message)
    return _masks(run, files, folder, cases, machine)


def _masks(
    run: TrainedRun, files: Sequence[Path], folder: Path, cases: FilesToSegment, machine: Machine
) -> Iterator[WrittenMask]:
    from mixlab.training.segment import segment

    found = segment(run.model, run.card, cases.split, recipe=run.config.recipe, machine=machine, sizes=cases.sizes)
    for file, count in zip(files, cases.counts, strict=True):
        mask = cases.join([part for _, part in islice(found, count)])
        for target, content in mask_files(file, mask, folder, run.card).items():
            target.parent.mkdir(exist_ok=True)
            write_atomically(target, lambda out, content=content: out.write(content))  # type: ignore[misc]
        yield WrittenMask(file, mask_place(file, folder, run.card), count_pixels(mask, run.card))
