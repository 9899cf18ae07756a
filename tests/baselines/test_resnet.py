"""ResNet-18: the libraries' numbers where they have it, and the study's larger windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mixlab.baselines import make_baseline
from mixlab.baselines.base import Baseline
from mixlab.errors import UserError

SIZES = {1: (96,), 2: (64, 96), 3: (32, 33, 40)}


def resnet(spatial_dims: int = 2, *, classes: int = 5, channels: int = 3, maps: bool = False, **options: Any) -> Any:
    return make_baseline(
        "resnet18",
        num_classes=classes,
        in_channels=channels,
        spatial_dims=spatial_dims,
        features_only=maps,
        options=options,
    )


def drawn(model: nn.Module) -> nn.Module:
    """With parameters and running statistics that are not those of the start."""
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return model.eval()


@pytest.fixture
def timm_file(tmp_path: Path) -> tuple[nn.Module, Path]:
    timm = pytest.importorskip("timm")
    theirs = drawn(timm.create_model("resnet18"))
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    return theirs, tmp_path / "resnet18.pth"


def test_it_is_timms(timm_file: tuple[nn.Module, Path]) -> None:
    theirs, path = timm_file
    ours = resnet(classes=1000)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    report = ours.load(path)
    assert report.complete
    x = torch.randn(2, 3, *SIZES[2])
    torch.testing.assert_close(ours.eval()(x), theirs(x), atol=1e-4, rtol=1e-4)
    assert sum(p.numel() for p in ours.parameters()) == 11_689_512


def test_it_is_monais_in_3d() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    theirs = drawn(
        nets.resnet18(spatial_dims=3, n_input_channels=1, num_classes=5, conv1_t_stride=2, bias_downsample=False)
    )
    ours = resnet(3, channels=1)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 1, *SIZES[3])
    torch.testing.assert_close(ours.eval()(x), theirs(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", [3, 5])
def test_larger_windows_start_as_the_published_ones(timm_file: tuple[nn.Module, Path], kernel: int) -> None:
    theirs, path = timm_file
    ours = resnet(classes=1000, kernel_size=kernel)
    report = ours.load(path)
    assert len(report.adapted) == (0 if kernel == 3 else 16)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(x), theirs(x), atol=1e-4, rtol=1e-4)


def test_other_channels_and_classes_are_announced(timm_file: tuple[nn.Module, Path]) -> None:
    theirs, path = timm_file
    ours = resnet(classes=4, channels=1)
    report = ours.load(path)
    assert list(report.adapted) == ["conv1.weight"]
    assert set(report.new) == set(report.dropped) == {"fc.weight", "fc.bias"} == ours.new_parameters
    assert "4 classes" in ours.events[-1]["message"]
    grey = torch.randn(1, 1, 64, 64)
    last = theirs.forward_features(grey.expand(-1, 3, -1, -1))  # type: ignore[operator]
    torch.testing.assert_close(ours.eval().forward_features(grey), last, atol=1e-4, rtol=1e-4)


def test_flat_weights_start_a_network_of_volumes(timm_file: tuple[nn.Module, Path]) -> None:
    """Equal slices are one image: exactly so with the weights in the middle slice."""
    theirs, path = timm_file
    ours = resnet(3, classes=1000, channels=1, inflate="centre", kernel_size=[3, 5, 5])
    report = ours.load(path)
    assert report.adapted["conv1.weight"] == "from 3 to 1 image channels, then centre: 2D kernel to 7 slices"
    assert report.adapted["layer1.0.conv1.weight"].endswith("zeros around, then centre: 2D kernel to 3 slices")
    grey = torch.randn(1, 1, 48, 40)
    volume = grey[:, :, None].expand(-1, -1, 33, -1, -1)
    want = theirs(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(ours.eval()(volume), want, atol=1e-3, rtol=1e-3)


def test_what_does_not_fit_raises(timm_file: tuple[nn.Module, Path], tmp_path: Path) -> None:
    theirs, path = timm_file
    with pytest.raises(UserError, match="try a file of 3D weights, or inflate"):
        resnet(3).load(path)
    state = theirs.state_dict()
    state.pop("layer3.0.conv1.weight")
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"layer3\.0\.conv1\.weight missing"):
        resnet().load(tmp_path / "part.pth")
    with pytest.raises(UserError, match="a checkpoint file"):
        resnet().load(tmp_path / "absent.pth")


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_cost(spatial_dims: int, kernel: int) -> None:
    size = SIZES[spatial_dims]
    with torch.device("meta"):
        model: Baseline = resnet(spatial_dims, channels=2, kernel_size=kernel).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 2, *size, device="meta"))
    cost = model.cost(size)
    assert counter.get_total_flops() == 2 * cost.macs_computed
    assert cost.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
def test_shape_and_gradients(spatial_dims: int) -> None:
    model: Baseline = resnet(spatial_dims, channels=2)
    y = model(torch.randn(2, 2, *(33, 40, 32)[:spatial_dims]))
    assert isinstance(y, Tensor)
    assert y.shape == (2, 5)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_parameters_of_the_windows() -> None:
    """Sixteen convolutions of the blocks grow, stem and shortcuts do not."""
    widths = (64, 128, 256, 512)
    pairs = sum(3 * w * w for w in widths) + sum(a * b for a, b in zip((64, *widths), widths, strict=False))
    with torch.device("meta"):
        counts = [sum(p.numel() for p in resnet(classes=1000, kernel_size=k).parameters()) for k in (3, 5, 7)]
    assert counts == [11_689_512 + (k * k - 9) * pairs for k in (3, 5, 7)]


def test_windows_per_axis() -> None:
    model = resnet(3, kernel_size=[1, 3, 3])
    assert model.layer1[0].conv1.weight.shape == (64, 64, 1, 3, 3)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_maps(spatial_dims: int) -> None:
    model: Baseline = resnet(spatial_dims, maps=True).eval()
    x = torch.randn(1, 3, *(64, 96, 32)[:spatial_dims])
    maps = model(x)
    for found, info in zip(maps, model.feature_info, strict=True):
        want = [n // r for n, r in zip(x.shape[2:], info["reduction"], strict=True)]
        assert found.shape == (1, info["num_chs"], *want)
    assert model.head is None
    assert model.cost(tuple(x.shape[2:])).parameters == sum(p.numel() for p in model.parameters())


def test_head_is_the_classifier() -> None:
    model = resnet(dropout=0.5)
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(model.eval()(x), model(x))
    model.head.train()
    assert not torch.equal(model(x), model(x))


@pytest.mark.parametrize("option", [{"token_mixer": "conv"}, {"stages": "PPTT"}, {"embedding": "none"}])
def test_no_parts_to_exchange(option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no blocks whose parts could be exchanged"):
        resnet(**option)


def test_bad_options() -> None:
    with pytest.raises(UserError, match="odd sizes"):
        resnet(kernel_size=4)
    with pytest.raises(UserError, match=r"expected shape \(B, 3, H, W\)"):
        resnet()(torch.randn(1, 1, 32, 32))
    with pytest.raises(UserError, match="'resnet18'"):
        make_baseline("resnet18:50", num_classes=2, in_channels=3, spatial_dims=2, options={})
