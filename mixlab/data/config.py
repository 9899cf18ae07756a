"""Which data, and how it is presented."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mixlab.errors import expected


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data set, and how its images are presented.

    Raises:
        UserError: a value is out of range, or two options contradict each other.
    """

    #: Fields that say where the data lie; they change no result and are not hashed.
    LOCATION_FIELDS: ClassVar[tuple[str, ...]] = ("root", "download")

    name: str = "digits"
    """Name of the data set, as `mixlab list datasets` shows them."""
    root: Path | None = None
    """Folder that holds the data files; for `folder` and `npz` where a relative path starts from, for `csv` where the
    relative paths of its images start from."""
    download: bool = False
    """Fetch a published set that is not under `root`; nothing is ever fetched without this."""
    image_size: int | list[int] | None = None
    """Size to resize to: one number, or one per axis in (D, H, W) order."""
    channels: int | None = None
    """Channels to present: 1 (grey) or 3 (RGB); by default those of the data set."""
    train_per_class: int | None = None
    """Keep this many training images of each class (low-data study); validation and test stay whole."""
    split_seed: int = 0
    """Seed of the splits, folds and subsets that are drawn here."""
    folds: int | None = None
    """Cross-validation: number of folds over training and validation cases; the test split stays as it is."""
    fold: int | None = None
    """The fold, from 0, that is the validation split."""
    instances: bool = False
    """Masks of a `folder` number their objects: every value above 0 is the object, 0 the background."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise expected("data.name", "the name of a data set", self.name, "'digits'")
        self._check_size()
        self._check_positive("channels", 1)
        self._check_positive("train_per_class", 20)
        if isinstance(self.split_seed, bool) or not isinstance(self.split_seed, int) or self.split_seed < 0:
            raise expected("data.split_seed", "an integer of at least 0", self.split_seed, "0")
        if self.folds is not None and (not isinstance(self.folds, int) or self.folds < 2):
            raise expected("data.folds", "at least 2 folds", self.folds, "5")
        if not isinstance(self.instances, bool):
            raise expected("data.instances", "true or false", self.instances, "true")
        if self.fold is not None and self.folds is None:
            raise expected("data.fold", "a number of folds next to the fold", self.fold, "folds: 5")
        if self.fold is not None and self.folds is not None and not 0 <= self.fold < self.folds:
            raise expected("data.fold", f"a fold from 0 to {self.folds - 1}", self.fold, "0")

    def _check_positive(self, name: str, example: int) -> None:
        value = getattr(self, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise expected(f"data.{name}", "an integer of at least 1, or none", value, str(example))

    def _check_size(self) -> None:
        size = self.image_size
        if size is None:
            return
        axes = [size] if isinstance(size, int) else list(size)
        if not axes or any(isinstance(a, bool) or not isinstance(a, int) or a < 1 for a in axes):
            raise expected("data.image_size", "a positive size, or one per axis in (D, H, W) order", size, "64")

    def size_for(self, spatial_dims: int) -> tuple[int, ...] | None:
        """`image_size` with one number per axis.

        Raises:
            UserError: the number of axes differs from ``spatial_dims``.
        """
        if self.image_size is None:
            return None
        if isinstance(self.image_size, int):
            return (self.image_size,) * spatial_dims
        if len(self.image_size) != spatial_dims:
            raise expected(
                "data.image_size", f"one number or {spatial_dims} (the set has {spatial_dims}D images)", self.image_size
            )
        return tuple(self.image_size)
