"""Cost of a whole model for one image."""

from __future__ import annotations

from collections import Counter

from torch import nn

from mixlab.cost import Cost as ModelCost
from mixlab.cost import Size
from mixlab.metaformer import MetaFormer
from mixlab.mixers import Mixer


def model_cost(model: MetaFormer, size: Size) -> ModelCost:
    """Parameters, MACs (needed, computed, dense), other operations and activations for one image of ``size``.

    The numbers come from the parts' formulas; nothing is run. See :mod:`mixlab.cost` for what is counted.
    """
    return model.cost(size)


def added_parameters(model: nn.Module) -> dict[str, int]:
    """Numbers of parameters that extensions add to a model: ``global_tokens`` (with their projections), and those that
    mixers list in ``extensions``, such as ``relative_bias``. Empty for a model without."""
    added: Counter[str] = Counter()
    for module in model.modules():
        if isinstance(module, MetaFormer) and module.config.global_tokens:
            projections = sum(p.numel() for p in module.token_projections.parameters())
            added["global_tokens"] = module.tokens.numel() + projections
        if isinstance(module, Mixer):
            own = {name: getattr(module, name) for name in module.extensions}
            added.update({name: p.numel() for name, p in own.items() if p is not None})
    return dict(added)
