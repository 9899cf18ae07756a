"""Checkpoints from a URL and from timm's hub: downloaded once, checked, and refused in one line when offline."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixlab import create_model
from mixlab.architectures import ARCHITECTURES, published
from mixlab.errors import UserError
from mixlab.weights import to_official
from mixlab.weights.sources import identity, open_source, timm_name

NAME = "poolformer_s12"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, counts what it is asked for, and says nothing."""

    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A server's address and the folder that it serves; downloads go to a folder of the test's own."""
    served = tmp_path / "served"
    served.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    Quiet.asked = []
    handler = functools.partial(Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", served
        httpd.shutdown()
        thread.join()


def nano_file(path: Path) -> dict[str, Tensor]:
    torch.manual_seed(7)
    state = create_model("metaformer_nano", num_classes=3).state_dict()
    torch.save(state, path)
    return state


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_url_is_downloaded_once(server: tuple[str, Path]) -> None:
    address, served = server
    state = nano_file(served / "nano.pth")
    for _ in range(2):
        model = create_model("metaformer_nano", num_classes=3, pretrained=f"{address}/nano.pth")
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert Quiet.asked == ["/nano.pth"]
    assert "weights from nano.pth: " in model.events[-1]["message"]


def test_files_of_one_name_are_kept_apart(server: tuple[str, Path]) -> None:
    address, served = server
    for folder in ("a", "b"):
        (served / folder).mkdir()
        torch.save({"x": torch.full((1,), float(ord(folder)))}, served / folder / "model.pth")
    for folder in ("a", "b"):
        assert open_source(f"{address}/{folder}/model.pth", None).state["x"].item() == ord(folder)


def test_the_hash_in_a_url_is_checked(server: tuple[str, Path]) -> None:
    address, served = server
    nano_file(served / "nano.pth")
    good = sha256(served / "nano.pth")
    url = f"{address}/nano.pth"
    with pytest.raises(UserError, match=r"expected a file that can be downloaded, got invalid hash value"):
        open_source(f"{url}#sha256={'0' * 64}", None)
    assert identity(f"{url}#sha256={good}") == good == identity(served / "nano.pth")
    with pytest.raises(UserError, match="a file whose SHA-256 begins with 00000000"):  # now from the cache
        open_source(f"{url}#sha256={'0' * 64}", None)
    named = served / f"nano-{good[:8]}.pth"
    named.write_bytes((served / "nano.pth").read_bytes())
    assert open_source(f"{address}/{named.name}", None).path.name == named.name
    wrong = served / "nano-deadbeef.pth"
    wrong.write_bytes(named.read_bytes())
    with pytest.raises(UserError, match="invalid hash value"):
        open_source(f"{address}/{wrong.name}", None)
    with pytest.raises(UserError, match="after #sha256= hexadecimal digits"):
        open_source(f"{url}#sha256=xyz", None)


def test_no_connection_and_no_page_are_said_in_one_line(server: tuple[str, Path]) -> None:
    address, _ = server
    with pytest.raises(
        UserError, match=r"a file that can be downloaded, got HTTP Error 404.*give the file's path"
    ) as error:
        create_model("metaformer_nano", pretrained=f"{address}/absent.pth")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"absent.pth: expected a file that can be downloaded, got .*refused"):
        create_model("metaformer_nano", pretrained="http://127.0.0.1:9/absent.pth")


def test_a_page_that_is_no_checkpoint_is_refused(server: tuple[str, Path]) -> None:
    address, served = server
    (served / "page.pth").write_text("<html>sign in</html>")
    with pytest.raises(UserError, match="a file written by"):
        create_model("metaformer_nano", pretrained=f"{address}/page.pth")


def timm_with(state: dict[str, Tensor] | Exception, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """timm whose hub gives these official weights, or fails; returns the names that it will be asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timm = pytest.importorskip("timm")
        metaformer = pytest.importorskip("timm.models.metaformer")
    asked: list[str] = []
    create = timm.create_model

    def from_hub(name: str, pretrained: bool = False) -> Any:
        assert pretrained
        asked.append(name)
        if isinstance(state, Exception):
            raise state
        model = create(name)
        model.load_state_dict(metaformer.checkpoint_filter_fn(dict(state), model))
        return model

    monkeypatch.setattr(timm, "create_model", from_hub)
    return asked


@pytest.mark.parametrize("name", [NAME, "poolformerv2_s12", "convformer_s18", "caformer_s18"])
def test_weights_of_timms_hub_come_back_under_official_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    official = to_official(create_model(name))
    asked = timm_with(official, monkeypatch)
    model = create_model(name, pretrained=True)
    assert asked == [f"{name}.sail_in1k"]
    got = to_official(model)
    assert all(torch.equal(got[k], v) for k, v in official.items())
    assert f"{len(official)} kept, 0 adapted, 0 new, 0 dropped" in model.events[-1]["message"]
    other = create_model(name, pretrained=f"timm:{name}.sail_in1k", num_classes=5, in_channels=1)
    assert f"weights from timm:{name}.sail_in1k" in other.events[-1]["message"]
    assert "5 classes" in other.events[-1]["message"]


def test_another_model_of_the_hub_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    timm_with(to_official(create_model(NAME)), monkeypatch)
    with pytest.raises(UserError, match=r"weights timm:poolformer_s12: expected the weights of poolformer_s24"):
        create_model("poolformer_s24", pretrained="timm:poolformer_s12")
    with pytest.raises(UserError, match=r"a model of poolformer, .*got MetaFormer for metaformer_nano"):
        create_model("metaformer_nano", pretrained="timm:poolformer_s12")


@pytest.mark.parametrize(
    "problem", [OSError("We couldn't connect to the hub.\nTry later."), RuntimeError("Unknown model")]
)
def test_a_hub_that_does_not_answer_is_said_in_one_line(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    timm_with(problem, monkeypatch)
    with pytest.raises(UserError, match=r"weights that timm can load, got .*the path of a file") as error:
        create_model(NAME, pretrained="official")
    assert "\n" not in str(error.value)


def test_names_in_timms_hub_exist() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timm = pytest.importorskip("timm")
        hosted = set(timm.list_pretrained())
    known = [n for n in ARCHITECTURES if n.split("_")[0] in ("poolformer", "poolformerv2", "convformer", "caformer")]
    assert len(known) == 26
    assert {timm_name(n) for n in known} <= hosted


def test_models_without_a_known_source_say_where_theirs_are() -> None:
    for name in ("rmt_t", "ffnet_1", "transnext_micro", "identityformer_s12"):
        said = published(name)
        assert said is not None
        with pytest.raises(UserError, match=f"no URL known for {name}, try a file from github.com/{said.repository}"):
            create_model(name, pretrained=True)
    with pytest.raises(UserError, match=r"no URL known for metaformer_nano, try pretrained='my_weights"):
        create_model("metaformer_nano", pretrained=True)
    with pytest.raises(UserError, match=r"expected a checkpoint file, got 'absent.pth', try .*timm:NAME"):
        create_model("metaformer_nano", pretrained="absent.pth")
