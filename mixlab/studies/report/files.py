"""Writing a file so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from mixlab.errors import expected


def write_atomic(path: Path, text: str) -> Path:
    """Write ``text`` to ``path`` by a temporary file in the same folder.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise expected(str(path), "a folder that can be written to", str(error), "another folder") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise expected(str(path), "a folder with space that can be written to", str(error), "another folder") from error
    return path
