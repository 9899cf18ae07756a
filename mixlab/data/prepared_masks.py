"""Masks as they are asked for (size), kept in memory when there is room."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mixlab.data import prepare
from mixlab.data.images import Array
from mixlab.data.masks import MaskStore, count
from mixlab.data.resize import resize_mask
from mixlab.errors import Quoted, UserError, expected


class PreparedMasks:
    """Stored masks at the size that was asked for; each pixel takes the label of the nearest one.

    Args:
        store: the masks as they are stored.
        size: size to present, or None to leave each mask at its own.
        classes: number of classes or structures.
        overlapping: whether masks are ``(K, *spatial)`` of 0 and 1.
        ignore: the value of pixels that count for nothing, or None.
        ids: what a user calls the cases.
    """

    def __init__(
        self,
        store: MaskStore,
        *,
        size: tuple[int, ...] | None,
        classes: int,
        overlapping: bool = False,
        ignore: int | None = None,
        ids: Sequence[str] = (),
    ) -> None:
        self.store = store
        self.size = size
        self.classes = classes
        self.overlapping = overlapping
        self.ignore = ignore
        self.ids = ids
        self.room = prepare.CACHE_BYTES
        self.kept: dict[int, Array] = {}
        self.digests: dict[int, str] = {}
        self.counts: dict[int, Array] = {}
        """Pixels of each class in each presented mask, ``(K,)`` int64."""
        self.ignored: dict[int, int] = {}
        """Pixels to be ignored in each presented mask."""

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> Array:
        """Mask ``(*spatial)`` or ``(K, *spatial)``."""
        kept = self.kept.get(index)
        return self._sized(self.store.read(index)) if kept is None else kept

    def _sized(self, mask: Array) -> Array:
        if self.size is None:
            return np.ascontiguousarray(mask)
        if self.overlapping:
            return np.stack([resize_mask(plane, self.size) for plane in mask])
        return resize_mask(mask, self.size)

    def load(self, indices: Iterable[int]) -> None:
        """Decode the masks once: check them, hash them, count their pixels, and keep what fits.

        Raises:
            UserError: masks cannot be read or have values that are no class; the message names them all.
        """
        order = list(indices)
        failures = []
        with ThreadPoolExecutor(min(4, cpu_count() or 1)) as pool:
            for index, result in zip(order, pool.map(self._load_one, order), strict=True):
                if isinstance(result, str):
                    failures.append(result)
                elif self.room >= result.nbytes:
                    self.room -= result.nbytes
                    self.kept[index] = result
        if failures:
            raise bad_masks(failures, len(order))

    def _load_one(self, index: int) -> Array | str:
        """The presented mask, or what is wrong with it."""
        try:
            stored = self.store.read(index)
            # the stored mask is checked, not the presented one: a smaller size could hide a wrong pixel
            count(stored, self.classes, overlapping=self.overlapping, ignore=self.ignore)
            self.digests[index] = self.store.digest(stored)
        except Exception as error:  # decoders raise what they like; each failure is one line of the list
            name = self.ids[index] if self.ids else f"mask {index}"
            return f"{name}: {' '.join(str(error).split()) or type(error).__name__}"
        mask = self._sized(stored)
        self.counts[index], self.ignored[index] = count(
            mask, self.classes, overlapping=self.overlapping, ignore=self.ignore
        )
        return mask


def bad_masks(failures: list[str], total: int) -> UserError:
    """The error that lists masks, one a line."""
    shown = failures[: prepare.NAMED_AT_MOST]
    more = [f"... and {len(failures) - len(shown)} more"] if len(failures) > len(shown) else []
    got = Quoted(f"{len(failures)} of {total} at fault:\n  " + "\n  ".join([*shown, *more]))
    return expected("data, masks", "masks that can be read and hold nothing but classes", got)


class SplitMasks(Sequence[Array]):
    """The masks of one split, decoded when they are looked at; a slice is a list."""

    def __init__(self, masks: PreparedMasks, indices: NDArray[np.int64]) -> None:
        self.masks = masks
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Array: ...

    @overload
    def __getitem__(self, index: slice) -> list[Array]: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.masks[int(i)] for i in self.indices[index]]
        return self.masks[int(self.indices[index])]

    def __iter__(self) -> Iterator[Array]:
        return (self.masks[int(i)] for i in self.indices)

    def counts(self) -> NDArray[np.int64]:
        """Pixels of each class in each case, ``(N, K)``, without decoding."""
        return np.array([self.masks.counts[int(i)] for i in self.indices], dtype=np.int64)

    def ignored(self) -> NDArray[np.int64]:
        """Pixels to be ignored in each case, ``(N,)``, without decoding."""
        return np.array([self.masks.ignored[int(i)] for i in self.indices], dtype=np.int64)
