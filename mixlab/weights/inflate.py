"""A 2D model's weights for a 3D model of the same configuration.

``centre``: a 2D kernel lies in the middle slice of the 3D one, zeros before and behind: on a volume whose slices are
all the same the 3D model computes what the 2D one does on a slice. ``mean``: each slice has the 2D kernel divided by
their number: the same away from the first and last slices, where zeros outside the volume count. Matrices over channels
need no change; pooling and attention have no weights along depth. TransNeXt's attention counts its keys, and RMT's
whole form adds a decay along depth: there the report's measured change says how far apart the two are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mixlab.errors import Quoted, UserError, expected, unknown
from mixlab.metaformer import MetaFormer
from mixlab.metaformer.config import MetaFormerConfig
from mixlab.mixers.aggregated_attention import AggregatedAttention
from mixlab.mixers.grid_mixer import GridMixer
from mixlab.weights.change import SMALL, output, random_images, relative_change
from mixlab.weights.report import LoadReport

WAYS = ("centre", "mean")


def inflate(
    model: MetaFormer, how: str = "centre", *, image_size: Any = None, fresh: Mapping[str, str] | None = None
) -> tuple[MetaFormer, LoadReport]:
    """A 3D model from a 2D one.

    Args:
        model: the 2D model; it stays as it is.
        how: ``centre`` or ``mean``, see :mod:`mixlab.weights.inflate`.
        image_size: of the volumes, an int or one per axis ``(D, H, W)``; needed where ``model.config.image_size`` has
            two axes.
        fresh: keys that keep their start in the 3D model, such as a classifier that was not loaded, and why.

    Returns:
        The 3D model, in the 2D one's mode, device and dtype, and a report of every entry with the measured change of
        the output: of the 3D model on a volume of equal slices against the 2D model on one of them.

    Raises:
        UserError: another way, a model that is not 2D, options with two axes, or a part that no rule inflates.
    """
    config = model.config
    size: int | tuple[int, ...] | None = config.image_size if image_size is None else image_size
    size = tuple(size) if isinstance(size, list) else size
    if isinstance(size, tuple) and len(size) != 3:
        raise expected("inflate image_size", "an int or three, (D, H, W)", size, "the size of your volumes")
    volume = dataclasses.replace(config, spatial_dims=3, image_size=size)
    inflated, report = inflate_into(volume, model, how, fresh)
    inflated.events.append({"kind": "weights", "message": report.summary()})
    return inflated, report


def inflate_into(
    config: MetaFormerConfig, model: MetaFormer, how: str, fresh: Mapping[str, str] | None = None
) -> tuple[MetaFormer, LoadReport]:
    """As :func:`inflate`, for a 3D configuration whose windows may differ along depth, e.g. ``(1, 3, 3)``."""
    check_inflate(how)
    if model.config.spatial_dims != 2:
        raise expected("inflate", "a 2D model", Quoted(f"spatial_dims={model.config.spatial_dims}"))
    somewhere = next(model.parameters())
    volume = MetaFormer(config).to(somewhere.device, somewhere.dtype).train(model.training)
    own, given = volume.state_dict(), model.state_dict()
    report = LoadReport("the 2D model")
    filled = dict(own)
    for key, value in own.items():
        if fresh and key in fresh:
            report.new[key] = report.dropped[key] = fresh[key]
        elif given[key].shape == value.shape:
            filled[key] = given[key]
            report.kept[key] = value.numel()
        else:
            filled[key], report.adapted[key] = _inflated(key, given[key], value, (model, volume), how)
    report.check(own, given)
    volume.load_state_dict(filled)
    volume.new_parameters = set(model.new_parameters)
    volume.events = [e for e in model.events if e["kind"] == "weights"] + volume.events
    _measure(report, model, volume)
    return volume, report


def check_inflate(how: str) -> str:
    """The name itself, or a UserError."""
    if how not in WAYS:
        raise unknown("inflate", str(how), WAYS)
    return how


def _inflated(
    key: str, given: Tensor, value: Tensor, models: tuple[MetaFormer, MetaFormer], how: str
) -> tuple[Tensor, str]:
    """The 3D entry from the 2D one, and how it was made; by the part that owns it."""
    prefix, _, name = key.rpartition(".")
    owner = models[1].get_submodule(prefix)
    if isinstance(owner, _ConvNd) and given.shape[:2] == value.shape[:2] and given.shape[2:] == value.shape[3:]:
        return inflated_kernel(given, value.shape[2], how), f"{how}: 2D kernel to {value.shape[2]} slices"
    if key.endswith("position.embedding"):
        return _position(given, value)
    if isinstance(owner, nn.Linear) and given.shape[1] == 2 and value.shape[1] == 3:
        zero = torch.zeros_like(given[:, :1])  # coordinates are in (D, H, W) order
        return torch.cat([zero, given], dim=1), "a column of zeros for depth"
    rule = _window_rule(owner, name, given, value, how)
    if rule is not None:
        return rule
    grids = _grid(models[0], prefix), _grid(models[1], prefix)
    if grids[0] and grids[1][1:] == grids[0]:
        return _matrix(given, grids[1][0], how)
    where = f" on grids {grids[0]}, {grids[1]}" if grids[0] else ""
    got = Quoted(f"{tuple(given.shape)} for {tuple(value.shape)}{where}")
    hint = "image_size=(D, H, W) with the 2D model's H and W" if where else "another part"
    raise expected(f"inflate {key}", "an entry that a rule of mixlab.weights.inflate covers", got, hint)


def _grid(model: MetaFormer, prefix: str) -> tuple[int, ...]:
    """The grid of the mixer that owns a matrix over positions, itself or through a linear layer."""
    for name in (prefix, prefix.rpartition(".")[0]):
        module = model.get_submodule(name)
        if isinstance(module, GridMixer):
            return module.grid_size
    return ()


def inflated_kernel(weight: Tensor, depth: int, how: str) -> Tensor:
    """A kernel ``(O, I, h, w)`` as ``(O, I, depth, h, w)``.

    The middle of an even depth is the slice before its centre: with a stride of that depth it always lies inside.
    """
    if how == "mean":
        return (weight / depth).unsqueeze(2).repeat_interleave(depth, dim=2)
    inflated = weight.new_zeros(*weight.shape[:2], depth, *weight.shape[2:])
    inflated[:, :, (depth - 1) // 2] = weight
    return inflated


def _position(given: Tensor, value: Tensor) -> tuple[Tensor, str]:
    """A position embedding ``(1, C, H, W)`` in every slice."""
    depth, *size = value.shape[2:]
    said = f"the same in each of {depth} slices"
    if tuple(given.shape[2:]) != tuple(size):
        said = f"bilinear from a grid of {tuple(given.shape[2:])} to {tuple(size)}, {said}"
        given = F.interpolate(given, size=tuple(size), mode="bilinear", align_corners=False)
    return given.unsqueeze(2).repeat_interleave(depth, dim=2), said


def _matrix(given: Tensor, depth: int, how: str) -> tuple[Tensor, str]:
    """A matrix over the positions of a slice, for ``depth`` slices: within each, or from the mean of all."""
    if how == "mean":
        ones = torch.full((depth, depth), 1 / depth, dtype=given.dtype, device=given.device)
        return torch.kron(ones, given), f"mean: from all {depth} slices alike"
    eye = torch.eye(depth, dtype=given.dtype, device=given.device)
    return torch.kron(eye, given), f"centre: within each of {depth} slices"


def _window_rule(owner: nn.Module, name: str, given: Tensor, value: Tensor, how: str) -> tuple[Tensor, str] | None:
    """Entries that have one number for each offset of the window: local attention's on several axes, aggregated
    attention's on the last one."""
    if name == "relative_bias" and given.shape[1:] == value.shape[2:]:
        depth = value.shape[1]
        return given.unsqueeze(1).repeat_interleave(depth, dim=1), f"the same in each of {depth} slices"
    if not isinstance(owner, AggregatedAttention):
        return None
    depth, *plane = owner.kernel_size
    rows = given.unflatten(-1, tuple(plane)).flatten(0, -3).unsqueeze(1)  # (heads · ..., 1, h, w)
    if name == "relative_pos_bias_local":  # scores before the softmax: no sum to keep
        return rows.repeat_interleave(depth, dim=1).reshape(value.shape), f"the same in each of {depth} slices"
    if name in ("learnable_tokens", "learnable_bias"):  # weights after the softmax, like a kernel's
        return inflated_kernel(rows, depth, how).reshape(value.shape), f"{how}: 2D window to {depth} slices"
    return None


def _measure(report: LoadReport, flat: MetaFormer, volume: MetaFormer) -> None:
    """How far the 3D model on equal slices is from the 2D model on one."""
    try:
        images = random_images(flat, small=SMALL[3])
        depth = SMALL[3] if images.shape[2] == SMALL[3] else _depth(volume.config.image_size, images.shape[2])
        before = output(flat, images)
        after = output(volume, images.unsqueeze(2).repeat_interleave(depth, dim=2))
    except UserError as error:  # a grid of other height or width
        report.notes.append(f"the change of the output was not measured: {error}")
        return
    if after[0].ndim == 5:  # maps, compared slice by slice
        before = [b.unsqueeze(2).expand_as(a) for a, b in zip(after, before, strict=True)]
    report.output_change = relative_change(before, after)
    shape = "x".join(map(str, images.shape[2:]))
    report.notes.append(
        f"on a volume of {depth} equal slices of {shape} the output differs by {report.output_change:.3g} of its size"
    )


def _depth(size: Any, otherwise: int) -> int:
    """Slices of a volume of ``image_size``."""
    if size is None:
        return otherwise
    return int(size if isinstance(size, int) else size[0])
