"""Any model of timm by its name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab.baselines import is_baseline, list_baselines, make_baseline
from mixlab.baselines.base import Baseline
from mixlab.errors import UserError

timm = pytest.importorskip("timm")

NAMES = ("resnet10t", "test_vit", "test_convnext", "convnext_atto")


def model_of(name: str, *, classes: int = 3, channels: int = 1, maps: bool = False, **options: Any) -> Any:
    return make_baseline(
        f"timm:{name}",
        num_classes=classes,
        in_channels=channels,
        spatial_dims=2,
        features_only=maps,
        options=options,
    )


@pytest.mark.parametrize("name", NAMES)
def test_as_timm_builds_it(name: str) -> None:
    ours: Baseline = model_of(name, image_size=64).eval()
    one_size = timm.models.get_pretrained_cfg(name).fixed_input_size
    theirs = timm.create_model(name, num_classes=3, in_chans=1, **({"img_size": 64} if one_size else {})).eval()
    theirs.load_state_dict({k.removeprefix("body."): v for k, v in ours.state_dict().items()})
    x = torch.randn(2, 1, 64, 64)
    y = ours(x)
    assert isinstance(y, Tensor)
    assert torch.equal(y, theirs(x))
    y.sum().backward()
    assert all(p.grad is not None for p in ours.parameters())
    cost = ours.cost((64, 64))
    assert cost.parameters == sum(p.numel() for p in theirs.parameters())
    assert cost.macs_needed > 0


def test_macs_are_counted() -> None:
    """A convolution by hand: what torch's counter says is what mixlab calls MACs."""
    resnet = model_of("resnet18", classes=1000, channels=3)
    own = make_baseline("resnet18", num_classes=1000, in_channels=3, spatial_dims=2, options={})
    assert resnet.cost((64, 64)).macs_computed == own.cost((64, 64)).macs_computed


@pytest.mark.parametrize("name", ["resnet10t", "test_vit"])
def test_weights_by_file(name: str, tmp_path: Path) -> None:
    theirs = timm.create_model(name).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    same = model_of(name, classes=theirs.num_classes, channels=3).eval()
    assert same.load(tmp_path / "w.pth").complete
    x = torch.randn(1, 3, *theirs.default_cfg["input_size"][1:])
    torch.testing.assert_close(same(x), theirs(x))
    other = model_of(name)
    report = other.load(tmp_path / "w.pth")
    assert len(report.adapted) == 1
    assert {k.rpartition(".")[2] for k in report.new} == {"weight", "bias"}
    assert other.new_parameters == set(report.new) <= set(other.state_dict())
    assert other.head.weight.shape[0] == 3
    torch.save(
        {k: v for k, v in theirs.state_dict().items() if "bn1" not in k and "norm1" not in k}, tmp_path / "p.pth"
    )
    with pytest.raises(UserError, match="missing"):
        model_of(name).load(tmp_path / "p.pth")


def test_resized_positions_are_noted(tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit")
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    model = model_of("test_vit", channels=3, image_size=64)
    report = model.load(tmp_path / "w.pth")
    assert [note.partition(" ")[0] for note in report.notes] == ["pos_embed"]
    assert "pos_embed resized by timm" in model.events[-1]["message"]


def test_weights_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, create = timm.create_model("resnet10t"), timm.create_model

    def hub(name: str, pretrained: bool = False, **options: Any) -> Any:
        return theirs if pretrained else create(name, **options)

    monkeypatch.setattr(timm, "create_model", hub)
    model = model_of("resnet10t", channels=3, classes=1000)
    assert model.load("official").complete
    assert torch.equal(model.body.fc.weight, theirs.fc.weight)

    def offline(*args: Any, **options: Any) -> Any:
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match="no connection"):
        model.load("official")


def test_maps() -> None:
    model = model_of("resnet10t", maps=True)
    maps = model(torch.randn(1, 1, 64, 64))
    for found, info in zip(maps, model.feature_info, strict=True):
        assert tuple(found.shape) == (1, info["num_chs"], 64 // info["reduction"][0], 64 // info["reduction"][1])
    with pytest.raises(UserError, match="features_only"):
        model.load("w.pth")


def test_linear_probe() -> None:
    model = model_of("resnet10t")
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"body.fc.weight", "body.fc.bias"}


def test_names() -> None:
    assert is_baseline("timm:anything")
    assert not is_baseline("metaformer_nano")
    assert "timm" not in list_baselines()  # takes a name
    with pytest.raises(UserError, match="try timm:resnet18"):
        model_of("resnet_18")
    with pytest.raises(UserError, match="timm:NAME"):
        make_baseline("timm", num_classes=2, in_channels=1, spatial_dims=2, options={})
    with pytest.raises(UserError, match="2D images"):
        make_baseline("timm:resnet18", num_classes=2, in_channels=1, spatial_dims=3, options={})


def test_options() -> None:
    assert model_of("resnet10t", dropout=0.3).body.drop_rate == 0.3
    with pytest.raises(UserError, match="exchanged, got kernel_size=5"):
        model_of("resnet10t", kernel_size=5)
    with pytest.raises(UserError, match="options that this model of timm takes"):
        model_of("vgg11", drop_path_rate=0.1)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"try pip install 'mixlab\[timm\]'"):
        model_of("resnet10t")
