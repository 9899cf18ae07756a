"""Images as they are asked for (channels, size), kept in memory when there is room."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count

import numpy as np

from mixlab.data.images import Array, ImageStore
from mixlab.data.resize import SCALES, resize, set_channels
from mixlab.errors import Quoted, UserError, expected

CACHE_BYTES = 2**30
"""At most this many bytes of decoded images are kept; what does not fit is decoded again when it is read."""
NAMED_AT_MOST = 50


class PreparedImages:
    """Raw images with the channels and size that were asked for.

    Args:
        store: the images as they are stored.
        channels: channels to present.
        size: size to present, or None to leave each image at its own.
        cache_bytes: memory for decoded images.
    """

    def __init__(
        self, store: ImageStore, *, channels: int, size: tuple[int, ...] | None, cache_bytes: int | None = None
    ) -> None:
        self.store = store
        self.channels = channels
        self.size = size
        self.room = CACHE_BYTES if cache_bytes is None else cache_bytes
        self.kept: dict[int, Array] = {}
        self.digests: dict[int, str] = {}
        self.moments: dict[int, Array] = {}
        self.summed: set[int] = set()
        self.untouched = store.in_memory and all(
            s[0] == channels and (size is None or s[1:] == size) for s in set(store.shapes)
        )

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> Array:
        """Image ``(C, *spatial)`` as uint8, uint16 or float32."""
        kept = self.kept.get(index)
        return self._decode(index) if kept is None else kept

    def _decode(self, index: int) -> Array:
        image = set_channels(self.store.read(index), self.channels)
        return image if self.size is None else resize(image, self.size)

    def shape(self, index: int) -> tuple[int, ...]:
        """``(C, *spatial)`` without decoding."""
        return (self.channels, *(self.size or self.store.shapes[index][1:]))

    def load(self, indices: Iterable[int], summed: Iterable[int] = ()) -> None:
        """Decode the images once: check them, hash them, sum up the ``summed`` ones, and keep what fits.

        Raises:
            UserError: images are broken; the message names them all.
        """
        order = list(indices)
        failures: list[str] = []
        self.summed = set(summed)
        with ThreadPoolExecutor(min(4, cpu_count() or 1)) as pool:
            # results come back in order, so that what is kept does not depend on timing
            results = map(self._load_one, order) if self.store.in_memory else pool.map(self._load_one, order)
            for index, result in zip(order, results, strict=True):
                if isinstance(result, str):
                    failures.append(result)
                else:
                    self._keep(index, result)
        if failures:
            raise broken(failures, len(order))

    def _load_one(self, index: int) -> Array | str:
        """The image, or what is wrong with it."""
        try:
            image = self._decode(index)
            if image.dtype == np.float32 and not (image.min() >= 0 and image.max() <= 1):  # also true for NaN
                raise ValueError("it has float values outside [0, 1]")
            self.digests[index] = self.store.digest(index)
        except Exception as error:  # decoders raise what they like; each failure is one line of the list
            return f"{self.name(index)}: {' '.join(str(error).split()) or type(error).__name__}"
        if index in self.summed:
            self.moments[index] = moments(image)
        return image

    def _keep(self, index: int, image: Array) -> None:
        if not self.untouched and self.room >= image.nbytes:
            self.room -= image.nbytes
            self.kept[index] = image

    def name(self, index: int) -> str:
        """What a user calls the image."""
        names = getattr(self.store, "names", None)
        return str(names[index]) if names else f"image {index}"


def moments(image: Array) -> Array:
    """Pixels, sum and sum of squares of each channel on the [0, 1] scale, ``(3, C)`` float64."""
    # sums of integers are exact, in any order
    exact = np.int64 if image.dtype.kind == "u" else np.float64
    values = image.reshape(image.shape[0], -1).astype(exact)
    found = np.empty((3, len(values)))
    found[0], found[1], found[2] = values.shape[1], values.sum(axis=1), np.einsum("cn,cn->c", values, values)
    scale = SCALES[image.dtype.name]
    return found / np.array([[1.0], [scale], [scale**2]])


def broken(failures: list[str], total: int) -> UserError:
    """The error that lists broken files, one a line."""
    shown = failures[:NAMED_AT_MOST]
    more = [f"... and {len(failures) - len(shown)} more"] if len(failures) > len(shown) else []
    lines = "\n  ".join([*shown, *more])
    got = Quoted(f"{len(failures)} of {total} broken (mend or remove them):\n  {lines}")
    return expected("data", "files that can all be read", got)
