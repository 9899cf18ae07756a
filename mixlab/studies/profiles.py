"""Profiles of a study file: the same questions at several budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixlab.errors import Quoted, expected, unknown
from mixlab.studies.configuration import merge


def with_profile(plain: Mapping[str, Any], profile: str | None, where: str = "study") -> dict[str, Any]:
    """A study's values with those of one of its ``profiles`` over them.

    Lists replace lists, mappings are merged key by key, a mapping goes into every item of a list of mappings
    (``data: {image_size: 28}``), and null takes a value back. The profile's name becomes part of the study's, so that
    each has a folder of its own.

    Args:
        plain: content of a study file.
        profile: name of a profile; needed where the file has any.
        where: the file, for messages.

    Raises:
        UserError: no such profile, or none named where the file has some.
    """
    values = dict(plain)
    profiles = values.pop("profiles", None)
    if profiles is None:
        if profile is not None:
            raise expected(f"{where}, profile", "a study file with profiles", profile, "without --profile")
        return values
    if not isinstance(profiles, Mapping) or not all(isinstance(v, Mapping | None) for v in profiles.values()):
        raise expected(f"{where}, profiles", "a mapping of names to what they change", Quoted(type(profiles).__name__))
    if profile is None:
        hint = f"--profile {next(reversed(profiles), 'smoke')}"
        raise expected(where, f"a profile, one of {', '.join(map(str, profiles))}", Quoted("none"), hint)
    if profile not in profiles:
        raise unknown(f"profile of {where}", profile, profiles)
    name = values.get("name", "study")
    merged = {**merge(values, profiles[profile] or {}), "name": f"{name}-{profile}", "profile": profile}
    return {key: value for key, value in merged.items() if value is not None}
