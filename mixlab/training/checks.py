"""Whether a recipe, a data set and a model go together; asked before any training."""

from __future__ import annotations

from typing import Any

from torch import nn

from mixlab.errors import expected
from mixlab.training.recipe import Recipe


def check_recipe(recipe: Recipe, card: Any, model: nn.Module) -> None:
    """Refuse options that this data set or this model cannot have.

    Raises:
        UserError: a balanced sampler for multi-label data, or dropout for a head that has no dropout layer.
    """
    if recipe.sampler == "balanced" and card.task == "multilabel":
        hint = "sampler: shuffle and class_weights: balanced"
        raise expected("recipe.sampler", "shuffle, as labels are no classes to balance", "balanced", hint)
    if recipe.head_dropout is not None:
        head_dropouts(model)


def head_dropouts(model: nn.Module) -> list[nn.Dropout]:
    """The dropout layers of the model's head.

    Raises:
        UserError: it has none.
    """
    head = model.head
    layers = [m for m in head.modules() if isinstance(m, nn.Dropout)] if isinstance(head, nn.Module) else []
    if not layers:
        raise expected("recipe.head_dropout", "a model whose head has a dropout layer", type(head).__name__, "null")
    return layers
