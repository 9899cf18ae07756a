"""Every published architecture: sizes and costs; what needs time, of those that differ in more than depth."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mixlab.architectures import ARCHITECTURES, published
from mixlab.errors import UserError
from mixlab.metaformer import MetaFormer
from mixlab.models import ModelConfig, create_model
from mixlab.weights import to_official
from tests.architectures.kinds import layers, parts, smallest, with_depth
from tests.architectures.sizes import FUSED_PARAMETERS, KEYS, MACS, PARAMETERS

NAMES = list(ARCHITECTURES)
DISTINCT = smallest(NAMES, layers)
WHOLE = smallest(DISTINCT, parts)  # at full depth


def on_meta(name: str, **options: object) -> MetaFormer:
    """The model without memory for its parameters."""
    with torch.device("meta"):
        return create_model(name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    model = on_meta(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert model.cost((224, 224)).parameters == PARAMETERS[name]


def test_every_published_model_is_checked() -> None:
    assert {n for n in NAMES if published(n) is not None} - set(PARAMETERS) == {f"rmt_{s}_tl" for s in "sbl"}


@pytest.mark.parametrize("name", FUSED_PARAMETERS)
def test_parameters_of_the_deployment_form(name: str) -> None:
    assert sum(p.numel() for p in create_model(name).eval().fuse().parameters()) == FUSED_PARAMETERS[name]


@pytest.mark.parametrize("name", KEYS)
def test_official_entries(name: str) -> None:
    assert len(to_official(on_meta(name))) == KEYS[name]


@pytest.mark.parametrize("name", MACS)
def test_macs_are_those_measured_on_the_official_code(name: str) -> None:
    size, measured = MACS[name]
    assert on_meta(name).cost((size, size)).macs_computed / 1e9 == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("name", [n for n in NAMES if (p := published(n)) is not None and p.macs is not None])
def test_macs_are_near_the_published_ones(name: str) -> None:
    said = published(name)
    assert said is not None
    size = (said.image_size,) * 2
    assert on_meta(name).cost(size).macs_computed / 1e9 == pytest.approx(said.macs, rel=0.085)


@pytest.mark.parametrize("name", DISTINCT)
def test_macs_are_half_of_torchs_flops(name: str) -> None:
    """Exactly, on the reference path, at a size that is not square where the model allows."""
    base = ARCHITECTURES[name]()
    size = (224, 224) if base.image_size else (160, 224)
    with torch.device("meta"):
        model = MetaFormer(base if name in WHOLE else with_depth(base, 2)).eval().requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "backend"):
            module.backend = "reference"  # type: ignore[assignment]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.empty(1, 3, *size, device="meta"))
    assert counter.get_total_flops() == 2 * model.cost(size).macs_computed


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTINCT)
def test_one_training_step(name: str) -> None:
    """A finite gradient on every trainable parameter, and none on the others."""
    size = 64
    config = ModelConfig(name=name, image_size=size, drop_path_rate=0.0).configuration(num_classes=5)
    model = MetaFormer(config if name in WHOLE else with_depth(config, 2)).train()
    torch.manual_seed(0)
    torch.nn.functional.cross_entropy(model(torch.randn(2, 3, size, size)), torch.tensor([0, 3])).backward()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
        else:
            assert parameter.grad is None, key
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    optimiser.step()
    assert all(p.isfinite().all() for p in model.parameters())


GRIDS = [n for n in NAMES if ARCHITECTURES[n]().image_size is not None]


@pytest.mark.parametrize("name", [n for n in DISTINCT if n not in GRIDS])
def test_any_size_of_at_least_one_token_a_stage(name: str) -> None:
    with torch.device("meta"):
        model = MetaFormer(with_depth(ARCHITECTURES[name](), 1)).eval()
    for size in ((32, 32), (33, 97), (61, 256)):
        assert model(torch.empty(1, 3, *size, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize("name", GRIDS)
def test_parts_of_one_grid_refuse_others_and_name_the_option(name: str) -> None:
    with pytest.raises(UserError, match="image_size"):
        on_meta(name).eval()(torch.empty(1, 3, 160, 224, device="meta"))
    model = on_meta(name, image_size=(160, 224)).eval()
    assert model(torch.empty(1, 3, 160, 224, device="meta")).shape == (1, 1000)
