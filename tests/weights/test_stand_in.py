"""Stand-ins for published weights, and whether weights are at hand."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mixlab import create_model
from mixlab.errors import UserError
from mixlab.stand_in import weights_at_hand, write_stand_in
from mixlab.weights import open_checkpoint, to_official
from mixlab.weights.fill import values
from mixlab.weights.sources import identity

#: One model of each table of names, and of each way to have none.
MODELS = (
    "poolformer_s12", "poolformerv2_s12", "identityformer_s12", "convformer_s18", "caformer_s18",
    "metaformer_ppaa_s12_224", "ffnet_1", "transnext_micro", "rmt_t", "rmt_s_tl", "metaformer_nano", "resnet18",
)  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_entry_is_kept(name: str, tmp_path: Path) -> None:
    file = write_stand_in(name, tmp_path / "weights")
    assert file == tmp_path / "weights" / f"stand-in-{name}.pth"
    assert list(file.parent.iterdir()) == [file]
    model = create_model(name, pretrained=str(file))
    said = model.events[-1]["message"]
    assert f"weights from {file.name}: {len(model.state_dict())} kept, 0 adapted, 0 new, 0 dropped" in said
    assert model.new_parameters == set()
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, 224, 224)).isfinite().all()


def test_names_and_numbers_are_those_of_the_parity_vectors(tmp_path: Path) -> None:
    state = open_checkpoint(write_stand_in("poolformer_s12", tmp_path)).state
    assert state.keys() == to_official(create_model("poolformer_s12")).keys()
    key = "network.0.0.mlp.fc1.weight"
    torch.testing.assert_close(state[key], torch.from_numpy(values(key, tuple(state[key].shape))).float())


@pytest.mark.parametrize("name", ["poolformer_s12", "resnet18"])
def test_each_time_the_same_bytes_and_no_random_numbers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = write_stand_in(name, tmp_path / "a")
    drawn = torch.randn(3)
    torch.manual_seed(1)
    assert torch.equal(torch.randn(3), drawn)
    torch.manual_seed(2)
    second = write_stand_in(name, tmp_path / "b")
    assert identity(first) == identity(second)
    assert write_stand_in(name, tmp_path / "b") == second  # over a former one


@pytest.mark.parametrize("kernel", [3, 5])
def test_windows_of_resnet18(kernel: int, tmp_path: Path) -> None:
    """The published 3x3 goes into larger windows; a file of larger windows is one of its own."""
    published, own = write_stand_in("resnet18", tmp_path), write_stand_in("resnet18", tmp_path, kernel_size=kernel)
    assert own.name == f"stand-in-resnet18-k{kernel}.pth"
    adapted = create_model("resnet18", kernel_size=kernel, pretrained=str(published), num_classes=4)
    assert ("0 adapted" in adapted.events[-1]["message"]) == (kernel == 3)
    assert "0 adapted, 0 new" in create_model("resnet18", kernel_size=kernel, pretrained=str(own)).events[-1]["message"]


def test_networks_of_timm(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    file = write_stand_in("timm:resnet10t", tmp_path)
    assert file.name == "stand-in-timm-resnet10t.pth"
    model = create_model("timm:resnet10t", pretrained=str(file))
    assert f"{len(model.state_dict())} kept, 0 adapted, 0 new, 0 dropped" in model.events[-1]["message"]


def test_rad_dino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create = timm.create_model
    small = {"embed_dim": 48, "depth": 2, "num_heads": 4}
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options, **small))
    file = write_stand_in("rad_dino", tmp_path)
    model = create_model("rad_dino", pretrained=str(file), image_size=518, num_classes=3)
    assert model.new_parameters == {"head.weight", "head.bias"}  # the published file has no classifier either
    assert "0 adapted, 2 new, 0 dropped" in model.events[-1]["message"]
    smaller = create_model("rad_dino", pretrained=str(file), image_size=70, num_classes=3)
    assert "pos_embed resized by timm" in smaller.events[-1]["message"]


def test_what_has_no_stand_in(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'poolformer_s12'"):
        write_stand_in("poolformer_s21", tmp_path)
    with pytest.raises(UserError, match="kernel_size: expected none, got 5"):
        write_stand_in("convformer_s18", tmp_path, kernel_size=5)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of torch's and Hugging Face's hubs, and no network."""

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("timm")
        hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def into_hub(caches: Path, repository: str, file: str = "model.safetensors") -> Path:
    """A file in the cache, as the hub's client lays it there."""
    folder = caches / "hub" / f"models--{repository.replace('/', '--')}"
    for place in ("refs", "snapshots/abc"):
        (folder / place).mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc" / file).touch()
    return folder / "snapshots" / "abc" / file


def test_files(tmp_path: Path) -> None:
    (tmp_path / "here.pth").touch()  # broken, but there: loading must refuse it
    assert weights_at_hand(tmp_path / "here.pth", "poolformer_s12")
    assert not weights_at_hand(str(tmp_path / "absent.pth"), "poolformer_s12")


def test_urls(caches: Path) -> None:
    url = "https://example.org/weights/nano.pth"
    assert not weights_at_hand(url, "metaformer_nano")
    folder = caches / "torch" / "hub" / "checkpoints" / "mixlab" / hashlib.sha256(url.encode()).hexdigest()[:12]
    folder.mkdir(parents=True)
    torch.save(create_model("metaformer_nano").state_dict(), folder / "nano.pth")
    assert weights_at_hand(url, "metaformer_nano")
    create_model("metaformer_nano", pretrained=url)  # that is where it is looked for


@pytest.mark.parametrize(
    ("source", "architecture", "repository"),
    [
        ("official", "poolformer_s12", "timm/poolformer_s12.sail_in1k"),
        ("official", "caformer_s18_384", "timm/caformer_s18.sail_in1k_384"),
        ("official", "resnet18", "timm/resnet18.a1_in1k"),
        ("official", "timm:convnext_tiny", "timm/convnext_tiny.in12k_ft_in1k"),
        ("timm:resnet18.a2_in1k", "resnet18", "timm/resnet18.a2_in1k"),
        ("timm:hf-hub:me/mine", "timm:convnext_tiny", "me/mine"),
    ],
)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_hubs(source: str, architecture: str, repository: str, file: str, caches: Path) -> None:
    assert not weights_at_hand(source, architecture)
    into_hub(caches, repository, file)
    assert weights_at_hand(source, architecture)


def test_what_is_said_to_be_at_hand_is_loaded_from_there(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    stand_in = open_checkpoint(write_stand_in("resnet18", caches)).state
    safetensors.save_file(stand_in, into_hub(caches, "timm/resnet18.a1_in1k"))
    assert weights_at_hand("official", "resnet18")
    model = create_model("resnet18", pretrained="official")
    assert all(torch.equal(v, stand_in[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("source", "architecture", "message"),
    [
        ("official", "rmt_t", "no URL known for rmt_t"),
        ("official", "rad_dino", "no URL is known"),
        ("timm:resnet19", "resnet18", r"a name of timm.list_pretrained\(\), got 'resnet19'"),
        ("timm:resnet18.nonsense", "resnet18", "timm.list_pretrained"),
        ("https://example.org/x.pth#sha256=xyz", "resnet18", "hexadecimal"),
    ],
)
def test_a_wrong_source_is_no_absence(source: str, architecture: str, message: str, caches: Path) -> None:
    with pytest.raises(UserError, match=message):
        weights_at_hand(source, architecture)
