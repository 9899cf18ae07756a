"""Errors that a user can act on.

Every message has the form ``<where>: expected ..., got ..., try ...``. The command line prints a :class:`UserError`
without a traceback and ends with exit code 2; a library user catches it as a ``ValueError``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Input that the user gave and can mend; raised before any work starts."""


def expected(where: str, want: object, got: object, hint: str = "") -> UserError:
    """Build the error ``where: expected want, got got, try hint``; the caller raises it."""
    message = (
        f"{where}: expected {want}, got {got!r}"
        if not isinstance(got, Quoted)
        else f"{where}: expected {want}, got {got}"
    )
    return UserError(f"{message}, try {hint}" if hint else message)


class Quoted(str):
    """Text that :func:`expected` prints as it is, without quotes (a shape, a sentence)."""


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """The known names most like ``name``, best first."""
    return difflib.get_close_matches(name, sorted(known), n=limit, cutoff=0.5)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that no registry knows, with the nearest names (or all when none is near)."""
    names = sorted(known)
    close = nearest(name, names)
    hint = " or ".join(repr(n) for n in close) if close else "one of " + ", ".join(names)
    return expected(f"unknown {kind}", f"one of {len(names)} known names", name, hint)
