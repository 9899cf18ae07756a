"""How much a change of weights or parts changed what a model computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer
from mixlab.ops.windows import per_axis

SMALL = {1: 128, 2: 64, 3: 32}
"""Size of the random images, by spatial axes: small, as one number is all that is asked for."""


def random_images(*models: MetaFormer, small: int | None = None) -> Tensor:
    """One image of noise ``(1, C, *spatial)`` that the models take, always the same: small, or of ``image_size`` where
    a part lives on its grid. The generators' state is left alone."""
    config = models[0].config
    side = SMALL[config.spatial_dims] if small is None else small
    sizes = [(side * factor,) * config.spatial_dims for factor in (1, 2, 4)]
    if config.image_size is not None:
        sizes.insert(1, per_axis(config.image_size, config.spatial_dims, "image_size"))
    for size in sizes:
        images = torch.randn(1, config.in_channels, *size, generator=torch.Generator().manual_seed(0))
        try:
            for model in models:
                output(model, images)
        except UserError as error:  # too small for the stem, or not the grid of a part
            last = error
        else:
            return images
    raise last


def output(model: MetaFormer, images: Tensor) -> list[Tensor]:
    """What the model returns in evaluation mode, logits or maps, in float64 on the CPU."""
    parameter = next(model.parameters())
    with evaluating(model), torch.no_grad():
        out = model(images.to(parameter.device, parameter.dtype))
    return [t.double().cpu() for t in (out if isinstance(out, Sequence) else [out])]


def relative_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """``|after - before| / |before|`` over all elements of all maps (0 for two zeros)."""
    square = sum((a - b).square().sum() for a, b in zip(after, before, strict=True))
    size = sum(b.square().sum() for b in before)
    if not square:
        return 0.0
    return float((square / size).sqrt()) if size else float("inf")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards every module's own mode again."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
