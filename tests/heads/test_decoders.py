"""What every decoder of the registry promises; a new decoder is tested by existing."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mixlab.errors import UserError
from mixlab.heads import DECODERS, Decoder
from mixlab.heads.decoder import ChannelDropout, maps_read
from mixlab.ops.resize import resized
from mixlab.registry import Part
from tests.batch_norms import in_evaluation

WIDTHS, STRIDES, CLASSES = (3, 4, 6, 5), (4, 8, 16, 32), 2
IMAGES: dict[int, list[tuple[int, ...]]] = {1: [(181,)], 2: [(181, 217), (64, 96)], 3: [(33, 45, 50)]}
MODE = {1: "linear", 2: "bilinear", 3: "trilinear"}
PARTS: list[dict[str, Any]] = [
    *({"name": name} for name in DECODERS),
    {"name": "segformer", "width": 7, "norm": "batch_norm", "act": "star_relu"},
    {"name": "fcn", "skips": 0},
    {"name": "fcn", "skips": 3},
    {"name": "unet", "channels": (5, 3, 2), "top": (3, 2), "norm": "batch_norm", "kernel_size": 1},
    {"name": "unet", "norm": None, "act": "gelu"},
]
CASES = [(part, dims, size) for part in PARTS for dims, sizes in IMAGES.items() for size in sizes]


def label(value: Any) -> str | None:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else None


def make(part: dict[str, Any], dims: int = 2) -> Decoder:
    return DECODERS.build(part, WIDTHS, [(s,) * dims for s in STRIDES], CLASSES, spatial_dims=dims)


def sizes(size: Sequence[int]) -> list[tuple[int, ...]]:
    """As strided encoders make them, rounding down and up in turn."""
    return [tuple(n // s if i % 2 else -(-n // s) for n in size) for i, s in enumerate(STRIDES)]


def maps(size: Sequence[int], batch: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(batch, w, *own, dtype=dtype) for w, own in zip(WIDTHS, sizes(size), strict=True)]


@pytest.mark.parametrize(("part", "dims", "size"), CASES, ids=label)
def test_shape_gradients_and_cost(part: dict[str, Any], dims: int, size: tuple[int, ...]) -> None:
    decoder, inputs = make(part, dims), [m.requires_grad_() for m in maps(size)]
    with FlopCounterMode(display=False) as counter:
        logits = decoder(inputs, size)
    assert logits.shape == (2, CLASSES, *size)
    logits.square().mean().backward()
    read = maps_read(Part.of(part), len(WIDTHS))
    for index, found in enumerate(inputs):
        assert (found.grad is not None and found.grad.abs().sum() > 0) == (index in read), index
    for key, parameter in decoder.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key
    cost = decoder.cost(sizes(size), size)
    assert cost.parameters == sum(p.numel() for p in decoder.parameters())
    assert counter.get_total_flops() == 2 * cost.macs_computed * len(logits)
    assert cost.macs_computed <= cost.macs_needed == cost.macs_dense
    assert cost.activations >= logits[0].numel()
    assert cost.other_ops > 0


@pytest.mark.parametrize("part", PARTS, ids=label)
def test_maps_of_the_images_size_are_not_resized(part: dict[str, Any]) -> None:
    """Stride 1 everywhere, as of some encoders for small images."""
    inputs = [torch.randn(1, w, 6, 5) for w in WIDTHS]
    decoder = make(part).eval()
    assert decoder(inputs, (6, 5)).shape == (1, CLASSES, 6, 5)
    assert decoder.cost([(6, 5)] * 4, (6, 5)).macs_computed > 0


@pytest.mark.parametrize("part", PARTS, ids=label)
def test_dtypes_and_copies(part: dict[str, Any]) -> None:
    decoder, inputs = in_evaluation(make(part)), maps((64, 96))
    want = decoder(inputs, (64, 96))
    for twin in (copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
        torch.testing.assert_close(twin(inputs, (64, 96)), want)
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.06)):
        got = copy.deepcopy(decoder).to(dtype)([m.to(dtype) for m in inputs], (64, 96))
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), want, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("part", PARTS, ids=label)
def test_fused_computes_the_same(part: dict[str, Any]) -> None:
    decoder, inputs = in_evaluation(make(part)), maps((40, 70))
    want = decoder(inputs, (40, 70))
    fused = copy.deepcopy(decoder).fuse()
    torch.testing.assert_close(fused(inputs, (40, 70)), want, atol=1e-5, rtol=1e-5)
    assert fused.cost(sizes((40, 70)), (40, 70)).parameters == sum(p.numel() for p in fused.parameters())
    if part["name"] == "unet":
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())


@pytest.mark.parametrize("name", list(DECODERS))
def test_dropout_takes_whole_channels(name: str) -> None:
    decoder, inputs = make({"name": name, "dropout": 0.5}), maps((64, 96), batch=3)
    assert [m.p for m in decoder.modules() if isinstance(m, nn.Dropout)] == [0.5]
    assert not torch.equal(decoder(inputs, (64, 96)), decoder(inputs, (64, 96)))
    decoder.eval()
    assert torch.equal(decoder(inputs, (64, 96)), decoder(inputs, (64, 96)))
    for dims in (1, 2, 3):
        dropped = ChannelDropout(0.5)(torch.ones(8, 16, *(3,) * dims)).flatten(2)
        assert set(dropped.unique().tolist()) == {0.0, 2.0}
        assert torch.equal(dropped.amin(2), dropped.amax(2))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_segformer_is_the_layer_on_the_joined_maps(dims: int) -> None:
    size = {1: (45,), 2: (45, 38), 3: (33, 36, 40)}[dims]
    decoder: Any = make({"name": "segformer", "width": 8}, dims).double().eval()
    inputs = maps(size, batch=1, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        same = [p(m) for p, m in zip(decoder.projections, inputs, strict=True)]
        first = inputs[0].shape[2:]
        same = [F.interpolate(m, size=first, mode=MODE[dims], align_corners=False) for m in same]
        joint = decoder.fusion(torch.cat(same, dim=1))
        logits = decoder.classifier(F.gelu(F.group_norm(joint, 1, decoder.norm.weight, decoder.norm.bias)))
    want = F.interpolate(logits, size=size, mode=MODE[dims], align_corners=False)
    torch.testing.assert_close(decoder(inputs, size), want)
    assert counter.get_total_flops() == 2 * decoder.cost(sizes(size), size).macs_needed


@pytest.mark.parametrize("skips", [0, 1, 2, 3])
def test_fcn_is_the_sum_of_scores(skips: int) -> None:
    decoder: Any = make({"name": "fcn", "skips": skips}).eval()
    inputs, size = maps((45, 70)), (45, 70)
    total = decoder.scores[-1](inputs[3])
    for index in range(2, 2 - skips, -1):
        total = F.interpolate(total, size=inputs[index].shape[2:], mode="bilinear", align_corners=False)
        total = total + decoder.scores[index - 3 + skips](inputs[index])
    want = F.interpolate(total, size=size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(decoder(inputs, size), want)
    assert len(decoder.scores) == skips + 1
    assert type(decoder).reads(4, skips=skips) == tuple(range(3 - skips, 4))


def test_unet_joins_each_map_on_the_way_up() -> None:
    decoder: Any = make({"name": "unet", "top": (4, 3)}).eval()
    inputs, size = maps((45, 70)), (45, 70)
    x = inputs[3]
    for level, skip in zip(decoder.levels, (inputs[2], inputs[1], inputs[0]), strict=False):
        x = torch.cat([F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False), skip], dim=1)
        for layer in level:
            x = F.conv2d(x, layer.conv.weight, padding=1)
            x = F.relu(F.group_norm(x, 1, layer.norm.weight, layer.norm.bias))
    for level, own in zip(decoder.levels[3:], ((23, 35), (45, 70)), strict=True):
        x = level(F.interpolate(x, size=own, mode="bilinear", align_corners=False))
    torch.testing.assert_close(decoder(inputs, size), decoder.classifier(x), atol=1e-5, rtol=1e-5)


def test_top_levels_of_an_axis_that_the_stem_keeps() -> None:
    decoder: Any = make({"name": "unet", "top": (4, 3)}, 3)
    assert decoder.top_sizes((9, 8, 8), (9, 32, 31)) == [(9, 16, 16), (9, 32, 31)]


def test_resizing() -> None:
    x = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    assert resized(x, (4,)) is x
    torch.testing.assert_close(resized(x, (2,)), torch.tensor([[[0.5, 2.5]]]))  # centres of areas, not corners


@pytest.mark.parametrize(
    ("part", "match"),
    [
        ({"name": "segformer", "width": 0}, "segformer width: expected at least 1"),
        ({"name": "fcn", "skips": 4}, "fcn skips: expected 0 to 3, as there are 4 maps, got 4, try 2"),
        ({"name": "unet", "channels": (8, 8)}, "3 numbers, one for each map but the last"),
        ({"name": "unet", "top": (8, 0)}, "unet top: expected positive"),
        ({"name": "unet", "kernel_size": 2}, "odd sizes"),
        ({"name": "segformer", "wide": 3}, "an option that it has, got 'wide', try 'width'"),
        ({"name": "segformr"}, "'segformer'"),
    ],
)
def test_bad_options(part: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        make(part)


@pytest.mark.parametrize("name", list(DECODERS))
def test_what_cannot_be_decoded(name: str) -> None:
    with pytest.raises(UserError, match="num_classes: expected at least 1"):
        DECODERS.build(name, WIDTHS, [(s,) for s in STRIDES], 0, spatial_dims=1)
    with pytest.raises(UserError, match="got 4 widths, 3 strides"):
        DECODERS.build(name, WIDTHS, [(4,)] * 3, 2, spatial_dims=1)
    with pytest.raises(UserError, match="4 maps, got 3"):
        make({"name": name})(maps((64, 64))[:3], (64, 64))
    with pytest.raises(UserError, match=r"expected shape \(B, 3, H, W\)"):
        make({"name": name})([torch.zeros(1, w, 4) for w in WIDTHS], (64, 64))


@pytest.mark.parametrize("name", list(DECODERS))
def test_documented(name: str) -> None:
    doc = DECODERS[name].__doc__ or ""
    assert "Source:" in doc
    assert doc.strip().split("\n\n")[0].endswith(".")
