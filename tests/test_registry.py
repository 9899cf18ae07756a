from __future__ import annotations

import pytest

from mixlab.errors import UserError
from mixlab.mixers import MIXERS
from mixlab.registry import Part, Registry


def test_parts_from_plain_values() -> None:
    part = Part.of({"name": "pooling", "kernel_size": 5})
    assert part == Part("pooling", {"kernel_size": 5})
    assert Part.of(part.to_plain()) == part
    assert Part.of("identity").to_plain() == "identity"
    with pytest.raises(UserError, match="expected a name or a mapping"):
        Part.of(3)  # type: ignore[arg-type]


def test_unknown_names_and_options_name_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown token mixer: .*'poolin', try 'pooling'"):
        MIXERS.build("poolin", 8)
    with pytest.raises(UserError, match="'kernelsize', try 'kernel_size'"):
        MIXERS.build({"name": "pooling", "kernelsize": 3}, 8)
    with pytest.raises(UserError, match="identity has none"):
        MIXERS.build({"name": "identity", "kernel_size": 3}, 8)


def test_a_taken_name_raises_and_the_same_class_does_not() -> None:
    registry: Registry[object] = Registry("thing")

    class One: ...

    class Two: ...

    registry.register("one")(One)
    registry.register("one")(One)
    with pytest.raises(UserError, match="a free name"):
        registry.register("one")(Two)
