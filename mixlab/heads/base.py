"""The contract of classification heads."""

from __future__ import annotations

from torch import Tensor, nn

from mixlab.cost import Cost, Size
from mixlab.registry import Registry


class Head(nn.Module):
    """From the last map ``(B, dim, *spatial)`` to logits ``(B, num_classes)``, or to pooled features ``(B, dim)`` for 0
    classes.

    Constructor: ``Head(dim, num_classes, *, spatial_dims=2, **own_options)``.
    """

    def reset(self, num_classes: int) -> None:
        """A new classifier for ``num_classes`` (0: none)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def cost(self, size: Size) -> Cost:
        """Cost for one map of ``size``."""
        raise NotImplementedError


HEADS: Registry[Head] = Registry("head", "mixlab.heads")
