"""Images in files, decoded when they are read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import UnidentifiedImageError

from mixlab.data.card import Event, event
from mixlab.data.images import Array
from mixlab.data.prepare import broken
from mixlab.data.readers import PILLOW, Header, read_header, read_image
from mixlab.errors import UserError


def reason_of(error: Exception, path: Path) -> str:
    """One line that says what is wrong with a file, without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "no image, or its beginning is damaged"
    text = " ".join(str(error).replace(repr(str(path)), "the file").replace(str(path), "the file").split())
    return text or type(error).__name__


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
        headers: list[Header] = []
        failures: list[str] = []
        for number, path in enumerate(self.paths):
            try:
                headers.append(read_header(path))
            except UserError:  # the reader itself is missing
                raise
            except Exception as error:  # decoders raise what they like; each failure is one line of the list
                failures.append(self._fault(number, error))
        if failures:
            self._find_more(failures)
            raise broken(failures, len(self.paths))
        self.shapes: Sequence[tuple[int, ...]] = [header.shape for header in headers]
        self.events = self._notes(headers)

    def _fault(self, number: int, error: Exception) -> str:
        return f"{self.names[number]}: {reason_of(error, self.paths[number])}"

    def _find_more(self, failures: list[str]) -> None:
        """Files whose header is fine may be truncated: decode them too, so that one list names all."""
        known = {line.partition(": ")[0] for line in failures}
        for number, name in enumerate(self.names):
            if name not in known:
                try:
                    read_image(self.paths[number])
                except Exception as error:  # as above
                    failures.append(self._fault(number, error))
        failures.sort()

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
