"""What an architecture is: a configuration, what its paper says of it, and the names its repository uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mixlab.metaformer import MetaFormerConfig
from mixlab.registry import Registry

ARCHITECTURES: Registry[MetaFormerConfig] = Registry("model", "mixlab.architectures")
"""Callables without arguments that return a configuration; published ones are :class:`Architecture`."""
register_architecture = ARCHITECTURES.register

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the authors say of a model, for ImageNet-1K."""

    paper: str
    """``arXiv:2111.11418``."""
    repository: str
    """``sail-sg/poolformer``."""
    parameters: float | None = None
    """Millions, as printed in the paper."""
    macs: float | None = None
    """Thousand millions, for one image of ``image_size``, as printed in the paper."""
    top1: float | None = None
    """Top-1 accuracy in per cent, trained on ImageNet-1K alone, without distillation."""
    image_size: int = 224
    """Height and width of the images that the figures hold for."""
    crop: float = 0.9
    """Part of the image that evaluation crops from its centre."""
    note: str = ""
    """More figures, in words."""


def same_shape(key: str, shape: Shape) -> Shape:
    """Shapes as they are."""
    return shape


def no_constants(config: MetaFormerConfig) -> dict[str, Tensor]:
    """No entries beside the parameters."""
    return {}


@dataclass(frozen=True, kw_only=True)
class OfficialNames:
    """How a repository names the state of a model."""

    table: Callable[[MetaFormerConfig], dict[str, str]]
    """For one configuration: our prefix to theirs, e.g. ``stages.1.blocks.0.norm1`` to ``network.2.0.norm1``. The
    longest prefix of a key decides."""
    shape: Callable[[str, Shape], Shape] = same_shape
    """Official shape of an entry, from its official key and our shape; both hold the numbers in the same order."""
    constants: Callable[[MetaFormerConfig], dict[str, Tensor]] = no_constants
    """Official entries that follow from the configuration and that our models do not store. A file must hold
    those of the published configuration."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model that was published, or a relative of one."""

    make: Callable[[], MetaFormerConfig]
    published: Published | None = None
    names: OfficialNames | None = None

    def __call__(self) -> MetaFormerConfig:
        return self.make()


def publish(
    name: str,
    make: Callable[[], MetaFormerConfig],
    *,
    published: Published | None = None,
    names: OfficialNames | None = None,
) -> None:
    """Register an architecture under a name that is free."""
    assert name not in ARCHITECTURES.registered, f"two architectures are called {name}"
    register_architecture(name)(Architecture(make=make, published=published, names=names))


def published(name: str) -> Published | None:
    """What was published of a model; None for one of our own, or a user's."""
    return getattr(ARCHITECTURES[name], "published", None)


def official_names(name: str) -> OfficialNames | None:
    """The repository's names for a model; None for one that was not published."""
    return getattr(ARCHITECTURES[name], "names", None)
