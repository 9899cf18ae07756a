"""3D models from 2D weights: on equal slices they compute what the 2D model does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab import create_model
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer
from mixlab.mixers import MIXERS
from mixlab.ops.convs import CONVS
from mixlab.weights import inflate
from mixlab.weights.inflate import inflated_kernel
from tests.weights.test_swap import assert_accounted, nano, part

# Cosines are scaled with the logarithm of the number of keys, which a volume has more of.
COUNTS_KEYS = {"cosine_attention", "aggregated_attention"}


def on_slices(volume: MetaFormer, flat: MetaFormer, size: int = 28) -> tuple[Tensor, Tensor]:
    """Logits of the 3D model on a volume of equal slices, and of the 2D model on one."""
    images = torch.randn(2, 1, size, size)
    with torch.no_grad():
        got, want = volume(images.unsqueeze(2).repeat_interleave(size, dim=2)), flat(images)
    assert isinstance(got, Tensor)
    assert isinstance(want, Tensor)
    return got, want


@pytest.mark.parametrize("name", [n for n in MIXERS if n not in COUNTS_KEYS])
def test_centre_equals_2d_on_equal_slices(name: str) -> None:
    flat = nano(part(name), image_size=16)
    volume, report = inflate(flat, "centre")
    assert volume.config.spatial_dims == 3
    assert_accounted(report, volume)
    assert not report.new
    assert not report.dropped
    got, want = on_slices(volume, flat, 16)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert report.output_change is not None
    assert report.output_change < 1e-4


@pytest.mark.parametrize("name", ["pooling", "local_attention", "attention", "random_mixing", "spatial_fc"])
def test_mean_equals_2d_where_nothing_is_padded(name: str) -> None:
    flat = nano(part(name), image_size=16)
    volume, report = inflate(flat, "mean")
    got, want = on_slices(volume, flat, 16)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert all("mean" in how for how in report.adapted.values())


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_mean_kernel_equals_2d_inside(kernel: int) -> None:
    weight, image = torch.randn(4, 2, kernel, kernel), torch.randn(1, 2, 9, 9)
    conv = CONVS[3](2, 4, kernel, padding=kernel // 2, bias=False)
    conv.weight.data = inflated_kernel(weight, kernel, "mean")
    got = conv(image.unsqueeze(2).repeat_interleave(11, dim=2))[:, :, kernel // 2 : -(kernel // 2)]
    want = torch.nn.functional.conv2d(image, weight, padding=kernel // 2).unsqueeze(2).expand_as(got)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(COUNTS_KEYS))
def test_what_counts_keys_says_how_far_it_is(name: str) -> None:
    volume, report = inflate(nano(part(name), image_size=16), "centre")
    assert_accounted(report, volume)
    assert report.output_change is not None
    assert report.output_change > 1e-4
    assert f"the output differs by {report.output_change:.3g} of its size" in report.summary()
    assert report.adapted["stages.0.blocks.0.token_mixer.cpb.fc1.weight"] == "a column of zeros for depth"


@pytest.mark.parametrize("border", ["clip", "shift"])
def test_a_bias_table_is_the_same_in_each_slice(border: str) -> None:
    flat = nano({"name": "local_attention", "relative_bias": True, "qk_norm": True, "border": border}, image_size=48)
    volume, report = inflate(flat)
    key = "stages.0.blocks.0.token_mixer.relative_bias"
    depth = 3 if border == "clip" else 5
    assert report.adapted[key] == f"the same in each of {depth} slices"
    got, want = on_slices(volume, flat, 48)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_coordinates_of_patch_embeddings_get_a_column_of_zeros() -> None:
    flat = nano("pooling", embedding="coord_mlp+conv", image_size=16)
    volume, report = inflate(flat)
    assert "a column of zeros for depth" in report.adapted.values()
    got, want = on_slices(volume, flat, 16)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["poolformer_s12", "convformer_s18", "ffnet_1", "rmt_t", "metaformer_ppaa_s12_224"])
def test_published_frames_inflate(name: str) -> None:
    options: dict[str, Any] = {"image_size": 32} if "224" in name else {}
    flat = create_model(name, num_classes=3, in_channels=1, **options).eval()
    volume, report = inflate(flat, "centre")
    assert_accounted(report, volume)
    assert report.output_change is not None
    assert (report.output_change < 1e-4) == (name != "rmt_t")  # its last stage's decay knows depth
    if "224" in name:
        assert report.adapted["stages.2.position.embedding"] == "the same in each of 2 slices"


def test_feature_maps_are_compared_slice_by_slice() -> None:
    _, report = inflate(nano("sep_conv", features_only=True), "centre")
    assert report.output_change is not None
    assert report.output_change < 1e-5


def test_what_cannot_be_inflated_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown inflate: .*try 'centre'"):
        inflate(nano(), "center")
    with pytest.raises(UserError, match="expected a 2D model, got spatial_dims=3"):
        inflate(nano(spatial_dims=3))
    with pytest.raises(UserError, match=r"image_size: expected an int or three"):
        inflate(nano(image_size=(28, 20)))
    with pytest.raises(UserError, match=r"spatial_fc|fc.weight: .*on grids \(8, 8\), \(8, 16, 16\)"):
        inflate(nano("spatial_fc", image_size=16), image_size=(16, 32, 32))


def test_another_depth_and_no_measure_where_the_grid_differs() -> None:
    flat = nano("spatial_fc", image_size=16)
    volume, _ = inflate(flat, image_size=(8, 16, 16))
    assert volume(torch.randn(1, 1, 8, 16, 16)).shape == (1, 3)
    position = create_model("metaformer_pppa_s12_224", num_classes=2, image_size=32)
    _, report = inflate(position, image_size=64)
    key = "stages.3.position.embedding"
    assert report.adapted[key] == "bilinear from a grid of (1, 1) to (2, 2), the same in each of 2 slices"
    assert "the change of the output was not measured" in report.summary()
