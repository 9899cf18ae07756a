"""Encoders with a decoder: any architecture, any mixer, weights, and what training asks of a model."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mixlab import create_model
from mixlab.analysis import added_parameters, export_onnx, export_program, model_cost
from mixlab.architectures import ARCHITECTURES
from mixlab.data import describe
from mixlab.dense import DenseModel
from mixlab.embeddings import GlobalTokens
from mixlab.errors import UserError
from mixlab.heads import DECODERS
from mixlab.metaformer import MetaFormer
from mixlab.mixers import MIXERS
from mixlab.models import ModelConfig
from mixlab.training.averaging import averaged
from mixlab.training.checks import check_recipe, head_dropouts
from mixlab.training.optimiser import freeze_backbone, parameter_groups
from mixlab.training.recipe import Recipe
from mixlab.weights import inflate, swap_mixers, to_official
from tests.architectures.kinds import parts, smallest

NANO, CLASSES = "metaformer_nano", 3
SIZES = {1: (181,), 2: (57, 42), 3: (33, 20, 25)}


def dense(name: str = NANO, decoder: Any = "segformer", **options: Any) -> Any:
    model: Any = create_model(name, decoder=decoder, **{"num_classes": CLASSES, "in_channels": 1, **options})
    assert isinstance(model, DenseModel)
    return model


def image(*size: int, channels: int = 1) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))


def train_step(model: nn.Module, x: Tensor) -> None:
    """Every parameter that learns gets a finite gradient."""
    model.train()(x).square().mean().backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("decoder", list(DECODERS))
def test_odd_sizes_and_cost(decoder: str, dims: int) -> None:
    size = SIZES[dims]
    model = dense(decoder=decoder, spatial_dims=dims)
    train_step(model, image(*size))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = model.eval()(image(*size)[:1])
    assert logits.shape == (1, CLASSES, *size)
    cost = model_cost(model, size)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert counter.get_total_flops() == 2 * cost.macs_computed
    assert [tuple(m.shape[2:]) for m in model.forward_stages(image(*size))] == model.map_sizes(size)


@pytest.mark.parametrize("size", [(181, 217), (250, 250)])
@pytest.mark.parametrize("decoder", list(DECODERS))
def test_sizes_of_the_study(decoder: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert dense("metaformer_s12", decoder).eval()(image(*size)[:1]).shape == (1, CLASSES, *size)


@pytest.mark.parametrize("mixer", list(MIXERS))
def test_every_mixer(mixer: str) -> None:
    model = dense("metaformer_s12", {"name": "segformer", "width": 16}, token_mixer=mixer, image_size=(64, 96))
    model.encoder.stages[2].blocks = model.encoder.stages[2].blocks[:1]  # blocks are alike, and take the time
    train_step(model, image(64, 96))


@pytest.mark.parametrize("name", smallest(ARCHITECTURES, parts))
def test_every_architecture(name: str) -> None:
    """Shapes, norms of the maps, cost: on the meta device, at the published size where there is one."""
    with torch.device("meta"):
        model = create_model(name, decoder="unet", num_classes=CLASSES)
    assert isinstance(model, DenseModel)
    config = model.encoder.config
    size = config.image_size if isinstance(config.image_size, int) else 64
    for stage in model.encoder.stages:
        stage.blocks = stage.blocks[:1]
    with torch.no_grad():
        logits = model.eval()(torch.empty(2, 3, size, size, device="meta"))
    assert logits.shape == (2, CLASSES, size, size)
    published = [s.out_norm for s in ARCHITECTURES[name]().stages]
    for norm, own in zip(model.encoder.out_norms, published, strict=True):
        assert type(norm).__name__ == ("GroupNorm" if own is None else "LayerNorm")


def test_norms_of_the_maps() -> None:
    def norms(**options: Any) -> list[str]:
        return [type(n).__name__ for n in dense(**options).encoder.out_norms]

    assert norms() == ["GroupNorm"] * 4
    assert norms(decoder="fcn") == ["Identity", *["GroupNorm"] * 3]  # nothing reads the first map
    assert norms(decoder={"name": "fcn", "skips": 0}) == [*["Identity"] * 3, "GroupNorm"]
    assert norms(out_norm="none") == ["Identity"] * 4
    assert norms(out_norm="layer_norm") == ["LayerNorm"] * 4
    several = ["none", "group_norm", "batch_norm", "layer_norm"]
    assert norms(out_norm=several) == ["Identity", "GroupNorm", "BatchNorm2d", "LayerNorm"]
    maps: Any = create_model(NANO, features_only=True, out_norm=several)
    assert [type(n).__name__ for n in maps.out_norms] == ["Identity", "GroupNorm", "BatchNorm2d", "LayerNorm"]
    with pytest.raises(UserError, match="one norm, or 4 of them"):
        dense(out_norm=["group_norm"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"class_token": True}, "no class token: decoders read maps alone"),
        ({"global_tokens": GlobalTokens(class_token=True)}, "no class token"),
        ({"features_only": True}, "logits to return, got features_only=True"),
        ({"num_classes": 0}, "num_classes: expected at least 1"),
        ({"decoder": "segfomer"}, "unknown decoder: expected one of .* known names, got 'segfomer', try 'segformer'"),
        ({"decoder": {"name": "fcn", "width": 8}}, "decoder 'fcn': expected an option that it has"),
        ({"decoder": 3}, "a name or a mapping"),
        ({"options": {"channels": (8, 16)}}, "metaformer_nano has no options of its own"),
        ({"name": "rad_dino"}, "it has one resolution"),
    ],
)
def test_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        dense(**options)


def test_an_image_that_is_too_small() -> None:
    with pytest.raises(UserError, match="stage 0: patch embedding: expected an input of at least 3"):
        dense("metaformer_s12")(image(2, 64))


def test_registers_serve_an_encoder() -> None:
    model = dense("metaformer_s12", token_mixer="attention", registers=2)
    train_step(model, image(64, 64))
    assert model.no_weight_decay() == {"encoder.tokens"}
    assert set(added_parameters(model)) == {"global_tokens"}


def test_dropout_reaches_the_decoder() -> None:
    assert [m.p for m in head_dropouts(dense(dropout=0.3))] == [0.3]
    assert [m.p for m in head_dropouts(dense(decoder={"name": "fcn", "dropout": 0.1}, dropout=0.3))] == [0.1]


def test_the_encoder_starts_the_same_whatever_the_decoder() -> None:
    states = []
    for decoder in ("segformer", "unet"):
        torch.manual_seed(0)
        states.append(dense(decoder=decoder).encoder.state_dict())
    torch.testing.assert_close(*states, rtol=0, atol=0)


# What training and studies ask of a model.


def test_optimiser_groups_are_the_classifiers() -> None:
    recipe = Recipe(layer_decay=0.5, learning_rate=1.0, weight_decay=0.1)
    plain: Any = create_model("metaformer_s12", num_classes=CLASSES, in_channels=1)
    model = dense("metaformer_s12")

    def rates(owner: Any, prefix: str) -> dict[str, tuple[Any, Any]]:
        names = {id(p): n for n, p in owner.named_parameters()}
        groups = parameter_groups(owner, recipe)
        found = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}  # type: ignore[attr-defined]
        return {n.removeprefix(prefix): v for n, v in found.items() if n.startswith(f"{prefix}stages.")}

    assert rates(model, "encoder.") == rates(plain, "")
    assert max(g["lr"] for g in parameter_groups(model, recipe)) == 1.0  # type: ignore[type-var]


def test_the_decoder_learns_alone() -> None:
    model = dense()
    freeze_backbone(model)
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"decoder"}


def test_a_classification_study_refuses_it() -> None:
    card: Any = describe("digits")
    with pytest.raises(UserError, match="one that classifies, as classification asks for, got 'a dense model'"):
        check_recipe(Recipe(), card, dense())
    check_recipe(Recipe(), describe("mni152"), dense())
    assert ModelConfig(decoder="fcn").is_dense
    assert not ModelConfig().is_dense


def test_averaged_copied_and_pickled() -> None:
    model, x = dense().eval(), image(57, 42)
    for twin in (averaged(model, 0.9), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x))
    other = dense().eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(x), model(x))


def test_checkpointing_changes_nothing() -> None:
    model, x = dense(drop_path_rate=0.0).train(), image(57, 42)
    want = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
    model.set_grad_checkpointing()
    got = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
    torch.testing.assert_close(got, want)


def test_fused_computes_the_same() -> None:
    model, x = dense("ffnet_1", {"name": "unet", "norm": "batch_norm"}), image(64, 64)
    with pytest.raises(UserError, match="evaluation mode"):
        model.fuse()
    with torch.no_grad():
        want = model.eval()(x)
        count = sum(p.numel() for p in model.parameters())
        torch.testing.assert_close(model.fuse()(x), want, atol=1e-4, rtol=1e-4)
    assert sum(p.numel() for p in model.parameters()) < count


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_half_precision(decoder: str) -> None:
    model, x = dense(decoder=decoder), image(57, 42)
    want = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        got = model(x)
    torch.testing.assert_close(got.float(), want, atol=0.1, rtol=0.1)
    got.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_exports_with_dynamic_size(decoder: str) -> None:
    model = dense("metaformer_s12", decoder).eval()
    program = export_program(model, (64, 96), dynamic_size=(64, 256)).module()
    for size in ((64, 96), (73, 111), (160, 64)):
        torch.testing.assert_close(program(image(*size)), model(image(*size)), atol=1e-5, rtol=1e-4)


def test_onnxruntime_computes_the_same(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    assert export_onnx(dense().eval(), tmp_path / "model.onnx", (57, 42)).stat().st_size > 0  # compares by itself


# Weights.


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "poolformer_s12.pth"
    torch.save(to_official(create_model("poolformer_s12")), file)
    return file


def test_weights_start_the_encoder(official: Path) -> None:
    classifier: Any = create_model("poolformer_s12", pretrained=official, in_channels=1)
    model = dense("poolformer_s12", pretrained=official)
    own = classifier.state_dict()
    for key, value in model.encoder.state_dict().items():
        if key.startswith("stages."):
            torch.testing.assert_close(value, own[key], rtol=0, atol=0)
    (event,) = model.events
    assert "dropped head.fc.weight: feature maps are returned" in event["message"]
    assert {n.split(".")[0] for n in model.new_parameters} == {"encoder", "decoder"}
    assert {n for n in model.new_parameters if n.startswith("encoder.")} == {
        f"encoder.out_norms.{i}.{n}" for i in range(4) for n in ("weight", "bias")
    }
    assert model.new_parameters <= set(model.state_dict())
    assert dense("poolformer_s12").new_parameters == set()
    groups = parameter_groups(model, Recipe(learning_rate=1.0, new_lr_scale=10.0))
    assert sorted({g["lr"] for g in groups}) == [1.0, 10.0]  # type: ignore[type-var]


def test_mixers_are_exchanged_and_weights_inflated(official: Path) -> None:
    options: dict[str, Any] = {"pretrained": official, "token_mixer": "local_attention", "init": "pooling"}
    model = dense("poolformer_s12", **options)
    assert "local_attention starts as" in model.events[-1]["message"]
    maps: Any = create_model("poolformer_s12", pretrained=official, in_channels=1, features_only=True)
    last = model.encoder.forward_features(image(64, 64))
    torch.testing.assert_close(last, maps.forward_features(image(64, 64)), atol=1e-3, rtol=1e-3)

    later = dense("poolformer_s12", pretrained=official).eval()
    assert swap_mixers(later.encoder, "local_attention", init="pooling").notes
    assert later.events == later.encoder.events
    assert later(image(57, 42)).shape == (2, CLASSES, 57, 42)

    volume = dense("poolformer_s12", pretrained=official, inflate="centre", spatial_dims=3)
    assert "centre: 2D kernel to" in volume.events[-1]["message"]
    assert volume(image(33, 40, 35)).shape == (2, CLASSES, 33, 40, 35)
    assert inflate(later.encoder)[0].config.spatial_dims == 3


def test_weights_of_a_dense_model(tmp_path: Path) -> None:
    """Its encoder starts another dense model, or a classifier; its decoder is left out, and both say so."""
    source = dense(token_mixer="sep_conv")
    torch.save(source.state_dict(), tmp_path / "dense.pth")
    options: dict[str, Any] = {"pretrained": tmp_path / "dense.pth", "token_mixer": "sep_conv"}
    other = dense(num_classes=7, **options)
    torch.testing.assert_close(other.encoder.state_dict(), source.encoder.state_dict(), rtol=0, atol=0)
    assert "dropped decoder.classifier.weight: the decoder of another model" in other.events[-1]["message"]
    assert all(n.startswith("decoder.") for n in other.new_parameters)
    classifier: Any = create_model(NANO, num_classes=4, in_channels=1, **options)
    stages = {k: v for k, v in source.encoder.state_dict().items() if k.startswith("stages.")}
    torch.testing.assert_close({k: v for k, v in classifier.state_dict().items() if k in stages}, stages)
    message = classifier.events[-1]["message"]
    assert "new head.fc.weight: the file is of a dense model, which has no head" in message
    assert "dropped out_norms.0.weight: norm of maps, for a decoder" in message


# Encoders that are no MetaFormers.


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_resnet_as_encoder(dims: int) -> None:
    size = {1: (181,), 2: (57, 65), 3: (33, 40, 35)}[dims]
    model = dense("resnet18", "unet", spatial_dims=dims)
    train_step(model, image(*size))
    assert model(image(*size)).shape == (2, CLASSES, *size)
    assert model.cost(size).parameters == sum(p.numel() for p in model.parameters())
    assert model.stages == ()


def test_weights_start_a_resnet(tmp_path: Path) -> None:
    plain: Any = create_model("resnet18", num_classes=5)
    torch.save(plain.state_dict(), tmp_path / "resnet18.pth")
    model = dense("resnet18", "fcn", pretrained=tmp_path / "resnet18.pth")
    assert "dropped fc.weight: features instead of classes" in model.events[-1]["message"]
    torch.testing.assert_close(model.encoder.layer1.state_dict(), plain.layer1.state_dict(), rtol=0, atol=0)
    assert model.new_parameters == {n for n in model.state_dict() if n.startswith("decoder.")}


def test_timms_models_as_encoders() -> None:
    pytest.importorskip("timm")
    model = dense("timm:resnet10t", "segformer")
    assert model(image(57, 70)).shape == (2, CLASSES, 57, 70)
    assert model.cost((57, 70)).macs_computed > 0
    with pytest.raises(UserError, match="set_grad_checkpointing: expected a MetaFormer"):
        model.set_grad_checkpointing()


def test_an_encoder_must_return_maps() -> None:
    config = dataclasses.replace(ModelConfig().configuration(), num_classes=2)
    with pytest.raises(UserError, match="a model that returns maps"):
        DenseModel(MetaFormer(config), "fcn", 2)
