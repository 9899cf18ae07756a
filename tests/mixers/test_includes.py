"""What mixers say of themselves is seen in what they do; a new mixer is tested by existing."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from mixlab.cli import main
from mixlab.errors import UserError
from mixlab.mixers import FACTS, MIXERS, Mixer, mixer_info, register_mixer
from tests.mixers.cases import DIM, make

NAMES = list(MIXERS)
GRID = (7, 7)
CENTRE = (3, 3)
FAR = {"position": 0, "window": 1, "two windows": 2, "global": 3}  # with windows of 3, as the small mixers have


def small(name: str, **options: object) -> Mixer:
    """With parameters that are all drawn, none zero."""
    mixer = make(name, 2, grid=GRID, **options).double().eval()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter)
    return mixer


def run(mixer: Mixer, x: Tensor) -> Tensor:
    out = mixer(x)
    return (out[0] if isinstance(out, tuple) else out).detach()


@pytest.mark.parametrize("name", NAMES)
def test_all_facts_are_told(name: str) -> None:
    info = mixer_info(name)
    assert set(FACTS) <= set(info)
    assert all(info[fact] is not None for fact in FACTS)


@pytest.mark.parametrize("name", NAMES)
def test_without_position_neighbours_may_change_places(name: str) -> None:
    """Only then the result at the centre stays when all others that it sees are exchanged."""
    mixer, x = small(name), torch.randn(1, DIM, *GRID, dtype=torch.float64)
    far = FAR[mixer_info(name)["reach"]]
    around = [p for p in itertools.product(*(range(c - far, c + far + 1) for c in CENTRE)) if p != CENTRE]
    exchanged = x.clone()
    for (i, j), (k, m) in zip(around, around[1:] + around[:1], strict=True):
        exchanged[..., i, j] = x[..., k, m]
    change = (run(mixer, x) - run(mixer, exchanged))[0, :, CENTRE[0], CENTRE[1]].abs().max()
    assert (change < 1e-9).item() == (mixer_info(name)["position"] == "none")


@pytest.mark.parametrize("name", NAMES)
def test_with_bias_zeros_do_not_stay_zeros(name: str) -> None:
    y = run(small(name), torch.zeros(1, DIM, *GRID, dtype=torch.float64))
    assert (y.abs().max() > 0).item() == mixer_info(name)["bias"]


@pytest.mark.parametrize("name", NAMES)
def test_projections_are_matrices_on_channels(name: str) -> None:
    def is_projection(module: nn.Module) -> bool:
        if isinstance(module, nn.modules.conv._ConvNd):
            return max(module.kernel_size) == 1 and module.groups == 1
        return isinstance(module, nn.Linear) and module.in_features == DIM

    assert any(map(is_projection, small(name).modules())) == mixer_info(name)["projections"]


@pytest.mark.parametrize("name", [n for n in NAMES if "subtract_input" in MIXERS.options(n)])
def test_the_option_subtracts_the_input(name: str) -> None:
    mixer, x = small(name, subtract_input=False), torch.randn(1, DIM, *GRID, dtype=torch.float64)
    other = small(name, subtract_input=True)
    other.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(run(other, x), run(mixer, x) - x)
    for value in (False, True):
        assert mixer_info(name, subtract_input=value)["subtracts_input"] is value


def test_facts_follow_options() -> None:
    assert mixer_info("conv")["bias"] is True
    assert mixer_info("conv", bias=False)["bias"] is False
    assert mixer_info("local_attention", proj_bias=False)["bias"] is False


def test_a_mixer_of_another_width_leaves_the_bias_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MIXERS, "_entries", dict(MIXERS._entries))

    @register_mixer("of_width_7")
    class OfWidth7(Mixer):
        """Takes seven channels."""

        def __init__(self, dim: int, *, spatial_dims: int = 2) -> None:
            super().__init__(dim, spatial_dims=spatial_dims)
            if dim != 7:
                raise UserError("width 7 only")

    assert mixer_info("of_width_7")["bias"] is None


def test_the_list_shows_every_fact(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", "mixers"]) == 0
    out = capsys.readouterr().out
    assert "…" not in out  # nothing is cut off on a narrow terminal
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line and line[0] != " "}
    for name in NAMES:
        info = mixer_info(name)
        said = [{True: "yes", False: "-", "none": "-"}.get(info[fact], info[fact]) for fact in FACTS]
        assert rows[name] == " ".join(said).split()
