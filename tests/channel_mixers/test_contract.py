"""What every channel mixer of the registry promises; a new one is tested by existing."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mixlab.channel_mixers import CHANNEL_MIXERS, ChannelMixer
from mixlab.errors import UserError
from tests.batch_norms import in_evaluation

NAMES = list(CHANNEL_MIXERS)
WINDOWED = [n for n in NAMES if "kernel_size" in CHANNEL_MIXERS.options(n)]
DIMS = (1, 2, 3)
SIZES = {1: (11,), 2: (7, 5), 3: (5, 3, 7)}
DIM = 6


def make(name: str, spatial_dims: int = 2, **options: object) -> ChannelMixer:
    """Of width 6, with trained batch norms, in evaluation mode."""
    return in_evaluation(CHANNEL_MIXERS[name](DIM, spatial_dims=spatial_dims, **options))


def is_pointwise(mixer: ChannelMixer) -> bool:
    return not any(isinstance(m, nn.modules.conv._ConvNd) and max(m.kernel_size) > 1 for m in mixer.modules())


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_gradients(name: str, spatial_dims: int) -> None:
    mixer = make(name, spatial_dims).train()
    x = torch.randn(2, DIM, *SIZES[spatial_dims], requires_grad=True)
    y = mixer(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    for key, parameter in [("input", x), *mixer.named_parameters()]:
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str, spatial_dims: int) -> None:
    mixer = make(name, spatial_dims).double()
    size = {1: (4,), 2: (3, 2), 3: (2, 1, 3)}[spatial_dims]
    x = torch.randn(1, DIM, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mixer, (x,))


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", NAMES)
def test_any_size_of_at_least_one_position(name: str, spatial_dims: int) -> None:
    mixer = make(name, spatial_dims)
    for size in ((1,) * spatial_dims, (2,) * spatial_dims, (1,) * (spatial_dims - 1) + (13,)):
        x = torch.randn(1, DIM, *size)
        assert mixer(x).shape == x.shape
        assert mixer(x).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    mixer, x = make(name), torch.randn(2, DIM, *SIZES[2])
    got = copy.deepcopy(mixer).to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), mixer(x), atol=0.03 if dtype == torch.bfloat16 else 1e-5, rtol=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_compiles_as_one_graph_and_exports_with_dynamic_size(name: str) -> None:
    mixer, x = make(name), torch.randn(2, DIM, *SIZES[2])
    want = mixer(x)
    torch.testing.assert_close(torch.compile(mixer, backend="aot_eager", fullgraph=True)(x), want)
    sizes = {2: torch.export.Dim("h", min=2, max=64), 3: torch.export.Dim("w", min=2, max=64)}
    program = torch.export.export(mixer, (x,), dynamic_shapes=(sizes,))
    for z in (x, torch.randn(2, DIM, 11, 9)):
        torch.testing.assert_close(program.module()(z), mixer(z))


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", NAMES)
def test_global_tokens_do_not_see_each_other(name: str, spatial_dims: int) -> None:
    mixer, tokens = make(name, spatial_dims), torch.randn(2, 3, DIM)
    got = mixer.forward_tokens(tokens)
    assert got.shape == tokens.shape
    for i in range(3):
        torch.testing.assert_close(mixer.forward_tokens(tokens[:, i : i + 1]), got[:, i : i + 1])
    if is_pointwise(mixer):
        line = tokens.transpose(1, 2).reshape(2, DIM, *(1,) * (spatial_dims - 1), 3)
        torch.testing.assert_close(mixer(line).flatten(2).transpose(1, 2), got)


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", NAMES)
def test_cost(name: str, spatial_dims: int) -> None:
    mixer, size = make(name, spatial_dims), SIZES[spatial_dims]
    with FlopCounterMode(display=False) as counter:
        mixer(torch.randn(1, DIM, *size))
    cost = mixer.cost(size)
    assert counter.get_total_flops() == 2 * cost.macs_computed
    assert cost.macs_needed == cost.macs_dense == cost.macs_computed
    assert cost.parameters == sum(p.numel() for p in mixer.parameters())
    assert cost.other_ops > 0
    assert cost.activations >= DIM * torch.Size(size).numel()


@pytest.mark.parametrize("name", NAMES)
def test_ratio_and_dropout(name: str) -> None:
    narrow, wide = (make(name, ratio=r).cost(SIZES[2]).parameters for r in (2.0, 4.0))
    assert narrow < wide
    with pytest.raises(UserError, match="at least one hidden channel"):
        make(name, ratio=0.01)
    mixer, x = make(name, dropout=0.5), torch.randn(2, DIM, *SIZES[2])
    assert torch.equal(mixer(x), mixer(x))
    assert not torch.equal(mixer.train()(x), mixer(x))


@pytest.mark.parametrize("name", WINDOWED)
def test_kernel_sizes(name: str) -> None:
    for kernel in (0, 2, -3, (3, 4)):
        with pytest.raises(UserError, match="kernel_size"):
            make(name, kernel_size=kernel)
    mixer = make(name, kernel_size=(3, 5)).double()
    x = torch.randn(1, DIM, 7, 11, dtype=torch.float64, requires_grad=True)
    mixer(x)[0, :, 3, 5].square().sum().backward()
    assert x.grad is not None
    seen = torch.zeros(7, 11, dtype=torch.bool)
    seen[2:5, 3:8] = True
    assert torch.equal(x.grad[0].abs().sum(0) > 0, seen)


@pytest.mark.parametrize("name", NAMES)
def test_copied_and_pickled_after_use(name: str) -> None:
    mixer, x = make(name), torch.randn(2, DIM, *SIZES[2])
    y = mixer(x)
    for twin in (copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
        assert torch.equal(twin(x), y)
        assert twin.state_dict().keys() == mixer.state_dict().keys()


@pytest.mark.parametrize("name", NAMES)
def test_documented(name: str) -> None:
    doc = CHANNEL_MIXERS[name].__doc__ or ""
    assert doc.strip().split("\n")[0].endswith(".")
    assert "Cost:" in doc
    assert "Source:" in doc
