"""Checkpoint files: opening, unwrapping, refusing, loading with a report that accounts for every entry."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab import create_model
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer
from mixlab.weights import load_pretrained, open_checkpoint, to_official
from mixlab.weights.loading import other_channels

NAME = "poolformer_s12"


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return to_official(create_model(NAME))


def saved(folder: Path, content: Any, name: str = "official.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def report_of(model: MetaFormer) -> str:
    return next(e["message"] for e in model.events if e["kind"] == "weights")


WRAPPED: dict[str, Any] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"lr": 0.1}},
    "model_ema": lambda s: {"model": {k: v + 1 for k, v in s.items()}, "model_ema": s},
    "nested": lambda s: {"state_dict": {"model": s}},
    "parallel": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_wrappers_are_opened(wrapping: str, official: dict[str, Tensor], tmp_path: Path) -> None:
    model = create_model(NAME, pretrained=saved(tmp_path, WRAPPED[wrapping](official)))
    got = to_official(model)
    assert all(torch.equal(got[k], v) for k, v in official.items())
    assert f"{len(official)} kept, 0 adapted, 0 new, 0 dropped" in report_of(model)


def test_which_of_several_entries_is_said_and_can_be_chosen(official: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(tmp_path, {"model": official, "model_ema": {k: v + 1 for k, v in official.items()}})
    opened = open_checkpoint(path)
    assert (opened.entry, opened.others) == ("model_ema", ("model",))
    assert "official.pth (model_ema), not model" in opened.source
    plain = open_checkpoint(path, entry="model")
    assert torch.equal(plain.state["head.bias"], official["head.bias"])
    with pytest.raises(UserError, match="an entry of the file"):
        open_checkpoint(path, entry="modle")


def test_safetensors(official: dict[str, Tensor], tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "official.safetensors"
    safetensors.save_file(official, path)
    assert "132 kept" in report_of(create_model(NAME, pretrained=path))


def test_a_file_of_our_own(tmp_path: Path) -> None:
    first = create_model("metaformer_nano", token_mixer="conv", num_classes=3, in_channels=1)
    path = saved(tmp_path, first.state_dict())
    second = create_model("metaformer_nano", token_mixer="conv", num_classes=3, in_channels=1, pretrained=path)
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


class Trap:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("a checkpoint ran this",))


@pytest.mark.parametrize(("content", "reason"), [(argparse.Namespace(lr=0.1), "argparse.Namespace"), (Trap(), "print")])
def test_a_pickle_that_needs_more_is_refused_with_the_reason(
    content: Any, reason: str, official: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, {"model": official, "args": content})
    with pytest.raises(UserError, match=f"tensors and plain values, got one whose pickle needs {reason}, try"):
        create_model(NAME, pretrained=path)
    assert "ran this" not in capsys.readouterr().out


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a checkpoint file"):
        create_model(NAME, pretrained=tmp_path / "absent.pth")
    (tmp_path / "page.pth").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"weights page\.pth: expected a file"):
        create_model(NAME, pretrained=tmp_path / "page.pth")
    with pytest.raises(UserError, match=r"a state dict, alone or in .*got \['epoch'\]"):
        create_model(NAME, pretrained=saved(tmp_path, {"epoch": 3}))


def test_what_was_asked_to_differ_is_adapted_and_said(official: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(tmp_path, official)
    model = create_model(NAME, pretrained=path, num_classes=5, in_channels=1)
    assert "129 kept, 1 adapted, 2 new, 2 dropped" in report_of(model)
    assert "new head.fc.weight: 5 classes" in report_of(model)
    x = torch.randn(1, 1, 64, 64)
    published = create_model(NAME, pretrained=path)
    want = published.forward_features(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(model.forward_features(x), want, atol=1e-4, rtol=1e-4)
    features = create_model(NAME, pretrained=path, features_only=True)
    assert "128 kept, 0 adapted, 0 new, 4 dropped" in report_of(features)
    swapped = create_model(NAME, pretrained=path, token_mixer="sep_conv", stages="PPTT")
    assert "132 kept, 0 adapted, 16 new, 0 dropped" in report_of(swapped)
    assert "another token mixer" in report_of(swapped)


def test_a_mixer_that_was_taken_out_is_dropped(tmp_path: Path) -> None:
    path = saved(tmp_path, to_official(create_model("metaformer_ppaa_s12_224")))
    model = create_model("metaformer_ppaa_s12_224", pretrained=path, token_mixer="pooling")
    assert "24 dropped" in report_of(model)
    assert "dropped stages.2.blocks.0.token_mixer.qkv.weight: another token mixer" in report_of(model)


@pytest.mark.parametrize("name", ["caformer_s18", "ffnet_1", "transnext_micro", "rmt_t"])
def test_a_mixer_in_anothers_place_is_fresh(name: str, tmp_path: Path) -> None:
    """Also where names and shapes happen to agree: attention and local attention both have ``qkv``."""
    torch.manual_seed(0)
    path = saved(tmp_path, to_official(create_model(name)))
    model = create_model(name, pretrained=path, token_mixer={"name": "local_attention"}, drop_path_rate=0.0)
    entries = len([k for k in model.state_dict() if ".token_mixer." in k])
    assert f"0 adapted, {entries} new" in report_of(model)
    assert model(torch.randn(1, 3, 64, 64)).isfinite().all()


def test_other_options_of_the_same_mixer_keep_their_weights(tmp_path: Path) -> None:
    path = saved(tmp_path, to_official(create_model("convformer_s18")))
    model = create_model("convformer_s18", pretrained=path, kernel_size=5)
    assert "18 new, 18 dropped" in report_of(model)  # the kernels alone
    rmt = saved(tmp_path, to_official(create_model("rmt_t")), "rmt.pth")
    other = {"name": "manhattan_attention", "head_dim": 32, "decay_range": 3.0}
    assert "366 kept, 0 adapted, 0 new, 0 dropped" in report_of(
        create_model("rmt_t", pretrained=rmt, token_mixer=other)
    )
    wrong = {**to_official(create_model("rmt_t")), "layers.0.Relpos.decay": torch.zeros(4)}
    with pytest.raises(UserError, match=r"layers\.0\.Relpos\.decay.*as this architecture has it"):
        create_model("rmt_t", pretrained=saved(tmp_path, wrong))


def test_a_head_is_dropped_only_when_that_was_asked(tmp_path: Path) -> None:
    plain = saved(tmp_path, to_official(create_model("rmt_s")))
    labelled = saved(tmp_path, to_official(create_model("rmt_s_tl")), "labelled.pth")
    with pytest.raises(UserError, match=r"head\.aux\.weight missing"):
        create_model("rmt_s_tl", pretrained=plain)
    with pytest.raises(UserError, match=r"head\.aux\.weight left over"):
        create_model("rmt_s", pretrained=labelled)
    report = report_of(create_model("rmt_s_tl", pretrained=labelled, num_classes=4))
    assert "4 new, 4 dropped" in report  # both classifiers, and nothing else of the head
    assert "2 dropped" in report_of(create_model("rmt_s", pretrained=plain, num_classes=0))
    mlp = saved(tmp_path, to_official(create_model("caformer_s18")), "caformer.pth")
    assert "6 new, 6 dropped" in report_of(create_model("caformer_s18", pretrained=mlp, num_classes=7))
    headless = {k: v for k, v in to_official(create_model(NAME)).items() if not k.startswith(("head.", "norm."))}
    with pytest.raises(UserError, match=r"head\.fc\.weight missing"):
        create_model(NAME, pretrained=saved(tmp_path, headless))


def test_a_position_embedding_is_resized_with_the_images(tmp_path: Path) -> None:
    name = "metaformer_ppaa_s12_224"
    path = saved(tmp_path, to_official(create_model(name)))
    model = create_model(name, pretrained=path, image_size=(160, 96))
    assert "adapted stages.2.position.embedding: bilinear from a grid of (14, 14) to (10, 6)" in report_of(model)


def test_norms_of_dense_checkpoints(official: dict[str, Tensor], tmp_path: Path) -> None:
    dense = to_official(create_model(NAME, features_only=True, out_norm="group_norm"))
    assert {"norm0.weight", "norm6.bias"} <= set(dense)
    path = saved(tmp_path, dense)
    assert "136 kept" in report_of(create_model(NAME, pretrained=path, features_only=True, out_norm="group_norm"))
    with pytest.raises(UserError, match=r"out_norms\.0\.weight left over.*try out_norm='group_norm'"):
        create_model(NAME, pretrained=path, features_only=True)


@pytest.mark.parametrize("content", [b"", b"hello", b"<html>404</html>", b"\x80\x02nothing"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_bytes_are_refused_in_words(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"page{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"page.{suffix[1:]}: expected a "):
        open_checkpoint(path)


def test_anything_not_announced_raises(official: dict[str, Tensor], tmp_path: Path) -> None:
    broken = {k: v for k, v in official.items() if k != "network.0.0.norm1.bias"}
    with pytest.raises(UserError, match=r"stages\.0\.blocks\.0\.norm1\.bias missing"):
        create_model(NAME, pretrained=saved(tmp_path, broken))
    with pytest.raises(UserError, match=r"surplus left over"):
        create_model(NAME, pretrained=saved(tmp_path, {**official, "surplus": torch.zeros(1)}))
    with pytest.raises(UserError, match=r"and \d+ more"):
        create_model("poolformer_s24", pretrained=saved(tmp_path, official))
    wider = create_model("poolformer_m36")
    with pytest.raises(UserError, match=r"of shape \(64.* for \(96"):
        load_pretrained(wider, saved(tmp_path, official))


def test_a_model_without_official_names() -> None:
    with pytest.raises(UserError, match="a model of a published architecture"):
        to_official(create_model("metaformer_nano"))
    with pytest.raises(UserError, match="a 2D model"):
        to_official(create_model(NAME, spatial_dims=3))


def test_other_channels_keep_the_answer_to_copies() -> None:
    weight, image = torch.randn(4, 3, 7, 7), torch.randn(1, 1, 9, 9)
    want = torch.nn.functional.conv2d(image.expand(-1, 3, -1, -1), weight)
    one = torch.nn.functional.conv2d(image, other_channels(weight, 1))
    torch.testing.assert_close(one, want, atol=1e-4, rtol=1e-4)
    six = torch.nn.functional.conv2d(image.expand(-1, 6, -1, -1), other_channels(weight, 6))
    torch.testing.assert_close(six, want, atol=1e-4, rtol=1e-4)
    assert other_channels(weight, 4).shape == (4, 4, 7, 7)
