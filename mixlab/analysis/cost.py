"""Cost of a whole model for one image."""

from __future__ import annotations

from mixlab.cost import Cost as ModelCost
from mixlab.cost import Size
from mixlab.metaformer import MetaFormer


def model_cost(model: MetaFormer, size: Size) -> ModelCost:
    """Parameters, MACs (needed, computed, dense), other operations and activations for one image of ``size``.

    The numbers come from the parts' formulas; nothing is run. See :mod:`mixlab.cost` for what is counted.
    """
    return model.cost(size)
