"""Kernels of convolutions for windows of another size."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mixlab.errors import expected


def kernels(module: nn.Module) -> Mapping[str, _ConvNd]:
    """Convolutions of a module by the key of their weights."""
    return {f"{n}.weight": m for n, m in module.named_modules() if isinstance(m, _ConvNd)}


def same_dilation(old: _ConvNd, new: _ConvNd) -> None:
    """Weights of a dilated kernel belong to other neighbours than those of a dense one.

    Raises:
        UserError: the dilations differ.
    """
    if tuple(old.dilation) != tuple(new.dilation):
        got = tuple(new.dilation)
        raise expected("init='warm' dilation", f"{tuple(old.dilation)}, as the weights have it", got, "init='random'")


def fitted(weight: Tensor, kernel: tuple[int, ...]) -> tuple[Tensor, str]:
    """A kernel ``(O, I, *k)`` for another window, both centred, and how: zeros around it, or its centre alone.

    A larger window with zeros around computes exactly the same, a smaller one does not.
    """
    former = tuple(weight.shape[2:])
    if former == kernel:
        return weight, ""
    fits = weight.new_zeros(*weight.shape[:2], *kernel)
    fits[_centre(kernel, former)] = weight[_centre(former, kernel)]
    if all(k >= f for k, f in zip(kernel, former, strict=True)):
        return fits, f"the {by(former)} kernel in the centre of {by(kernel)}, zeros around"
    kept = energy(fits, weight)
    return fits, f"the centre of the {by(former)} kernel, as {by(kernel)} ({kept:.1%} of its squared weights)"


def _centre(sizes: tuple[int, ...], others: tuple[int, ...]) -> tuple[slice, ...]:
    """The middle of a kernel ``(O, I, *sizes)`` that one of the other sizes has too."""
    common = [(size, min(size, other)) for size, other in zip(sizes, others, strict=True)]
    return (slice(None), slice(None), *(slice((n - m) // 2, (n - m) // 2 + m) for n, m in common))


def by(sizes: tuple[int, ...]) -> str:
    """``3x3``."""
    return "x".join(map(str, sizes))


def energy(part: Tensor, whole: Tensor) -> float:
    """The share that a part has of a kernel's squared weights."""
    total = whole.double().square().sum().item()
    return part.double().square().sum().item() / total if total else 1.0
