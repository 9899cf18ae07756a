"""Whether a recipe, a data set and a model go together; asked before any training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from mixlab.data.pairing import check_pairing, default_loss
from mixlab.errors import Quoted, expected
from mixlab.training.recipe import Recipe, sizes

#: Why the images of a task cannot be drawn so that classes are equally frequent.
NO_CLASS = {"segmentation": "an image with a mask has no class", "multilabel": "labels are no classes to balance"}


def check_recipe(recipe: Recipe, card: Any, model: nn.Module) -> None:
    """Refuse options that this data set or this model cannot have.

    Raises:
        UserError: a model with a decoder for images that have one class each, or one without for masks, a loss that is
            not for this data set, a balanced sampler for masks or multi-label data,
            dropout for a head that has no dropout layer, another learning rate for new parameters of a model that
            nothing was loaded into, or layer-wise rates for a network without blocks.
    """
    if getattr(model, "dense", False) and card.task != "segmentation":
        raise expected("model", f"one that classifies, as {card.task} asks for", "a dense model", "decoder: null")
    if not getattr(model, "dense", False) and card.task == "segmentation":
        hint = "--model.decoder segformer (decoder: segformer), or the baseline unet"
        raise expected(
            "model", "one that scores every pixel, as masks ask for", Quoted("a model that classifies"), hint
        )
    check_pairing(card, card.task, recipe.loss or default_loss(card), card.channels)
    if recipe.sampler == "balanced" and card.task in NO_CLASS:
        hint = "sampler: shuffle and class_weights: balanced"
        raise expected("recipe.sampler", f"shuffle, as {NO_CLASS[card.task]}", "balanced", hint)
    if recipe.layer_decay is not None and not len(getattr(model, "stages", ())):
        want = "a model with stages of blocks, which the rates follow"
        raise expected("recipe.layer_decay", want, type(model).__name__, "null")
    if recipe.new_lr_scale is not None and not getattr(model, "new_parameters", set()):
        want = "a model that starts from weights and has parameters that are not in them"
        raise expected("recipe.new_lr_scale", want, recipe.new_lr_scale, "null, or model.pretrained")
    if recipe.head_dropout is not None:
        head_dropouts(model)


def shortest(recipe: Recipe, card: Any) -> Recipe:
    """The recipe as it is written shortest for this data set, so that the same training has the same name: the default
    loss as None, equal sides of a crop as one number."""
    loss = None if recipe.loss == default_loss(card) else recipe.loss
    crop = recipe.crop_size
    if isinstance(crop, list) and len(crop) == card.spatial_dims and len(set(crop)) == 1:
        crop = crop[0]
    return replace(recipe, loss=loss, crop_size=crop)


def input_size(recipe: Recipe, card: Any) -> tuple[int, ...]:
    """Size of what the model sees in training: of the images, or of the crops from them.

    Raises:
        UserError: crops without masks, or of another number of axes, or images of several sizes without crops.
    """
    crop = sizes(recipe.crop_size, card.spatial_dims)
    if crop is not None and card.task != "segmentation":
        raise expected(
            "recipe.crop_size", "null, as a crop of an image may not have its class", recipe.crop_size, "null"
        )
    if crop is not None and len(crop) != card.spatial_dims:
        raise expected("recipe.crop_size", f"one number or {card.spatial_dims}", recipe.crop_size, "128")
    if crop is None and card.image_size is None:
        hint = "--recipe.crop_size 128 for crops and a sliding window, or --image-size 256 to resize them"
        raise expected(f"data {card.name}", "images of one size", Quoted("images of several sizes"), hint)
    return crop or card.image_size or ()


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
