"""What timm's own tests demand of its models: shapes on every architecture, numbers on the smallest of each that has
other parts (slow but for one a family); then what the plug does beside."""

from __future__ import annotations

import copy
import functools
import io
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

timm = pytest.importorskip("timm", reason="the plug needs timm (extra timm)")

from timm.optim import create_optimizer_v2  # noqa: E402

import mixlab.plugins.timm as plug  # noqa: E402
from mixlab import create_model  # noqa: E402
from mixlab.architectures import ARCHITECTURES, register_architecture  # noqa: E402
from mixlab.embeddings import GlobalTokens  # noqa: E402
from mixlab.errors import UserError  # noqa: E402
from mixlab.weights import to_official  # noqa: E402
from tests.architectures.kinds import parts, smallest  # noqa: E402

SIDE = 64
NAMES = sorted(plug.NAMES)


PLAIN = {plug.NAMES[n]: n for n in NAMES}
FAST = smallest(PLAIN, lambda name: name.partition("_")[0])
WITH_NUMBERS = [
    pytest.param(PLAIN[n], marks=[] if n in FAST else pytest.mark.slow)
    for n in sorted({*smallest(PLAIN, parts), *FAST})
]


def build(name: str, **options: Any) -> Any:
    """A model for images of 64 pixels."""
    if timm.get_pretrained_cfg(name).fixed_input_size:
        options = {"img_size": SIDE, **options}
    return timm.create_model(name, **options)


def on_meta(name: str, **options: Any) -> Any:
    """The same in evaluation mode, without memory for its parameters."""
    return build(name, device="meta", **options).eval()


def image(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@functools.cache
def published_form(name: str) -> Any:
    """The model for images of its published size, on the meta device; not to be changed."""
    return timm.create_model(name, device="meta").eval()


# Shapes, for every name.


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str) -> None:
    """At the published size: maps, ``feature_info``, ``pool_size``, the head in all its forms."""
    model = copy.deepcopy(published_form(name))
    for stage in model.stages:
        stage.blocks = stage.blocks[:1]  # blocks keep shapes, and take the time
    cfg = model.default_cfg
    channels, height, width = cfg["input_size"]
    with torch.no_grad():
        x, maps = model.forward_intermediates(torch.empty(2, channels, height, width, device="meta"))
        info = timm.models.FeatureInfo(model.feature_info, len(model.feature_info))
        assert [m.shape[1] for m in maps] == info.channels()
        for m, reduction in zip(maps, info.reduction(), strict=True):
            assert m.shape[2:] == (math.ceil(height / reduction), math.ceil(width / reduction))
        assert x.shape == (2, model.num_features, *cfg["pool_size"])

        assert model.forward_head(x).shape == (2, model.num_classes)
        assert model.forward_head(x, pre_logits=True).shape == (2, model.head_hidden_size)
        model.reset_classifier(10)
        assert model.forward_head(x).shape == (2, model.num_classes) == (2, 10)
        model.reset_classifier(0)
        assert model.num_classes == 0
        assert isinstance(model.get_classifier(), nn.Identity)
        assert model.forward_head(x).shape == (2, model.head_hidden_size)
        model.reset_classifier(0, "")
        assert model.forward_head(x).shape == (2, model.head_hidden_size, *cfg["pool_size"])
        model.reset_classifier(7, "max")
        assert model.forward_head(x).shape == (2, 7)


@pytest.mark.parametrize("name", NAMES)
def test_default_cfg(name: str) -> None:
    model = published_form(name)
    cfg, state = model.default_cfg, model.state_dict()
    for entry in ("first_conv", "classifier"):
        assert cfg[entry]
        for module in [cfg[entry]] if isinstance(cfg[entry], str) else cfg[entry]:
            assert f"{module}.weight" in state
    found = model.get_classifier()
    for layer in found if isinstance(found, tuple) else [found]:
        assert layer.out_features == model.num_classes == cfg["num_classes"] == 1000
    assert cfg["architecture"] == name
    data = timm.data.resolve_data_config(model=model)
    assert {k: data[k] for k in ("input_size", "crop_pct")} == {k: cfg[k] for k in ("input_size", "crop_pct")}
    assert data["interpolation"] == "bicubic"


@pytest.mark.parametrize("name", NAMES)
def test_groups_of_layers(name: str) -> None:
    """Every parameter is in one group, from the stem to the head."""
    model = published_form(name)
    depth = [len(s.blocks) for s in model.stages]
    for coarse, layers in ((True, len(depth)), (False, sum(depth))):
        groups = timm.models.group_parameters(model, model.group_matcher(coarse))
        assert sorted(n for names in groups.values() for n in names) == sorted(n for n, _ in model.named_parameters())
        assert len(groups) == 1 + layers + 1
        assert {n.split(".")[2] for n in groups[0]} <= {"embed", "position"}
        assert {n.split(".")[0] for n in groups[max(groups)]} == {"head"}
    assert model.no_weight_decay() <= {n for n, _ in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_without_head_and_with_four_channels(name: str) -> None:
    model = on_meta(name, in_chans=4, num_classes=0, global_pool="")
    first = model.stages[0].embed(torch.empty(2, 4, SIDE, SIDE, device="meta"))
    assert first.shape[1] == model.feature_info[0]["num_chs"]
    last = torch.empty(2, model.num_features, 2, 3, device="meta")
    assert model.forward_head(last).shape == (2, model.head_hidden_size, 2, 3)
    assert (model.in_chans, model.num_classes, model.global_pool) == (4, 0, "")


# Numbers.


@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_forward_features_and_state(name: str) -> None:
    """Finite logits in parts and in one; maps alone equal maps of the whole; the state goes through a file."""
    model, x = build(name).eval(), image()
    with torch.no_grad():
        logits = model(x)
        assert logits.isfinite().all()
        torch.testing.assert_close(model.forward_head(model.forward_features(x)), logits)
        last, maps = model.forward_intermediates(x)
        torch.testing.assert_close(last, model.forward_features(x))
        early = model.forward_intermediates(x, indices=[1], stop_early=True)
        torch.testing.assert_close(early[0], maps[1])

        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        other = on_meta(name)
        other.load_state_dict(state, strict=True, assign=True)
        torch.testing.assert_close(other(x), logits)

        net = on_meta(name, features_only=True, out_indices=(1, -1))
        kept = {k: state[k] for k in net.model.state_dict()}
        net.model.load_state_dict(kept, strict=True, assign=True)
        assert net.feature_info.channels() == [m.shape[1] for m in (maps[1], maps[-1])]
        for ours, theirs in zip(net(x), (maps[1], maps[-1]), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_gradients(name: str) -> None:
    """Finite for every trainable parameter, and the same with checkpointing (batch statistics are of the batch)."""
    model, x = build(name, num_classes=5, in_chans=1, drop_path_rate=0.0).train(), image(1)

    def gradients() -> tuple[Tensor, dict[str, Tensor | None]]:
        model.zero_grad(set_to_none=True)
        logits = model(x)
        logits.square().mean().backward()
        return logits.detach(), {k: p.grad for k, p in model.named_parameters()}

    logits, plain = gradients()
    for key, parameter in model.named_parameters():
        gradient = plain[key]
        assert (gradient is not None) == parameter.requires_grad, key
        assert gradient is None or gradient.isfinite().all(), key
    model.set_grad_checkpointing()
    same_logits, recomputed = gradients()
    torch.testing.assert_close(same_logits, logits)
    torch.testing.assert_close(recomputed, plain)


# What the plug does beside.

NANO = "metaformer_nano"


def test_names() -> None:
    assert set(plug.NAMES.values()) >= set(ARCHITECTURES)
    assert plug.NAMES["mixlab_poolformer_s12"] == "poolformer_s12"
    assert type(timm.create_model("poolformer_s12", device="meta")).__module__.startswith("timm.")
    assert plug.NAMES[NANO] == NANO
    assert NANO in timm.list_models("metaformer*")
    assert plug.metaformer_nano(device="meta").num_classes == 1000  # type: ignore[attr-defined]
    assert plug.register() == []


def test_an_architecture_of_the_user() -> None:
    name = "of_the_user"
    try:
        register_architecture(name)(ARCHITECTURES[NANO])
        assert plug.register() == [name]
        model = timm.create_model(name, num_classes=3)
        assert model.config.architecture == name
        assert model(image()).shape == (2, 3)
    finally:
        del ARCHITECTURES._entries[name]


def test_options_of_mixlab() -> None:
    mixer = {"token_mixer": "local_attention", "kernel_size": 5}
    model = timm.create_model(NANO, **mixer, stages="PPTT", num_classes=3).eval()
    ours = create_model(NANO, **mixer, stages="PPTT", num_classes=3).eval()  # type: ignore[arg-type]
    ours.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(image()), ours(image()), rtol=0, atol=0)
    assert model._model_args["kernel_size"] == 5
    with pytest.raises(TypeError, match="kernel"):
        timm.create_model(NANO, kernel=5)
    with pytest.raises(UserError, match="kernel_size: expected a mixer with a window"):
        timm.create_model(NANO, token_mixer="attention", kernel_size=5)
    with pytest.raises(UserError, match="a model that classifies or returns maps, got 'decoder'"):
        timm.create_model(NANO, decoder="fcn")


def test_image_size() -> None:
    name = "metaformer_pppf_s12_224"
    for options in ({"img_size": (64, 96)}, {"image_size": (64, 96)}):
        model = timm.create_model(name, device="meta", **options).eval()
        assert model.config.image_size == model._traits["img_size"] == (64, 96)
        assert model(torch.empty(1, 3, 64, 96, device="meta")).shape == (1, 1000)
    assert timm.create_model(name, device="meta").config.image_size == (224, 224)
    assert timm.create_model(NANO, device="meta").config.image_size is None


def test_rates() -> None:
    model = timm.create_model("metaformer_s12", drop_rate=0.3, drop_path_rate=0.25, device="meta")
    assert model.head.dropout.p == model.drop_rate == 0.3
    assert model.stages[-1].blocks[-1].drop_path == 0.25
    assert model.stages[0].blocks[0].channel_mixer.dropout.p == 0.0
    assert timm.create_model("metaformer_s12", device="meta").stages[-1].blocks[-1].drop_path == 0.1


def test_pooling() -> None:
    model, x = timm.create_model(NANO, num_classes=0, global_pool="").eval(), image()
    with torch.no_grad():
        last = model(x)
        model.reset_classifier(0, "max")
        torch.testing.assert_close(model(x), last.amax((2, 3)))
        model.reset_classifier(0, "avg")
        torch.testing.assert_close(model(x), last.mean((2, 3)))
    with pytest.raises(UserError, match="head pool: expected 'avg' or 'max' for 10 classes, got 'none'"):
        model.reset_classifier(10, "")
    with pytest.raises(UserError, match="head pool"):
        timm.create_model(NANO, global_pool="catavgmax")


def test_a_new_classifier_is_like_the_rest() -> None:
    model = timm.create_model(NANO, dtype=torch.float64).eval()
    model.reset_classifier(5)
    assert not any(m.training for m in model.modules())
    assert model(image().double()).dtype == torch.float64


def test_intermediates() -> None:
    model, x = timm.create_model(NANO).eval(), image()
    with torch.no_grad():
        every = model.forward_intermediates(x, intermediates_only=True)
        for indices, expected in ((2, (2, 3)), ([0, -1], (0, 3)), ([1], (1,))):
            some = model.forward_intermediates(x, indices=indices, stop_early=True, intermediates_only=True)
            torch.testing.assert_close(some, [every[i] for i in expected], rtol=0, atol=0)
        with pytest.raises(UserError, match="output_fmt: expected 'NCHW'"):
            model.forward_intermediates(x, output_fmt="NLC")
        assert model.prune_intermediate_layers([0, -3]) == [0, 1]
        assert len(model.stages) == 2
        torch.testing.assert_close(model(x), every[1])
        assert model.num_features == every[1].shape[1]
        assert model.cost((SIDE, SIDE)).parameters == sum(p.numel() for p in model.parameters())
        model.reset_classifier(4, "avg")
        assert model(x).shape == (2, 4)


def test_norm_of_the_maps() -> None:
    net = timm.create_model(NANO, features_only=True, out_norm="group_norm").eval()
    with torch.no_grad():
        for m in net(image()):
            torch.testing.assert_close(m.mean((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)


def test_global_tokens() -> None:
    tokens = GlobalTokens(class_token=True, registers=2)
    model = timm.create_model(NANO, token_mixer="attention", global_tokens=tokens, num_classes=3).eval()
    assert model(image()).shape == (2, 3)
    assert model.no_weight_decay() == {"tokens"}


def test_optimisers() -> None:
    model = timm.create_model("metaformer_ppaa_s12_224", img_size=SIDE, num_classes=3)
    optimiser = create_optimizer_v2(model, "adamw", weight_decay=0.1, layer_decay=0.5)
    assert sum(len(g["params"]) for g in optimiser.param_groups) == len(list(model.parameters()))
    spared = {id(p) for g in optimiser.param_groups if not g["weight_decay"] for p in g["params"]}
    assert id(model.stages[2].position.embedding) in spared
    assert id(model.head.fc.weight) not in spared
    assert min(g["lr_scale"] for g in optimiser.param_groups) == pytest.approx(0.5 ** (2 + 2 + 6 + 2 + 1))


def test_copies() -> None:
    model, x = timm.create_model(NANO, kernel_size=5).eval(), image()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x))


# Weights.


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensor]:
    """A file with official names, and the logits of its model."""
    model = create_model("poolformer_s12").eval()
    file = tmp_path_factory.mktemp("weights") / "official.pth"
    torch.save(to_official(model), file)
    with torch.no_grad():
        return file, model(image())


def pretrained(file: Path, **options: Any) -> Any:
    return timm.create_model(
        "mixlab_poolformer_s12", pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **options
    ).eval()


@torch.no_grad()
def test_official_file(official: tuple[Path, Tensor], tmp_path: Path) -> None:
    file, logits = official
    model = pretrained(file)
    torch.testing.assert_close(model(image()), logits)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    torch.testing.assert_close(pretrained(tmp_path / "own.pth")(image()), logits)


@torch.no_grad()
def test_official_file_into_another_form(official: tuple[Path, Tensor]) -> None:
    file, _ = official
    whole = pretrained(file)
    other = pretrained(file, num_classes=10, in_chans=1)
    assert other(image(1)).shape == (2, 10)
    torch.testing.assert_close(
        other.stages[0].embed.proj.weight, whole.stages[0].embed.proj.weight.sum(1, keepdim=True)
    )
    torch.testing.assert_close(other.stages[3].state_dict(), whole.stages[3].state_dict())
    net = pretrained(file, features_only=True, out_indices=(0, 2))
    maps = whole.forward_intermediates(image(), indices=[0, 2], intermediates_only=True)
    torch.testing.assert_close(net(image()), maps)


def test_no_weights_to_download() -> None:
    with pytest.raises(RuntimeError, match="No pretrained weights exist for metaformer_nano"):
        timm.create_model(NANO, pretrained=True)
