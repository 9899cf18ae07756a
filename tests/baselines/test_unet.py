"""MONAI's UNet, alone and on a patch embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mixlab import create_model, list_models, model_info
from mixlab.baselines import has_decoder
from mixlab.baselines.padding import cropped, padded
from mixlab.errors import UserError
from mixlab.models import ModelConfig
from mixlab.studies.grid import StudyConfig
from mixlab.training.optimiser import freeze_backbone

NAMES = ("unet", "unet_on_patch_embedding")
SMALL = {"channels": [4, 8, 16, 32]}
SIZES: dict[int, list[tuple[int, ...]]] = {1: [(181,)], 2: [(181, 217), (250, 250), (40, 64)], 3: [(41, 36, 50)]}


def unet(name: str = "unet", **options: Any) -> Any:
    return create_model(name, **{"num_classes": 3, "in_channels": 1, "options": SMALL, **options})


@pytest.mark.parametrize(("dims", "size"), [(d, s) for d, sizes in SIZES.items() for s in sizes])
@pytest.mark.parametrize("name", NAMES)
def test_any_size_and_every_gradient(name: str, dims: int, size: tuple[int, ...]) -> None:
    model, x = unet(name, spatial_dims=dims), torch.randn(2, 1, *size)
    logits = model(x)
    assert logits.shape == (2, 3, *size)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    cost = model.cost(size)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.macs_computed > 0


def test_it_is_monais_with_zeros_at_the_end() -> None:
    from monai.networks.nets import UNet

    model, x = unet().eval(), torch.randn(1, 1, 41, 64)
    theirs = UNet(2, 1, 3, (4, 8, 16, 32), (2, 2, 2), num_res_units=2).eval()
    theirs.load_state_dict(model.body.state_dict())
    torch.testing.assert_close(model(x), theirs(F.pad(x, (0, 0, 0, 7)))[:, :, :41])
    whole = torch.randn(1, 1, 48, 64)
    torch.testing.assert_close(model(whole), theirs(whole))


def test_on_patches_it_sees_stride_four() -> None:
    model, x = unet("unet_on_patch_embedding").eval(), torch.randn(1, 1, 131, 64)
    patches = F.conv2d(x, model.stem.proj.weight, model.stem.proj.bias, stride=4, padding=2)
    assert patches.shape == (1, 4, 33, 16)
    inner = model.body(F.pad(patches, (0, 0, 0, 7)))[:, :, :33]
    want = F.interpolate(inner, size=(131, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(x), want)


def test_the_studys_widths() -> None:
    """Five levels and four, of 64, 128, 320, 512 (and 1024) channels."""
    for name, widths in (("unet", (64, 128, 320, 512, 1024)), ("unet_on_patch_embedding", (64, 128, 320, 512))):
        with torch.device("meta"):
            model: Any = create_model(name, num_classes=5)
        assert (model.body.channels, model.body.num_res_units) == (widths, 2)
        assert model.body.strides == (2,) * (len(widths) - 1)
        assert model.multiple == 2 ** (len(widths) - 1)


def test_padding() -> None:
    x = torch.randn(1, 2, 5, 8, 3)
    assert padded(x, 4).shape == (1, 2, 8, 8, 4)
    assert torch.equal(cropped(padded(x, 4), (5, 8, 3)), x)
    assert padded(x, 4)[..., 3:].abs().max() == 0
    assert padded(x, 1) is x


@pytest.mark.parametrize("name", NAMES)
def test_listed(name: str) -> None:
    assert name in list_models()
    assert has_decoder(name)
    assert ModelConfig(name=name).is_dense
    info = model_info(name)
    assert info["parameters"] == sum(p.numel() for p in create_model(name, num_classes=2).parameters())
    assert info["macs"] > 1e8


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"decoder": "fcn"}, "model unet: expected no decoder beside its own, got 'fcn'"),
        ({"token_mixer": "pooling"}, "no blocks whose parts could be exchanged"),
        ({"features_only": True}, "logits at every pixel"),
        ({"num_classes": 0}, "num_classes: expected at least 1"),
        ({"options": {"widths": (8, 16)}}, "unknown option of model unet"),
        ({"options": {"channels": (8,)}}, "channels: expected at least two"),
        ({"options": {"strides": (2, 2)}}, "strides: expected one of at least 1 for all levels, or 4 of them"),
        ({"options": {"residual_units": -1}}, "residual_units: expected at least 0"),
        ({"options": {"norm": "group"}}, "norm: expected 'instance' or 'batch'"),
    ],
)
def test_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        unet(**options)


def test_images_that_leave_one_position() -> None:
    """Instance norm has no variance there."""
    with pytest.raises(UserError, match=r"got \(8, 8\), try 9 on an axis"):
        unet()(torch.zeros(1, 1, 8, 8))
    assert unet()(torch.zeros(1, 1, 9, 8)).shape == (1, 3, 9, 8)
    with pytest.raises(UserError, match="try 36 on an axis"):
        unet("unet_on_patch_embedding").stage_sizes((34, 34))
    assert unet("unet_on_patch_embedding")(torch.zeros(1, 1, 36, 12)).shape == (1, 3, 36, 12)


def test_weights_of_its_own(tmp_path: Path) -> None:
    source = unet("unet_on_patch_embedding").eval()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    same = unet("unet_on_patch_embedding", pretrained=tmp_path / "w.pth").eval()
    x = torch.randn(1, 1, 40, 40)
    torch.testing.assert_close(same(x), source(x))
    other = unet("unet_on_patch_embedding", pretrained=tmp_path / "w.pth", num_classes=4, in_channels=3)
    assert all(n.startswith("body.model.2.") for n in other.new_parameters)
    assert "from 1 to 3 image channels" in other.events[-1]["message"]


def test_the_last_level_learns_alone() -> None:
    model = unet()
    freeze_backbone(model)
    assert {n[:13] for n, p in model.named_parameters() if p.requires_grad} == {"body.model.2."}


def test_in_a_study() -> None:
    plain = {"seeds": 1, "data": "digits", "mixers": "pooling", "precision": "32-true", "recipe": {"preset": "short"}}
    arms = [{"name": "unet", "options": {"channels": [8, 16]}}, "unet", "unet_on_patch_embedding"]
    runs = StudyConfig.of({**plain, "model": {"decoder": "segformer"}, "baselines": arms}).runs()
    assert [r.model.is_dense for r in runs] == [True] * 4
    assert len({r.hash("x") for r in runs}) == len({r.label for r in runs}) == 4
    assert [r.label for r in runs][1:] == ["unet-channels=8x16", "unet", "unet_on_patch_embedding"]
    assert runs[0].model.decoder == "segformer"
