"""Another patch embedding in a model by its published name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mixlab import create_model
from mixlab.cli.arguments import add_fields, make_parser, parse
from mixlab.data import DataConfig
from mixlab.embeddings import EMBEDDINGS
from mixlab.errors import UserError
from mixlab.models import ModelConfig
from mixlab.studies.grid import StudyConfig
from mixlab.studies.run_config import RunConfig

FRAMES = ("metaformer_s12", "metaformer_nano", "caformer_s18", "ffnet_1", "rmt_t")
WITH_STRIDE = [name for name in EMBEDDINGS if "stride" in EMBEDDINGS.options(name) and name != "rep_downsample"]


def reductions(**options: Any) -> list[tuple[int, ...]]:
    with torch.device("meta"):
        model = create_model(options.pop("name", "metaformer_nano"), **options)
    return [info["reduction"] for info in model.feature_info]


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("embedding", WITH_STRIDE)
def test_strides_stay(name: str, embedding: str) -> None:
    assert reductions(name=name, embedding=embedding) == reductions(name=name)


@pytest.mark.parametrize("spatial_dims", [1, 2, 3])
@pytest.mark.parametrize("embedding", WITH_STRIDE)
def test_models_of_every_embedding_run(embedding: str, spatial_dims: int) -> None:
    model = create_model("metaformer_nano", embedding=embedding, spatial_dims=spatial_dims, num_classes=3)
    x = torch.randn(2, 3, *(33, 17, 20)[:spatial_dims])
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.cost(tuple(x.shape[2:])).parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["metaformer_s12", "metaformer_nano", "caformer_s18"])
def test_conv_is_the_published_convolution(name: str) -> None:
    given, published = (ModelConfig(name=name, embedding=e).configuration() for e in ("conv", None))
    assert given == published


def test_conv_where_none_was_published_overlaps() -> None:
    stem, down, *_ = ModelConfig(name="ffnet_1", embedding="conv").configuration().stages
    assert stem.embedding.options == {"kernel_size": 7, "stride": 4, "padding": 2}
    assert down.embedding.options == {"kernel_size": 3, "stride": 2, "padding": 1}


def test_own_options_win() -> None:
    embedding = {"name": "coord_mlp+conv", "hidden": 8, "kernel_size": 5}
    stem, down, *_ = ModelConfig(name="metaformer_s12", embedding=embedding).configuration().stages
    assert stem.embedding.options == {"kernel_size": 5, "stride": 4, "padding": 2, "hidden": 8}
    assert down.embedding.options == {"kernel_size": 5, "stride": 2, "padding": 1, "hidden": 8}


def test_one_a_stage() -> None:
    config = ModelConfig(name="metaformer_s12", embedding=["coord_mlp", "none", "conv", "overlap"]).configuration()
    assert [s.embedding.name for s in config.stages] == ["coord_mlp", "none", "conv", "overlap"]
    with pytest.raises(UserError, match="or 4 of them, one a stage"):
        ModelConfig(name="metaformer_s12", embedding=["conv", "none"]).configuration()


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"name": "metaformer_s12"}, {"kernel_size": 3, "stride": 2, "padding": 1}),
        ({"name": "metaformer_s12", "embedding": "none"}, {"stride": 2}),
        ({"name": "metaformer_s12", "embedding": {"name": "overlap", "stride": 4}}, {"stride": 2}),
        ({"name": "metaformer_nano"}, {"kernel_size": 2, "stride": 2, "padding": "end"}),
    ],
)
def test_stem_of_stride_two(options: dict[str, Any], first: dict[str, Any]) -> None:
    stem, *_ = ModelConfig(**options, stem_stride=2).configuration().stages
    assert stem.embedding.options == first


def test_a_stride_two_stem_doubles_the_maps() -> None:
    assert reductions(name="metaformer_s12", stem_stride=2) == [(2, 2), (4, 4), (8, 8), (16, 16)]
    assert reductions(name="metaformer_s12", spatial_dims=3, stem_stride=[1, 2, 2])[0] == (1, 2, 2)
    stem = ModelConfig(name="caformer_s18", stem_stride=2).configuration().stages[0].embedding
    assert stem.options["norm"] == {"name": "layer_norm", "eps": 1e-6, "bias": False}  # the rest of the stem stays


def test_a_stem_of_several_convolutions_has_no_stride_to_change() -> None:
    with pytest.raises(UserError, match="a stem with a stride, got 'conv_stack', try embedding: conv"):
        create_model("ffnet_1", stem_stride=2)
    assert reductions(name="ffnet_1", embedding="conv", stem_stride=2)[0] == (2, 2)


def test_in_study_files_and_hashes() -> None:
    plain = {"mixers": ["pooling"], "model": {"name": "metaformer_nano", "embedding": "coord_mlp+conv"}, "seeds": 1}
    (run,) = StudyConfig.of(plain).runs()
    assert run.model.embedding == "coord_mlp+conv"
    listed = StudyConfig.of({**plain, "model": {"embedding": ["none", "conv", "conv", "conv"], "stem_stride": 1}})
    assert listed.runs()[0].model.embedding == ["none", "conv", "conv", "conv"]
    bare = RunConfig(model=ModelConfig(), data=DataConfig())
    assert "embedding" not in bare.hashed("x")["model"]  # finished runs keep their hash
    assert bare.hash("x") != run.hash("x")


def test_on_the_command_line() -> None:
    parser = make_parser("train", "")
    add_fields(parser, RunConfig)
    for words, want in (
        (["--model.embedding", "none"], "none"),
        (["--model.embedding=coord_mlp+conv"], "coord_mlp+conv"),
        (["--model.embedding", "none,conv,conv,conv"], ["none", "conv", "conv", "conv"]),
        (["--model.embedding", '{"name": "coord_mlp", "hidden": 8}'], {"name": "coord_mlp", "hidden": 8}),
    ):
        assert RunConfig.of(parse(parser, words)).model.embedding == want


def test_unknown_embeddings_name_the_nearest() -> None:
    with pytest.raises(UserError, match="try 'coord_mlp'"):
        create_model("metaformer_nano", embedding="coord_mpl")


def test_a_position_goes_to_the_stages_of_the_mixer_under_study(tmp_path: Path) -> None:
    """The study's full attention; weights without the position are loaded, and the report says that it is new."""
    options: dict[str, Any] = {"token_mixer": "attention", "stages": "PPTT", "position": "learned", "image_size": 32}
    model: Any = create_model("metaformer_nano", **options)
    assert [k for k in model.state_dict() if "position" in k] == [f"stages.{s}.position.embedding" for s in (2, 3)]
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        model.eval().stages[2].position.embedding.normal_()
        with_position = model(x)
        model.stages[2].position.embedding.zero_()
        model.stages[3].position.embedding.zero_()
        assert not torch.allclose(with_position, model(x))
    plain = create_model("metaformer_nano")
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    loaded = create_model("metaformer_nano", pretrained=tmp_path / "plain.pth", **options)
    said = "".join(e["message"] for e in loaded.events if e["kind"] == "weights")
    assert "new stages.2.position.embedding: another position" in said
