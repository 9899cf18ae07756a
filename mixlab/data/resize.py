"""Colour and size: how a raw image becomes the image that is asked for.

* grey to RGB: the channel is repeated; RGB to grey: ITU-R 601 luma (0.299, 0.587, 0.114), as Pillow does;
* resizing: linear along each axis with antialiasing; integer images are rounded back to their integers, so that an
  image is the same whether it was kept in memory or decoded again; masks take the nearest pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from mixlab.data.images import Array

LUMA = np.array([0.299, 0.587, 0.114])
SCALES = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


def to_unit(image: Array) -> torch.Tensor:
    """The raw image as float32 tensor ``(C, *spatial)`` in [0, 1]."""
    values = np.ascontiguousarray(image, dtype=np.float32)
    scale = SCALES[image.dtype.name]
    # dividing (not multiplying by a reciprocal) makes the brightest value exactly 1
    return torch.from_numpy(values if scale != 1 else values.copy()).div_(scale)


def set_channels(image: Array, channels: int) -> Array:
    """The raw image with 1 or 3 channels; its type stays."""
    if image.shape[0] == channels:
        return image
    if image.shape[0] == 1:
        return np.repeat(image, channels, axis=0)
    grey = np.tensordot(LUMA, image.astype(np.float64), axes=1)[None]
    return _as_type(grey, image.dtype)


def resize(image: Array, size: tuple[int, ...]) -> Array:
    """The raw image ``(C, *spatial)`` at ``size``; its type stays."""
    if image.shape[1:] == size:
        return image
    x = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
    values = _linear(x, size).numpy()
    if image.dtype.kind == "f":  # rounding errors of the weights must not leave [0, 1]; what was outside stays outside
        np.clip(values, min(0.0, float(image.min())), max(1.0, float(image.max())), out=values)
    return _as_type(values, image.dtype)


def _linear(x: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Separable linear resizing of ``(C, *spatial)``; torch antialiases in 2D only, so depth is a pass of its own."""
    if len(size) == 2:
        return functional.interpolate(x[None], size=size, mode="bilinear", antialias=True)[0]
    depth, height, width = size
    c, d = x.shape[:2]
    planes = functional.interpolate(x, size=(height, width), mode="bilinear", antialias=True)
    if d == depth:
        return planes
    flat = planes.reshape(1, c, d, height * width)
    flat = functional.interpolate(flat, size=(depth, height * width), mode="bilinear", antialias=True)
    return flat.reshape(c, depth, height, width)


def resize_mask(mask: Array, size: tuple[int, ...]) -> Array:
    """The label map ``(*spatial)`` at ``size``, each pixel the nearest one's label."""
    for axis, (old, new) in enumerate(zip(mask.shape, size, strict=True)):
        if old != new:
            take = np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.int64), old - 1)
            mask = np.take(mask, take, axis=axis)
    return mask


def _as_type(values: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind != "u":
        return values.astype(dtype)
    return np.clip(np.rint(values), 0, np.iinfo(dtype).max).astype(dtype)
