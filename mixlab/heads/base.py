"""The contract of classification heads."""

from __future__ import annotations

from torch import Tensor, nn

from mixlab.cost import Cost, Size
from mixlab.errors import expected
from mixlab.registry import Registry

POOLS = ("avg", "max", "none")


def check_pool(pool: str, num_classes: int) -> str:
    """The kind of pooling itself, or a UserError for one that there is not or that a classifier cannot follow."""
    if pool not in POOLS:
        raise expected("head pool", "'avg', 'max' or 'none'", pool)
    if pool == "none" and num_classes:
        raise expected("head pool", f"'avg' or 'max' for {num_classes} classes", pool, "num_classes=0 for the map")
    return pool


def pooled(x: Tensor, kind: str) -> Tensor:
    """``(B, C, *spatial)`` to its mean or maximum over positions ``(B, C, 1, ...)``; ``none``: the map itself."""
    if kind == "none":
        return x
    axes = tuple(range(2, x.ndim))
    return x.mean(axes, keepdim=True) if kind == "avg" else x.amax(axes, keepdim=True)


class Head(nn.Module):
    """From the last map ``(B, dim, *spatial)`` to logits ``(B, num_classes)``, or to pooled features for 0 classes.

    Constructor: ``Head(dim, num_classes, *, spatial_dims=2, pool="avg", dropout=0.0, **own_options)``. ``forward`` is
    what stays for 0 classes, :meth:`pre_logits`, and the classifier after it. A head keeps ``pool`` as an attribute,
    reads it in every call through :func:`pooled`, and calls :func:`check_pool` in ``reset``.
    """

    pool: str = "avg"
    """How positions become one: ``avg``, ``max``, or ``none`` (0 classes only: the map with the head's norm)."""

    def reset(self, num_classes: int) -> None:
        """A new classifier for ``num_classes`` (0: none)."""
        raise NotImplementedError

    def pre_logits(self, x: Tensor) -> Tensor:
        """Pooled features ``(B, features)``; with ``pool="none"`` a map."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def cost(self, size: Size) -> Cost:
        """Cost for one map of ``size``."""
        raise NotImplementedError


HEADS: Registry[Head] = Registry("head", "mixlab.heads")
