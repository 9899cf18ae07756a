"""Images in files, decoded when they are read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from PIL import UnidentifiedImageError

from mixlab.data.card import Event, event
from mixlab.data.images import Array
from mixlab.data.prepare import broken
from mixlab.data.readers import PILLOW, Header, read_header, read_image
from mixlab.errors import UserError

H = TypeVar("H")
R = TypeVar("R")


def reason_of(error: Exception, path: Path) -> str:
    """One line that says what is wrong with a file, without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "no image, or its beginning is damaged"
    text = " ".join(str(error).replace(repr(str(path)), "the file").replace(str(path), "the file").split())
    return text or type(error).__name__


def read_headers(paths: Sequence[Path], names: Sequence[str], read: Callable[[Path], object]) -> list[Header]:
    """The headers of image or mask files; see :func:`read_grids`."""
    return read_grids(paths, names, read_header, read)


def read_grids(
    paths: Sequence[Path], names: Sequence[str], header: Callable[[Path], H], read: Callable[[Path], object]
) -> list[H]:
    """The files' headers.

    Args:
        paths: the files.
        names: what a user calls them.
        header: reads a header.
        read: decodes a file; used when a header is broken, so that one list names all broken files.

    Raises:
        UserError: files are broken; the message names them all.
    """
    headers: list[H] = []
    failures: dict[int, str] = {}

    def look(number: int, reader: Callable[[Path], R]) -> list[R]:
        try:
            return [reader(paths[number])]
        except UserError:  # the reader itself is missing
            raise
        except Exception as error:  # decoders raise what they like; each failure is one line of the list
            failures[number] = f"{names[number]}: {reason_of(error, paths[number])}"
            return []

    for number in range(len(paths)):
        headers += look(number, header)
    if failures:
        for number in set(range(len(paths))) - set(failures):  # a fine header may stand before truncated pixels
            look(number, read)
        raise broken(sorted(failures.values()), len(paths))
    return headers


class FileImages:
    """Images by path; headers are looked at when it is made.

    Args:
        paths: the files.
        names: what a user calls them, in errors.

    Raises:
        UserError: files are broken; the message names them all.
    """

    in_memory = False

    def __init__(self, paths: Sequence[Path], names: Sequence[str]) -> None:
        self.paths = list(paths)
        self.names = list(names)
        headers = read_headers(self.paths, self.names, read_image)
        self.shapes: Sequence[tuple[int, ...]] = [header.shape for header in headers]
        self.spacing = [header.spacing for header in headers]
        """Millimetres from pixel to pixel, where the files say."""
        self.events = self._notes(headers)

    def _notes(self, headers: Sequence[Header]) -> list[Event]:
        counts = Counter(h.note for h in headers if h.note)
        events = [event("reading", f"{note}: {n} of {len(headers)} files") for note, n in sorted(counts.items())]
        scaled = sum(not path.name.lower().endswith(PILLOW) for path in self.paths)
        if scaled:
            message = f"intensities of {scaled} NIfTI or DICOM files scaled by their own 0.5 and 99.5 percentiles"
            events.append(event("intensity", message))
        return events

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Array:
        """The decoded file."""
        return read_image(self.paths[index])

    def digest(self, index: int) -> str:
        """SHA-256 of the file, read in blocks."""
        with self.paths[index].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
