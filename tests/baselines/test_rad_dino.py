"""RAD-DINO as a comparison arm, with random weights in the layout of the published file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mixlab.baselines import make_baseline
from mixlab.baselines import rad_dino as module
from mixlab.errors import UserError

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 4}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same network with two narrow blocks."""
    create = timm.create_model

    def small(name: str, **options: Any) -> Any:
        assert name == "vit_base_patch14_dinov2"
        return create(name, **options, **SMALL)

    monkeypatch.setattr(timm, "create_model", small)


def rad_dino(*, classes: int = 3, channels: int = 3, image_size: Any = 70, **options: Any) -> Any:
    return make_baseline(
        "rad_dino",
        num_classes=classes,
        in_channels=channels,
        spatial_dims=2,
        options={"image_size": image_size, **options},
    )


@pytest.fixture
def published(tmp_path: Path) -> Any:
    """A model of Hugging Face's with drawn weights, and its folder."""
    config = transformers.Dinov2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=70, patch_size=14
    )
    model = transformers.Dinov2Model(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "rad-dino")
    return model, tmp_path / "rad-dino"


def older_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of attention that files of 2024 have."""
    old = {
        "q_proj": "attention.query",
        "k_proj": "attention.key",
        "v_proj": "attention.value",
        "o_proj": "output.dense",
    }
    made = {}
    for key, value in state.items():
        for new, name in old.items():
            key = key.replace(f"attention.{new}", f"attention.{name}")
        made[key] = value
    return made


def test_it_is_hugging_faces(published: Any) -> None:
    theirs, folder = published
    ours = rad_dino().eval()
    report = ours.load(folder)
    assert set(report.new) == {"head.weight", "head.bias"} == ours.new_parameters
    assert not report.adapted
    assert not report.dropped
    assert report.notes == ["embeddings.mask_token left out: it hides patches in pre-training"]
    x = torch.randn(2, 3, 70, 70)
    with torch.no_grad():
        want = theirs(pixel_values=x).pooler_output
    torch.testing.assert_close(ours.forward_features(x), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("names", [dict, older_names])
def test_names_of_files(published: Any, names: Any, tmp_path: Path) -> None:
    theirs, folder = published
    first, second = rad_dino(), rad_dino()
    first.load(folder / "model.safetensors")
    torch.save(names(theirs.state_dict()), tmp_path / "old.bin")
    second.load(tmp_path / "old.bin")
    assert all(torch.equal(a, b) for a, b in zip(first.body.parameters(), second.body.parameters(), strict=True))


def test_the_layout_of_dinov2s_repository(published: Any, tmp_path: Path) -> None:
    first, second = rad_dino(), rad_dino()
    first.load(published[1])
    state = dict(first.body.state_dict())
    own = {k: v for k, v in state.items() if k != "pos_embed"} | {"pos_embed": state["pos_embed"]}
    torch.save({**own, "mask_token": torch.zeros(1, 48)}, tmp_path / "dinov2.pth")
    second.load(tmp_path / "dinov2.pth")
    assert all(torch.equal(a, b) for a, b in zip(first.body.parameters(), second.body.parameters(), strict=True))


def test_other_sizes_and_channels(published: Any) -> None:
    model = rad_dino(image_size=(42, 56), channels=1).eval()
    report = model.load(published[1])
    assert "pos_embed resized by timm from (1, 26, 48) to (1, 13, 48)" in report.notes
    assert list(report.adapted) == ["body.patch_embed.proj.weight"]
    assert model(torch.randn(2, 1, 42, 56)).shape == (2, 3)


def test_only_the_probe_learns() -> None:
    model = rad_dino().train()
    assert not model.body.training
    model(torch.randn(2, 3, 70, 70)).sum().backward()
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {"head.weight", "head.bias"}
    assert "frozen" in model.events[0]["message"]


def test_cost_counts_the_frozen_network() -> None:
    cost = rad_dino().cost((70, 70))
    tokens, width = 26, 48
    block = 12 * width * width * tokens + 2 * tokens * tokens * width
    assert cost.macs_computed == 2 * block + 25 * width * 3 * 14 * 14 + 3 * width


def test_absent_files_are_told(tmp_path: Path) -> None:
    for place, what in ((tmp_path / "absent.safetensors", "no file"), (tmp_path, "no model.safetensors or")):
        with pytest.raises(UserError, match=f"expected a local file or folder, got {what}.*huggingface.co"):
            rad_dino().load(place)
    assert "microsoft/rad-dino" in module.RadDino.needs_weights


def test_other_networks_are_refused(tmp_path: Path) -> None:
    torch.save({"embeddings.cls_token": torch.zeros(1, 1, 48)}, tmp_path / "w.bin")
    with pytest.raises(UserError, match="every entry to fit rad_dino"):
        rad_dino().load(tmp_path / "w.bin")


def test_bad_options() -> None:
    with pytest.raises(UserError, match="multiples of 14, got 64, try 70"):
        rad_dino(image_size=64)
    with pytest.raises(UserError, match="no blocks whose parts"):
        rad_dino(token_mixer="conv")
    with pytest.raises(UserError, match="one resolution"):
        make_baseline("rad_dino", num_classes=2, in_channels=1, spatial_dims=2, features_only=True, options={})
